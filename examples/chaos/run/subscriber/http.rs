//! Subscribers of a node: server-sent events, WebSocket, pages.

use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::{Subscriber, Wrapping};
use crate::run::node::{Api, PORT};
use crate::run::part::Part;

/// A node that says nothing for so long is gone: a stream has a comment, or a ping, each 15 s.
const SILENCE: Duration = Duration::from_secs(20);

/// For the beginning of a stream, and for a page.
const ANSWER: Duration = Duration::from_secs(5);

const BETWEEN_PAGES: Duration = Duration::from_millis(200);

/// So long a slow reader reads, and so long it then does not.
const READS: Duration = Duration::from_secs(3);
const RESTS: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(12)];

/// Reads until the stream ends.
pub async fn sse(subscriber: &Subscriber, api: &Api, node: Part, slow: bool) -> anyhow::Result<()> {
    let request = api
        .request(Method::GET, node, "/v1/events")
        .header("Accept", "text/event-stream")
        .header("Last-Event-ID", subscriber.after().to_string());
    let mut response = timeout(ANSWER, request.send()).await.context("no answer")??;
    if response.status() != 200 {
        bail!("{}: {}", response.status(), response.text().await.unwrap_or_default());
    }
    let mut buffer = Vec::new();
    let mut rests = RESTS.iter().cycle();
    let mut rest_at = Instant::now() + READS;
    while let Some(chunk) = timeout(SILENCE, response.chunk()).await.context("silence")?? {
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
            let block: Vec<u8> = buffer.drain(..end + 2).collect();
            take_block(subscriber, &String::from_utf8_lossy(&block));
        }
        if slow && Instant::now() >= rest_at {
            sleep(rests.next().copied().unwrap_or_default()).await;
            rest_at = Instant::now() + READS;
        }
    }
    Ok(())
}

/// One message of a stream; a comment has no data.
fn take_block(subscriber: &Subscriber, block: &str) {
    let field = |name: &str| {
        block
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|rest| rest.trim_start()))
    };
    let Some(data) = field("data") else { return };
    let (id, event) = (field("id").unwrap_or_default(), field("event").unwrap_or_default());
    subscriber.got(data, Wrapping::Sent { id, event });
}

/// Reads until the WebSocket ends.
pub async fn ws(subscriber: &Subscriber, api: &Api, node: Part) -> anyhow::Result<()> {
    let url = format!("ws://{}:{PORT}/v1/events/ws?after={}", node.ip(), subscriber.after());
    let mut request = url.into_client_request()?;
    let bearer = HeaderValue::from_str(&format!("Bearer {}", api.admin_token))?;
    request.headers_mut().insert("Authorization", bearer);
    let (mut socket, _) = timeout(ANSWER, connect_async(request)).await.context("no answer")??;
    let mut asked = false;
    loop {
        let patience = if asked { ANSWER } else { SILENCE };
        match timeout(patience, socket.next()).await {
            Err(_) if asked => bail!("silence"),
            Err(_) => {
                socket.send(Message::Ping("there?".into())).await?;
                asked = true;
                continue;
            }
            Ok(None) => return Ok(()),
            Ok(Some(Ok(Message::Text(text)))) => {
                subscriber.got(&text, Wrapping::Bare);
            }
            Ok(Some(Ok(Message::Close(frame)))) => bail!("closed: {frame:?}"),
            Ok(Some(message)) => _ = message?,
        }
        asked = false;
    }
}

/// Reads page after page until one fails.
pub async fn pages(subscriber: &Subscriber, api: &Api, node: Part) -> anyhow::Result<()> {
    loop {
        let path = format!("/v1/events?after={}&limit=500", subscriber.after());
        let page = timeout(ANSWER, api.json(node, &path)).await.context("no answer")??;
        let events = page["events"].as_array().with_context(|| format!("a page without events: {page}"))?;
        events.iter().for_each(|event| subscriber.saw(event));
        if events.is_empty() {
            sleep(BETWEEN_PAGES).await;
        }
    }
}
