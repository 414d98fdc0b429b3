//! A device on a public WebSocket library, as most devices are.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::raw::Seen;
use super::{Server, token, within};

/// A connected device that answers while it is read.
pub struct Device {
    pub socket: WebSocketStream<TcpStream>,
    pub welcome: Value,
}

impl Device {
    /// Connects `device_id` to `server` and waits for its welcome.
    pub async fn connect(server: &Server, device_id: &str) -> Self {
        Self::with_token(server, &token(device_id)).await
    }

    pub async fn with_token(server: &Server, token: &str) -> Self {
        Self::at(server, "/ws", token).await
    }

    /// The same with a query.
    pub async fn at(server: &Server, target: &str, token: &str) -> Self {
        let mut request = format!("ws://{}{target}", server.addr).into_client_request().expect("a good URL");
        let bearer = format!("Bearer {token}").parse().expect("a good header");
        request.headers_mut().insert("Authorization", bearer);
        let stream = TcpStream::connect(server.addr).await.expect("the server listens");
        let (socket, _) = within("the handshake", tokio_tungstenite::client_async(request, stream))
            .await
            .expect("the handshake is answered");
        let mut device = Self { socket, welcome: Value::Null };
        device.welcome = device.json().await;
        assert_eq!(device.welcome["type"], "welcome", "{}", device.welcome);
        device
    }

    pub fn session_id(&self) -> String {
        self.welcome["session_id"].as_str().expect("a session id").to_owned()
    }

    pub async fn text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("the frame is taken");
    }

    /// The next text frame as JSON, answering pings on the way.
    pub async fn json(&mut self) -> Value {
        within("a text frame", async {
            loop {
                match self.socket.next().await.expect("a frame, not the end").expect("a frame") {
                    Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                    Message::Close(close) => panic!("closed: {close:?}"),
                    _ => {}
                }
            }
        })
        .await
    }

    /// Starts the close handshake, and says what came back.
    pub async fn close(&mut self, code: Option<u16>) -> Seen {
        let close = code.map(|code| CloseFrame { code: code.into(), reason: "".into() });
        self.socket.send(Message::Close(close)).await.expect("the close frame is taken");
        self.closed().await
    }

    /// Answers until the server closes.
    pub async fn closed(&mut self) -> Seen {
        within("the server to close", async {
            while let Some(Ok(message)) = self.socket.next().await {
                if let Message::Close(close) = message {
                    return Seen::Close(close.map(|c| c.code.into()));
                }
            }
            Seen::Nothing
        })
        .await
    }

    /// Answers until `seen` pings have come.
    pub async fn answer_pings(&mut self, count: usize) {
        within("pings", async {
            let mut seen = 0;
            while seen < count {
                if let Message::Ping(_) =
                    self.socket.next().await.expect("a frame, not the end").expect("a frame")
                {
                    seen += 1;
                }
            }
            // The library answers a ping when it is next used.
            self.socket.flush().await.expect("the pong is taken");
        })
        .await;
    }

    /// The bare socket: whoever has it reads, drops, resets or ignores it as they like.
    pub fn into_tcp(self) -> TcpStream {
        self.socket.into_inner()
    }
}

/// Ends `stream` with a reset.
pub fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
}
