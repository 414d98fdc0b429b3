//! Device tokens that are good no more: `POST /v1/tokens/revoke`, by `jti` or by device, and the list of them.
//!
//! A revocation is on the record, for all nodes. When it is answered it holds on the node that was asked, for who is here
//! too; on the others within two seconds. While the record cannot be written there is no new revocation: 503.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use utoipa::ToSchema;

use super::auth::{Admin, Reader};
use super::debug::{List, answer, cursor_of, seal};
use super::openapi::params::{Cursor, PageLimit};
use super::query::Params;
use super::{Doors, body, json};
use crate::ids::{DeviceId, RevocationId};
use crate::problem::Problem;
use crate::store::audit::Action;
use crate::store::revocations::{Revocation, Tokens};
use crate::time::Timestamp;
use crate::token;

/// How long an answer waits for the revocation to hold on this node: it will in any case.
const PATIENCE: Duration = Duration::from_secs(2);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3_650 * 86_400);
/// Characters of a reason.
const MOST_REASON: usize = 256;

/// Which tokens: one by its `jti`, or all of a device that were issued until now.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    jti: Option<String>,
    /// Whatever tokens of it were issued until now, or do not say when (`iat`, or else `nbf`).
    device_id: Option<String>,
    /// After how long the tokens have expired in any case, as 90s, 10m, 1h or 7d, from 1s to 3650d: so long it is
    /// remembered. Without one, for good.
    ttl: Option<String>,
    /// For operators: a line of at most 256 characters.
    reason: Option<String>,
}

/// Revoke tokens: sessions that began with them end, and they open none any more
#[utoipa::path(
    post, path = "/v1/tokens/revoke", tag = "devices",
    request_body = Which,
    responses((status = 200, body = Revocation), body::Unread),
)]
pub(super) async fn revoke(
    Admin(caller): Admin,
    request: HttpRequest,
    body: web::Payload,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    Params::parse(request.query_string(), &[])?;
    let Which { jti, device_id, ttl, reason } =
        body::object(body, r#"{"jti":"…"} or {"device_id":"…"}, with "ttl" and "reason""#).await?;
    let tokens = tokens(jti, device_id)?;
    let ttl = body::duration("ttl", ttl.as_deref(), SHORTEST, LONGEST)?;
    if let Some(text) = &reason
        && (text.chars().count() > MOST_REASON || text.contains(char::is_control))
    {
        let allowed = format!("at most {MOST_REASON} characters, in one line");
        return Err(Problem::bad_input("reason", text, &allowed));
    }
    let reason = reason.filter(|text| !text.is_empty());
    let at = Timestamp::now();
    let until = ttl.map(|ttl| at.saturating_add(ttl));
    let by = doors.signature(&caller, &request).actor;
    let revocation = Revocation { id: RevocationId::new(), tokens, reason, by, at, until };
    let detail = revocation.reason.clone();
    let entry = doors.entry((&caller, &request), Action::Revoke, &revocation.tokens, detail);
    let revoked = doors.store.revoke(revocation.clone(), entry.clone());
    let rev = doors.timed("revoke", revoked).await?;
    entry.tell();
    doors.acts.revoked.until_done(rev, PATIENCE).await;
    Ok(HttpResponse::Ok().content_type("application/json").body(json::text(&revocation)))
}

/// Whatever is wrong is not repeated: it may be a token that was put in the wrong place.
fn tokens(jti: Option<String>, device_id: Option<String>) -> Result<Tokens, Problem> {
    match (jti, device_id) {
        (Some(jti), None) if token::is_jti(&jti) && !is_token(&jti) => Ok(Tokens::Jti(jti)),
        (Some(_), None) => Err(Problem::bad_input("jti", "", token::JTI)),
        (None, Some(text)) => match text.parse::<DeviceId>() {
            Ok(device) if !is_token(&text) => Ok(Tokens::Device(device)),
            _ => Err(Problem::bad_input("device_id", "", "1-128 of [A-Za-z0-9._:@-]")),
        },
        _ => Err(Problem::bad_input("jti", "", "either jti or device_id, and not both")),
    }
}

/// Whether it looks like a whole token: that would be kept, listed and logged, and revoke nothing.
fn is_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.split('.').count() == 3
}

/// The revocations that hold, the newest first
#[utoipa::path(
    get, path = "/v1/tokens/revoked", tag = "devices",
    params(PageLimit, Cursor),
    responses((status = 200, body = List<Revocation>)),
)]
pub(super) async fn list(
    _: Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    const BEGINS: &str = "revoked~";
    let params = Params::parse(request.query_string(), &["limit", "cursor"])?;
    let (limit, now) = (params.limit()?, Timestamp::now());
    let before = cursor_of(&params, BEGINS, "a next_cursor of /v1/tokens/revoked", |text| text.parse().ok())?;
    let total = doors.timed("revoked_total", doors.store.revoked_total(now)).await?;
    let mut items = doors.timed("revoked_page", doors.store.revoked(before, now, limit + 1)).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|last| seal(&format!("{BEGINS}{}", last.id)));
    Ok(answer(json::text(&List { items, next_cursor, total, now })))
}
