//! What the fuzz targets in `fuzz/` do with their bytes: each reads what strangers may send, and holds what it reads to
//! what must be so whatever was sent. A body that returns found nothing wrong.
//!
//! They are here, and not beside the targets, so that the tests try the same bodies, on the seeds in `fuzz/corpus` and on
//! random bytes. Compiled for tests and fuzzing alone.
//!
//! Left out on purpose: HTTP itself, which is actix's, and TLS, which is that of rustls.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::Value;

use crate::config::units::{parse_bytes, parse_duration, show_bytes, show_duration};
use crate::config::{Settings, read};
use crate::front::{head, proxy_protocol};
use crate::http::debug::connections::{OF_ALL, OF_LIVE};
use crate::http::debug::live::AskedLive;
use crate::http::debug::select::Place;
use crate::http::events;
use crate::http::query::Params;
use crate::ids::{DeviceId, SessionId};
use crate::problem::Problem;
use crate::protocol::{FromDevice, ToDevice, lwp_ack};
use crate::secret::Secret;
use crate::session::asked::Asked;
use crate::session::frames::{Decoder, FrameLimits, Inbound, Violation};
use crate::store::{Told, heard, journal::Entry};
use crate::time::Timestamp;
use crate::tls::{self, hello};
use crate::token::DeviceTokens;

/// A device's bytes mean the same in whatever pieces they come, and no more of them is kept than the limits allow.
pub fn frames(data: &[u8]) {
    let [frame, message, seed, data @ ..] = data else { return };
    let limits = FrameLimits { frame: 1 + 4 * u32::from(*frame), message: 1 + 8 * u32::from(*message) };
    let whole = decoded(limits, [data].into_iter());
    assert_eq!(decoded(limits, pieces(data, u32::from(*seed))), whole, "in pieces it means something else");
    assert_eq!(decoded(limits, data.chunks(1)), whole, "byte by byte it means something else");
    let (messages, _) = whole;
    for message in messages {
        let (bytes, most) = match &message {
            Inbound::Text(text) => {
                assert!(std::str::from_utf8(text).is_ok(), "a text that is not UTF-8");
                (text, limits.message as usize)
            }
            Inbound::Binary(bytes) => (bytes, limits.message as usize),
            Inbound::Ping(bytes) | Inbound::Pong(bytes) => (bytes, 125),
            Inbound::Fragment | Inbound::Close(_) => continue,
        };
        assert!(bytes.len() <= most, "over its limit: {message:?}");
    }
    let (sent, wire) = written(data, *seed);
    let roomy = FrameLimits { frame: 1 << 20, message: 1 << 20 };
    assert_eq!(
        decoded(roomy, pieces(&wire, u32::from(*seed))),
        (sent, None),
        "what was sent is not what was read"
    );
}

/// Until the first violation, as a session reads.
fn decoded<'a>(
    limits: FrameLimits,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Inbound>, Option<Violation>) {
    const HEAD: usize = 14;
    let most = HEAD + limits.frame.max(125) as usize + limits.message as usize;
    let mut decoder = Decoder::new(limits, BytesMut::new());
    let (mut scratch, mut messages) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        scratch.clear();
        scratch.extend_from_slice(piece);
        decoder.feed(scratch.split());
        loop {
            match decoder.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(violation) => return (messages, Some(violation)),
            }
        }
        decoder.settle();
        assert!(decoder.kept() <= most, "{} bytes are kept, {most} may be", decoder.kept());
    }
    (messages, None)
}

