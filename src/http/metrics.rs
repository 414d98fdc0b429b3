//! `GET /metrics`: the Prometheus text format.

use actix_web::{HttpRequest, HttpResponse, web};

use super::Doors;
use super::auth::allowed;
use crate::problem::Problem;
use crate::role::Role;

/// Prometheus's text format. Open to everyone with LASTPONG_METRICS_PUBLIC=true
#[utoipa::path(
    get, path = "/metrics", tag = "probes",
    responses((status = 200, body = String, content_type = "text/plain")),
)]
pub(super) async fn metrics(request: HttpRequest, doors: web::Data<Doors>) -> Result<HttpResponse, Problem> {
    if !doors.metrics_public {
        allowed(&request, Role::Reader).await?;
    }
    // Lag is a difference of two moving numbers: it is reckoned when someone looks.
    doors.feed.standing();
    Ok(HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(doors.metrics.render()))
}
