//! The network between nodes and Postgres: who is cut off together keeps all, who is cut off alone gives all up.

use crate::support::churn::Visit;
use crate::support::events::{DISCONNECTED, NODE_LOST};
use crate::support::fleet::Welcomed;
use crate::support::proxy::Weather;
use crate::support::size::{lanes, lease, sessions};
use crate::support::{Churn, Cluster, Device, Events, Fleet, heavy, ledger};

const BRISK: [(&str, &str); 3] =
    [("PING_INTERVAL", "2s"), ("PONG_TIMEOUT", "10s"), ("UPDATE_INTERVAL", "1s")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_cut_off_together_give_nobody_up() {
    let _turn = heavy().await;
    for weather in [Weather::Silent, Weather::Cut] {
        all_cut_off(weather).await;
    }
}

async fn all_cut_off(weather: Weather) {
    let cluster = Cluster::start_cuttable(3, &BRISK).await;
    let mut fleets = Vec::new();
    for (n, node) in cluster.nodes.iter().enumerate() {
        fleets.push(Fleet::hold(node, &format!("of-{n}"), sessions()).await);
    }
    // These go from node to node, so that the journals of several speak of one device.
    let churn = Churn::start(&cluster.addrs(), "restless", lanes()).await;
    (0..3).for_each(|n| cluster.to_postgres(n, weather));
    churn.more_unnumbered(lanes()).await;
    // The cut itself is what is tested: there is no condition to wait for but its length.
    tokio::time::sleep(3 * lease()).await;
    churn.more_unnumbered(lanes()).await;
    assert!(fleets.iter().all(|fleet| fleet.ended().is_empty()), "{weather:?}: devices that answer stay");
    (0..3).for_each(|n| cluster.to_postgres(n, Weather::Fair));
    cluster.whole().await;
    churn.more_numbered(lanes()).await;
    // Whoever would give up another for this cut has had its time for it.
    tokio::time::sleep(2 * lease()).await;
    let visits = churn.stop().await;
    assert!(fleets.iter().all(|fleet| fleet.ended().is_empty()), "{weather:?}: devices that answer stay");
    let mut told = Vec::new();
    for fleet in &mut fleets {
        fleet.leave().await;
        told.extend(fleet.welcomed());
    }
    let (log, books) = at_rest(&cluster, told, &visits).await;
    assert_eq!(log.of_kind(NODE_LOST).count(), 0, "{weather:?}: a node was given up");
    for story in books.stories.values() {
        // A device that moved on before its end was told had it told by the node it moved to.
        let moved = story.device_id.starts_with("restless") && story.reasons == ["replaced"];
        assert!(moved || story.reasons == ["client_closed"], "{weather:?}: {story:?}");
    }
}

/// Cut off from Redis as well, it has no witness that the others go on: it serves on, and learns at its return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_cut_off_alone_loses_its_sessions_and_takes_its_devices_back() {
    let _turn = heavy().await;
    for weather in [Weather::Silent, Weather::Deaf] {
        let story = OneAlone::begin().await;
        story.cluster.to_redis(0, weather);
        story.cluster.to_postgres(0, weather);
        story.churn.more_unnumbered(lanes()).await;
        let lost = story.first.iter().map(|told| told.session_id.clone());
        Events::new().until_ended(&story.cluster.nodes[1], lost).await;
        // The cut itself is what is tested, three leases of it; one is over.
        tokio::time::sleep(2 * lease()).await;
        assert_eq!(story.held.ended(), vec![0; 0], "{weather:?}: it cannot know yet, and serves on");
        story.cluster.to_redis(0, Weather::Fair);
        story.cluster.to_postgres(0, Weather::Fair);
        story.held.wait_welcomed(2 * sessions()).await;
        story.end(&["node_lost"]).await;
    }
}

/// Redis tells it that the others renew: it gives its sessions up while it is still cut off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_sees_itself_alone_sends_its_devices_away() {
    let _turn = heavy().await;
    let story = OneAlone::begin().await;
    story.cluster.to_postgres(0, Weather::Silent);
    story.churn.more_unnumbered(lanes()).await;
    story.held.wait_welcomed(2 * sessions()).await;
    story.cluster.to_postgres(0, Weather::Fair);
    // Where the device was at the other node before its session was ended there, it has taken it over.
    story.end(&["node_lost", "replaced"]).await;
}

