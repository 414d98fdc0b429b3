//! The routes that are answered with a response: one file a resource.
//!
//! - Handlers ask the feed, the store's records and the supervisors' snapshots through [`Doors`]; none holds
//!   SQL or a session's state, and none waits for the traffic.
//! - Every refusal is a [`Problem`], also of an unknown route or method; a browser is shown it as a page.
//! - All but health, the front page, the login and (where the settings say so) the metrics ask who it is, see [`auth`].
//!
//! Requests with an `Upgrade` header never come here: they are taken over before, see `upgrade`. For them
//! this module offers [`events_ws::events_ws`] and [`auth::Auth::allow`].

pub mod acts;
mod audit;
pub mod auth;
mod bans;
mod body;
mod browser;
mod cookie;
pub mod debug;
mod devices;
pub mod events;
pub mod events_ws;
pub mod health;
mod home;
mod json;
mod login;
mod metrics;
mod node;
pub mod peer;
pub(crate) mod query;
mod record;
mod sessions;

use std::sync::Arc;

use actix::Recipient;
use actix_web::dev::Handler;
use actix_web::middleware::from_fn;
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
use acts::Acts;
use auth::Auth;
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
    pub auth: Auth,
    pub readiness: Readiness,
    pub metrics: Arc<Metrics>,
    /// Whether `/metrics` is shown without a token.
    pub metrics_public: bool,
    pub acts: Acts,
}

impl Doors {
    /// Asks the SQL store, and notes how long it took to answer.
    async fn timed<T>(&self, op: &str, asked: impl Future<Output = T>) -> T {
        self.metrics.timed("sql", op, asked).await
    }
}

/// Registers every route. The app must hold `web::Data<Doors>`.
pub fn routes(cfg: &mut web::ServiceConfig) {
    let all = web::scope("")
        .service(get("/", home::page))
        .service(get("/healthz", health::healthz))
        .service(get("/readyz", health::readyz))
        .service(get("/metrics", metrics::metrics))
        .service(get_or("/login", login::page, web::post().to(login::login), "GET, HEAD, POST"))
        .service(only("/logout", web::post().to(login::logout), "POST"))
        .service(only("/auth/login", web::post().to(login::token), "POST"))
        .service(get("/v1/events", events::events))
        .service(get("/debug/connections", debug::connections))
        .service(get("/debug/connections/{session_id}", debug::connection))
        .service(get("/debug/events", debug::events))
        .service(get("/debug/performance", debug::performance))
        .service(only("/v1/devices/query", web::post().to(devices::query), "POST"))
        .service(get("/v1/devices/{device_id}", devices::device))
        .service(only("/v1/sessions/{session_id}", web::delete().to(sessions::kick), "DELETE"))
        .service(bans::of_device())
        .service(bans::all())
        .service(bans::one())
        .service(node::drain())
        .service(node::log())
        .service(get("/v1/audit", audit::audit))
        .service(get("/ws", needs_upgrade))
        .service(get("/v1/events/ws", needs_upgrade))
        .default_service(web::to(unknown_route));
    cfg.service(all.wrap(from_fn(browser::pages)));
}

fn get<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    looked_at(path, handler).default_service(wrong_method("GET, HEAD"))
}

/// A resource that is looked at, and that takes one method more.
fn get_or<F, Args>(path: &str, handler: F, route: Route, methods: &'static str) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    looked_at(path, handler).route(route).default_service(wrong_method(methods))
}

fn looked_at<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let head = web::head().to(handler.clone());
    web::resource(path).route(web::get().to(handler)).route(head)
}

/// A resource with one method.
fn only(path: &str, route: Route, method: &'static str) -> Resource {
    web::resource(path).route(route).default_service(wrong_method(method))
}

fn wrong_method(allowed: &'static str) -> Route {
    web::to(move |request: HttpRequest| async move {
        Err::<HttpResponse, _>(Problem::wrong_method(request.method().as_str(), request.path(), allowed))
    })
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
