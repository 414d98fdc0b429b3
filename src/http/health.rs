//! `/healthz`: the process is alive. `/readyz`: it would admit a device, with a verdict on each thing that it
//! depends on, needed or not.
//!
//! Both are open to everyone, so they tell verdicts and no particulars. A probe has a deadline and is remembered for a
//! second, so that probing cannot become load, nor a store that hangs a pile of waiting probes.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};
use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;

use super::Doors;
use crate::supervisor::admission::{Admission, Refusal};

const PROBE_DEADLINE: Duration = Duration::from_secs(1);
const FRESH: Duration = Duration::from_secs(1);

/// Whether this node would admit a device.
pub struct Readiness {
    admission: Arc<Admission>,
    probes: Vec<Probe>,
}

/// Something that the node depends on.
pub struct Probe {
    name: &'static str,
    /// Without it nobody is admitted.
    needed: bool,
    ask: Box<dyn Fn() -> Answer + Send + Sync>,
    asked: Mutex<Asked>,
}

/// Nothing where it would do its work now, or why not.
pub type Answer = BoxFuture<'static, Result<(), String>>;

#[derive(Default)]
struct Asked {
    last: Option<(Instant, Verdict)>,
    /// Kept until it is answered, also when nobody waits any more, so that there is never more than one.
    under_way: Option<JoinHandle<Result<(), String>>>,
}

/// Of one dependency.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct Verdict {
    name: &'static str,
    ok: bool,
    needed: bool,
    detail: &'static str,
}

/// Whether a device would be admitted here now.
#[derive(Serialize, ToSchema)]
pub(super) struct Report {
    /// `ready`; `degraded`: it admits, and something it depends on is away; `unavailable`.
    status: &'static str,
    dependencies: Vec<Verdict>,
}

impl Readiness {
    pub fn new(admission: Arc<Admission>, probes: Vec<Probe>) -> Self {
        Self { admission, probes }
    }

    async fn report(&self) -> Report {
        let mut dependencies = join_all(self.probes.iter().map(Probe::verdict)).await;
        dependencies.push(self.admission_verdict());
        let status = match dependencies.iter().find(|d| !d.ok && d.needed) {
            Some(_) => "unavailable",
            None if dependencies.iter().all(|d| d.ok) => "ready",
            None => "degraded",
        };
        Report { status, dependencies }
    }

    fn admission_verdict(&self) -> Verdict {
        let detail = match self.admission.open() {
            Ok(()) => "open",
            Err(Refusal::Draining) => "draining",
            Err(_) => "the store is away or behind",
        };
        Verdict { name: "admission", ok: detail == "open", needed: true, detail }
    }
}

impl Probe {
    pub fn new(name: &'static str, needed: bool, ask: impl Fn() -> Answer + Send + Sync + 'static) -> Self {
        Self { name, needed, ask: Box::new(ask), asked: Mutex::default() }
    }

    async fn verdict(&self) -> Verdict {
        // Held while probing: whoever asks meanwhile gets the same answer.
        let mut asked = self.asked.lock().await;
        if let Some((at, verdict)) = &asked.last
            && at.elapsed() < FRESH
        {
            return verdict.clone();
        }
        let ask = || actix_web::rt::spawn((self.ask)());
        let answered = timeout(PROBE_DEADLINE, asked.under_way.get_or_insert_with(ask)).await;
        let (ok, detail) = match &answered {
            Ok(Ok(Ok(()))) => (true, "answers"),
            Ok(Ok(Err(why))) => {
                log::warn!(dependency = self.name, why = why.as_str(); "a probe was refused");
                (false, "refused a probe")
            }
            Ok(Err(_)) => (false, "the probe failed"),
            Err(_) => (false, "did not answer in 1 s"),
        };
        if answered.is_ok() {
            asked.under_way = None;
        }
        let verdict = Verdict { name: self.name, ok, needed: self.needed, detail };
        asked.last = Some((Instant::now(), verdict.clone()));
        verdict
    }
}

/// Alive.
#[derive(Serialize, ToSchema)]
pub(super) struct Alive {
    /// `ok`.
    status: &'static str,
}

/// Whether the process is alive
#[utoipa::path(get, path = "/healthz", tag = "probes", security(()), responses((status = 200, body = Alive)))]
pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(Alive { status: "ok" })
}

/// Whether this node would admit a device, and what it depends on
#[utoipa::path(
    get, path = "/readyz", tag = "probes", security(()),
    responses(
        (status = 200, description = "It would; `degraded` says that something it can do without is away.", body = Report),
        (status = 503, description = "It would not.", body = Report),
    ),
)]
pub(super) async fn readyz(doors: web::Data<Doors>) -> HttpResponse {
    let report = doors.readiness.report().await;
    let mut response = match report.status {
        "unavailable" => HttpResponse::ServiceUnavailable(),
        _ => HttpResponse::Ok(),
    };
    response.insert_header((CACHE_CONTROL, "no-store")).json(report)
}
