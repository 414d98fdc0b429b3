//! What a setting's value may be: its form and its range, and how both are told.
//!
//! [`Kind::allows`] and [`Kind::allowed`] speak of the same rule, the second in words. [`Kind::shown`] is the only
//! way a value reaches a message or a list, and it shows no secret: neither a secret's value nor what a URL may
//! carry of one.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::redis_url::RedisUrl;
use super::units::{parse_bytes, parse_duration, show_bytes, show_duration};
use crate::ids::NodeId;
use crate::log_filter;

/// The form and range of one setting's value.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// From the first to the second, both included.
    Duration(Duration, Duration),
    /// A size in bytes, from the first to the second, both included.
    Bytes(usize, usize),
    /// A whole number from the first to the second, both included.
    Count(u64, u64),
    /// `true` or `false`.
    Flag,
    OneOf(&'static [&'static str]),
    /// An IP address and port.
    Address,
    Path,
    /// A line of at most so many bytes.
    Text(usize),
    /// A node's name.
    Name,
    /// At least this many bytes.
    Secret(usize),
    /// As [`Kind::Secret`], of characters that an HTTP header may carry.
    HeaderSecret(usize),
    /// Where the SQL store is.
    Database,
    /// Where Redis is.
    Redis,
    /// A URL of one of these schemes.
    Url(&'static [&'static str]),
    /// Web origins, with commas between.
    Origins,
    /// Addresses and networks, with commas between.
    Networks,
    /// Log levels, whole and by module.
    LogFilter,
}

impl Kind {
    pub fn allows(self, value: &str) -> bool {
        match self {
            Kind::Duration(min, max) => parse_duration(value).is_some_and(|d| (min..=max).contains(&d)),
            Kind::Bytes(min, max) => parse_bytes(value).is_some_and(|n| (min..=max).contains(&n)),
            Kind::Count(min, max) => {
                value.bytes().all(|b| b.is_ascii_digit())
                    && value.parse::<u64>().is_ok_and(|n| (min..=max).contains(&n))
            }
            Kind::Flag => matches!(value, "true" | "false"),
            Kind::OneOf(words) => words.contains(&value),
            Kind::Address => value.parse::<SocketAddr>().is_ok(),
            Kind::Path => !value.is_empty(),
            Kind::Text(max) => (1..=max).contains(&value.len()) && !value.contains(char::is_control),
            Kind::Name => value.parse::<NodeId>().is_ok(),
            Kind::Secret(min) => value.len() >= min,
            Kind::HeaderSecret(min) => value.len() >= min && value.bytes().all(|b| b.is_ascii_graphic()),
            Kind::Database => !value.is_empty() && sqlite_path(value) != Some(""),
            Kind::Redis => RedisUrl::parse(value).is_some(),
            Kind::Url(schemes) => {
                value.split_once("://").is_some_and(|(s, rest)| schemes.contains(&s) && !rest.is_empty())
            }
            Kind::Origins => origins(value).all(|o| o == "*" || is_origin(o)),
            Kind::Networks => networks(value).is_some(),
            Kind::LogFilter => log_filter::check_at_start(value).is_ok(),
        }
    }

    /// What [`Kind::allows`] lets through, in words.
    pub fn allowed(self) -> String {
        match self {
            Kind::Duration(min, max) => {
                format!(
                    "a duration of {} to {}, as 500ms, 25s, 5m, 1h or 7d",
                    show_duration(min),
                    show_duration(max)
                )
            }
            Kind::Bytes(min, max) => {
                format!("a size of {} to {}, as 65536, 64KiB or 1MiB", show_bytes(min), show_bytes(max))
            }
            Kind::Count(min, max) => format!("a whole number of {min} to {max}"),
            Kind::Flag => "true or false".into(),
            Kind::OneOf(words) => words.join(" or "),
            Kind::Address => "IP:PORT, as 127.0.0.1:8080 or [::1]:8080".into(),
            Kind::Path => "a path".into(),
            Kind::Text(max) => format!("a line of 1 to {max} bytes"),
            Kind::Name => "1-128 of [A-Za-z0-9._:@-]".into(),
            Kind::Secret(min) => format!("at least {min} bytes"),
            Kind::HeaderSecret(min) => format!("at least {min} printable ASCII characters without a space"),
            Kind::Database => DATABASES.into(),
            Kind::Redis => RedisUrl::ALLOWED.into(),
            Kind::Url(schemes) => format!("a URL that begins with {}", schemes.join(":// or ") + "://"),
            Kind::Origins => {
                "* or origins as https://example.com or http://10.0.0.1:3000, with commas between".into()
            }
            Kind::Networks => {
                "addresses or networks as 10.0.0.7, 10.0.0.0/8 or fd00::/8, with commas between".into()
            }
            Kind::LogFilter => log_filter::ALLOWED_AT_START.into(),
        }
    }

