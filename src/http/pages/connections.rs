//! The table of connections: live ones of the installation, or closed ones of the record.

use askama::Template;

use super::words::{ago, clock, count, lasting, ms, some_ago, some_ms, state};
use super::{Frame, asked_by_form};
use crate::http::browser;
use crate::http::debug::List;
use crate::http::debug::connections::{OF_CLOSED, OF_LIVE};
use crate::http::debug::live::LivePage;
use crate::http::record::Record;
use crate::reason::Reason;
use crate::supervisor::snapshot::{SessionView, Source};
use crate::time::Timestamp;

const PATH: &str = "/debug/connections";

/// Columns of live sessions, with what each is sorted by.
const LIVE: [(&str, &str, bool); 10] = [
    ("Device", "device_id", false),
    ("Type", "device_type", false),
    ("State", "state", false),
    ("Node", "node", false),
    ("Connected", "connected_at", true),
    ("Last pong", "last_pong", true),
    ("Idle", "idle", true),
    ("Round trip", "rtt", true),
    ("Missed", "missed", true),
    ("Address", "remote_addr", false),
];

/// A query as the form sends it, without what only the other kind of list knows: the form may have had fields for it.
pub(in crate::http) fn asked_by_page(query: &str) -> String {
    let pairs = pairs(&asked_by_form(query));
    let closed = pairs.iter().any(|(name, value)| name == "state" && value == "closed");
    let foreign: &[&str] = if closed { &OF_LIVE } else { &OF_CLOSED };
    let kept = pairs.iter().filter(|(name, _)| !foreign.contains(&name.as_str()));
    serde_urlencoded::to_string(kept.collect::<Vec<_>>()).unwrap_or_default()
}

fn pairs(query: &str) -> Vec<(String, String)> {
    serde_urlencoded::from_str(query).unwrap_or_default()
}

#[derive(Template)]
#[template(path = "connections.html")]
struct Connections {
    frame: Frame,
    form: Form,
    closed: bool,
    total: String,
    /// Of live sessions: what is missing, and how old what is there may be.
    nodes: Vec<Node>,
    complete: bool,
    columns: Vec<Column>,
    live: Vec<Live>,
    ended: Vec<Ended>,
    next: Option<String>,
    first: Option<String>,
}

struct Node {
    name: String,
    source: &'static str,
    sessions: String,
    age: String,
}

struct Column {
    name: &'static str,
    href: String,
    sorted: &'static str,
    is_number: bool,
}

struct Live {
    id: String,
    device: String,
    kind: String,
    state: (&'static str, &'static str),
    node: String,
    connected: String,
    connected_at: String,
    pong: String,
    idle: String,
    rtt: String,
    missed: String,
    addr: String,
}

struct Ended {
    id: String,
    device: String,
    kind: String,
    reason: String,
    node: String,
    connected: String,
    ended: String,
    lasted: String,
}

/// What the fields of the form hold.
struct Form {
    fields: Vec<(String, String)>,
    reasons: Vec<&'static str>,
}

impl Form {
    fn value(&self, name: &str) -> &str {
        self.fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.value(name) == value
    }

    fn rows(&self, rows: &str) -> bool {
        let chosen = self.value("limit");
        rows == if chosen.is_empty() { "100" } else { chosen }
    }

    fn of(query: &str) -> Self {
        Self { fields: pairs(query), reasons: Reason::ALL.iter().map(|reason| reason.as_str()).collect() }
    }

    /// This page's address with other values; one that is empty goes.
    fn with(&self, changes: &[(&str, &str)]) -> String {
        let changed = |name: &str| changes.iter().any(|(other, _)| *other == name);
        let kept = self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let all: Vec<(&str, &str)> = kept
            .filter(|(name, _)| !changed(name))
            .chain(changes.iter().copied())
            .filter(|(_, value)| !value.is_empty())
            .collect();
        if all.is_empty() {
            return PATH.to_owned();
        }
        format!("{PATH}?{}", serde_urlencoded::to_string(all).unwrap_or_default())
    }

    fn columns(&self) -> Vec<Column> {
        let now = match self.value("sort") {
            "" => "connected_at",
            sort => sort,
        };
        let column = |(name, by, is_number): (&'static str, &str, bool)| {
            let reversed = format!("-{by}");
            let (sorted, next) = match now {
                sort if sort == by => ("ascending", reversed.as_str()),
                sort if sort == reversed => ("descending", by),
                _ => ("none", by),
            };
            Column { name, href: self.with(&[("sort", next), ("cursor", "")]), sorted, is_number }
        };
        LIVE.map(column).into()
    }

