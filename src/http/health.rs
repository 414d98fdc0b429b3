//! `/healthz`: the process is alive. `/readyz`: it would admit a device, with a verdict on each thing that
//! needs.
//!
//! Both are open to everyone, so they tell verdicts and no particulars. A probe of the store has a deadline
//! and is remembered for a second, so that probing cannot become load, nor a store that hangs a pile of
//! waiting probes.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::Doors;
use crate::store::{Store, StoreError};
use crate::supervisor::admission::{Admission, Refusal};

const PROBE_DEADLINE: Duration = Duration::from_secs(1);
const FRESH: Duration = Duration::from_secs(1);

/// Whether this node would admit a device.
pub struct Readiness {
    store: Store,
    admission: Arc<Admission>,
    probe: Mutex<Probe>,
}

#[derive(Default)]
struct Probe {
    last: Option<(Instant, Verdict)>,
    /// Kept until it is answered, also when nobody waits any more, so that there is never more than one.
    under_way: Option<JoinHandle<Result<(), StoreError>>>,
}

#[derive(Debug, Clone, Serialize)]
struct Verdict {
    name: &'static str,
    ok: bool,
    detail: &'static str,
}

#[derive(Serialize)]
struct Report {
    status: &'static str,
    dependencies: [Verdict; 2],
}

impl Readiness {
    pub fn new(store: Store, admission: Arc<Admission>) -> Self {
        Self { store, admission, probe: Mutex::default() }
    }

    async fn store_verdict(&self) -> Verdict {
        // Held while probing: whoever asks meanwhile gets the same answer.
        let mut probe = self.probe.lock().await;
        if let Some((at, verdict)) = &probe.last
            && at.elapsed() < FRESH
        {
            return verdict.clone();
        }
        let store = self.store.clone();
        let ask = || actix_web::rt::spawn(async move { store.ping().await });
        let answered = timeout(PROBE_DEADLINE, probe.under_way.get_or_insert_with(ask)).await;
        let (ok, detail) = match &answered {
            Ok(Ok(Ok(()))) => (true, "answers"),
            Ok(Ok(Err(error))) => {
                log::warn!(error:% = error; "the store refused a probe");
                (false, "refused a probe")
            }
            Ok(Err(_)) => (false, "the probe failed"),
            Err(_) => (false, "did not answer in 1 s"),
        };
        if answered.is_ok() {
            probe.under_way = None;
        }
        let verdict = Verdict { name: "store", ok, detail };
        probe.last = Some((Instant::now(), verdict.clone()));
        verdict
    }

    fn admission_verdict(&self) -> Verdict {
        let detail = match self.admission.open() {
            Ok(()) => "open",
            Err(Refusal::Draining) => "draining",
            Err(_) => "the store is away or behind",
        };
        Verdict { name: "admission", ok: detail == "open", detail }
    }
}

pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(r#"{"status":"ok"}"#)
}

pub(super) async fn readyz(doors: web::Data<Doors>) -> HttpResponse {
    let dependencies = [doors.readiness.store_verdict().await, doors.readiness.admission_verdict()];
    let ready = dependencies.iter().all(|d| d.ok);
    let mut response = if ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    let status = if ready { "ready" } else { "unavailable" };
    response.insert_header((CACHE_CONTROL, "no-store")).json(Report { status, dependencies })
}
