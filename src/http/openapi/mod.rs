//! `GET /openapi.json`: what this API is, generated from the handlers and from the types of their answers.
//!
//! - Each handler says its own part (`#[utoipa::path]`), beside its code; [`Document`] lists them. A test holds the list
//!   against the routes that are registered, and another asks a running server for all that it says.
//! - What any route that asks for a token may answer is said once, in [`Everywhere`].
//!
//! Left out on purpose: HEAD, which every route with GET takes too and answers without a body; and the frames of the
//! WebSockets, which OpenAPI cannot describe (docs/events.md does).

pub(super) mod params;
pub(super) mod shapes;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Spec, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::{
    audit, bans, cookie, dashboard, debug, devices, events, health, login, metrics, node, pages, sessions,
    tokens,
};
use crate::problem;

/// The document itself
///
/// OpenAPI 3.1. It shows nothing of the installation, so it is open.
#[utoipa::path(
    get, path = "/openapi.json", tag = "probes", security(()),
    responses((status = 200, body = Object)),
)]
pub(super) async fn document() -> HttpResponse {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| super::json::text(&Document::openapi()));
    HttpResponse::Ok().content_type("application/json").body(DOCUMENT.as_str())
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "lastpong",
        description = "Who is connected, who is gone, and why. Errors are `application/problem+json` and name the bad \
                       input; lists take `limit` and `cursor`. Every route with GET takes HEAD too.",
    ),
    paths(
        pages::home::home,
        pages::assets::asset,
        health::healthz,
        health::readyz,
        metrics::metrics,
        document,
        login::page,
        login::login,
        login::logout,
        login::token,
        events::events,
        debug::connections::connections,
        debug::session::connection,
        debug::events::events,
        debug::performance,
        dashboard::live,
        pages::bans::bans,
        pages::audit::audit,
        devices::query,
        devices::device,
        debug::history::sessions_of,
        sessions::found,
        sessions::kick,
        bans::ban_device,
        bans::lift_device,
        bans::list,
        bans::ban_any,
        bans::lift,
        tokens::mint,
        tokens::revoke,
        tokens::list,
        node::look,
        node::begin,
        node::undo,
        node::logged,
        node::set_log,
        audit::audit,
        super::devices_upgrade,
        super::subscribers_upgrade,
    ),
    components(schemas(problem::Body)),
    security(("bearer" = []), ("cookie" = [])),
    tags(
        (name = "devices", description = "Devices: their sessions, and whether they are here"),
        (name = "sessions", description = "What operators do to sessions"),
        (name = "node", description = "What operators do to a node, and who did what"),
        (name = "events", description = "The event log, for subscribers"),
        (name = "debug", description = "What operators look at"),
        (name = "logins", description = "Who may do what"),
        (name = "probes", description = "For machines that watch lastpong"),
        (name = "pages", description = "For browsers"),
    ),
    modifiers(&Everywhere),
)]
struct Document;

/// What holds of all routes, or of all that ask for a token.
struct Everywhere;

impl Modify for Everywhere {
    fn modify(&self, spec: &mut Spec) {
        let components = spec.components.get_or_insert_default();
        let bearer = || SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(cookie::NAME)));
        for (name, scheme) in [("bearer", bearer()), ("cookie", cookie), ("device", bearer())] {
            components.add_security_scheme(name, scheme);
        }
        for (path, item) in &mut spec.paths.paths {
            let all = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
            for operation in all.into_iter().flatten().filter(|operation| operation.security.is_none()) {
                add(operation, refusals([400, 401, 403, 503]));
                // What is no name at all makes another path of it.
                if path.contains('{') {
                    add(operation, refusals([404]));
                }
            }
        }
    }
}

/// Where it does not say so itself.
fn add(operation: &mut Operation, refusals: BTreeMap<String, RefOr<Response>>) {
    for (status, refusal) in refusals {
        operation.responses.responses.entry(status).or_insert(refusal);
    }
}

/// Problems of these statuses.
pub(super) fn refusals<const N: usize>(statuses: [u16; N]) -> BTreeMap<String, RefOr<Response>> {
    let refusal = |status: u16| {
        let title = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Error");
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description(title).content(problem::CONTENT_TYPE, body);
        (status.to_string(), RefOr::T(response.build()))
    };
    statuses.map(refusal).into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Methods and paths, as `routes` registers them.
    fn registered() -> BTreeSet<(String, String)> {
        let source = include_str!("../mod.rs");
        let services = source.split(".service(").skip(1);
        let of = |service: &str| {
            let (kind, rest) = service.split_once('(').expect("a kind of route");
            let path = rest.split('"').nth(1).expect("a path").to_owned();
            let further =
                ["put", "post", "delete"].into_iter().filter(|m| rest.contains(&format!("web::{m}()")));
            let methods: Vec<&str> = match kind {
                "get" => vec!["get"],
                "get_or" => ["get"].into_iter().chain(further).collect(),
                "only" => further.collect(),
                other => panic!("{other} is no kind of route that is known here"),
            };
            assert!(!methods.is_empty(), "{path} takes nothing");
            methods.into_iter().map(move |method| (method.to_owned(), path.clone())).collect::<Vec<_>>()
        };
        services.filter(|service| !service.starts_with("all.")).flat_map(of).collect()
    }

    #[test]
    fn every_route_is_in_the_document_and_nothing_else_is() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let told: BTreeSet<_> = paths
            .iter()
            .flat_map(|(path, item)| item.as_object().unwrap().keys().map(|m| (m.clone(), path.clone())))
            .collect();
        let registered = registered();
        assert!(registered.len() > 15, "the routes were not found: {registered:?}");
        assert_eq!(told, registered);
    }

    #[test]
    fn every_refusal_is_a_problem() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let answers = operation["responses"].as_object().unwrap();
                for (status, answer) in answers.iter().filter(|(status, _)| status.as_str() >= "400") {
                    let is_report = path == "/readyz";
                    let problem = &answer["content"]["application/problem+json"]["schema"]["$ref"];
                    assert!(
                        is_report || problem == "#/components/schemas/Problem",
                        "{method} {path}: {status}"
                    );
                }
                assert!(operation["summary"].as_str().is_some_and(|s| !s.is_empty()), "{method} {path}");
            }
        }
    }
}
