//! What has been seen, in numbers, and the one line that shows them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anstyle::Style;
use tokio::time::Instant;

use super::line::{Event, of_reason};
use crate::reason::Reason;

/// Over how long the rate is taken.
const WINDOW: Duration = Duration::from_secs(10);
/// In parts of this length, so that a storm takes no more room than a trickle.
const PART: Duration = Duration::from_millis(500);

/// What a watch has seen.
#[derive(Default)]
pub(super) struct Totals {
    /// Sessions held by the whole installation, as lastpong last said.
    pub live: Option<u64>,
    events: u64,
    ends: BTreeMap<&'static str, (u64, Style)>,
    parts: VecDeque<(Instant, u64)>,
}

impl Totals {
    pub(super) fn count(&mut self, event: &Event, now: Instant) {
        self.events += 1;
        if let Some(reason) = event.reason() {
            self.ends.entry(Reason::as_str(reason)).or_insert((0, of_reason(reason))).0 += 1;
        }
        match self.parts.back_mut() {
            Some((began, count)) if now - *began < PART => *count += 1,
            _ => self.parts.push_back((now, 1)),
        }
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        while self.parts.front().is_some_and(|(began, _)| now - *began >= WINDOW) {
            self.parts.pop_front();
        }
    }

    /// Events a second, lately.
    fn rate(&self, now: Instant) -> f64 {
        let lately = self.parts.iter().filter(|(began, _)| now - *began < WINDOW);
        lately.map(|(_, count)| count).sum::<u64>() as f64 / WINDOW.as_secs_f64()
    }

    /// Of at most `width` columns, with the most frequent reasons first and those that find no room left out.
    pub(super) fn line(&self, width: usize, now: Instant) -> String {
        let live = self.live.map_or("? live".to_owned(), |live| format!("{live} live"));
        let mut ends: Vec<_> = self.ends.iter().collect();
        ends.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        let all: u64 = ends.iter().map(|(_, (count, _))| count).sum();
        let head = [
            live,
            format!("{} events", self.events),
            format!("{:.1}/s", self.rate(now)),
            format!("{all} ends"),
        ];
        let parts = head.into_iter().map(|text| (text, Style::new()));
        let parts =
            parts.chain(ends.into_iter().map(|(name, (count, style))| (format!("{name} {count}"), *style)));
        let (mut line, mut used) = (String::new(), 0);
        for (text, style) in parts {
            // All of it is ASCII: a byte is a column.
            let gap = if used > 0 { 2 } else { 0 };
            if used + gap + text.len() > width {
                break;
            }
            line.extend(std::iter::repeat_n(' ', gap));
            line.push_str(&format!("{style}{text}{style:#}"));
            used += gap + text.len();
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(reason: &str) -> Event {
        let data = format!(r#"{{"type":"t","time":"T","data":{{"seq":1,"reason":"{reason}"}}}}"#);
        Event::read(&data).unwrap()
    }

    #[test]
    fn the_line_keeps_to_its_width() {
        let now = Instant::now();
        let mut totals = Totals { live: Some(12_345), ..Totals::default() };
        (0..3).for_each(|_| totals.count(&end("pong_timeout"), now));
        totals.count(&end("kicked"), now);
        totals.count(&end("of a later version"), now);
        let plain = |width| anstream::adapter::strip_str(&totals.line(width, now)).to_string();
        let whole = "12345 live  5 events  0.5/s  4 ends  pong_timeout 3  kicked 1";
        assert_eq!(plain(80), whole);
        assert_eq!(plain(whole.len()), whole);
        assert_eq!(plain(whole.len() - 1), "12345 live  5 events  0.5/s  4 ends  pong_timeout 3");
        assert_eq!(plain(3), "");
    }

    #[test]
    fn the_rate_is_of_the_last_seconds_and_takes_little_room() {
        let began = Instant::now();
        let mut totals = Totals::default();
        for n in 0..10_000 {
            totals.count(&end("kicked"), began + Duration::from_millis(n * 10));
        }
        let now = began + Duration::from_secs(100);
        assert!((totals.rate(now) - 100.0).abs() < 6.0, "{}", totals.rate(now));
        assert!(totals.parts.len() <= 21, "{}", totals.parts.len());
        assert_eq!(totals.rate(now + WINDOW), 0.0);
    }
}
