//! Numbers and times as people read them.

use crate::supervisor::snapshot::State;
use crate::time::Timestamp;

/// Shown where there is nothing to show.
pub(super) const NONE: &str = "–";

/// A length of time, in its two largest units.
pub(super) fn lasting(ms: f64) -> String {
    let seconds = (ms / 1000.0).max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} m {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// How long ago that was.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> String {
    lasting(now.0.saturating_sub(then.0) as f64 / 1000.0)
}

pub(super) fn some_ago(then: Option<Timestamp>, now: Timestamp) -> String {
    then.map_or_else(|| NONE.to_owned(), |then| ago(then, now))
}

/// Milliseconds, with as many digits as say something.
pub(super) fn ms(ms: f64) -> String {
    match ms {
        x if x < 10.0 => format!("{x:.2}"),
        x if x < 100.0 => format!("{x:.1}"),
        x => format!("{x:.0}"),
    }
}

pub(super) fn some_ms(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), ms)
}

/// With a space between thousands, which no language takes for a decimal sign.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let first = digits.len() % 3;
    let mut out = digits[..first].to_owned();
    for group in digits.as_bytes()[first..].chunks(3) {
        if !out.is_empty() {
            out.push('\u{202f}');
        }
        out.extend(group.iter().map(|digit| char::from(*digit)));
    }
    out
}

/// To the second, for a column; the whole is in its title.
pub(super) fn clock(at: Timestamp) -> String {
    at.to_string().replace('T', " ").chars().take(19).collect()
}

/// A state, and the class that colours it.
pub(super) fn state(state: State) -> (&'static str, &'static str) {
    match state {
        State::Starting => ("starting", ""),
        State::Live => ("live", "good"),
        State::Suspect => ("suspect", "warn"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_it() {
        assert_eq!(
            ["0 s", "1 m 1 s", "2 h 5 m", "3 d 4 h"].map(str::to_owned),
            [lasting(999.0), lasting(61_000.0), lasting(7_500_000.0), lasting(273_600_000.0)]
        );
        assert_eq!([ms(1.234), ms(12.34), ms(123.4)], ["1.23", "12.3", "123"].map(str::to_owned));
        assert_eq!(
            [count(7), count(1_000), count(12_345_678)],
            ["7", "1\u{202f}000", "12\u{202f}345\u{202f}678"].map(str::to_owned)
        );
        assert_eq!(clock(Timestamp(0)), "1970-01-01 00:00:00");
    }
}
