//! What goes over a device's connection in each dialect: pure.
//!
//! Only as much of MQTT and NATS as a client needs that is connected and keeps being so.

use std::time::Duration;

use actix_http::ws::{OpCode, Parser};
use bytes::{BufMut, BytesMut};
use lastpong::ids::SessionId;
use lastpong::swarm::wire::{Told, Welcome};

use super::order::Dialect;

/// The example of RFC 6455: nothing asks that handshakes differ in it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The longest frame that is read.
const MAX_FRAME: usize = 1 << 20;

/// What some bytes from the server came to.
#[derive(Debug, Default, PartialEq)]
pub struct Heard {
    /// The device is there from now on.
    pub ready: bool,
    pub session: Option<SessionId>,
    /// The server pinged; the answer is in the output.
    pub pinged: u32,
    /// The server answered a ping of the device.
    pub ponged: u32,
    /// The server said that this is the end, with its code.
    pub closed: Option<Option<u16>>,
}

impl Dialect {
    pub fn request(self, host: &str, token: Option<&str>) -> Vec<u8> {
        match (self, token) {
            (Self::Lastpong, Some(token)) => lastpong::swarm::wire::request(host, token, KEY, None),
            _ => {
                let protocol = if self == Self::Mqtt { "Sec-WebSocket-Protocol: mqtt\r\n" } else { "" };
                format!(
                    "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{protocol}\r\n"
                )
                .into_bytes()
            }
        }
    }

    /// Whether the device is there as soon as the handshake is answered.
    pub fn is_ready_at_once(self) -> bool {
        self == Self::Plain
    }

    /// Whether it is the device that pings.
    pub fn pings_itself(self) -> bool {
        self == Self::Mqtt
    }

    /// What a device says first.
    pub fn open(self, device: u32, interval: Duration, out: &mut BytesMut) {
        if self == Self::Mqtt {
            binary(out, &connect(device, interval));
        }
    }

    pub fn ping(self, out: &mut BytesMut) {
        if self == Self::Mqtt {
            binary(out, &[0xC0, 0]);
        }
    }

    /// Takes every whole frame from `input`; what has to be answered is added to `out`.
    ///
    /// # Errors
    /// What RFC 6455 forbids.
    pub fn hear(self, input: &mut BytesMut, out: &mut BytesMut) -> Result<Heard, String> {
        let mut heard = Heard::default();
        while let Some((_, opcode, payload)) =
            Parser::parse(input, false, MAX_FRAME).map_err(|e| e.to_string())?
        {
            let payload = payload.unwrap_or_default();
            match opcode {
                OpCode::Ping => {
                    heard.pinged += 1;
                    Parser::write_message(out, payload, OpCode::Pong, true, true);
                }
                OpCode::Close => {
                    heard.closed = Some(payload.first_chunk().map(|code| u16::from_be_bytes(*code)));
                }
                OpCode::Pong => {}
                _ => self.message(&payload, &mut heard, out),
            }
        }
        Ok(heard)
    }

    fn message(self, payload: &[u8], heard: &mut Heard, out: &mut BytesMut) {
        match self {
            Self::Lastpong => {
                if let Told::Welcome(Welcome { session, .. }) = Told::parse(payload) {
                    (heard.ready, heard.session) = (true, Some(session));
                }
            }
            Self::Plain => {}
            Self::Mqtt => match payload.first().map(|first| first >> 4) {
                Some(2) => heard.ready = true,
                Some(13) => heard.ponged += payload.len() as u32 / 2,
                _ => {}
            },
            Self::Nats => {
                for line in payload.split(|byte| *byte == b'\n') {
                    if line.starts_with(b"INFO ") {
                        binary(
                            out,
                            b"CONNECT {\"verbose\":false,\"pedantic\":false,\"protocol\":1}\r\nPING\r\n",
                        );
                    } else if line.starts_with(b"PING") {
                        heard.pinged += 1;
                        binary(out, b"PONG\r\n");
                    } else if line.starts_with(b"PONG") {
                        heard.ready = true;
                    }
                }
            }
        }
    }
}

fn binary(out: &mut BytesMut, payload: &[u8]) {
    Parser::write_message(out, payload, OpCode::Binary, true, true);
}

/// A CONNECT of MQTT 3.1.1 with a clean session: section 3.1 of the standard.
fn connect(device: u32, interval: Duration) -> Vec<u8> {
    let id = format!("bench-{device}");
    let mut body = vec![0, 4];
    body.put_slice(b"MQTT\x04\x02");
    // The broker gives a client up after half as much again.
    body.put_u16((interval.as_secs().max(1) * 2).min(u16::MAX.into()) as u16);
    body.put_u16(id.len() as u16);
    body.put_slice(id.as_bytes());
    let mut packet = vec![0x10, body.len() as u8];
    packet.put_slice(&body);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_server(opcode: OpCode, payload: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::new();
        Parser::write_message(&mut bytes, payload, opcode, true, false);
        bytes
    }

    #[test]
    fn nats_opens_pings_and_is_answered() {
        let (mut out, nats) = (BytesMut::new(), Dialect::Nats);
        let heard = nats.hear(&mut from_server(OpCode::Binary, b"INFO {}\r\n"), &mut out).unwrap();
        assert_eq!(heard, Heard::default());
        assert!(!out.is_empty());
        out.clear();
        let heard = nats.hear(&mut from_server(OpCode::Binary, b"PONG\r\nPING\r\n"), &mut out).unwrap();
        assert!(heard.ready && heard.pinged == 1 && !out.is_empty(), "{heard:?}");
    }

    #[test]
    fn mqtt_is_there_once_it_is_acknowledged_and_counts_answers() {
        let mut out = BytesMut::new();
        let mut input = from_server(OpCode::Binary, &[0x20, 2, 0, 0]);
        input.extend_from_slice(&from_server(OpCode::Binary, &[0xD0, 0, 0xD0, 0]));
        // A frame that is not whole stays where it is.
        input.extend_from_slice(&[0x82]);
        let heard = Dialect::Mqtt.hear(&mut input, &mut out).unwrap();
        assert!(heard.ready && heard.ponged == 2 && out.is_empty(), "{heard:?}");
        assert_eq!(&input[..], [0x82]);
    }

    #[test]
    fn a_connect_of_mqtt_says_its_own_length() {
        let packet = connect(12_345, Duration::from_secs(60));
        assert_eq!(usize::from(packet[1]), packet.len() - 2);
        assert_eq!(packet[10..12], [0, 120]);
    }

    #[test]
    fn pings_are_answered_and_closes_told() {
        let mut out = BytesMut::new();
        let mut input = from_server(OpCode::Ping, b"token");
        input.extend_from_slice(&from_server(OpCode::Close, &4012_u16.to_be_bytes()));
        let heard = Dialect::Plain.hear(&mut input, &mut out).unwrap();
        assert_eq!((heard.pinged, heard.closed), (1, Some(Some(4012))));
        assert_eq!(out.len(), 2 + 4 + 5);
    }
}