    /// The next page, and the first where this is another.
    fn ways(&self, next_cursor: Option<&str>) -> (Option<String>, Option<String>) {
        let next = next_cursor.map(|cursor| self.with(&[("cursor", cursor)]));
        let first = (!self.value("cursor").is_empty()).then(|| self.with(&[("cursor", "")]));
        (next, first)
    }
}

/// The page of live sessions.
pub(in crate::http) fn live_page(frame: Frame, query: &str, page: &LivePage) -> String {
    let form = Form::of(query);
    let (next, first) = form.ways(page.next_cursor.as_deref());
    let nodes = page.nodes.iter().map(|part| Node {
        name: part.node_id.to_string(),
        source: part.source,
        sessions: count(part.sessions as u64),
        age: lasting(part.age_ms),
    });
    let shown = Connections {
        frame,
        closed: false,
        total: count(page.total),
        nodes: nodes.collect(),
        complete: page.complete,
        columns: form.columns(),
        live: page.items.iter().map(|view| live(view, page.now)).collect(),
        ended: Vec::new(),
        next,
        first,
        form,
    };
    browser::written(&shown)
}

fn live(view: &SessionView, now: Timestamp) -> Live {
    let start = &view.start;
    Live {
        id: view.session_id.to_string(),
        device: start.device_id.to_string(),
        kind: start.device_type.to_string(),
        state: state(view.state),
        node: start.node_id.to_string(),
        connected: ago(start.connected_at, now),
        connected_at: start.connected_at.to_string(),
        pong: some_ago(view.last_pong_at, now),
        idle: lasting(view.idle_ms),
        rtt: view.rtt_ms.last.map_or_else(|| some_ms(None), |rtt| ms(rtt) + " ms"),
        missed: if view.source == Source::Record {
            super::words::NONE.into()
        } else {
            view.missed.to_string()
        },
        addr: start.remote_addr.to_string(),
    }
}

/// The page of closed sessions.
pub(in crate::http) fn closed_page(frame: Frame, query: &str, list: &List<Record>) -> String {
    let form = Form::of(query);
    let (next, first) = form.ways(list.next_cursor.as_deref());
    let shown = Connections {
        frame,
        closed: true,
        total: count(list.total),
        nodes: Vec::new(),
        complete: true,
        columns: Vec::new(),
        live: Vec::new(),
        ended: list.items.iter().map(ended).collect(),
        next,
        first,
        form,
    };
    browser::written(&shown)
}

fn ended(record: &Record) -> Ended {
    Ended {
        id: record.session_id.to_string(),
        device: record.device_id.to_string(),
        kind: record.device_type.to_string(),
        reason: record
            .reason
            .map_or_else(|| super::words::NONE.to_owned(), |reason| reason.as_str().to_owned()),
        node: record.node_id.to_string(),
        connected: clock(record.connected_at),
        ended: record.disconnected_at.map(clock).unwrap_or_default(),
        lasted: record.disconnected_at.map(|end| ago(record.connected_at, end)).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_form_leaves_empty_is_not_asked_for() {
        assert_eq!(asked_by_page("state=&device_id=a*&reason=kicked&sort=-rtt"), "device_id=a*&sort=-rtt");
        assert_eq!(
            asked_by_page("state=closed&device_id=&reason=kicked&sort=-rtt"),
            "state=closed&reason=kicked"
        );
        assert_eq!(asked_by_page("nonsense=1"), "nonsense=1", "what is unknown is told so");
    }

    #[test]
    fn a_column_turns_its_own_order() {
        let sorted = |query: &str| {
            let form = Form::of(query);
            let columns = form.columns();
            let rtt = columns.into_iter().find(|column| column.name == "Round trip").unwrap();
            (rtt.sorted, rtt.href)
        };
        assert_eq!(sorted("state=live&cursor=00"), ("none", "/debug/connections?state=live&sort=rtt".into()));
        assert_eq!(sorted("sort=rtt"), ("ascending", "/debug/connections?sort=-rtt".into()));
        assert_eq!(sorted("sort=-rtt"), ("descending", "/debug/connections?sort=rtt".into()));
        assert_eq!(
            Form::of("cursor=00").ways(Some("01")),
            (Some("/debug/connections?cursor=01".into()), Some("/debug/connections".into()))
        );
    }
}
