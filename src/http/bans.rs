//! Bans: of a device (`/v1/devices/{device_id}/ban`), of an address or a network (`/v1/bans`), and the list of both.
//!
//! A ban is on the record, for all nodes. When it is answered it holds on the node that was asked, for who is here too, or
//! else the answer is 202; on the others within two seconds. While the record cannot be written there is no new ban: 503.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use ipnet::IpNet;
use serde::Deserialize;
use utoipa::ToSchema;

use super::auth::{Admin, Caller, Reader};
use super::debug::{List, answer, cursor_of, seal};
use super::openapi::params::{Cursor, PageLimit};
use super::query::Params;
use super::{Doors, body, devices, json, traced};
use crate::ids::{BanId, DeviceId};
use crate::peer::Proxies;
use crate::problem::{self, Problem};
use crate::store::audit::{Action, Entry};
use crate::store::bans::{Ban, Target, WhichBan, network};
use crate::time::Timestamp;

/// How long an answer waits for the ban to hold on this node: it will in any case.
const PATIENCE: Duration = Duration::from_secs(2);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3_650 * 86_400);
/// Characters of a reason.
const MOST_REASON: usize = 256;
/// The widest network that can be banned: a slip of the finger must not end all sessions there are.
const WIDEST_V4: u8 = 8;
const WIDEST_V6: u8 = 16;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfDevice {
    /// As 90s, 10m, 1h or 7d, from 1s to 3650d; without one, until it is lifted.
    ttl: Option<String>,
    /// For operators: a line of at most 256 characters.
    reason: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfAny {
    /// An address or a network, of /8 or narrower (IPv6: /16), in which no trusted proxy is.
    remote_addr: Option<String>,
    /// A device, in its place: also one whose name no path can have, as `..`.
    device_id: Option<String>,
    /// As 90s, 10m, 1h or 7d, from 1s to 3650d; without one, until it is lifted.
    ttl: Option<String>,
    /// For operators: a line of at most 256 characters.
    reason: Option<String>,
}

/// Ban a device: its session ends, and it is refused until the ban is over or lifted
#[utoipa::path(
    put, path = "/v1/devices/{device_id}/ban", tag = "devices",
    params(("device_id" = DeviceId, Path)), request_body = Option<OfDevice>,
    responses(
        (status = 200, body = Ban),
        (status = 202, description = "It is on the record, and holds on this node soon.", body = Ban),
        body::Unread,
    ),
)]
pub(super) async fn ban_device(
    Admin(caller): Admin,
    request: HttpRequest,
    body: web::Payload,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    Params::parse(request.query_string(), &[])?;
    let device = devices::device_id(request.match_info().query("device_id"))?;
    let OfDevice { ttl, reason } = body::object(body, r#"{"ttl":"1h","reason":"…"}"#).await?;
    if traced::is(&request) {
        let held = doors.timed("presence", doors.store.active_of(std::slice::from_ref(&device))).await;
        // A ban does not depend on what a trace can say of it.
        held.iter().flatten().for_each(|record| traced::touch(&request, record.session_id));
    }
    let target = Target::Device(device);
    let (ban, holds) = ban(&doors, (&caller, &request), target, ttl.as_deref(), reason).await?;
    Ok(given(&ban, if holds { StatusCode::OK } else { StatusCode::ACCEPTED }))
}

/// Ban an address or a network, or a device
#[utoipa::path(
    post, path = "/v1/bans", tag = "devices",
    request_body = OfAny,
    responses(
        (status = 201, body = Ban),
        (status = 202, description = "It is on the record, and holds on this node soon.", body = Ban),
        (status = 409, description = "A trusted proxy is in that network: all who come through it would go.", body = problem::Body, content_type = "application/problem+json"),
        body::Unread,
    ),
)]
pub(super) async fn ban_any(
    Admin(caller): Admin,
    request: HttpRequest,
    body: web::Payload,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    Params::parse(request.query_string(), &[])?;
    let form = r#"{"remote_addr":"192.0.2.0/24","ttl":"1h","reason":"…"}"#;
    let OfAny { remote_addr, device_id, ttl, reason } = body::object(body, form).await?;
    let target = match (remote_addr, device_id) {
        (Some(network), None) => Target::Network(narrow(&network, &doors.auth.proxies)?),
        (None, Some(device)) => Target::Device(devices::device_id(&device)?),
        _ => {
            let detail =
                format!("the body names neither or both of remote_addr and device_id: its form is {form}");
            return Err(Problem::bad_request(detail));
        }
    };
    let (ban, holds) = ban(&doors, (&caller, &request), target, ttl.as_deref(), reason).await?;
    Ok(given(&ban, if holds { StatusCode::CREATED } else { StatusCode::ACCEPTED }))
}

fn given(ban: &Ban, status: StatusCode) -> HttpResponse {
    HttpResponse::build(status).content_type("application/json").body(json::text(ban))
}

fn narrow(text: &str, proxies: &Proxies) -> Result<IpNet, Problem> {
    let narrow_enough = |net: &IpNet| match net {
        IpNet::V4(net) => net.prefix_len() >= WIDEST_V4,
        IpNet::V6(net) => net.prefix_len() >= WIDEST_V6,
    };
    let net = network(text).filter(narrow_enough).ok_or_else(|| {
        let allowed = format!(
            "an address or a network as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32, of /{WIDEST_V4} or narrower \
             (IPv6: /{WIDEST_V6})"
        );
        Problem::bad_input("remote_addr", text, &allowed)
    })?;
    match proxies.within(&net) {
        None => Ok(net),
        Some(proxy) => {
            let detail = format!(
                "{proxy} of LASTPONG_TRUSTED_PROXIES is in {net}: all who come through it would be banned"
            );
            let allowed = "a network without a trusted proxy";
            Err(Problem::new(StatusCode::CONFLICT, detail).about("remote_addr", text, allowed))
        }
    }
}

