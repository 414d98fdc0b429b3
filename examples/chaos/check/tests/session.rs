//! One made-up session: what its device would write of it and what the log would have.

use serde_json::{Value, json};
use uuid::Uuid;

/// Seconds since the run began, as the tests tell time.
pub fn at(seconds: f64) -> i64 {
    1_790_000_000_000_000 + (seconds * 1e6).round() as i64
}

fn time(seconds: f64) -> String {
    jiff::Timestamp::from_microsecond(at(seconds)).unwrap().to_string()
}

#[derive(Debug, Clone)]
pub struct Record {
    pub reason: &'static str,
    pub by: &'static str,
    pub code: Option<u16>,
    pub decided: f64,
    pub told: f64,
}

#[derive(Debug, Clone)]
pub struct Made {
    pub id: Uuid,
    pub device: String,
    pub node: &'static str,
    pub swarm: &'static str,
    pub dial: f64,
    /// When its start was told.
    pub started: f64,
    pub welcomed: bool,
    pub journaled: bool,
    pub deeds: Vec<(f64, &'static str)>,
    pub end: Option<(f64, &'static str, Option<u16>)>,
    pub lost: u32,
    pub slowest_us: u32,
    pub owed_since: Option<f64>,
    pub last_pong: f64,
    pub record: Option<Record>,
    /// The node's clock is off by so many seconds.
    pub clock: f64,
    /// Of its node; the world counts them.
    pub incarnation: Uuid,
}

impl Made {
    pub fn new(device: &str, node: &'static str, dial: f64) -> Self {
        Self {
            id: Uuid::nil(),
            device: device.to_owned(),
            node,
            swarm: "swarm-a",
            dial,
            started: dial + 0.02,
            welcomed: true,
            journaled: false,
            deeds: Vec::new(),
            end: None,
            lost: 0,
            slowest_us: 900,
            owed_since: None,
            last_pong: dial + 1.0,
            record: None,
            clock: 0.0,
            incarnation: Uuid::nil(),
        }
    }

    pub fn swarm(mut self, swarm: &'static str) -> Self {
        self.swarm = swarm;
        self
    }

    pub fn did(mut self, when: f64, what: &'static str) -> Self {
        self.deeds.push((when, what));
        self
    }

    pub fn lost(mut self, pings: u32) -> Self {
        self.lost = pings;
        self
    }

    pub fn owed(mut self, since: f64) -> Self {
        self.owed_since = Some(since);
        self.last_pong = since - 1.0;
        self
    }

    pub fn journaled(mut self, told: f64) -> Self {
        self.journaled = true;
        self.started = told;
        self
    }

    pub fn clock(mut self, by: f64) -> Self {
        self.clock = by;
        self
    }

    pub fn unwelcomed(mut self) -> Self {
        self.welcomed = false;
        self
    }

    pub fn saw(mut self, when: f64, how: &'static str, code: Option<u16>) -> Self {
        self.end = Some((when, how, code));
        if self.owed_since.is_none() && when - 0.5 > self.dial {
            self.last_pong = when - 0.5;
        }
        self
    }

    /// Decided at `decided`, told 20 ms later.
    pub fn ends(self, reason: &'static str, by: &'static str, code: Option<u16>, decided: f64) -> Self {
        self.ends_told(reason, by, code, decided, decided + 0.02)
    }

    pub fn ends_told(
        mut self,
        reason: &'static str,
        by: &'static str,
        code: Option<u16>,
        decided: f64,
        told: f64,
    ) -> Self {
        self.record = Some(Record { reason, by, code, decided, told });
        self
    }

    /// Its device's own lines, with when each was written.
    pub fn device_lines(&self, conn: u64) -> Vec<Value> {
        let Self { device, node, id, .. } = self;
        let vanishes = self.deeds.iter().any(|(_, what)| *what == "vanish");
        let behaviour = if vanishes { "vanish" } else { "answer" };
        let mut lines = vec![json!({"at": at(self.dial), "is": "dial", "conn": conn, "device": device,
            "to": "127.0.0.1:1", "behaviour": behaviour})];
        if !self.welcomed {
            let failed = at(self.dial + 0.5);
            lines.push(json!({"at": failed, "is": "failed", "conn": conn, "error": "closed"}));
            return lines;
        }
        let welcomed = if self.journaled { self.dial + 0.03 } else { self.started };
        lines.push(json!({"at": at(welcomed), "is": "welcome", "conn": conn, "device": device,
            "session": id, "node": node, "device_seq": null}));
        for (when, what) in &self.deeds {
            lines.push(json!({"at": at(*when), "is": "did", "conn": conn, "session": id, "what": what}));
        }
        if let Some((when, how, code)) = self.end {
            lines.push(json!({"at": at(when), "is": "end", "conn": conn, "session": id, "how": how,
                "code": code, "pings": 5, "pongs": 5, "lost": self.lost, "slowest_us": self.slowest_us,
                "owed_since": self.owed_since.map(at), "last_pong_at": at(self.last_pong),
                "welcome_at": at(welcomed)}));
        }
        lines
    }

    /// Its events without their numbers, with when each was told.
    pub fn events(&self) -> Vec<(f64, Value)> {
        let connected = time(self.dial + 0.01 + self.clock);
        let data = json!({"device_id": self.device, "device_type": "device", "session_id": self.id,
            "node_id": self.node, "incarnation": self.incarnation, "connected_at": connected});
        let event = |kind: &str, data: Value| {
            json!({"specversion": "1.0", "source": format!("/lastpong/{}", self.node),
                "type": format!("lastpong.session.{kind}.v1"), "subject": self.device, "data": data})
        };
        let mut events = vec![(self.started, event("connected", data.clone()))];
        let Some(record) = &self.record else { return events };
        let mut data = data;
        let initiator = super::super::rules::of(record.reason).map_or("server", |rule| rule.initiator);
        let decided = time(record.decided + self.clock);
        let heard = time(self.last_pong.min(record.decided).max(self.dial + 0.01) + self.clock);
        for (key, value) in [
            ("reason", json!(record.reason)),
            ("initiator", json!(initiator)),
            ("detected_by", json!(record.by)),
            ("close_code", json!(record.code)),
            ("last_pong_at", json!(heard)),
            ("last_active_at", json!(heard)),
            ("disconnected_at", json!(decided)),
            ("pings_sent", json!(6)),
            ("pongs_received", json!(5)),
        ] {
            data[key] = value;
        }
        events.push((record.told, event("disconnected", data)));
        events
    }
}
