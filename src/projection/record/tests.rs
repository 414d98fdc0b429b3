//! The reconciler over a real log and a worker whose sessions the test sets.

use std::sync::Arc;

use actix::{Actor, Context, Handler};

use super::*;
use crate::event::Connected;
use crate::feed::tests::Log;
use crate::projection::live::tests::{view, worker};
use crate::reason::Reason;

struct Ear;

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<Differences> for Ear {
    type Result = ();

    fn handle(&mut self, _: Differences, _: &mut Self::Context) {}
}

/// A session that began a minute ago.
async fn settled(log: &Log, device: &str) -> Arc<Connected> {
    let mut session = log.connected(device);
    let minute = Duration::from_secs(60);
    Arc::make_mut(&mut session).connected_at = Timestamp::now().saturating_sub(minute);
    log.commit(vec![log.start(&session)]).await;
    session
}

#[actix::test]
async fn a_difference_is_told_when_it_is_seen_twice() {
    let log = Log::new().await;
    let (sessions, inspector) = worker();
    let mut reconciler = Reconciler::new(Parts {
        store: log.store.clone(),
        inspector,
        run: watch::Sender::new(log.run()).subscribe(),
        metrics: Arc::default(),
        found: Ear.start().recipient(),
        update_interval: Duration::from_millis(100),
        settled: Box::new(|| true),
    });
    let (both, row_only, here_only, late) = (
        settled(&log, "both").await,
        settled(&log, "row").await,
        settled(&log, "here").await,
        settled(&log, "late").await,
    );
    log.commit(vec![log.end(&here_only, Reason::Replaced)]).await;
    let young = log.connected("young");
    log.commit(vec![log.start(&young)]).await;
    sessions.lock().unwrap().extend([view(&both), view(&here_only)]);
    let first = reconciler.round().await.unwrap();
    assert!(first.orphans.is_empty() && first.missing.is_empty());
    // Its end reaches the record in between.
    log.commit(vec![log.end(&late, Reason::ReadError)]).await;
    let second = reconciler.round().await.unwrap();
    let orphans: Vec<_> = second.orphans.iter().map(|row| row.session_id).collect();
    assert_eq!(orphans, [row_only.session_id]);
    assert_eq!(second.missing, [(here_only.device_id.clone(), here_only.session_id)]);
    log.commit(vec![log.end(&row_only, Reason::InternalError)]).await;
    sessions.lock().unwrap().retain(|view| view.session_id == both.session_id);
    // Until the snapshot that is shared for a moment is a new one.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let mut quiet = 0;
    while quiet < 2 {
        assert!(std::time::Instant::now() < deadline, "what was repaired differs still");
        let found = reconciler.round().await.unwrap();
        quiet = if found.orphans.is_empty() && found.missing.is_empty() { quiet + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let drift = &reconciler.parts.metrics.live.reconcile_drift;
    assert!(drift.with_label_values(&["sql_orphan"]).get() >= 1);
}
