//! What pages are made of, embedded: `GET /assets/{name}`.
//!
//! Open to everyone, for there is nothing of anyone in it. A browser asks again each time and is told by the tag that it
//! has it, so that no page meets the script of another version.

use std::sync::LazyLock;

use actix_web::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::problem::{self, Problem};

struct Asset {
    name: &'static str,
    kind: &'static str,
    body: &'static [u8],
    tag: String,
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    const STYLE: &str = "text/css; charset=utf-8";
    let all: [(&str, &str, &[u8]); 6] = [
        ("app.js", SCRIPT, include_bytes!("../../../assets/app.js")),
        ("dashboard.js", SCRIPT, include_bytes!("../../../assets/dashboard.js")),
        ("style.css", STYLE, include_bytes!("../../../assets/style.css")),
        ("icon.svg", "image/svg+xml", include_bytes!("../../../assets/icon.svg")),
        ("uplot.js", SCRIPT, include_bytes!("../../../assets/uplot/uPlot.iife.min.js")),
        ("uplot.css", STYLE, include_bytes!("../../../assets/uplot/uPlot.min.css")),
    ];
    let asset = |(name, kind, body): (&'static str, &'static str, &'static [u8])| {
        let digest = Sha256::digest(body);
        let tag = digest[..12].iter().fold("\"".to_owned(), |tag, byte| tag + &format!("{byte:02x}")) + "\"";
        Asset { name, kind, body, tag }
    };
    all.into_iter().map(asset).collect()
});

/// What pages are made of
#[utoipa::path(
    get, path = "/assets/{name}", tag = "pages", security(()),
    params(("name" = String, Path)),
    responses(
        (status = 200, body = String, content_type = "text/javascript"),
        (status = 304, description = "The browser has it."),
        (status = 404, body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn asset(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let name = request.match_info().query("name");
    let asset = ASSETS.iter().find(|asset| asset.name == name);
    let asset = asset.ok_or_else(|| Problem::unknown_route(request.path()))?;
    let has_it =
        request.headers().get(IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes() == asset.tag.as_bytes());
    let mut response = if has_it { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((ETAG, asset.tag.as_str()))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"));
    if has_it {
        return Ok(response.finish());
    }
    Ok(response.content_type(asset.kind).body(Bytes::from_static(asset.body)))
}
