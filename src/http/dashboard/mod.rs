//! What the dashboard is told, once a second: made once for all who look, and small, so that many who look cost no more
//! than one.
//!
//! - [`Pulse`] reads this node's metrics every second, whether or not anybody looks, so that a page has its past at once.
//!   What costs more (the newest events, the other nodes) is read only for viewers.
//! - A viewer waits on one channel for bytes that are written for all. There are seats for 64.
//! - It ends with the feed: a node that stops keeps no stream open.

pub mod state;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::Recipient;
use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::auth::Reader;
use super::debug::live::NodePart;
use super::query::Params;
use super::{Doors, json};
use crate::cluster::peers::Peers;
use crate::event::EventKind;
use crate::feed::Feed;
use crate::ids::{DeviceId, NodeId, SessionId};
use crate::metrics::{Metrics, Standing};
use crate::problem::Problem;
use crate::reason::Reason;
use crate::store::{EventFilter, Match};
use crate::supervisor::messages::{Drain, DrainView};
use crate::time::Timestamp;
use state::{Lately, Point, Reading};

const EVERY: Duration = Duration::from_secs(1);
/// The other nodes are looked at so many seconds apart.
const NODES_EVERY: u32 = 5;
const VIEWERS: usize = 64;
/// How long a second waits for what is nearly always there.
const AT_ONCE: Duration = Duration::from_millis(100);
/// Newest events shown, and looked at to find them.
const RECENT: usize = 12;
const LOOKED_AT: i64 = 300;

/// What a pulse is made from.
pub struct Parts {
    pub node_id: NodeId,
    pub metrics: Arc<Metrics>,
    pub feed: Feed,
    pub peers: Peers,
    /// There is a Redis, which has a breaker.
    pub redis: bool,
    /// Whom to ask how far a drain is.
    pub drain: Recipient<Drain>,
}

/// The dashboard's source. Cheap to clone.
#[derive(Clone)]
pub struct Pulse(Arc<Shared>);

struct Shared {
    parts: Parts,
    lately: Mutex<Lately>,
    viewers: AtomicUsize,
    /// The frame of the last second; none before the first.
    frame: watch::Sender<Option<Bytes>>,
}

/// How far this node's drain is.
#[derive(Debug, Clone, Copy, Serialize)]
struct Draining {
    of: usize,
    ended: usize,
    live: usize,
    until: Timestamp,
}

/// An event, as the dashboard lists it.
#[derive(Debug, Clone, Serialize)]
struct Recent {
    seq: i64,
    at: Timestamp,
    kind: &'static str,
    device_id: DeviceId,
    session_id: SessionId,
    reason: Option<Reason>,
}

impl Pulse {
    /// One that beats when it is told to: see [`Pulse::start`].
    pub fn new(parts: Parts) -> Self {
        let lately = Mutex::default();
        Self(Arc::new(Shared {
            parts,
            lately,
            viewers: AtomicUsize::new(0),
            frame: watch::Sender::new(None),
        }))
    }

    /// Beats on `aside` until the feed is closed.
    pub fn start(&self, aside: &Handle) {
        aside.spawn(self.clone().beat());
    }

    /// What the last second was like.
    pub(super) fn last(&self) -> Option<Point> {
        self.lately().last().cloned()
    }

