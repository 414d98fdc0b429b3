//! Presence: `GET /v1/devices/{id}` of one device, `POST /v1/devices/query` of many at once.
//!
//! It is read from the record, so every node of an installation gives the same answer.

use std::collections::HashMap;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::auth::{Admin, Reader};
use super::query::Params;
use super::record::Record;
use super::{Doors, json};
use crate::ids::DeviceId;
use crate::problem::Problem;
use crate::store::StoreError;
use crate::time::Timestamp;

/// Devices in one query.
const MOST: usize = 1_000;

#[derive(Serialize)]
struct Presence {
    device_id: DeviceId,
    online: bool,
    /// The session that it holds.
    session: Option<Record>,
}

#[derive(Serialize)]
struct Now<T> {
    #[serde(flatten)]
    what: T,
    now: Timestamp,
}

#[derive(Serialize)]
struct Items {
    items: Vec<Presence>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    device_ids: Vec<String>,
}

pub(super) async fn device(
    _: Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    Params::parse(request.query_string(), &[])?;
    let asked = device_id(request.match_info().query("device_id"))?;
    let mut found = presence(&doors, vec![asked]).await?;
    let what = found.pop().ok_or_else(|| Problem::bad_request("no device was asked for"))?;
    Ok(answer(&what))
}

pub(super) async fn query(
    _: Admin,
    request: HttpRequest,
    body: web::Bytes,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    Params::parse(request.query_string(), &[])?;
    let Query { device_ids } = serde_json::from_slice(&body)
        .map_err(|e| Problem::bad_request(format!("the body is not {{\"device_ids\":[…]}}: {e}")))?;
    if device_ids.len() > MOST {
        let given = device_ids.len().to_string();
        return Err(Problem::bad_input("device_ids", &given, &format!("at most {MOST} devices")));
    }
    let asked = device_ids.iter().map(|id| device_id(id)).collect::<Result<_, _>>()?;
    Ok(answer(&Items { items: presence(&doors, asked).await? }))
}

pub(super) fn device_id(text: &str) -> Result<DeviceId, Problem> {
    text.parse().map_err(|_| Problem::bad_input("device_id", text, "1-128 of [A-Za-z0-9._:@-]"))
}

/// In the order asked for.
async fn presence(doors: &Doors, asked: Vec<DeviceId>) -> Result<Vec<Presence>, StoreError> {
    let mut held = HashMap::new();
    for record in doors.timed("presence", doors.store.active_of(&asked)).await? {
        // Of two, which a session told late may make of it for a moment, the newer.
        let newest = held.entry(record.device_id.clone()).or_insert_with(|| record.clone());
        if newest.start_time < record.start_time {
            *newest = record;
        }
    }
    let of = |device_id: DeviceId| {
        let session = held.get(&device_id).cloned().map(Record::from);
        Presence { online: session.is_some(), device_id, session }
    };
    Ok(asked.into_iter().map(of).collect())
}

fn answer(what: &impl Serialize) -> HttpResponse {
    let body = json::text(&Now { what, now: Timestamp::now() });
    HttpResponse::Ok().content_type("application/json").body(body)
}
