//! Logging in and out: `/login` and `/logout` for browsers, which get a cookie, and `/auth/login` for programs, which
//! get a token to show as `Authorization: Bearer`.
//!
//! Forms and JSON are both taken. A form of another site's page is refused, so that nobody is logged in as someone
//! else without noticing. No answer tells whether a name is there.

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, SET_COOKIE};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use askama::Template;
use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Response};
use utoipa::{IntoResponses, ToSchema};

use super::browser::{self, comes_from_elsewhere, local_path, not_foreign, wants_page};
use super::openapi::refusals;
use super::query::Params;
use super::{Doors, body, cookie, json};
use crate::ids::UserName;
use crate::login::{Opened, Refused};
use crate::problem::{self, Problem};
use crate::role::Role;
use crate::secret::Secret;
use crate::store::users::LoginKind;
use crate::time::Timestamp;

/// A name and a password take far less.
const MOST_BYTES: usize = 8 << 10;

const RETRY_SOON: u64 = 1;

/// Where a login leads that was asked for by itself.
const HOME: &str = "/";

/// Who logs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    username: String,
    #[schema(value_type = String, format = Password)]
    password: Secret,
    /// Where a browser is sent then: a path of this host.
    next: Option<String>,
}

/// A login by a cookie.
#[derive(Serialize, ToSchema)]
pub(super) struct LoggedIn {
    username: UserName,
    role: Role,
    expires_at: Timestamp,
}

/// A login by a token, to be shown as `Authorization: Bearer`.
#[derive(Serialize, ToSchema)]
pub(super) struct AccessToken<'a> {
    access_token: &'a str,
    /// `bearer`.
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    refused: Option<&'a str>,
    next: &'a str,
    from_elsewhere: bool,
}

/// The page to log in at. Who is logged in already is sent on
#[utoipa::path(
    get, path = "/login", tag = "logins", security(()),
    params(("next" = Option<String>, Query, description = "Where to go on: a path of this host; any other is passed over.")),
    responses(
        (status = 200, body = String, content_type = "text/html"),
        (status = 303, description = "Who is logged in already is sent on."),
        (status = 400, body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn page(request: HttpRequest, doors: web::Data<Doors>) -> Result<HttpResponse, Problem> {
    let params = Params::parse(request.query_string(), &["next"])?;
    let next = next(params.text("next"));
    if cookie::read(request.headers()).is_some()
        && doors.auth.allow(request.head(), Role::Reader).await.is_ok()
    {
        return Ok(sent_on(next).finish());
    }
    let from_elsewhere = comes_from_elsewhere(request.headers());
    Ok(browser::page(StatusCode::OK, &LoginPage { refused: None, next, from_elsewhere }))
}

/// Log in by a cookie, as browsers do
///
/// A browser is sent on, or shown the page again. A form of another site's page is refused.
#[utoipa::path(
    post, path = "/login", tag = "logins", security(()),
    request_body(content(
        (Given = "application/json"),
        (Given = "application/x-www-form-urlencoded"),
    )),
    responses(
        (status = 200, body = LoggedIn, headers(("Set-Cookie" = String))),
        (status = 303, description = "A browser is sent on.", headers(("Set-Cookie" = String))),
        Attempt,
    ),
)]
pub(super) async fn login(
    request: HttpRequest,
    body: web::Payload,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    let given = given(&request, body).await?;
    let next = next(given.next.as_deref()).to_owned();
    match attempt(&request, &doors, given, LoginKind::Cookie).await {
        Ok(opened) => {
            let tls = doors.auth.is_over_tls(request.head());
            let mut response = match wants_page(&request) {
                true => sent_on(&next),
                false => HttpResponse::Ok(),
            };
            response.insert_header((SET_COOKIE, cookie::set(&opened.token, tls)));
            if wants_page(&request) {
                return Ok(response.finish());
            }
            let (username, role, expires_at) = (opened.user, opened.role, opened.expires_at);
            let told = LoggedIn { username, role, expires_at };
            Ok(response.insert_header((CACHE_CONTROL, "no-store")).json(told))
        }
        Err(problem) if wants_page(&request) => {
            let shown = LoginPage { refused: Some(&problem.detail), next: &next, from_elsewhere: false };
            let mut response = browser::page(problem.status, &shown);
            for (name, value) in problem.headers {
                response.headers_mut().append(name, value);
            }
            Ok(response)
        }
        Err(problem) => Err(problem),
    }
}

