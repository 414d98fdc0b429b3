//! The contract on Postgres, and what only a server shared by many nodes can do.

use super::*;
use crate::event::Connected;
use crate::ids::EventId;
use crate::store::Told;
use crate::store::contract::{Bench, contract_tests};
use crate::store::{End, Outcome, Start, Store};

#[path = "../../../tests/support/postgres.rs"]
mod server;

use server::Postgres;

/// A server of a test's own.
struct Server(Postgres);

impl Server {
    fn url(&self) -> Secret {
        Secret::new(self.0.url())
    }

    /// The store of a node of this name.
    fn store(&self, node: &str) -> PostgresStore {
        PostgresStore::new(&self.url(), &node.parse().unwrap(), None).unwrap()
    }
}

impl Bench for Server {
    fn new() -> Self {
        Self(Postgres::start())
    }

    fn open(&self) -> Store {
        // Blocks, on a thread of its own because the contract's tests are in a runtime already.
        let url = self.url();
        std::thread::spawn(move || Store::migrate_postgres(&url)).join().unwrap().unwrap();
        Store::Postgres(self.store("node-1"))
    }

    fn refuse_after(&self, events: i64) {
        self.0.sql(&format!(
            "CREATE TABLE refusal AS SELECT newest + {events} AS after FROM log_head;
             CREATE FUNCTION refuse() RETURNS TRIGGER LANGUAGE plpgsql AS $$
             BEGIN
                 IF NEW.seq > (SELECT after FROM refusal) THEN RAISE EXCEPTION 'refused by the test'; END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse()"
        ));
    }

    fn repair(&self) {
        self.0.sql("DROP TRIGGER refuse ON events; DROP FUNCTION refuse; DROP TABLE refusal");
    }
}

contract_tests!(Server);

mod cluster;
mod outage;
mod plans;

/// One node of many.
#[derive(Clone)]
struct Node {
    store: PostgresStore,
    run: Run,
}

/// A server, and nodes of these names that have begun on it.
async fn nodes<const N: usize>(names: [&str; N]) -> (Server, [Node; N]) {
    let server = Server::new();
    let nodes = names.map(|name| {
        let run = Run { node_id: name.parse().unwrap(), incarnation: Incarnation::new() };
        Node { store: server.store(name), run }
    });
    for node in &nodes {
        node.store.migrate().await.unwrap();
        node.store.begin(&node.run, at(0)).await.unwrap();
    }
    (server, nodes)
}

impl Node {
    fn start(&self, device: &str, second: i64) -> Said {
        Said(Arc::new(Connected {
            device_id: device.parse().unwrap(),
            device_type: Default::default(),
            session_id: SessionId::new(),
            node_id: self.run.node_id.clone(),
            incarnation: self.run.incarnation,
            connected_at: at(second),
            remote_addr: "127.0.0.1:1".parse().unwrap(),
            meta: Default::default(),
            trace_id: None,
        }))
    }

    async fn commit(&self, batch: Vec<Write>) -> Result<Committed, StoreError> {
        self.store.commit(&self.run, Arc::new(batch)).await
    }

    /// How this node sees another; one of its own making where there is none of the name.
    async fn peer(&self, name: &str) -> Peer {
        self.peer_or(name, self).await
    }

    /// The same, asked by another node where this is the one.
    async fn peer_or(&self, name: &str, other: &Node) -> Peer {
        let asking = if self.run.node_id.as_str() == name { other } else { self };
        let peers = asking.store.renew(&asking.run).await.unwrap();
        let nobody = Run { node_id: name.parse().unwrap(), incarnation: Incarnation::new() };
        let found = peers.into_iter().find(|peer| peer.run.node_id.as_str() == name);
        found.unwrap_or(Peer { run: nobody, renewals: 0, state: PeerState::Live })
    }
}

/// A session as its node tells it.
struct Said(Arc<Connected>);

impl Said {
    fn id(&self) -> SessionId {
        self.0.session_id
    }

    fn said(&self) -> Write {
        Write::Start(Start { event_id: EventId::new(), data: self.0.clone(), after_seq: 0, told: Told::Now })
    }

    fn late(&self) -> Write {
        self.late_after(0)
    }

    /// Let in by a node that knew of the log's events up to this one.
    fn late_after(&self, after_seq: i64) -> Write {
        Write::Start(Start { event_id: EventId::new(), data: self.0.clone(), after_seq, told: Told::Late })
    }

    fn past(&self) -> Write {
        Write::Start(Start { event_id: EventId::new(), data: self.0.clone(), after_seq: 0, told: Told::Past })
    }

    fn ended(&self, reason: Reason, second: i64) -> Write {
        let ended = super::rows::Left::from(&*self.0).ended(reason, DetectedBy::Socket, at(second));
        Write::End(End { event_id: EventId::new(), data: Arc::new(ended) })
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp(1_700_000_000_000_000 + second * 1_000_000)
}

fn recorded(device_seq: i64) -> Outcome {
    Outcome::Recorded { device_seq }
}

fn assert_fenced<T: std::fmt::Debug>(done: Result<T, StoreError>) {
    assert!(matches!(done, Err(StoreError::Fenced)), "{done:?}");
}

/// What an event says of itself, as its readers get it.
fn data(event: &Event) -> serde_json::Value {
    let whole: serde_json::Value = serde_json::from_str(&event.json).unwrap();
    whole["data"].clone()
}

async fn log(store: &PostgresStore) -> Vec<Arc<Event>> {
    let mut all = Vec::new();
    loop {
        let after = all.last().map_or(0, |event: &Arc<Event>| event.seq);
        let page = store.events(after, &EventFilter::default(), 1_000).await.unwrap();
        if page.events.is_empty() {
            return all;
        }
        all.extend(page.events);
    }
}
