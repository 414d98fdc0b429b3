//! The routes that are answered with a response: one file a resource.
//!
//! - Handlers ask the feed, the store's records and the supervisors' snapshots through [`Doors`]; none holds
//!   SQL or a session's state, and none waits for the traffic.
//! - Every refusal is a [`Problem`], also of an unknown route or method; a browser is shown it as a page.
//! - All but health, what this is, the login, what pages are made of and (where the settings say so) the metrics ask who
//!   it is, see [`auth`].
//! - What is looked at (`/debug/…`) has one address for programs and for people: a browser gets it as a page, see `pages`.
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
pub mod dashboard;
pub mod debug;
mod devices;
pub mod events;
pub mod events_ws;
pub mod health;
mod json;
mod login;
mod metrics;
mod node;
mod openapi;
mod pages;
pub(crate) mod query;
mod record;
mod sessions;
mod tokens;
mod traced;

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::Recipient;
use actix_web::dev::Handler;
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::{FromRequest, HttpRequest, HttpResponse, Resource, Responder, Route, web};
use tokio::sync::watch;
use utoipa::IntoResponses;
use utoipa::openapi::{RefOr, Response};

use crate::cluster::peers::Peers;
use crate::feed::Feed;
use crate::feed::seats::NoSeat;
use crate::ids::{DeviceType, NodeId, Run};
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::store::{Store, StoreError};
use crate::supervisor::Inspector;
use crate::supervisor::messages::EndSessions;
use acts::Acts;
use auth::Auth;
use dashboard::Pulse;
use health::Readiness;
use openapi::params::{After, EventFilters};
use openapi::refusals;

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
    /// The sessions of the other nodes.
    pub peers: Peers,
    pub pulse: Pulse,
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
        .service(get("/", pages::home))
        .service(get("/assets/{name}", pages::asset))
        .service(get("/healthz", health::healthz))
        .service(get("/readyz", health::readyz))
        .service(get("/metrics", metrics::metrics))
        .service(get("/openapi.json", openapi::document))
        .service(get_or("/login", login::page, [web::post().to(login::login)], "GET, HEAD, POST"))
        .service(only("/logout", [web::post().to(login::logout)], "POST"))
        .service(only("/auth/login", [web::post().to(login::token)], "POST"))
        .service(get("/v1/events", events::events))
        .service(get("/debug/connections", debug::connections))
        .service(get("/debug/connections/{session_id}", debug::connection))
        .service(get("/debug/events", debug::events))
        .service(get("/debug/performance", debug::performance))
        .service(get("/debug/live", dashboard::live))
        .service(get("/debug/bans", pages::bans))
        .service(get("/debug/audit", pages::audit))
        .service(only("/v1/devices/query", [web::post().to(devices::query)], "POST"))
        .service(get("/v1/devices/{device_id}", devices::device))
        .service(get("/v1/devices/{device_id}/sessions", debug::sessions_of))
        .service(get("/v1/sessions", sessions::found))
        .service(only("/v1/sessions/{session_id}", [web::delete().to(sessions::kick)], "DELETE"))
        .service(only(
            "/v1/devices/{device_id}/ban",
            [web::put().to(bans::ban_device), web::delete().to(bans::lift_device)],
            "PUT, DELETE",
        ))
        .service(get_or("/v1/bans", bans::list, [web::post().to(bans::ban_any)], "GET, HEAD, POST"))
        .service(only("/v1/bans/{id}", [web::delete().to(bans::lift)], "DELETE"))
        .service(only("/v1/tokens", [web::post().to(tokens::mint)], "POST"))
        .service(only("/v1/tokens/revoke", [web::post().to(tokens::revoke)], "POST"))
        .service(get("/v1/tokens/revoked", tokens::list))
        .service(get_or(
            "/v1/node/drain",
            node::look,
            [web::post().to(node::begin), web::delete().to(node::undo)],
            "GET, HEAD, POST, DELETE",
        ))
        .service(get_or("/v1/node/log", node::logged, [web::put().to(node::set_log)], "GET, HEAD, PUT"))
        .service(get("/v1/audit", audit::audit))
        .service(get("/ws", devices_upgrade))
        .service(get("/v1/events/ws", subscribers_upgrade))
        .default_service(web::to(unknown_route));
    // What a device says of itself is never taken for a page or a script, whatever it looks like.
    let as_told = DefaultHeaders::new().add(("X-Content-Type-Options", "nosniff"));
    cfg.service(all.wrap(from_fn(browser::pages)).wrap(as_told).wrap(from_fn(traced::traced)));
}

fn get<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    looked_at(path, handler).default_service(wrong_method("GET, HEAD"))
}

/// A resource that is looked at, and that takes other methods as well.
fn get_or<F, Args, const N: usize>(
    path: &str,
    handler: F,
    routes: [Route; N],
    methods: &'static str,
) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let resource = routes.into_iter().fold(looked_at(path, handler), Resource::route);
    resource.default_service(wrong_method(methods))
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

/// A resource that is not looked at.
fn only<const N: usize>(path: &str, routes: [Route; N], methods: &'static str) -> Resource {
    let resource = routes.into_iter().fold(web::resource(path), Resource::route);
    resource.default_service(wrong_method(methods))
}

fn wrong_method(allowed: &'static str) -> Route {
    web::to(move |request: HttpRequest| async move {
        Err::<HttpResponse, _>(Problem::wrong_method(request.method().as_str(), request.path(), allowed))
    })
}

async fn unknown_route(request: HttpRequest) -> Result<HttpResponse, Problem> {
    Err(Problem::unknown_route(request.path()))
}

/// A device's session, by WebSocket
///
/// The token is a device's: `Authorization: Bearer`, or offered as the subprotocol `token.TOKEN` beside `lastpong.v1`.
/// Beside these parameters there may be sixteen of the form `meta.KEY=VALUE`. See docs/events.md.
#[utoipa::path(
    get, path = "/ws", tag = "devices", security(("device" = [])),
    params(
        ("device_type" = Option<DeviceType>, Query),
        ("resume" = Option<String>, Query, description = "A `resume_token`; without effect in this version."),
    ),
    responses((status = 101, description = "The session begins; the first frame is its welcome."), Handshake),
)]
async fn devices_upgrade(request: HttpRequest) -> Result<HttpResponse, Problem> {
    needs_upgrade(request)
}

/// How a handshake is refused.
struct Handshake;

impl IntoResponses for Handshake {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals([400, 401, 403, 409, 429, 503])
    }
}

/// The stream of events by WebSocket, one CloudEvent a text frame
#[utoipa::path(
    get, path = "/v1/events/ws", tag = "events",
    params(After, EventFilters),
    responses((status = 101, description = "The stream begins.")),
)]
async fn subscribers_upgrade(request: HttpRequest) -> Result<HttpResponse, Problem> {
    needs_upgrade(request)
}

/// What comes here has no `Upgrade` header.
fn needs_upgrade(request: HttpRequest) -> Result<HttpResponse, Problem> {
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