/// Says also whether it holds on this node.
async fn ban(
    doors: &Doors,
    who: (&Caller, &HttpRequest),
    target: Target,
    ttl: Option<&str>,
    reason: Option<String>,
) -> Result<(Ban, bool), Problem> {
    let ttl = body::duration("ttl", ttl, SHORTEST, LONGEST)?;
    if let Some(text) = &reason
        && (text.chars().count() > MOST_REASON || text.contains(char::is_control))
    {
        let allowed = format!("at most {MOST_REASON} characters, in one line");
        return Err(Problem::bad_input("reason", text, &allowed));
    }
    let reason = reason.filter(|text| !text.is_empty());
    let by = doors.signature(who.0, who.1).actor;
    let at = Timestamp::now();
    let until = ttl.map(|ttl| at.saturating_add(ttl));
    let ban = Ban { id: BanId::new(), target, reason, by, at, until };
    let entry = doors.entry(who, Action::Ban, &ban.target, Some(told(&ban)));
    let rev = doors.timed("ban", doors.store.ban(ban.clone(), entry.clone())).await?;
    entry.tell();
    Ok((ban, doors.acts.bans.until_done(rev, PATIENCE).await))
}

/// A ban's terms, in the words of the audit.
fn told(ban: &Ban) -> String {
    let until = ban.until.map_or_else(|| "for good".to_owned(), |until| format!("until {until}"));
    match &ban.reason {
        Some(reason) => format!("{until}: {reason}"),
        None => until,
    }
}

/// Lift the ban of a device
#[utoipa::path(
    delete, path = "/v1/devices/{device_id}/ban", tag = "devices",
    params(("device_id" = DeviceId, Path)),
    responses(
        (status = 202, description = "It may come back; to this node soon."),
        (status = 204, description = "It may come back."),
        (status = 404, body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn lift_device(
    Admin(caller): Admin,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    Params::parse(request.query_string(), &[])?;
    let device = devices::device_id(request.match_info().query("device_id"))?;
    let entry = doors.entry((&caller, &request), Action::Lift, &device, None);
    let none = || {
        Problem::new(StatusCode::NOT_FOUND, format!("device {device} is not banned")).about(
            "device_id",
            device.as_str(),
            "a device that is banned",
        )
    };
    let lifted = doors.store.lift_ban(WhichBan::Device(device.clone()), Timestamp::now(), entry.clone());
    let rev = doors.timed("lift", lifted).await?.ok_or_else(none)?;
    finish(&doors, rev, &entry).await
}

/// Lift a ban
#[utoipa::path(
    delete, path = "/v1/bans/{id}", tag = "devices",
    params(("id" = BanId, Path)),
    responses(
        (status = 202, description = "It is lifted; on this node soon."),
        (status = 204, description = "It is lifted."),
        (status = 404, body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn lift(
    Admin(caller): Admin,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    Params::parse(request.query_string(), &[])?;
    let text = request.match_info().query("id");
    let id: BanId = text.parse().map_err(|_| Problem::bad_input("id", text, "a UUID"))?;
    let none = || {
        Problem::new(StatusCode::NOT_FOUND, format!("there is no ban {id}")).about(
            "id",
            text,
            "the id of a ban that holds, see /v1/bans",
        )
    };
    let now = Timestamp::now();
    let ban = doors.timed("ban", doors.store.ban_by_id(id, now)).await?.ok_or_else(none)?;
    let entry = doors.entry((&caller, &request), Action::Lift, &ban.target, None);
    let lifted = doors.store.lift_ban(WhichBan::Id(id), now, entry.clone());
    let rev = doors.timed("lift", lifted).await?.ok_or_else(none)?;
    finish(&doors, rev, &entry).await
}

async fn finish(doors: &Doors, rev: i64, entry: &Entry) -> Result<HttpResponse, Problem> {
    entry.tell();
    let holds = doors.acts.bans.until_done(rev, PATIENCE).await;
    Ok(if holds { HttpResponse::NoContent() } else { HttpResponse::Accepted() }.finish())
}

/// The bans that hold, the newest first
#[utoipa::path(
    get, path = "/v1/bans", tag = "devices",
    params(PageLimit, Cursor),
    responses((status = 200, body = List<Ban>)),
)]
pub(super) async fn list(
    _: Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    Ok(answer(json::text(&page(request.query_string(), &doors).await?)))
}

/// A page of the bans that hold.
pub(super) async fn page(query: &str, doors: &Doors) -> Result<List<Ban>, Problem> {
    const BEGINS: &str = "bans~";
    let params = Params::parse(query, &["limit", "cursor"])?;
    let (limit, now) = (params.limit()?, Timestamp::now());
    let before = cursor_of(&params, BEGINS, "a next_cursor of /v1/bans", |text| text.parse().ok())?;
    let total = doors.timed("bans_total", doors.store.bans_total(now)).await?;
    let mut items = doors.timed("bans_page", doors.store.bans(before, now, limit + 1)).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|ban| seal(&format!("{BEGINS}{}", ban.id)));
    Ok(List { items, next_cursor, total, now })
}