/// Three nodes with their devices; those of the first return to any when they are sent away.
struct OneAlone {
    held: Fleet,
    others: Vec<Fleet>,
    churn: Churn,
    /// The sessions of the first node's devices before all this.
    first: Vec<Welcomed>,
    cluster: Cluster,
}

impl OneAlone {
    async fn begin() -> Self {
        let cluster = Cluster::start_cuttable(3, &BRISK).await;
        let held = Fleet::roaming(&cluster.addrs(), "held", sessions()).await;
        let mut others = Vec::new();
        for (n, node) in cluster.nodes.iter().enumerate().skip(1) {
            others.push(Fleet::hold(node, &format!("other-{n}"), sessions()).await);
        }
        let churn = Churn::start(&[cluster.nodes[0].addr], "restless", lanes()).await;
        let first = held.welcomed();
        Self { held, others, churn, first, cluster }
    }

    /// The network is whole again, and all devices are back.
    async fn end(mut self, reasons: &[&str]) {
        self.cluster.whole().await;
        self.churn.more_numbered(lanes()).await;
        let codes = self.held.ended();
        assert!(codes.iter().all(|code| (4000..4500).contains(code)), "they are told to return: {codes:?}");
        assert!(self.others.iter().all(|fleet| fleet.ended().is_empty()), "another node's device was closed");
        // Whoever would end anything of it again has had its time for it.
        tokio::time::sleep(2 * lease()).await;
        let visits = self.churn.stop().await;
        self.held.leave().await;
        let mut told = self.held.welcomed();
        for fleet in &mut self.others {
            fleet.leave().await;
            told.extend(fleet.welcomed());
        }
        let (log, books) = at_rest(&self.cluster, told, &visits).await;
        for told in &self.first {
            let story = books.of(&told.session_id);
            assert!(reasons.contains(&story.reasons[0].as_str()), "{story:?}");
            assert_eq!(story.detected_by, ["peer_node"], "{story:?}");
        }
        let lost: Vec<_> = log.of_kind(NODE_LOST).map(|event| event["data"]["node_id"].clone()).collect();
        assert_eq!(lost, ["node-1"], "it is given up once, and nobody else is");
        for end in log.of_kind(DISCONNECTED).filter(|end| end["data"]["node_id"] != "node-1") {
            assert_eq!(end["data"]["reason"], "client_closed", "{end:#}");
        }
        // What it says from now on, it says under another incarnation.
        let old = &books.of(&self.first[0].session_id).incarnation;
        let is_new = |story: &ledger::Story| story.node_id == "node-1" && story.incarnation != *old;
        assert!(books.stories.values().any(is_new), "node-1 is what it was");
    }
}

/// The log and the books once all who were welcomed have ended; holds that each of them is in there.
async fn at_rest(cluster: &Cluster, mut told: Vec<Welcomed>, visits: &[Visit]) -> (Events, ledger::Books) {
    told.extend(visits.iter().map(|visit| visit.welcomed.clone()));
    let mut log = Events::new();
    let asked = cluster.nodes.last().expect("a node");
    log.until_ended(asked, told.iter().map(|told| told.session_id.clone())).await;
    let mut last = Device::connect(&cluster.nodes[0], "the-last").await;
    last.close(Some(1000)).await;
    log.until_ended(asked, [last.session_id()]).await;
    let books = ledger::audit(&log.all);
    books.tell_of(&told);
    books.all_ended();
    (log, books)
}

/// A slow network is no outage: what takes its time is still in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_loses_nothing() {
    let _turn = heavy().await;
    let cluster = Cluster::start_cuttable(2, &BRISK).await;
    let slow = Weather::Slow(std::time::Duration::from_millis(10));
    (0..2).for_each(|n| {
        cluster.to_postgres(n, slow);
        cluster.to_redis(n, slow);
    });
    let churn = Churn::start(&cluster.addrs(), "restless", lanes()).await;
    churn.more_numbered(10 * lanes()).await;
    assert!(churn.turned_away().is_empty(), "a device was turned away: {:?}", churn.turned_away());
    let visits = churn.stop().await;
    let (log, books) = at_rest(&cluster, Vec::new(), &visits).await;
    books.in_turn();
    assert_eq!(log.of_kind(NODE_LOST).count(), 0);
    assert!(
        visits.iter().all(|visit| visit.welcomed.device_seq.is_some()),
        "a slow store was taken for a dead one"
    );
}
