//! The relay: copies the log to the Redis Stream `lastpong:events`, and publishes each event on
//! `lastpong:events:{type}`.
//!
//! - The stream is its own cursor: an event's entry is `{seq}-0`, and the relay goes on after the last one that the
//!   stream says it has. So no event is lost or doubled, whoever dies when; a stream that lost its end goes on from
//!   there, and one that is gone is filled anew from the log's newest events.
//! - One relay at a time: it holds a lock with the token of its turn, and the script that appends looks at the lock
//!   first, so that a relay that was stopped for longer than its lease writes nothing afterwards. The others stand by.
//!   A turn ends with the first call that fails: Redis may do it late, when the lock is this relay's again.
//! - Redis away delays the stream and nothing else.
//! - Published is an event when it is first appended. What a stream is refilled with was published before, or while
//!   nobody could hear it; a mark beside the stream says so to the relay that goes on with the refilling.
//!
//! A stream of another log is told by its events' ids and left alone, for the operator to judge.

mod place;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use redis::{Cmd, cmd};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::Feed;
use crate::event::Event;
use crate::store::live::LiveError;
use crate::store::live::link::RedisLink;
use crate::store::{EventFilter, StoreError};
use crate::time::Timestamp;
use place::{Place, seq_of};

const STREAM: &str = "lastpong:events";
/// In the stream's slot of a cluster, so that one script may mind both.
const LOCK: &str = "{lastpong:events}:relay";
/// Up to where events were published; in the stream's slot as well.
const TOLD: &str = "{lastpong:events}:told";
const SINK: &str = "redis_stream";

const TAKE: &str = include_str!("stream/take.lua");
const APPEND: &str = include_str!("stream/append.lua");
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end";

/// Events in one call of the script: about a millisecond of Redis's time.
const BATCH: usize = 200;
/// How long the lock outlives its holder.
const LEASE: Duration = Duration::from_secs(5);
const RENEW: Duration = Duration::from_secs(1);
/// How often those who stand by try.
const STANDBY: Duration = Duration::from_secs(1);
/// After a failure: short, for the breaker keeps us from asking too often.
const PAUSE: Duration = Duration::from_millis(100);
const COMPLAIN: Duration = Duration::from_secs(30);

/// A relay that runs until the feed is closed.
pub struct Relay(JoinHandle<()>);

impl Relay {
    /// `max_len` is how many of the newest events the stream keeps at least.
    pub fn spawn(feed: Feed, redis: RedisLink, max_len: u64) -> Self {
        let max_len = i64::try_from(max_len).unwrap_or(i64::MAX);
        Self(tokio::spawn(Copier::new(feed, redis, max_len).run()))
    }

    /// Waits until all that was published before the feed was closed is in the stream, for `patience` at most.
    pub async fn finish(mut self, patience: Duration) {
        if tokio::time::timeout(patience, &mut self.0).await.is_err() {
            log::warn!("the stream lacks the last events; the next relay appends them");
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Copier {
    feed: Feed,
    redis: RedisLink,
    max_len: i64,
    id: Uuid,
    turn: u64,
    place: Place,
    complained: Option<Instant>,
}

/// Why a relay stops copying for now.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Redis(#[from] LiveError),
    #[error(transparent)]
    Log(#[from] StoreError),
    #[error(
        "{STREAM} is of another log, or was written by someone else: its last entry is {0:?}. Delete the key \
             and it is filled from this log, or set another REDIS_URL"
    )]
    Foreign(String),
}

/// What the script answered.
enum Appended {
    Done,
    Moved(String),
    Fenced,
}

impl Copier {
    fn new(feed: Feed, redis: RedisLink, max_len: i64) -> Self {
        Self { feed, redis, max_len, id: Uuid::new_v4(), turn: 0, place: Place::default(), complained: None }
    }

    async fn run(mut self) {
        let mut closing = self.feed.0.closing.subscribe();
        while !*closing.borrow_and_update() {
            let wait = match self.try_lead().await {
                Ok(true) => return,
                Ok(false) => STANDBY,
                Err(trouble) => {
                    self.complain(&trouble);
                    if matches!(trouble, Trouble::Redis(_)) { PAUSE } else { STANDBY }
                }
            };
            self.tell_lag();
            let _ = tokio::time::timeout(wait, closing.changed()).await;
        }
    }

    /// Takes the lock where it is free, and copies until another has it. True once the feed is closed and all of it is
    /// copied.
    async fn try_lead(&mut self) -> Result<bool, Trouble> {
        let (held, end) = (self.take_turn().await?, self.end().await?);
        if !held {
            self.place.stands_by(&end);
            return Ok(false);
        }
        self.place(&end).await?;
        log::info!(after = self.place.after; "this node copies the log to the stream");
        let finished = self.copy().await?;
        if finished {
            let mut release = cmd("EVAL");
            release.arg(RELEASE).arg(1).arg(LOCK).arg(self.token());
            self.redis.ask::<()>("stream", release).await?;
        } else {
            log::info!(
                "the lock is not this turn's any more: another copies the log to the stream, or none for now"
            );
        }
        Ok(finished)
    }

