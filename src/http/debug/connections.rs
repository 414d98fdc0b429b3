//! `GET /debug/connections`: live sessions by the snapshots of this node and the mirror of the others, closed ones by the
//! record.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use super::live::{AskedLive, LivePage};
use super::{List, answer, history, live, made};
use crate::http::auth::Reader;
use crate::http::browser::{self, wants_page};
use crate::http::openapi::params::{Cursor, PageLimit, SessionFilters};
use crate::http::openapi::shapes::Sessions;
use crate::http::pages::{self, Frame};
use crate::http::query::Params;
use crate::http::{Doors, json};
use crate::problem::Problem;

pub(crate) const OF_ALL: [&str; 6] = ["state", "limit", "cursor", "device_id", "device_type", "node"];
pub(crate) const OF_LIVE: [&str; 4] = ["sort", "remote_addr", "min_rtt_ms", "idle_gt"];
pub(crate) const OF_CLOSED: [&str; 1] = ["reason"];

/// What is asked for.
enum Asked {
    Live(Box<AskedLive>),
    Closed(Params),
}

impl Asked {
    fn of(query: &str) -> Result<Self, Problem> {
        let known: Vec<&str> = OF_ALL.into_iter().chain(OF_LIVE).chain(OF_CLOSED).collect();
        let params = Params::parse(query, &known)?;
        if params.text("state") == Some("closed") {
            let allowed = "nothing with state=closed, which is always in order of end, newest first";
            refuse(&params, &OF_LIVE, allowed)?;
            return Ok(Self::Closed(params));
        }
        refuse(&params, &OF_CLOSED, "nothing but with state=closed: a live session has no reason")?;
        Ok(Self::Live(Box::new(AskedLive::of(&params)?)))
    }
}

fn refuse(params: &Params, names: &[&str], allowed: &str) -> Result<(), Problem> {
    match names.iter().find_map(|name| Some((name, params.text(name)?))) {
        Some((name, value)) => Err(Problem::bad_input(name, value, allowed)),
        None => Ok(()),
    }
}

/// Sessions of the installation: live ones in any order, or with `state=closed` those that have ended, newest first
#[utoipa::path(
    get, path = "/debug/connections", tag = "debug",
    params(PageLimit, Cursor, SessionFilters),
    responses((status = 200, content((Sessions = "application/json"), (String = "text/html")))),
)]
pub(in crate::http) async fn connections(
    Reader(caller): Reader,
    request: HttpRequest,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    if wants_page(&request) {
        let (query, frame) = (pages::asked_by_page(request.query_string()), Frame::of(&caller, &doors));
        let page = match Asked::of(&query)? {
            Asked::Live(asked) => {
                live::page(*asked, &doors, move |page| pages::live_page(frame, &query, &page)).await?
            }
            Asked::Closed(params) => {
                let list = history::closed(&params, &doors).await?;
                made(move || pages::closed_page(frame, &query, &list)).await?
            }
        };
        return Ok(browser::html(StatusCode::OK, page));
    }
    let text = match Asked::of(request.query_string())? {
        Asked::Live(asked) => live::page(*asked, &doors, told).await?,
        Asked::Closed(params) => {
            let list = history::closed(&params, &doors).await?;
            made(move || json::text(&list)).await?
        }
    };
    Ok(answer(text))
}

fn told(page: LivePage) -> String {
    let LivePage { items, next_cursor, total, nodes, complete, now } = page;
    let list = json::text(&List { items, next_cursor, total, now });
    let list = json::with_member(list, "nodes", &json::text(&nodes));
    json::with_member(list, "complete", if complete { "true" } else { "false" })
}
