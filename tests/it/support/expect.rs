//! What an end record must say, written down once, apart from the program's own table.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::events::DISCONNECTED;

/// The expected end of a session.
pub struct End {
    pub reason: &'static str,
    pub initiator: &'static str,
    pub detected_by: &'static str,
    pub close_code: Option<u16>,
}

/// The contract's table of reasons: initiator, what detects it on one node, the code that is sent.
const TABLE: &[(&str, &str, &str, Option<u16>)] = &[
    ("client_closed", "device", "close_frame", None),
    ("read_error", "network", "socket", None),
    ("ping_failed", "network", "socket", None),
    ("pong_timeout", "network", "heartbeat", Some(4012)),
    ("slow_consumer", "device", "socket", Some(4008)),
    ("protocol_error", "device", "socket", Some(1002)),
    ("message_too_big", "device", "socket", Some(1009)),
    ("rate_limited", "device", "socket", Some(4013)),
    ("replaced", "server", "watchdog", Some(4509)),
    ("token_expired", "server", "watchdog", Some(4005)),
    ("token_revoked", "server", "operator", Some(4500)),
    ("draining", "server", "watchdog", Some(1001)),
    ("kicked", "operator", "operator", Some(4011)),
    ("banned", "operator", "operator", Some(4503)),
    ("internal_error", "server", "watchdog", Some(1011)),
    ("node_lost", "server", "recovery", None),
];

impl End {
    /// As the table has it.
    pub fn by(reason: &str) -> Self {
        let &(reason, initiator, detected_by, close_code) = TABLE
            .iter()
            .find(|row| row.0 == reason)
            .unwrap_or_else(|| panic!("{reason} is not in the table"));
        Self { reason, initiator, detected_by, close_code }
    }

    /// With another code than the table's: an echo, or 1007 for bad UTF-8.
    pub fn code(self, close_code: impl Into<Option<u16>>) -> Self {
        Self { close_code: close_code.into(), ..self }
    }

    /// Found by another node than the session's own.
    pub fn by_a_peer(self) -> Self {
        Self { detected_by: "peer_node", ..self }
    }

    /// Holds that `event` is this end, and that whatever else it says agrees with itself.
    pub fn check(&self, event: &Value) {
        let data = &event["data"];
        assert_eq!(event["type"], DISCONNECTED, "{event:#}");
        assert_eq!(data["reason"], self.reason, "{event:#}");
        assert_eq!(data["initiator"], self.initiator, "{event:#}");
        assert_eq!(data["detected_by"], self.detected_by, "{event:#}");
        assert_eq!(data["close_code"], json!(self.close_code), "{event:#}");
        check_envelope(event);
        check_times(event);
        check_round_trips(event);
    }
}

/// Holds what is true of every event of a session.
pub fn check_envelope(event: &Value) {
    let data = &event["data"];
    assert_eq!(event["specversion"], "1.0", "{event:#}");
    assert_eq!(event["datacontenttype"], "application/json", "{event:#}");
    assert_eq!(event["subject"], data["device_id"], "{event:#}");
    // Who says it: the session's own node, unless another had to.
    let said_by = event["source"].as_str().and_then(|s| s.strip_prefix("/lastpong/")).expect("a source");
    let own = data["node_id"].as_str().expect("a node id");
    let by_another = ["peer_node", "operator"].map(Value::from).contains(&data["detected_by"]);
    assert!(said_by == own || by_another, "{event:#}");
    for id in [&event["id"], &data["session_id"], &data["incarnation"]] {
        let id: uuid::Uuid =
            id.as_str().and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no UUID: {event:#}"));
        assert_eq!(id.get_version_num(), 7, "{event:#}");
    }
    assert!(
        data["remote_addr"].as_str().is_some_and(|a| a.parse::<std::net::SocketAddr>().is_ok()),
        "{event:#}"
    );
    assert!(data["meta"].is_object(), "{event:#}");
    time(&event["time"]).unwrap_or_else(|| panic!("no time: {event:#}"));
}

fn check_times(event: &Value) {
    let data = &event["data"];
    let must = |name: &str| time(&data[name]).unwrap_or_else(|| panic!("no {name}: {event:#}"));
    let (began, active, ended) = (must("connected_at"), must("last_active_at"), must("disconnected_at"));
    assert!(began <= active && active <= ended, "times out of order: {event:#}");
    if let Some(pong) = time(&data["last_pong_at"]) {
        assert!(began <= pong && pong <= active, "last_pong_at out of order: {event:#}");
    }
    let (detection, duration) = (ms(&data["detection_ms"], event), ms(&data["duration_ms"], event));
    // The record's times are rounded apart from its durations, and a wall clock may be slewed meanwhile.
    let near = |a: f64, b: f64| (a - b).abs() <= 5.0;
    assert!(near(duration, between(began, ended)), "duration_ms is not from start to end: {event:#}");
    assert!(
        near(detection, between(active, ended)),
        "detection_ms is not from the last life to the end: {event:#}"
    );
}

fn check_round_trips(event: &Value) {
    let data = &event["data"];
    let rtt = |name: &str| data["rtt_ms"][name].as_f64();
    let pongs = data["pongs_received"].as_u64();
    match (rtt("last"), rtt("min"), rtt("avg"), rtt("max")) {
        (None, None, None, None) => {}
        (Some(last), Some(min), Some(avg), Some(max)) => {
            assert!(0.0 < min && min <= avg && avg <= max && min <= last && last <= max, "{event:#}");
            assert!(pongs.is_none_or(|n| n > 0), "round trips without pongs: {event:#}");
        }
        _ => panic!("round trips by half: {event:#}"),
    }
    if pongs == Some(0) {
        assert!(
            data["last_pong_at"].is_null() && rtt("last").is_none(),
            "no pong, yet a time of it: {event:#}"
        );
    }
}

/// An RFC 3339 time in UTC with microseconds, as all of ours are.
pub fn time(value: &Value) -> Option<Timestamp> {
    let text = value.as_str()?;
    let micros = text.rsplit_once('.')?.1;
    assert!(micros.len() == 7 && micros.ends_with('Z'), "{text} is not UTC with microseconds");
    text.parse().ok()
}

fn ms(value: &Value, event: &Value) -> f64 {
    let ms = value.as_f64().unwrap_or_else(|| panic!("a duration is missing: {event:#}"));
    assert!(ms >= 0.0, "a duration is negative: {event:#}");
    ms
}

fn between(earlier: Timestamp, later: Timestamp) -> f64 {
    later.duration_since(earlier).as_secs_f64() * 1000.0
}
