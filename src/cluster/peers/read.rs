//! Reading a mirror: live state first, and the record for what that does not have.
//!
//! Live state may have lost some of what a node wrote, as Redis does where memory is short. The node's mark says how many
//! there were; where fewer are found, the record says whether they ended or are missing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;

use super::{MOST, Mirror, Part};
use crate::event::{Connected, RttMs};
use crate::ids::{Incarnation, NodeId, Run, SessionId};
use crate::store::live::{Live, LiveError, LiveSession, LiveState};
use crate::store::postgres::PostgresStore;
use crate::store::{HeldSession, LastHeard, Peer, PeerState, StoreError};
use crate::supervisor::snapshot::{SessionView, Source, State};
use crate::time::{Mono, Timestamp};

/// Rows of the record read in one call.
const ROWS: usize = 5_000;

pub(super) async fn mirror(store: &PostgresStore, live: Option<&Live>) -> Result<Mirror, StoreError> {
    let began = Mono::now();
    let mut found = Found::default();
    let peers = store.peers().await?;
    let peers: Vec<Peer> = peers.into_iter().filter(|peer| peer.state != PeerState::Gone).collect();
    let told = match live {
        // What cannot be read there now is read on the record.
        Some(live) if !peers.is_empty() => match from_live_state(live, &peers, &mut found).await {
            Ok(marked) => {
                for part in &mut found.parts {
                    let said = marked.get(&part.node_id).copied().unwrap_or(0);
                    if part.sessions < said && part.whole {
                        part.whole = store.held_count(&part.node_id).await? <= part.sessions;
                    }
                }
                marked.into_keys().collect()
            }
            Err(_) => {
                found = Found::default();
                HashSet::new()
            }
        },
        _ => HashSet::new(),
    };
    for peer in peers.iter().filter(|peer| !told.contains(&peer.run.node_id)) {
        from_record(store, peer, &mut found).await?;
    }
    let Found { mut parts, sessions } = found;
    parts.sort_by(|a, b| a.node_id.as_str().cmp(b.node_id.as_str()));
    let took = Mono::now().since(began);
    Ok(Mirror { parts, sessions: Arc::new(sessions), whole: true, began, took })
}

#[derive(Default)]
struct Found {
    parts: Vec<Part>,
    sessions: Vec<SessionView>,
}

pub(super) async fn standing(store: &PostgresStore, live: Option<&Live>) -> Result<Vec<Part>, StoreError> {
    let mut parts = Vec::new();
    for peer in store.peers().await?.iter().filter(|peer| peer.state != PeerState::Gone) {
        let mark = match live {
            Some(live) => Mark::of(live, &peer.run).await.unwrap_or_default(),
            None => None,
        };
        let (mut part, sessions) = match mark {
            Some(mark) => (part(peer, Source::LiveState, mark.at), mark.sessions),
            None => {
                let held = store.held_count(&peer.run.node_id).await?;
                (part(peer, Source::Record, Timestamp::now()), held)
            }
        };
        part.sessions = sessions;
        parts.push(part);
    }
    Ok(parts)
}

/// What a node last said of itself there.
#[derive(Deserialize)]
struct Mark {
    incarnation: Incarnation,
    at: Timestamp,
    sessions: usize,
}

impl Mark {
    /// None where live state has lost what the node wrote, or has not been given it yet by this run.
    async fn of(live: &Live, run: &Run) -> Result<Option<Self>, LiveError> {
        let mark: Option<Self> =
            live.mark(&run.node_id).await?.and_then(|mark| serde_json::from_str(&mark).ok());
        Ok(mark.filter(|mark| mark.incarnation == run.incarnation))
    }
}

