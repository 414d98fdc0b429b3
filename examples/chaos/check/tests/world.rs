//! A made-up run: three nodes, some dozens of devices of all behaviours, every kind of fault and subscriber, in which every
//! promise held. The tests break it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::log::sum;
use super::session::{Made, at};

pub const SUBSCRIBERS: [&str; 5] = ["page-1", "pubsub-1", "sse-1", "stream-1", "ws-1"];
const QUIET: f64 = 490.0;
const LEFT: f64 = 520.0;

/// The run as it is made up, and then as it is written.
#[derive(Debug, Clone)]
pub struct World {
    pub made: Vec<Made>,
    pub faults: Vec<Value>,
    pub kicks: Vec<Value>,
}

/// The files' lines. `log` holds with each event when it was told.
#[derive(Debug, Clone)]
pub struct Files {
    pub run: Value,
    pub devices: BTreeMap<String, Vec<Value>>,
    pub faults: Vec<Value>,
    pub operator: Vec<Value>,
    pub slow: Vec<Value>,
    pub log: Vec<(f64, Value)>,
    pub subscribers: BTreeMap<String, Vec<Value>>,
    pub stream: Vec<Value>,
    pub live: Vec<Value>,
}

impl World {
    pub fn find(&mut self, device: &str) -> &mut Made {
        self.made.iter_mut().find(|made| made.device == device).unwrap()
    }

    fn add(&mut self, mut made: Made) {
        made.id = Uuid::from_u128(0x5e55_0000 + self.made.len() as u128);
        self.made.push(made);
    }

    pub fn fault(&mut self, kind: &str, whom: &[&str], ways: &[[&str; 2]], begin: f64, end: f64) {
        let number = self.faults.len() / 2;
        self.faults.push(json!({"at": at(begin), "is": "begin", "fault": number, "kind": kind, "whom": whom,
            "ways": ways}));
        self.faults.push(json!({"at": at(end), "is": "end", "fault": number}));
    }

    pub fn kick(&mut self, device: &str, when: f64) {
        let session = self.find(device).id;
        for (seconds, status) in [(when, json!(null)), (when + 0.01, json!(204))] {
            self.kicks.push(json!({"at": at(seconds), "is": "kick", "session": session, "node": "node-1",
                "status": status}));
        }
    }

    pub fn healthy() -> Self {
        let mut world = Self { made: Vec::new(), faults: Vec::new(), kicks: Vec::new() };
        world.deeds();
        world.deaths();
        world.outages();
        world.noise();
        for (n, node) in ["node-1", "node-2", "node-3"].iter().cycle().take(12).enumerate() {
            // Their nodes are not hit by what ends sessions after they came.
            let made = Made::new(&format!("stays-{n}"), node, 465.0).did(LEFT, "close");
            world.add(made.saw(LEFT + 0.03, "close_frame", Some(1000)).ends(
                "client_closed",
                "close_frame",
                Some(1000),
                LEFT + 0.01,
            ));
        }
        world
    }