/// Pieces of 1 to 32 bytes, by a seed.
fn pieces(mut data: &[u8], seed: u32) -> impl Iterator<Item = &[u8]> {
    let mut state = seed | 1;
    std::iter::from_fn(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (piece, rest) = data.split_at(data.len().min(1 + (state >> 27) as usize));
        data = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// What a sound client would send, its words and their fragments chosen by `data`; and its bytes on the wire.
fn written(data: &[u8], mask: u8) -> (Vec<Inbound>, Vec<u8>) {
    let (mut sent, mut wire) = (Vec::new(), Vec::new());
    let mut frame = |first: u8, payload: &[u8]| {
        wire.push(first);
        match payload.len() {
            n @ 0..126 => wire.push(0x80 | n as u8),
            n => {
                wire.push(0x80 | 126);
                wire.extend((n as u16).to_be_bytes());
            }
        }
        let mask = [mask, 1, !mask, 0];
        wire.extend(mask);
        wire.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    };
    for word in data.chunks(300) {
        let text = String::from_utf8_lossy(word).into_owned().into_bytes();
        let (opcode, payload) = if word[0] & 1 == 0 { (1, text) } else { (2, word.to_vec()) };
        let parts = 1 + usize::from(word[0] >> 6);
        let (mut rest, mut first) = (&payload[..], opcode);
        for _ in 1..parts {
            let (part, after) = rest.split_at(rest.len() / 2);
            frame(first, part);
            sent.push(Inbound::Fragment);
            // Control frames may come in between.
            frame(0x8a, &word[..word.len().min(8)]);
            sent.push(Inbound::Pong(word[..word.len().min(8)].to_vec().into()));
            (rest, first) = (after, 0);
        }
        frame(0x80 | first, rest);
        sent.push(if opcode == 1 { Inbound::Text(payload.into()) } else { Inbound::Binary(payload.into()) });
    }
    (sent, wire)
}

/// What a connection begins with means the same in whatever pieces it comes, and what is refused is refused by a problem.
pub fn openings(data: &[u8]) {
    let [seed, data @ ..] = data else { return };
    let end = head::end(data, 0);
    let mut seen = 0;
    let found = (1..=data.len()).find(|n| head::end(&data[..*n], std::mem::replace(&mut seen, *n)).is_some());
    assert_eq!(found, end, "byte by byte the head ends elsewhere");
    if let Some(Err(problem)) = end.map(|end| head::check(&data[..end])) {
        assert!([400, 431, 505].contains(&problem.status.as_u16()), "{problem:?}");
    }
    let (whole, proxied) = (hello::is_whole(data), proxy_protocol::parse(data));
    if let Ok(Some(header)) = &proxied {
        assert!(header.length <= data.len().min(proxy_protocol::MOST));
    }
    let mut there = 0;
    for piece in pieces(data, u32::from(*seed)) {
        there += piece.len();
        let part = &data[..there];
        assert!(matches!(hello::is_whole(part), Ok(false)) || hello::is_whole(part) == whole);
        assert!(matches!(proxy_protocol::parse(part), Ok(None)) || proxy_protocol::parse(part) == proxied);
    }
    let _ = tls::Client::of(&data.into());
}

/// A device's text is an object that is understood, or is none; and is answered with the id that it gave.
pub fn device_json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // None also where the text is JSON that goes deeper, or has larger numbers, than a value can hold.
    let whole = serde_json::from_str::<Value>(text).ok();
    if let Some(whole) = whole.as_ref().filter(|whole| !whole.is_object()) {
        assert!(FromDevice::parse(text).is_err(), "{whole} is no object and was understood");
    }
    if let Some(headers) = whole.as_ref().and_then(|whole| whole.get("headers")) {
        let lwp = matches!(FromDevice::parse(text), Ok(FromDevice::Lwp { .. }));
        assert!(!lwp || headers.is_object() || headers.is_null(), "{headers} are no headers");
    }
    let (answer, id, given) = match FromDevice::parse(text) {
        Ok(FromDevice::Heartbeat { id }) => {
            let ack = ToDevice::Ack { id, code: 200, server_time: Timestamp(0) };
            (ack.json(), Some(id), whole.map(|whole| whole.get("id").cloned().unwrap_or_default()))
        }
        Ok(FromDevice::Lwp { mid }) => {
            (lwp_ack(mid), mid, whole.and_then(|whole| whole["headers"].get("mid").cloned()))
        }
        Ok(_) => return,
        Err(why) => return assert!(!why.code().is_empty() && !why.to_string().is_empty()),
    };
    assert!(id.is_none_or(|id| answer.contains(id.get())), "{answer} lacks the id of {text}");
    if let Some(given) = given {
        let answer: Value = serde_json::from_str(&answer).expect("an answer is JSON");
        let echoed = answer.get("id").or(answer["headers"].get("mid"));
        // A null that was given may be answered by none.
        assert_eq!(echoed.cloned().unwrap_or_default(), given, "the answer to {text} has another id");
    }
}

/// Only what was minted with the key verifies, and it says what was minted.
pub fn tokens(data: &[u8]) {
    static OURS: LazyLock<DeviceTokens> = LazyLock::new(|| DeviceTokens::new(&Secret::new("k".repeat(32))));
    static OTHERS: LazyLock<DeviceTokens> = LazyLock::new(|| DeviceTokens::new(&Secret::new("o".repeat(32))));
    static MINTED: LazyLock<[Secret; 2]> = LazyLock::new(|| {
        let device: DeviceId = "pump-1".parse().expect("a device id");
        [&*OURS, &*OTHERS].map(|by| by.mint(&device, None, Duration::from_secs(86_400)).token)
    });
    let [ours, others] = MINTED.each_ref().map(Secret::expose);
    assert!(OURS.verify(ours).is_ok() && OURS.verify(others).is_err());
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(OURS.verify(text).is_err(), "{text:?} was not minted");
        // In the place of each part of a good one.
        let parts: Vec<&str> = ours.split('.').collect();
        for n in 0..parts.len() {
            let mut parts = parts.clone();
            let own = std::mem::replace(&mut parts[n], text);
            assert!(own == text || OURS.verify(&parts.join(".")).is_err(), "part {n} may be {text:?}");
        }
    }
    let mut changed = ours.as_bytes().to_vec();
    for change in data.chunks_exact(3) {
        let place = usize::from(u16::from_be_bytes([change[0], change[1]])) % changed.len();
        changed[place] = change[2];
    }
    if let Ok(changed) = std::str::from_utf8(&changed) {
        assert!(changed == ours || OURS.verify(changed).is_err(), "{changed} verifies");
    }
    let Ok(claims) = serde_json::from_slice::<Value>(data) else { return };
    assert!(OURS.verify(&OTHERS.sign(&claims)).is_err(), "signed by another: {claims}");
    if let Ok(said) = OURS.verify(&OURS.sign(&claims)) {
        assert_eq!(claims["sub"], said.device_id.as_str());
        assert_eq!(claims.get("jti").and_then(Value::as_str), said.jti.as_deref());
        assert_eq!(
            claims.get("device_type").and_then(Value::as_str),
            said.device_type.as_ref().map(|t| t.as_str())
        );
        assert!(claims["exp"].as_f64().is_some_and(|exp| exp >= said.expires_at as f64), "{claims}");
    }
}

