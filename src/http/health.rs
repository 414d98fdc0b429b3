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
use tokio::time::{Instant, timeout};

use super::Doors;
use crate::store::Store;
use crate::supervisor::admission::{Admission, Refusal};

const PROBE_DEADLINE: Duration = Duration::from_secs(1);
const FRESH: Duration = Duration::from_secs(1);

/// Whether this node would admit a device.
pub struct Readiness {
    store: Store,
    admission: Arc<Admission>,
    last_probe: Mutex<Option<(Instant, Verdict)>>,
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
        Self { store, admission, last_probe: Mutex::new(None) }
    }

    async fn store_verdict(&self) -> Verdict {
        // Held while probing: whoever asks meanwhile gets the same answer.
        let mut last = self.last_probe.lock().await;
        if let Some((at, verdict)) = &*last
            && at.elapsed() < FRESH
        {
            return verdict.clone();
        }
        let (ok, detail) = match timeout(PROBE_DEADLINE, self.store.ping()).await {
            Ok(Ok(())) => (true, "answers"),
            Ok(Err(error)) => {
                log::warn!(error:% = error; "the store refused a probe");
                (false, "refused a probe")
            }
            Err(_) => (false, "did not answer in 1 s"),
        };
        let verdict = Verdict { name: "store", ok, detail };
        *last = Some((Instant::now(), verdict.clone()));
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
