//! `GET /metrics`: the Prometheus text format.

use actix_web::{HttpRequest, HttpResponse, web};

use super::Doors;
use super::auth::authorization;
use crate::problem::Problem;

pub(super) async fn metrics(request: HttpRequest, doors: web::Data<Doors>) -> Result<HttpResponse, Problem> {
    if !doors.metrics_public {
        doors.authorize(authorization(&request))?;
    }
    // Lag is a difference of two moving numbers: it is reckoned when someone looks.
    doors.feed.standing();
    Ok(HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(doors.metrics.render()))
}
