//! This node itself: `/v1/node/drain`, which empties it and can be undone, and `/v1/node/log`, what it logs.
//!
//! Both are about the node that is asked alone: behind a balancer that is whichever it chose. Who means a certain one
//! names it as `node`, and is refused with 409 where another was reached. A drain outlives no restart, nor does a filter.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Response};
use utoipa::{IntoResponses, ToSchema};

use super::auth::{Admin, Reader};
use super::debug::answer;
use super::openapi::params::ThisNode;
use super::openapi::refusals;
use super::query::Params;
use super::{Doors, body, json};
use crate::config::units::show_duration;
use crate::ids::NodeId;
use crate::log_filter::{self, BadFilter};
use crate::problem::{self, Problem};
use crate::store::audit::Action;
use crate::supervisor::messages::{Drain, DrainView, Stopping};
use crate::time::Timestamp;

const LONGEST_SPREAD: Duration = Duration::from_secs(3_600);
const SHORTEST: Duration = Duration::from_secs(1);
/// A filter for longer than this is for good.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedDrain {
    /// Over how long, as 30s or 5m, up to 1h; without one, as LASTPONG_DRAIN_SPREAD says.
    spread: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Drained<'a> {
    node: &'a NodeId,
    /// `serving` or `draining`.
    state: &'static str,
    live: usize,
    /// Of the sessions that there were when it began.
    ended: usize,
    of: usize,
    /// When all of them will have been told to end.
    until: Option<Timestamp>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedLog {
    /// What RUST_LOG may be.
    filter: String,
    /// As 30s or 10m, from 1s to 30d; without one, until it is changed again.
    #[serde(rename = "for")]
    lasts: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Logged<'a> {
    node: &'a NodeId,
    filter: String,
    /// That of the start, which it falls back to.
    usual: String,
    until: Option<Timestamp>,
}

/// Whether this node drains, and how far it is
#[utoipa::path(
    get, path = "/v1/node/drain", tag = "node",
    params(ThisNode),
    responses((status = 200, body = Drained), Another),
)]
pub(super) async fn look(
    _: Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    is_meant(&doors, &request)?;
    Ok(answer(shown(&doors, ask(&doors, Drain::Look).await?)))
}

/// Drain this node: it refuses newcomers, and ends its sessions one by one
#[utoipa::path(
    post, path = "/v1/node/drain", tag = "node",
    params(ThisNode),
    request_body = Option<AskedDrain>,
    responses(
        (status = 202, body = Drained),
        (status = 409, description = "It drains because it stops, or is not the node that is named.", body = problem::Body, content_type = "application/problem+json"),
        body::Unread,
    ),
)]
pub(super) async fn begin(
    Admin(caller): Admin,
    request: HttpRequest,
    body: web::Payload,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    is_meant(&doors, &request)?;
    let AskedDrain { spread } = body::object(body, r#"{"spread":"30s"}"#).await?;
    let spread = body::duration("spread", spread.as_deref(), Duration::ZERO, LONGEST_SPREAD)?;
    let spread = spread.unwrap_or(doors.acts.drain_spread);
    if ask(&doors, Drain::Look).await?.for_good() {
        return Err(stopping());
    }
    let detail = Some(format!("over {}", show_duration(spread)));
    doors.note(doors.entry((&caller, &request), Action::Drain, &doors.node_id, detail)).await?;
    let view = ask(&doors, Drain::Begin { spread, for_good: false }).await?;
    Ok(HttpResponse::Accepted().content_type("application/json").body(shown(&doors, view)))
}

/// Undo a drain: the node admits again
#[utoipa::path(
    delete, path = "/v1/node/drain", tag = "node",
    params(ThisNode),
    responses(
        (status = 200, body = Drained),
        (status = 409, description = "It drains because it stops, or is not the node that is named.", body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn undo(
    Admin(caller): Admin,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    is_meant(&doors, &request)?;
    let view = ask(&doors, Drain::Look).await?;
    if view.drain.is_none() {
        return Ok(answer(shown(&doors, view)));
    }
    if view.for_good() {
        return Err(stopping());
    }
    doors.note(doors.entry((&caller, &request), Action::Undrain, &doors.node_id, None)).await?;
    Ok(answer(shown(&doors, ask(&doors, Drain::Undo).await?)))
}

/// # Errors
/// The 409 where another node is.
fn is_meant(doors: &Doors, request: &HttpRequest) -> Result<(), Problem> {
    let params = Params::parse(request.query_string(), &["node"])?;
    let Some(meant) =
        params.parsed::<NodeId>("node", "1-128 of [A-Za-z0-9._:@-]")?.filter(|node| *node != doors.node_id)
    else {
        return Ok(());
    };
    let here = doors.node_id.as_str();
    let detail = format!("this is node {here}, not {meant}: ask that one by its own address");
    Err(Problem::new(StatusCode::CONFLICT, detail).about("node", meant.as_str(), here))
}

/// How it is told that another node was reached.
struct Another;

impl IntoResponses for Another {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals([409])
    }
}

async fn ask(doors: &Doors, what: Drain) -> Result<DrainView, Problem> {
    match doors.acts.drain.send(what).await {
        Ok(Ok(view)) => Ok(view),
        Ok(Err(Stopping)) => Err(stopping()),
        Err(_) => Err(Problem::unavailable("this node is shutting down", 1)),
    }
}

fn stopping() -> Problem {
    Problem::new(StatusCode::CONFLICT, Stopping.to_string())
}

fn shown(doors: &Doors, DrainView { live, drain }: DrainView) -> String {
    // Who was let in just before the doors closed is one more than there were.
    let of = drain.map_or(0, |drain| drain.of.max(live));
    let (state, until) = match drain {
        Some(drain) => ("draining", Some(drain.until)),
        None => ("serving", None),
    };
    json::text(&Drained { node: &doors.node_id, state, live, ended: of.saturating_sub(live), of, until })
}

/// What this node logs
#[utoipa::path(
    get, path = "/v1/node/log", tag = "node",
    params(ThisNode),
    responses((status = 200, body = Logged), Another),
)]
pub(super) async fn logged(
    _: Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    is_meant(&doors, &request)?;
    Ok(answer(log_view(&doors)))
}

/// Log more or less on this node, for a while or until its restart
#[utoipa::path(
    put, path = "/v1/node/log", tag = "node",
    params(ThisNode),
    request_body = AskedLog,
    responses((status = 200, body = Logged), Another, body::Unread),
)]
pub(super) async fn set_log(
    Admin(caller): Admin,
    request: HttpRequest,
    body: web::Payload,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    is_meant(&doors, &request)?;
    let form = r#"{"filter":"info,lastpong::session=debug","for":"10m"}"#;
    let AskedLog { filter, lasts } = body::object(body, form).await?;
    let lasts = body::duration("for", lasts.as_deref(), SHORTEST, LONGEST)?;
    let bad = |_: BadFilter| Problem::bad_input("filter", &filter, log_filter::ALLOWED);
    log_filter::check(&filter).map_err(bad)?;
    let detail =
        lasts.map_or_else(|| filter.clone(), |lasts| format!("{filter} for {}", show_duration(lasts)));
    let entry = doors.entry((&caller, &request), Action::LogFilter, &doors.node_id, Some(detail));
    doors.note(entry).await?;
    doors.acts.log_filter.set(&filter, lasts).map_err(bad)?;
    Ok(answer(log_view(&doors)))
}

fn log_view(doors: &Doors) -> String {
    let log_filter::View { filter, usual, until } = doors.acts.log_filter.view();
    json::text(&Logged { node: &doors.node_id, filter, usual, until })
}
