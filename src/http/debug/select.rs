//! Choosing a page of live sessions: filter, order, and the place where the page before ended.
//!
//! Pure. A place is the sort value of the last session shown and its id, so paging is stable while sessions
//! come and go: whoever stays is shown once, whoever changes its own sort value may be shown again or not.
//! Sessions are never copied: references to about two pages of them are kept, and only the page is put in order.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::ids::SessionId;
use crate::store::Match;
use crate::supervisor::snapshot::{SessionView, State};

/// Which live sessions are wanted; what is absent wants all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub state: Option<State>,
    pub device_id: Option<Match>,
    pub device_type: Option<String>,
    pub node: Option<String>,
    pub remote_addr: Option<IpNet>,
    /// Sessions with a last round trip of at least this.
    pub min_rtt_ms: Option<f64>,
    /// Sessions silent for longer than this.
    pub idle_over_ms: Option<f64>,
}

impl Filter {
    fn wants(&self, s: &SessionView) -> bool {
        let ip = || s.start.remote_addr.ip().to_canonical();
        self.state.is_none_or(|state| s.state == state)
            && self.device_id.as_ref().is_none_or(|m| m.matches(s.start.device_id.as_str()))
            && self.device_type.as_ref().is_none_or(|t| s.start.device_type.as_str() == t)
            && self.node.as_ref().is_none_or(|n| s.start.node_id.as_str() == n)
            && self.remote_addr.is_none_or(|net| net.contains(&ip()))
            && self.min_rtt_ms.is_none_or(|least| s.rtt_ms.last.is_some_and(|rtt| rtt >= least))
            && self.idle_over_ms.is_none_or(|most| s.idle_ms > most)
    }
}

/// What sessions are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortBy {
    ConnectedAt,
    LastPong,
    Rtt,
    Idle,
    Missed,
    DeviceId,
    DeviceType,
    State,
    Node,
    RemoteAddr,
}

impl SortBy {
    pub const ALL: [(&str, SortBy); 10] = [
        ("connected_at", SortBy::ConnectedAt),
        ("last_pong", SortBy::LastPong),
        ("rtt", SortBy::Rtt),
        ("idle", SortBy::Idle),
        ("missed", SortBy::Missed),
        ("device_id", SortBy::DeviceId),
        ("device_type", SortBy::DeviceType),
        ("state", SortBy::State),
        ("node", SortBy::Node),
        ("remote_addr", SortBy::RemoteAddr),
    ];

    fn key(self, s: &SessionView) -> Key<'_> {
        match self {
            SortBy::ConnectedAt => Key::Int(s.start.connected_at.0),
            SortBy::LastPong => s.last_pong_at.map_or(Key::Absent, |t| Key::Int(t.0)),
            SortBy::Rtt => s.rtt_ms.last.map_or(Key::Absent, Key::Float),
            // The moment last heard stands still between two pages where the idle time grows.
            SortBy::Idle => Key::Int(-s.last_active_at.0),
            SortBy::Missed => Key::Int(s.missed.into()),
            SortBy::DeviceId => Key::Text(s.start.device_id.as_str().into()),
            SortBy::DeviceType => Key::Text(s.start.device_type.as_str().into()),
            SortBy::State => Key::Int(s.state as i64),
            SortBy::Node => Key::Text(s.start.node_id.as_str().into()),
            SortBy::RemoteAddr => Key::Addr(s.start.remote_addr),
        }
    }

    fn read_key(self, text: &str) -> Option<Key<'static>> {
        match self {
            SortBy::LastPong | SortBy::Rtt if text.is_empty() => Some(Key::Absent),
            SortBy::ConnectedAt | SortBy::LastPong | SortBy::Idle | SortBy::Missed | SortBy::State => {
                text.parse().ok().map(Key::Int)
            }
            SortBy::Rtt => text.parse().ok().map(Key::Float),
            SortBy::DeviceId | SortBy::DeviceType | SortBy::Node => Some(Key::Text(text.to_owned().into())),
            SortBy::RemoteAddr => text.parse().ok().map(Key::Addr),
        }
    }
}

/// A session's value under a sort.
#[derive(Debug, Clone, PartialEq)]
pub enum Key<'a> {
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Addr(SocketAddr),
    Absent,
}

