//! The feed over a real SQLite log.

use crate::store::Told;
use std::time::Duration;

use futures_util::StreamExt;
use tempfile::TempDir;

use super::cursor::Next;
use super::*;
use crate::event::{Connected, Disconnected, EventKind, Meta, RttMs};
use crate::ids::{EventId, Incarnation, NodeId, Run, SessionId};
use crate::reason::{DetectedBy, Reason};
use crate::store::{End, Match, Start, Write};

/// Longer than any test needs: who waits this long waits for nothing.
const LONG: Duration = Duration::from_secs(60);

pub(crate) fn event(seq: i64) -> Arc<Event> {
    Arc::new(Event {
        seq,
        id: EventId::new(),
        kind: EventKind::SessionConnected,
        device_id: None,
        device_type: None,
        session_id: None,
        reason: None,
        time: Timestamp(0),
        json: format!(r#"{{"data":{{"seq":{seq:06}}}}}"#).into(),
    })
}

/// A log in a SQLite file of its own, gone with this value.
pub(crate) struct Log {
    pub(crate) store: Store,
    incarnation: Incarnation,
    _dir: TempDir,
}

pub(crate) const NODE: &str = "n1";

impl Log {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lastpong.db");
        let store = tokio::task::spawn_blocking(move || Store::open_sqlite(&path)).await.unwrap().unwrap();
        let log = Self { store, incarnation: Incarnation::new(), _dir: dir };
        log.store.begin(&log.run(), Timestamp::now()).await.unwrap();
        log
    }

    pub(crate) fn run(&self) -> Run {
        Run { node_id: NODE.parse().unwrap(), incarnation: self.incarnation }
    }

    pub(crate) fn connected(&self, device: &str) -> Arc<Connected> {
        Arc::new(Connected {
            device_id: device.parse().unwrap(),
            device_type: "meter".parse().unwrap(),
            session_id: SessionId::new(),
            node_id: NODE.parse::<NodeId>().unwrap(),
            incarnation: self.incarnation,
            connected_at: Timestamp::now(),
            remote_addr: "127.0.0.1:9".parse().unwrap(),
            meta: Meta::new(),
            trace_id: None,
        })
    }

    pub(crate) fn end(&self, of: &Connected, reason: Reason) -> Write {
        let now = Timestamp::now();
        Write::End(End {
            event_id: EventId::new(),
            data: Arc::new(Disconnected {
                device_id: of.device_id.clone(),
                device_type: of.device_type.clone(),
                session_id: of.session_id,
                node_id: of.node_id.clone(),
                incarnation: of.incarnation,
                reason,
                initiator: reason.initiator(),
                detected_by: DetectedBy::Socket,
                close_code: None,
                connected_at: of.connected_at,
                last_pong_at: None,
                last_active_at: now,
                disconnected_at: now,
                detection_ms: 0.0,
                duration_ms: 0.0,
                rtt_ms: RttMs::default(),
                pings_sent: Some(0),
                pongs_received: Some(0),
                reconnect_count: 0,
                remote_addr: of.remote_addr,
                meta: Meta::new(),
                trace_id: None,
            }),
        })
    }

    pub(crate) fn start(&self, of: &Arc<Connected>) -> Write {
        Write::Start(Start { event_id: EventId::new(), data: of.clone(), after_seq: 0, told: Told::Now })
    }

    pub(crate) async fn commit(&self, batch: Vec<Write>) -> Vec<Arc<Event>> {
        self.store.commit(&self.run(), Arc::new(batch)).await.unwrap().events
    }

    /// One session of each device, from start to end: two events each.
    pub(crate) async fn sessions(&self, devices: std::ops::Range<usize>) -> Vec<Arc<Event>> {
        let batch = devices.flat_map(|n| {
            let session = self.connected(&format!("d{n}"));
            [self.start(&session), self.end(&session, Reason::ReadError)]
        });
        self.commit(batch.collect()).await
    }

    pub(crate) async fn feed(&self, limits: Limits) -> Feed {
        self.measured_feed(limits, Arc::default()).await
    }

    pub(crate) async fn measured_feed(&self, limits: Limits, metrics: Arc<Metrics>) -> Feed {
        let newest = self.store.bounds().await.unwrap().newest;
        Feed::with_limits(self.store.clone(), newest, metrics, limits)
    }
}

