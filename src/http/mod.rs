//! The routes that are answered with a response: one file a resource.
//!
//! - Handlers ask the feed, the store's records and the supervisors' snapshots through [`Doors`]; none holds
//!   SQL or a session's state, and none waits for the traffic.
//! - Every refusal is a [`Problem`], also of an unknown route or method.
//! - All but health, the front page and (where the settings say so) the metrics ask for the admin token.
//!
//! Requests with an `Upgrade` header never come here: they are taken over before, see `upgrade`. For them
//! this module offers [`events_ws::events_ws`] and [`Doors::authorize`].

pub mod auth;
pub mod debug;
mod devices;
pub mod events;
pub mod events_ws;
pub mod health;
mod home;
mod json;
mod metrics;
pub(crate) mod query;
mod record;
mod sessions;

use std::sync::Arc;

use actix::Recipient;
use actix_web::dev::Handler;
use actix_web::{FromRequest, HttpRequest, HttpResponse, Resource, Responder, Route, web};
use tokio::sync::watch;

use crate::feed::Feed;
use crate::feed::seats::NoSeat;
use crate::ids::{NodeId, Run};
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::store::{Store, StoreError};
use crate::supervisor::Inspector;
use crate::supervisor::messages::EndSessions;
use auth::AdminAuth;
use health::Readiness;

/// What the handlers reach. One for the whole node, in `web::Data`.
pub struct Doors {
    pub node_id: NodeId,
    /// The run in whose name this node writes.
    pub run: watch::Receiver<Run>,
    /// Where it is said which sessions are to end.
    pub ends: Recipient<EndSessions>,
    pub feed: Feed,
    pub store: Store,
    pub inspector: Inspector,
    pub auth: AdminAuth,
    pub readiness: Readiness,
    pub metrics: Arc<Metrics>,
    /// Whether `/metrics` is shown without a token.
    pub metrics_public: bool,
}

impl Doors {
    /// Whether this `Authorization` header opens what needs the admin token.
    ///
    /// # Errors
    /// The 401 to answer with.
    pub fn authorize(&self, authorization: Option<&str>) -> Result<(), Problem> {
        self.auth.check(authorization)
    }

    /// Asks the SQL store, and notes how long it took to answer.
    async fn timed<T>(&self, op: &str, asked: impl Future<Output = T>) -> T {
        self.metrics.timed("sql", op, asked).await
    }
}

/// Registers every route. The app must hold `web::Data<Doors>`.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(get("/", home::page))
        .service(get("/healthz", health::healthz))
        .service(get("/readyz", health::readyz))
        .service(get("/metrics", metrics::metrics))
        .service(get("/v1/events", events::events))
        .service(get("/debug/connections", debug::connections))
        .service(get("/debug/connections/{session_id}", debug::connection))
        .service(get("/debug/events", debug::events))
        .service(get("/debug/performance", debug::performance))
        .service(only("/v1/devices/query", web::post().to(devices::query), "POST"))
        .service(get("/v1/devices/{device_id}", devices::device))
        .service(only("/v1/sessions/{session_id}", web::delete().to(sessions::kick), "DELETE"))
        .service(get("/ws", needs_upgrade))
        .service(get("/v1/events/ws", needs_upgrade))
        .default_service(web::to(unknown_route));
}

fn get<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let head = web::head().to(handler.clone());
    web::resource(path).route(web::get().to(handler)).route(head).default_service(web::to(only_read))
}

/// A resource with one method.
fn only(path: &str, route: Route, method: &'static str) -> Resource {
    let other = move |request: HttpRequest| async move {
        Err::<HttpResponse, _>(Problem::wrong_method(request.method().as_str(), request.path(), method))
    };
    web::resource(path).route(route).default_service(web::to(other))
}

async fn only_read(request: HttpRequest) -> Result<HttpResponse, Problem> {
    Err(Problem::wrong_method(request.method().as_str(), request.path(), "GET, HEAD"))
}

async fn unknown_route(request: HttpRequest) -> Result<HttpResponse, Problem> {
    Err(Problem::unknown_route(request.path()))
}

async fn needs_upgrade(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let path = request.path();
    Err(Problem::bad_request(format!("{path} speaks WebSocket: the request needs `Upgrade: websocket`"))
        .about("Upgrade", "", "websocket"))
}

/// Seconds after which a refusal that passes by itself is worth another try.
const RETRY_SOON: u64 = 1;
const RETRY_WHEN_FULL: u64 = 5;

/// The reader is told no more than that it may try again: what is wrong with the store is for the log.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        log::warn!(error:% = error; "a request was refused: the store could not be read");
        Self::unavailable("the store cannot be read now", RETRY_SOON)
    }
}

impl From<NoSeat> for Problem {
    fn from(full: NoSeat) -> Self {
        Self::unavailable(full.to_string(), RETRY_WHEN_FULL)
    }
}

#[cfg(test)]
mod tests;
