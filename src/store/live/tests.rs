//! The contract on each backend, and what real Redis servers do when they break.

#[path = "../../../tests/support/redis.rs"]
pub(crate) mod server;

use std::time::Instant;

use server::{Redis, Reply};

use super::contract::{Bench, LONG, live_contract, session};
use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

struct InMemory;

impl Bench for InMemory {
    fn new() -> Self {
        Self
    }

    fn open(&self, ttl: Duration) -> Live {
        Live::open(None, ttl, Arc::default()).unwrap()
    }
}

impl Bench for Redis {
    fn new() -> Self {
        Redis::start_with(&[])
    }

    fn open(&self, ttl: Duration) -> Live {
        open(&self.url(), ttl)
    }
}

/// Three masters.
struct Cluster(Vec<Redis>);

impl Bench for Cluster {
    fn new() -> Self {
        let nodes: Vec<_> = (0..3).map(|_| Redis::start_with(&["--cluster-enabled", "yes"])).collect();
        for (node, slots) in nodes.iter().zip([["0", "5460"], ["5461", "10922"], ["10923", "16383"]]) {
            node.command(&["CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]]);
            node.command(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port().to_string()]);
        }
        for node in &nodes {
            wait_for("the cluster", || {
                let info = node.command(&["CLUSTER", "INFO"]);
                info.text().contains("cluster_state:ok") && info.text().contains("cluster_known_nodes:3")
            });
        }
        Self(nodes)
    }

    fn open(&self, ttl: Duration) -> Live {
        let hosts: Vec<_> = self.0.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        open(&format!("redis+cluster://{}", hosts.join(",")), ttl)
    }
}

live_contract!(memory, crate::store::live::tests::InMemory);
live_contract!(redis, crate::store::live::tests::server::Redis);
live_contract!(cluster, crate::store::live::tests::Cluster);

fn open(url: &str, ttl: Duration) -> Live {
    Live::open(Some(&RedisUrl::parse(url).unwrap()), ttl, Arc::default()).unwrap()
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Writes until it is taken, on the same live store.
async fn recovered(live: &Live) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = live.put(&[session("d")]).await {
        assert!(Instant::now() < deadline, "it stays away: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Every call fails, and none takes longer than its deadline.
async fn fails(live: &Live, writes_only: bool) {
    let held = session("d");
    let began = Instant::now();
    let mut calls = 0;
    // Long enough for the breaker to have opened and tried again.
    while calls < 20 {
        assert!(live.put(std::slice::from_ref(&held)).await.is_err());
        assert!(live.update_heartbeat(&held.heartbeat()).await.is_err() || writes_only);
        assert!(live.ping().await.is_err());
        if !writes_only {
            assert!(live.session_heartbeat(held.session_id).await.is_err());
        }
        assert_eq!(live.check_activity(held.session_id, LONG).await, Activity::Unknown);
        calls += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(began.elapsed() < PATIENCE, "errors do not come in time");
    let state = live.metrics().breaker_state.with_label_values(&["redis"]).get();
    assert_ne!(state, 0, "the breaker is closed");
}

#[tokio::test]
async fn a_killed_redis_is_an_error_and_comes_back() {
    let mut redis = Redis::start();
    let live = open(&redis.url(), LONG);
    let held = session("kept");
    live.put(std::slice::from_ref(&held)).await.unwrap();
    redis.kill();
    fails(&live, false).await;
    redis.restart();
    recovered(&live).await;
    assert_eq!(live.session(held.session_id).await.unwrap(), Some(held));
    assert_eq!(live.metrics().breaker_state.with_label_values(&["redis"]).get(), 0);
}

#[tokio::test]
async fn a_redis_that_is_there_only_later_is_found() {
    let mut redis = Redis::start();
    redis.kill();
    let live = open(&redis.url(), LONG);
    fails(&live, false).await;
    redis.restart();
    recovered(&live).await;
}

#[tokio::test]
async fn a_redis_that_hangs_is_like_a_dead_one() {
    let redis = Redis::start();
    let live = open(&redis.url(), LONG);
    live.ping().await.unwrap();
    redis.stop();
    fails(&live, false).await;
    redis.cont();
    recovered(&live).await;

    redis.command(&["CLIENT", "PAUSE", "5000", "ALL"]);
    fails(&live, false).await;
    recovered(&live).await;
}

#[tokio::test]
async fn a_redis_that_cannot_write_is_an_error_and_comes_back() {
    let (redis, master) = (Redis::start(), Redis::start());
    let live = open(&redis.url(), LONG);
    live.ping().await.unwrap();

    redis.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    wait_for("it to be a replica", || {
        redis.command(&["INFO", "replication"]).text().contains("link_status:up")
    });
    fails(&live, true).await;
    redis.command(&["REPLICAOF", "NO", "ONE"]);
    recovered(&live).await;

    redis.command(&["CONFIG", "SET", "maxmemory", "1", "maxmemory-policy", "noeviction"]);
    fails(&live, true).await;
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    recovered(&live).await;
}

#[tokio::test]
async fn a_flushed_redis_has_nothing_and_takes_everything() {
    let redis = Redis::start();
    let live = open(&redis.url(), LONG);
    let held = session("d");
    live.put(std::slice::from_ref(&held)).await.unwrap();
    redis.command(&["FLUSHALL"]);
    assert_eq!(live.update_heartbeat_batch(&[held.heartbeat()]).await.unwrap(), [held.session_id]);
    assert_eq!(live.check_activity(held.session_id, LONG).await, Activity::Unknown);
    live.put(std::slice::from_ref(&held)).await.unwrap();
    assert_eq!(live.session(held.session_id).await.unwrap(), Some(held));
}

#[tokio::test]
async fn keys_are_where_others_look_for_them() {
    let redis = Redis::start();
    let live = open(&redis.url(), Duration::from_secs(900));
    let mut held = session("pump-7");
    let id = held.session_id.to_string();
    live.put(std::slice::from_ref(&held)).await.unwrap();
    assert_eq!(redis.command(&["GET", "lastpong:device:pump-7"]).text(), id);
    let score = || redis.command(&["ZSCORE", "lastpong:active", &id]).text().to_owned();
    assert_eq!(score(), (held.connected_at.0 / 1000).to_string());
    held.vitals.last_pong_at = Some(Timestamp(held.connected_at.0 + 5_000_000));
    live.update_heartbeat(&held.heartbeat()).await.unwrap();
    assert_eq!(score(), (held.connected_at.0 / 1000 + 5_000).to_string());
    let key = format!("lastpong:session:{id}");
    let json: serde_json::Value = serde_json::from_str(redis.command(&["GET", &key]).text()).unwrap();
    assert_eq!((&json["device_id"], &json["state"]), (&"pump-7".into(), &"live".into()));
    for key in [key.as_str(), "lastpong:device:pump-7"] {
        assert!((890_000..=900_000).contains(&redis.command(&["PTTL", key]).int()), "{key}");
    }
    // What someone else put there is no session, and stops nothing.
    redis.command(&["SET", &key, "{}"]);
    redis.command(&["ZADD", "lastpong:active", "1", "not an id"]);
    assert_eq!(live.session(held.session_id).await.unwrap(), None);
    assert_eq!(live.update_heartbeat_batch(&[held.heartbeat()]).await.unwrap(), [held.session_id]);
    let page = live.page(0).await.unwrap();
    assert_eq!(page.sessions, [(held.session_id, None)]);
}

#[tokio::test]
async fn sentinels_are_asked_again_after_a_failover() {
    let (old, new) = (Redis::start(), Redis::start());
    new.command(&["REPLICAOF", "127.0.0.1", &old.port().to_string()]);
    wait_for("the replica", || new.command(&["INFO", "replication"]).text().contains("link_status:up"));
    let sentinel = Redis::start_sentinel();
    sentinel.command(&["SENTINEL", "MONITOR", "main", "127.0.0.1", &old.port().to_string(), "1"]);
    wait_for(
        "the sentinel to know the replica",
        || matches!(sentinel.ask(&["SENTINEL", "REPLICAS", "main"]), Ok(Reply::List(l)) if !l.is_empty()),
    );
    let live = open(&format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port()), LONG);
    live.put(&[session("before")]).await.unwrap();
    assert_eq!(old.command(&["EXISTS", "lastpong:device:before"]).int(), 1);
    wait_for("the sentinel to begin", || {
        sentinel.ask(&["SENTINEL", "FAILOVER", "main"]).is_ok_and(|r| r == Reply::Text("OK".into()))
    });
    // Who changes its role hangs up on whoever is just asking.
    let is = |redis: &Redis, role| redis.ask(&["ROLE"]).is_ok_and(|answer| answer.list()[0].text() == role);
    wait_for("the replica to be master", || is(&new, "master"));
    wait_for("the master to be replica", || is(&old, "slave"));
    recovered(&live).await;
    assert_eq!(new.command(&["EXISTS", "lastpong:device:d"]).int(), 1);
}

#[tokio::test]
async fn tls_where_none_is_spoken_is_an_error() {
    let redis = Redis::start();
    let live = open(&redis.url().replace("redis://", "rediss://"), LONG);
    assert!(live.ping().await.is_err());
}
