//! Every way to die that a device and its network have: one end record, with the right reason, and the right code seen.
//!
//! Told elsewhere: `banned` in `bans.rs`, `draining` in `shutdown.rs`, `node_lost` in `crash.rs`, `internal_error` in `panic.rs`; the many
//! ways to violate the protocol in `frames.rs`; the same with another public client in `python.rs`.

use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt;

use crate::support::device::reset;
use crate::support::net::Wire;
use crate::support::raw::{self, Ask, CLOSE, Raw, Seen, TEXT};
use crate::support::{Device, End, Events, Server, Token, eventually, token, within};

/// Pings twice a second, so that silence is found soon.
const BRISK: &[(&str, &str)] =
    &[("PING_INTERVAL", "500ms"), ("PONG_TIMEOUT", "500ms"), ("MAX_MISSED_PONGS", "2")];

async fn expect_end(server: &Server, session_id: &str, end: End) -> serde_json::Value {
    let record = Events::new().only_end(server, session_id).await;
    end.check(&record);
    let counted = server.metric(&format!("lastpong_disconnects_total{{reason=\"{}\"}}", end.reason)).await;
    assert!(counted >= Some(1.0), "{} is not counted: {counted:?}", end.reason);
    record
}

fn session_id(welcome: &serde_json::Value) -> String {
    welcome["session_id"].as_str().expect("a session id").to_owned()
}

#[tokio::test]
async fn a_close_frame_is_echoed_and_recorded() {
    let server = Server::start(&[]).await;
    for code in [1000, 1001, 3000, 4999] {
        let mut device = Device::connect(&server, &format!("closer-{code}")).await;
        assert_eq!(device.close(Some(code)).await, Seen::Close(Some(code)));
        expect_end(&server, &device.session_id(), End::by("client_closed").code(code)).await;
    }
}

/// What lay unread while the process stood still is told of once, and takes many reads: the last of it has to be found too.
#[tokio::test]
async fn an_end_behind_much_that_is_unread_is_found() {
    // No ping comes in the time of this test, which would find it as well.
    let server = Server::start(&[("PING_INTERVAL", "10m")]).await;
    let (mut closes, closing) = Raw::connect(server.addr, &token("closes-at-last")).await;
    let (mut drops, dropping) = Raw::connect(server.addr, &token("drops-at-last")).await;
    server.freeze().await;
    let much = raw::frame(true, TEXT, &[b' '; 60_000]);
    closes.bytes(&much).await.unwrap();
    closes.send(CLOSE, &1000u16.to_be_bytes()).await.unwrap();
    drops.bytes(&much).await.unwrap();
    drops.stream.shutdown().await.unwrap();
    server.signal(Signal::CONT);
    expect_end(&server, &session_id(&closing), End::by("client_closed").code(1000)).await;
    expect_end(&server, &session_id(&dropping), End::by("read_error")).await;
}

#[tokio::test]
async fn a_close_frame_without_a_code_is_echoed_without_one() {
    let server = Server::start(&[]).await;
    let (mut device, welcome) = Raw::connect(server.addr, &token("closer")).await;
    device.send(CLOSE, b"").await.unwrap();
    assert_eq!(device.closed(true).await, Seen::Close(None));
    expect_end(&server, &session_id(&welcome), End::by("client_closed")).await;
}

#[tokio::test]
async fn a_device_that_closes_and_is_gone_has_closed() {
    let server = Server::start(&[]).await;
    let goodbye = [heartbeats(3), raw::frame(true, CLOSE, &1000u16.to_be_bytes())].concat();
    let mut devices = Vec::new();
    for n in 0..50 {
        devices.push(Raw::connect(server.addr, &token(&format!("brief-{n}"))).await);
    }
    let sessions: Vec<_> = devices.iter().map(|(_, welcome)| session_id(welcome)).collect();
    let gone = async |(mut device, _): (Raw, _)| {
        device.bytes(&goodbye).await.expect("still connected");
        // Nobody is there to take the acknowledgements, and the first of them is answered with a reset.
        drop(device);
    };
    let others = devices.split_off(25);
    for device in devices {
        gone(device).await;
    }
    // Of the others the server sees the frames and the end of the stream together.
    server.freeze().await;
    for device in others {
        gone(device).await;
    }
    server.signal(Signal::CONT);
    let mut events = Events::new();
    for session in sessions {
        let is_end = |e: &serde_json::Value| crate::support::events::is_end_of(e, &session);
        let end = events.wait_for(&server, "the end of a device that closed", is_end).await;
        End::by("client_closed").code(1000).check(&end);
    }
}

