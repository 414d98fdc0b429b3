//! Every setting: read once, checked whole, and then only looked at.
//!
//! - Nothing else in lastpong reads the environment.
//! - Values come from the environment, then from the file `.env` of the working folder, then from the defaults.
//! - Whoever holds [`Settings`] holds valid ones: what is unknown, malformed, out of range, contradictory or not
//!   built yet was refused with one line that names it, its value and what is allowed.
//! - No message and no list shows a secret.
//!
//! The table of settings is in `table.rs`, forms and ranges in `kind.rs`, what must fit together in `rules.rs`,
//! where values come from in `read.rs`.
//! An empty value is the same as none for settings whose default is empty, and malformed for all others.

mod kind;
pub(crate) mod read;
mod redis_url;
mod rules;
mod table;
pub mod units;

use std::fmt::Write;
use std::io;
use std::path::PathBuf;

pub use kind::Kind;
pub use redis_url::RedisUrl;
pub use table::{ForwardedBy, LogFormat, ReplayAway, Setting, Settings, TABLE, TlsClients, TokenReplay};

use crate::secret::Secret;
use read::Given;

const NOT_SUPPORTED: &str = "is not supported by this version";

/// The shortest key of device tokens: as long as the hash that HS256 makes (RFC 7518, section 3.2).
const MIN_TOKEN_SECRET_BYTES: usize = 32;
const MIN_ADMIN_TOKEN_BYTES: usize = 16;

/// Why settings were refused: always one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{name}={shown:?}: allowed is {allowed}")]
    BadValue { name: String, shown: String, allowed: String },
    #[error("{name}={shown:?}: no such setting, the nearest is {nearest}; .env.example lists all")]
    Unknown { name: String, shown: String, nearest: &'static str },
    #[error("{name:?}: webhooks are not supported by this version; .env.example lists every setting")]
    Webhook { name: String },
    #[error(".env: {0}")]
    DotEnv(String),
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Environment,
    DotEnv,
    Default,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Source::Environment => "environment",
            Source::DotEnv => ".env",
            Source::Default => "default",
        })
    }
}

/// Where the SQL store is.
#[derive(Debug, Clone)]
pub enum Database {
    /// A file of this node alone.
    Sqlite(PathBuf),
    /// A server that many nodes share, by its URL.
    Postgres(Secret),
}

/// A setting as it came out.
#[derive(Debug, Clone)]
pub struct Effective {
    pub setting: &'static Setting,
    /// As people may see it.
    pub shown: String,
    pub source: Source,
}

