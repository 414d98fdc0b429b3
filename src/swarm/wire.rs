//! What goes over a device's socket: the handshake, frames, and the messages in them. All that knows the WebSocket
//! library is here.
//!
//! - A device masks what it writes, and what it reads is not masked (RFC 6455 section 5.1).
//! - Nothing is kept here: what is left of an unfinished frame stays with the caller.
//!
//! Frames are parsed and written by `actix_http::ws`. Fragments of a message are skipped: lastpong sends none. `wss:` is
//! left to whoever terminates TLS before lastpong.

use std::time::Duration;

use actix_http::ws::{OpCode, Parser, ProtocolError, hash_key};
use bytes::{BufMut, BytesMut};
use clap::ValueEnum;
use rand::Rng;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ids::{DeviceType, SessionId};

/// The longest frame that is read, in bytes: a pushed message and its envelope.
const MAX_FRAME: usize = 1 << 20;

/// The longest answer to a handshake that is read, in bytes, without its body.
const MAX_HEAD: usize = 8 << 10;
const MAX_HEADERS: usize = 48;

/// What lastpong, or what stands in its place, did wrong.
#[derive(Debug, thiserror::Error)]
pub enum BadAnswer {
    #[error("the answer to the handshake is no HTTP: {0}")]
    NotHttp(httparse::Error),
    #[error("the head of the answer is longer than {MAX_HEAD} bytes")]
    TooLong,
    #[error("the answer is 101 but does not accept this handshake")]
    NotAccepted,
    #[error("a frame breaks the protocol: {0}")]
    Frame(ProtocolError),
}

/// The form of heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Dialect {
    #[default]
    Json,
    Lwp,
}

/// The value of `Sec-WebSocket-Key`: 16 bytes in base64. The last character carries two bits of them, so it is `A`.
pub fn key(rng: &mut impl Rng) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut key: String = (0..21).map(|_| char::from(DIGITS[rng.random_range(0..DIGITS.len())])).collect();
    key.push_str("A==");
    key
}

/// The request that opens a session.
pub fn request(host: &str, token: &str, key: &str, device_type: Option<&DeviceType>) -> Vec<u8> {
    let query = device_type.map(|t| format!("?device_type={t}")).unwrap_or_default();
    format!(
        "GET /ws{query} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    .into_bytes()
}

/// The answer to the handshake.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// More of it has to come.
    Unfinished,
    /// 101; frames begin after so many bytes.
    Upgraded(usize),
    Refused {
        status: u16,
        retry_after: Option<Duration>,
    },
}

/// # Errors
/// What is no answer to a handshake with this key.
pub fn answer(bytes: &[u8], key: &str) -> Result<Answer, BadAnswer> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let length = match head.parse(bytes).map_err(BadAnswer::NotHttp)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial if bytes.len() > MAX_HEAD => return Err(BadAnswer::TooLong),
        httparse::Status::Partial => return Ok(Answer::Unfinished),
    };
    let header =
        |name: &str| head.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value);
    match head.code.unwrap_or_default() {
        101 if header("sec-websocket-accept") == Some(&hash_key(key.as_bytes())) => {
            Ok(Answer::Upgraded(length))
        }
        101 => Err(BadAnswer::NotAccepted),
        status => {
            let seconds =
                header("retry-after").and_then(|v| std::str::from_utf8(v).ok()?.trim().parse().ok());
            Ok(Answer::Refused { status, retry_after: seconds.map(Duration::from_secs) })
        }
    }
}

/// A frame from lastpong.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Ping(BytesMut),
    Pong(BytesMut),
    Text(BytesMut),
    /// The code, where one was given.
    Close(Option<u16>),
    /// Binary, or a fragment: of no use to a device of this kind.
    Other,
}

