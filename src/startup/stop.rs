//! Taking a node down in order.

use std::time::Duration;

use actix_server::ServerHandle;
use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::feed::stream::Relay;
use crate::feed::tail;
use crate::projection::live::Projector;
use crate::registry::messages::{Settle, WhenDrained};
use crate::store::journal::Journal;
use crate::supervisor::messages::{CountSessions, Drain};

use super::{LAST_WORDS, Node, Running};

/// How long after its spread a drain may still take.
const DRAIN_GRACE: Duration = Duration::from_secs(10);
const DRAIN_CHECK: Duration = Duration::from_millis(20);

impl Node {
    /// Ends every session, sees it on the record, tells the subscribers, closes.
    pub(super) async fn stop(
        &self,
        running: &Running,
        server: &ServerHandle,
        relay: Option<Relay>,
        projector: Option<Projector>,
    ) -> anyhow::Result<()> {
        let spread = self.settings.drain_spread;
        // Over one that an operator began, too.
        let _ = running.root.send(Drain::Begin { spread, for_good: true }).await?;
        let all_ended = async {
            // No session, nobody on the way in, no socket still being closed, no fact on its way to the store.
            while running.root.send(CountSessions).await? > 0
                || running.admission.holds_any()
                || running.admission.backlog() > 0
            {
                tokio::time::sleep(DRAIN_CHECK).await;
            }
            running.registry.send(Settle).await?;
            anyhow::Ok(())
        };
        let patience = spread + self.settings.handshake_timeout + self.settings.close_timeout + DRAIN_GRACE;
        let ended = tokio::time::timeout(patience, all_ended).await;
        self.last_words(running).await;
        running.doors.feed.close();
        let finish = async {
            if let Some(relay) = relay {
                relay.finish(LAST_WORDS).await;
            }
            if let Some(projector) = projector {
                projector.finish(LAST_WORDS).await;
            }
        };
        let _ = tokio::join!(tokio::time::timeout(LAST_WORDS, server.stop(true)), finish);
        let run = running.runs.borrow().clone();
        let journaled = self.stores.journal.as_ref().map_or(0, Journal::len);
        if journaled > 0 {
            log::warn!(journaled; "the store was away: the next start from this data folder moves what is in its journal");
        }
        // With something left in the journal this run is not over for its peers.
        self.stores.close((matches!(ended, Ok(Ok(()))) && journaled == 0).then_some(&run)).await;
        ended.context("the store did not take every end in time: the next start writes what is missing")?
    }

    /// Moves what the journal holds, where the store is there, and reads what is told of it.
    async fn last_words(&self, running: &Running) {
        let Some(cluster) = self.stores.sql.cluster() else { return };
        let moved = async {
            // Answered at once where the store is away.
            let _ = running.registry.send(WhenDrained).await;
            tail::catch_up(&running.doors.feed, cluster).await
        };
        if !matches!(tokio::time::timeout(LAST_WORDS, moved).await, Ok(Ok(()))) {
            log::warn!("the last events are told by the other nodes, or by the next start");
        }
    }
}

/// SIGTERM and SIGINT.
pub(super) struct StopSignals {
    term: Signal,
    int: Signal,
}

impl StopSignals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
