//! What is different for browsers: they show pages, they follow links of others, and they send a cookie to whoever
//! makes them.
//!
//! - Where a handler refuses a browser, it gets a page in place of JSON, or is sent to the login ([`pages`]).
//! - A page forbids itself all but what it is made of, which is this host's: no script within it, no frame around it, forms
//!   and requests to this host alone.
//! - What a cookie opens may change nothing unless the page that asks is this host's own ([`same_origin`]).
//! - Where a login leads is a path of this host ([`local_path`]).

use actix_http::RequestHead;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ACCEPT, Accept, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, Header, HeaderMap, LOCATION, ORIGIN,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::middleware::Next;
use actix_web::{HttpRequest, HttpResponse};
use askama::Template;

use super::auth::changes;
use crate::config::is_of_host;
use crate::problem::Problem;

const SEC_FETCH_SITE: &str = "Sec-Fetch-Site";

/// A longer path than any of ours leads nowhere.
const LONGEST_PATH: usize = 2_048;

/// Whether the client would rather have a page than JSON. A program that takes anything is none.
pub(super) fn wants_page(request: &HttpRequest) -> bool {
    if !request.headers().contains_key(ACCEPT) {
        return false;
    }
    let Ok(accept) = Accept::parse(request) else { return false };
    let first = accept.ranked().into_iter().find_map(|mime| {
        match (mime.type_().as_str(), mime.subtype().as_str(), mime.suffix().map(|s| s.as_str())) {
            ("text", "html", _) | ("application", "xhtml", _) => Some(true),
            ("application", "json", _) | (_, _, Some("json")) => Some(false),
            _ => None,
        }
    });
    first.unwrap_or(false)
}

/// Whether a link or page of another site led here.
pub(super) fn comes_from_elsewhere(headers: &HeaderMap) -> bool {
    headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site" || site == "same-site")
}

/// What a browser says of the page that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    Own,
    Foreign,
    /// Nothing: it is no browser, or a very old one.
    Unsaid,
}

/// As Go's `net/http.CrossOriginProtection` decides: by `Sec-Fetch-Site`, which no page can write; without it (plain
/// HTTP, old browsers) by an `Origin` that is this host's.
fn asker(headers: &HeaderMap) -> Asker {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return if site == "same-origin" { Asker::Own } else { Asker::Foreign };
    }
    let Some(origin) = headers.get(ORIGIN) else { return Asker::Unsaid };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match (origin.to_str(), host) {
        (Ok(origin), Some(host)) if is_of_host(origin, host) => Asker::Own,
        _ => Asker::Foreign,
    }
}

/// # Errors
/// The 403 for a request that carries a cookie and is not shown to be of a page of this host.
pub(super) fn same_origin(head: &RequestHead) -> Result<(), Problem> {
    if asker(head.headers()) == Asker::Own { Ok(()) } else { Err(foreign(head)) }
}

/// # Errors
/// The 403 for a request that is shown to be of a page of another host.
pub(super) fn not_foreign(head: &RequestHead) -> Result<(), Problem> {
    if asker(head.headers()) == Asker::Foreign { Err(foreign(head)) } else { Ok(()) }
}

fn foreign(head: &RequestHead) -> Problem {
    let origin = head.headers().get(ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default();
    Problem::new(StatusCode::FORBIDDEN, "with a cookie only pages of this host may ask for this").about(
        "Origin",
        origin,
        "the origin of this host",
    )
}

/// `path` if it is one of this host, whatever a browser makes of it: it begins with one slash, and has nothing that
/// browsers read as another (RFC 3986 section 4.2; WHATWG URL: a backslash is a slash, tabs and line ends are nothing).
pub(super) fn local_path(path: &str) -> Option<&str> {
    let plain = path.len() <= LONGEST_PATH && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    (plain && path.starts_with('/') && !path.starts_with("//")).then_some(path)
}

/// A page as text. One of many rows takes longer than a worker's loop has.
pub(super) fn written(template: &impl Template) -> String {
    template.render().unwrap_or_else(|error| {
        log::error!(error:% = error; "a page could not be written");
        String::new()
    })
}

/// A small page, written here and now.
pub(super) fn page(status: StatusCode, template: &impl Template) -> HttpResponse {
    html(status, written(template))
}

/// A page that shows nothing of anyone but who asked for it.
pub(super) fn html(status: StatusCode, html: String) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
             base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
        ))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // With `no-referrer` a browser would not say which page a form is of.
        .insert_header((REFERRER_POLICY, "same-origin"))
        .insert_header(("Cross-Origin-Opener-Policy", "same-origin"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .content_type("text/html; charset=utf-8")
        .body(html)
}

/// Shows a refusal as a page to who wants pages. Without a login, that is the one to log in at, and from there back.
pub(super) async fn pages<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    let response = next.call(request).await?;
    let refused = response.response().error().and_then(|error| error.as_error::<Problem>());
    let page = match refused {
        Some(problem) if wants_page(response.request()) => refusal(response.request(), problem),
        _ => return Ok(response.map_into_left_body()),
    };
    Ok(response.into_response(page).map_into_right_body())
}

