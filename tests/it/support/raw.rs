//! A device of a few hundred bytes on a bare socket: its own handshake, its own frames, right or wrong ones.
//!
//! It is light enough to hold thousands of in one process, and it does nothing by itself: whoever holds it says
//! whether a ping is answered. The key of its handshake is the one of RFC 6455 section 1.3, whose answer is known.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::within;

pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// One frame as it came from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a close frame; `None` in one without.
    pub fn close_code(&self) -> Option<u16> {
        self.payload.first_chunk().map(|code| u16::from_be_bytes(*code))
    }
}

/// An HTTP answer: to a handshake, either way.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as a problem document.
    ///
    /// # Panics
    /// When it is none.
    pub fn problem(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: Value = serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        assert_eq!(problem["status"], self.status, "{self:?}");
        problem
    }
}

/// A connection from another address of this machine.
pub async fn connect_from(address: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((address, 0).into()).expect("an address of this machine");
    socket.connect(to).await.expect("the server listens")
}

/// A PROXY protocol header of version 2, for a client of IPv4.
pub fn v2(client: &str) -> Vec<u8> {
    let client: SocketAddrV4 = client.parse().expect("an address");
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(client.ip().octets());
    header.extend([10, 0, 0, 1]);
    header.extend(client.port().to_be_bytes());
    header.extend(443_u16.to_be_bytes());
    header
}

/// A handshake to be sent.
#[derive(Clone)]
pub struct Ask {
    pub method: &'static str,
    pub target: String,
    headers: Vec<(String, String)>,
    /// Of the socket's receive buffer, where a test wants it small.
    pub receive_buffer: Option<u32>,
    /// And of its send buffer: the kernel of whoever runs the test would keep the attacker's megabytes too.
    pub send_buffer: Option<u32>,
}

impl Ask {
    /// A right one, without a token.
    pub fn bare() -> Self {
        let headers = [
            ("Host", "lastpong"),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", KEY),
        ];
        let headers = headers.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
        Self { method: "GET", target: "/ws".into(), headers, receive_buffer: None, send_buffer: None }
    }

    pub fn with_token(token: &str) -> Self {
        Self::bare().header("Authorization", &format!("Bearer {token}"))
    }

    /// With this header, in place of one of that name.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self
    }

    pub fn target(mut self, target: &str) -> Self {
        self.target = target.into();
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }

    /// Sends it and takes the answer: a socket when it was 101, else the refusal.
    pub async fn send(&self, addr: SocketAddr) -> std::io::Result<Result<Raw, Answer>> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        self.send_on(socket.connect(addr).await?).await
    }

    /// The same on a socket that is connected already.
    pub async fn send_on(&self, mut stream: TcpStream) -> std::io::Result<Result<Raw, Answer>> {
        stream.set_nodelay(true)?;
        stream.write_all(&self.bytes()).await?;
        let mut raw = Raw { stream, buffer: Vec::new(), read: 0, head: String::new() };
        let answer = raw.read_answer().await?;
        if answer.status != 101 {
            return Ok(Err(answer));
        }
        assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT), "{answer:?}");
        raw.head = answer.head;
        Ok(Ok(raw))
    }

    /// The refusal.
    ///
    /// # Panics
    /// When it was let in.
    pub async fn refused(&self, addr: SocketAddr) -> Answer {
        let answer = within("an answer to the handshake", self.send(addr)).await.expect("an answer");
        answer.err().expect("the handshake was let in")
    }

    /// The socket.
    ///
    /// # Panics
    /// When it was refused.
    pub async fn admitted(&self, addr: SocketAddr) -> Raw {
        let answer = within("an answer to the handshake", self.send(addr)).await.expect("an answer");
        answer.unwrap_or_else(|refusal| panic!("refused: {refusal:?}"))
    }
}

/// A socket past its handshake.
pub struct Raw {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    read: usize,
    /// The head of the answer that let it in.
    pub head: String,
}

impl Raw {
    /// A device of this token, with its welcome.
    pub async fn connect(addr: SocketAddr, token: &str) -> (Self, Value) {
        let mut raw = Ask::with_token(token).admitted(addr).await;
        let welcome = raw.welcome().await;
        (raw, welcome)
    }

    /// The first frame.
    ///
    /// # Panics
    /// When it is no welcome.
    pub async fn welcome(&mut self) -> Value {
        let welcome = self.json().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        welcome
    }

    /// Sends a whole frame, masked as a client's must be.
    pub async fn send(&mut self, opcode: u8, payload: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(&frame(true, opcode, payload)).await
    }

