//! What a dashboard shows of this node, once a second, as a pure core: a reading of the metrics goes in, a point of the
//! charts comes out, and what was lately is kept for whoever opens a page.
//!
//! A point is an object of short names, because fifteen minutes of them go to each new page.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;

use crate::metrics::Standing;
use crate::time::Timestamp;

/// Points kept: a quarter of an hour.
const POINTS: usize = 900;
/// Round trips and detections are told of so many last seconds: one alone has few of them.
const WINDOW: usize = 30;

/// The metrics at a moment.
#[derive(Debug, Clone)]
pub struct Reading {
    pub at: Timestamp,
    /// Starting, live, suspect.
    pub sessions: [i64; 3],
    /// Ends by reason since the start of the process; those that there were none of may be left out.
    pub ends: Vec<(&'static str, u64)>,
    pub rtt: Standing,
    pub detection: Standing,
    /// The log's end; below zero while it is not known.
    pub newest: i64,
    /// Of the slowest reader, by sink: SSE, WebSocket, stream in Redis.
    pub lag: [i64; 3],
    /// By store, where that has a breaker: 0 closed, 1 half-open, 2 open.
    pub breakers: BTreeMap<&'static str, i64>,
    pub journal: i64,
}

/// One second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Milliseconds since the Unix epoch.
    pub t: i64,
    /// Starting, live, suspect.
    pub s: [i64; 3],
    /// Ends by reason in this second.
    pub e: BTreeMap<&'static str, u64>,
    /// Round trips in milliseconds: the median, the 95th and the 99th percentile. Null where there were none lately.
    pub r: Option<[f64; 3]>,
    /// The same of detections.
    pub d: Option<[f64; 3]>,
    /// Events a second, of the whole installation.
    pub v: f64,
    pub l: [i64; 3],
    pub b: BTreeMap<&'static str, i64>,
    pub j: i64,
}

/// What was lately.
#[derive(Debug, Default)]
pub struct Lately {
    points: VecDeque<Arc<str>>,
    window: VecDeque<Reading>,
    last: Option<Point>,
}

impl Lately {
    /// Takes in a reading, and says what the second before it was like.
    pub fn read(&mut self, reading: Reading) -> Point {
        let point = self.point(&reading);
        if self.points.len() >= POINTS {
            self.points.pop_front();
        }
        let text = serde_json::to_string(&point).unwrap_or_else(|_| "{}".to_owned());
        self.points.push_back(text.into());
        if self.window.len() >= WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(reading);
        self.last = Some(point.clone());
        point
    }

    fn point(&self, now: &Reading) -> Point {
        let before = self.window.back();
        let seconds = before.map_or(1.0, |before| (now.at.0 - before.at.0) as f64 / 1e6).max(0.1);
        let had = |reason: &str| {
            // The first reading is the beginning of what is counted.
            let ends = &before.unwrap_or(now).ends;
            ends.iter().find(|(known, _)| *known == reason).map_or(0, |(_, count)| *count)
        };
        let ended = now.ends.iter().map(|(reason, count)| (*reason, count.saturating_sub(had(reason))));
        let oldest = self.window.front().unwrap_or(now);
        let told = |quantiles: [f64; 3]| quantiles.map(|seconds| (seconds * 1e5).round() / 100.0);
        let quantiles = [0.5, 0.95, 0.99];
        let events = match before {
            Some(before) if before.newest >= 0 => now.newest.saturating_sub(before.newest).max(0),
            _ => 0,
        };
        Point {
            t: now.at.0 / 1000,
            s: now.sessions,
            e: ended.filter(|(_, count)| *count > 0).collect(),
            r: now.rtt.quantiles_since(&oldest.rtt, quantiles).map(told),
            d: now.detection.quantiles_since(&oldest.detection, quantiles).map(told),
            v: (events as f64 / seconds * 10.0).round() / 10.0,
            l: now.lag,
            b: now.breakers.clone(),
            j: now.journal,
        }
    }

    pub fn last(&self) -> Option<&Point> {
        self.last.as_ref()
    }

    /// All points that are kept, each as JSON.
    pub fn points(&self) -> Vec<Arc<str>> {
        self.points.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(second: i64, kicked: u64, newest: i64) -> Reading {
        Reading {
            at: Timestamp(second * 1_000_000),
            sessions: [0, 5, 1],
            ends: vec![("kicked", kicked), ("replaced", 2)],
            rtt: Standing::default(),
            detection: Standing::default(),
            newest,
            lag: [0; 3],
            breakers: BTreeMap::from([("sql", 0)]),
            journal: 0,
        }
    }

    #[test]
    fn a_point_tells_what_came_since_the_last() {
        let mut lately = Lately::default();
        let first = lately.read(reading(10, 7, 100));
        assert_eq!((first.t, first.v), (10_000, 0.0));
        assert!(first.e.is_empty(), "what ended before is none of it: {first:?}");
        let next = lately.read(reading(12, 9, 130));
        assert_eq!((next.v, next.e), (15.0, BTreeMap::from([("kicked", 2)])));
        assert_eq!((next.r, next.s), (None, [0, 5, 1]));
        // The log's end becomes known.
        lately.read(reading(13, 9, -1));
        assert_eq!(lately.read(reading(14, 9, 5_000)).v, 0.0);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut lately = Lately::default();
        for second in 0..2 * POINTS as i64 {
            lately.read(reading(second, 0, 0));
        }
        let points = lately.points();
        assert_eq!((points.len(), lately.window.len()), (POINTS, WINDOW));
        assert!(points[0].starts_with(r#"{"t":900000,"#), "{}", points[0]);
    }
}