    /// The value as people may see it.
    pub fn shown(self, value: &str) -> String {
        match self {
            Kind::Secret(_) | Kind::HeaderSecret(_) => "***".into(),
            Kind::Database if sqlite_path(value).is_some() => value.into(),
            Kind::Database | Kind::Redis | Kind::Url(_) => match value.split_once("://") {
                Some((scheme, rest)) => match rest.rsplit_once('@') {
                    None if !rest.contains(['?', '#']) => value.into(),
                    _ => format!("{scheme}://***"),
                },
                // Might be `host=… password=…`, as Postgres also takes it.
                None if value.contains('=') => "***".into(),
                None => value.into(),
            },
            _ => value.into(),
        }
    }
}

/// What [`Kind::Database`] may be.
pub const DATABASES: &str =
    "a path, sqlite: with a path after it, or postgres://USER:PASSWORD@HOST:PORT/DATABASE";

/// Whether a database URL means Postgres.
pub fn is_postgres(url: &str) -> bool {
    url.split_once("://")
        .is_some_and(|(scheme, rest)| matches!(scheme, "postgres" | "postgresql") && !rest.is_empty())
}

/// The path of a database that is SQLite's by its URL; `None` where the URL says nothing of SQLite.
pub fn sqlite_path(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("sqlite:")?;
    Some(rest.strip_prefix("//").unwrap_or(rest))
}

/// The entries of a list of origins, without the slash that some write at the end.
pub fn origins(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(|o| o.trim().trim_end_matches('/')).filter(|o| !o.is_empty())
}

/// The networks of a list; an address is one of itself alone.
pub fn networks(list: &str) -> Option<Vec<IpNet>> {
    let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(|e| e.parse().or_else(|_| e.parse::<IpAddr>().map(IpNet::from)).ok()).collect()
}

fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|h| {
        !h.is_empty() && h.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let (secret, bearer) = (Kind::Secret(32), Kind::HeaderSecret(16));
        let url = Kind::Redis;
        for (kind, value) in [
            (secret, "hunter2"),
            (bearer, "hunter2"),
            (Kind::Database, "postgres://me:hunter2@db/lastpong"),
            (Kind::Database, "postgres://db/lastpong?password=hunter2"),
            (Kind::Database, "host=db password=hunter2"),
            (url, "redis://:hunter2@cache:6379"),
            (url, "redis://:a@hunter2@cache:6379"),
            (url, "redis+sentinel://:hunter2@a,b/main"),
            (url, "unix:///run/redis.sock?pass=hunter2"),
        ] {
            let shown = kind.shown(value);
            assert!(!shown.contains("hunter2") && shown.contains("***"), "{value} was shown as {shown}");
        }
        assert_eq!(Kind::Database.shown("sqlite:/var/lib/lastpong.db"), "sqlite:/var/lib/lastpong.db");
        assert_eq!(url.shown("redis://cache:6379"), "redis://cache:6379");
    }

    #[test]
    fn each_form_has_its_bounds() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let cases: &[(Kind, &[&str], &[&str])] = &[
            (Kind::Duration(second, minute), &["1s", "60s", "1m"], &["999ms", "61s", "", "x"]),
            (Kind::Bytes(10, 1024), &["10", "1KiB"], &["9", "1025", "2KiB", ""]),
            (Kind::Count(0, 9), &["0", "9"], &["10", "-1", "+1", "1.0", " 1", ""]),
            (Kind::Flag, &["true", "false"], &["TRUE", "1", "yes", ""]),
            (Kind::OneOf(&["a", "b"]), &["a", "b"], &["c", "A", ""]),
            (
                Kind::Address,
                &["127.0.0.1:0", "[::1]:8080"],
                &["localhost:80", "127.0.0.1", ":80", "1.2.3.4:70000"],
            ),
            (Kind::Text(4), &["a b", "é"], &["", "abcde", "a\nb"]),
            (Kind::Name, &["node-1.example"], &["", "a b", "é"]),
            (Kind::Secret(4), &["abcd"], &["abc"]),
            (Kind::HeaderSecret(4), &["ab:d"], &["abc", "ab d", "abcdé"]),
            (Kind::Database, &["x.db", "sqlite:x.db", "sqlite:///x.db"], &["", "sqlite:", "sqlite://"]),
            (Kind::Url(&["http"]), &["http://a"], &["http://", "ftp://a", "a"]),
            (
                Kind::Origins,
                &["*", "https://a.b", "http://a:1, https://b/"],
                &["a.b", "https://", "https://a/x", "null"],
            ),
            (Kind::Networks, &["10.0.0.7", "10.0.0.0/8, fd00::/8"], &["10.0.0.0/33", "proxy", "10.0.0"]),
            (
                Kind::LogFilter,
                &["info", "warn,lastpong::feed=trace"],
                &["lastpong=loud", "a=b=c", "info/text"],
            ),
        ];
        for (kind, good, bad) in cases {
            for value in *good {
                assert!(kind.allows(value), "{kind:?} refused {value:?}");
            }
            for value in *bad {
                assert!(!kind.allows(value), "{kind:?} let {value:?} in");
            }
        }
    }
}
