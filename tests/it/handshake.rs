//! Who is let in, and how the others are told why not. Nothing of a refusal is on the record.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::raw::{Answer, Raw};
use crate::support::{Ask, Device, Events, Server, Token, eventually, token};

/// Holds that `ask` is refused with `status`, by a problem document that names `names`.
async fn refused(server: &Server, ask: Ask, status: u16, names: &str) -> Answer {
    let answer = ask.refused(server.addr).await;
    assert_eq!(answer.status, status, "{}: {answer:?}", ask.target);
    let problem = answer.problem();
    let text = format!("{} {}", problem["title"], problem["detail"]).to_lowercase();
    assert!(text.contains(&names.to_lowercase()), "the answer does not name {names:?}: {answer:?}");
    let outcome = match status {
        400 => "malformed",
        401 => "unauthorized",
        403 => "forbidden",
        409 => "token_used",
        _ => "limited",
    };
    let counted = server.metric(&format!("lastpong_handshakes_total{{outcome=\"{outcome}\"}}")).await;
    assert!(counted >= Some(1.0), "{outcome} is not counted: {counted:?}");
    answer
}

/// Holds that nobody was recorded, and that whoever comes rightly still is.
async fn nothing_recorded(server: &Server) {
    let mut device = Device::connect(server, "rightly").await;
    let mut events = Events::new();
    device.close(Some(1000)).await;
    events.wait_for(server, "its end", |e| e["data"]["reason"] == "client_closed").await;
    let others: Vec<_> = events.all.iter().filter(|e| e["subject"] != "rightly").collect();
    assert!(others.is_empty(), "a refusal is on the record: {others:#?}");
}

#[tokio::test]
async fn a_malformed_handshake_is_answered_with_400() {
    let server = Server::start(&[]).await;
    let good = Ask::with_token(&token("malformed"));
    for (ask, names) in [
        (good.clone().without("Sec-WebSocket-Key"), "Sec-WebSocket-Key"),
        (good.clone().header("Sec-WebSocket-Key", "short"), "Sec-WebSocket-Key"),
        (good.clone().without("Sec-WebSocket-Version"), "Sec-WebSocket-Version"),
        (good.clone().header("Sec-WebSocket-Version", "8"), "Sec-WebSocket-Version"),
        (good.clone().header("Upgrade", "smoke-signals"), "Upgrade"),
        (good.clone().target("/ws?device_type=a%20b"), "device_type"),
        (good.clone().target("/ws?device_type="), "device_type"),
        (good.clone().target(&format!("/ws?device_type={}", "x".repeat(129))), "device_type"),
        (good.clone().target("/ws?colour=red"), "colour"),
        (good.clone().target("/ws?meta.=x"), "meta"),
        (good.clone().target(&format!("/ws?meta.{}=x", "k".repeat(65))), "meta"),
        (good.clone().target(&format!("/ws?meta.k={}", "v".repeat(257))), "meta"),
        (good.clone().target(&format!("/ws?{}", metas(17))), "meta"),
    ] {
        refused(&server, ask, 400, names).await;
    }
    nothing_recorded(&server).await;
}

#[tokio::test]
async fn what_is_no_handshake_at_all_gets_an_http_answer() {
    let server = Server::start(&[]).await;
    let plain = Ask::with_token(&token("plain"));
    let no_upgrade = plain.clone().without("Upgrade").without("Connection").refused(server.addr).await;
    assert!((400..500).contains(&no_upgrade.status), "{no_upgrade:?}");
    let mut post = plain.clone().header("Content-Length", "0");
    post.method = "POST";
    let posted = post.refused(server.addr).await;
    assert!([400, 405].contains(&posted.status), "{posted:?}");
    let elsewhere = plain.target("/elsewhere").refused(server.addr).await;
    assert!([400, 404].contains(&elsewhere.status), "{elsewhere:?}");
    nothing_recorded(&server).await;
}