/// End the login of the cookie, for every node; without one there is nothing to end
#[utoipa::path(
    post, path = "/logout", tag = "logins", security(()),
    responses(
        (status = 204, headers(("Set-Cookie" = String))),
        (status = 303, description = "A browser is sent to the login.", headers(("Set-Cookie" = String))),
        (status = 403, body = problem::Body, content_type = "application/problem+json"),
        (status = 503, body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn logout(request: HttpRequest, doors: web::Data<Doors>) -> Result<HttpResponse, Problem> {
    if let Some(token) = cookie::read(request.headers()) {
        browser::same_origin(request.head())?;
        doors.auth.logins.end(&token).await?;
    }
    let tls = doors.auth.is_over_tls(request.head());
    let mut response = match wants_page(&request) {
        true => sent_on("/login"),
        false => HttpResponse::NoContent(),
    };
    Ok(response.insert_header((SET_COOKIE, cookie::clear(tls))).finish())
}

/// Log in by a token, as programs do
#[utoipa::path(
    post, path = "/auth/login", tag = "logins", security(()),
    request_body(content(
        (Given = "application/json"),
        (Given = "application/x-www-form-urlencoded"),
    )),
    responses((status = 200, body = AccessToken), Attempt),
)]
pub(super) async fn token(
    request: HttpRequest,
    body: web::Payload,
    doors: web::Data<Doors>,
) -> Result<HttpResponse, Problem> {
    let given = given(&request, body).await?;
    let opened = attempt(&request, &doors, given, LoginKind::Bearer).await?;
    let told = AccessToken {
        access_token: opened.token.expose(),
        token_type: "bearer",
        expires_in: opened.lasts.as_secs(),
    };
    let mut response = HttpResponse::Ok();
    response.insert_header((CACHE_CONTROL, "no-store")).content_type("application/json");
    Ok(response.body(json::text(&told)))
}

/// How a login is refused.
pub(super) struct Attempt;

impl IntoResponses for Attempt {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals([400, 401, 403, 408, 413, 415, 429, 503])
    }
}

/// Where to go on: not to another host, and not back here.
fn next(asked: Option<&str>) -> &str {
    let ours = |path: &&str| !path.starts_with("/login") && !path.starts_with("/logout");
    asked.and_then(local_path).filter(ours).unwrap_or(HOME)
}

fn sent_on(to: &str) -> actix_web::HttpResponseBuilder {
    let mut response = HttpResponse::SeeOther();
    response.insert_header((LOCATION, to)).insert_header((CACHE_CONTROL, "no-store"));
    response
}

/// No message shows what was given: it may be the password.
async fn given(request: &HttpRequest, body: web::Payload) -> Result<Given, Problem> {
    const KINDS: &str = "application/json or application/x-www-form-urlencoded";
    not_foreign(request.head())?;
    let body = body::read(body, MOST_BYTES).await?;
    match request.content_type() {
        "application/x-www-form-urlencoded" => serde_urlencoded::from_bytes(&body)
            .map_err(|_| Problem::bad_request("the body is not of the form username=…&password=…")),
        "application/json" => serde_json::from_slice(&body)
            .map_err(|_| Problem::bad_request("the body is not {\"username\":\"…\",\"password\":\"…\"}")),
        other => {
            let detail = format!("a login comes as {KINDS}");
            let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail);
            Err(problem.about(CONTENT_TYPE.as_str(), other, KINDS))
        }
    }
}

async fn attempt(
    request: &HttpRequest,
    doors: &Doors,
    given: Given,
    kind: LoginKind,
) -> Result<Opened, Problem> {
    let Some(peer) = doors.auth.proxies.peer(request.head()) else {
        return Err(Problem::bad_request("no peer address"));
    };
    let opened = doors.auth.logins.attempt(&given.username, given.password, peer.addr.ip(), kind).await;
    opened.map_err(|refused| {
        let detail = refused.to_string();
        match refused {
            Refused::Wrong => Problem::unauthorized(detail),
            Refused::TooMany { retry_after } => {
                Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(retry_after.as_secs() + 1)
            }
            Refused::Busy => Problem::unavailable(detail, RETRY_SOON),
            Refused::Store(error) => error.into(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_a_page_of_this_host_and_not_in_a_circle() {
        assert_eq!(next(Some("/debug/connections?sort=-rtt")), "/debug/connections?sort=-rtt");
        for home in [None, Some("//evil.example"), Some("/login?next=/login"), Some("/logout"), Some("")] {
            assert_eq!(next(home), "/", "{home:?}");
        }
    }
}