    /// In calm time: what devices and the operator do.
    fn deeds(&mut self) {
        let made = |device: &str| Made::new(device, "node-1", 10.0);
        let closed = Some(1000);
        self.add(made("closes").did(20.0, "close").saw(20.02, "close_frame", closed).ends(
            "client_closed",
            "close_frame",
            closed,
            20.01,
        ));
        self.add(made("says-bye").did(20.5, "bye").saw(20.52, "close_frame", closed).ends(
            "client_closed",
            "close_frame",
            closed,
            20.51,
        ));
        self.add(made("resets").did(21.0, "reset").saw(21.0, "self", None).ends(
            "read_error",
            "socket",
            None,
            21.01,
        ));
        self.add(made("vanishes").did(22.0, "vanish").saw(22.0, "self", None).ends(
            "read_error",
            "socket",
            None,
            22.01,
        ));
        self.add(
            made("falls-silent").did(23.0, "silent").owed(23.6).saw(25.62, "close_frame", Some(4012)).ends(
                "pong_timeout",
                "heartbeat",
                Some(4012),
                25.61,
            ),
        );
        self.add(made("goes-deaf").did(26.0, "deaf").owed(26.5).saw(28.6, "error", None).ends(
            "pong_timeout",
            "heartbeat",
            Some(4012),
            28.55,
        ));
        self.add(
            made("loses").did(27.0, "lose").lost(2).owed(27.0).saw(29.1, "close_frame", Some(4012)).ends(
                "pong_timeout",
                "heartbeat",
                Some(4012),
                29.05,
            ),
        );
        self.add(made("is-kicked").saw(30.05, "close_frame", Some(4011)).ends(
            "kicked",
            "operator",
            Some(4011),
            30.02,
        ));
        self.kick("is-kicked", 30.0);
        self.add(made("twice").saw(32.05, "close_frame", Some(4509)).ends(
            "replaced",
            "watchdog",
            Some(4509),
            32.015,
        ));
        let second = Made { started: 32.04, ..Made::new("twice", "node-2", 32.0) };
        self.add(second.did(40.0, "close").saw(40.02, "close_frame", closed).ends(
            "client_closed",
            "close_frame",
            closed,
            40.01,
        ));
        self.add(Made::new("never-welcomed", "node-1", 41.0).unwelcomed().ends(
            "read_error",
            "socket",
            None,
            41.6,
        ));
    }

    /// A node drained, one killed, one standing still for a lease and one for less, a swarm killed.
    fn deaths(&mut self) {
        self.fault("drain", &["node-1"], &[], 60.0, 66.0);
        self.add(Made::new("drained", "node-1", 50.0).saw(62.0, "close_frame", Some(1001)).ends(
            "draining",
            "watchdog",
            Some(1001),
            61.99,
        ));
        self.fault("kill", &["node-2"], &[], 80.0, 84.0);
        for (device, by) in [("orphan", "peer_node"), ("recovered", "recovery")] {
            let made = Made::new(device, "node-2", 70.0).saw(80.01, "reset", None);
            self.add(made.ends_told("node_lost", by, None, 85.2, 85.3));
        }
        self.fault("stop", &["node-3"], &[], 110.0, 120.0);
        self.add(Made::new("stood-still", "node-3", 105.0).saw(120.3, "close_frame", Some(4000)).ends(
            "node_lost",
            "peer_node",
            None,
            116.0,
        ));
        self.fault("stop", &["node-1"], &[], 140.0, 143.0);
        self.add(
            Made::new("waits", "node-1", 135.0)
                .did(150.0, "close")
                .saw(150.02, "close_frame", Some(1000))
                .ends("client_closed", "close_frame", Some(1000), 150.01),
        );
        self.fault("drop", &["swarm-b"], &[], 170.0, 175.0);
        self.add(Made::new("dropped", "node-1", 160.0).swarm("swarm-b").ends(
            "read_error",
            "socket",
            None,
            170.02,
        ));
        let again = Made::new("dropped", "node-2", 176.0).swarm("swarm-b-1");
        self.add(again.did(180.0, "close").saw(180.02, "close_frame", Some(1000)).ends(
            "client_closed",
            "close_frame",
            Some(1000),
            180.01,
        ));
    }

    /// Postgres away for all, the network cut between devices and a node, and between a node and Postgres.
    fn outages(&mut self) {
        self.fault("stop", &["postgres"], &[], 200.0, 215.0);
        // Told late, after the device's next session had started in the log.
        self.add(
            Made::new("journaled", "node-1", 205.0)
                .journaled(220.3)
                .did(217.0, "vanish")
                .saw(217.0, "self", None)
                .ends_told("read_error", "socket", None, 217.01, 220.4),
        );
        let next = Made { started: 219.0, ..Made::new("journaled", "node-2", 218.95) };
        self.add(next.did(225.0, "close").saw(225.02, "close_frame", Some(1000)).ends(
            "client_closed",
            "close_frame",
            Some(1000),
            225.01,
        ));
        self.fault("cut", &["node-1"], &[["devices", "node-1"]], 250.0, 256.0);
        self.add(Made::new("cut-off", "node-1", 245.0).saw(252.9, "reset", None).ends(
            "pong_timeout",
            "heartbeat",
            Some(4012),
            252.5,
        ));
        self.add(
            Made::new("closes-in-a-cut", "node-1", 245.0).did(251.0, "close").saw(253.0, "self", None).ends(
                "pong_timeout",
                "heartbeat",
                Some(4012),
                253.0,
            ),
        );
        self.fault("cut", &["node-3"], &[["node-3", "postgres"], ["postgres", "node-3"]], 280.0, 290.0);
        self.add(Made::new("given-up", "node-3", 275.0).saw(288.0, "close_frame", Some(4000)).ends(
            "node_lost",
            "peer_node",
            None,
            286.0,
        ));
        // Its holder, cut off, found it silent; the record had it as lost by then.
        self.add(
            Made::new("both", "node-3", 275.0)
                .did(285.0, "silent")
                .owed(285.2)
                .saw(287.3, "close_frame", Some(4012))
                .ends("node_lost", "peer_node", None, 286.0),
        );
    }

