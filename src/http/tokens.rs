//! Device tokens: `POST /v1/tokens` mints one, `POST /v1/tokens/revoke` makes some good no more, by `jti` or by device, and
//! there is a list of those.
//!
//! A token that was minted is told once, to who asked for it; the audit has its `jti`, by which it can be revoked.
//! A revocation is on the record, for all nodes. When it is answered it holds on the node that was asked, for who is here
//! too; on the others within two seconds. While the record cannot be written there is no new revocation: 503.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Admin, Reader};
use super::debug::{List, answer, cursor_of, seal};
use super::openapi::params::{Cursor, PageLimit};
use super::query::Params;
use super::{Doors, body, json};
use crate::ids::{DeviceId, DeviceType, RevocationId};
use crate::problem::{self, Problem};
use crate::revoked::Revoked;
use crate::secret::has_token;
use crate::store::audit::Action;
use crate::store::revocations::{Revocation, Tokens};
use crate::time::{Mono, Timestamp};
use crate::token::{self, Fresh, Proof};

/// How long an answer waits for the revocation to hold on this node: it will in any case.
const PATIENCE: Duration = Duration::from_secs(2);
const RETRY: u64 = 5;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3_650 * 86_400);
/// Characters of a reason.
const MOST_REASON: usize = 256;

/// How long a token is good that was asked for without saying.
const USUAL: Duration = Duration::from_secs(30 * 86_400);

/// A token to mint.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// 1-128 of `[A-Za-z0-9._:@-]`.
    device_id: String,
    /// The same; without one, whatever the device says it is.
    device_type: Option<String>,
    /// How long it is good, as 90s, 10m, 1h or 7d, from 1s to 3650d; without one, 30d.
    ttl: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Minted<'a> {
    /// What the device shows, as `Authorization: Bearer` or as the subprotocol `token.TOKEN`.
    token: &'a str,
    device_id: &'a DeviceId,
    device_type: Option<&'a DeviceType>,
    /// By which it can be revoked.
    jti: &'a str,
    expires_at: Timestamp,
}

/// Mint a device token, signed by LASTPONG_TOKEN_SECRET
#[utoipa::path(
    post, path = "/v1/tokens", tag = "devices",
    request_body = Wanted,
    responses(
        (status = 201, body = Minted),
        (status = 409, description = "Tokens of LASTPONG_TOKEN_SECRET are not good here.", body = problem::Body, content_type = "application/problem+json"),
        body::Unread,
    ),
)]
pub(super) async fn mint(
    Admin(caller): Admin,
    request: HttpRequest,
    body: web::Payload,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    const ID: &str = "1-128 of [A-Za-z0-9._:@-]";
    Params::parse(request.query_string(), &[])?;
    let form = r#"{"device_id":"sensor-1","device_type":"thermometer","ttl":"30d"}"#;
    let Wanted { device_id, device_type, ttl } = body::object(body, form).await?;
    let bad = |name, text: &str| Problem::bad_input(name, text, ID);
    let device: DeviceId = device_id.parse().map_err(|_| bad("device_id", &device_id))?;
    let device_type = device_type.map(|text| text.parse().map_err(|_| bad("device_type", &text)));
    let device_type: Option<DeviceType> = device_type.transpose()?;
    let ttl = body::duration("ttl", ttl.as_deref(), SHORTEST, LONGEST)?.unwrap_or(USUAL);
    if !doors.acts.tokens.takes_its_own() {
        let detail = "LASTPONG_TOKEN_HS256=false: mint with a private key of one of LASTPONG_TOKEN_KEYS";
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    if !is_past(&doors.acts.revoked, &device).await {
        return Err(Problem::unavailable("the device's tokens were revoked by a clock that is ahead", RETRY));
    }
    let Fresh { token, jti, expires_at } = doors.acts.tokens.mint(&device, device_type.as_ref(), ttl);
    let expires_at = Timestamp(expires_at.saturating_mul(1_000_000));
    let detail = Some(format!("{jti} until {expires_at}"));
    doors.note(doors.entry((&caller, &request), Action::Mint, &device, detail)).await?;
    let minted = Minted {
        token: token.expose(),
        device_id: &device,
        device_type: device_type.as_ref(),
        jti: &jti,
        expires_at,
    };
    let mut answer = HttpResponse::Created();
    answer.insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")));
    Ok(answer.content_type("application/json").body(json::text(&minted)))
}

/// Waits until what is issued now is newer than the device's revocation, which meant whole seconds; false where that is
/// not in a moment.
async fn is_past(revoked: &Revoked, device: &DeviceId) -> bool {
    const LOOK: Duration = Duration::from_millis(50);
    let until = Mono::now() + PATIENCE;
    loop {
        let now = Timestamp::now();
        let issued = u32::try_from(now.0 / 1_000_000).unwrap_or(u32::MAX);
        if !revoked.refuses(device, Proof { jti: 0, issued }, now) {
            return true;
        }
        if Mono::now() >= until {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
}

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

/// A whole token would be kept, listed and logged, and revoke nothing. Whatever is wrong is not repeated: it may be one.
fn tokens(jti: Option<String>, device_id: Option<String>) -> Result<Tokens, Problem> {
    match (jti, device_id) {
        (Some(jti), None) if token::is_jti(&jti) && !has_token(&jti) => Ok(Tokens::Jti(jti)),
        (Some(_), None) => Err(Problem::bad_input("jti", "", token::JTI)),
        (None, Some(text)) => match text.parse::<DeviceId>() {
            Ok(device) => Ok(Tokens::Device(device)),
            Err(_) => Err(Problem::bad_input("device_id", "", "1-128 of [A-Za-z0-9._:@-]")),
        },
        _ => Err(Problem::bad_input("jti", "", "either jti or device_id, and not both")),
    }
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