/// What is asked in a URL is read, or refused with one sound problem.
pub fn queries(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else { return };
    sound(query.parse::<SessionId>().map_err(|_| Problem::bad_input("session_id", query, "a UUID")));
    sound(events::Asked::of_stream(query));
    if let Some(asked) = sound(Asked::parse(query)) {
        let fits = |(key, value): (&String, &String)| (1..=64).contains(&key.len()) && value.len() <= 256;
        assert!(asked.meta.len() <= 16 && asked.meta.iter().all(fits), "{:?}", asked.meta);
    }
    let known: Vec<&str> = OF_ALL.into_iter().chain(OF_LIVE).collect();
    let asked = sound(Params::parse(query, &known)).and_then(|params| sound(AskedLive::of(&params)));
    if let Some(AskedLive { order, after, limit, .. }) = asked {
        assert!((1..=1_000).contains(&limit));
        assert_eq!(order.to_string().parse(), Ok(order));
        if let Some(place) = after {
            let text = place.to_text();
            assert_eq!(Place::read(order, &text).map(|again| again.to_text()), Some(text));
        }
    }
}

fn sound<T>(read: Result<T, Problem>) -> Option<T> {
    read.map_err(|problem| {
        assert!(problem.status.is_client_error() && !problem.detail.is_empty());
        assert!(serde_json::from_str::<Value>(&problem.body()).is_ok_and(|body| body.is_object()));
    })
    .ok()
}

