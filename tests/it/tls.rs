//! TLS on the listener: sessions within it, certificates that change, clients known by theirs, and who dawdles.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::growth::{Growth, p99};
use crate::support::login::add;
use crate::support::raw::{TEXT, connect_from, frame, v2};
use crate::support::server::lastpong;
use crate::support::size::{promised, slow};
use crate::support::tls::{Authority, Client, Issued, text};
use crate::support::{Ask, Server, eventually, heavy, token, within};

/// From one connection of a flood to the next.
const BETWEEN: Duration = Duration::from_micros(500);

async fn node(issued: &Issued, settings: &[(&str, &str)]) -> Server {
    Server::start(&[&issued.settings()[..], settings].concat()).await
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Opens a session over this connection; what the answer is where it opens none.
async fn session(stream: TlsStream<TcpStream>, token: Option<&str>) -> Result<(Socket, Value), u16> {
    let mut request = "wss://localhost/ws".into_client_request().expect("a good URL");
    if let Some(token) = token {
        let bearer = format!("Bearer {token}").parse().expect("a good header");
        request.headers_mut().insert("Authorization", bearer);
    }
    match within("the handshake", tokio_tungstenite::client_async(request, stream)).await {
        Ok((mut socket, _)) => {
            let welcome = json_of(&mut socket).await;
            assert_eq!(welcome["type"], "welcome", "{welcome}");
            Ok((socket, welcome))
        }
        Err(Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn json_of(socket: &mut Socket) -> Value {
    within("a text frame", async {
        loop {
            match socket.next().await.expect("a frame, not the end").expect("a frame") {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Close(close) => panic!("closed: {close:?}"),
                _ => {}
            }
        }
    })
    .await
}

async fn is_acknowledged(socket: &mut Socket) {
    socket.send(Message::text(r#"{"type":"heartbeat","id":"again"}"#)).await.expect("the frame is taken");
    assert_eq!(json_of(socket).await["type"], "ack");
}

/// A sample of `/metrics` of a node that speaks TLS.
async fn metric(server: &Server, http: &reqwest::Client, sample: &str) -> f64 {
    let url = format!("https://{}/metrics", server.addr);
    let answer =
        http.get(url).bearer_auth(crate::support::server::ADMIN_TOKEN).send().await.expect("an answer");
    let text = answer.text().await.expect("text");
    let found = text.lines().find_map(|l| l.strip_prefix(sample)?.strip_prefix(' ')?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {sample} in {text}"))
}

#[tokio::test]
async fn what_came_with_the_handshake_is_not_lost_when_the_socket_is_taken_over() {
    let authority = Authority::new();
    let server =
        node(&authority.server("one"), &[("FRAMES_PER_SEC", "0"), ("MAX_OUTPUT_BYTES", "1MiB")]).await;
    let mut stream = authority.connect(server.addr, &Client::default()).await.expect("TLS");
    // In one flight: the request and the first frame in one record, then many records of one frame each.
    let beat = |n: u32| {
        frame(true, TEXT, format!(r#"{{"type":"heartbeat","id":{n},"x":"{:0>300}"}}"#, n).as_bytes())
    };
    let mut first = Ask::with_token(&token("hasty")).bytes();
    first.extend(beat(0));
    stream.write_all(&first).await.expect("taken");
    for n in 1..400 {
        stream.write_all(&beat(n)).await.expect("taken");
    }
    stream.flush().await.expect("flushed");
    let mut came = Vec::new();
    let last = br#""id":399,"#;
    within("the last heartbeat's acknowledgement", async {
        while !came.windows(last.len()).any(|w| w == last) {
            assert!(stream.read_buf(&mut came).await.expect("more") > 0, "the end came first");
        }
    })
    .await;
    let text = String::from_utf8_lossy(&came);
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    let acks: Vec<u32> = text
        .match_indices(r#""id":"#)
        .filter_map(|(at, key)| text[at + key.len()..].split(',').next()?.parse().ok())
        .collect();
    assert_eq!(acks, (0..400).collect::<Vec<_>>());
}

#[tokio::test]
async fn output_that_the_peer_takes_late_arrives_whole() {
    const BEATS: u32 = 4_000;
    let authority = Authority::new();
    let settings = [("FRAMES_PER_SEC", "0"), ("MAX_OUTPUT_BYTES", "4MiB")];
    let server = node(&authority.server("one"), &settings).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    // So that the node's output soon has nowhere to go.
    socket.set_recv_buffer_size(4096).expect("small");
    let stream = socket.connect(server.addr).await.expect("the server listens");
    let stream = authority.shake(stream, &Client::default()).await.expect("TLS");
    let (socket, _) = session(stream, Some(&token("late"))).await.expect("a session");
    let (mut sink, mut stream) = socket.split();
    let id = |n: u32| format!("{n:0>120}");
    for n in 0..BEATS {
        let beat = json!({"type": "heartbeat", "id": id(n)}).to_string();
        within("room for a heartbeat", sink.send(Message::text(beat))).await.expect("taken");
    }
    for n in 0..BEATS {
        let ack = within("an acknowledgement", async {
            loop {
                if let Message::Text(text) = stream.next().await.expect("a frame").expect("a frame") {
                    return serde_json::from_str::<Value>(&text).expect("JSON");
                }
            }
        });
        assert_eq!(ack.await["id"], id(n));
    }
}

#[tokio::test]
async fn who_never_reads_is_a_slow_consumer_within_tls_too() {
    let authority = Authority::new();
    let server =
        node(&authority.server("one"), &[("FRAMES_PER_SEC", "0"), ("MAX_OUTPUT_BYTES", "8KiB")]).await;
    let stream = authority.connect(server.addr, &Client::default()).await.expect("TLS");
    let (socket, welcome) = session(stream, Some(&token("deaf"))).await.expect("a session");
    let (mut sink, _unread) = socket.split();
    let beat = json!({"type": "heartbeat", "id": "x".repeat(2000)}).to_string();
    within("the session to end", async { while sink.send(Message::text(beat.clone())).await.is_ok() {} })
        .await;
    let http = authority.https();
    let ended = r#"lastpong_disconnects_total{reason="slow_consumer"}"#;
    eventually("the end record", async || (metric(&server, &http, ended).await == 1.0).then_some(())).await;
    assert!(welcome["session_id"].is_string());
}

#[tokio::test]
async fn certificates_are_taken_up_without_a_restart_and_sessions_stay() {
    let authority = Authority::new();
    let (used, next) = (authority.server("first"), authority.server("second"));
    let (old, new) = (used.der(), next.der());
    let server = node(&used, &[("TLS_RELOAD", "100ms")]).await;
    let shown = async || {
        let stream = authority.connect(server.addr, &Client::default()).await.expect("TLS");
        stream.get_ref().1.peer_certificates().expect("a chain")[0].clone()
    };
    assert_eq!(shown().await, old);
    let stream = authority.connect(server.addr, &Client::default()).await.expect("TLS");
    let (mut socket, _) = session(stream, Some(&token("stays"))).await.expect("a session");

    used.replace_by(&next);
    eventually("the new certificate", async || (shown().await == new).then_some(())).await;
    is_acknowledged(&mut socket).await;

    // What cannot be used is left, and told of.
    std::fs::write(&used.cert, "no certificate").expect("written");
    let http = authority.https();
    let failed = r#"lastpong_tls_reloads_total{outcome="failed"}"#;
    eventually("a failure", async || (metric(&server, &http, failed).await >= 1.0).then_some(())).await;
    assert_eq!(shown().await, new);
    assert!(server.said().contains("it has no certificate"), "{}", server.said());
    is_acknowledged(&mut socket).await;
}

#[tokio::test]
async fn a_hangup_has_the_files_looked_at_now() {
    let authority = Authority::new();
    let (used, next) = (authority.server("first"), authority.server("second"));
    let server = node(&used, &[("TLS_RELOAD", "1d")]).await;
    used.replace_by(&next);
    server.signal(Signal::HUP);
    eventually("the new certificate", async || {
        let stream = authority.connect(server.addr, &Client::default()).await.expect("TLS");
        (stream.get_ref().1.peer_certificates().expect("a chain")[0] == next.der()).then_some(())
    })
    .await;
}

/// What becomes of who shows this certificate and this token: the device that is welcomed, or the refusal.
async fn comes(
    authority: &Authority,
    server: &Server,
    shows: Option<&Issued>,
    token: Option<&str>,
) -> Result<String, u16> {
    let client = Client { shows, ..Client::default() };
    let stream = authority.connect(server.addr, &client).await.expect("TLS");
    let (_, welcome) = session(stream, token).await?;
    Ok(welcome["device_id"].as_str().expect("an id").to_owned())
}

#[tokio::test]
async fn a_device_is_known_by_its_certificate() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let ca = authority.pem();
    let server =
        node(&authority.server("one"), &[("TLS_CLIENT_CA", text(&ca)), ("TOKEN_REPLAY", "once")]).await;
    let by_uri = authority.client("someone", "URI:urn:lastpong:device:lamp-7,URI:urn:other:lamp-8");
    let by_name = authority.client("lamp:9@home", "");
    assert_eq!(comes(&authority, &server, Some(&by_uri), None).await, Ok("lamp-7".into()));
    assert_eq!(comes(&authority, &server, Some(&by_name), None).await, Ok("lamp:9@home".into()));
    // Again: what holds for tokens that are used once does not hold for certificates.
    assert_eq!(comes(&authority, &server, Some(&by_name), None).await, Ok("lamp:9@home".into()));
    // Beside a token it has to say the same.
    let jti = |device: &str| crate::support::Token::of(device).with("jti", format!("only {device}")).mint();
    assert_eq!(comes(&authority, &server, Some(&by_uri), Some(&jti("lamp-7"))).await, Ok("lamp-7".into()));
    assert_eq!(comes(&authority, &server, Some(&by_uri), Some(&jti("lamp-8"))).await, Err(401));
    // One that names no device, or two, opens nothing; and without one there is the token.
    let no_name = authority.client("not a device id", "");
    let two = authority.client("x", "URI:urn:lastpong:device:a,URI:urn:lastpong:device:b");
    for shown in [Some(&no_name), Some(&two), None] {
        assert_eq!(comes(&authority, &server, shown, None).await, Err(401), "{shown:?}");
    }
    assert_eq!(comes(&authority, &server, None, Some(&jti("lamp-8"))).await, Ok("lamp-8".into()));
    // Nobody is taken for who another authority says he is.
    let forged = stranger.client("lamp-7", "URI:urn:lastpong:device:lamp-7");
    let client = Client { shows: Some(&forged), ..Client::default() };
    is_refused(authority.connect(server.addr, &client).await).await;
    // Nor by a certificate that is for servers.
    let server_s = authority.server("lamp-7");
    let client = Client { shows: Some(&server_s), ..Client::default() };
    is_refused(authority.connect(server.addr, &client).await).await;
}

/// With TLS 1.3 a client is done before the server has looked at its certificate: it learns at its first read.
async fn is_refused(stream: std::io::Result<TlsStream<TcpStream>>) {
    let Ok(mut stream) = stream else { return };
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut answer = Vec::new();
    let read = within("the refusal", stream.read_to_end(&mut answer)).await;
    assert!(read.is_err() && answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_certificate_is_asked_of_devices_or_of_all() {
    let authority = Authority::new();
    let (ca, issued) = (authority.pem(), authority.server("one"));
    let device = authority.client("lamp-7", "");
    let devices = node(&issued, &[("TLS_CLIENT_CA", text(&ca)), ("TLS_CLIENTS", "devices")]).await;
    assert_eq!(comes(&authority, &devices, None, Some(&token("lamp-7"))).await, Err(401));
    assert_eq!(comes(&authority, &devices, Some(&device), None).await, Ok("lamp-7".into()));
    let health = authority.https().get(format!("https://{}/healthz", devices.addr)).send().await;
    assert_eq!(health.expect("an answer").status(), 200);

    let all = node(&issued, &[("TLS_CLIENT_CA", text(&ca)), ("TLS_CLIENTS", "all")]).await;
    is_refused(authority.connect(all.addr, &Client::default()).await).await;
    assert_eq!(comes(&authority, &all, Some(&device), None).await, Ok("lamp-7".into()));
}

#[tokio::test]
async fn who_dawdles_keeps_nobody_out() {
    const DAWDLERS: usize = 300;
    let authority = Authority::new();
    let settings = [("WORKERS", "1"), ("MAX_TLS_HANDSHAKES", "8"), ("HANDSHAKE_TIMEOUT", "5s")];
    let server = node(&authority.server("one"), &settings).await;
    let http = authority.https();
    let mut dawdlers = Vec::new();
    for _ in 0..DAWDLERS {
        let mut stream = connect_from([127, 0, 0, 2], server.addr).await;
        stream.write_all(&authority.hello()).await.expect("taken");
        dawdlers.push(stream);
    }
    let count = async |outcome: &str| {
        metric(&server, &http, &format!("lastpong_tls_handshakes_total{{outcome=\"{outcome}\"}}")).await
    };
    // Each look is itself a handshake that finds a place, where there are only eight: four are for others.
    eventually("room made for others", async || (count("refused").await >= 1.0).then_some(())).await;
    let stream = authority.connect(server.addr, &Client::default()).await.expect("TLS");
    session(stream, Some(&token("quick"))).await.expect("a session");
    // And nobody stays.
    for stream in &mut dawdlers {
        let mut rest = [0; 64];
        within("the end", async { while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {} }).await;
    }
    // Of all who dawdled no more than eight at once were waited for, and none for ever.
    let (refused, late) = (count("refused").await, count("timed_out").await);
    assert!(late >= 1.0 && refused + late >= DAWDLERS as f64, "{refused} {late}");
}

#[tokio::test]
async fn who_has_not_begun_takes_no_place_and_does_not_stay() {
    const HALVES: usize = 50;
    let authority = Authority::new();
    let settings = [("WORKERS", "1"), ("MAX_TLS_HANDSHAKES", "1"), ("HANDSHAKE_TIMEOUT", "3s")];
    let server = node(&authority.server("one"), &settings).await;
    let hello = authority.hello();
    let mut halves = Vec::new();
    for n in 0..HALVES {
        let mut stream = connect_from([127, 0, 0, 2], server.addr).await;
        // Nothing, a record's beginning, all but a byte.
        let some = [0, 4, hello.len() - 1][n % 3];
        stream.write_all(&hello[..some]).await.expect("taken");
        halves.push(stream);
    }
    let stream = authority.connect(server.addr, &Client::default()).await.expect("TLS");
    session(stream, Some(&token("quick"))).await.expect("a session");
    for stream in &mut halves {
        assert_eq!(within("the end", stream.read(&mut [0; 64])).await.ok().unwrap_or_default(), 0);
    }
    let http = authority.https();
    let late = metric(&server, &http, r#"lastpong_limited_total{limit="header_time"}"#).await;
    let refused = metric(&server, &http, r#"lastpong_tls_handshakes_total{outcome="refused"}"#).await;
    assert_eq!((late, refused), (HALVES as f64, 0.0));
}

#[tokio::test]
async fn who_waits_for_a_handshake_leaves_room_for_connections() {
    const MOST: usize = 128;
    let authority = Authority::new();
    let most = MOST.to_string();
    let settings = [
        ("MAX_CONNECTIONS", &*most),
        ("WORKERS", "1"),
        ("MAX_TLS_HANDSHAKES", "4"),
        ("HANDSHAKE_TIMEOUT", "5s"),
    ];
    let server = node(&authority.server("one"), &settings).await;
    let hello = authority.hello();
    let mut dawdlers = Vec::new();
    // More than there may be, of more addresses than one has a share among.
    for n in 0..2 * MOST {
        let mut stream = connect_from([127, 0, 1, (n % 32) as u8], server.addr).await;
        stream.write_all(&hello).await.expect("taken");
        dawdlers.push(stream);
    }
    for stream in &mut dawdlers {
        let mut rest = [0; 64];
        within("the end", async { while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {} }).await;
    }
    let http = authority.https();
    let full = metric(&server, &http, r#"lastpong_limited_total{limit="connections"}"#).await;
    let refused = metric(&server, &http, r#"lastpong_tls_handshakes_total{outcome="refused"}"#).await;
    assert_eq!(full, 0.0, "the node was full of them");
    assert!(refused >= MOST as f64, "{refused}");
}

#[tokio::test]
async fn who_speaks_no_tls_is_told_what_is_spoken_here() {
    let authority = Authority::new();
    let server = node(&authority.server("one"), &[]).await;
    let mut stream = TcpStream::connect(server.addr).await.expect("the server listens");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("taken");
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("this speaks TLS"), "{answer}");
    let failed = r#"lastpong_tls_handshakes_total{outcome="failed"}"#;
    assert_eq!(metric(&server, &authority.https(), failed).await, 1.0);
}

#[tokio::test]
async fn who_has_not_begun_makes_room_for_a_newcomer() {
    let authority = Authority::new();
    let settings = [("MAX_CONNECTIONS", "32"), ("WORKERS", "1")];
    let server = node(&authority.server("one"), &settings).await;
    let mut idle = Vec::new();
    for n in 0..100 {
        idle.push(connect_from([127, 0, 1, n], server.addr).await);
    }
    let stream = authority.connect(server.addr, &Client::default()).await.expect("TLS");
    session(stream, Some(&token("newcomer"))).await.expect("a session");
    // Without a word: it would not be understood.
    let mut said = Vec::new();
    let _ = within("the end", idle[0].read_to_end(&mut said)).await;
    assert_eq!(said, b"");
    let overtaken = r#"lastpong_limited_total{limit="connections"}"#;
    assert!(metric(&server, &authority.https(), overtaken).await >= 60.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_half_handshakes_costs_little_and_is_paid_for_where_it_comes_from() {
    let _turn = heavy().await;
    let authority = Authority::new();
    let server = node(&authority.server("one"), &[("HANDSHAKE_TIMEOUT", "5s")]).await;
    let come = async |device: String| {
        let began = Instant::now();
        let stream = authority.connect(server.addr, &Client::default()).await.expect("TLS");
        session(stream, Some(&token(&device))).await.expect("a session");
        began.elapsed()
    };
    // What is made once, at the first of each kind, is no growth.
    for n in 0..100 {
        come(format!("early-{n}")).await;
    }
    let stream = authority.connect(server.addr, &Client::default()).await.expect("TLS");
    let (mut bystander, _) = session(stream, Some(&token("bystander"))).await.expect("a session");
    let growth = Growth::begin(&server);
    let (addr, over) = (server.addr, std::cell::Cell::new(false));
    let hello = authority.hello();
    let flood = (0..slow()).map(|n| {
        let (authority, hello) = (&authority, &hello);
        async move {
            // One after the other, so that it is not their own haste that newcomers wait for.
            tokio::time::sleep(BETWEEN * n as u32).await;
            // Each address does all of it.
            let mut stream = connect_from([127, 0, 1, (n / 20 % 50) as u8], addr).await;
            let mut rest = [0; 64];
            match n % 20 {
                // Nothing at all, the beginning of a ClientHello, a whole one, or half a head within TLS.
                0 => {}
                1..15 => stream.write_all(&hello[..4]).await.expect("taken"),
                15..19 => stream.write_all(hello).await.expect("taken"),
                _ => {
                    let Ok(mut stream) = authority.try_shake(stream, &Client::default()).await else {
                        return;
                    };
                    let _ = stream.write_all(b"GET /ws HTTP/1.1\r\nX: ").await;
                    let _ = stream.flush().await;
                    within("the end", async { while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {} })
                        .await;
                    return;
                }
            }
            within("the end", async { while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {} }).await;
        }
    });
    let newcomers = async {
        let (mut welcomes, mut acks) = (Vec::new(), Vec::new());
        while !over.get() {
            welcomes.push(come(format!("newcomer-{}", welcomes.len())).await);
            let began = Instant::now();
            is_acknowledged(&mut bystander).await;
            acks.push(began.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (welcomes, acks)
    };
    let flood = async {
        futures_util::future::join_all(flood).await;
        over.set(true);
    };
    let ((), (welcomes, acks)) = tokio::join!(flood, newcomers);
    promised("a newcomer's welcome within TLS, p99", p99(welcomes), Duration::from_millis(100));
    promised("a bystander's acknowledgement within TLS, p99", p99(acks), Duration::from_millis(100));
    growth.end("half handshakes", 10 << 20).await;
}

#[tokio::test]
async fn a_request_within_tls_is_held_to_what_holds_without() {
    let authority = Authority::new();
    let server = node(&authority.server("one"), &[("HANDSHAKE_TIMEOUT", "1s")]).await;
    let long = format!("GET /healthz HTTP/1.1\r\nX: {}", "y".repeat(33_000));
    for (sent, status) in [
        ("GET /healthz HTTP/1.1\r\nHost: x\r\nX: ", 408),
        (long.as_str(), 431),
        ("POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\n", 505),
        ("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
    ] {
        let mut stream = authority.connect(server.addr, &Client::default()).await.expect("TLS");
        let (head, rest) = sent.as_bytes().split_at(12);
        // In pieces, of which the first is no head.
        for byte in head {
            stream.write_all(&[*byte]).await.expect("taken");
            stream.flush().await.expect("taken");
        }
        let _ = stream.write_all(rest).await;
        let _ = stream.flush().await;
        let mut answer = Vec::new();
        let _ = within("an answer", stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        assert_eq!(answer.contains("problem+json"), status != 200, "{answer}");
    }
}

#[tokio::test]
async fn whom_a_proxy_names_before_tls_is_whose_session_it_is() {
    let authority = Authority::new();
    let behind = [("TRUSTED_PROXIES", "127.0.0.1"), ("PROXY_PROTOCOL", "true"), ("MAX_SESSIONS_PER_IP", "1")];
    let server = node(&authority.server("one"), &behind).await;
    let come = async |client: &str, device: &str| {
        let mut stream = TcpStream::connect(server.addr).await.expect("the server listens");
        stream.write_all(&v2(client)).await.expect("taken");
        let stream = authority.shake(stream, &Client::default()).await.expect("TLS");
        session(stream, Some(&token(device))).await
    };
    let (mut socket, _) = come("192.0.2.7:4711", "proxied").await.expect("a session");
    is_acknowledged(&mut socket).await;
    assert_eq!(come("192.0.2.7:4712", "second").await.err(), Some(429), "one address, one session");
    let (_other, welcome) = come("192.0.2.8:4711", "other").await.expect("a session");
    let id = welcome["session_id"].as_str().expect("an id");
    let url = format!("https://{}/debug/connections/{id}", server.addr);
    let stays_out = authority.https().get(url).send().await;
    assert!(stays_out.is_err(), "without the header nothing passes: {stays_out:?}");
    // Who comes straight is no proxy.
    let straight = connect_from([127, 0, 0, 2], server.addr).await;
    let straight = authority.shake(straight, &Client::default()).await.expect("TLS");
    session(straight, Some(&token("straight"))).await.expect("a session");
}

#[tokio::test]
async fn what_is_no_tls_is_held_against_its_address() {
    let authority = Authority::new();
    let settings = [("SUSPECT_AFTER", "2"), ("SUSPECT_EXEMPT", ""), ("SUSPECT_BAN", "1h")];
    let server = node(&authority.server("one"), &settings).await;
    let http = authority.https();
    let held_off = r#"lastpong_limited_total{limit="address_held_off"}"#;
    eventually("the address to be held off", async || {
        let mut stream = connect_from([127, 0, 0, 2], server.addr).await;
        let _ = stream.write_all(b"no TLS at all\r\n\r\n").await;
        let mut rest = Vec::new();
        let _ = within("the end", stream.read_to_end(&mut rest)).await;
        (metric(&server, &http, held_off).await > 0.0).then_some(())
    })
    .await;
    let stream = connect_from([127, 0, 0, 2], server.addr).await;
    assert!(authority.shake(stream, &Client::default()).await.is_err(), "nothing is looked at");
    let stream = authority.connect(server.addr, &Client::default()).await.expect("TLS");
    session(stream, Some(&token("neighbour"))).await.expect("a session");
}

#[tokio::test]
async fn both_versions_are_spoken_and_nothing_but_tls_is() {
    let authority = Authority::new();
    let server = node(&authority.server("one"), &[]).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Client { version: Some(version), ..Client::default() };
        let stream = authority.connect(server.addr, &client).await.expect("TLS");
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        session(stream, Some(&token("both"))).await.expect("a session");
    }
    let answer = server.bare(Method::GET, "/healthz").send().await.expect("an answer");
    assert_eq!(answer.status(), 400);
    let http = authority.https();
    assert!(metric(&server, &http, "lastpong_tls_certificate_expires_seconds").await > 1.7e9);
}

#[tokio::test]
async fn a_login_within_tls_is_for_tls_alone() {
    let authority = Authority::new();
    let server = node(&authority.server("one"), &[]).await;
    add(&server, "ada", "reader").await;
    let body = json!({"username": "ada", "password": crate::support::login::PASSWORD});
    let asked = authority.https().post(format!("https://{}/login", server.addr)).json(&body).send();
    let answer = asked.await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let cookie = answer.headers()["set-cookie"].to_str().expect("text");
    assert!(cookie.contains("; Secure") && cookie.contains("HttpOnly"), "{cookie}");
}

#[tokio::test]
async fn a_subscriber_follows_within_tls() {
    let authority = Authority::new();
    let server = node(&authority.server("one"), &[]).await;
    let stream = authority.connect(server.addr, &Client::default()).await.expect("TLS");
    let mut request = "wss://localhost/v1/events/ws".into_client_request().expect("a good URL");
    let bearer = format!("Bearer {}", crate::support::server::ADMIN_TOKEN).parse().expect("a good header");
    request.headers_mut().insert("Authorization", bearer);
    let answered = within("the handshake", tokio_tungstenite::client_async(request, stream)).await;
    let (mut events, _) = answered.expect("a stream of events");
    let stream = authority.connect(server.addr, &Client::default()).await.expect("TLS");
    let (mut device, _) = session(stream, Some(&token("seen"))).await.expect("a session");
    assert_eq!(json_of(&mut events).await["type"], "lastpong.session.connected.v1");
    device.close(None).await.expect("closed");
    assert_eq!(json_of(&mut events).await["data"]["reason"], "client_closed");
}

/// Settings, the exit code, and what is said.
type Case<'a> = (&'a [(&'a str, &'a str)], i32, &'a str);

#[test]
fn what_does_not_fit_stops_the_start_with_one_line() {
    let authority = Authority::new();
    let (one, other) = (authority.server("one"), authority.server("other"));
    let open = authority.server("open");
    std::fs::set_permissions(&open.key, std::fs::Permissions::from_mode(0o644)).expect("set");
    let [cert, key] = [text(&one.cert), text(&one.key)];
    let no_key = authority.server("no key");
    std::fs::set_permissions(&no_key.cert, std::fs::Permissions::from_mode(0o600)).expect("set");
    let missing = "/nowhere/at/all.pem";
    let cases: &[Case] = &[
        (&[("TLS_CERT", cert)], 2, "LASTPONG_TLS_CERT"),
        (&[("TLS_KEY", key)], 2, "LASTPONG_TLS_KEY"),
        (&[("TLS_CLIENT_CA", cert)], 2, "LASTPONG_TLS_CLIENT_CA"),
        (&[("TLS_CERT", cert), ("TLS_KEY", key), ("TLS_CLIENTS", "devices")], 2, "LASTPONG_TLS_CLIENT_CA"),
        (&[("TLS_CERT", cert), ("TLS_KEY", key), ("TLS_CLIENTS", "some")], 2, "optional or devices or all"),
        (&[("TLS_CERT", missing), ("TLS_KEY", key)], 1, missing),
        (&[("TLS_CERT", key), ("TLS_KEY", key)], 1, "it has no certificate"),
        (&[("TLS_CERT", cert), ("TLS_KEY", text(&no_key.cert))], 1, "it has no private key"),
        (&[("TLS_CERT", cert), ("TLS_KEY", text(&other.key))], 1, "LASTPONG_TLS_CERT and LASTPONG_TLS_KEY"),
        (&[("TLS_CERT", text(&open.cert)), ("TLS_KEY", text(&open.key))], 1, "0600"),
        (&[("TLS_CERT", cert), ("TLS_KEY", key), ("TLS_CLIENT_CA", key)], 1, "LASTPONG_TLS_CLIENT_CA"),
    ];
    for (settings, code, said) in cases {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = lastpong();
        command.current_dir(dir.path()).arg("serve").env("LASTPONG_BIND", "127.0.0.1:0");
        command.envs(settings.iter().map(|(name, value)| (format!("LASTPONG_{name}"), value)));
        let run = crate::support::server::run_to_end(command);
        assert_eq!(
            (run.code, run.stderr.trim_end().lines().count()),
            (Some(*code), 1),
            "{settings:?}: {}",
            run.stderr
        );
        assert!(run.stderr.contains(said), "{settings:?}: {}", run.stderr);
        assert!(!run.stderr.contains("PRIVATE"), "{}", run.stderr);
    }
}

#[tokio::test]
async fn a_reset_within_tls_is_the_network_s_and_a_broken_record_is_too() {
    let authority = Authority::new();
    let server = node(&authority.server("one"), &[]).await;
    let stream = authority.connect(server.addr, &Client::default()).await.expect("TLS");
    let (socket, welcome) = session(stream, Some(&token("garbled"))).await.expect("a session");
    // A record that no key of this connection made.
    let (mut tcp, _) = socket.into_inner().into_inner();
    tcp.write_all(&[0x17, 0x03, 0x03, 0x00, 0x20]).await.expect("taken");
    tcp.write_all(&[0xab; 32]).await.expect("taken");
    let http = authority.https();
    let ended = r#"lastpong_disconnects_total{reason="read_error"}"#;
    eventually("the end record", async || (metric(&server, &http, ended).await == 1.0).then_some(())).await;
    assert!(welcome["session_id"].is_string());
}
