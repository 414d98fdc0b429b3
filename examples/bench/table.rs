//! The table: medians of all rounds side by side, ratios within a round, and whether what was to be reached is reached.
//!
//! A ratio is taken in each round and then the median of them, so that a round in which the machine was busy counts for
//! both sides alike. Rows that were not measured are not in the table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::line::Line;
use crate::reach::{EMBEDDED, FIGURES, Figure, Limit, Reach, Than};
use crate::stats::median;

/// The figures of one key, by subject and round.
struct Column<'a> {
    lines: Vec<&'a Line>,
    key: &'a str,
}

impl Column<'_> {
    fn all(&self, subject: &str) -> Vec<f64> {
        let of = self.lines.iter().filter(|line| line.subject == subject);
        of.filter_map(|line| line.figure(self.key)).collect()
    }

    /// The ratios of `subject` to `other`'s figure `key`, one for each round that has both. A round that was measured more
    /// than once counts with its last.
    fn ratios(&self, subject: &str, other: &str, key: &str) -> Vec<f64> {
        let by_round = |subject: &str, key: &str| -> BTreeMap<usize, f64> {
            let of = self.lines.iter().filter(|line| line.subject == subject);
            of.filter_map(|line| Some((line.round, line.figure(key)?))).collect()
        };
        let (own, others) = (by_round(subject, self.key), by_round(other, key));
        own.iter().filter_map(|(round, value)| Some(value / others.get(round)?)).collect()
    }
}

/// The whole table as text.
pub fn table(lines: &[Line]) -> String {
    let mut text = String::new();
    if !lines.is_empty() {
        let (what, least) = ("", "(least..greatest)");
        let _ = writeln!(text, "  {what:<46} {:>10} {least:<22}  others (ratio to them)", "median");
    }
    let mut told_rows = BTreeSet::new();
    for figure in FIGURES {
        let of_row: Vec<&Line> = lines.iter().filter(|line| line.row == figure.row).collect();
        let column = Column { lines: of_row, key: figure.key };
        let own = column.all(figure.subject);
        let Some(middle) = median(&own) else { continue };
        if told_rows.insert(figure.row) {
            head(&mut text, figure.row, &column);
        }
        let (least, most) = bounds(&own);
        let _ = write!(text, "  {:<46} {:>10}", figure.what, number(middle));
        let range = format!("({}..{})", number(least), number(most));
        let _ = write!(text, " {range:<22}");
        for peer in others(&column, figure) {
            let ratio = median(&column.ratios(figure.subject, peer, figure.key));
            if let Some((theirs, ratio)) = median(&column.all(peer)).zip(ratio) {
                let _ = write!(text, "  {peer} {} (x{})", number(theirs), number(ratio));
            }
        }
        text.push('\n');
        figure.reach.iter().for_each(|reach| judge(&mut text, figure, &column, middle, reach));
    }
    unknown(&mut text, lines);
    text
}

/// Those with the same figure, but for lastpong itself on other stores.
fn others<'a>(column: &Column<'a>, figure: &Figure) -> Vec<&'a str> {
    let mut others: Vec<&str> = Vec::new();
    for line in &column.lines {
        let name = line.subject.as_str();
        // Another build has no stores.
        let is_comparable = match name {
            "other" => figure.subject == EMBEDDED,
            name => name != figure.subject && !name.starts_with("lastpong"),
        };
        if is_comparable && !others.contains(&name) {
            others.push(name);
        }
    }
    others
}

fn head(text: &mut String, row: &str, column: &Column<'_>) {
    let rounds = column.lines.iter().map(|line| line.round).collect::<BTreeSet<_>>().len();
    let _ = writeln!(text, "\n{row} (rounds: {rounds})");
    let mut told = BTreeSet::new();
    for line in &column.lines {
        if told.insert(&line.subject) && !line.settings.is_empty() {
            let plain = |value: &serde_json::Value| value.as_str().map_or(value.to_string(), str::to_owned);
            let settings: Vec<String> =
                line.settings.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
            let _ = writeln!(text, "  {}: {}", line.subject, settings.join(", "));
        }
    }
}

