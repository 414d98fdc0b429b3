//! Sessions by their ids: `GET /v1/sessions?ids=` says of some what the record has of them, in one question for all.
//!
//! `DELETE /v1/sessions/{id}`: kick. The session ends as `kicked`, on whichever node it is.
//! Of a session of this node the supervisor is asked to end it, so that its record says all that is known. One of
//! another node is ended on the record; its node reads that there and closes the socket.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::{Admin, Reader};
use super::debug::answer;
use super::openapi::params::SessionIds;
use super::query::{Params, session_id};
use super::record::Record;
use super::{Doors, json, traced};
use crate::ids::{DeviceId, SessionId};
use crate::problem::{self, Problem};
use crate::reason::{DetectedBy, Reason};
use crate::store::Status;
use crate::store::audit::Action;
use crate::supervisor::messages::{EndSessions, ToEnd};
use crate::time::Timestamp;

/// Sessions in one question.
const MOST: usize = 100;

/// Those of the sessions asked for that are on the record, in no order.
#[derive(Serialize, ToSchema)]
pub(super) struct Found {
    items: Vec<Record>,
    now: Timestamp,
}

/// Up to 100 sessions as the record has them, live or ended
#[utoipa::path(
    get, path = "/v1/sessions", tag = "sessions",
    params(SessionIds),
    responses((status = 200, body = Found)),
)]
pub(super) async fn found(
    _: Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    let params = Params::parse(request.query_string(), &["ids"])?;
    let text = params.text("ids");
    let bad = || {
        let allowed = format!("1 to {MOST} ids of sessions, with commas");
        Problem::bad_input("ids", text.unwrap_or_default(), &allowed)
    };
    let parts = text.iter().flat_map(|text| text.split(',')).take(MOST + 1);
    let ids: Vec<SessionId> = parts.map(|id| id.parse().map_err(|_| bad())).collect::<Result<_, _>>()?;
    if ids.len() > MOST {
        return Err(bad());
    }
    let records = doors.timed("sessions", doors.store.sessions(&ids)).await?;
    let items = records.into_iter().map(Record::from).collect();
    Ok(answer(json::text(&Found { items, now: Timestamp::now() })))
}

/// Kick: end a session, on whichever node it is
#[utoipa::path(
    delete, path = "/v1/sessions/{session_id}", tag = "sessions",
    params(("session_id" = SessionId, Path)),
    responses(
        (status = 204, description = "It has ended, or is about to, as `kicked`."),
        (status = 404, description = "It is no live session.", body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn kick(
    Admin(caller): Admin,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    Params::parse(request.query_string(), &[])?;
    let id = session_id(&request)?;
    traced::touch(&request, id);
    let here = doors.inspector.find(id).await;
    if let Some(view) = &here {
        let (reason, detected_by) = (Reason::Kicked, DetectedBy::Operator);
        let what = ToEnd { device_id: view.start.device_id.clone(), session_id: id, reason, detected_by };
        doors.note(doors.entry((&caller, &request), Action::Kick, id, Some(told(&what.device_id)))).await?;
        match doors.ends.send(EndSessions(vec![what])).await {
            // It ended a moment ago, and that was noted.
            Ok(0) => {}
            Ok(_) => return Ok(HttpResponse::NoContent().finish()),
            Err(_) => return Err(Problem::unavailable("this node is shutting down", 1)),
        }
    }
    let over = || {
        Problem::new(StatusCode::NOT_FOUND, format!("there is no live session {id}")).about(
            "session_id",
            &id.to_string(),
            "the id of a live session",
        )
    };
    let record = doors
        .timed("session", doors.store.session(id))
        .await?
        .filter(|record| record.status == Status::Active);
    let (Some(record), Some(cluster)) = (record, doors.store.cluster()) else { return Err(over()) };
    if here.is_none() {
        doors.note(doors.entry((&caller, &request), Action::Kick, id, Some(told(&record.device_id)))).await?;
    }
    let run = doors.run.borrow().clone();
    match cluster.end_session(&run, id, Reason::Kicked, DetectedBy::Operator).await? {
        Some(_) => Ok(HttpResponse::NoContent().finish()),
        None => Err(over()),
    }
}

/// Whose session it was, in the words of the audit.
fn told(device: &DeviceId) -> String {
    format!("of device {device}")
}