fn seqs(events: &[Arc<Event>]) -> Vec<i64> {
    events.iter().map(|e| e.seq).collect()
}

/// What a subscriber gets until it has nothing left to read.
async fn drain(subscription: &mut Subscription) -> Vec<i64> {
    let mut got = Vec::new();
    loop {
        match subscription.next(Duration::ZERO).await.unwrap() {
            Next::Batch { missed, events } => {
                assert_eq!(missed, None);
                got.extend(seqs(&events));
            }
            Next::Quiet | Next::Closed => return got,
        }
    }
}

#[tokio::test]
async fn a_reader_behind_the_ring_reads_on_from_the_store_without_a_seam() {
    let log = Log::new().await;
    let feed = log.feed(Limits { ring_events: 40, ..Limits::default() }).await;
    for n in 0..10 {
        feed.publish(&log.sessions(n * 50..(n + 1) * 50).await);
    }
    assert_eq!(feed.newest(), 1000);
    assert_eq!(feed.standing().in_memory_from, Some(961));
    for after in [0, 1, 500, 959, 960, 961, 999, 1000] {
        let mut subscription = feed.follow(Sink::Sse, after, EventFilter::default()).unwrap();
        assert_eq!(drain(&mut subscription).await, (after + 1..=1000).collect::<Vec<_>>(), "after {after}");
    }
}

#[tokio::test]
async fn a_filter_moves_the_cursor_past_what_it_does_not_want() {
    let log = Log::new().await;
    let feed = log.feed(Limits { ring_events: 10, ..Limits::default() }).await;
    feed.publish(&log.sessions(0..100).await);
    let wanted = |word: &str| {
        let Ok(word) = word.parse::<Match>();
        EventFilter { device_ids: vec![word], ..EventFilter::default() }
    };
    for (word, expected) in [("d1", vec![3, 4]), ("d99", vec![199, 200]), ("nobody", vec![])] {
        let mut subscription = feed.follow(Sink::Sse, 0, wanted(word)).unwrap();
        assert_eq!(drain(&mut subscription).await, expected, "{word}");
        assert_eq!(subscription.after(), 200);
    }
}

#[tokio::test]
async fn what_was_told_already_is_not_told_again() {
    let log = Log::new().await;
    let feed = log.feed(Limits::default()).await;
    let events = log.sessions(0..3).await;
    feed.publish(&events[..4]);
    feed.publish(&events[2..]);
    feed.publish(&events[..1]);
    let page = feed.read(0, &EventFilter::default(), 100).await.unwrap();
    assert_eq!((seqs(&page.events), page.scanned_to), ((1..=6).collect(), 6));
    let cut = feed.read(2, &EventFilter::default(), 2).await.unwrap();
    assert_eq!((seqs(&cut.events), cut.scanned_to), (vec![3, 4], 4));
}

#[tokio::test]
async fn a_waiting_subscriber_is_woken_by_a_publication() {
    let log = Log::new().await;
    let feed = log.feed(Limits::default()).await;
    let mut subscription = feed.follow(Sink::WebSocket, 0, EventFilter::default()).unwrap();
    let waiting = tokio::spawn(async move { subscription.next(LONG).await.unwrap() });
    feed.publish(&log.sessions(0..1).await);
    let Next::Batch { events, missed: None } = waiting.await.unwrap() else { panic!("no batch") };
    assert_eq!(seqs(&events), [1, 2]);
}

