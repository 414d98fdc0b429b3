//! WebSocket frames: bytes to messages and back. All that knows the WebSocket library is here.
//!
//! - A frame's declared length is held against its limit before a byte of it is waited for, and a message's
//!   against the sum of its fragments.
//! - While nothing is unfinished nothing is kept.
//!
//! Frames are parsed and written by `actix_http::ws` (RFC 6455 section 5). What that leaves to its user is done
//! here: limits up front, the order of fragments, UTF-8 over fragments.

use actix_http::ws::{OpCode, Parser};
use actix_web_actors::ws::{CloseReason, ProtocolError};
use bytes::{Bytes, BytesMut};

use crate::time::Mono;

/// What one frame may be, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct FrameLimits {
    pub frame: u32,
    /// All fragments of a message together.
    pub message: u32,
}

/// A frame, or the message that it completes.
#[derive(Debug, PartialEq, Eq)]
pub enum Inbound {
    Text(Bytes),
    Binary(Bytes),
    /// A part of a message that is not complete.
    Fragment,
    Ping(Bytes),
    Pong(Bytes),
    /// The code, where one was given.
    Close(Option<u16>),
}

/// What RFC 6455, or the limits, forbid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    Protocol,
    Utf8,
    TooBig,
}

/// A frame to send.
#[derive(Debug, Clone, Copy)]
pub enum Frame<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    Close(Option<u16>),
}

impl Frame<'_> {
    pub fn write(self, dst: &mut BytesMut) {
        match self {
            Frame::Text(text) => Parser::write_message(dst, text, OpCode::Text, true, false),
            Frame::Binary(data) => Parser::write_message(dst, data, OpCode::Binary, true, false),
            Frame::Ping(data) => Parser::write_message(dst, data, OpCode::Ping, true, false),
            Frame::Pong(data) => Parser::write_message(dst, data, OpCode::Pong, true, false),
            Frame::Close(code) => {
                let reason = code.map(|code| CloseReason { code: code.into(), description: None });
                Parser::write_close(dst, reason, false);
            }
        }
    }
}

/// Bytes to messages.
pub struct Decoder {
    limits: FrameLimits,
    unread: BytesMut,
    /// What is unread is the rest of something larger: the thread's scratch buffer, or one that frames were taken from.
    is_rest: bool,
    message: Option<Box<Message>>,
}

/// A message of which fragments are to come.
struct Message {
    text: bool,
    data: BytesMut,
    /// How much of the data is known to be UTF-8.
    valid: usize,
    since: Mono,
}

impl Decoder {
    /// `read` is what came with the handshake.
    pub fn new(limits: FrameLimits, read: BytesMut) -> Self {
        Self { limits, unread: read, is_rest: true, message: None }
    }

    /// Bytes kept: unread, and of a message that is not complete.
    #[cfg(any(fuzzing, test))]
    pub fn kept(&self) -> usize {
        self.unread.len() + self.message.as_ref().map_or(0, |message| message.data.len())
    }

    /// Nothing is unread.
    pub fn is_between_frames(&self) -> bool {
        self.unread.is_empty()
    }

    /// Since when a message has been waiting for its last fragment.
    pub fn unfinished_since(&self) -> Option<Mono> {
        self.message.as_ref().map(|message| message.since)
    }

    /// Forgets what was not decoded.
    pub fn discard(&mut self) {
        self.unread.clear();
    }

    /// Takes over what was read, a part of the thread's scratch buffer.
    pub fn feed(&mut self, read: BytesMut) {
        if self.unread.is_empty() {
            self.unread = read;
            self.is_rest = true;
        } else {
            self.unread.extend_from_slice(&read);
        }
    }

    /// Nothing to do for now: what is left must not pin what it is the rest of, nor nothing a buffer.
    pub fn settle(&mut self) {
        if self.unread.is_empty() {
            self.unread = BytesMut::new();
        } else if self.is_rest {
            self.unread = BytesMut::from(&self.unread[..]);
        }
        self.is_rest = false;
    }

    #[expect(clippy::should_implement_trait, reason = "nothing yet is not the end")]
    pub fn next(&mut self) -> Result<Option<Inbound>, Violation> {
        if !self.has_frame()? {
            return Ok(None);
        }
        let limit = self.limits.frame.max(self.limits.message) as usize;
        let Some((last, opcode, payload)) =
            Parser::parse(&mut self.unread, true, limit).map_err(violation)?
        else {
            return Ok(None);
        };
        self.is_rest = true;
        let payload = payload.unwrap_or_default();
        Ok(Some(match opcode {
            OpCode::Ping | OpCode::Pong | OpCode::Close if !last => return Err(Violation::Protocol),
            OpCode::Ping => Inbound::Ping(payload.freeze()),
            OpCode::Pong => Inbound::Pong(payload.freeze()),
            OpCode::Close => Inbound::Close(close_code(&payload)?),
            OpCode::Text | OpCode::Binary if self.message.is_some() => return Err(Violation::Protocol),
            OpCode::Text if last => {
                std::str::from_utf8(&payload).map_err(|_| Violation::Utf8)?;
                Inbound::Text(payload.freeze())
            }
            OpCode::Binary if last => Inbound::Binary(payload.freeze()),
            OpCode::Text | OpCode::Binary => {
                let data = BytesMut::from(&payload[..]);
                let mut message =
                    Box::new(Message { text: opcode == OpCode::Text, data, valid: 0, since: Mono::now() });
                message.check(false)?;
                self.message = Some(message);
                Inbound::Fragment
            }
            OpCode::Continue => self.go_on(last, &payload)?,
            OpCode::Bad => return Err(Violation::Protocol),
        }))
    }