/// Takes the next whole frame from `bytes`; `None` while it is unfinished.
///
/// # Errors
/// What RFC 6455 forbids.
pub fn frame(bytes: &mut BytesMut) -> Result<Option<Frame>, BadAnswer> {
    let parsed = Parser::parse(bytes, false, MAX_FRAME).map_err(BadAnswer::Frame)?;
    let Some((last, opcode, payload)) = parsed else { return Ok(None) };
    let payload = payload.unwrap_or_default();
    Ok(Some(match opcode {
        OpCode::Ping => Frame::Ping(payload),
        OpCode::Pong => Frame::Pong(payload),
        OpCode::Text if last => Frame::Text(payload),
        OpCode::Close => Frame::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
        _ => Frame::Other,
    }))
}

/// A frame from a device. Numbers come back in the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    Pong(BytesMut),
    Ping(u64),
    Heartbeat(Dialect, u64),
    Bye,
    Close(Option<u16>),
}

impl Say {
    pub fn write(&self, dst: &mut BytesMut) {
        match self {
            Say::Pong(payload) => Parser::write_message(dst, payload, OpCode::Pong, true, true),
            Say::Ping(n) => Parser::write_message(dst, n.to_be_bytes(), OpCode::Ping, true, true),
            Say::Heartbeat(Dialect::Json, n) => text(dst, &format!(r#"{{"type":"heartbeat","id":{n}}}"#)),
            Say::Heartbeat(Dialect::Lwp, n) => {
                text(dst, &format!(r#"{{"lwp":"/!","headers":{{"mid":"{n} 0"}}}}"#));
            }
            Say::Bye => text(dst, r#"{"type":"bye","reason":"leaving"}"#),
            Say::Close(code) => {
                let mut payload = BytesMut::new();
                if let Some(code) = code {
                    payload.put_u16(*code);
                }
                Parser::write_message(dst, payload, OpCode::Close, true, true);
            }
        }
    }
}

fn text(dst: &mut BytesMut, text: &str) {
    Parser::write_message(dst, text, OpCode::Text, true, true);
}

/// The number of a [`Say::Ping`] that this pong answers.
pub fn ping_number(pong: &[u8]) -> Option<u64> {
    pong.try_into().ok().map(u64::from_be_bytes)
}

/// A text frame, as far as a device minds it.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    Welcome(Welcome),
    /// Answers the heartbeat with this number.
    Ack(u64),
    /// Something was not understood.
    Error,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Welcome {
    #[serde(rename = "session_id")]
    pub session: SessionId,
    #[serde(rename = "node_id")]
    pub node: String,
    pub device_seq: Option<i64>,
    pub ping_interval_ms: u32,
    /// How long a pong may take.
    pub pong_timeout_ms: u32,
}

impl Welcome {
    pub fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms.into())
    }

    pub fn pong_timeout(&self) -> Duration {
        Duration::from_millis(self.pong_timeout_ms.into())
    }
}

/// Every kind of message at once.
#[derive(Deserialize)]
struct AnyMessage<'a> {
    #[serde(rename = "type")]
    kind: Option<&'a str>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    headers: Option<LwpHeaders<'a>>,
}

#[derive(Deserialize)]
struct LwpHeaders<'a> {
    mid: Option<&'a str>,
}

impl Told {
    pub fn parse(text: &[u8]) -> Self {
        let Ok(message) = serde_json::from_slice::<AnyMessage<'_>>(text) else { return Self::Other };
        match message.kind {
            Some("welcome") => serde_json::from_slice(text).map_or(Self::Other, Self::Welcome),
            Some("ack") => message.id.and_then(|id| id.get().parse().ok()).map_or(Self::Other, Self::Ack),
            Some("error") => Self::Error,
            Some(_) => Self::Other,
            None => {
                let mid = message.headers.and_then(|h| h.mid).and_then(|mid| mid.strip_suffix(" 0"));
                mid.and_then(|n| n.parse().ok()).map_or(Self::Other, Self::Ack)
            }
        }
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
