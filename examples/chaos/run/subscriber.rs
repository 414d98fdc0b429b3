//! Subscribers of every kind, each writing down what it was told and when, and coming back for ever with the last `seq`
//! it saw: to the next node after a failure.
//!
//! They judge nothing. What reaches them late or twice is for the checker to find.

mod http;
mod redis;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

pub use self::redis::entries;
use super::node::Api;
use super::part::Part;
use super::record::Lines;

/// Between an end and the next try.
const PAUSE: Duration = Duration::from_millis(250);

/// All subscribers of a run; dropped, they end.
pub struct Subscribers {
    _tasks: JoinSet<()>,
    /// Of each that owes everything: its name and how far it is.
    places: Vec<(String, Arc<AtomicI64>)>,
}

/// One subscriber's record and place.
struct Subscriber {
    lines: Lines,
    place: Arc<AtomicI64>,
}

/// How a subscriber of nodes is told.
#[derive(Clone, Copy)]
enum Kind {
    Sse,
    Ws,
    Page,
}

impl Subscribers {
    /// Sends them all on their way; they may begin before there is anyone to ask.
    ///
    /// # Errors
    /// Where their records can not be made.
    pub fn start(api: &Api, nodes: &[Part], has_redis: bool, out: &Path) -> anyhow::Result<Self> {
        let mut all = Self { _tasks: JoinSet::new(), places: Vec::new() };
        let open = |name: &str| -> anyhow::Result<Subscriber> {
            let lines = Lines::create(&out.join("subscribers").join(format!("{name}.jsonl")))?;
            Ok(Subscriber { lines, place: Arc::default() })
        };
        let one_each = (0..nodes.len()).map(|n| (Kind::Sse, n));
        for (kind, first) in one_each.chain([(Kind::Ws, 0), (Kind::Ws, 1), (Kind::Page, 0)]) {
            let name = match kind {
                Kind::Sse => format!("sse-{}", first + 1),
                Kind::Ws => format!("ws-{}", first + 1),
                Kind::Page => "page-1".to_owned(),
            };
            let subscriber = open(&name)?;
            all.places.push((name, subscriber.place.clone()));
            all._tasks.spawn(subscriber.ask_nodes(kind, api.clone(), nodes.to_vec(), first));
        }
        if has_redis {
            let stream = open("stream-1")?;
            all.places.push(("stream-1".to_owned(), stream.place.clone()));
            all._tasks.spawn(stream.read_stream());
            all._tasks.spawn(open("pubsub-1")?.listen());
        }
        Ok(all)
    }

    /// Who has not yet seen this `seq`.
    pub fn behind(&self, seq: i64) -> Vec<String> {
        let late = self.places.iter().filter(|(_, place)| place.load(Ordering::Relaxed) < seq);
        late.map(|(name, place)| format!("{name} at {}", place.load(Ordering::Relaxed))).collect()
    }
}

impl Subscriber {
    async fn ask_nodes(self, kind: Kind, api: Api, nodes: Vec<Part>, first: usize) {
        for node in nodes.iter().cycle().skip(first) {
            self.opens(&node.to_string(), true);
            let ended = match kind {
                Kind::Sse => http::sse(&self, &api, *node).await,
                Kind::Ws => http::ws(&self, &api, *node).await,
                Kind::Page => http::pages(&self, &api, *node).await,
            };
            self.closes(ended);
            sleep(PAUSE).await;
        }
    }

    async fn read_stream(self) {
        loop {
            self.opens("redis", true);
            self.closes(redis::stream(&self).await);
            sleep(PAUSE).await;
        }
    }

    async fn listen(self) {
        loop {
            self.opens("redis", false);
            self.closes(redis::pubsub(&self).await);
            sleep(PAUSE).await;
        }
    }

    fn after(&self) -> i64 {
        self.place.load(Ordering::Relaxed)
    }

    fn opens(&self, to: &str, from_place: bool) {
        let after = from_place.then(|| self.after());
        self.write(json!({"is": "open", "to": to, "after": after}));
    }

    fn closes(&self, ended: anyhow::Result<()>) {
        let error = ended.err().map(|error| format!("{error:#}"));
        self.write(json!({"is": "close", "error": error}));
    }

    /// Takes down an event that just arrived.
    fn saw(&self, event: &Value) -> anyhow::Result<()> {
        let data = &event["data"];
        let seq = data["seq"].as_i64().with_context(|| format!("an event without a seq: {event}"))?;
        let sum = fnv1a(&data.to_string());
        let [id, kind, subject] = ["id", "type", "subject"].map(|field| &event[field]);
        self.write(
            json!({"is": "event", "seq": seq, "id": id, "type": kind, "subject": subject, "sum": sum}),
        );
        self.place.fetch_max(seq, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self, line: Value) {
        if let Err(error) = self.lines.write(line) {
            // Without its record the run proves nothing, and the checker will say what is missing.
            eprintln!("chaos: a subscriber's record can not be written: {error}");
        }
    }
}

/// 64 bits of FNV-1a, in hex. `serde_json` writes the keys of an object in order.
fn fnv1a(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_published_one_and_of_sorted_keys() {
        assert_eq!(fnv1a(""), "cbf29ce484222325");
        assert_eq!(fnv1a("foobar"), "85944171f73967e8");
        let value: Value = serde_json::from_str(r#"{"b":1,"a":{"d":2,"c":3}}"#).expect("JSON");
        assert_eq!(value.to_string(), r#"{"a":{"c":3,"d":2},"b":1}"#);
    }
}
