//! What operators act with, and what follows what they did.

use std::sync::Arc;

use actix::Addr;
use anyhow::Context as _;

use crate::cluster::audit;
use crate::cluster::bans::{BanWatch, Parts};
use crate::cluster::flaps::Flaps;
use crate::cluster::revocations::{self, RevocationWatch};
use crate::http::acts::Acts;
use crate::store::audit::Book;
use crate::supervisor::admission::Admission;
use crate::supervisor::root::RootSupervisor;

use super::{Node, Running};

impl Node {
    pub(super) fn acts(&self, root: &Addr<RootSupervisor>, admission: &Arc<Admission>) -> Acts {
        Acts {
            book: Book::new(self.stores.sql.clone(), self.stores.journal.clone()),
            bans: admission.bans().clone(),
            revoked: admission.revoked().clone(),
            tokens: self.tokens.verifier.clone(),
            drain: root.clone().recipient(),
            drain_spread: self.settings.drain_spread,
            log_filter: self.log_filter.clone(),
        }
    }

    /// Knows the bans before anybody may come in: as the store tells them, or else as this node knew them last.
    ///
    /// # Errors
    /// This node's own store cannot be read.
    pub(super) async fn follow_operators(&self, running: &Running) -> anyhow::Result<()> {
        let acts = &running.doors.acts;
        let mut bans = BanWatch::new(Parts {
            store: self.stores.sql.clone(),
            journal: self.stores.journal.clone(),
            bans: acts.bans.clone(),
            devices: running.root.clone().recipient(),
            sessions: running.root.clone().recipient(),
            inspector: running.doors.inspector.clone(),
            metrics: running.metrics.clone(),
        });
        bans.remember().await;
        match bans.catch_up().await {
            Ok(()) => {}
            Err(error) if self.stores.journal.is_none() => return Err(error).context("the bans"),
            Err(error) => {
                log::warn!(error:% = error; "the bans cannot be read: those that this node knew last hold until they can");
            }
        }
        self.aside.spawn(bans.run());
        self.follow_revocations(running).await?;
        let flaps = Flaps {
            feed: running.doors.feed.clone(),
            store: self.stores.sql.clone(),
            bans: acts.bans.clone(),
            node: self.settings.node_id.clone(),
            ban: self.settings.flap_ban,
            metrics: running.metrics.clone(),
        };
        self.aside.spawn(flaps.follow());
        self.aside.spawn(audit::keep_moving(acts.book.clone()));
        let log_filter = acts.log_filter.clone();
        self.aside.spawn(async move { log_filter.keep().await });
        Ok(())
    }

    /// The same of revoked tokens.
    async fn follow_revocations(&self, running: &Running) -> anyhow::Result<()> {
        let mut revocations = RevocationWatch::new(revocations::Parts {
            store: self.stores.sql.clone(),
            journal: self.stores.journal.clone(),
            revoked: running.doors.acts.revoked.clone(),
            sessions: running.root.clone().recipient(),
            metrics: running.metrics.clone(),
        });
        revocations.remember().await;
        match revocations.catch_up().await {
            Ok(()) => {}
            Err(error) if self.stores.journal.is_none() => return Err(error).context("the revocations"),
            Err(error) => {
                log::warn!(error:% = error;
                    "the revocations cannot be read: those that this node knew last hold until they can");
            }
        }
        self.aside.spawn(revocations.run());
        Ok(())
    }
}