#[tokio::test]
async fn the_longest_that_is_allowed_is_let_in() {
    let server = Server::start(&[]).await;
    let (id, kind) = ("d".repeat(128), "t".repeat(128));
    let query = format!("/ws?device_type={kind}&{}", metas(16));
    let mut raw = Ask::with_token(&token(&id)).target(&query).admitted(server.addr).await;
    assert_eq!(raw.welcome().await["device_id"], id);
    let mut events = Events::new();
    let start = events.wait_for(&server, "its start", |e| e["subject"] == id).await;
    assert_eq!(start["data"]["device_type"], kind);
    assert_eq!(start["data"]["meta"].as_object().map(|m| m.len()), Some(16));
}

/// `count` metas, each as long as it may be.
fn metas(count: usize) -> String {
    let one = |n: usize| format!("meta.{n:02}{}={}", "k".repeat(62), "v".repeat(256));
    (0..count).map(one).collect::<Vec<_>>().join("&")
}

#[tokio::test]
async fn no_token_or_a_bad_one_is_answered_with_401() {
    let server = Server::start(&[]).await;
    let of = || Token::of("unknown");
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1bmtub3duIiwiZXhwIjo0MTAyNDQ0ODAwfQ.";
    for bad in [
        "",
        "nonsense",
        "a.b.c",
        unsigned,
        &of().signed_with("another secret, also at least 32 bytes").mint(),
        &of().by(Algorithm::HS384).mint(),
        &of().expires_in(-1).mint(),
        &of().without("exp").mint(),
        &of().without("sub").mint(),
        &of().with("nbf", crate::support::token::now() + 600).mint(),
        &of().with("sub", "not a name").mint(),
        &of().with("sub", "x".repeat(129)).mint(),
        &of().with("sub", 7).mint(),
        &of().with("exp", "tomorrow").mint(),
        &of().with("device_type", "not a name").mint(),
    ] {
        let answer = refused(&server, Ask::with_token(bad), 401, "token").await;
        assert!(answer.header("www-authenticate").is_some(), "{answer:?}");
        assert!(bad.len() < 12 || !answer.body.contains(bad), "a token is never said back: {answer:?}");
    }
    refused(&server, Ask::bare(), 401, "token").await;
    refused(&server, Ask::bare().header("Authorization", "Basic dXNlcjpwYXNz"), 401, "token").await;
    // In a URL a token would end in logs.
    let ask = Ask::bare().target(&format!("/ws?token={}", token("unknown")));
    let answer = ask.refused(server.addr).await;
    assert!([400, 401].contains(&answer.status), "{answer:?}");
    let said = server.said();
    assert!(!said.contains(&token("unknown")[..40]), "a token is in the log");
    nothing_recorded(&server).await;
}

#[tokio::test]
async fn a_browser_shows_its_token_as_a_subprotocol() {
    let server = Server::start(&[]).await;
    let offer = |protocols: &str| Ask::bare().header("Sec-WebSocket-Protocol", protocols);
    let protocols = format!("lastpong.v1, token.{}", token("browser"));
    let mut raw = offer(&protocols).admitted(server.addr).await;
    assert!(raw.head.to_lowercase().contains("sec-websocket-protocol: lastpong.v1\r\n"), "{}", raw.head);
    assert_eq!(raw.welcome().await["device_id"], "browser");
    refused(&server, offer("lastpong.v1"), 401, "token").await;
    refused(&server, offer("lastpong.v1, token.nonsense"), 401, "token").await;
    // Who offers nothing gets nothing selected; who offers others beside its header is let in without one.
    let plain = Ask::with_token(&token("plain")).admitted(server.addr).await;
    assert!(!plain.head.to_lowercase().contains("sec-websocket-protocol"), "{}", plain.head);
}

#[tokio::test]
async fn an_origin_that_is_not_allowed_is_answered_with_403() {
    let server =
        Server::start(&[("ALLOWED_ORIGINS", "https://good.example,https://fine.example:8443")]).await;
    let from = |origin: &str| Ask::with_token(&token("page")).header("Origin", origin);
    for bad in ["https://evil.example", "http://good.example", "https://good.example.evil.example", "null"] {
        refused(&server, from(bad), 403, "rigin").await;
    }
    nothing_recorded(&server).await;
    for good in ["https://good.example", "https://fine.example:8443"] {
        from(good).admitted(server.addr).await.welcome().await;
    }
    // No browser, no origin.
    Ask::with_token(&token("program")).admitted(server.addr).await.welcome().await;
}