fn judge(text: &mut String, figure: &Figure, column: &Column<'_>, middle: f64, reach: &Reach) {
    let (what, value) = match reach.than {
        Than::Number => (String::new(), Some(middle)),
        Than::Subject(other, key) => {
            (format!(" x {other}"), median(&column.ratios(figure.subject, other, key)))
        }
    };
    let (sign, limit, is_reached) = match reach.limit {
        Limit::AtMost(limit) => ("<=", limit, value.is_some_and(|value| value <= limit)),
        Limit::AtLeast(limit) => (">=", limit, value.is_some_and(|value| value >= limit)),
    };
    let verdict = match value {
        None => "not here".to_owned(),
        Some(value) => format!("{}  {}", number(value), if is_reached { "yes" } else { "NO" }),
    };
    let _ = writeln!(text, "      {:<42} {verdict}", format!("reach {sign} {}{what}:", number(limit)));
}

/// Rows that this table does not know: what figures they have.
fn unknown(text: &mut String, lines: &[Line]) {
    let known: BTreeSet<&str> = FIGURES.iter().map(|figure| figure.row).collect();
    let mut figures: BTreeMap<(&str, &str, &str), Vec<f64>> = BTreeMap::new();
    for line in lines.iter().filter(|line| !known.contains(line.row.as_str())) {
        for (key, value) in &line.value {
            let all = figures.entry((&line.row, &line.subject, key)).or_default();
            all.extend(value.as_f64());
        }
    }
    for ((row, subject, key), all) in figures {
        if let Some(middle) = median(&all) {
            let _ = writeln!(text, "  {row} {key} of {subject}: {}", number(middle));
        }
    }
}

fn bounds(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    (least, values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

/// To three digits or so.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        x if x >= 100.0 => format!("{value:.0}"),
        x if x >= 10.0 => format!("{value:.1}"),
        x if x >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(row: &str, subject: &str, round: usize, key: &str, value: f64) -> Line {
        serde_json::from_value(
            json!({"row": row, "subject": subject, "round": round, "value": {key: value}, "settings": {}}),
        )
        .unwrap()
    }

    #[test]
    fn a_ratio_is_of_one_round() {
        // In the second round all took ten times as long.
        let lines =
            [("lastpong", 1, 2.0), ("tutorial", 1, 4.0), ("lastpong", 2, 20.0), ("tutorial", 2, 60.0)]
                .map(|(subject, round, cpu)| line("pings", subject, round, "user_s_per_million", cpu));
        let column = Column { lines: lines.iter().collect(), key: "user_s_per_million" };
        let mut ratios = column.ratios("lastpong", "tutorial", "user_s_per_million");
        ratios.sort_by(f64::total_cmp);
        assert_eq!(ratios, [1.0 / 3.0, 0.5]);
    }

    #[test]
    fn what_is_reached_is_said_and_what_is_not_too() {
        let lines = |bytes| {
            vec![
                line("memory", "lastpong", 1, "bytes_per_session", bytes),
                line("memory", "tutorial", 1, "bytes_per_session", 11_670.0),
            ]
        };
        let text = table(&lines(1_500.0));
        assert!(text.contains("reach <= 1700:") && text.contains("1500  yes"), "{text}");
        assert!(text.contains("tutorial 11670 (x0.129)") && text.contains("not here"), "{text}");
        assert!(table(&lines(1_701.0)).contains("1701  NO"));
    }

    #[test]
    fn a_row_of_another_kind_is_told_as_it_is() {
        let text = table(&[line("wheel", "lastpong", 1, "tick_ms", 1.25)]);
        assert!(text.contains("wheel tick_ms of lastpong: 1.25"), "{text}");
        assert_eq!(table(&[]), "");
    }
}