/// An environment is settings, or is refused with one line; and neither shows a secret.
pub fn settings(data: &[u8]) {
    const PASSWORD: &str = "hunter2hunter2hunter2";
    let text = std::str::from_utf8(data).ok().filter(|text| !text.contains("hunter2"));
    let Some(text) = text else { return };
    for duration in [parse_duration(text)].into_iter().flatten() {
        assert_eq!(parse_duration(&show_duration(duration)), Some(duration), "{text}");
    }
    for size in [parse_bytes(text)].into_iter().flatten() {
        assert_eq!(parse_bytes(&show_bytes(size)), Some(size), "{text}");
    }
    if let Err(error) = read::of_dot_env(text) {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    // A variable a line; where it is a secret by its name, or may hold one, there is one in it.
    let pairs = text.split('\n').filter_map(|line| line.split_once('=')).map(|(name, value)| {
        let value = match (name, value.split_once("://")) {
            ("LASTPONG_TOKEN_SECRET" | "LASTPONG_ADMIN_TOKEN", _) => format!("{value}{PASSWORD}"),
            ("DATABASE_URL" | "REDIS_URL", Some((scheme, rest))) if !scheme.starts_with("sqlite") => {
                format!("{scheme}://:{PASSWORD}@{rest}")
            }
            _ => value.to_owned(),
        };
        (name.to_owned(), value)
    });
    let shown = match Settings::from_pairs(pairs) {
        Ok(settings) => {
            settings.database();
            settings.effective().iter().map(|e| format!("{}={}\n", e.setting.name, e.shown)).collect()
        }
        Err(error) => {
            let line = error.to_string();
            assert!(!line.contains(['\n', '\r']), "{line:?} is more than a line");
            line
        }
    };
    assert!(!shown.contains(PASSWORD), "a secret is shown: {shown}");
}

/// What a journal or a page of the last heard holds is read as it was written, or refused.
pub fn stored(data: &[u8]) {
    let page: Vec<_> = heard::decode(data).collect();
    assert_eq!(heard::encode(&page), data[..page.len() * 32], "a page is not what it was");
    let [kind, json @ ..] = data else { return };
    let Ok(json) = std::str::from_utf8(json) else { return };
    let kind = ["begin", "start", "end", "other"][usize::from(kind % 4)];
    match Entry::from_json(kind, json, Told::Late) {
        Ok(entry) => {
            let again = entry.to_json().expect("an entry can be written");
            let read = Entry::from_json(kind, &again, Told::Late).expect("what was written can be read");
            assert_eq!(read.to_json().expect("an entry can be written"), again);
            assert_eq!((entry.kind(), entry.session_id()), (kind, read.session_id()));
        }
        Err(why) => assert!(!why.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Target = (&'static str, fn(&[u8]));

    const TARGETS: [Target; 7] = [
        ("frames", frames),
        ("openings", openings),
        ("device_json", device_json),
        ("tokens", tokens),
        ("queries", queries),
        ("settings", settings),
        ("stored", stored),
    ];

    /// The seeds of a target.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let files = std::fs::read_dir(&folder).expect("a folder of seeds");
        files.map(|file| std::fs::read(file.expect("an entry").path()).expect("a seed")).collect()
    }

    #[test]
    fn no_seed_finds_anything() {
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            assert!(seeds.len() >= 3, "{name} has no seeds");
            seeds.iter().for_each(|seed| target(seed));
        }
    }

    /// A seed, cut and changed in places, or bytes of no meaning.
    fn bytes(target: &'static str) -> impl Strategy<Value = Vec<u8>> {
        let places = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
        let changed = (prop::sample::select(seeds(target)), places, any::<prop::sample::Index>()).prop_map(
            |(mut seed, places, end)| {
                for (place, byte) in places {
                    if !seed.is_empty() {
                        let place = place.index(seed.len());
                        seed[place] = byte;
                    }
                }
                seed.truncate(seed.len() / 2 + end.index(seed.len() / 2 + 1));
                seed
            },
        );
        prop_oneof![3 => changed, 1 => prop::collection::vec(any::<u8>(), 0..300)]
    }

    proptest! {
        #[test]
        fn nothing_is_found_at_random(data in bytes("frames")) { frames(&data) }

        #[test]
        fn no_opening(data in bytes("openings")) { openings(&data) }

        #[test]
        fn no_text_of_a_device(data in bytes("device_json")) { device_json(&data) }

        #[test]
        fn no_token(data in bytes("tokens")) { tokens(&data) }

        #[test]
        fn no_query(data in bytes("queries")) { queries(&data) }

        #[test]
        fn no_environment(data in bytes("settings")) { settings(&data) }

        #[test]
        fn nothing_stored(data in bytes("stored")) { stored(&data) }
    }
}
