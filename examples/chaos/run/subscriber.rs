//! Subscribers of every kind, each writing down what it was told and when, and coming back for ever with the last `seq`
//! it saw: to the next node after a failure.
//!
//! They judge nothing but whether a message is one: its wrapping has to fit what it carries. What reaches them late or
//! twice is for the checker to find. One of them, `sse-slow`, reads slowly on purpose.

mod http;
mod redis;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

pub use self::redis::entries;
use super::node::Api;
use super::part::Part;
use super::record::Lines;

/// Between an end and the next try.
const PAUSE: Duration = Duration::from_millis(250);

/// Each type of event has a channel, called so and then as the type.
const CHANNELS: &str = "lastpong:events:";

/// All subscribers of a run; dropped, they end.
pub struct Subscribers {
    _tasks: JoinSet<()>,
    /// Of each that owes everything: its name and how far it is.
    places: Vec<(String, Arc<AtomicI64>)>,
    names: Vec<String>,
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
    /// The same, but now and then it does not read for a while.
    SlowSse,
    Ws,
    Page,
}

impl Subscribers {
    /// Sends them all on their way; they may begin before there is anyone to ask.
    ///
    /// # Errors
    /// Where their records can not be made.
    pub fn start(api: &Api, nodes: &[Part], has_redis: bool, out: &Path) -> anyhow::Result<Self> {
        let mut all = Self { _tasks: JoinSet::new(), places: Vec::new(), names: Vec::new() };
        let open = |name: &str| -> anyhow::Result<Subscriber> {
            let lines = Lines::create(&out.join("subscribers").join(format!("{name}.jsonl")))?;
            Ok(Subscriber { lines, place: Arc::default() })
        };
        let one_each = (0..nodes.len()).map(|n| (Kind::Sse, n));
        let others = [(Kind::SlowSse, 0), (Kind::Ws, 0), (Kind::Ws, 1), (Kind::Page, 0)];
        for (kind, first) in one_each.chain(others) {
            let name = match kind {
                Kind::Sse => format!("sse-{}", first + 1),
                Kind::SlowSse => "sse-slow".to_owned(),
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
            all.names.push("pubsub-1".to_owned());
        }
        all.names.extend(all.places.iter().map(|(name, _)| name.clone()));
        Ok(all)
    }

    /// Of every one, the name of its record.
    pub fn names(&self) -> &[String] {
        &self.names
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
                Kind::Sse => http::sse(&self, &api, *node, false).await,
                Kind::SlowSse => http::sse(&self, &api, *node, true).await,
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

    /// Takes down an event that just arrived, and what is wrong with how it came.
    fn got(&self, text: &str, wrapping: Wrapping<'_>) {
        match serde_json::from_str(text) {
            Ok(event) => {
                if let Some(what) = wrapping.misfit(&event) {
                    self.bad(event["data"]["seq"].as_i64(), what);
                }
                self.saw(&event);
            }
            Err(error) => self.bad(None, format!("not JSON ({error}): {text}")),
        }
    }

    /// Takes down an event that just arrived.
    fn saw(&self, event: &Value) {
        let data = &event["data"];
        let Some(seq) = data["seq"].as_i64() else {
            return self.bad(None, format!("an event without a seq: {event}"));
        };
        let sum = fnv1a(&data.to_string());
        let [id, kind, subject] = ["id", "type", "subject"].map(|field| &event[field]);
        self.write(
            json!({"is": "event", "seq": seq, "id": id, "type": kind, "subject": subject, "sum": sum}),
        );
        self.place.fetch_max(seq, Ordering::Relaxed);
    }

    /// Takes down a message that is none, or not what it says.
    fn bad(&self, seq: Option<i64>, what: String) {
        let what: String = what.chars().take(500).collect();
        self.write(json!({"is": "bad", "seq": seq, "what": what}));
    }

    fn write(&self, line: Value) {
        if let Err(error) = self.lines.write(line) {
            // Without its record the run proves nothing, and the checker will say what is missing.
            eprintln!("chaos: a subscriber's record can not be written: {error}");
        }
    }
}

/// What a message says of the event in it, beside the event.
#[derive(Clone, Copy)]
enum Wrapping<'a> {
    Bare,
    /// Server-sent: `id:` and `event:`.
    Sent {
        id: &'a str,
        event: &'a str,
    },
    /// Published on this channel.
    Channel(&'a str),
}

impl Wrapping<'_> {
    /// What in it is not the event's.
    fn misfit(self, event: &Value) -> Option<String> {
        let kind = event["type"].as_str().unwrap_or_default();
        let seq = event["data"]["seq"].as_i64();
        match self {
            Self::Bare => None,
            Self::Sent { id, .. } if id.parse().ok() != seq => {
                Some(format!("its id is {id:?} and its seq {seq:?}"))
            }
            Self::Sent { event, .. } => {
                (event != kind).then(|| format!("it is called {event:?} and its type is {kind:?}"))
            }
            Self::Channel(name) => (name.strip_prefix(CHANNELS) != Some(kind))
                .then(|| format!("its channel is {name:?} and its type is {kind:?}")),
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

    #[test]
    fn wrapping_that_is_not_the_events_is_bad() {
        let event = json!({"type": "t.v1", "data": {"seq": 7}});
        let sent = |id, event| Wrapping::Sent { id, event };
        for fits in [Wrapping::Bare, sent("7", "t.v1"), Wrapping::Channel("lastpong:events:t.v1")] {
            assert_eq!(fits.misfit(&event), None);
        }
        let misfits = [sent("8", "t.v1"), sent("", "t.v1"), sent("7", "u.v1"), sent("7", "")];
        let channels = ["lastpong:events:u.v1", "t.v1"].map(Wrapping::Channel);
        for misfit in misfits.into_iter().chain(channels) {
            assert!(misfit.misfit(&event).is_some());
        }
        assert!(
            sent("", "t.v1").misfit(&json!({"type": "t.v1"})).is_none(),
            "that it has no seq is said apart"
        );
    }

    #[test]
    fn what_is_bad_is_taken_down_and_the_rest_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sse-1.jsonl");
        let lines = Lines::create(&path).expect("a record");
        let subscriber = Subscriber { lines, place: Arc::default() };
        subscriber.got("{", Wrapping::Bare);
        subscriber.got(r#"{"type":"t.v1","data":{}}"#, Wrapping::Bare);
        subscriber.got(r#"{"type":"t.v1","data":{"seq":7}}"#, Wrapping::Sent { id: "6", event: "t.v1" });
        let text = std::fs::read_to_string(path).expect("a record");
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        let told: Vec<_> =
            lines.iter().map(|l| (l["is"].as_str().unwrap_or_default(), l["seq"].as_i64())).collect();
        assert_eq!(told, [("bad", None), ("bad", None), ("bad", Some(7)), ("event", Some(7))]);
        assert_eq!(subscriber.after(), 7);
    }
}
