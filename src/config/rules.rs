//! What settings must be together, and what this version does not do yet.
//!
//! A setting that asks for something unbuilt stops the start, where going on without it would break what the
//! operator counts on. One that is merely without effect yet is told by [`Settings::without_effect`].

use std::time::Duration;

use super::kind::{DATABASES, is_postgres, sqlite_path};
use super::table::{Settings, TlsClients};
use super::{ConfigError, NOT_SUPPORTED};
use crate::secret::Secret;

impl Settings {
    /// # Errors
    /// The first setting that does not fit the others, or that this version cannot do.
    pub(super) fn check_together(&self) -> Result<(), ConfigError> {
        self.check_support()?;
        if self.max_frame_bytes > self.max_message_bytes {
            let limit = self.value_of("LASTPONG_MAX_MESSAGE_BYTES");
            return Err(self.bad(
                "LASTPONG_MAX_FRAME_BYTES",
                format!("at most LASTPONG_MAX_MESSAGE_BYTES, which is {limit}"),
            ));
        }
        if !self.token_hs256 && self.token_keys.is_none() {
            let needed = "true, or false once LASTPONG_TOKEN_KEYS is set".to_owned();
            return Err(self.bad("LASTPONG_TOKEN_HS256", needed));
        }
        self.check_tls()?;
        if self.is_local() {
            return Ok(());
        }
        let secrets =
            [("LASTPONG_ADMIN_TOKEN", &self.admin_token), ("LASTPONG_TOKEN_SECRET", &self.token_secret)];
        let unset: Vec<_> = secrets.iter().filter(|(_, s)| s.is_none()).map(|(name, _)| *name).collect();
        if !unset.is_empty() {
            let needed = unset.join(" and ");
            return Err(self.bad(
                "LASTPONG_BIND",
                format!("a loopback address as 127.0.0.1:8080, or any other once {needed} is set"),
            ));
        }
        Ok(())
    }

    fn check_tls(&self) -> Result<(), ConfigError> {
        let without = |name: &'static str, needed: &str| {
            Err(self.bad(name, format!("{} only together with {needed}", self.value_of(name).escape_debug())))
        };
        match (&self.tls_cert, &self.tls_key, &self.tls_client_ca) {
            (Some(_), None, _) => without("LASTPONG_TLS_CERT", "LASTPONG_TLS_KEY"),
            (None, Some(_), _) => without("LASTPONG_TLS_KEY", "LASTPONG_TLS_CERT"),
            (None, None, Some(_)) => without("LASTPONG_TLS_CLIENT_CA", "LASTPONG_TLS_CERT"),
            (_, _, None) if self.tls_clients != TlsClients::Optional => {
                without("LASTPONG_TLS_CLIENTS", "LASTPONG_TLS_CLIENT_CA")
            }
            _ => Ok(()),
        }
    }

    fn check_support(&self) -> Result<(), ConfigError> {
        let unsupported = |name: &'static str, allowed: &str| {
            let value = self.value_of(name);
            Err(self.bad(name, format!("{allowed} ({} {NOT_SUPPORTED})", value.escape_debug())))
        };
        let database = self.database_url.as_ref().map(Secret::expose);
        if database.is_some_and(|url| !is_postgres(url) && !is_sqlite_file(url)) {
            return unsupported("DATABASE_URL", DATABASES);
        }
        if self.resume_window > Duration::ZERO {
            return unsupported("LASTPONG_RESUME_WINDOW", "0s");
        }
        Ok(())
    }

    /// What its addresses begin with, for HTTP.
    pub fn scheme(&self) -> &'static str {
        if self.tls_cert.is_some() { "https" } else { "http" }
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        self.bind.ip().to_canonical().is_loopback()
    }
}

/// Whether a database URL means a plain SQLite file: not another store, not memory, which would lose what was
/// promised to be durable, and not one of SQLite's own URIs, whose parameters could turn durability off.
fn is_sqlite_file(url: &str) -> bool {
    let path = match sqlite_path(url) {
        Some(path) => path,
        None if url.contains("://") || (url.contains('=') && !url.contains('/')) => return false,
        None => url,
    };
    !path.contains(['?', '\0']) && !path.starts_with("file:") && path != ":memory:"
}