#[tokio::test]
async fn a_used_token_is_answered_with_409_where_each_opens_one_session() {
    let server = Server::start(&[("TOKEN_REPLAY", "once")]).await;
    let once = Token::of("single").with("jti", "first").mint();
    let (mut raw, _) = Raw::connect(server.addr, &once).await;
    refused(&server, Ask::with_token(&once), 409, "token").await;
    // The end of the session does not make it new.
    raw.send(crate::support::raw::CLOSE, &1000u16.to_be_bytes()).await.unwrap();
    raw.closed(true).await;
    refused(&server, Ask::with_token(&once), 409, "token").await;
    Raw::connect(server.addr, &Token::of("single").with("jti", "second").mint()).await;
    refused(&server, Ask::with_token(&token("single")), 401, "jti").await;
}

#[tokio::test]
async fn one_token_used_many_times_at_once_opens_one_session() {
    let server = Server::start(&[("TOKEN_REPLAY", "once")]).await;
    let ask = Ask::with_token(&Token::of("raced").with("jti", "raced").mint());
    let answers = futures_util::future::join_all((0..20).map(|_| ask.send(server.addr))).await;
    let (admitted, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().map(|a| a.unwrap()).partition(Result::is_ok);
    assert_eq!(admitted.len(), 1);
    assert!(refused.iter().all(|r| r.as_ref().is_err_and(|answer| answer.status == 409)));
}

#[tokio::test]
async fn a_token_opens_many_sessions_by_default() {
    let server = Server::start(&[]).await;
    let many = Token::of("many").with("jti", "many").mint();
    Raw::connect(server.addr, &many).await;
    Raw::connect(server.addr, &many).await;
}

#[tokio::test]
async fn over_a_limit_is_answered_with_429_and_when_to_return() {
    let server = Server::start(&[("MAX_SESSIONS_PER_IP", "2")]).await;
    let (first, _) = Raw::connect(server.addr, &token("one")).await;
    let (_second, _) = Raw::connect(server.addr, &token("two")).await;
    let answer = refused(&server, Ask::with_token(&token("three")), 429, "address").await;
    check_retry_after(&answer);
    drop(first);
    eventually("a place to be free", async || {
        Ask::with_token(&token("three")).send(server.addr).await.unwrap().ok()
    })
    .await;

    let server = Server::start(&[("HANDSHAKES_PER_SEC", "5")]).await;
    let asks = (0..50).map(|n| {
        let ask = Ask::with_token(&token(&format!("rush-{n}")));
        let addr = server.addr;
        async move { ask.send(addr).await.unwrap().err() }
    });
    let refusals: Vec<_> = futures_util::future::join_all(asks).await.into_iter().flatten().collect();
    assert!(!refusals.is_empty(), "fifty at once are over five a second");
    for answer in &refusals {
        assert_eq!(answer.status, 429, "{answer:?}");
        check_retry_after(answer);
        answer.problem();
    }
    let refused = server.metric(r#"lastpong_handshakes_total{outcome="rate_limited"}"#).await;
    assert!(refused.is_none_or(|n| n >= refusals.len() as f64));
}

#[tokio::test]
async fn a_full_node_says_so_and_when_to_return() {
    let server = Server::start(&[("MAX_SESSIONS", "3")]).await;
    let mut held = Vec::new();
    for n in 0..3 {
        held.push(Raw::connect(server.addr, &token(&format!("held-{n}"))).await);
    }
    let answer = Ask::with_token(&token("one-too-many")).refused(server.addr).await;
    assert_eq!(answer.status, 429, "{answer:?}");
    check_retry_after(&answer);
    answer.problem();
    drop(held.pop());
    eventually("a place to be free", async || {
        Ask::with_token(&token("one-too-many")).send(server.addr).await.unwrap().ok()
    })
    .await;
}

fn check_retry_after(answer: &Answer) {
    let seconds = answer.header("retry-after").and_then(|s| s.parse::<u64>().ok());
    assert!(seconds.is_some_and(|s| (1..=3600).contains(&s)), "{answer:?}");
}

#[tokio::test]
async fn refusals_are_counted() {
    let server = Server::start(&[]).await;
    for _ in 0..3 {
        Ask::with_token("nonsense").refused(server.addr).await;
    }
    let (_, text) = server.status("/metrics").await;
    let total: f64 = text
        .lines()
        .filter(|l| l.starts_with("lastpong_handshakes_total{") && !l.contains(r#"outcome="admitted""#))
        .filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    assert_eq!(total, 3.0, "{text}");
}

#[tokio::test]
async fn the_welcome_says_what_a_device_has_to_know() {
    let server = Server::start(&[("PING_INTERVAL", "7s"), ("PONG_TIMEOUT", "3s")]).await;
    let (_raw, welcome) =
        Raw::connect(server.addr, &Token::of("new").with("device_type", "meter").mint()).await;
    let keys: Vec<_> = welcome.as_object().unwrap().keys().map(String::as_str).collect();
    for key in ["type", "session_id", "device_id", "node_id", "device_seq", "resume_token", "server_time"] {
        assert!(keys.contains(&key), "{key} is missing: {welcome}");
    }
    assert_eq!(welcome["device_id"], "new");
    assert_eq!(welcome["node_id"], "node-1");
    assert_eq!(welcome["device_seq"], 1);
    assert_eq!(welcome["ping_interval_ms"], 7000);
    assert_eq!(welcome["pong_timeout_ms"], 3000);
    assert_eq!(welcome["resume_token"], Value::Null, "resume is off by default");
    assert!(crate::support::expect::time(&welcome["server_time"]).is_some());
    // The welcome is sent once the start is durable: it is there to be read.
    let mut events = Events::new();
    events.pull(&server).await;
    assert_eq!(events.all.len(), 1);
    assert_eq!(events.all[0]["data"]["session_id"], welcome["session_id"]);
    assert_eq!(events.all[0]["data"]["device_type"], json!("meter"));
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let server = Server::start(&[("HANDSHAKE_TIMEOUT", "1s")]).await;
    let mut slow = TcpStream::connect(server.addr).await.unwrap();
    slow.write_all(b"GET /ws HTTP/1.1\r\nHost: lastpong\r\nX-Slow: ").await.unwrap();
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut slow, &mut rest);
    let _ = crate::support::within("a slow head to be cut off", read).await;
    let mut endless = TcpStream::connect(server.addr).await.unwrap();
    let line = format!("X-More: {}\r\n", "x".repeat(8000));
    let _ = endless.write_all(b"GET /ws HTTP/1.1\r\nHost: lastpong\r\n").await;
    crate::support::within("an endless head to be cut off", async {
        while endless.write_all(line.as_bytes()).await.is_ok() {}
    })
    .await;
    nothing_recorded(&server).await;
}

#[tokio::test]
async fn frames_sent_with_the_handshake_are_read() {
    let server = Server::start(&[]).await;
    let mut bytes = Ask::with_token(&token("eager")).bytes();
    bytes.extend(crate::support::raw::frame(
        true,
        crate::support::raw::TEXT,
        br#"{"type":"heartbeat","id":1}"#,
    ));
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut text = String::new();
    crate::support::within("the acknowledgement", async {
        let mut scratch = [0; 4096];
        while !text.contains(r#""type":"ack""#) {
            let n = tokio::io::AsyncReadExt::read(&mut stream, &mut scratch).await.unwrap();
            assert!(n > 0, "closed after {text}");
            text.push_str(&String::from_utf8_lossy(&scratch[..n]));
        }
    })
    .await;
    let (welcome, ack) = (text.find(r#""type":"welcome""#), text.find(r#""type":"ack""#));
    assert!(welcome.is_some() && welcome < ack, "the welcome is the first frame: {text}");
}
