//! Server-sent events (WHATWG HTML, section 9.2) out of chunks of bytes, as they come.
//!
//! Comments are told too, for lastpong says in them where a stream begins and what it lacks. Fields other than `id` and
//! `data` are passed over: the type is in the data as well. What is gathered is bounded.

use std::mem::take;

/// Far more than an event of lastpong takes.
const MOST_BYTES: usize = 1 << 20;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Event { id: String, data: String },
    Comment(String),
}

/// The answer is no stream of events.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line or an event of more than {MOST_BYTES} bytes came")]
pub(super) struct TooLong;

/// What has come of the next message.
#[derive(Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    /// The line before ended with a carriage return, to which a line feed may belong.
    after_cr: bool,
    id: String,
    data: String,
    has_data: bool,
}

impl Parser {
    /// The messages that are whole with these bytes.
    ///
    /// # Errors
    /// When what is gathered is over its bound.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Message>, TooLong> {
        let mut messages = Vec::new();
        for &byte in bytes {
            let after_cr = take(&mut self.after_cr);
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    let line = take(&mut self.line);
                    messages.extend(self.line(&String::from_utf8_lossy(&line)));
                }
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > MOST_BYTES {
                return Err(TooLong);
            }
        }
        Ok(messages)
    }

    fn line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let data = take(&mut self.data);
            return take(&mut self.has_data).then(|| Message::Event { id: self.id.clone(), data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => return Some(Message::Comment(value.to_owned())),
            "id" => self.id = value.to_owned(),
            "data" => {
                if take(&mut self.has_data) {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        ": hello\n\nid: 7\nevent: x\ndata: {\"a\":\ndata: 1}\n\nid: 8\r\ndata:é\r\n\r\nretry: 5\n\n";

    fn all() -> Vec<Message> {
        let event = |id: &str, data: &str| Message::Event { id: id.into(), data: data.into() };
        vec![Message::Comment("hello".into()), event("7", "{\"a\":\n1}"), event("8", "é")]
    }

    #[test]
    fn messages_are_the_same_however_they_are_cut() {
        let bytes = STREAM.as_bytes();
        for size in 1..=bytes.len() {
            let mut parser = Parser::default();
            let got: Vec<_> = bytes.chunks(size).flat_map(|c| parser.push(c).unwrap()).collect();
            assert_eq!(got, all(), "in chunks of {size}");
        }
    }

    #[test]
    fn what_has_no_end_is_given_up() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(&vec![b'x'; MOST_BYTES + 1]), Err(TooLong));
        let mut parser = Parser::default();
        let line = format!("data: {}\n", "x".repeat(1 << 16));
        assert!((0..17).any(|_| parser.push(line.as_bytes()).is_err()));
    }
}