    /// Faults that end nobody, and a clock an hour off.
    fn noise(&mut self) {
        self.fault("clock", &["node-2"], &[], 320.0, 330.0);
        self.add(
            Made::new("another-hour", "node-2", 321.0)
                .clock(-3600.0)
                .did(326.0, "close")
                .saw(326.02, "close_frame", Some(1000))
                .ends("client_closed", "close_frame", Some(1000), 326.01),
        );
        for (n, (kind, whom)) in [
            ("read_only", "postgres"),
            ("emptied", "redis"),
            ("full", "redis"),
            ("flood", "node-1"),
            ("load", "devices"),
            ("kill", "redis"),
        ]
        .into_iter()
        .enumerate()
        {
            self.fault(kind, &[whom], &[], 340.0 + 5.0 * n as f64, 344.0 + 5.0 * n as f64);
        }
        self.fault("slow", &["node-2"], &[["node-2", "redis"]], 380.0, 385.0);
        self.fault("lossy", &["node-2"], &[["devices", "node-2"]], 390.0, 400.0);
    }

    /// Its node's, which is new after each of its ends.
    fn incarnation(&self, made: &Made) -> Uuid {
        let ends = self.faults.iter().filter(|line| {
            ["kill", "drain"].iter().any(|kind| line["kind"] == *kind)
                && line["whom"][0] == made.node
                && line["at"].as_i64() < Some(at(made.dial))
        });
        let node = made.node.bytes().last().unwrap_or_default();
        Uuid::from_u128(u128::from(node) << 32 | ends.count() as u128)
    }

    /// The run as its writers would have written it.
    pub fn files(&self) -> Files {
        let dated = self.made.iter().map(|made| Made { incarnation: self.incarnation(made), ..made.clone() });
        let mut log: Vec<(f64, Value)> = dated.flat_map(|made| made.events()).collect();
        log.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut devices: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (made, conn) in self.made.iter().zip(1..) {
            devices.entry(made.swarm.to_owned()).or_default().extend(made.device_lines(conn));
        }
        for (file, lines) in &mut devices {
            lines.sort_by_key(|line| line["at"].as_i64());
            lines.insert(
                0,
                json!({"at": at(1.0), "is": "swarm", "pid": 1, "devices": 9, "seed": 1, "args": []}),
            );
            if file != "swarm-b" {
                let leaving = lines.partition_point(|line| line["at"].as_i64() < Some(at(LEFT)));
                lines.insert(leaving, json!({"at": at(LEFT), "is": "leaving"}));
                lines.push(json!({"at": at(LEFT + 1.0), "is": "done"}));
            }
        }
        let stays = self.made.iter().filter(|made| made.dial == 465.0);
        let live = stays.map(|made| {
            json!({"at": at(QUIET), "node": made.node, "session_id": made.id, "device_id": made.device,
                "state": "live"})
        });
        let run = json!({"seed": 7, "setup": "cluster", "nodes": ["node-1", "node-2", "node-3"], "devices": 40,
            "minutes": 9, "ping_interval_ms": 1000, "pong_timeout_ms": 1000, "max_missed_pongs": 2,
            "lease_ms": 5000, "drain_spread_ms": 2000, "revision": "abc", "faults": [], "began_at": at(0.0),
            "quiet_at": at(QUIET), "left_at": at(LEFT), "ended_at": at(LEFT + 5.0)});
        let live = live.collect();
        let (subscribers, stream) = Default::default();
        let (faults, operator) = (self.faults.clone(), self.kicks.clone());
        // While the devices came.
        let slow = vec![json!({"at": at(1.0), "is": "slow", "took_ms": 600})];
        let mut files = Files { run, devices, faults, operator, slow, log, subscribers, stream, live };
        files.number();
        files.tell();
        files
    }
}

