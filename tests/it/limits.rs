//! Limits by address, whoever's that is: behind proxies, over many addresses, and of one that means no good.

use std::net::SocketAddr;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::acts::act;
use crate::support::raw::{Answer, Raw, Seen, TEXT, connect_from, frame, v2};
use crate::support::server::ADMIN_TOKEN;
use crate::support::{Ask, End, Events, Server, eventually, token, within};

/// Who comes by a proxy that stands where the tests do.
const BEHIND: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.1");

fn from(address: &str, device: &str) -> Ask {
    Ask::with_token(&token(device)).header("X-Forwarded-For", address)
}

async fn limited(server: &Server, limit: &str) -> f64 {
    server
        .metric(&format!("lastpong_limited_total{{limit=\"{limit}\"}}"))
        .await
        .expect("every limit is counted")
}

/// Holds that it says by a problem document that it is too much, and when to come back.
fn says_when(answer: &Answer) -> u64 {
    assert_eq!(answer.status, 429, "{answer:?}");
    answer.problem();
    let after = answer.header("retry-after").and_then(|s| s.parse().ok());
    after.unwrap_or_else(|| panic!("it does not say when: {answer:?}"))
}

/// The address on the record of a device's start.
async fn recorded(server: &Server, device: &str) -> Value {
    let start = Events::new().wait_for(server, "its start", |e| e["subject"] == device).await;
    start["data"]["remote_addr"].clone()
}

#[tokio::test]
async fn handshakes_are_counted_by_address_and_one_address_pays_for_itself() {
    let server = Server::start(&[BEHIND, ("HANDSHAKES_PER_SEC_PER_IP", "2")]).await;
    let asks = (0..20).map(|n| {
        let (ask, addr) = (from("192.0.2.1", &format!("rush-{n}")), server.addr);
        async move { ask.send(addr).await.expect("an answer").err() }
    });
    let refused: Vec<_> = futures_util::future::join_all(asks).await.into_iter().flatten().collect();
    assert!(!refused.is_empty(), "twenty at once are over two a second");
    let waits: std::collections::BTreeSet<u64> = refused.iter().map(says_when).collect();
    assert!(waits.len() > 1, "all are told to return together: {waits:?}");
    from("192.0.2.2", "calm").admitted(server.addr).await.welcome().await;
    assert_eq!(limited(&server, "handshakes_per_ip").await, refused.len() as f64);
}

#[tokio::test]
async fn a_proxy_that_is_listed_says_whose_session_it_is() {
    let server = Server::start(&[BEHIND, ("MAX_SESSIONS_PER_IP", "1")]).await;
    let mut one = from("203.0.113.9, 192.0.2.1:4711", "one").admitted(server.addr).await;
    one.welcome().await;
    assert_eq!(recorded(&server, "one").await, "192.0.2.1:4711");
    says_when(&from("192.0.2.1", "two").refused(server.addr).await);
    from("192.0.2.2", "two").admitted(server.addr).await.welcome().await;
    assert_eq!(recorded(&server, "two").await, "192.0.2.2:0");
    // A ban of the address ends the session, and lets nobody in from there.
    let ban = json!({"remote_addr": "192.0.2.1"});
    assert_eq!(act(&server, Method::POST, "/v1/bans", Some(&ban)).await.0, 201);
    assert_eq!(one.closed(true).await, Seen::Close(Some(4503)));
    assert_eq!(from("192.0.2.1", "one").refused(server.addr).await.status, 403);
    from("192.0.2.3", "three").admitted(server.addr).await.welcome().await;
}

#[tokio::test]
async fn nobody_else_says_whose_session_it_is() {
    let server = Server::start(&[("TRUSTED_PROXIES", "10.0.0.0/8"), ("PROXY_PROTOCOL", "true")]).await;
    from("192.0.2.1", "liar").admitted(server.addr).await.welcome().await;
    let addr: SocketAddr =
        recorded(&server, "liar").await.as_str().expect("an address").parse().expect("one");
    assert!(addr.ip().is_loopback() && addr.port() > 0, "{addr}");
    let forged = refused_header(&server, &v2("192.0.2.7:4711")).await;
    assert!(forged.starts_with("HTTP/1.1 400"), "{forged}");
}

#[tokio::test]
async fn the_standard_header_is_believed_where_it_is_the_one() {
    let server = Server::start(&[BEHIND, ("FORWARDED_BY", "forwarded")]).await;
    let ask = from("203.0.113.9", "standard").header("Forwarded", "for=\"[2001:db8::7]:4711\";proto=https");
    ask.admitted(server.addr).await.welcome().await;
    assert_eq!(recorded(&server, "standard").await, "[2001:db8::7]:4711");
}

async fn proxied(server: &Server, header: &[u8], token: &str) -> Result<Raw, Answer> {
    let mut stream = TcpStream::connect(server.addr).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    // In pieces, as a network may bring it.
    for byte in header.chunks(5) {
        stream.write_all(byte).await.expect("a connection");
        tokio::task::yield_now().await;
    }
    within("an answer", Ask::with_token(token).send_on(stream)).await.expect("an answer")
}