impl Settings {
    /// Reads the environment and `.env`.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn load() -> Result<Self, ConfigError> {
        Self::build(read::given()?)
    }

    /// Settings of these variables alone, as if they were the whole environment.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self, ConfigError>
    where
        N: Into<String>,
        V: Into<String>,
    {
        Self::build(pairs.into_iter().map(|(n, v)| (n.into(), (v.into(), Source::Environment))).collect())
    }

    fn build(mut given: Given) -> Result<Self, ConfigError> {
        read::refuse_unknown(&given)?;
        let mut pairs = Vec::with_capacity(TABLE.len());
        let mut effective = Vec::with_capacity(TABLE.len());
        for setting in TABLE {
            let (value, source) = match given.remove(setting.name) {
                Some((value, _)) if value.is_empty() && setting.default.is_empty() => {
                    (value, Source::Default)
                }
                Some(found) => found,
                None => (setting.default.to_owned(), Source::Default),
            };
            if !value.is_empty() || !setting.default.is_empty() {
                if !setting.kind.allows(&value) {
                    return Err(bad_value(setting, &value, setting.kind.allowed()));
                }
                pairs.push((setting.key.to_owned(), value.clone()));
            }
            let shown = if value.is_empty() { value } else { setting.kind.shown(&value) };
            effective.push(Effective { setting, shown, source });
        }
        let mut settings: Settings = envy::from_iter(pairs.clone()).map_err(|_| culprit(&pairs))?;
        settings.effective = effective;
        settings.check_together()?;
        settings.show_what_was_worked_out();
        Ok(settings)
    }

    /// Every setting with its value and where that came from, in the order of the table.
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }

    /// The settings that were changed but do nothing yet in this version.
    pub fn without_effect(&self) -> Vec<&'static str> {
        let idle = |e: &&Effective| !e.setting.effect && !e.shown.is_empty() && e.shown != e.setting.default;
        self.effective.iter().filter(idle).map(|e| e.setting.name).collect()
    }

    /// Where the SQL store is.
    pub fn database(&self) -> Database {
        match &self.database_url {
            Some(url) if kind::is_postgres(url.expose()) => Database::Postgres(url.clone()),
            Some(url) => {
                let url = url.expose();
                Database::Sqlite(kind::sqlite_path(url).unwrap_or(url).into())
            }
            None => Database::Sqlite(self.data_dir.join("lastpong.db")),
        }
    }

    /// Where the key of device tokens is kept unless it is set.
    pub fn token_secret_path(&self) -> PathBuf {
        self.data_dir.join("token.secret")
    }

    /// Where the admin token is kept unless it is set.
    pub fn admin_token_path(&self) -> PathBuf {
        self.data_dir.join("admin.token")
    }

    /// The key of device tokens: as set, or from its file, which is made where it is missing; and whether it
    /// was made.
    ///
    /// # Errors
    /// A file that cannot be made or used.
    pub fn token_secret(&self) -> io::Result<(Secret, bool)> {
        match &self.token_secret {
            Some(secret) => Ok((secret.clone(), false)),
            None => Secret::load_or_create(&self.token_secret_path(), MIN_TOKEN_SECRET_BYTES),
        }
    }

    /// The admin token, in the way of [`Settings::token_secret`].
    ///
    /// # Errors
    /// A file that cannot be made or used.
    pub fn admin_token(&self) -> io::Result<(Secret, bool)> {
        match &self.admin_token {
            Some(token) => Ok((token.clone(), false)),
            None => Secret::load_or_create(&self.admin_token_path(), MIN_ADMIN_TOKEN_BYTES),
        }
    }

    /// The admin token as set, or from its file, which is not made where it is missing.
    ///
    /// # Errors
    /// A file that is not there or cannot be used.
    pub fn known_admin_token(&self) -> io::Result<Secret> {
        match &self.admin_token {
            Some(token) => Ok(token.clone()),
            None => Secret::load(&self.admin_token_path(), MIN_ADMIN_TOKEN_BYTES),
        }
    }

    /// Whether a handshake with this `Origin` header may go on, sent to this `Host`.
    ///
    /// A program that is no browser sends no origin, and a browser cannot leave it out, so none is let in. With
    /// no list, a page may connect to the host it came from and no page of another's site can.
    pub fn origin_allowed(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if self.allowed_origins.is_empty() {
            return host.is_some_and(|host| is_of_host(origin, host));
        }
        self.allowed_origins.iter().any(|o| o == "*" || o.eq_ignore_ascii_case(origin))
    }

    fn value_of(&self, name: &str) -> &str {
        self.effective.iter().find(|e| e.setting.name == name).map_or("", |e| &e.shown)
    }

    fn bad(&self, name: &'static str, allowed: String) -> ConfigError {
        ConfigError::BadValue { name: name.into(), shown: self.value_of(name).into(), allowed }
    }

    fn show_what_was_worked_out(&mut self) {
        let (node, workers) = (self.node_id.to_string(), self.workers.to_string());
        let database = match self.database() {
            Database::Sqlite(path) => format!("sqlite:{}", path.display()),
            Database::Postgres(_) => String::new(),
        };
        for (name, value) in
            [("LASTPONG_NODE_ID", node), ("LASTPONG_WORKERS", workers), ("DATABASE_URL", database)]
        {
            if let Some(e) = self.effective.iter_mut().find(|e| e.setting.name == name && e.shown.is_empty())
            {
                e.shown = value;
            }
        }
    }
}

/// The text of `.env.example`: every setting with its meaning, bounds, unit and default.
pub fn env_example() -> String {
    let mut text = String::from(
        "# Every setting of lastpong with its default. Copy this file to .env and change what should differ;\n\
         # the environment wins over .env. An empty value is worked out at start, as its text says. A value with\n\
         # a space, $ or # belongs in single quotes.\n",
    );
    let mut group = "";
    for s in TABLE {
        if s.group != group {
            group = s.group;
            let _ = write!(text, "\n## {group}\n");
        }
        text.push('\n');
        for line in s.doc {
            let _ = writeln!(text, "#{line}");
        }
        let later = if s.effect { "" } else { " Without effect in this version." };
        let _ = writeln!(text, "# Allowed: {}.{later}\n{}={}", s.kind.allowed(), s.name, s.default);
    }
    text
}

/// Whether a web page of this `Origin` is one of this `Host`.
///
/// Host names are compared without case, and with the port that the origin's scheme means where none is said.
pub fn is_of_host(origin: &str, host: &str) -> bool {
    let (port, authority) = match origin.split_once("://") {
        Some(("https", authority)) => (":443", authority),
        Some(("http", authority)) => (":80", authority),
        _ => return false,
    };
    let bare = |a: &str| a.strip_suffix(port).unwrap_or(a).to_ascii_lowercase();
    !authority.is_empty() && bare(authority) == bare(host)
}

fn bad_value(setting: &Setting, value: &str, allowed: String) -> ConfigError {
    let shown = setting.kind.shown(value).chars().take(80).collect();
    ConfigError::BadValue { name: setting.name.into(), shown, allowed }
}

/// The setting that cannot be read although its form is right: each is tried with the defaults of all others.
/// It could only be one whose type holds less than its range allows, so this is a second net.
fn culprit(pairs: &[(String, String)]) -> ConfigError {
    let defaults =
        || TABLE.iter().filter(|s| !s.default.is_empty()).map(|s| (s.key.to_owned(), s.default.to_owned()));
    for (key, value) in pairs {
        let others = defaults().filter(|(k, _)| k != key);
        let alone = others.chain([(key.clone(), value.clone())]);
        if envy::from_iter::<_, Settings>(alone).is_err()
            && let Some(setting) = TABLE.iter().find(|s| s.key == key)
        {
            return bad_value(setting, value, setting.kind.allowed());
        }
    }
    ConfigError::DotEnv("cannot be read together with the environment".into())
}

#[cfg(test)]
mod tests;