#[tokio::test]
async fn a_last_frame_is_a_sign_of_life() {
    let server = Server::start(&[("FRAMES_PER_SEC", "10")]).await;
    let lasts = [
        ("a close", raw::frame(true, CLOSE, &1000u16.to_be_bytes()), End::by("client_closed").code(1000)),
        ("a violation", vec![0x81, 0x02, b'h', b'i'], End::by("protocol_error")),
        ("frames too many", heartbeats(500), End::by("rate_limited")),
    ];
    let mut idle = Vec::new();
    for (what, bytes, end) in lasts {
        let (device, welcome) = Raw::connect(server.addr, &token(&what.replace(' ', "-"))).await;
        idle.push((what, bytes, end, device, session_id(&welcome)));
    }
    // The silence itself is what is tested: there is no condition to wait for but its length.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (what, bytes, end, mut device, session) in idle {
        device.flood(&bytes).await;
        let record = expect_end(&server, &session, end).await;
        let ms = |name: &str| record["data"][name].as_f64().expect("milliseconds");
        assert!(ms("duration_ms") >= 2000.0, "{what}: {record:#}");
        // That the record's times of day agree with this is held of every record.
        assert!(ms("detection_ms") < 1000.0, "{what} was no sign of life: {record:#}");
    }
}

#[tokio::test]
async fn a_bye_is_a_clean_leave() {
    let server = Server::start(&[]).await;
    let mut device = Device::connect(&server, "polite").await;
    device.text(r#"{"type":"bye","reason":"going to sleep"}"#).await;
    assert_eq!(device.closed().await, Seen::Close(Some(1000)));
    expect_end(&server, &device.session_id(), End::by("client_closed").code(1000)).await;
}

#[tokio::test]
async fn the_record_counts_pings_pongs_and_round_trips() {
    let server = Server::start(BRISK).await;
    let mut device = Device::connect(&server, "steady").await;
    device.answer_pings(3).await;
    device.close(Some(1000)).await;
    let end = expect_end(&server, &device.session_id(), End::by("client_closed").code(1000)).await;
    let data = &end["data"];
    assert!(data["pings_sent"].as_u64() >= Some(3), "{end:#}");
    assert!(data["pongs_received"].as_u64() >= Some(3), "{end:#}");
    assert!(data["pongs_received"].as_u64() <= data["pings_sent"].as_u64(), "{end:#}");
    assert!(data["rtt_ms"]["avg"].as_f64().is_some_and(|ms| ms < 5_000.0), "{end:#}");
    assert!(data["last_pong_at"].is_string(), "{end:#}");
}

#[tokio::test]
async fn a_reset_is_a_read_error() {
    let server = Server::start(&[]).await;
    let device = Device::connect(&server, "reset").await;
    let session = device.session_id();
    reset(&device.into_tcp());
    expect_end(&server, &session, End::by("read_error")).await;
}

#[tokio::test]
async fn the_end_of_the_stream_without_a_close_frame_is_a_read_error() {
    let server = Server::start(&[]).await;
    let device = Device::connect(&server, "half-closed").await;
    let session = device.session_id();
    // Only the device's half is shut: the server has to act on that alone.
    let mut stream = device.into_tcp();
    stream.shutdown().await.unwrap();
    expect_end(&server, &session, End::by("read_error")).await;
    let mut rest = Vec::new();
    let read =
        within("the server's half to end", tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest));
    let _ = read.await;
}

#[tokio::test]
async fn the_end_of_the_stream_within_a_frame_is_a_read_error() {
    let server = Server::start(&[]).await;
    let (mut device, welcome) = Raw::connect(server.addr, &token("torn")).await;
    device.bytes(&raw::frame(true, TEXT, b"a frame that is never finished")[..9]).await.unwrap();
    drop(device);
    expect_end(&server, &session_id(&welcome), End::by("read_error")).await;
}