/// What a connection that begins so is answered with.
async fn refused_header(server: &Server, header: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.addr).await.expect("a connection");
    stream.write_all(header).await.expect("a connection");
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.expect("an answer");
    answer
}

#[tokio::test]
async fn a_listed_proxy_may_say_it_before_the_first_byte() {
    let server = Server::start(&[BEHIND, ("PROXY_PROTOCOL", "true"), ("MAX_SESSIONS_PER_IP", "1")]).await;
    let mut raw = proxied(&server, &v2("192.0.2.7:4711"), &token("proxied")).await.expect("let in");
    raw.welcome().await;
    let second = proxied(&server, &v2("192.0.2.7:4712"), &token("second")).await;
    says_when(&second.err().expect("one address, one session"));
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let mut own = proxied(&server, local, &token("the-proxy-itself")).await.expect("let in");
    own.welcome().await;
    // Without a header, or with nonsense in its place, nothing passes.
    let bare = Ask::with_token(&token("bare")).refused(server.addr).await;
    assert_eq!((bare.status, bare.problem()["title"].clone()), (400, json!("Bad Request")));
    let text = refused_header(&server, b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n").await;
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("problem+json"), "{text}");
}

#[tokio::test]
async fn an_address_that_sends_bad_tokens_is_slowed_and_then_held_off_for_a_while() {
    let server = Server::start(&[BEHIND, ("SUSPECT_AFTER", "3"), ("SUSPECT_BAN", "2s")]).await;
    let bad = Ask::with_token("nonsense").header("X-Forwarded-For", "192.0.2.66");
    for _ in 0..3 {
        assert_eq!(bad.refused(server.addr).await.status, 401);
    }
    // One more is looked at, and then one a second: the good ones from there wait as well.
    eventually("the address to be held off", async || {
        let answer = bad.refused(server.addr).await;
        assert!([401, 429].contains(&answer.status), "{answer:?}");
        (limited(&server, "address_held_off").await > 0.0).then_some(())
    })
    .await;
    assert!(limited(&server, "address_slowed").await > 0.0, "it was not slowed first");
    from("192.0.2.67", "neighbour").admitted(server.addr).await.welcome().await;
    let good = from("192.0.2.66", "good");
    eventually("the address to be forgiven", async || {
        let answer = good.send(server.addr).await.expect("an answer");
        answer.map_err(|refused| says_when(&refused)).ok()
    })
    .await;
}

/// What a connection from this address is answered that begins so.
async fn answer_to(from: [u8; 4], server: &Server, sent: &str) -> String {
    let mut stream = connect_from(from, server.addr).await;
    let _ = stream.write_all(sent.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = within("an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn nothing_is_looked_at_from_where_nonsense_came_over_and_over() {
    let settings = [("SUSPECT_AFTER", "3"), ("SUSPECT_BAN", "1h"), ("SUSPECT_EXEMPT", "")];
    let server = Server::start(&settings).await;
    let bad = [127, 0, 0, 2];
    eventually("the address to be held off", async || {
        let answer = answer_to(bad, &server, "this is no request\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 429 "), "{answer}");
        answer.starts_with("HTTP/1.1 429 ").then_some(())
    })
    .await;
    let fine = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = answer_to(bad, &server, fine).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("retry-after: "), "{answer}");
    let neighbour = answer_to([127, 0, 0, 3], &server, fine).await;
    assert!(neighbour.starts_with("HTTP/1.1 200 "), "{neighbour}");
    assert_eq!(limited(&server, "address_held_off").await, 2.0);
}

#[tokio::test]
async fn whom_a_proxy_names_is_held_off() {
    let settings = [BEHIND, ("PROXY_PROTOCOL", "true"), ("SUSPECT_AFTER", "3"), ("SUSPECT_BAN", "1h")];
    let server = Server::start(&settings).await;
    let nonsense = |from: &str| [&v2(from)[..], b"this is no request\r\n\r\n"].concat();
    eventually("the address to be held off", async || {
        let answer = refused_header(&server, &nonsense("192.0.2.66:4711")).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 429 "), "{answer}");
        answer.starts_with("HTTP/1.1 429 ").then_some(())
    })
    .await;
    proxied(&server, &v2("192.0.2.67:4711"), &token("neighbour")).await.expect("let in").welcome().await;
}

#[tokio::test]
async fn who_guesses_an_operator_s_token_is_held_off() {
    let server = Server::start(&[BEHIND, ("SUSPECT_AFTER", "3"), ("SUSPECT_BAN", "1h")]).await;
    let guess = async |from: &str, token: &str| {
        let asked = server.bare(Method::GET, "/debug/connections").bearer_auth(token);
        asked.header("X-Forwarded-For", from).send().await.expect("an answer").status().as_u16()
    };
    eventually("the address to be held off", async || {
        let status = guess("192.0.2.66", "a-guess-of-the-admin-token").await;
        assert!([401, 429].contains(&status), "{status}");
        (status == 429).then_some(())
    })
    .await;
    // Who has it is not kept out by who guesses beside him.
    assert_eq!(guess("192.0.2.66", ADMIN_TOKEN).await, 200);
    assert_eq!(guess("192.0.2.67", "another-guess").await, 401);
}

