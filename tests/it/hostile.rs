//! What an attacker sends, and what it costs: memory that is measured, and the others' service meanwhile.
//!
//! Each story has bystanders: devices that ask for pongs, and newcomers that shake hands, all the while. What they wait is
//! told, and held where `TEST_DEADLINES` says so; how far memory grows is held always.

use std::time::{Duration, Instant};

use futures_util::future::{join_all, select_all};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::growth::{Growth, p99};
use crate::support::raw::{BINARY, PING, PONG, Raw, Seen, TEXT, connect_from, frame, header};
use crate::support::size::{deaf, flood, promised, slow};
use crate::support::{Ask, End, Events, Server, eventually, heavy, token, within};

const MIB: u64 = 1 << 20;
const BYSTANDERS: usize = 10;
/// How long a bystander rests in between.
const REST: Duration = Duration::from_millis(20);

/// From one slow connection to the next.
const BETWEEN: Duration = Duration::from_micros(500);

/// A program under attack.
struct Watch {
    growth: Growth,
    service: JoinHandle<Vec<Duration>>,
    newcomers: JoinHandle<Vec<Duration>>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Watch {
    async fn begin(server: &Server) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let addr = server.addr;
        let mut devices = Vec::new();
        for n in 0..BYSTANDERS {
            devices.push(Raw::connect(addr, &token(&format!("bystander-{n}"))).await.0);
        }
        // What is made once, at the first of each kind, is no growth.
        for n in 0..200 {
            Raw::connect(addr, &token(&format!("early-{n}"))).await;
        }
        eventually("the early ones to be gone", async || {
            (server.live().await == BYSTANDERS as u64).then_some(())
        })
        .await;
        let growth = Growth::begin(server);
        let over = stopped.clone();
        let service = tokio::spawn(async move {
            let asked = devices.into_iter().map(|raw| ask_for_pongs(raw, over.clone()));
            join_all(asked).await.concat()
        });
        let over = stopped;
        let newcomers = tokio::spawn(async move {
            let mut took = Vec::new();
            while !*over.borrow() {
                let (began, device) = (Instant::now(), token(&format!("newcomer-{}", took.len())));
                Raw::connect(addr, &device).await;
                took.push(began.elapsed());
                tokio::time::sleep(REST).await;
            }
            took
        });
        Self { growth, service, newcomers, stop }
    }

    /// Holds that memory grew by less than this, and tells what the bystanders waited.
    async fn end(self, what: &str, growth: u64) {
        self.stop.send_replace(true);
        let service = self.service.await.expect("the bystanders were served");
        let newcomers = self.newcomers.await.expect("the newcomers were served");
        assert!(!service.is_empty() && !newcomers.is_empty(), "nobody was there to see");
        promised(&format!("{what}: a bystander's pong, p99"), p99(service), Duration::from_millis(100));
        promised(&format!("{what}: a newcomer's welcome, p99"), p99(newcomers), Duration::from_millis(100));
        self.growth.end(what, growth).await;
    }
}

async fn ask_for_pongs(mut raw: Raw, over: tokio::sync::watch::Receiver<bool>) -> Vec<Duration> {
    let mut took = Vec::new();
    while !*over.borrow() {
        let began = Instant::now();
        raw.send(PING, b"me").await.expect("a bystander's connection");
        let answer = async {
            loop {
                let frame = raw.answering().await.expect("a connection").expect("the session goes on");
                if frame.opcode == PONG {
                    return;
                }
            }
        };
        within("a bystander's pong", answer).await;
        took.push(began.elapsed());
        tokio::time::sleep(REST).await;
    }
    took
}

async fn limited(server: &Server, limit: &str) -> f64 {
    server
        .metric(&format!("lastpong_limited_total{{limit=\"{limit}\"}}"))
        .await
        .expect("every limit is counted")
}

/// All that comes until the end.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = within("the connection to be closed", stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_request_costs_next_to_nothing_and_is_answered_when_its_time_is_over() {
    let _turn = heavy().await;
    let server = Server::start_embedded(&[("HANDSHAKE_TIMEOUT", "5s")]).await;
    let watch = Watch::begin(&server).await;
    let addr = server.addr;
    let slow = (0..slow()).map(|n| async move {
        // One after the other, so that it is not their own haste that newcomers wait for.
        tokio::time::sleep(BETWEEN * n as u32).await;
        // Of one address there are no more than are left for all others.
        let mut stream = connect_from([127, 0, 0, 2 + (n % 4) as u8], addr).await;
        // Some send nothing at all, some a byte now and then.
        if n % 2 == 0 {
            stream.write_all(b"GET /ws HTTP/1.1\r\nHost: lastpong\r\nX: ").await.expect("a connection");
            // Until the answer is there.
            while tokio::time::timeout(Duration::from_millis(500), stream.peek(&mut [0])).await.is_err() {
                let _ = stream.write_all(b"x").await;
            }
        }
        rest(&mut stream).await
    });
    let answers = join_all(slow).await;
    // One whose last byte crossed the answer may have lost it.
    let told =
        answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 408") && answer.contains("problem+json"));
    let (told, all) = (told.count(), answers.len());
    assert!(
        told * 10 >= all * 8,
        "{told} of {all} were told: {:?}",
        answers.iter().find(|a| !a.starts_with("HTTP/1.1 408"))
    );
    watch.end("half requests", 10 * MIB).await;
    assert!(limited(&server, "header_time").await >= all as f64);
}

