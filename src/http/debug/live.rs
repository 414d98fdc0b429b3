//! A page of the live sessions of the installation: this node's exactly, the others' as they were last read.

use std::str::FromStr;

use actix_web::web;
use ipnet::IpNet;
use serde::Serialize;
use utoipa::ToSchema;

use super::select::{Filter, Order, Place, SortBy, select};
use super::{OF_SESSIONS, cursor_of, made, seal};
use crate::cluster::peers::Part;
use crate::http::Doors;
use crate::http::query::Params;
use crate::ids::{DeviceType, NodeId};
use crate::problem::Problem;
use crate::store::bans;
use crate::supervisor::snapshot::{SessionView, Source, State};
use crate::time::{Timestamp, millis};

/// What a query asks of the live sessions.
pub(crate) struct AskedLive {
    pub order: Order,
    pub filter: Filter,
    pub after: Option<Place>,
    pub limit: usize,
}

impl AskedLive {
    pub(crate) fn of(params: &Params) -> Result<Self, Problem> {
        let sorts = || SortBy::ALL.map(|(name, _)| name).join(", ") + ", reversed with a - before it";
        let order: Order = params.parsed("sort", &sorts())?.unwrap_or_default();
        Ok(Self {
            order,
            filter: live_filter(params)?,
            after: cursor_of(params, &format!("{order}~"), OF_SESSIONS, |text| Place::read(order, text))?,
            limit: params.limit()?,
        })
    }
}

/// A page of live sessions.
pub(in crate::http) struct LivePage {
    pub items: Vec<SessionView>,
    pub next_cursor: Option<String>,
    pub total: u64,
    pub nodes: Vec<NodePart>,
    /// All nodes are among `nodes`, with all of their sessions.
    pub complete: bool,
    pub now: Timestamp,
}

/// What one node adds to a page, and how fresh that is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodePart {
    pub node_id: NodeId,
    /// `own`: as its workers hold them. `live_state`: as the node last wrote them there. `record`: by their rows, which
    /// lack round trips and counts.
    pub source: &'static str,
    /// `live` or `lost`.
    pub state: &'static str,
    pub as_of: Timestamp,
    pub age_ms: f64,
    /// Before any filter.
    pub sessions: usize,
    /// All of its sessions are there.
    pub complete: bool,
}

impl NodePart {
    pub(crate) fn of(part: &Part, now: Timestamp) -> Self {
        Self {
            node_id: part.node_id.clone(),
            source: if part.source == Source::LiveState { "live_state" } else { "record" },
            state: if part.lost { "lost" } else { "live" },
            as_of: part.as_of,
            age_ms: age_ms(part.as_of, now),
            sessions: part.sessions,
            complete: part.whole,
        }
    }

    pub(crate) fn own(node_id: &NodeId, as_of: Timestamp, sessions: usize, now: Timestamp) -> Self {
        let (source, state) = ("own", "live");
        let age_ms = age_ms(as_of, now);
        Self { node_id: node_id.clone(), source, state, as_of, age_ms, sessions, complete: true }
    }
}

fn age_ms(as_of: Timestamp, now: Timestamp) -> f64 {
    now.0.saturating_sub(as_of.0).max(0) as f64 / 1000.0
}

/// The page that is asked for, made into an answer where that may take a while.
pub(super) async fn page<T: Send + 'static>(
    asked: AskedLive,
    doors: &web::Data<Doors>,
    answer: impl FnOnce(LivePage) -> T + Send + 'static,
) -> Result<T, Problem> {
    let node = asked.filter.node.clone();
    let is_of = |node_id: &NodeId| node.as_ref().is_none_or(|asked| node_id.as_str() == asked);
    let with_peers = node.as_deref().is_none_or(|asked| asked != doors.node_id.as_str());
    let own = async { if is_of(&doors.node_id) { doors.inspector.glance().await } else { Vec::new() } };
    let peers = async { if with_peers { Some(doors.peers.look().await) } else { None } };
    let (own, peers) = tokio::join!(own, peers);
    let now = Timestamp::now();
    let mut nodes = Vec::new();
    if is_of(&doors.node_id) {
        let as_of = own.iter().map(|worker| worker.taken_at).min().unwrap_or(now);
        let sessions = own.iter().map(|worker| worker.sessions.len()).sum();
        nodes.push(NodePart::own(&doors.node_id, as_of, sessions, now));
    }
    let others = peers.iter().flat_map(|mirror| &mirror.parts).filter(|part| is_of(&part.node_id));
    nodes.extend(others.map(|part| NodePart::of(part, now)));
    let complete = peers.as_ref().is_none_or(|mirror| mirror.whole) && nodes.iter().all(|part| part.complete);
    // Of a hundred thousand sessions this takes milliseconds, which a worker's loop does not have.
    made(move || {
        let AskedLive { order, filter, after, limit } = asked;
        let here = own.iter().flat_map(|worker| &worker.sessions);
        let elsewhere = peers.iter().flat_map(|mirror| mirror.sessions.iter());
        let picked = select(here.chain(elsewhere), &filter, order, after.as_ref(), limit);
        answer(LivePage {
            items: picked.items.into_iter().cloned().collect(),
            next_cursor: picked.next.map(|place| seal(&format!("{order}~{}", place.to_text()))),
            total: picked.total as u64,
            nodes,
            complete,
            now,
        })
    })
    .await
}

fn live_filter(params: &Params) -> Result<Filter, Problem> {
    const STATES: [(&str, State); 3] =
        [("starting", State::Starting), ("live", State::Live), ("suspect", State::Suspect)];
    let state = match params.text("state") {
        None => None,
        Some(name) => match STATES.into_iter().find(|(known, _)| *known == name) {
            Some((_, state)) => Some(state),
            None => return Err(Problem::bad_input("state", name, "starting, live, suspect, closed")),
        },
    };
    let milliseconds: Option<f64> = params.parsed("min_rtt_ms", NUMBER)?;
    if let (Some(x), Some(text)) = (milliseconds, params.text("min_rtt_ms"))
        && !(x.is_finite() && x >= 0.0)
    {
        return Err(Problem::bad_input("min_rtt_ms", text, NUMBER));
    }
    Ok(Filter {
        state,
        device_id: params.device_id()?,
        device_type: checked::<DeviceType>(params, "device_type")?,
        node: checked::<NodeId>(params, "node")?,
        remote_addr: network(params)?,
        min_rtt_ms: milliseconds,
        idle_over_ms: idle(params)?,
    })
}

const NUMBER: &str = "a number of milliseconds, 0 or more";

/// A name that is one of its kind, as text.
pub(super) fn checked<T: FromStr + ToString>(params: &Params, name: &str) -> Result<Option<String>, Problem> {
    Ok(params.parsed::<T>(name, "1-128 of [A-Za-z0-9._:@-]")?.map(|t| t.to_string()))
}

fn network(params: &Params) -> Result<Option<IpNet>, Problem> {
    let Some(text) = params.text("remote_addr") else { return Ok(None) };
    let bad = || Problem::bad_input("remote_addr", text, "an address, or a network like 10.0.0.0/8");
    bans::network(text).map(Some).ok_or_else(bad)
}

fn idle(params: &Params) -> Result<Option<f64>, Problem> {
    const ALLOWED: &str = "a duration like 500ms, 30s, 5m, 1h";
    let Some(text) = params.text("idle_gt") else { return Ok(None) };
    let duration = text.parse::<jiff::SignedDuration>().ok().and_then(|d| d.try_into().ok());
    duration.map(|d| Some(millis(d))).ok_or_else(|| Problem::bad_input("idle_gt", text, ALLOWED))
}