#[tokio::test]
async fn tokens_that_are_no_good_count_for_their_address_and_not_for_all() {
    let server =
        Server::start(&[BEHIND, ("HANDSHAKES_PER_SEC_PER_IP", "1"), ("HANDSHAKES_PER_SEC", "1")]).await;
    let bad = Ask::with_token("nonsense").header("X-Forwarded-For", "192.0.2.66");
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(bad.refused(server.addr).await.status);
    }
    assert_eq!(statuses[0], 401);
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(limited(&server, "handshakes").await, 0.0);
    from("192.0.2.67", "good").admitted(server.addr).await.welcome().await;
}

#[tokio::test]
async fn whom_a_proxy_names_has_so_many_connections() {
    let settings = [BEHIND, ("PROXY_PROTOCOL", "true"), ("MAX_CONNECTIONS_PER_IP", "3")];
    let server = Server::start(&settings).await;
    let mut idle = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(server.addr).await.expect("a connection");
        stream.write_all(&v2("192.0.2.7:4711")).await.expect("a connection");
        idle.push(Box::pin(async move {
            let mut answer = String::new();
            let _ = within("an answer", stream.read_to_string(&mut answer)).await;
            answer
        }));
    }
    let (answer, ..) = futures_util::future::select_all(idle).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    proxied(&server, &v2("192.0.2.8:4711"), &token("neighbour")).await.expect("let in").welcome().await;
    // A proxy that another names stands for whoever is behind it.
    let mut behind = Vec::new();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(server.addr).await.expect("a connection");
        stream.write_all(&v2("127.0.0.1:4711")).await.expect("a connection");
        behind.push(stream);
    }
    for stream in &mut behind {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("a connection");
        let mut answer = [0; 12];
        within("an answer", stream.read_exact(&mut answer)).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}

#[tokio::test]
async fn who_breaks_the_protocol_over_and_over_is_held_off_too() {
    let server = Server::start(&[BEHIND, ("SUSPECT_AFTER", "3"), ("SUSPECT_BAN", "1h")]).await;
    let refused = eventually("the address to be held off", async || {
        let answer = from("192.0.2.66", "rude").send(server.addr).await.expect("an answer");
        let mut raw = match answer {
            Ok(raw) => raw,
            Err(refused) => return (limited(&server, "address_held_off").await > 0.0).then_some(refused),
        };
        raw.welcome().await;
        // Not masked.
        raw.bytes(&[0x81, 1, b'x']).await.expect("a connection");
        assert_eq!(raw.closed(true).await, Seen::Close(Some(1002)));
        None
    })
    .await;
    assert!(says_when(&refused) > 3_000, "{refused:?}");
}

#[tokio::test]
async fn this_machine_itself_is_not_suspect_by_default() {
    let server = Server::start(&[("SUSPECT_AFTER", "1")]).await;
    for _ in 0..20 {
        assert_eq!(Ask::with_token("nonsense").refused(server.addr).await.status, 401);
    }
    let server = Server::start(&[("SUSPECT_AFTER", "1"), ("SUSPECT_EXEMPT", "")]).await;
    eventually("it to be slowed", async || {
        (Ask::with_token("nonsense").refused(server.addr).await.status == 429).then_some(())
    })
    .await;
}

#[tokio::test]
async fn more_bytes_than_allowed_end_the_session() {
    let small = [("BYTES_PER_SEC", "1000"), ("MAX_FRAME_BYTES", "1000"), ("MAX_MESSAGE_BYTES", "1000")];
    let server = Server::start(&small).await;
    let (mut raw, welcome) = Raw::connect(server.addr, &token("wordy")).await;
    assert_eq!(raw.flood(&frame(true, TEXT, &[b' '; 900]).repeat(20)).await, Seen::Close(Some(4013)));
    let end = Events::new().only_end(&server, welcome["session_id"].as_str().expect("an id")).await;
    End::by("rate_limited").check(&end);
    assert_eq!(limited(&server, "bytes_per_sec").await, 1.0);
}

#[tokio::test]
async fn heads_and_metadata_are_bounded_by_setting() {
    let server = Server::start(&[("MAX_HEADER_BYTES", "1KiB"), ("MAX_META_BYTES", "10")]).await;
    let ask = || Ask::with_token(&token("talkative"));
    let long = ask().header("X-Long", &"x".repeat(2_000)).refused(server.addr).await;
    assert_eq!(long.status, 431, "{long:?}");
    long.problem();
    let meta = ask().target("/ws?meta.k=0123456789").refused(server.addr).await;
    assert_eq!((meta.status, &meta.problem()["input"]), (400, &json!("meta.KEY")));
    ask().target("/ws?meta.k=012345678").admitted(server.addr).await.welcome().await;
    assert_eq!((limited(&server, "header_bytes").await, limited(&server, "meta").await), (1.0, 1.0));
}