#[tokio::test]
async fn a_newcomer_takes_the_place_of_who_waited_longest() {
    let server = Server::start_embedded(&[("MAX_CONNECTIONS", "32"), ("WORKERS", "1")]).await;
    let mut idle = Vec::new();
    for n in 0..100 {
        idle.push(connect_from([127, 0, 1, n], server.addr).await);
    }
    Raw::connect(server.addr, &token("newcomer")).await;
    let answer = rest(&mut idle[0]).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: "), "{answer}");
    assert!(limited(&server, "connections").await >= 60.0);
    let open = server.metric("lastpong_http_connections").await.expect("a gauge");
    assert!(open <= 40.0, "{open} are open, and 32 is the limit");
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let server = Server::start_embedded(&[("MAX_CONNECTIONS_PER_IP", "5")]).await;
    let mut held = Vec::new();
    for _ in 0..6 {
        let mut stream = TcpStream::connect(server.addr).await.expect("a connection");
        held.push(Box::pin(async move { rest(&mut stream).await }));
    }
    // Which of them is one too many is for the workers' haste to say.
    let (answer, _, held) = select_all(held).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    drop(held);
    eventually("a place to be free", async || {
        Ask::with_token(&token("next")).send(server.addr).await.ok()?.ok()
    })
    .await;
}

#[tokio::test]
async fn one_address_leaves_room_for_the_others_whatever_it_does() {
    let server = Server::start_embedded(&[("MAX_CONNECTIONS", "64")]).await;
    let ask = b"GET /healthz HTTP/1.1\r\nHost: lastpong\r\n\r\n";
    let mut kept = Vec::new();
    // They are served, and keep their connections by asking again.
    let refused = loop {
        let mut stream = connect_from([127, 0, 0, 2], server.addr).await;
        stream.write_all(ask).await.expect("a connection");
        let mut answer = [0; 12];
        within("an answer", stream.read_exact(&mut answer)).await.expect("an answer");
        if &answer != b"HTTP/1.1 200" {
            break String::from_utf8_lossy(&answer).into_owned();
        }
        kept.push(stream);
        for stream in &mut kept {
            let _ = stream.write_all(ask).await;
        }
    };
    assert_eq!((refused.as_str(), kept.len() <= 32), ("HTTP/1.1 503", true), "{} are kept", kept.len());
    assert!(limited(&server, "connections_per_ip").await >= 1.0);
    for n in 0..20 {
        Raw::connect(server.addr, &token(&format!("newcomer-{n}"))).await;
    }
}