    /// Begins a turn, with the lock if it can be had.
    async fn take_turn(&mut self) -> Result<bool, Trouble> {
        self.turn += 1;
        let mut take = cmd("EVAL");
        take.arg(TAKE).arg(1).arg(LOCK);
        take.arg(self.id.to_string()).arg(self.token()).arg(LEASE.as_millis() as u64);
        Ok(self.redis.ask("stream", take).await?)
    }

    fn token(&self) -> String {
        format!("{} {}", self.id, self.turn)
    }

    async fn copy(&mut self) -> Result<bool, Trouble> {
        let mut closing = self.feed.0.closing.subscribe();
        let mut newest = self.feed.subscribe();
        loop {
            // Whoever sees the feed closed must then see its last event.
            let closed = *closing.borrow_and_update();
            newest.borrow_and_update();
            let page = self.feed.read(self.place.after, &EventFilter::default(), BATCH).await?;
            if let Some(first) = page.events.first().filter(|first| first.seq != self.place.after + 1) {
                log::warn!(after = self.place.after, next = first.seq; "the log no longer keeps what the stream lacks");
            }
            match self.append(&page.events).await? {
                Appended::Done => {}
                Appended::Moved(end) => {
                    self.place(&end).await?;
                    continue;
                }
                Appended::Fenced => return Ok(false),
            }
            self.tell_lag();
            if page.events.is_empty() {
                if closed {
                    return Ok(true);
                }
                tokio::select! {
                    _ = newest.changed() => {}
                    _ = closing.changed() => {}
                    () = tokio::time::sleep(RENEW) => {}
                }
            }
        }
    }

    /// Finds where to go on, from the stream's last entry.
    async fn place(&mut self, end: &str) -> Result<(), Trouble> {
        let last = seq_of(end).ok_or_else(|| Trouble::Foreign(end.to_owned()))?;
        let bounds = self.feed.bounds().await?;
        if last > bounds.newest || (last > 0 && !self.is_ours(last).await?) {
            return Err(Trouble::Foreign(end.to_owned()));
        }
        self.place.found(last, bounds, self.max_len);
        self.complained = None;
        Ok(())
    }

    /// Whether the stream's last entry, `seq`, is the event of that number in this log, as far as both keep it.
    async fn is_ours(&self, seq: i64) -> Result<bool, Trouble> {
        let mut newest_entry = cmd("XREVRANGE");
        newest_entry.arg(STREAM).arg(format!("{seq}-0")).arg(format!("{seq}-0"));
        let entries: Vec<(String, Vec<String>)> = self.redis.ask("stream", newest_entry).await?;
        let Some((_, fields)) = entries.first() else { return Ok(true) };
        let page = self.feed.0.store.events(seq - 1, &EventFilter::default(), 1).await?;
        let Some(event) = page.events.first().filter(|event| event.seq == seq) else { return Ok(true) };
        Ok(fields.chunks_exact(2).any(|field| field[0] == "id" && field[1] == event.id.to_string()))
    }

    /// Appends events that follow on the stream's end; also without any, to renew the lock.
    async fn append(&mut self, events: &[std::sync::Arc<Event>]) -> Result<Appended, Trouble> {
        let mut call = cmd("EVAL");
        call.arg(APPEND)
            .arg(3)
            .arg(STREAM)
            .arg(LOCK)
            .arg(TOLD)
            .arg(self.token())
            .arg(LEASE.as_millis() as u64);
        call.arg(format!("{}-0", self.place.last)).arg(self.max_len).arg(self.place.told);
        for event in events {
            call.arg(event.seq).arg(event.kind.as_str()).arg(event.id.to_string()).arg(&*event.json);
        }
        let (what, end): (String, String) = self.redis.ask("stream", call).await?;
        match what.as_str() {
            "done" => {}
            "fenced" => return Ok(Appended::Fenced),
            _ => return Ok(Appended::Moved(end)),
        }
        if let Some(newest) = events.last() {
            let now = Timestamp::now();
            for event in events.iter().filter(|event| event.seq > self.place.told) {
                self.feed.observe_publish(SINK, event, now);
            }
            self.place.appended(newest.seq);
        }
        Ok(Appended::Done)
    }

    /// The stream's last id; `0-0` where there is none.
    async fn end(&self) -> Result<String, Trouble> {
        let exists: bool = self.redis.ask("stream", Cmd::exists(STREAM)).await?;
        if !exists {
            return Ok("0-0".to_owned());
        }
        let info: redis::streams::StreamInfoStreamReply =
            self.redis.ask("stream", Cmd::xinfo_stream(STREAM)).await?;
        Ok(info.last_generated_id)
    }

    fn tell_lag(&self) {
        let lag = (self.feed.newest() - self.place.last).max(0);
        self.feed.0.metrics.outbox_lag.with_label_values(&[SINK]).set(lag);
    }

    fn complain(&mut self, trouble: &Trouble) {
        // A Redis that is away is told of by its link.
        if matches!(trouble, Trouble::Redis(_))
            || self.complained.is_some_and(|last| last.elapsed() < COMPLAIN)
        {
            return;
        }
        self.complained = Some(Instant::now());
        log::error!(why:% = trouble; "the stream waits");
    }
}
