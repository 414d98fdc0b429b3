use super::*;
use crate::swarm::behaviour::{Lot, chance};

fn from_server(frames: &[(OpCode, &[u8])]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for (opcode, payload) in frames {
        Parser::write_message(&mut bytes, payload, *opcode, true, false);
    }
    bytes.to_vec()
}

fn all(bytes: &mut BytesMut) -> Vec<Frame> {
    std::iter::from_fn(|| frame(bytes).expect("good frames")).collect()
}

#[test]
fn frames_are_read_however_they_are_cut() {
    let long = vec![b'x'; 300];
    let bytes = from_server(&[
        (OpCode::Ping, b"one"),
        (OpCode::Text, &long),
        (OpCode::Ping, b""),
        (OpCode::Close, &4012u16.to_be_bytes()),
    ]);
    let whole = all(&mut BytesMut::from(&bytes[..]));
    assert_eq!(
        whole,
        [
            Frame::Ping(BytesMut::from(&b"one"[..])),
            Frame::Text(BytesMut::from(&long[..])),
            Frame::Ping(BytesMut::new()),
            Frame::Close(Some(4012)),
        ]
    );
    for cut in 0..=bytes.len() {
        let (first, rest) = bytes.split_at(cut);
        let mut unread = BytesMut::from(first);
        let mut frames = all(&mut unread);
        unread.extend_from_slice(rest);
        frames.extend(all(&mut unread));
        assert_eq!(frames, whole, "cut at {cut}");
        assert!(unread.is_empty(), "cut at {cut}: something is left");
    }
}

#[test]
fn what_may_not_be_is_refused() {
    let mut masked = BytesMut::new();
    Parser::write_message(&mut masked, b"x", OpCode::Ping, true, true);
    assert!(matches!(frame(&mut masked), Err(BadAnswer::Frame(_))));
    let mut reserved = BytesMut::from(&[0xf9u8, 0][..]);
    assert!(matches!(frame(&mut reserved), Err(BadAnswer::Frame(_))));
}

#[test]
fn a_fragment_is_skipped_and_an_empty_close_has_no_code() {
    let mut bytes = BytesMut::new();
    Parser::write_message(&mut bytes, b"a", OpCode::Text, false, false);
    Parser::write_message(&mut bytes, b"b", OpCode::Continue, true, false);
    Parser::write_message(&mut bytes, b"", OpCode::Close, true, false);
    assert_eq!(all(&mut bytes), [Frame::Other, Frame::Other, Frame::Close(None)]);
}

#[test]
fn what_a_device_says_is_masked_and_reads_back_at_a_server() {
    for (say, opcode, payload) in [
        (Say::Pong(BytesMut::from(&b"token"[..])), OpCode::Pong, &b"token"[..]),
        (Say::Ping(7), OpCode::Ping, &7u64.to_be_bytes()),
        (Say::Close(Some(1000)), OpCode::Close, &1000u16.to_be_bytes()),
        (Say::Heartbeat(Dialect::Json, 7), OpCode::Text, br#"{"type":"heartbeat","id":7}"#),
        (Say::Heartbeat(Dialect::Lwp, 7), OpCode::Text, br#"{"lwp":"/!","headers":{"mid":"7 0"}}"#),
    ] {
        let mut bytes = BytesMut::new();
        say.write(&mut bytes);
        let (last, read, data) = Parser::parse(&mut bytes, true, 1_000).unwrap().unwrap();
        assert!(last && read == opcode && data.as_deref() == Some(payload), "{say:?}");
    }
}

#[test]
fn an_answer_is_read_once_it_is_whole() {
    let key = key(&mut chance(1, Lot::Key, 1, 1));
    let accept = hash_key(key.as_bytes());
    let accept = std::str::from_utf8(&accept).unwrap();
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    for cut in 0..head.len() {
        assert_eq!(answer(&head.as_bytes()[..cut], &key).unwrap(), Answer::Unfinished, "cut at {cut}");
    }
    let with_frame = [head.as_bytes(), b"\x89\x00"].concat();
    assert_eq!(answer(&with_frame, &key).unwrap(), Answer::Upgraded(head.len()));
    assert!(matches!(answer(&with_frame, "another key"), Err(BadAnswer::NotAccepted)));
    let refused = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\n{}";
    let seven = Some(Duration::from_secs(7));
    assert_eq!(answer(refused, &key).unwrap(), Answer::Refused { status: 503, retry_after: seven });
    assert!(matches!(answer(b"SSH-2.0-OpenSSH\r\n", &key), Err(BadAnswer::NotHttp(_))));
    let endless = [&b"HTTP/1.1 200 OK\r\n"[..], &b"a: b\r\n".repeat(30), &b"c".repeat(MAX_HEAD)].concat();
    assert!(matches!(answer(&endless, &key), Err(BadAnswer::TooLong)));
}

#[test]
fn messages_are_told_apart() {
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let welcome = format!(
        r#"{{"type":"welcome","session_id":"{id}","device_id":"d","node_id":"n","device_seq":null,"ping_interval_ms":20,"pong_timeout_ms":10}}"#
    );
    let expected = Welcome {
        session: id.parse().unwrap(),
        node: "n".into(),
        device_seq: None,
        ping_interval_ms: 20,
        pong_timeout_ms: 10,
    };
    assert_eq!(Told::parse(welcome.as_bytes()), Told::Welcome(expected));
    assert_eq!(Told::parse(br#"{"type":"ack","id":7,"code":200}"#), Told::Ack(7));
    assert_eq!(Told::parse(br#"{"code":200,"headers":{"mid":"7 0"}}"#), Told::Ack(7));
    assert_eq!(Told::parse(br#"{"type":"error","code":"x","message":"y"}"#), Told::Error);
    assert_eq!(Told::parse(br#"{"type":"message","id":"a","body":{}}"#), Told::Other);
    assert_eq!(Told::parse(b"nonsense"), Told::Other);
}