#[tokio::test]
async fn a_connection_that_is_served_and_falls_silent_is_closed() {
    let server = Server::start_embedded(&[("HANDSHAKE_TIMEOUT", "500ms")]).await;
    let mut stream = TcpStream::connect(server.addr).await.expect("a connection");
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: lastpong\r\n\r\nGET /healthz HTTP/1.1\r\nX: ")
        .await
        .expect("a connection");
    within("a slow second head to be cut off", async {
        let mut scratch = [0; 4096];
        loop {
            tokio::select! {
                read = stream.read(&mut scratch) => if !matches!(read, Ok(1..)) { break },
                () = tokio::time::sleep(Duration::from_secs(1)) => if stream.write_all(b"x").await.is_err() { break },
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_end_with_their_reason() {
    let server = Server::start_embedded(&[]).await;
    let watch = Watch::begin(&server).await;
    let mut sessions = Vec::new();
    for (device, bytes) in [
        ("pings", frame(true, PING, b"flood")),
        ("tiny", frame(true, TEXT, b"")),
        ("fragments", frame(false, 0, b"x")),
    ] {
        let (mut raw, welcome) = Raw::connect(server.addr, &token(device)).await;
        if device == "fragments" {
            raw.bytes(&frame(false, TEXT, b"x")).await.expect("a connection");
        }
        assert_eq!(raw.flood(&bytes.repeat(flood())).await, Seen::Close(Some(4013)), "{device}");
        sessions.push(welcome["session_id"].as_str().expect("an id").to_owned());
    }
    watch.end("floods", 10 * MIB).await;
    for session in sessions {
        End::by("rate_limited").check(&Events::new().only_end(&server, &session).await);
    }
    assert_eq!(limited(&server, "frames_per_sec").await, 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_announced_is_not_waited_for_and_what_is_gathered_is_bounded() {
    let unhurried = [("FRAMES_PER_SEC", "0"), ("BYTES_PER_SEC", "0")];
    let server = Server::start_embedded(&unhurried).await;
    let watch = Watch::begin(&server).await;
    let (mut huge, _) = Raw::connect(server.addr, &token("huge")).await;
    huge.bytes(&header(true, BINARY, 300 << 20)).await.expect("a connection");
    assert_eq!(huge.closed(true).await, Seen::Close(Some(1009)));
    // As many fragments as it likes, but no more than a message.
    let (mut many, _) = Raw::connect(server.addr, &token("many")).await;
    many.bytes(&frame(false, BINARY, b"x")).await.expect("a connection");
    assert_eq!(many.flood(&frame(false, 0, b"x").repeat(300_000)).await, Seen::Close(Some(1009)));
    watch.end("large messages", 10 * MIB).await;
    assert_eq!(limited(&server, "message_bytes").await, 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_never_finished_ends_its_session() {
    let settings = [("MESSAGE_TIMEOUT", "1s"), ("PING_INTERVAL", "200ms"), ("PONG_TIMEOUT", "5s")];
    let server = Server::start_embedded(&settings).await;
    let watch = Watch::begin(&server).await;
    let (mut raw, welcome) = Raw::connect(server.addr, &token("unfinished")).await;
    raw.bytes(&frame(false, TEXT, &[b' '; 1000])).await.expect("a connection");
    // It answers every ping meanwhile.
    assert_eq!(raw.closed(true).await, Seen::Close(Some(1002)));
    watch.end("a message without an end", 10 * MIB).await;
    let end = Events::new().only_end(&server, welcome["session_id"].as_str().expect("an id")).await;
    End::by("protocol_error").check(&end);
    assert_eq!(limited(&server, "message_time").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_never_read_cost_little_and_are_found() {
    let _turn = heavy().await;
    let settings = [("FRAMES_PER_SEC", "0"), ("BYTES_PER_SEC", "0"), ("MAX_OUTPUT_TOTAL", "2MiB")];
    let server = Server::start_embedded(&settings).await;
    let watch = Watch::begin(&server).await;
    // Little at a time, so that it is not a flood that the others wait for.
    let asks = frame(true, PING, &[7; 125]).repeat(25);
    let deaf = join_all((0..deaf()).map(|n| {
        let asks = &asks;
        let addr = server.addr;
        async move {
            let mut ask = Ask::with_token(&token(&format!("deaf-{n}")));
            ask.receive_buffer = Some(4096);
            ask.send_buffer = Some(64 * 1024);
            let mut raw = ask.admitted(addr).await;
            let id = raw.welcome().await["session_id"].as_str().expect("an id").to_owned();
            let asked = async {
                tokio::time::sleep(BETWEEN * n as u32).await;
                while raw.bytes(asks).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            };
            within("it to be given up", asked).await;
            id
        }
    }))
    .await;
    let mut events = Events::new();
    events.until_ended(&server, deaf.iter().cloned()).await;
    watch.end("devices that never read", 50 * MIB).await;
    for end in events
        .of_kind("lastpong.session.disconnected.v1")
        .filter(|e| e["subject"].as_str().is_some_and(|s| s.starts_with("deaf")))
    {
        assert_eq!(end["data"]["reason"], "slow_consumer", "{end:#}");
    }
    let (own, all) = (limited(&server, "output").await, limited(&server, "output_total").await);
    assert_eq!(own + all, deaf.len() as f64);
}

#[tokio::test]
async fn what_is_no_clear_request_is_refused_with_a_problem() {
    let server = Server::start_embedded(&[]).await;
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = format!("X: {}\r\n", "y".repeat(33_000));
    for (what, head, status) in [
        (
            "two lengths",
            "POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n".to_owned(),
            400,
        ),
        (
            "a length and chunks",
            "POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n".into(),
            400,
        ),
        (
            "two codings",
            "POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n"
                .into(),
            400,
        ),
        ("HTTP/2", "PRI * HTTP/2.0\r\n".into(), 505),
        ("no request", "\x16\x03\x01\x02\r\n".into(), 400),
        ("a header without a name", "GET /ws HTTP/1.1\r\n: y\r\n".into(), 400),
        ("a NUL", "GET /ws HTTP/1.1\r\nX: a\0b\r\n".into(), 400),
        ("many headers", format!("GET /ws HTTP/1.1\r\n{many}"), 431),
        ("a long header", format!("GET /ws HTTP/1.1\r\n{long}"), 431),
    ] {
        let mut stream = TcpStream::connect(server.addr).await.expect("a connection");
        let smuggled = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(format!("{head}\r\n{smuggled}").as_bytes()).await.expect("a connection");
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        assert!(answer.contains("application/problem+json"), "{what}: {answer}");
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{what}: more than one request was answered: {answer}"
        );
    }
    Raw::connect(server.addr, &token("after")).await;
}
