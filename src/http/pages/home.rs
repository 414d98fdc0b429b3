//! `GET /`: the dashboard for people; for programs, what this is and where to look, which is open.

use actix_web::http::StatusCode;
use actix_web::http::header::X_CONTENT_TYPE_OPTIONS;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::Frame;
use super::words::{NONE, count, some_ms};
use crate::http::auth::allowed;
use crate::http::{Doors, browser};
use crate::role::Role;

const WHAT: &str =
    "lastpong: it knows the moment a device is gone, why, and tells everyone who needs to know.

Devices connect by WebSocket to /ws with a device token.

Open to everyone:
  /healthz              the process is alive
  /readyz               it would admit a device
With `Authorization: Bearer` and a token, or after a login at /login:
  /debug/connections    sessions of the installation, live or ?state=closed
  /debug/events         recent events
  /debug/performance    stalls, queues, store latencies
  /v1/bans, /v1/audit   who is banned, and who did what
  /v1/events            the event log, as a stream or as pages
  /metrics              Prometheus
In a browser, this is the dashboard.
";

#[derive(Template)]
#[template(path = "dashboard.html")]
struct Dashboard {
    frame: Frame,
    tiles: [Tile; 8],
}

/// A number as it was when the page was made; the script renews it.
struct Tile {
    id: &'static str,
    name: &'static str,
    value: String,
    unit: &'static str,
}

/// The dashboard for browsers; for programs, which need no token for that, what this is
#[utoipa::path(
    get, path = "/", tag = "pages", security(()),
    responses((status = 200, content((String = "text/plain"), (String = "text/html")))),
)]
pub(in crate::http) async fn home(
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, actix_web::Error> {
    if !browser::wants_page(&request) {
        let mut response = HttpResponse::Ok();
        response.insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"));
        return Ok(response.content_type("text/plain; charset=utf-8").body(WHAT));
    }
    let caller = allowed(&request, Role::Reader).await?;
    let frame = Frame::of(&caller, &doors);
    Ok(browser::page(StatusCode::OK, &Dashboard { frame, tiles: tiles(&doors) }))
}

fn tiles(doors: &Doors) -> [Tile; 8] {
    let point = doors.pulse.last();
    let tile = |id, name, unit, value: Option<String>| {
        let value = value.unwrap_or_else(|| NONE.to_owned());
        Tile { id, name, value, unit }
    };
    let point = point.as_ref();
    let held = |n: usize| point.map(|p| count(p.s[n].max(0).unsigned_abs()));
    [
        tile("live", "Live", "", held(1)),
        tile("suspect", "Suspect", "", held(2)),
        tile("starting", "Starting", "", held(0)),
        tile("ends", "Ends", "a minute", None),
        tile("rate", "Events", "a second", point.map(|p| p.v.to_string())),
        tile("rtt", "Round trip p99", "ms", point.map(|p| some_ms(p.r.map(|q| q[2])))),
        tile("detection", "Detection p99", "ms", point.map(|p| some_ms(p.d.map(|q| q[2])))),
        tile(
            "lag",
            "Relay lag",
            "events",
            point.map(|p| count(p.l.iter().max().copied().unwrap_or(0).unsigned_abs())),
        ),
    ]
}
