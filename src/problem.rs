//! Refusals as RFC 9457 problem details.
//!
//! A [`Problem`] knows its status, headers and body without a web framework, so that the upgrade path can
//! write one on a bare connection; for handlers it is an actix-web error.
//!
//! Beside the standard members, a problem with a bad input names it: `input`, its `value` (cut to 128
//! characters) and what is `allowed`.

use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::secret::has_token;

pub const CONTENT_TYPE: &str = "application/problem+json";

/// Of a bad value, this many characters are shown again.
const MAX_SHOWN: usize = 128;

/// A refusal, ready to be written.
#[derive(Debug, Clone)]
pub struct Problem {
    pub status: StatusCode,
    pub detail: String,
    pub input: Option<Box<BadInput>>,
    /// Beside the content type and length.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// What of the request was not as it must be.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BadInput {
    /// The parameter or header.
    #[serde(rename = "input")]
    pub name: String,
    pub value: String,
    pub allowed: String,
}

/// A refusal (RFC 9457). With a bad input it names that too: `input`, its `value` (cut) and what is `allowed`.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Body<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(flatten)]
    #[schema(value_type = MaybeBadInput)]
    input: Option<&'a BadInput>,
}

/// A bad input, where there was one.
struct MaybeBadInput;

impl PartialSchema for MaybeBadInput {
    fn schema() -> RefOr<Schema> {
        let mut schema = BadInput::schema();
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            object.required.clear();
        }
        schema
    }
}

impl ToSchema for MaybeBadInput {}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), input: None, headers: Vec::new() }
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 400 for a parameter or header whose value is not among what is allowed.
    pub fn bad_input(name: &str, value: &str, allowed: &str) -> Self {
        let shown = shown(value);
        Self::bad_request(format!("{name} is {shown:?}, allowed is {allowed}")).about(name, value, allowed)
    }

    pub fn unknown_parameter(name: &str, known: &[&str]) -> Self {
        let allowed = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Self::bad_request(format!("there is no parameter {:?}, allowed: {allowed}", shown(name))).about(
            &shown(name),
            "",
            &allowed,
        )
    }

    pub fn unknown_route(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("nothing is at {:?}", shown(path)))
    }

    pub fn wrong_method(method: &str, path: &str, allowed: &'static str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{} takes {allowed}, not {}", shown(path), shown(method)),
        )
        .header(header::ALLOW, HeaderValue::from_static(allowed))
    }

    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
            .header(header::WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="lastpong""#))
    }

    pub fn unavailable(detail: impl Into<String>, retry_after_seconds: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(retry_after_seconds)
    }

    /// Names the bad input.
    pub fn about(mut self, name: &str, value: &str, allowed: &str) -> Self {
        let input = BadInput { name: shown(name), value: shown(value), allowed: allowed.to_owned() };
        self.input = Some(Box::new(input));
        self
    }

    pub fn retry_after(self, seconds: u64) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The body, of type [`CONTENT_TYPE`].
    pub fn body(&self) -> String {
        let body = Body {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            input: self.input.as_deref(),
        };
        serde_json::to_string(&body).expect("a problem is plain data")
    }
}

/// A value as it may be told of: cut, and without what looks like a token that was put in the wrong place.
pub fn shown(value: &str) -> String {
    if has_token(value) {
        return "(a token)".to_owned();
    }
    value.chars().take(MAX_SHOWN).collect()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status.as_u16(), self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status);
        response.content_type(CONTENT_TYPE);
        for header in &self.headers {
            response.append_header(header.clone());
        }
        response.body(self.body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_input_is_named_and_cut() {
        let problem = Problem::bad_input("limit", &"9".repeat(1000), "1 to 1000");
        let body: serde_json::Value = serde_json::from_str(&problem.body()).unwrap();
        assert_eq!(body["type"], "about:blank");
        assert_eq!(body["title"], "Bad Request");
        assert_eq!(body["status"], 400);
        assert_eq!(body["input"], "limit");
        assert_eq!(body["value"], "9".repeat(MAX_SHOWN));
        assert_eq!(body["allowed"], "1 to 1000");
    }

    #[test]
    fn a_token_in_the_wrong_place_is_not_said() {
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJkIn0.c2lnbmF0dXJl-_";
        for problem in [
            Problem::bad_input("limit", token, "1 to 1000"),
            Problem::unknown_parameter(token, &["limit"]),
            Problem::unknown_route(&format!("/ws/{token}")),
            Problem::wrong_method("PUT", &format!("/v1/devices/{token}"), "GET"),
            Problem::bad_request("no").about(&format!("Bearer {token}"), token, ""),
        ] {
            assert!(!problem.body().contains("eyJ"), "{}", problem.body());
        }
        let like = "eyJ.is.not a token, nor eyJ.is";
        assert!(Problem::bad_input("limit", like, "").body().contains(like));
    }

    #[test]
    fn without_a_bad_input_there_is_no_such_member() {
        let body: serde_json::Value = serde_json::from_str(&Problem::unavailable("full", 5).body()).unwrap();
        let members: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert_eq!(members, ["detail", "status", "title", "type"]);
    }
}
