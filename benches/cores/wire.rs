//! Frames and the JSON in them, as a device sends and gets them.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput};
use lastpong::ids::SessionId;
use lastpong::protocol::{FromDevice, ToDevice};
use lastpong::session::frames::{Decoder, Frame, FrameLimits, Inbound};
use lastpong::time::Timestamp;

const LIMITS: FrameLimits = FrameLimits { frame: 64 << 10, message: 1 << 20 };
const MASK: [u8; 4] = [7, 1, 0, 9];
const HEARTBEAT: &str = r#"{"type":"heartbeat","id":"8c2f6a54"}"#;
/// Pongs that lie in a socket together after a busy moment.
const MANY: usize = 64;

/// A device's frame: masked, and short.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8];
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// As a session reads: what came lies in a scratch buffer, and nothing is kept.
fn decode(wire: &[u8]) -> usize {
    let mut decoder = Decoder::new(LIMITS, BytesMut::new());
    decoder.feed(BytesMut::from(wire));
    let mut heard = 0;
    while let Ok(Some(frame)) = decoder.next() {
        heard += usize::from(matches!(frame, Inbound::Pong(_) | Inbound::Text(_)));
    }
    decoder.settle();
    heard
}

pub fn all(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire");
    let pong = frame(0xa, &0x0123_4567_89ab_cdef_u64.to_be_bytes());
    group.bench_function("decode a pong", |b| b.iter(|| decode(black_box(&pong))));
    let text = frame(0x1, HEARTBEAT.as_bytes());
    group.bench_function("decode a heartbeat", |b| b.iter(|| decode(black_box(&text))));
    group.throughput(Throughput::Elements(MANY as u64));
    let many = pong.repeat(MANY);
    group.bench_function("decode 64 pongs", |b| b.iter(|| decode(black_box(&many))));
    group.finish();

    let mut group = c.benchmark_group("wire");
    group.bench_function("encode a ping", |b| {
        let mut written = BytesMut::with_capacity(1024);
        b.iter(|| {
            written.clear();
            Frame::Ping(&black_box(7_u64).to_be_bytes()).write(&mut written);
            written.len()
        });
    });
    group.bench_function("parse a heartbeat", |b| b.iter(|| FromDevice::parse(black_box(HEARTBEAT)).is_ok()));
    let (device, node) = ("device-000000001".parse(), "node-1".parse());
    let (Ok(device), Ok(node)) = (device, node) else { return };
    let session_id = SessionId::new();
    let welcome = || ToDevice::Welcome {
        session_id,
        device_id: &device,
        node_id: &node,
        device_seq: Some(17),
        ping_interval_ms: 25_000,
        pong_timeout_ms: 10_000,
        resume_token: None,
        server_time: Timestamp(1_795_000_000_000_000),
    };
    group.bench_function("write a welcome", |b| {
        b.iter_batched(welcome, |welcome| welcome.json(), BatchSize::SmallInput);
    });
    group.finish();
}
