//! Mends what the reconciler found: rows without a session, and sessions whose end is on the record already.

use std::sync::Arc;

use actix::{Actor, AsyncContext, Context, Handler, Recipient, WrapFuture};
use tokio::sync::watch;

use crate::ids::Run;
use crate::metrics::Metrics;
use crate::projection::record::Differences;
use crate::reason::{DetectedBy, Reason};
use crate::store::StoreError;
use crate::store::postgres::PostgresStore;
use crate::supervisor::messages::{EndSessions, ToEnd};

pub struct Repairs {
    pub store: PostgresStore,
    pub run: watch::Receiver<Run>,
    pub ends: Recipient<EndSessions>,
    pub metrics: Arc<Metrics>,
}

impl Actor for Repairs {
    type Context = Context<Self>;
}

impl Handler<Differences> for Repairs {
    type Result = ();

    fn handle(&mut self, found: Differences, ctx: &mut Self::Context) {
        let (store, run, ends) = (self.store.clone(), self.run.borrow().clone(), self.ends.clone());
        let metrics = self.metrics.clone();
        let work = async move {
            if let Err(error) = mend(&store, &metrics, &run, &ends, found).await {
                // They are met again.
                log::debug!(error:% = error; "differences are mended later");
            }
        };
        ctx.spawn(work.into_actor(self));
    }
}

async fn mend(
    store: &PostgresStore,
    metrics: &Metrics,
    run: &Run,
    ends: &Recipient<EndSessions>,
    found: Differences,
) -> Result<(), StoreError> {
    for row in found.orphans {
        log::error!(session_id:% = row.session_id, device_id:% = row.device_id;
            "a session was active on the record only: it is ended there");
        let end = store.end_session(run, row.session_id, Reason::InternalError, DetectedBy::Watchdog).await?;
        metrics.count_ends(end.as_slice());
    }
    for (device_id, session_id) in found.missing {
        // Its reason is on the record, unless it never came there.
        let reason =
            store.session(session_id).await?.and_then(|row| row.reason).unwrap_or(Reason::InternalError);
        log::warn!(session_id:% = session_id, device_id:% = device_id, reason:% = reason;
            "a session had ended on the record: it is closed");
        let what = ToEnd { device_id, session_id, reason, detected_by: DetectedBy::PeerNode };
        let _ = ends.send(EndSessions(vec![what])).await;
    }
    Ok(())
}
