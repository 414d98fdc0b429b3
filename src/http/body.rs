//! Bodies of requests: neither their size nor their time is left to who sends them.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use utoipa::IntoResponses;
use utoipa::openapi::{RefOr, Response};

use super::openapi::refusals;
use crate::config::units::{parse_duration, show_duration};
use crate::problem::Problem;

/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What an operator asks for takes far less.
const MOST_BYTES: usize = 16 << 10;

/// # Errors
/// The 400, 408 or 413 to answer with.
pub(super) async fn read(body: web::Payload, most: usize) -> Result<web::Bytes, Problem> {
    match timeout(PATIENCE, body.to_bytes_limited(most)).await {
        Ok(Ok(Ok(body))) => Ok(body),
        Ok(Ok(Err(error))) => Err(Problem::bad_request(format!("the body cannot be read: {error}"))),
        Ok(Err(_)) => {
            let detail = format!("the body is too large, allowed is {most} bytes");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        Err(_) => {
            let detail = format!("the body did not come in {} s", PATIENCE.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
        }
    }
}

/// How a body is refused that comes too slowly, or is too large.
pub(super) struct Unread;

impl IntoResponses for Unread {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals([408, 413])
    }
}

/// A small object in JSON, of this `form`; nothing at all is `{}`.
///
/// # Errors
/// The 400, 408 or 413 to answer with.
pub(super) async fn object<T: DeserializeOwned>(body: web::Payload, form: &str) -> Result<T, Problem> {
    let body = read(body, MOST_BYTES).await?;
    let text: &[u8] = if body.iter().all(u8::is_ascii_whitespace) { b"{}" } else { &body };
    // An array would do for a struct as well.
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Problem::bad_request(format!("the body is not an object of the form {form}")));
    }
    serde_json::from_slice(text)
        .map_err(|error| Problem::bad_request(format!("the body is not of the form {form}: {error}")))
}

/// A duration that a body says.
///
/// # Errors
/// The 400 that names it.
pub(super) fn duration(
    name: &str,
    text: Option<&str>,
    least: Duration,
    most: Duration,
) -> Result<Option<Duration>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let read = parse_duration(text).filter(|duration| (least..=most).contains(duration));
    read.map(Some).ok_or_else(|| {
        let (least, most) = (show_duration(least), show_duration(most));
        Problem::bad_input(name, text, &format!("a duration of {least} to {most}, as 30s, 10m, 1h or 7d"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_within_its_bounds() {
        let read = |text| duration("ttl", Some(text), Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!(read("1m").unwrap(), Some(Duration::from_secs(60)));
        for bad in ["0s", "61s", "", "1", "-1s", "1h30m"] {
            let problem = read(bad).expect_err(bad);
            let input = problem.input.expect(bad);
            assert_eq!(
                (&*input.name, &*input.allowed),
                ("ttl", "a duration of 1s to 1m, as 30s, 10m, 1h or 7d")
            );
        }
    }
}