#[tokio::test]
async fn a_slow_subscriber_misses_nothing_while_the_ring_moves_on() {
    let log = Log::new().await;
    let feed = log.feed(Limits { ring_events: 16, ..Limits::default() }).await;
    let mut slow = feed.follow(Sink::Sse, 0, EventFilter::default()).unwrap();
    let mut got = Vec::new();
    for n in 0..20 {
        feed.publish(&log.sessions(n * 100..(n + 1) * 100).await);
        // One batch for each two hundred events.
        if let Next::Batch { events, .. } = slow.next(LONG).await.unwrap() {
            got.extend(seqs(&events));
        }
    }
    assert!(feed.standing().slowest_lag > 1000, "{:?}", feed.standing());
    let lag = |sink| feed.0.metrics.outbox_lag.with_label_values(&[sink]).get();
    assert!(lag("sse") > 1000 && lag("websocket") == 0, "{} and {}", lag("sse"), lag("websocket"));
    got.extend(drain(&mut slow).await);
    assert_eq!(got, (1..=4000).collect::<Vec<_>>());
    assert_eq!(feed.standing().slowest_lag, 0);
    assert_eq!(lag("sse"), 0);
}

#[tokio::test]
async fn seats_are_bounded_and_given_back() {
    let log = Log::new().await;
    let feed = log.feed(Limits { subscribers: 2, ..Limits::default() }).await;
    let follow = || feed.follow(Sink::Sse, 0, EventFilter::default());
    let (first, _second) = (follow().unwrap(), follow().unwrap());
    assert_eq!(follow().err(), Some(NoSeat(2)));
    drop(first);
    assert!(follow().is_ok());
    assert_eq!(feed.standing().subscribers, 1);
}

#[tokio::test]
async fn a_closed_feed_delivers_what_is_published_and_then_ends() {
    let log = Log::new().await;
    let feed = log.feed(Limits::default()).await;
    let subscription = feed.follow(Sink::Sse, 0, EventFilter::default()).unwrap();
    let body = tokio::spawn(sse::stream(subscription).map(|chunk| chunk.unwrap()).collect::<Vec<_>>());
    feed.publish(&log.sessions(0..300).await);
    feed.close();
    let text = String::from_utf8(body.await.unwrap().concat()).unwrap();
    let ids: Vec<i64> = text.lines().filter_map(|l| l.strip_prefix("id: ")?.parse().ok()).collect();
    assert_eq!(ids, (1..=600).collect::<Vec<_>>());
    assert!(text.starts_with(": connected, events after 0 follow\n\n"), "{}", &text[..80]);
    assert!(text.ends_with(": closing, come back with Last-Event-ID\n\n"));
}

#[tokio::test]
async fn what_is_past_retention_is_named_and_the_rest_follows() {
    let log = Log::new().await;
    log.sessions(0..5).await;
    // Everything before this moment is past retention, whatever the clock's grain.
    let now = Timestamp(Timestamp::now().0 + 1);
    while log.store.expire_events(now, 4).await.unwrap() > 0 {}
    let bounds = log.store.bounds().await.unwrap();
    assert_eq!(bounds, LogBounds { oldest: 11, newest: 10 });
    let feed = log.feed(Limits::default()).await;
    let mut subscription = feed.follow(Sink::Sse, 3, EventFilter::default()).unwrap();
    let Next::Batch { missed, events } = subscription.next(LONG).await.unwrap() else { panic!("no batch") };
    assert_eq!((missed, events.len()), (Some(4..=10), 0));
    feed.publish(&log.sessions(5..6).await);
    assert_eq!(drain(&mut subscription).await, [11, 12]);

    let body = sse::stream(feed.follow(Sink::Sse, 0, EventFilter::default()).unwrap());
    let text: Vec<_> =
        body.take(2).map(|chunk| String::from_utf8(chunk.unwrap().to_vec()).unwrap()).collect().await;
    assert!(text[1].starts_with(": events 1 to 10 are past their retention\n\nid: 11\n"), "{text:?}");
}

#[tokio::test]
async fn a_quiet_stream_says_so_every_fifteen_seconds() {
    let log = Log::new().await;
    let feed = log.feed(Limits::default()).await;
    tokio::time::pause();
    let subscription = feed.follow(Sink::Sse, 0, EventFilter::default()).unwrap();
    let mut body = Box::pin(sse::stream(subscription));
    let start = tokio::time::Instant::now();
    body.next().await.unwrap().unwrap();
    for n in 1..=3 {
        let comment = body.next().await.unwrap().unwrap();
        assert_eq!(&comment[..], b": quiet\n\n");
        assert_eq!(start.elapsed().as_secs(), n * 15);
    }
}
