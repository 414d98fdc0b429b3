//! An installation of many nodes on one Postgres and one Redis, each by its own network where its test wants to cut it.

use std::net::SocketAddr;

use super::proxy::{Proxy, Weather};
use super::{Events, Server, Stores, size};

/// The nodes are `node-1`, `node-2` and so on.
pub struct Cluster {
    pub nodes: Vec<Server>,
    links: Vec<Link>,
    pub stores: Stores,
}

/// One node's ways to the stores.
struct Link {
    postgres: Proxy,
    redis: Proxy,
}

impl Cluster {
    /// Starts so many, and waits until all are ready.
    pub async fn start(count: usize, settings: &[(&str, &str)]) -> Self {
        let mut cluster = Self { nodes: Vec::new(), links: Vec::new(), stores: Stores::start().await };
        for _ in 0..count {
            cluster.join(settings, &[]).await;
        }
        cluster.whole().await;
        cluster
    }

    /// The same, with networks that can be cut.
    pub async fn start_cuttable(count: usize, settings: &[(&str, &str)]) -> Self {
        let mut cluster = Self { nodes: Vec::new(), links: Vec::new(), stores: Stores::start().await };
        for _ in 0..count {
            let link = Link {
                postgres: Proxy::to_port(cluster.stores.postgres.port()).await,
                redis: Proxy::to_port(cluster.stores.redis.port()).await,
            };
            let postgres = through(&link.postgres, &cluster.stores.postgres.url());
            let redis = through(&link.redis, &cluster.stores.redis.url());
            cluster.links.push(link);
            cluster.join(settings, &[("DATABASE_URL", &postgres), ("REDIS_URL", &redis)]).await;
        }
        cluster.whole().await;
        cluster
    }

    async fn join(&mut self, settings: &[(&str, &str)], stores: &[(&str, &str)]) {
        let name = format!("node-{}", self.nodes.len() + 1);
        let lease = format!("{}s", size::lease().as_secs());
        let own = [("NODE_ID", name.as_str()), ("NODE_LEASE", &lease)];
        let all = [&own[..], stores, settings].concat();
        self.nodes.push(Server::start_on(&self.stores, &all).await);
    }

    /// Waits until every node has all that it needs.
    pub async fn whole(&self) {
        for node in &self.nodes {
            node.whole().await;
        }
    }

    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.addr).collect()
    }

    /// The weather between node `n` (counted from 0) and Postgres.
    pub fn to_postgres(&self, n: usize, weather: Weather) {
        self.links[n].postgres.turns(weather);
    }

    /// The same to Redis.
    pub fn to_redis(&self, n: usize, weather: Weather) {
        self.links[n].redis.turns(weather);
    }

    /// The whole log as node `n` tells it.
    pub async fn log(&self, n: usize) -> Events {
        let mut events = Events::new();
        events.pull(&self.nodes[n]).await;
        events
    }
}

/// `url` with the proxy's address in place of its own.
fn through(proxy: &Proxy, url: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (authority, path) = rest.split_once('/').map_or((rest, String::new()), |(a, p)| (a, format!("/{p}")));
    let user = authority.rsplit_once('@').map_or(String::new(), |(user, _)| format!("{user}@"));
    format!("{scheme}://{user}{}{path}", proxy.addr)
}
