//! An event as a line for people: when, its place, what, who, and what is worth knowing of its kind.
//!
//! What came from elsewhere is shown without control characters, so that no device or server draws on the terminal.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use serde::Deserialize;
use serde_json::Value;

use crate::reason::{Initiator, Reason};

/// A CloudEvent, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    r#type: String,
    time: String,
    subject: Option<String>,
    data: Data,
}

#[derive(Debug, Deserialize)]
struct Data {
    seq: i64,
    reason: Option<String>,
    duration_ms: Option<f64>,
    detection_ms: Option<f64>,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

/// Shown of any event that has them, in this order.
const SHOWN: [&str; 8] = [
    "initiator",
    "detected_by",
    "close_code",
    "device_type",
    "session_id",
    "node_id",
    "remote_addr",
    "service_name",
];

const DIM: Style = Style::new().dimmed();

impl Event {
    pub(super) fn read(data: &str) -> Result<Self, String> {
        serde_json::from_str(data).map_err(|e| format!("an event of its stream cannot be read: {e}"))
    }

    pub(super) fn seq(&self) -> i64 {
        self.data.seq
    }

    /// Of an end; any other word than a known reason is none.
    pub(super) fn reason(&self) -> Option<Reason> {
        self.data.reason.as_deref()?.parse().ok()
    }

    /// `session.disconnected` of `lastpong.session.disconnected.v1`.
    fn kind(&self) -> &str {
        let kind = self.r#type.strip_prefix("lastpong.").unwrap_or(&self.r#type);
        kind.rsplit_once(".v").map_or(kind, |(kind, _)| kind)
    }

    fn style(&self) -> Style {
        match (self.reason(), self.kind()) {
            (Some(reason), _) => of_reason(reason),
            (None, "session.connected" | "session.recovered" | "session.resumed" | "service.up") => {
                AnsiColor::Green.on_default()
            }
            (None, "node.lost" | "service.down") => AnsiColor::Red.on_default().bold(),
            (None, _) => AnsiColor::Yellow.on_default(),
        }
    }

    /// Without a line break, and with the escapes of its colours.
    pub(super) fn line(&self) -> String {
        let style = self.style();
        let (time_of, kind) = (clean(&self.time), clean(self.kind()));
        let mut line = format!("{DIM}{time_of}{DIM:#} {} {style}{kind}{style:#}", self.seq());
        // Nothing can be wrong with writing to a string.
        if let Some(who) = &self.subject {
            let _ = write!(line, " {}", clean(who));
        }
        if let Some(reason) = &self.data.reason {
            let _ = write!(line, " {style}reason={}{style:#}", clean(reason));
        }
        for (name, milliseconds) in [("lasted", self.data.duration_ms), ("silent", self.data.detection_ms)] {
            if let Some(milliseconds) = milliseconds {
                let _ = write!(line, " {name}={}", time(milliseconds));
            }
        }
        line.push_str(&format!("{DIM}"));
        for name in SHOWN {
            match self.data.rest.get(name) {
                Some(Value::String(text)) => _ = write!(line, " {name}={}", clean(text)),
                Some(Value::Number(number)) => _ = write!(line, " {name}={number}"),
                _ => {}
            }
        }
        line.push_str(&format!("{DIM:#}"));
        line
    }
}

/// The colour of who brought it about; of our own faults, the loudest.
pub(super) fn of_reason(reason: Reason) -> Style {
    match (reason, reason.initiator()) {
        (Reason::NodeLost | Reason::InternalError, _) => AnsiColor::Red.on_default().bold(),
        (_, Initiator::Device) => AnsiColor::Cyan.on_default(),
        (_, Initiator::Network) => AnsiColor::Yellow.on_default(),
        (_, Initiator::Operator) => AnsiColor::Blue.on_default(),
        (_, Initiator::Server) => AnsiColor::Magenta.on_default(),
    }
}

fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// As people say it.
fn time(milliseconds: f64) -> String {
    let seconds = (milliseconds / 1e3).max(0.0);
    match seconds {
        s if s < 1.0 => format!("{:.0}ms", s * 1e3),
        s if s < 60.0 => format!("{s:.1}s"),
        s if s < 3_600.0 => format!("{}m{:02}s", s as u64 / 60, s as u64 % 60),
        s if s < 86_400.0 => format!("{}h{:02}m", s as u64 / 3_600, s as u64 / 60 % 60),
        s => format!("{}d{:02}h", s as u64 / 86_400, s as u64 / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(json: &str) -> String {
        anstream::adapter::strip_str(&Event::read(json).unwrap().line()).to_string()
    }

    #[test]
    fn an_end_says_why() {
        let json = r#"{"type":"lastpong.session.disconnected.v1","time":"T","subject":"d1","data":{"seq":7,
            "reason":"pong_timeout","initiator":"network","detected_by":"heartbeat","close_code":4012,
            "duration_ms":3725000.5,"detection_ms":45000.0,"session_id":"s","node_id":"n","meta":{"a":"b"}}}"#;
        assert_eq!(
            plain(json),
            "T 7 session.disconnected d1 reason=pong_timeout lasted=1h02m silent=45.0s initiator=network \
             detected_by=heartbeat close_code=4012 session_id=s node_id=n"
        );
        let style = Event::read(json).unwrap().style();
        assert_eq!(style, AnsiColor::Yellow.on_default());
    }

    #[test]
    fn an_event_of_a_later_version_is_shown() {
        assert_eq!(
            plain(r#"{"type":"lastpong.planet.lost.v2","time":"T","data":{"seq":1,"reason":"bored"}}"#),
            "T 1 planet.lost reason=bored"
        );
    }

    #[test]
    fn nobody_draws_on_the_terminal() {
        let json = r#"{"type":"lastpong.\u001b[2Jx.v1","time":"\rT","subject":"d\u009b1","data":{"seq":1,"reason":"\n",
            "node_id":"\u0007n"}}"#;
        let line = Event::read(json).unwrap().line();
        let escapes = |text: &str| text.chars().filter(|c| c.is_control()).collect::<String>();
        let styled =
            escapes(&Event::read(r#"{"type":"x","time":"T","data":{"seq":1,"reason":""}}"#).unwrap().line());
        assert_eq!(escapes(&line), styled, "{line:?}");
    }

    #[test]
    fn times_are_short() {
        for (milliseconds, shown) in [
            (0.4, "0ms"),
            (999.0, "999ms"),
            (59_940.0, "59.9s"),
            (61_000.0, "1m01s"),
            (90_000_000.0, "1d01h"),
        ] {
            assert_eq!(time(milliseconds), shown);
        }
    }
}
