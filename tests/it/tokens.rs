//! Device tokens: forged, stolen, used twice and revoked ones. None of them opens a session, on whichever node.

use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::acts::{act, act_as, paged};
use crate::support::login::{add, bearer};
use crate::support::minter::{Minter, forged, mutated, set};
use crate::support::raw::Seen;
use crate::support::size::tries;
use crate::support::token::{SECRET, now};
use crate::support::{Ask, Cluster, Device, End, Events, Server, Stores, Token, eventually, token, within};

/// The status of the answer to a handshake with this token.
async fn knock(server: &Server, token: &str) -> u16 {
    let answer = within("an answer to the handshake", Ask::with_token(token).send(server.addr)).await;
    answer.expect("an answer").map_or_else(|refusal| refusal.status, |_| 101)
}

fn claims(device: &str) -> Value {
    json!({"sub": device, "exp": now() + 3_600, "iat": now(), "aud": "lastpong"})
}

/// A node that knows the keys of two others who mint tokens, and its secret.
async fn with_keys(dir: &tempfile::TempDir, minters: &[&Minter], settings: &[(&str, &str)]) -> Server {
    let path = dir.path().join("keys.json");
    std::fs::write(&path, set(minters)).expect("a file");
    let path = path.to_string_lossy().into_owned();
    let keys = [("TOKEN_KEYS", path.as_str()), ("TOKEN_AUDIENCE", "lastpong")];
    Server::start(&[&keys[..], settings].concat()).await
}

fn hs256(secret: &[u8], kid: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::HS256) };
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret)).expect("claims can be signed")
}

#[tokio::test]
async fn no_forged_token_is_let_in() {
    let (ed, ec, stranger) = (Minter::eddsa("eddsa-1"), Minter::es256("es256-1"), Minter::eddsa("eddsa-1"));
    let dir = tempfile::tempdir().expect("a directory");
    let server = with_keys(&dir, &[&ed, &ec], &[]).await;
    let own = Token::of("forged").with("aud", "lastpong").mint();
    let good = [own, ed.mint(&claims("forged")), ec.mint(&claims("forged"))];
    for token in &good {
        assert_eq!(knock(&server, token).await, 101);
    }
    let signature = good[0].rsplit('.').next().expect("a signature");
    let with = |name: &str, value: Value| {
        let mut claims = claims("forged");
        claims[name] = value;
        claims
    };
    let mut bad = vec![
        // Public keys as if they were secrets.
        hs256(&ed.public, Some("eddsa-1"), &claims("forged")),
        hs256(&ec.public, Some("es256-1"), &claims("forged")),
        hs256(&ec.public, None, &claims("forged")),
        hs256(ec.jwk().to_string().as_bytes(), Some("es256-1"), &claims("forged")),
        hs256(b"", None, &claims("forged")),
        // Names of keys that are files, or other keys.
        hs256(b"", Some("../../../../../../dev/null"), &claims("forged")),
        hs256(SECRET.as_bytes(), Some("/proc/self/environ"), &claims("forged")),
        hs256(SECRET.as_bytes(), Some("es256-1"), &claims("forged")),
        stranger.mint(&claims("forged")),
        // What is right but for one claim.
        ed.mint(&with("exp", json!(now() - 1))),
        ed.mint(&with("exp", json!("never"))),
        ed.mint(&with("nbf", json!(now() + 3_600))),
        ed.mint(&with("aud", json!("another"))),
        ed.mint(&with("aud", json!(["another", "yet another"]))),
        ed.mint(&with("aud", Value::Null)),
        ed.mint(&with("sub", json!("../etc/passwd"))),
        ed.mint(&with("pad", json!("x".repeat(8_192)))),
        Token::of("forged").mint(),
    ];
    for alg in ["none", "None", "NONE", "nOnE", "", "RS256", "HS512", "PS256"] {
        for kid in [Value::Null, json!("eddsa-1")] {
            let header = json!({"alg": alg, "typ": "JWT", "kid": kid});
            bad.push(forged(&header, &claims("forged"), ""));
            bad.push(forged(&header, &claims("forged"), signature));
        }
    }
    for token in &bad {
        let ask = Ask::with_token(token);
        let answer = ask.refused(server.addr).await;
        assert_eq!(answer.status, 401, "{token}");
        // A browser's way in is the same way.
        let offered = format!("lastpong.v1, token.{token}");
        let answer = Ask::bare().header("Sec-WebSocket-Protocol", &offered).refused(server.addr).await;
        assert_eq!(answer.status, 401, "{token}");
    }
    let counted = server.metric("lastpong_handshakes_total{outcome=\"unauthorized\"}").await;
    assert_eq!(counted, Some(2.0 * bad.len() as f64));

    // And what chance makes of good ones.
    let seed = rand::random();
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut others: Vec<String> = good.to_vec();
    others.push(stranger.mint(&claims("mallory")));
    for n in 0..tries() {
        let changed = mutated(&mut rng, &good[n % good.len()], &others);
        // What no header may carry never reaches it.
        let carried: String = changed.chars().filter(char::is_ascii_graphic).collect();
        if !good.contains(&carried) {
            assert_ne!(knock(&server, &carried).await, 101, "seed {seed}, try {n}: {carried}");
        }
    }
}

