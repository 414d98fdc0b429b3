//! The body of a request: neither its size nor its time is left to who sends it.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web;
use tokio::time::timeout;

use crate::problem::Problem;

/// How long a body may take.
const BODY: Duration = Duration::from_secs(10);

/// # Errors
/// The 400, 408 or 413 to answer with.
pub(super) async fn read(body: web::Payload, most_bytes: usize) -> Result<web::Bytes, Problem> {
    match timeout(BODY, body.to_bytes_limited(most_bytes)).await {
        Ok(Ok(Ok(body))) => Ok(body),
        Ok(Ok(Err(error))) => Err(Problem::bad_request(format!("the body cannot be read: {error}"))),
        Ok(Err(_)) => {
            let detail = format!("the body is too large, allowed is {most_bytes} bytes");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        Err(_) => {
            let detail = format!("the body did not come in {} s", BODY.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
        }
    }
}
