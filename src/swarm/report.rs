//! What is told at the end of a run: for people, or as one JSON object.

use std::fmt::{self, Display, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::tally::{Latency, Tally, Unexpected};

pub struct Report {
    pub tally: Tally,
    pub seed: u64,
    pub devices: u32,
    pub processes: u32,
    pub took: Duration,
}

/// Quantiles that are told of each histogram, and the greatest.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];

impl Report {
    pub fn any_welcomed(&self) -> bool {
        self.tally.pulse.welcomed > 0
    }

    /// Welcomes in the best second.
    fn peak(&self) -> u64 {
        self.tally.by_second.values().copied().max().unwrap_or(0)
    }

    /// Welcomes a second, over the seconds with any.
    fn mean(&self) -> f64 {
        let seconds = self.tally.by_second.len().max(1);
        self.tally.pulse.welcomed as f64 / seconds as f64
    }

    fn latencies(&self) -> [(&'static str, &Latency); 5] {
        let t = &self.tally;
        [
            ("dial_to_101", &t.upgrade),
            ("dial_to_welcome", &t.welcome),
            ("ping_to_pong", &t.turnaround),
            ("own_ping_round_trip", &t.ping),
            ("heartbeat_round_trip", &t.heartbeat),
        ]
    }

    pub fn json(&self) -> Value {
        let (t, p) = (&self.tally, &self.tally.pulse);
        let latency = |l: &Latency| {
            let mut told: serde_json::Map<_, _> =
                QUANTILES.iter().map(|(name, q)| ((*name).to_owned(), json!(l.quantile_ms(*q)))).collect();
            told.insert("max".into(), json!(l.max_ms()));
            told.insert("count".into(), json!(l.count()));
            Value::Object(told)
        };
        let latencies: serde_json::Map<_, _> =
            self.latencies().into_iter().map(|(name, l)| (name.to_owned(), latency(l))).collect();
        json!({
            "devices": self.devices, "processes": self.processes, "seed": self.seed,
            "seconds": self.took.as_secs_f64(),
            "handshakes": {
                "begun": p.begun, "welcomed": p.welcomed, "refused": p.refused, "failed": p.failed,
                "refused_by_status": t.statuses, "failed_by_error": t.failures,
                "welcomed_per_second": { "peak": self.peak(), "mean": self.mean() },
            },
            "latency_ms": latencies,
            "pings": p.pings, "pongs": p.pongs, "lost": t.lost, "heartbeats_acknowledged": t.heartbeats,
            "not_understood": t.not_understood, "did": t.deeds,
            "ends": p.ends, "ends_by_close_code": t.codes,
            "unexpected": { "count": p.unexpected, "first": t.unexpected },
            "not_coming_back": t.gone, "swarm_late_ms": t.late_ms,
        })
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (t, p) = (&self.tally, &self.tally.pulse);
        let took = self.took.as_secs_f64();
        writeln!(
            f,
            "devices      {} in {} process(es), {took:.1} s, seed {}",
            self.devices, self.processes, self.seed
        )?;
        writeln!(
            f,
            "handshakes   begun {}, welcomed {}, refused {}{}, failed {}",
            p.begun,
            p.welcomed,
            p.refused,
            in_brackets(&t.statuses),
            p.failed,
        )?;
        for (error, n) in &t.failures {
            writeln!(f, "             {n} failed: {error}")?;
        }
        writeln!(f, "welcomes/s   peak {}, mean {:.1}", self.peak(), self.mean())?;
        writeln!(
            f,
            "pings        {}, answered {}, deliberately not {}; heartbeats acknowledged {}",
            p.pings, p.pongs, t.lost, t.heartbeats
        )?;
        writeln!(f, "did         {}", listed(&t.deeds))?;
        writeln!(f, "ends        {}", listed(&p.ends))?;
        writeln!(f, "close codes {}", listed(&t.codes))?;
        if t.gone > 0 {
            writeln!(f, "gone         {} devices do not come back", t.gone)?;
        }
        if t.not_understood > 0 {
            writeln!(f, "errors       {} frames were not understood", t.not_understood)?;
        }
        if t.late_ms > 0 {
            writeln!(f, "late         this program itself stood still for {} ms", t.late_ms)?;
        }
        write!(f, "unexpected   {} ended although the device answered and did nothing", p.unexpected)?;
        f.write_str(&t.unexpected.iter().map(told).collect::<String>())?;
        writeln!(
            f,
            "\n\n{:<22}{:>10}{:>10}{:>10}{:>10}{:>12}",
            "milliseconds", "p50", "p90", "p99", "max", "count"
        )?;
        for (name, l) in self.latencies().into_iter().filter(|(_, l)| l.count() > 0) {
            write!(f, "{:<22}", name.replace('_', " "))?;
            for (_, q) in QUANTILES {
                write!(f, "{:>10.2}", l.quantile_ms(q))?;
            }
            writeln!(f, "{:>10.2}{:>12}", l.max_ms(), l.count())?;
        }
        Ok(())
    }
}

fn told(one: &Unexpected) -> String {
    let code = one.code.map(|code| format!(" {code}")).unwrap_or_default();
    format!("\n             {} ({}{code}), session {}", one.device, one.how, one.session)
}

fn listed<K: Display, V: Display>(counts: &std::collections::BTreeMap<K, V>) -> String {
    let mut text = String::new();
    for (key, n) in counts {
        // Writing to a string does not fail.
        let _ = write!(text, " {key} {n},");
    }
    if text.is_empty() { " none".into() } else { text.trim_end_matches(',').into() }
}

fn in_brackets<K: Display, V: Display>(counts: &std::collections::BTreeMap<K, V>) -> String {
    if counts.is_empty() { String::new() } else { format!(" ({})", listed(counts).trim()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_tell_the_same() {
        let mut tally = Tally::default();
        (tally.pulse.begun, tally.pulse.welcomed, tally.pulse.unexpected) = (9, 7, 1);
        tally.pulse.ends.insert("close_frame".into(), 6);
        tally.codes.insert(4012, 6);
        tally.by_second.extend([(10, 2), (11, 5)]);
        tally.welcome.take(Duration::from_millis(20));
        let (how, code) = ("eof".to_owned(), None);
        tally.unexpected.push(Unexpected { device: "swarm-3".into(), session: "s".into(), how, code });
        let report = Report { tally, seed: 5, devices: 9, processes: 2, took: Duration::from_secs(3) };
        let text = report.to_string();
        for part in
            ["begun 9, welcomed 7", "peak 5, mean 3.5", "close_frame 6", "4012 6", "swarm-3 (eof)", "20.0"]
        {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        let json = report.json();
        assert_eq!(json["handshakes"]["welcomed_per_second"]["peak"], 5);
        assert_eq!(json["ends_by_close_code"]["4012"], 6);
        assert_eq!(json["unexpected"]["first"][0]["device"], "swarm-3");
        assert!(json["latency_ms"]["dial_to_welcome"]["p99"].as_f64().unwrap() >= 20.0);
    }
}