    fn go_on(&mut self, last: bool, payload: &[u8]) -> Result<Inbound, Violation> {
        let message = self.message.as_mut().ok_or(Violation::Protocol)?;
        message.data.extend_from_slice(payload);
        message.check(last)?;
        if !last {
            return Ok(Inbound::Fragment);
        }
        let Some(message) = self.message.take() else { return Err(Violation::Protocol) };
        let data = message.data.freeze();
        Ok(if message.text { Inbound::Text(data) } else { Inbound::Binary(data) })
    }

    /// Whether the next frame is here as a whole. The length that it declares is held against its limit as soon
    /// as it can be read.
    fn has_frame(&self) -> Result<bool, Violation> {
        let [first, second, rest @ ..] = &self.unread[..] else { return Ok(false) };
        let (head, declared) = match (second & 0x7f, rest) {
            (126, [a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
            (127, [a, b, c, d, e, f, g, h, ..]) => (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
            (126 | 127, _) => return Ok(false),
            (short, _) => (2, u64::from(short)),
        };
        let is_control = first & 0x08 != 0;
        // RFC 6455 sections 5.2 (a length has 63 bits) and 5.5.
        if declared >> 63 != 0 || is_control && declared > 125 {
            return Err(Violation::Protocol);
        }
        let gathered = self.message.as_ref().map_or(0, |message| message.data.len() as u64);
        let limits = self.limits;
        if !is_control
            && (declared > limits.frame.into() || gathered.saturating_add(declared) > limits.message.into())
        {
            return Err(Violation::TooBig);
        }
        let mask = if second & 0x80 != 0 { 4 } else { 0 };
        Ok(self.unread.len() as u64 >= head + mask + declared)
    }
}

impl Message {
    /// Checks what came as far as characters are complete. A character may go on in the next fragment.
    fn check(&mut self, last: bool) -> Result<(), Violation> {
        if !self.text {
            return Ok(());
        }
        match std::str::from_utf8(&self.data[self.valid..]) {
            Ok(_) => self.valid = self.data.len(),
            Err(error) if error.error_len().is_none() && !last => self.valid += error.valid_up_to(),
            Err(_) => return Err(Violation::Utf8),
        }
        Ok(())
    }
}

/// The token of a pong, where these bytes are one with a token of eight bytes, and nothing else.
pub(crate) fn lone_answer(bytes: &[u8]) -> Option<u64> {
    let [0x8a, 0x88, rest @ ..] = bytes else { return None };
    let (mask, payload) = rest.split_first_chunk::<4>()?;
    let masked = u64::from_be_bytes(payload.try_into().ok()?);
    let mask = u64::from(u32::from_be_bytes(*mask));
    Some(masked ^ (mask << 32 | mask))
}

fn violation(error: ProtocolError) -> Violation {
    match error {
        ProtocolError::Overflow => Violation::TooBig,
        _ => Violation::Protocol,
    }
}

/// The code of a close frame, none where it is empty.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    if payload.len() > 2 && std::str::from_utf8(&payload[2..]).is_err() {
        return Err(Violation::Utf8);
    }
    let reason = Parser::try_parse_close_payload(payload).map_err(violation)?;
    Ok(reason.map(|reason| reason.code.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_left_of_a_frame_does_not_pin_what_came_before_it() {
        let ping = [0x89, 0x82, 0, 0, 0, 0, b'h', b'i'];
        let mut decoder = Decoder::new(FrameLimits { frame: 100, message: 100 }, BytesMut::new());
        decoder.feed(BytesMut::from(&ping[..3]));
        decoder.settle();
        // The rest of that one, many more, and a part of the next: behind what was kept, in one buffer with it.
        decoder.feed(BytesMut::from(&[&ping[3..], &ping.repeat(1000), &ping[..3]].concat()[..]));
        while decoder.next().expect("pings").is_some() {}
        let large = decoder.unread.as_ptr();
        decoder.settle();
        assert_eq!(decoder.unread, &ping[..3]);
        assert_ne!(decoder.unread.as_ptr(), large, "it lies in the large buffer yet");
    }

    proptest! {
        #[test]
        fn the_short_way_and_the_long_one_read_the_same(token: u64, mask: [u8; 4], broken in 0usize..400, bit in 0u8..8) {
            let mut bytes = vec![0x8a, 0x88];
            bytes.extend(mask);
            bytes.extend(token.to_be_bytes().iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
            if let Some(byte) = bytes.get_mut(broken) {
                *byte ^= 1 << bit;
            }
            if broken == 20 {
                bytes.push(0x8a);
            }
            let limits = FrameLimits { frame: 100, message: 100 };
            let mut decoder = Decoder::new(limits, BytesMut::from(&bytes[..]));
            let read = decoder.next();
            let answer = lone_answer(&bytes);
            prop_assert!(answer.is_some() || broken <= 20, "an answer was not seen");
            if let Some(token) = answer {
                prop_assert_eq!(read, Ok(Some(Inbound::Pong(token.to_be_bytes().to_vec().into()))));
                prop_assert!(decoder.is_between_frames());
            }
        }
    }
}
