//! Keeps what is told of this node's sessions elsewhere true to the sessions themselves.
//!
//! - [`live::Projector`] writes them to live state, and writes them anew where that lost them.
//! - [`record::Reconciler`] compares them with the record, and tells what differs.
//!
//! The sessions are right, and what differs from them is drift: counted by kind in `lastpong_reconcile_drift`, and
//! repaired. Nothing here ends a session by what a store lacks (promise P4), and each round of work is bounded.
//!
//! Left out: live state of other nodes, which is theirs to keep; what a lost one left is taken away by who declared it so.

pub mod live;
pub mod record;
mod told;

use std::sync::Arc;

use crate::supervisor::snapshot::{SessionView, State, WorkerSnapshot};

/// The sessions that are welcomed, or about to be.
fn recorded(snapshots: &[Arc<WorkerSnapshot>]) -> impl Iterator<Item = &SessionView> {
    snapshots.iter().flat_map(|s| &s.sessions).filter(|view| view.state != State::Starting)
}
