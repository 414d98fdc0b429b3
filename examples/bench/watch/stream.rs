//! A reader of the Redis stream of events, on a thread of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{Commands, Connection, Value};

use super::sse::ENDS;
use super::{Seen, session_of};

const STREAM: &str = "lastpong:events";
const BLOCK_MS: usize = 200;
const ENTRIES: usize = 1_000;

pub struct StreamReader {
    pub seen: Seen,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StreamReader {
    /// Reads what is appended from now on.
    ///
    /// # Errors
    /// Where Redis can not be reached.
    pub fn start(url: &str) -> anyhow::Result<Self> {
        let mut connection = redis::Client::open(url)?.get_connection()?;
        connection.set_read_timeout(Some(Duration::from_secs(30)))?;
        // `$` would be another place at each call.
        let last: Vec<Value> = redis::cmd("XREVRANGE")
            .arg(&[STREAM, "+", "-", "COUNT", "1"])
            .query(&mut connection)
            .context("the stream of events")?;
        let last = match last.first() {
            Some(Value::Array(entry)) => redis::from_redis_value(entry[0].clone())?,
            _ => "0-0".to_owned(),
        };
        let (seen, stop) = (Seen::default(), Arc::<AtomicBool>::default());
        let thread = {
            let (seen, stop) = (seen.clone(), stop.clone());
            std::thread::spawn(move || {
                // Ends that are missing tell it, too.
                if let Err(error) = read(&mut connection, last, &seen, &stop) {
                    eprintln!("bench: the reader of the stream: {error:#}");
                }
            })
        };
        Ok(Self { seen, stop, thread: Some(thread) })
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read(connection: &mut Connection, mut last: String, seen: &Seen, stop: &AtomicBool) -> anyhow::Result<()> {
    let options = StreamReadOptions::default().block(BLOCK_MS).count(ENTRIES);
    while !stop.load(Ordering::Relaxed) {
        let reply: Option<StreamReadReply> = connection.xread_options(&[STREAM], &[&last], &options)?;
        for entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids) {
            if let Some(session) = end_of(&entry.map) {
                seen.saw(session);
            }
            last = entry.id;
        }
    }
    Ok(())
}

/// The session that ended, where the entry is an end.
fn end_of(fields: &HashMap<String, Value>) -> Option<lastpong::ids::SessionId> {
    let text = |name: &str| match fields.get(name) {
        Some(Value::BulkString(bytes)) => Some(bytes.as_slice()),
        _ => None,
    };
    text("type").filter(|kind| *kind == ENDS.as_bytes())?;
    session_of(text("event")?)
}