/// Reads all nodes that live state knows of, and says which those are, with how many sessions each last said it has.
async fn from_live_state(
    live: &Live,
    peers: &[Peer],
    found: &mut Found,
) -> Result<HashMap<NodeId, usize>, LiveError> {
    let (mut parts, mut marked) = (HashMap::new(), HashMap::new());
    for peer in peers {
        let Some(mark) = Mark::of(live, &peer.run).await? else { continue };
        marked.insert(peer.run.node_id.clone(), mark.sessions);
        parts.insert(peer.run.clone(), part(peer, Source::LiveState, mark.at));
    }
    let (mut cursor, mut seen) = (0, HashSet::new());
    while !parts.is_empty() {
        let page = live.page(cursor).await?;
        for session in page.sessions.into_iter().filter_map(|(_, session)| session) {
            // What an earlier run left is there until its node has swept it away; those sessions have ended.
            let run = Run { node_id: session.node_id.clone(), incarnation: session.incarnation };
            let Some(part) = parts.get_mut(&run) else { continue };
            if found.sessions.len() >= MOST {
                part.whole = false;
            } else if seen.insert(session.session_id) {
                part.sessions += 1;
                let as_of = part.as_of;
                found.sessions.push(shown(session, as_of));
            }
        }
        cursor = page.next;
        if cursor == 0 {
            break;
        }
    }
    found.parts.extend(parts.into_values());
    Ok(marked)
}

async fn from_record(store: &PostgresStore, peer: &Peer, found: &mut Found) -> Result<(), StoreError> {
    let node = &peer.run.node_id;
    let mut part = part(peer, Source::Record, Timestamp::now());
    let heard: HashMap<SessionId, LastHeard> =
        store.heard(node).await?.into_iter().map(|heard| (heard.session_id, heard)).collect();
    let mut after = None;
    loop {
        let rows = store.held(node, after, ROWS).await?;
        let more = rows.len() == ROWS;
        after = rows.last().map(|row| row.start.session_id);
        for row in rows {
            if found.sessions.len() >= MOST {
                part.whole = false;
                break;
            }
            part.sessions += 1;
            let heard = heard.get(&row.start.session_id);
            found.sessions.push(recorded(row, heard, part.as_of));
        }
        if !more || !part.whole {
            break;
        }
    }
    found.parts.push(part);
    Ok(())
}

fn part(peer: &Peer, source: Source, as_of: Timestamp) -> Part {
    let lost = matches!(peer.state, PeerState::Lost { .. });
    Part { node_id: peer.run.node_id.clone(), source, as_of, sessions: 0, lost, whole: true }
}

pub(super) fn shown(session: LiveSession, as_of: Timestamp) -> SessionView {
    let vitals = session.vitals;
    SessionView {
        session_id: session.session_id,
        device_seq: session.device_seq,
        state: if vitals.state == LiveState::Suspect { State::Suspect } else { State::Live },
        source: Source::LiveState,
        key: 0,
        last_pong_at: vitals.last_pong_at,
        last_active_at: vitals.last_active_at,
        idle_ms: silent_ms(vitals.last_active_at, as_of),
        rtt_ms: vitals.rtt_ms,
        missed: vitals.missed,
        pings_sent: vitals.pings_sent,
        pongs_received: vitals.pongs_received,
        reconnect_count: session.reconnect_count,
        start: Arc::new(Connected {
            device_id: session.device_id,
            device_type: session.device_type,
            session_id: session.session_id,
            node_id: session.node_id,
            incarnation: session.incarnation,
            connected_at: session.connected_at,
            remote_addr: session.remote_addr,
            meta: Arc::unwrap_or_clone(session.meta),
            trace_id: session.trace_id,
        }),
    }
}

fn recorded(row: HeldSession, heard: Option<&LastHeard>, as_of: Timestamp) -> SessionView {
    let last_active_at =
        heard.map_or(row.last_active_at, |heard| heard.last_active_at.max(row.last_active_at));
    SessionView {
        session_id: row.start.session_id,
        device_seq: Some(row.device_seq),
        state: State::Live,
        source: Source::Record,
        key: 0,
        last_pong_at: heard.and_then(|heard| heard.last_pong_at).or(row.last_pong_at),
        last_active_at,
        idle_ms: silent_ms(last_active_at, as_of),
        rtt_ms: RttMs::default(),
        missed: 0,
        pings_sent: 0,
        pongs_received: 0,
        reconnect_count: row.reconnect_count,
        start: Arc::new(row.start),
    }
}

/// The clocks of two machines differ: never below zero.
fn silent_ms(heard: Timestamp, as_of: Timestamp) -> f64 {
    as_of.0.saturating_sub(heard.0).max(0) as f64 / 1000.0
}
