//! A subscriber: server-sent events, read as they come, cut and taken up again.

use reqwest::Response;
use serde_json::Value;

use super::server::{ADMIN_TOKEN, Server};
use super::within;

/// One event as the stream had it.
#[derive(Debug, Clone)]
pub struct Sent {
    pub id: i64,
    pub event: String,
    pub data: String,
}

impl Sent {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|e| panic!("{e}: {}", self.data))
    }
}

/// An open stream.
pub struct Sse {
    response: Response,
    buffer: String,
    read: usize,
}

impl Sse {
    /// Subscribes with a query (`""` or `"types=…"`), after `last` where it is given.
    pub async fn open(server: &Server, query: &str, last: Option<i64>) -> Self {
        let mut request = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("an HTTP client")
            .get(server.url(&format!("/v1/events?{query}")))
            .bearer_auth(ADMIN_TOKEN)
            .header("Accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last.to_string());
        }
        let response = within("the stream to open", request.send()).await.expect("an answer");
        assert_eq!(response.status(), 200, "the stream is refused");
        let kind = response.headers()["content-type"].to_str().unwrap_or_default().to_owned();
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        Self { response, buffer: String::new(), read: 0 }
    }

    /// The next event; `None` once the stream ended or broke.
    pub async fn next(&mut self) -> Option<Sent> {
        loop {
            while let Some(end) = self.buffer[self.read..].find("\n\n") {
                let block = &self.buffer[self.read..self.read + end];
                let sent = parse(block);
                self.read += end + 2;
                if sent.is_some() {
                    return sent;
                }
            }
            self.buffer.drain(..self.read);
            self.read = 0;
            let chunk = self.response.chunk().await.ok()??;
            self.buffer.push_str(std::str::from_utf8(&chunk).expect("events are ASCII here"));
        }
    }

    /// The next event, which must come.
    pub async fn expect(&mut self) -> Sent {
        within("an event on the stream", self.next()).await.expect("an event, not the end of the stream")
    }
}

/// An event out of its lines; `None` for a comment or a setting of the retry time.
fn parse(block: &str) -> Option<Sent> {
    let (mut id, mut event, mut data) = (None, String::new(), String::new());
    for line in block.lines() {
        let Some((field, value)) = line.split_once(':') else { continue };
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => id = Some(value.parse().unwrap_or_else(|_| panic!("id is a seq: {line:?}"))),
            "event" => value.clone_into(&mut event),
            "data" => data.push_str(value),
            _ => {}
        }
    }
    (!data.is_empty()).then(|| Sent { id: id.expect("an event has an id"), event, data })
}