#[tokio::test]
async fn keys_are_put_in_and_taken_out_without_a_restart() {
    let (old, new) = (Minter::eddsa("2026-a"), Minter::es256("2026-b"));
    let dir = tempfile::tempdir().expect("a directory");
    let server = with_keys(&dir, &[&old], &[("TOKEN_HS256", "false")]).await;
    let by_secret = Token::of("shared").with("aud", "lastpong").mint();
    assert_eq!(knock(&server, &by_secret).await, 401);
    let mut held = Device::with_token(&server, &old.mint(&claims("held"))).await;
    assert_eq!(knock(&server, &new.mint(&claims("next"))).await, 401);
    // Whoever changes a file in place of another lets nobody read half of it.
    let put = |text: String| {
        let draft = dir.path().join("draft");
        std::fs::write(&draft, text).expect("a file");
        std::fs::rename(draft, dir.path().join("keys.json")).expect("in its place");
    };
    put(set(&[&old, &new]));
    eventually("the new key", async || {
        (knock(&server, &new.mint(&claims("next"))).await == 101).then_some(())
    })
    .await;
    assert_eq!(knock(&server, &old.mint(&claims("other"))).await, 101, "the old one holds beside it");
    put("no keys at all".into());
    put(set(&[&new]));
    eventually("the old key to be gone", async || {
        (knock(&server, &old.mint(&claims("other"))).await == 401).then_some(())
    })
    .await;
    assert_eq!(knock(&server, &new.mint(&claims("next"))).await, 101);
    held.text(r#"{"type":"heartbeat","id":1}"#).await;
    assert_eq!(held.json().await["type"], "ack", "who is here goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_used_at_two_nodes_at_once_opens_one_session() {
    let cluster = Cluster::start(2, &[("TOKEN_REPLAY", "once")]).await;
    for round in 0..10 {
        let once = Token::of("raced").with("jti", format!("raced-{round}")).mint();
        let ask = Ask::with_token(&once);
        let answers = join_all((0..8).map(|n| ask.send(cluster.nodes[n % 2].addr))).await;
        let statuses: Vec<u16> = answers
            .iter()
            .map(|a| a.as_ref().expect("an answer").as_ref().map_or_else(|r| r.status, |_| 101))
            .collect();
        assert_eq!(statuses.iter().filter(|status| **status == 101).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| [101, 409].contains(status)), "{statuses:?}");
        for node in &cluster.nodes {
            assert_eq!(knock(node, &once).await, 409);
        }
    }
    // It is kept for as long as the token could be good.
    let left = cluster.stores.redis.command(&["TTL", "lastpong:nonce:raced-0"]).int();
    assert!((3_000..=3_600 + 300).contains(&left), "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_tokens_for_one_use_open_nothing_and_who_is_here_stays() {
    let mut stores = Stores::start().await;
    let server = Server::start_on(&stores, &[("TOKEN_REPLAY", "once")]).await;
    let once = |jti: &str| Token::of("single").with("jti", jti).mint();
    let mut held = Device::with_token(&server, &Token::of("held").with("jti", "held").mint()).await;
    assert_eq!(knock(&server, &once("before")).await, 101);
    // A Redis that lost its keys opens nothing here again.
    stores.redis.command(&["FLUSHALL"]);
    assert_eq!(knock(&server, &once("before")).await, 409);
    stores.suffer(|stores| stores.redis.kill());
    let answer = Ask::with_token(&once("during")).refused(server.addr).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    held.text(r#"{"type":"heartbeat","id":1}"#).await;
    assert_eq!(held.json().await["type"], "ack");
    stores.suffer(|stores| stores.redis.restart());
    eventually("the token to be taken", async || {
        (knock(&server, &once("during")).await == 101).then_some(())
    })
    .await;
    assert_eq!(knock(&server, &once("during")).await, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_each_node_may_go_by_itself_the_others_learn_of_it_later() {
    let settings = [("TOKEN_REPLAY", "once"), ("TOKEN_REPLAY_AWAY", "local")];
    let mut cluster = Cluster::start(2, &settings).await;
    cluster.stores.suffer(|stores| stores.redis.kill());
    let [one, two] = &cluster.nodes[..] else { panic!("two nodes") };
    let once = Token::of("single").with("jti", "single").mint();
    assert_eq!(knock(one, &once).await, 101);
    assert_eq!(knock(one, &once).await, 409);
    let other = Token::of("other").with("jti", "other").mint();
    assert_eq!((knock(one, &other).await, knock(two, &other).await), (101, 101), "one at each");
    cluster.stores.suffer(|stores| stores.redis.restart_empty());
    let [_, two] = &cluster.nodes[..] else { panic!("two nodes") };
    eventually("Redis to be told", async || {
        (cluster.stores.redis.command(&["EXISTS", "lastpong:nonce:single"]).int() == 1).then_some(())
    })
    .await;
    two.whole().await;
    assert_eq!(knock(two, &once).await, 409, "the other node does not know");
}

/// Revokes, and says what was answered.
async fn revoke(server: &Server, body: Value) -> Value {
    let (status, revocation) = act(server, Method::POST, "/v1/tokens/revoke", Some(&body)).await;
    assert_eq!(status, 200, "{revocation}");
    revocation
}

fn issued(device: &str, jti: &str, at: i64) -> String {
    Token::of(device).with("jti", jti).with("iat", at).mint()
}

#[tokio::test]
async fn a_revoked_token_ends_its_session_and_opens_none() {
    let server = Server::start(&[]).await;
    let stolen = issued("robbed", "stolen", now());
    let mut device = Device::with_token(&server, &stolen).await;
    let mut other = Device::with_token(&server, &issued("other", "other", now())).await;
    let revocation = revoke(&server, json!({"jti": "stolen", "ttl": "2h", "reason": "lost"})).await;
    assert_eq!((&revocation["jti"], &revocation["device_id"]), (&json!("stolen"), &Value::Null));
    assert_eq!((&revocation["reason"], &revocation["by"]), (&json!("lost"), &json!("admin token")));
    assert_eq!(device.closed().await, Seen::Close(Some(4500)));
    let end = Events::new().only_end(&server, &device.session_id()).await;
    End::by("token_revoked").check(&end);
    let refusal = Ask::with_token(&stolen).refused(server.addr).await;
    assert_eq!(refusal.status, 401);
    let problem = refusal.problem();
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("revoked")), "{problem}");
    assert!(!problem.to_string().contains("lost"), "the operator's reason is told to the device: {problem}");
    // It is that token alone.
    assert_eq!(knock(&server, &issued("robbed", "another", now())).await, 101);
    other.text(r#"{"type":"heartbeat","id":1}"#).await;
    assert_eq!(other.json().await["type"], "ack");

    assert_eq!(paged(&server, "/v1/tokens/revoked", 10).await, [revocation]);
    let audit = paged(&server, "/v1/audit", 10).await;
    assert_eq!((&audit[0]["action"], &audit[0]["target"]), (&json!("revoke"), &json!("token stolen")));
    assert_eq!(audit[0]["detail"], "lost");
    let server = {
        let mut server = server;
        server.kill().await;
        server.restart().await
    };
    assert_eq!(knock(&server, &stolen).await, 401, "a restart forgot it");
}

#[tokio::test]
async fn a_device_s_tokens_are_revoked_up_to_now() {
    let server = Server::start(&[]).await;
    let (old, unknown) = (issued("robbed", "old", now() - 60), Token::of("robbed").mint());
    let mut device = Device::with_token(&server, &old).await;
    revoke(&server, json!({"device_id": "robbed"})).await;
    assert_eq!(device.closed().await, Seen::Close(Some(4500)));
    for token in [&old, &unknown] {
        assert_eq!(knock(&server, token).await, 401, "{token}");
    }
    // One that is dated ahead is none, or else it would be newer than what is revoked until then.
    assert_eq!(knock(&server, &issued("robbed", "ahead", now() + 60)).await, 401);
    // A token of a later second opens a session, even where the clock that dates it is a little fast.
    let mut device = eventually("a newer token to be good", async || {
        let newer = Ask::with_token(&issued("robbed", "new", now() + 3));
        newer.send(server.addr).await.expect("an answer").ok()
    })
    .await;
    device.welcome().await;
    assert_eq!(knock(&server, &Token::of("else").mint()).await, 101);
    device.text(r#"{"type":"heartbeat","id":1}"#).await.expect("a connection");
    assert_eq!(device.json().await["type"], "ack", "what was issued later is good");
    // Who is here showed his token before, whatever it says of when it was issued.
    revoke(&server, json!({"device_id": "robbed", "reason": "again"})).await;
    assert_eq!(device.closed(true).await, Seen::Close(Some(4500)));
    assert_eq!(paged(&server, "/v1/tokens/revoked", 10).await.len(), 1, "one takes the place of the other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_revoked_at_one_node_is_revoked_at_all_and_without_the_stores() {
    let mut cluster = Cluster::start(2, &[]).await;
    let [one, two] = &cluster.nodes[..] else { panic!("two nodes") };
    let (stolen, of_device) = (issued("by-jti", "stolen", now()), issued("by-device", "any", now() - 60));
    let mut devices = [Device::with_token(two, &stolen).await, Device::with_token(two, &of_device).await];
    let stays = Device::with_token(two, &issued("stays", "stays", now())).await;
    let asked = std::time::Instant::now();
    revoke(one, json!({"jti": "stolen"})).await;
    revoke(one, json!({"device_id": "by-device"})).await;
    for device in &mut devices {
        assert_eq!(device.closed().await, Seen::Close(Some(4500)));
    }
    crate::support::size::promised(
        "the ends at another node",
        asked.elapsed(),
        std::time::Duration::from_secs(2),
    );
    let mut events = Events::new();
    for device in &devices {
        let end = events.only_end(one, &device.session_id()).await;
        End::by("token_revoked").check(&end);
        assert_eq!(end["data"]["node_id"], "node-2");
    }
    for node in [one, two] {
        assert_eq!((knock(node, &stolen).await, knock(node, &of_device).await), (401, 401));
        assert_eq!(paged(node, "/v1/tokens/revoked", 1).await.len(), 2);
    }
    eventually("one session to be left", async || (two.live().await == 1).then_some(())).await;
    drop(stays);

    // What a node knew holds without the stores, also where it starts then.
    cluster.stores.suffer(|stores| {
        stores.postgres.kill();
        stores.redis.kill();
    });
    let late = async |path: &str, body: Value| act(&cluster.nodes[1], Method::POST, path, Some(&body)).await;
    let (status, problem) = late("/v1/tokens/revoke", json!({"jti": "late"})).await;
    assert_eq!(status, 503, "{problem}");
    // That a token was minted is in the journal until the record is back.
    let (status, minted) = late("/v1/tokens", json!({"device_id": "late"})).await;
    assert_eq!(status, 201, "{minted}");
    let mut node = cluster.nodes.remove(1);
    node.kill().await;
    let node = node.restart().await;
    assert_eq!((knock(&node, &stolen).await, knock(&node, &of_device).await), (401, 401));
    assert_eq!(knock(&node, &issued("free", "free", now())).await, 101);
    assert_eq!(knock(&node, minted["token"].as_str().expect("a token")).await, 101);
}

#[tokio::test]
async fn a_token_is_minted_by_who_may() {
    let server = Server::start(&[("TOKEN_AUDIENCE", "lastpong")]).await;
    let path = "/v1/tokens";
    let mint = async |body: Value| act(&server, Method::POST, path, Some(&body)).await;
    let (status, minted) = mint(json!({"device_id": "new", "device_type": "lamp", "ttl": "1h"})).await;
    assert_eq!((status, &minted["device_id"], &minted["device_type"]), (201, &json!("new"), &json!("lamp")));
    let good_for =
        minted["expires_at"].as_str().expect("a time").parse::<jiff::Timestamp>().expect("RFC 3339");
    assert!((3_590..=3_600).contains(&(good_for.as_second() - now())), "{good_for}");
    let good = minted["token"].as_str().expect("a token");
    let mut device = Device::with_token(&server, good).await;
    assert_eq!(device.welcome["device_id"], "new");
    // What is on the record is how to revoke it, and not the token.
    let audit = paged(&server, "/v1/audit", 10).await;
    let jti = minted["jti"].as_str().expect("a jti");
    assert_eq!((&audit[0]["action"], &audit[0]["target"]), (&json!("mint"), &json!("new")));
    assert!(audit[0]["detail"].as_str().is_some_and(|detail| detail.starts_with(jti)), "{audit:?}");
    revoke(&server, json!({"jti": jti})).await;
    assert_eq!(device.closed().await, Seen::Close(Some(4500)));

    for (body, input) in [
        (json!({"device_id": "a b"}), "device_id"),
        (json!({"device_id": good}), "device_id"),
        (json!({"device_id": "d", "device_type": ""}), "device_type"),
        (json!({"device_id": "d", "ttl": "0s"}), "ttl"),
    ] {
        let (status, problem) = mint(body.clone()).await;
        assert_eq!((status, &problem["input"]), (400, &json!(input)), "{body}: {problem}");
        assert!(!problem.to_string().contains(good), "{problem}");
    }
    assert_eq!(mint(json!({})).await.0, 400);
    add(&server, "zoe", "reader").await;
    let (reader, body) = (bearer(&server, "zoe").await, json!({"device_id": "d"}));
    assert_eq!(act_as(&server, &reader, Method::POST, path, Some(&body)).await.0, 403);
    assert_eq!(act_as(&server, good, Method::POST, path, Some(&body)).await.0, 401);
    assert!(!server.said().contains(good), "the log has a token");

    let (dir, minter) = (tempfile::tempdir().expect("a directory"), Minter::eddsa("eddsa-1"));
    let server = with_keys(&dir, &[&minter], &[("TOKEN_HS256", "false")]).await;
    let (status, problem) = act(&server, Method::POST, path, Some(&body)).await;
    assert_eq!(status, 409, "{problem}");
}

#[tokio::test]
async fn a_revocation_that_is_over_is_over() {
    let server = Server::start(&[]).await;
    let token = issued("d", "short", now());
    revoke(&server, json!({"jti": "short", "ttl": "1s"})).await;
    eventually("the token to be good again", async || (knock(&server, &token).await == 101).then_some(()))
        .await;
    assert_eq!(paged(&server, "/v1/tokens/revoked", 10).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_bad_revocation_is_told_what_is_wrong_and_not_what_was_said() {
    let server = Server::start(&[]).await;
    let path = "/v1/tokens/revoke";
    let pasted = token("pasted");
    for (body, input) in [
        (json!({}), "jti"),
        (json!({"jti": "a", "device_id": "b"}), "jti"),
        (json!({"jti": ""}), "jti"),
        (json!({"jti": pasted}), "jti"),
        (json!({"jti": "a\u{0}b"}), "jti"),
        (json!({"device_id": pasted}), "device_id"),
        (json!({"device_id": "a b"}), "device_id"),
        (json!({"jti": "a", "ttl": "soon"}), "ttl"),
        (json!({"jti": "a", "reason": "two\nlines"}), "reason"),
    ] {
        let (status, problem) = act(&server, Method::POST, path, Some(&body)).await;
        assert_eq!((status, &problem["input"]), (400, &json!(input)), "{body}: {problem}");
        assert!(!problem.to_string().contains(&pasted), "{problem}");
    }
    assert_eq!(act(&server, Method::POST, path, Some(&json!({"jit": "a"}))).await.0, 400);
    assert_eq!(act(&server, Method::GET, path, None).await.0, 405);
    assert_eq!(server.status("/v1/tokens/revoked?cursor=zz").await.0, 400);
    add(&server, "zoe", "reader").await;
    let reader = bearer(&server, "zoe").await;
    let body = json!({"jti": "a"});
    assert_eq!(act_as(&server, &reader, Method::POST, path, Some(&body)).await.0, 403);
    assert_eq!(act_as(&server, &reader, Method::GET, "/v1/tokens/revoked", None).await.0, 200);
    assert_eq!(server.bare(Method::POST, path).json(&body).send().await.expect("an answer").status(), 401);
    assert_eq!(paged(&server, "/v1/tokens/revoked", 10).await, Vec::<Value>::new());
    for n in 0..5 {
        revoke(&server, json!({"jti": format!("t{n}")})).await;
    }
    let names: Vec<Value> = paged(&server, "/v1/tokens/revoked", 2)
        .await
        .into_iter()
        .map(|mut item| item["jti"].take())
        .collect();
    assert_eq!(names, ["t4", "t3", "t2", "t1", "t0"]);
}
