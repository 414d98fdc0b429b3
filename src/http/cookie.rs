//! The cookie that carries a login (RFC 6265).
//!
//! It is `HttpOnly` (no script reads it), `SameSite=Strict` (no other site's page or link sends it), of this host alone
//! (no `Domain`), and `Secure` where the browser speaks TLS. It has no end of its own: it goes with the browser, and the
//! record says when it is over.

use actix_web::http::header::{COOKIE, HeaderMap};

use crate::secret::Secret;

pub(super) const NAME: &str = "lastpong_login";

/// The value of `Set-Cookie` that sets it.
pub(super) fn set(token: &Secret, tls: bool) -> String {
    format!("{NAME}={}; {}", token.expose(), attributes(tls))
}

/// The value of `Set-Cookie` that takes it away.
pub(super) fn clear(tls: bool) -> String {
    format!("{NAME}=; Max-Age=0; {}", attributes(tls))
}

fn attributes(tls: bool) -> &'static str {
    if tls { "Path=/; HttpOnly; SameSite=Strict; Secure" } else { "Path=/; HttpOnly; SameSite=Strict" }
}

/// Its value in a request; the first, where there are several.
pub(super) fn read(headers: &HeaderMap) -> Option<Secret> {
    let pairs = headers.get_all(COOKIE).filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(';'));
    let mut values = pairs.filter_map(|pair| pair.split_once('=')).filter(|(name, _)| name.trim() == NAME);
    values.next().map(|(_, value)| Secret::new(value.trim().trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn found(cookies: &[&str]) -> Option<String> {
        let mut request = TestRequest::get();
        for cookie in cookies {
            request = request.append_header((COOKIE, *cookie));
        }
        read(request.to_http_request().headers()).map(|value| value.expose().to_owned())
    }

    #[test]
    fn it_is_found_among_others() {
        assert_eq!(found(&["lastpong_login=abc"]).as_deref(), Some("abc"));
        assert_eq!(found(&["a=b; lastpong_login=abc; c=d"]).as_deref(), Some("abc"));
        assert_eq!(found(&["a=b;lastpong_login=abc"]).as_deref(), Some("abc"));
        assert_eq!(found(&["a=b", "lastpong_login=\"abc\""]).as_deref(), Some("abc"));
        assert_eq!(found(&["lastpong_login=abc; lastpong_login=def"]).as_deref(), Some("abc"));
        for none in
            ["", "lastpong_login", "xlastpong_login=abc", "lastpong_loginx=abc", "LASTPONG_LOGIN=abc", ";;="]
        {
            assert_eq!(found(&[none]), None, "{none:?}");
        }
        assert_eq!(found(&[]), None);
        assert_eq!(found(&["lastpong_login=a=b"]).as_deref(), Some("a=b"));
    }

    #[test]
    fn it_is_kept_from_scripts_and_other_sites() {
        let token = Secret::new("abc");
        assert_eq!(set(&token, false), "lastpong_login=abc; Path=/; HttpOnly; SameSite=Strict");
        assert_eq!(set(&token, true), "lastpong_login=abc; Path=/; HttpOnly; SameSite=Strict; Secure");
        assert!(clear(true).starts_with("lastpong_login=; Max-Age=0; Path=/;"));
    }
}