impl Files {
    /// Gives the events their numbers in the order in which they stand, and the welcomes theirs.
    pub fn number(&mut self) {
        let mut devices: BTreeMap<String, i64> = BTreeMap::new();
        let mut starts: BTreeMap<String, i64> = BTreeMap::new();
        for ((_, event), seq) in self.log.iter_mut().zip(1_i64..) {
            let n = devices.entry(event["subject"].to_string()).or_default();
            *n += 1;
            event["data"]["seq"] = json!(seq);
            event["data"]["device_seq"] = json!(*n);
            event["id"] = json!(Uuid::from_u128(0xe0e0_0000 + seq as u128));
            if event["type"] == "lastpong.session.connected.v1" {
                starts.insert(event["data"]["session_id"].to_string(), *n);
            }
        }
        for line in self.devices.values_mut().flatten().filter(|line| line["is"] == "welcome") {
            // The one that was told late was welcomed without.
            let late = line["device"] == "journaled" && line["node"] == "node-1";
            line["device_seq"] = json!(starts.get(&line["session"].to_string()).filter(|_| !late));
        }
    }

    /// Lets every subscriber, and the stream, have the log as it stands.
    pub fn tell(&mut self) {
        self.stream = self
            .log
            .iter()
            .map(|(_, event)| {
                let entry = format!("{}-0", event["data"]["seq"]);
                json!({"entry": entry, "type": event["type"], "id": event["id"], "event": event})
            })
            .collect();
        for (name, delay) in SUBSCRIBERS.iter().zip(1..) {
            let mut lines = vec![json!({"at": at(2.0), "is": "open", "to": "node-1", "after": 0})];
            for (n, (told, event)) in self.log.iter().enumerate() {
                let now = at(*told) + delay * 1_000;
                let data = &event["data"];
                lines.push(json!({"at": now, "is": "event", "seq": data["seq"], "id": event["id"],
                    "type": event["type"], "subject": event["subject"], "sum": format!("{:016x}", sum(data))}));
                if n % 10 == 9 {
                    lines.push(json!({"at": now, "is": "close", "error": "reset"}));
                    lines.push(json!({"at": now + 10, "is": "open", "to": "node-2", "after": data["seq"]}));
                }
            }
            self.subscribers.insert((*name).to_owned(), lines);
        }
    }

    /// The place in the log of a device's `n`th event of this kind.
    pub fn place(&self, device: &str, kind: &str, n: usize) -> usize {
        let is = |event: &Value| {
            event["subject"] == device && event["type"] == format!("lastpong.session.{kind}.v1")
        };
        let mut places = (0..self.log.len()).filter(|place| is(&self.log[*place].1));
        places.nth(n).unwrap()
    }

    pub fn write(&self, dir: &Path) {
        let lines = |lines: &[Value]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("run.json", self.run.to_string());
        write("faults.jsonl", lines(&self.faults));
        write("operator.jsonl", lines(&self.operator));
        write("slow.jsonl", lines(&self.slow));
        write("live.jsonl", lines(&self.live));
        write("stream.jsonl", lines(&self.stream));
        write("log.jsonl", lines(&self.log.iter().map(|(_, event)| event.clone()).collect::<Vec<_>>()));
        for (name, content) in &self.devices {
            write(&format!("devices/{name}.jsonl"), lines(content));
        }
        for (name, content) in &self.subscribers {
            write(&format!("subscribers/{name}.jsonl"), lines(content));
        }
    }
}