    fn lately(&self) -> MutexGuard<'_, Lately> {
        self.0.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn beat(self) {
        let mut every = interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut nodes, mut beats) = (Vec::new(), 0_u32);
        let (mut recent, mut told) = (Vec::new(), 0);
        // Both of their own, because a record that hangs holds up no beat.
        let mut reading: Option<JoinHandle<Vec<NodePart>>> = None;
        let mut finding: Option<JoinHandle<(Vec<Recent>, i64)>> = None;
        while !self.0.parts.feed.is_closed() {
            every.tick().await;
            let point = self.lately().read(self.read());
            if self.0.viewers.load(Relaxed) == 0 {
                (nodes, beats) = (Vec::new(), 0);
                self.0.frame.send_replace(None);
                continue;
            }
            if beats.is_multiple_of(NODES_EVERY) && reading.is_none() {
                let this = self.clone();
                reading = Some(tokio::spawn(async move { this.nodes().await }));
            }
            if let Some(read) = reading.take_if(|reading| reading.is_finished()) {
                nodes = read.await.unwrap_or_default();
            }
            beats = beats.wrapping_add(1);
            let newest = self.0.parts.feed.newest();
            if newest > told && finding.is_none() {
                let this = self.clone();
                let mut found = tokio::spawn(async move { (this.recent(newest).await, newest) });
                // What is in memory is there at once.
                if let Ok(found) = timeout(AT_ONCE, &mut found).await {
                    (recent, told) = found.unwrap_or_default();
                } else {
                    finding = Some(found);
                }
            }
            if let Some(found) = finding.take_if(|finding| finding.is_finished()) {
                (recent, told) = found.await.unwrap_or_default();
            }
            let drain = self.draining().await;
            let frame = frame(&self.0.parts.node_id, &point, &nodes, &recent, drain);
            self.0.frame.send_replace(Some(frame));
        }
        self.0.frame.send_replace(Some(Bytes::new()));
    }

    fn read(&self) -> Reading {
        let Parts { metrics, feed, .. } = &self.0.parts;
        let lag = |sink| metrics.outbox_lag.with_label_values(&[sink]).get();
        let breaker = |store: &'static str| (store, metrics.breaker_state.with_label_values(&[store]).get());
        let stores: &[&'static str] = if self.0.parts.redis { &["sql", "redis"] } else { &["sql"] };
        Reading {
            at: Timestamp::now(),
            sessions: metrics.sessions_by_state(),
            ends: Reason::ALL
                .iter()
                .map(|reason| {
                    (reason.as_str(), metrics.disconnects.with_label_values(&[reason.as_str()]).get())
                })
                .collect(),
            rtt: Standing::of(&metrics.ping_rtt),
            detection: Standing::of(&metrics.detection),
            newest: feed.newest(),
            lag: ["sse", "websocket", "redis_stream"].map(lag),
            breakers: stores.iter().copied().map(breaker).collect::<BTreeMap<_, _>>(),
            journal: metrics.journal_entries.get(),
        }
    }

    /// This node and the others.
    async fn nodes(&self) -> Vec<NodePart> {
        let Parts { node_id, metrics, peers, .. } = &self.0.parts;
        let (now, held) = (Timestamp::now(), metrics.sessions_held() as usize);
        let mut nodes = vec![NodePart::own(node_id, now, held, now)];
        nodes.extend(peers.standing().await.iter().map(|part| NodePart::of(part, now)));
        nodes
    }

    /// None too where the root is too busy to say.
    async fn draining(&self) -> Option<Draining> {
        let asked = timeout(AT_ONCE, self.0.parts.drain.send(Drain::Look)).await;
        let DrainView { live, drain } = asked.ok()?.ok()?.ok()?;
        let drain = drain?;
        // Who was let in just before the doors closed is one more than there were.
        let of = drain.of.max(live);
        Some(Draining { of, ended: of - live, live, until: drain.until })
    }

    /// The newest starts and ends of the installation, the newest first, as far as they are among the last events.
    async fn recent(&self, newest: i64) -> Vec<Recent> {
        let feed = &self.0.parts.feed;
        let kinds = [EventKind::SessionConnected, EventKind::SessionDisconnected];
        let types = kinds.iter().map(|kind| Match::Is(kind.as_str().to_owned())).collect();
        let filter = EventFilter { types, ..EventFilter::default() };
        let page =
            feed.read((newest - LOOKED_AT).max(0), &filter, LOOKED_AT as usize).await.unwrap_or_default();
        let told = page.events.iter().rev().filter_map(|event| {
            Some(Recent {
                seq: event.seq,
                at: event.time,
                kind: if event.kind == EventKind::SessionConnected { "connected" } else { "disconnected" },
                device_id: event.device_id.clone()?,
                session_id: event.session_id?,
                reason: event.reason,
            })
        });
        told.take(RECENT).collect()
    }

    /// Takes a viewer in: what was lately, then each second.
    ///
    /// # Errors
    /// There are too many.
    fn view(&self) -> Result<impl Stream<Item = Result<Bytes, actix_web::Error>> + use<>, Problem> {
        if self.0.viewers.fetch_add(1, Relaxed) >= VIEWERS {
            self.0.viewers.fetch_sub(1, Relaxed);
            return Err(Problem::unavailable(format!("{VIEWERS} dashboards are open on this node"), 5));
        }
        let seat = Seat(self.clone());
        let points = self.lately().points();
        let points = json::array(points.iter().map(|point| &**point));
        let first = json::with_member("{}".to_owned(), "node", &json::text(&self.0.parts.node_id));
        let first = sse("history", &json::with_member(first, "points", &points));
        let beats = stream::unfold((seat, self.0.frame.subscribe()), async |(seat, mut frame)| {
            loop {
                frame.changed().await.ok()?;
                let bytes = frame.borrow_and_update().clone();
                match bytes {
                    // The node stops.
                    Some(bytes) if bytes.is_empty() => return None,
                    Some(bytes) => return Some((bytes, (seat, frame))),
                    None => {}
                }
            }
        });
        Ok(stream::once(std::future::ready(first)).chain(beats).map(Ok))
    }
}

/// A viewer's place, given back when his stream is dropped.
struct Seat(Pulse);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.viewers.fetch_sub(1, Relaxed);
    }
}

fn frame(
    node: &NodeId,
    point: &Point,
    nodes: &[NodePart],
    recent: &[Recent],
    drain: Option<Draining>,
) -> Bytes {
    let frame = json::with_member("{}".to_owned(), "node", &json::text(node));
    let frame = json::with_member(frame, "point", &json::text(point));
    let frame = json::with_member(frame, "drain", &json::text(&drain));
    let frame = json::with_member(frame, "nodes", &json::text(&nodes));
    sse("pulse", &json::with_member(frame, "recent", &json::text(&recent)))
}

fn sse(event: &str, data: &str) -> Bytes {
    Bytes::from(format!("event: {event}\ndata: {data}\n\n"))
}

/// The dashboard's stream: the last quarter of an hour, then each second
#[utoipa::path(
    get, path = "/debug/live", tag = "pages",
    responses((status = 200, body = String, content_type = "text/event-stream")),
)]
pub(super) async fn live(
    Reader(caller): Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    Params::parse(request.query_string(), &[])?;
    let mut response = HttpResponse::Ok();
    response
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("X-Accel-Buffering", "no"));
    if request.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let beats = doors.pulse.view()?;
    Ok(response.streaming(beats.take_until(Box::pin(caller.until_over(doors.clone())))))
}