impl Key<'_> {
    fn to_text(&self) -> String {
        match self {
            Key::Int(n) => n.to_string(),
            Key::Float(x) => x.to_string(),
            Key::Text(text) => text.to_string(),
            Key::Addr(addr) => addr.to_string(),
            Key::Absent => String::new(),
        }
    }
}

/// A sort and its direction. Sessions without a value come last in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub by: SortBy,
    pub reverse: bool,
}

impl Default for Order {
    fn default() -> Self {
        Self { by: SortBy::ConnectedAt, reverse: false }
    }
}

impl std::str::FromStr for Order {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (name, reverse) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
        let (_, by) = SortBy::ALL.into_iter().find(|(known, _)| *known == name).ok_or(())?;
        Ok(Self { by, reverse })
    }
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = SortBy::ALL.into_iter().find(|(_, by)| *by == self.by).map_or("", |(name, _)| name);
        write!(f, "{}{name}", if self.reverse { "-" } else { "" })
    }
}

impl Order {
    fn compare(self, a: (&Key<'_>, SessionId), b: (&Key<'_>, SessionId)) -> Ordering {
        let turned = |o: Ordering| if self.reverse { o.reverse() } else { o };
        let by_key = match (a.0, b.0) {
            (Key::Int(a), Key::Int(b)) => turned(a.cmp(b)),
            (Key::Float(a), Key::Float(b)) => turned(a.total_cmp(b)),
            (Key::Text(a), Key::Text(b)) => turned(a.cmp(b)),
            (Key::Addr(a), Key::Addr(b)) => turned(a.cmp(b)),
            // Of one sort, keys differ in kind only where one of them is absent.
            (a, b) => matches!(a, Key::Absent).cmp(&matches!(b, Key::Absent)),
        };
        by_key.then_with(|| a.1.cmp(&b.1))
    }
}

/// The last session of a page, as the page after it must know it.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    key: Key<'static>,
    id: SessionId,
}

impl Place {
    /// As text that [`Place::read`] understands for the same sort.
    pub fn to_text(&self) -> String {
        format!("{}~{}", self.id, self.key.to_text())
    }

    pub fn read(order: Order, text: &str) -> Option<Self> {
        let (id, key) = text.split_once('~')?;
        Some(Self { id: id.parse().ok()?, key: order.by.read_key(key)? })
    }
}

/// A page of sessions.
#[derive(Debug)]
pub struct Picked<'a> {
    pub items: Vec<&'a SessionView>,
    /// Where the next page begins; absent on the last.
    pub next: Option<Place>,
    /// Sessions that the filter wants, on all pages together.
    pub total: usize,
}

/// The first `limit` sessions after `after` that the filter wants, in order.
pub fn select<'a>(
    sessions: impl Iterator<Item = &'a SessionView>,
    filter: &Filter,
    order: Order,
    after: Option<&Place>,
    limit: usize,
) -> Picked<'a> {
    let compare = |a: &(Key<'_>, &SessionView), b: &(Key<'_>, &SessionView)| {
        order.compare((&a.0, a.1.session_id), (&b.0, b.1.session_id))
    };
    let mut total = 0;
    let mut found: Vec<(Key<'a>, &'a SessionView)> = Vec::new();
    let mut is_full = false;
    for session in sessions.filter(|s| filter.wants(s)) {
        total += 1;
        let one = (order.by.key(session), session);
        let is_after = |place: &Place| {
            order.compare((&one.0, session.session_id), (&place.key, place.id)) == Ordering::Greater
        };
        if !after.is_none_or(is_after) || (is_full && compare(&one, &found[limit]) == Ordering::Greater) {
            continue;
        }
        found.push(one);
        if found.len() > 2 * limit + 1 {
            found.select_nth_unstable_by(limit, compare);
            found.truncate(limit + 1);
            is_full = true;
        }
    }
    let more = found.len() > limit;
    if more {
        found.select_nth_unstable_by(limit, compare);
        found.truncate(limit);
    }
    found.sort_unstable_by(compare);
    let last = found.last().filter(|_| more);
    let next =
        last.and_then(|(key, s)| Some(Place { key: order.by.read_key(&key.to_text())?, id: s.session_id }));
    Picked { items: found.into_iter().map(|(_, session)| session).collect(), next, total }
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