    pub async fn text(&mut self, text: &str) -> std::io::Result<()> {
        self.send(TEXT, text.as_bytes()).await
    }

    pub async fn bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next frame, whatever it is; `None` at the end of the stream.
    pub async fn next(&mut self) -> std::io::Result<Option<Frame>> {
        loop {
            if let Some((frame, length)) = parse(&self.buffer[self.read..]) {
                self.read += length;
                if self.read == self.buffer.len() {
                    // Thousands of these are held at once: none keeps memory that it does not use.
                    self.buffer = Vec::new();
                    self.read = 0;
                }
                return Ok(Some(frame));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// The next frame that is not a ping; pings are answered on the way.
    pub async fn answering(&mut self) -> std::io::Result<Option<Frame>> {
        loop {
            match self.next().await? {
                Some(ping) if ping.opcode == PING => self.send(PONG, &ping.payload).await?,
                other => return Ok(other),
            }
        }
    }

    /// The next text frame as JSON, answering pings on the way.
    pub async fn json(&mut self) -> Value {
        let frame = within("a text frame", self.answering()).await.expect("a readable socket");
        let frame = frame.expect("a text frame, not the end of the stream");
        assert_eq!(frame.opcode, TEXT, "{frame:?}");
        serde_json::from_slice(&frame.payload).unwrap_or_else(|e| panic!("{e}: {frame:?}"))
    }

    /// Reads on, answering pings or not, until a close frame or the end: what the device is told of its end.
    pub async fn closed(&mut self, answer: bool) -> Seen {
        within("the server to close", async {
            loop {
                match self.next().await {
                    Ok(Some(close)) if close.opcode == CLOSE => return Seen::Close(close.close_code()),
                    Ok(Some(ping)) if ping.opcode == PING && answer => {
                        let _ = self.send(PONG, &ping.payload).await;
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return Seen::Nothing,
                }
            }
        })
        .await
    }

    /// Sends these over and over, reading in between, until the server closes. Once is not enough: what comes on
    /// the heels of a stall of the server's own is not held against a device.
    pub async fn flood(&mut self, bytes: &[u8]) -> Seen {
        const BETWEEN: Duration = Duration::from_millis(200);
        within("the server to close on a flood", async {
            loop {
                let _ = self.bytes(bytes).await;
                if let Ok(seen) = tokio::time::timeout(BETWEEN, self.closed(true)).await {
                    return seen;
                }
            }
        })
        .await
    }

    /// Ends it with a reset.
    pub fn reset(self) {
        // A linger time of zero makes the kernel send RST in place of FIN.
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    async fn fill(&mut self) -> std::io::Result<bool> {
        self.buffer.drain(..self.read);
        self.read = 0;
        let mut scratch = [0; 4096];
        let n = self.stream.read(&mut scratch).await?;
        self.buffer.extend_from_slice(&scratch[..n]);
        Ok(n > 0)
    }

    async fn read_answer(&mut self) -> std::io::Result<Answer> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill().await? {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        let status =
            head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
        let mut answer = Answer { status, head, body: String::new() };
        self.read = end;
        if status != 101 {
            let length = answer.header("content-length").and_then(|l| l.parse::<usize>().ok()).unwrap_or(0);
            while self.buffer.len() - self.read < length && self.fill().await? {}
            answer.body = String::from_utf8_lossy(&self.buffer[self.read..]).into_owned();
        }
        Ok(answer)
    }
}

/// What a device saw of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A close frame with this code, or with none.
    Close(Option<u16>),
    /// The end of the stream, or a reset.
    Nothing,
}

/// A frame as a client sends it.
pub fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut bytes = header(fin, opcode, payload.len() as u64);
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The first bytes of a masked frame that says it is `length` long, up to its mask.
pub fn header(fin: bool, opcode: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![(u8::from(fin) << 7) | opcode];
    match length {
        0..=125 => bytes.push(0x80 | length as u8),
        126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes
}

/// The first whole frame in `bytes`, and how many bytes it took.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    assert_eq!(second & 0x80, 0, "a server's frame is not masked");
    let (length, head) = match second {
        126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*rest.first_chunk()?), 10),
        short => (u64::from(short), 2),
    };
    let end = head + usize::try_from(length).ok()?;
    let payload = bytes.get(head..end)?.to_vec();
    Some((Frame { fin: first & 0x80 != 0, opcode: first & 0x0f, payload }, end))
}
