//! What a device may send, and what becomes of what it may not.

use crate::support::raw::{BINARY, CLOSE, PING, PONG, Raw, Seen, TEXT, frame, header};
use crate::support::{Ask, Device, End, Events, Server, eventually, token, within};

async fn connect(server: &Server, device: &str) -> (Raw, String) {
    let (raw, welcome) = Raw::connect(server.addr, &token(device)).await;
    (raw, welcome["session_id"].as_str().unwrap().to_owned())
}

/// Holds that the session is alive and understood.
async fn still_works(raw: &mut Raw) {
    raw.text(r#"{"type":"heartbeat","id":"alive?"}"#).await.unwrap();
    let ack = raw.json().await;
    assert_eq!((&ack["type"], &ack["id"]), (&"ack".into(), &"alive?".into()), "{ack}");
}

#[tokio::test]
async fn heartbeats_of_both_dialects_are_acknowledged() {
    let server = Server::start(&[]).await;
    let mut device = Device::connect(&server, "bilingual").await;
    device.text(r#"{"type":"heartbeat","id":"42"}"#).await;
    let ack = device.json().await;
    assert_eq!(ack["type"], "ack");
    assert_eq!(ack["id"], "42");
    assert_eq!(ack["code"], 200);
    assert!(crate::support::expect::time(&ack["server_time"]).is_some(), "{ack}");
    device.text(r#"{"lwp":"/!","headers":{"mid":"abc 0"}}"#).await;
    assert_eq!(device.json().await, serde_json::json!({"code": 200, "headers": {"mid": "abc 0"}}));
}

#[tokio::test]
async fn what_is_not_understood_is_answered_and_the_session_goes_on() {
    let server = Server::start(&[]).await;
    let (mut raw, _) = connect(&server, "confused").await;
    for text in [
        "",
        "{",
        "null",
        "7",
        "[]",
        "{}",
        r#"{"type":"sing"}"#,
        r#"{"type":7}"#,
        r#"{"lwp":"/?"}"#,
        "\u{1F600}",
    ] {
        raw.text(text).await.unwrap();
        let error = raw.json().await;
        assert_eq!(error["type"], "error", "{text:?}: {error}");
        assert!(error["code"].is_string() && error["message"].is_string(), "{text:?}: {error}");
    }
    raw.send(BINARY, &[0, 159, 146, 150]).await.unwrap();
    assert_eq!(raw.json().await["type"], "error");
    still_works(&mut raw).await;
}

#[tokio::test]
async fn a_ping_of_the_device_is_answered() {
    let server = Server::start(&[]).await;
    let (mut raw, _) = connect(&server, "curious").await;
    for payload in [&b""[..], b"are you there?", &[0xff; 125]] {
        raw.send(PING, payload).await.unwrap();
        let pong = within("a pong", raw.answering()).await.unwrap().unwrap();
        assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, payload));
    }
    // A pong that nobody asked for is no violation.
    raw.send(PONG, b"by the way").await.unwrap();
    still_works(&mut raw).await;
}

#[tokio::test]
async fn fragments_are_one_message_and_a_ping_may_come_between() {
    let server = Server::start(&[]).await;
    let (mut raw, _) = connect(&server, "piecemeal").await;
    raw.bytes(&frame(false, TEXT, br#"{"type":"heart"#)).await.unwrap();
    raw.send(PING, b"between").await.unwrap();
    let pong = within("a pong", raw.answering()).await.unwrap().unwrap();
    assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, &b"between"[..]));
    raw.bytes(&frame(false, 0, b"")).await.unwrap();
    raw.bytes(&frame(true, 0, br#"beat","id":"in parts"}"#)).await.unwrap();
    assert_eq!(raw.json().await["id"], "in parts");
}

#[tokio::test]
async fn a_letter_may_be_split_over_fragments_and_over_packets() {
    let server = Server::start(&[]).await;
    let (mut raw, session) = connect(&server, "splitter").await;
    let text = r#"{"type":"heartbeat","id":"😀é"}"#.as_bytes();
    let cut = text.iter().position(|b| *b == 0xf0).unwrap() + 2;
    raw.bytes(&frame(false, TEXT, &text[..cut])).await.unwrap();
    raw.bytes(&frame(true, 0, &text[cut..])).await.unwrap();
    assert_eq!(raw.json().await["id"], "😀é");
    for byte in frame(true, TEXT, text) {
        raw.bytes(&[byte]).await.unwrap();
    }
    assert_eq!(raw.json().await["id"], "😀é");
    // Half a letter at the message's end is not a letter.
    raw.bytes(&frame(false, TEXT, &text[..cut])).await.unwrap();
    raw.bytes(&frame(true, 0, b"")).await.unwrap();
    assert_eq!(raw.closed(true).await, Seen::Close(Some(1007)));
    let end = Events::new().only_end(&server, &session).await;
    End::by("protocol_error").code(1007).check(&end);
}

#[tokio::test]
async fn each_violation_is_an_end_of_its_own() {
    let server = Server::start(&[]).await;
    let close = |payload: &[u8]| frame(true, CLOSE, payload);
    let code = |code: u16| frame(true, CLOSE, &code.to_be_bytes());
    let mut violations: Vec<(&str, Vec<u8>, u16)> = vec![
        ("an unmasked frame", vec![0x81, 2, b'h', b'i'], 1002),
        ("a reserved bit", frame(true, TEXT | 0x40, b"hi"), 1002),
        ("a reserved bit on a ping", frame(true, PING | 0x10, b""), 1002),
        ("a reserved data opcode", frame(true, 0x3, b""), 1002),
        ("a reserved control opcode", frame(true, 0xB, b""), 1002),
        ("a fragmented ping", frame(false, PING, b""), 1002),
        ("a ping over 125 bytes", frame(true, PING, &[0; 126]), 1002),
        ("a continuation of nothing", frame(true, 0, b"more"), 1002),
        (
            "a text within a fragmented message",
            [frame(false, TEXT, b"a"), frame(true, TEXT, b"b")].concat(),
            1002,
        ),
        ("a length with its highest bit set", header(true, TEXT, 1 << 63), 1002),
        ("a close of one byte", close(b"x"), 1002),
        ("a close with text that is not UTF-8", close(b"\x03\xe8\xc3\x28"), 1007),
        ("text that is not UTF-8", frame(true, TEXT, b"\xed\xa0\x80"), 1007),
    ];
    // Codes that may not be on the wire, or mean nothing (RFC 6455 section 7.4).
    for bad in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        violations.push(("a close code that may not be sent", code(bad), 1002));
    }
    let mut sessions = Vec::new();
    for (n, (what, bytes, expected)) in violations.iter().enumerate() {
        let (mut raw, session) = connect(&server, &format!("violator-{n}")).await;
        raw.bytes(bytes).await.unwrap();
        assert_eq!(raw.closed(true).await, Seen::Close(Some(*expected)), "{what}");
        sessions.push((session, *expected, *what));
    }
    let mut events = Events::new();
    for (session, expected, what) in sessions {
        let end = events.wait_for(&server, what, |e| crate::support::events::is_end_of(e, &session)).await;
        End::by("protocol_error").code(expected).check(&end);
    }
}

#[tokio::test]
async fn close_codes_that_may_be_sent_are_echoed() {
    let server = Server::start(&[]).await;
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        let (mut raw, session) = connect(&server, &format!("leaver-{code}")).await;
        let payload = [&u16::to_be_bytes(code)[..], "auf Wiedersehen, schöne Grüße".as_bytes()].concat();
        raw.send(CLOSE, &payload).await.unwrap();
        assert_eq!(raw.closed(true).await, Seen::Close(Some(code)));
        let mut events = Events::new();
        let end =
            events.wait_for(&server, "its end", |e| crate::support::events::is_end_of(e, &session)).await;
        End::by("client_closed").code(code).check(&end);
    }
}

#[tokio::test]
async fn nothing_after_a_close_frame_is_heard() {
    let server = Server::start(&[]).await;
    let (mut raw, session) = connect(&server, "afterthought").await;
    let after = [frame(true, CLOSE, &1000u16.to_be_bytes()), vec![0xff; 64]].concat();
    raw.bytes(&after).await.unwrap();
    assert_eq!(raw.closed(true).await, Seen::Close(Some(1000)));
    let end = Events::new().only_end(&server, &session).await;
    End::by("client_closed").code(1000).check(&end);
}

#[tokio::test]
async fn a_device_that_keeps_its_end_open_after_the_close_is_cut() {
    let server = Server::start(&[("CLOSE_TIMEOUT", "500ms")]).await;
    let (mut raw, session) = connect(&server, "clinging").await;
    raw.bytes(&[0x81, 2, b'h', b'i']).await.unwrap();
    assert_eq!(raw.closed(true).await, Seen::Close(Some(1002)));
    // It neither answers the close nor hangs up: the stream ends all the same.
    within("the socket to be cut", async { while raw.next().await.is_ok_and(|f| f.is_some()) {} }).await;
    End::by("protocol_error").check(&Events::new().only_end(&server, &session).await);
}

#[tokio::test]
async fn a_huge_declared_length_is_refused_before_anything_is_kept() {
    let server = Server::start(&[]).await;
    for (n, declared) in [65_537, 1 << 32, (1 << 63) - 1].into_iter().enumerate() {
        let (mut raw, session) = connect(&server, &format!("boaster-{n}")).await;
        // The header alone is enough: not one byte of the payload is sent.
        raw.bytes(&header(true, BINARY, declared)).await.unwrap();
        assert_eq!(raw.closed(true).await, Seen::Close(Some(1009)), "{declared}");
        End::by("message_too_big").check(&Events::new().only_end(&server, &session).await);
    }
}

#[tokio::test]
async fn a_frame_at_the_limit_is_read() {
    let server = Server::start(&[("MAX_FRAME_BYTES", "4KiB")]).await;
    let (mut raw, session) = connect(&server, "exact").await;
    let shell = r#"{"type":"heartbeat","id":"big","pad":""}"#.len();
    let text = format!(r#"{{"type":"heartbeat","id":"big","pad":"{}"}}"#, "x".repeat(4096 - shell));
    assert_eq!(text.len(), 4096);
    raw.text(&text).await.unwrap();
    assert_eq!(raw.json().await["id"], "big");
    raw.text(&format!("{text} ")).await.unwrap();
    assert_eq!(raw.closed(true).await, Seen::Close(Some(1009)));
    End::by("message_too_big").check(&Events::new().only_end(&server, &session).await);
}

#[tokio::test]
async fn fragments_together_are_bounded() {
    let limits = [("MAX_FRAME_BYTES", "1KiB"), ("MAX_MESSAGE_BYTES", "8KiB"), ("FRAMES_PER_SEC", "100000")];
    let server = Server::start(&limits).await;
    let (mut raw, session) = connect(&server, "endless").await;
    let piece = [0x20; 1000];
    raw.bytes(&frame(false, TEXT, &piece)).await.unwrap();
    for _ in 0..9 {
        raw.bytes(&frame(false, 0, &piece)).await.unwrap();
    }
    assert_eq!(raw.closed(true).await, Seen::Close(Some(1009)));
    End::by("message_too_big").check(&Events::new().only_end(&server, &session).await);
}

#[tokio::test]
async fn a_mebibyte_of_one_byte_fragments_costs_its_sender_the_session_and_us_no_memory() {
    let limits = [("FRAMES_PER_SEC", "1000000"), ("MAX_MESSAGE_BYTES", "256KiB")];
    let server = Server::start(&limits).await;
    let before = server.resident_bytes();
    let mut sessions = Vec::new();
    for n in 0..4 {
        let (mut raw, session) = connect(&server, &format!("crumbs-{n}")).await;
        let mut bytes = frame(false, TEXT, b" ");
        for _ in 0..(1 << 20) {
            bytes.extend_from_slice(&[0x00, 0x81, 0, 0, 0, 0, b' ']);
        }
        // The server may hang up long before all is sent.
        let _ = within("the crumbs to be taken or refused", raw.bytes(&bytes)).await;
        sessions.push(session);
    }
    let mut events = Events::new();
    for session in sessions {
        let end = events.only_end(&server, &session).await;
        End::by("message_too_big").check(&end);
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "four messages of at most 256 KiB left {grown} bytes behind");
}

#[tokio::test]
async fn a_flood_of_pings_is_bounded_by_the_rate() {
    let server = Server::start(&[]).await;
    let (mut raw, session) = connect(&server, "pinger").await;
    let pings: Vec<u8> = (0..5_000).flat_map(|_| frame(true, PING, b"!")).collect();
    assert_eq!(raw.flood(&pings).await, Seen::Close(Some(4013)));
    End::by("rate_limited").check(&Events::new().only_end(&server, &session).await);
}

#[tokio::test]
async fn a_late_or_unasked_pong_is_life_but_no_round_trip() {
    let settings = [("PING_INTERVAL", "300ms"), ("PONG_TIMEOUT", "300ms"), ("MAX_MISSED_PONGS", "2")];
    let server = Server::start(&settings).await;
    let (mut raw, session) = connect(&server, "forger").await;
    let path = format!("/debug/connections/{session}");
    let mut asked = vec![next_ping(&mut raw).await];
    // Many more pings than may be missed, each answered with something that is not its token: text, a token of the
    // right length that nobody gave out, and the token of the ping before.
    while asked.len() < 10 {
        let ping = next_ping(&mut raw).await;
        let wrong: Vec<u8> = ping.iter().map(|byte| !byte).collect();
        assert_eq!(wrong.len(), 8, "a token has eight bytes");
        let forged = [&b"forged"[..], &wrong, &asked[asked.len() - 1]][asked.len() % 3];
        raw.send(PONG, forged).await.unwrap();
        asked.push(ping);
    }
    let view = server.json(&path).await;
    let of = |name: &str| view.pointer(&format!("/session/{name}")).or(view.get(name)).expect(name).clone();
    assert!(of("rtt_ms")["last"].is_null(), "a forged pong was measured: {view}");
    assert!(of("last_pong_at").is_string() && of("pongs_received").as_u64() >= Some(8), "no life: {view}");
    // A right one is measured, so that the above can fail.
    eventually("a round trip", async || {
        let ping = next_ping(&mut raw).await;
        raw.send(PONG, &ping).await.unwrap();
        let view = server.json(&path).await;
        let rtt = view.pointer("/session/rtt_ms").or(view.get("rtt_ms")).expect("round trips in the view");
        rtt["last"].is_number().then_some(())
    })
    .await;
}

/// The payload of the next ping; nothing else may come.
async fn next_ping(raw: &mut Raw) -> Vec<u8> {
    let ping = within("a ping", raw.next()).await.unwrap().expect("a ping, not the end of the stream");
    assert_eq!(ping.opcode, PING, "{ping:?}");
    ping.payload
}

#[tokio::test]
async fn http_on_the_same_port_is_not_disturbed() {
    let server = Server::start(&[]).await;
    let (mut raw, _) = connect(&server, "neighbour").await;
    let plain =
        Ask::bare().without("Upgrade").without("Connection").target("/healthz").refused(server.addr).await;
    assert_eq!(plain.status, 200, "{plain:?}");
    still_works(&mut raw).await;
}
