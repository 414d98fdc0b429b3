//! The verdict as text: a table of the promises, the delays, what ended and what was broken, then the stories.

use std::fmt::{self, Formatter};

use super::at::{At, SECOND};
use super::delays::{Delay, Percentiles};
use super::lags::Lag;
use super::story::Story;
use super::verdict::{Promise, Tally, Verdict};

pub fn show(verdict: &Verdict, out: &mut Formatter<'_>) -> fmt::Result {
    writeln!(
        out,
        "{:<8} {:<72} {:>10} {:>10} {:>8}",
        "promise", "what was checked", "tried", "held", "broken"
    )?;
    for promise in Promise::ALL {
        let tally = verdict.tallies.get(&promise).copied().unwrap_or_default();
        let Tally { tried, broken } = tally;
        let note = if tried == 0 { "  not tried" } else { "" };
        let (name, checked) = (format!("{promise:?}"), promise.checked());
        writeln!(out, "{name:<8} {checked:<72} {tried:>10} {:>10} {broken:>8}{note}", tally.held())?;
    }
    writeln!(out, "\nP5, from what ended a session to the first subscriber's receipt, in ms")?;
    let columns = ["n", "p50", "p90", "p99", "max"].map(|c| format!("{c:>9}")).concat();
    writeln!(out, "{:<13} {:<5}{columns} {:>9}", "", "", "bound")?;
    for delay in &verdict.delays {
        delay_rows(out, delay)?;
    }
    writeln!(out, "\nfrom the first subscriber's receipt to another's, in calm time, in ms")?;
    let columns = ["n", "p50", "p99", "max"].map(|c| format!("{c:>9}")).concat();
    writeln!(out, "{:<19}{columns}", "")?;
    for Lag { kind, calm } in &verdict.lags {
        let row = match calm {
            Some(Percentiles { n, p50, p99, max, .. }) => format!("{n:>9}{p50:>9.1}{p99:>9.1}{max:>9.1}"),
            None => format!("{:>9}{:>9}{:>9}{:>9}", 0, "-", "-", "-"),
        };
        writeln!(out, "{kind:<19}{row}")?;
    }
    let reasons = verdict.reasons.iter().map(|(reason, n)| format!("{reason} {n}")).collect::<Vec<_>>();
    writeln!(out, "\nends by reason: {}", list(&reasons))?;
    let faults = verdict.faults.iter().map(|(kind, n)| format!("{} {n}", kind.word())).collect::<Vec<_>>();
    writeln!(out, "faults: {}", list(&faults))?;
    for lack in &verdict.lacks {
        writeln!(out, "not a whole run: {lack}")?;
    }
    for (promise, kind, n) in &verdict.kinds {
        writeln!(out, "\n{promise:?} {kind}: {n} broken")?;
        let stories =
            verdict.stories.iter().filter(|s| s.violation.promise == *promise && s.violation.kind == *kind);
        let told = stories.clone().count() as u64;
        for story in stories {
            write_story(out, story)?;
        }
        if told < *n {
            writeln!(out, "  and {} more", n - told)?;
        }
    }
    let seed = &verdict.seed;
    let outcome = if verdict.held() { "held" } else { "broken" };
    writeln!(out, "\nseed {seed}: {outcome}")
}

fn list(words: &[String]) -> String {
    if words.is_empty() { "none".into() } else { words.join(", ") }
}

fn delay_rows(out: &mut Formatter<'_>, delay: &Delay) -> fmt::Result {
    let bound = delay.bound_ms.map_or("-".into(), |bound| format!("{bound:.0}"));
    let over = if delay.over() { "  over" } else { "" };
    let row = |percentiles: Option<Percentiles>| match percentiles {
        Some(Percentiles { n, p50, p90, p99, max }) => {
            format!("{n:>9}{p50:>9.1}{p90:>9.1}{p99:>9.1}{max:>9.1}")
        }
        None => format!("{:>9}{:>9}{:>9}{:>9}{:>9}", 0, "-", "-", "-", "-"),
    };
    writeln!(out, "{:<13} {:<5}{} {bound:>9}{over}", delay.kind, "calm", row(delay.calm))?;
    writeln!(out, "{:<13} {:<5}{}", "", "all", row(delay.all))
}

fn write_story(out: &mut Formatter<'_>, story: &Story) -> fmt::Result {
    let violation = &story.violation;
    let session = violation.session.map_or("-".into(), |s| s.to_string());
    let device = violation.device.as_deref().unwrap_or("-");
    let seq = violation.seq.map_or("-".into(), |seq| seq.to_string());
    writeln!(out, "  session {session}, device {device}, seq {seq}: {}", violation.text)?;
    let Some(first) = story.lines.iter().find_map(|line| line.at) else { return Ok(()) };
    for line in &story.lines {
        let at = line.at.map_or("-".into(), |at| since(first, at));
        writeln!(out, "    {at:>14}  {:<10} {}", line.from, line.text)?;
    }
    Ok(())
}

fn since(first: At, at: At) -> String {
    format!("+{:.6} s", at.since(first) as f64 / SECOND as f64)
}
