//! Subscribers of Redis: the stream, read with a blocking `XREAD`, and pub/sub.

use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, FromRedisValue};

use super::{CHANNELS, Subscriber, Wrapping};
use crate::run::redis::{Redis, connect};

const BLOCK_MS: usize = 5_000;
/// The server answers after its own time at the latest.
const SILENCE: Duration = Duration::from_secs(10);

/// Reads the stream until that fails.
pub async fn stream(subscriber: &Subscriber) -> anyhow::Result<()> {
    let mut connection = connect(SILENCE).await?;
    let options = StreamReadOptions::default().block(BLOCK_MS).count(500);
    loop {
        let after = format!("{}-0", subscriber.after());
        let reply: Option<StreamReadReply> =
            connection.xread_options(&["lastpong:events"], &[after], &options).await?;
        for entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids) {
            let text =
                entry.map.get("event").with_context(|| format!("entry {} without an event", entry.id))?;
            let text: String = String::from_redis_value_ref(text)?;
            subscriber.got(&text, Wrapping::Bare);
        }
    }
}

/// Listens until the connection ends.
pub async fn pubsub(subscriber: &Subscriber) -> anyhow::Result<()> {
    let mut pubsub = ::redis::Client::open(Redis::url())?.get_async_pubsub().await?;
    pubsub.psubscribe(format!("{CHANNELS}*")).await?;
    let mut messages = pubsub.into_on_message();
    while let Some(message) = messages.next().await {
        let text: String = message.get_payload()?;
        subscriber.got(&text, Wrapping::Channel(message.get_channel_name()));
    }
    Ok(())
}

/// Every entry of the stream, oldest first: its id and its fields.
///
/// # Errors
/// Where Redis does not answer.
pub async fn entries() -> anyhow::Result<Vec<(String, Vec<(String, String)>)>> {
    const PAGE: usize = 1_000;
    let mut connection = connect(SILENCE).await?;
    let mut all = Vec::new();
    let mut from = "-".to_owned();
    loop {
        let page: Vec<(String, Vec<(String, String)>)> = ::redis::cmd("XRANGE")
            .arg("lastpong:events")
            .arg(&from)
            .arg("+")
            .arg("COUNT")
            .arg(PAGE)
            .query_async(&mut connection)
            .await?;
        let Some((last, _)) = page.last() else { return Ok(all) };
        from = format!("({last}");
        all.extend(page);
    }
}
