//! The checker: decides from the records of a run whether each promise held.
//!
//! It knows the promises as they are told to users, and nothing of how they are kept. It reads what the devices wrote
//! of themselves, what each subscriber saw, the event log and the stream as they stand at the end, what was
//! broken when, and what an operator did.
//!
//! ```text
//!   run.json faults operator devices ──▶ records ──┐
//!   log.jsonl ─────────────────────────▶ log ──────┼─▶ ends (P1)  order (P2)  fair (P4)  delays (P5)  honest (P6)
//!   subscribers/ stream.jsonl ─────────▶ told (P3)─┘                │
//!                                                       verdict ◀───┴─ story (a second reading, for what was broken)
//! ```
//!
//! - Records that are missing or cannot be read are an error that names them; only the last line of a file may be cut.
//! - What a device cannot know is not held against lastpong: see `explain` and `device` for each rule and its reason.
//! - What was never tried did not hold.
//! - Times of devices, subscribers and faults are of one clock and are compared. Times inside events are of nodes whose
//!   clock may have been set; they are judged only where no such fault touched them.
//!
//! It leaves out presence, webhooks and metrics.

mod at;
mod delays;
mod device;
mod devices;
mod ends;
mod explain;
mod fair;
mod faults;
mod honest;
mod lags;
mod log;
mod names;
mod order;
mod overdue;
mod records;
mod replaced;
mod rules;
mod story;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod told;
mod verdict;

use std::path::Path;

use records::Records;
use verdict::Findings;
pub use verdict::Verdict;

/// How to judge and what to print.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// A delay over its bound in calm time fails the run too.
    #[arg(long)]
    pub strict: bool,
    /// The verdict as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// How many violations of each kind are told in full.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub stories: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { strict: false, json: false, stories: 5 }
    }
}

/// Judges the run whose records are in `dir`.
///
/// # Errors
/// Where a record is missing, or a line of it (but a cut last one) cannot be read.
pub fn check(dir: &Path, options: &Options) -> anyhow::Result<Verdict> {
    let mut findings = Findings::new(options.stories);
    let mut records = Records::read(dir)?;
    let receipts = told::judge(dir, &mut records, &mut findings)?;
    records.date_incarnations();
    lags::judge(&records, &receipts, &mut findings);
    ends::judge(&records, &mut findings);
    order::judge(&records, &mut findings);
    fair::judge(&records, &mut findings);
    honest::judge(&records, &mut findings);
    overdue::judge(&records, &mut findings);
    let delays = delays::measure(&records);
    let lags = lags::measure(&records, &receipts);
    let stories = story::tell(dir, &records, &mut findings)?;
    let verdict = Verdict::new(&records, findings, delays, lags, stories);
    Ok(Verdict { strict: options.strict, ..verdict })
}
