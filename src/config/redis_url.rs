//! How Redis may be reached: one server, the master that Sentinels name, or a cluster.
//!
//! | form | means |
//! | --- | --- |
//! | `redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]` | one server |
//! | `unix:///PATH[?db=DB&user=USER&pass=PASSWORD]` | one server on this machine |
//! | `redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT],…/NAME[/DB]` | the master called NAME, asked of these Sentinels |
//! | `redis+cluster://[[USER]:PASSWORD@]HOST[:PORT],…` | a cluster that these are some of |
//!
//! `rediss` in place of `redis` speaks TLS. User and password are Redis's; Sentinels are asked without.

use redis::IntoConnectionInfo;

use crate::secret::Secret;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// A URL of Redis, taken apart.
#[derive(Debug, Clone)]
pub enum RedisUrl {
    Server(Secret),
    Sentinel {
        /// A URL each.
        sentinels: Vec<String>,
        master: String,
        /// How to log in at the master, as the URL of a server whose address says nothing.
        login: Secret,
        tls: bool,
    },
    /// A URL each.
    Cluster(Vec<Secret>),
}

impl RedisUrl {
    /// What [`RedisUrl::parse`] takes, in words.
    pub const ALLOWED: &str = "redis://HOST:PORT/DB, unix:///PATH, redis+sentinel://HOST:PORT,HOST:PORT/MASTER or \
         redis+cluster://HOST:PORT,HOST:PORT, with rediss for TLS, and USER:PASSWORD@ before the hosts where they ask for it";

    /// None where it is no such URL.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        match scheme {
            "redis" | "rediss" | "unix" => {
                url.into_connection_info().ok()?;
                Some(Self::Server(Secret::new(url)))
            }
            "redis+sentinel" | "rediss+sentinel" => Self::sentinel(scheme, rest),
            "redis+cluster" | "rediss+cluster" => Self::cluster(scheme, rest),
            _ => None,
        }
    }

    fn sentinel(scheme: &str, rest: &str) -> Option<Self> {
        let (login, rest) = split_login(rest);
        let (hosts, path) = rest.split_once('/')?;
        let (master, db) = path.split_once('/').unwrap_or((path, "0"));
        if master.is_empty() || master.contains(['?', '#', '@']) {
            return None;
        }
        let tls = scheme.starts_with("rediss");
        let plain = if tls { "rediss" } else { "redis" };
        let login = format!("{plain}://{login}master/{db}");
        login.as_str().into_connection_info().ok()?;
        let sentinels = servers(plain, "", hosts, SENTINEL_PORT)?;
        Some(Self::Sentinel { sentinels, master: master.to_owned(), login: Secret::new(login), tls })
    }

    fn cluster(scheme: &str, rest: &str) -> Option<Self> {
        let (login, hosts) = split_login(rest);
        let plain = if scheme.starts_with("rediss") { "rediss" } else { "redis" };
        let servers = servers(plain, login, hosts.strip_suffix('/').unwrap_or(hosts), PORT)?;
        Some(Self::Cluster(servers.into_iter().map(Secret::new).collect()))
    }
}

/// `USER:PASSWORD@`, or nothing, and what follows.
fn split_login(rest: &str) -> (&str, &str) {
    rest.rfind('@').map_or(("", rest), |at| rest.split_at(at + 1))
}

fn servers(scheme: &str, login: &str, hosts: &str, port: u16) -> Option<Vec<String>> {
    let server = |host: &str| {
        if host.is_empty() || host.contains(['/', '?', '#', '@']) {
            return None;
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let url = if has_port {
            format!("{scheme}://{login}{host}")
        } else {
            format!("{scheme}://{login}{host}:{port}")
        };
        url.as_str().into_connection_info().is_ok().then_some(url)
    };
    hosts.split(',').map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_taken_apart() {
        for good in
            ["redis://h", "rediss://u:p@h:1/2", "redis://:p@h:1", "unix:///run/redis.sock", "redis://[::1]:1"]
        {
            assert!(
                matches!(RedisUrl::parse(good), Some(RedisUrl::Server(url)) if url.expose() == good),
                "{good}"
            );
        }
        let Some(RedisUrl::Sentinel { sentinels, master, login, tls }) =
            RedisUrl::parse("rediss+sentinel://u:p@w@a,b:7/main/3")
        else {
            panic!("no sentinel");
        };
        assert_eq!(sentinels, ["rediss://a:26379", "rediss://b:7"]);
        assert_eq!((master.as_str(), login.expose(), tls), ("main", "rediss://u:p@w@master/3", true));
        let Some(RedisUrl::Cluster(servers)) = RedisUrl::parse("redis+cluster://:p@a:1,b,[::1]:7/") else {
            panic!("no cluster");
        };
        let servers: Vec<_> = servers.iter().map(Secret::expose).collect();
        assert_eq!(servers, ["redis://:p@a:1", "redis://:p@b:6379", "redis://:p@[::1]:7"]);
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "",
            "h:6379",
            "http://h",
            "redis://",
            "redis://h:x",
            "redis://h/x",
            "redis+sentinel://h",
            "redis+sentinel://h/",
            "redis+sentinel://,h/m",
            "redis+sentinel://h/m/x",
            "redis+cluster://",
            "redis+cluster://a,,b",
            "redis+cluster://a/1",
        ] {
            assert!(RedisUrl::parse(bad).is_none(), "{bad:?} was let in");
        }
    }
}