fn refusal(request: &HttpRequest, problem: &Problem) -> HttpResponse {
    if problem.status != StatusCode::UNAUTHORIZED || changes(request.head()) {
        return problem_page(problem);
    }
    let back = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let query = serde_urlencoded::to_string([("next", back)]).unwrap_or_default();
    HttpResponse::SeeOther()
        .insert_header((LOCATION, format!("/login?{query}")))
        .insert_header((CACHE_CONTROL, "no-store"))
        .finish()
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    title: &'a str,
    detail: &'a str,
}

fn problem_page(problem: &Problem) -> HttpResponse {
    let title = problem.status.canonical_reason().unwrap_or("Error");
    let mut response = page(problem.status, &ProblemPage { title, detail: &problem.detail });
    for (name, value) in &problem.headers {
        response.headers_mut().append(name.clone(), value.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use proptest::prelude::*;
    use reqwest::Url;

    use super::*;

    proptest! {
        #[test]
        fn no_browser_reads_another_host_in_it(path in "/?[/\\\\\t\n\r .:@#?%a-z0-9\u{0}-\u{ff}]{0,12}") {
            let here: Url = "https://pong.example/login".parse().unwrap();
            if let Some(path) = local_path(&path) {
                prop_assert_eq!(here.join(path).unwrap().origin(), here.origin());
            }
        }
    }

    #[test]
    fn only_a_path_of_this_host_is_followed() {
        for good in
            ["/", "/debug/connections?sort=-rtt&limit=5", "/a//b", "/%2F%2Fevil.example", "/@evil.example"]
        {
            assert_eq!(local_path(good), Some(good));
        }
        let long = format!("/{}", "x".repeat(LONGEST_PATH));
        for bad in [
            "",
            "debug",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            " /",
            "http://evil.example",
            "javascript:alert(1)",
            "/caf\u{e9}",
            &long,
        ] {
            assert_eq!(local_path(bad), None, "{bad:?}");
        }
    }

    fn asking(headers: &[(&'static str, &'static str)]) -> Asker {
        let mut request = TestRequest::post().insert_header(("Host", "pong.example:8080"));
        for header in headers {
            request = request.insert_header(*header);
        }
        asker(request.to_http_request().headers())
    }

    #[test]
    fn a_page_of_another_host_is_told_from_one_of_this() {
        use Asker::{Foreign, Own, Unsaid};
        let own = ("Origin", "http://pong.example:8080");
        let foreign = ("Origin", "http://evil.example:8080");
        assert_eq!(asking(&[]), Unsaid);
        assert_eq!(asking(&[own]), Own);
        for origin in [
            "http://pong.example",
            "http://pong.example:8081",
            "http://a.pong.example:8080",
            "http://pong.example:8080.evil.example",
            "null",
            "",
        ] {
            assert_eq!(asking(&[("Origin", origin)]), Foreign, "{origin:?}");
        }
        // A proxy may have changed the host; what the browser says of the page then counts.
        assert_eq!(asking(&[("Sec-Fetch-Site", "same-origin"), foreign]), Own);
        for site in ["same-site", "cross-site", "none", ""] {
            assert_eq!(asking(&[("Sec-Fetch-Site", site), own]), Foreign, "{site:?}");
        }
    }

    #[test]
    fn who_asks_for_html_first_gets_pages() {
        let wants =
            |accept: &str| wants_page(&TestRequest::get().insert_header((ACCEPT, accept)).to_http_request());
        for browser in [
            "text/html",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "application/json;q=0.5, text/html",
        ] {
            assert!(wants(browser), "{browser}");
        }
        for program in ["*/*", "application/json", "text/event-stream", "application/json, text/html;q=0.5"] {
            assert!(!wants(program), "{program}");
        }
        assert!(!wants_page(&TestRequest::get().to_http_request()));
    }
}
