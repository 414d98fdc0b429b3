//! Sessions in the words of live state, from where they are told: the workers' snapshots and the log.

use std::sync::{Arc, LazyLock};

use serde::Deserialize;

use crate::event::{Connected, Event, Meta, RttMs};
use crate::ids::{Incarnation, NodeId, Run};
use crate::store::live::{LiveSession, LiveState, Vitals};
use crate::supervisor::snapshot::{SessionView, State};

/// Who tells an event, and whose session it is about, as they begin in its JSON. Both come before all that a device may
/// have said of itself.
pub(super) const SOURCE: &str = r#""source":"/lastpong/"#;
pub(super) const NODE: &str = r#""node_id":""#;

/// Whether the first of these is this node.
pub(super) fn says(event: &Event, what: &str, node: &NodeId) -> bool {
    let rest = event.json.split_once(what).map(|(_, rest)| rest);
    rest.and_then(|rest| rest.strip_prefix(node.as_str())).is_some_and(|rest| rest.starts_with('"'))
}

/// The run that was declared lost.
pub(super) fn lost_run(event: &Event) -> Option<Incarnation> {
    #[derive(Deserialize)]
    struct Whole {
        data: Lost,
    }
    #[derive(Deserialize)]
    struct Lost {
        incarnation: Incarnation,
    }
    serde_json::from_str::<Whole>(&event.json).ok().map(|whole| whole.data.incarnation)
}

/// A session as its worker shows it.
pub(super) fn session(view: &SessionView, run: &Run) -> LiveSession {
    static NO_META: LazyLock<Arc<Meta>> = LazyLock::new(Arc::default);
    let start = &view.start;
    LiveSession {
        vitals: Vitals {
            state: if view.state == State::Suspect { LiveState::Suspect } else { LiveState::Live },
            last_pong_at: view.last_pong_at,
            last_active_at: view.last_active_at,
            rtt_ms: view.rtt_ms,
            missed: view.missed,
            pings_sent: view.pings_sent,
            pongs_received: view.pongs_received,
        },
        session_id: view.session_id,
        device_id: start.device_id.clone(),
        device_type: start.device_type.clone(),
        device_seq: view.device_seq,
        node_id: start.node_id.clone(),
        incarnation: run.incarnation,
        connected_at: start.connected_at,
        reconnect_count: view.reconnect_count,
        remote_addr: start.remote_addr,
        meta: if start.meta.is_empty() { NO_META.clone() } else { Arc::new(start.meta.clone()) },
        trace_id: start.trace_id.clone(),
    }
}

/// The session that began by this event.
pub(super) fn session_of(event: &Event) -> Option<LiveSession> {
    #[derive(Deserialize)]
    struct Told {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        device_seq: Option<i64>,
        #[serde(flatten)]
        connected: Connected,
    }
    let Told { data: Data { device_seq, connected: began } } = serde_json::from_str(&event.json).ok()?;
    Some(LiveSession {
        vitals: Vitals {
            state: LiveState::Live,
            last_pong_at: None,
            last_active_at: began.connected_at,
            rtt_ms: RttMs::default(),
            missed: 0,
            pings_sent: 0,
            pongs_received: 0,
        },
        session_id: began.session_id,
        device_id: began.device_id,
        device_type: began.device_type,
        device_seq,
        node_id: began.node_id,
        incarnation: began.incarnation,
        connected_at: began.connected_at,
        reconnect_count: 0,
        remote_addr: began.remote_addr,
        meta: Arc::new(began.meta),
        trace_id: began.trace_id,
    })
}
