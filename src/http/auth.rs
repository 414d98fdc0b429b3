//! The admin token: `Authorization: Bearer TOKEN`, compared in constant time.
//!
//! [`Admin`] is an extractor: a handler that takes one is reached only with the token. Users, read tokens and
//! the dashboard's cookie are left out here.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, web};

use super::Doors;
use crate::problem::Problem;
use crate::secret::Secret;

/// Who holds the admin token.
pub struct AdminAuth {
    token: Secret,
}

impl AdminAuth {
    /// An empty token opens nothing.
    pub fn new(token: Secret) -> Self {
        Self { token }
    }

    /// # Errors
    /// The 401 to answer with, where the value of the `Authorization` header does not carry the token.
    pub fn check(&self, authorization: Option<&str>) -> Result<(), Problem> {
        let Some(value) = authorization else {
            return Err(Problem::unauthorized("this needs `Authorization: Bearer` with the admin token"));
        };
        let given = match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(Problem::unauthorized("the Authorization header is not of the scheme Bearer")),
        };
        if !self.token.expose().is_empty() && self.token.matches(given.as_bytes()) {
            return Ok(());
        }
        Err(Problem::unauthorized("the admin token is not the right one"))
    }
}

/// Proof that a request carried the admin token.
pub struct Admin(());

impl FromRequest for Admin {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, actix_web::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let Some(doors) = request.app_data::<web::Data<Doors>>() else {
            return ready(Err(Problem::unauthorized("no admin token is set").into()));
        };
        ready(doors.authorize(authorization(request)).map(|()| Admin(())).map_err(Into::into))
    }
}

/// The `Authorization` header, where it is there and is text.
pub(super) fn authorization(request: &HttpRequest) -> Option<&str> {
    request.headers().get(header::AUTHORIZATION)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_opens() {
        let auth = AdminAuth::new(Secret::from("s3cret".to_owned()));
        assert!(auth.check(Some("Bearer s3cret")).is_ok());
        assert!(auth.check(Some("bearer  s3cret ")).is_ok());
        for bad in ["s3cret", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret1", "Basic s3cret"] {
            let problem = auth.check(Some(bad)).unwrap_err();
            assert_eq!(problem.status, 401, "{bad:?}");
            assert_eq!(problem.headers[0].0, header::WWW_AUTHENTICATE);
        }
        assert!(auth.check(None).is_err());
    }

    #[test]
    fn an_empty_token_opens_nothing() {
        let auth = AdminAuth::new(Secret::from(String::new()));
        for given in ["Bearer ", "Bearer", ""] {
            assert!(auth.check(Some(given)).is_err());
        }
    }
}