#[tokio::test]
async fn a_device_that_does_not_answer_times_out() {
    let server = Server::start(BRISK).await;
    let (mut device, welcome) = Raw::connect(server.addr, &token("mute")).await;
    // It reads, and may even speak: only pongs keep a session.
    device.text(r#"{"type":"heartbeat","id":"1"}"#).await.unwrap();
    assert_eq!(device.closed(false).await, Seen::Close(Some(4012)));
    let end = expect_end(&server, &session_id(&welcome), End::by("pong_timeout")).await;
    assert_eq!(end["data"]["pongs_received"], 0, "{end:#}");
    assert!(end["data"]["pings_sent"].as_u64() >= Some(2), "the second chance was not given: {end:#}");
    // The first ping comes at a random phase; then each missed pong takes its whole time.
    assert!(end["data"]["duration_ms"].as_f64() >= Some(1000.0), "ended before its deadline: {end:#}");
}

#[tokio::test]
async fn a_device_that_falls_silent_times_out_from_its_last_pong() {
    let server = Server::start(BRISK).await;
    let (mut device, welcome) = Raw::connect(server.addr, &token("fading")).await;
    for _ in 0..2 {
        let ping = within("a ping", device.next()).await.unwrap().unwrap();
        assert_eq!(ping.opcode, raw::PING);
        device.send(raw::PONG, &ping.payload).await.unwrap();
    }
    assert_eq!(device.closed(false).await, Seen::Close(Some(4012)));
    let end = expect_end(&server, &session_id(&welcome), End::by("pong_timeout")).await;
    assert_eq!(end["data"]["pongs_received"], 2, "{end:#}");
    assert!(end["data"]["detection_ms"].as_f64() >= Some(1000.0), "ended before its deadline: {end:#}");
}

#[tokio::test]
async fn a_device_that_stops_reading_while_there_is_data_times_out() {
    let settings = [BRISK, &[("FRAMES_PER_SEC", "1000000"), ("MAX_OUTPUT_BYTES", "64MiB")]].concat();
    let server = Server::start(&settings).await;
    let mut ask = Ask::with_token(&token("stuffed"));
    ask.receive_buffer = Some(4096);
    let mut device = ask.admitted(server.addr).await;
    let welcome = device.welcome().await;
    let session = session_id(&welcome);
    // The acknowledgements fill the socket, then wait in the server; nothing of it is ever read.
    let flood = heartbeats(200);
    let mut at = 0;
    let mut events = Events::new();
    eventually("the end of a device that does not read", async || {
        // What is cut short is taken up where it was: frames stay whole.
        let write = device.stream.write(&flood[at..]);
        if let Ok(Ok(written)) = tokio::time::timeout(Duration::from_millis(20), write).await {
            at = (at + written) % flood.len();
        }
        events.pull(&server).await;
        events.all.iter().any(|e| crate::support::events::is_end_of(e, &session)).then_some(())
    })
    .await;
    expect_end(&server, &session, End::by("pong_timeout")).await;
}

#[tokio::test]
async fn a_device_whose_packets_are_dropped_times_out() {
    let wire = Wire::lay();
    let bind = format!("{}:0", wire.server);
    let server = Server::start(&[BRISK, &[("BIND", &bind)]].concat()).await;
    let stream = wire.connect(server.addr).await;
    let mut device = Ask::with_token(&token("out-of-reach")).send_on(stream).await.unwrap().unwrap();
    let welcome = device.welcome().await;
    let ping = within("a ping", device.next()).await.unwrap().unwrap();
    device.send(raw::PONG, &ping.payload).await.unwrap();
    wire.cut();
    // A device out of reach is still sure that it is connected.
    expect_end(&server, &session_id(&welcome), End::by("pong_timeout")).await;
}

#[tokio::test]
async fn a_write_that_makes_no_progress_is_a_failed_ping() {
    let wire = Wire::lay();
    let bind = format!("{}:0", wire.server);
    // What fails is the acknowledgement, after 2 x 1 s x 1.
    let slow =
        [("PING_INTERVAL", "1h"), ("PONG_TIMEOUT", "1s"), ("MAX_MISSED_PONGS", "1"), ("BIND", bind.as_str())];
    let server = Server::start(&slow).await;
    let stream = wire.connect(server.addr).await;
    let mut device = Ask::with_token(&token("deaf")).send_on(stream).await.unwrap().unwrap();
    let welcome = device.welcome().await;
    wire.cut_to_device();
    device.text(r#"{"type":"heartbeat","id":"1"}"#).await.unwrap();
    let end = Events::new().only_end(&server, &session_id(&welcome)).await;
    // The first ping comes at a random moment of the hour; where that is now, its verdict is the earlier one.
    let asked = end["data"]["pings_sent"] != 0;
    let reason = if asked { "pong_timeout" } else { "ping_failed" };
    End::by(reason).check(&end);
    let counted = server.metric(&format!("lastpong_disconnects_total{{reason=\"{reason}\"}}")).await;
    assert_eq!(counted, Some(1.0), "{reason}");
}

#[tokio::test]
async fn output_over_its_bound_ends_a_slow_consumer() {
    let settings = [("FRAMES_PER_SEC", "1000000"), ("MAX_OUTPUT_BYTES", "16KiB")];
    let server = Server::start(&settings).await;
    let mut ask = Ask::with_token(&token("slow"));
    ask.receive_buffer = Some(4096);
    let mut device = ask.admitted(server.addr).await;
    let welcome = device.welcome().await;
    let flood = heartbeats(200);
    // It writes until the server has had enough of it, and never reads.
    within("the server to give up", async { while device.bytes(&flood).await.is_ok() {} }).await;
    expect_end(&server, &session_id(&welcome), End::by("slow_consumer")).await;
}

#[tokio::test]
async fn a_violation_of_the_protocol_is_answered_with_1002() {
    let server = Server::start(&[]).await;
    let (mut device, welcome) = Raw::connect(server.addr, &token("rude")).await;
    device.bytes(&[0x81, 0x02, b'h', b'i']).await.unwrap();
    assert_eq!(device.closed(true).await, Seen::Close(Some(1002)));
    expect_end(&server, &session_id(&welcome), End::by("protocol_error")).await;
}

#[tokio::test]
async fn bad_utf8_is_answered_with_1007() {
    let server = Server::start(&[]).await;
    let (mut device, welcome) = Raw::connect(server.addr, &token("garbled")).await;
    device.send(TEXT, b"\xc3\x28").await.unwrap();
    assert_eq!(device.closed(true).await, Seen::Close(Some(1007)));
    expect_end(&server, &session_id(&welcome), End::by("protocol_error").code(1007)).await;
}

#[tokio::test]
async fn a_frame_over_the_limit_is_answered_with_1009() {
    let server = Server::start(&[("MAX_FRAME_BYTES", "1KiB")]).await;
    let mut device = Device::connect(&server, "verbose").await;
    device.text(&"x".repeat(1025)).await;
    assert_eq!(device.closed().await, Seen::Close(Some(1009)));
    expect_end(&server, &device.session_id(), End::by("message_too_big")).await;
}

#[tokio::test]
async fn too_many_frames_are_answered_with_4013() {
    let server = Server::start(&[("FRAMES_PER_SEC", "10")]).await;
    let (mut device, welcome) = Raw::connect(server.addr, &token("hasty")).await;
    assert_eq!(device.flood(&heartbeats(500)).await, Seen::Close(Some(4013)));
    expect_end(&server, &session_id(&welcome), End::by("rate_limited")).await;
}

#[tokio::test]
async fn a_newcomer_replaces_the_session_of_the_same_device() {
    let server = Server::start(&[]).await;
    let mut old = Device::connect(&server, "twin").await;
    let mut new = Device::connect(&server, "twin").await;
    assert_eq!(old.closed().await, Seen::Close(Some(4509)));
    let end = expect_end(&server, &old.session_id(), End::by("replaced")).await;
    assert_eq!(end["data"]["device_seq"], 2, "{end:#}");
    assert_eq!(new.welcome["device_seq"], 3, "the end of the old comes before the start of the new");
    new.text(r#"{"type":"heartbeat","id":"still here"}"#).await;
    assert_eq!(new.json().await["type"], "ack");
}

#[tokio::test]
async fn a_session_ends_with_its_token() {
    let server = Server::start(&[]).await;
    let mut device = Device::with_token(&server, &Token::of("guest").expires_in(5).mint()).await;
    assert_eq!(device.closed().await, Seen::Close(Some(4005)));
    expect_end(&server, &device.session_id(), End::by("token_expired")).await;
}

/// `count` heartbeats in one write.
fn heartbeats(count: usize) -> Vec<u8> {
    let id = "x".repeat(48);
    (0..count)
        .flat_map(|_| raw::frame(true, TEXT, format!(r#"{{"type":"heartbeat","id":"{id}"}}"#).as_bytes()))
        .collect()
}
