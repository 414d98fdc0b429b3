//! What `lastpong watch` is asked for.

use std::time::Duration;

use clap::Args;

use crate::config::units;

pub const HELP: &str = "\
Examples:
  lastpong watch                                    this machine's lastpong, from now on
  lastpong watch --since 1h --types 'lastpong.session.disconnected.*'
  lastpong watch --device-id 'truck-*' --reason pong_timeout,read_error
  lastpong watch --url https://lastpong.example --json | jq .data.reason
  lastpong watch --since 0 --for 5s --json > log.jsonl

The token is LASTPONG_ADMIN_TOKEN (the token of a login will do as well), or else admin.token in LASTPONG_DATA_DIR.
Lists have commas between their words; * at the end of a word stands for any ending. Lost streams are taken up again
where they were lost. Ctrl-C ends with 0; a refusal with 1, and what cannot be asked with 2.";

/// The longest time that can be looked back for, or watched.
const LONGEST: Duration = Duration::from_secs(3_650 * 86_400);

#[derive(Args, Debug, Default)]
pub struct WatchOptions {
    /// Where lastpong is; by default where LASTPONG_BIND says, on this machine
    #[arg(long)]
    pub url: Option<String>,
    /// Begin after this seq, or so long ago (90s, 15m, 1h, 7d), rather than now
    #[arg(long, value_name = "SEQ|AGO", value_parser = since)]
    pub since: Option<Since>,
    /// Types of events
    #[arg(long, value_name = "LIST")]
    pub types: Option<String>,
    /// Devices
    #[arg(long, value_name = "LIST")]
    pub device_id: Option<String>,
    /// Kinds of devices
    #[arg(long, value_name = "LIST")]
    pub device_type: Option<String>,
    /// Reasons of ends; events that have none are left out
    #[arg(long, value_name = "LIST")]
    pub reason: Option<String>,
    /// Print each event as the CloudEvent that it is, one a line
    #[arg(long)]
    pub json: bool,
    /// End after so long, as 10s or 5m
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    After(i64),
    Ago(Duration),
}

impl WatchOptions {
    /// The filters as the routes of events take them.
    pub(super) fn filters(&self) -> Vec<(&'static str, &str)> {
        [
            ("types", &self.types),
            ("device_id", &self.device_id),
            ("device_type", &self.device_type),
            ("reason", &self.reason),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
        .collect()
    }
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(seq) = text.parse::<i64>()
        && seq >= 0
    {
        return Ok(Since::After(seq));
    }
    duration(text)
        .map(Since::Ago)
        .map_err(|_| "allowed is the seq of an event, or a time of up to 3650d, as 15m or 1h".into())
}

fn duration(text: &str) -> Result<Duration, String> {
    units::parse_duration(text)
        .filter(|d| !d.is_zero() && *d <= LONGEST)
        .ok_or_else(|| "allowed is a time of up to 3650d, as 500ms, 10s, 5m or 1h".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_a_place_or_a_time() {
        assert_eq!(since("0"), Ok(Since::After(0)));
        assert_eq!(since("17"), Ok(Since::After(17)));
        assert_eq!(since("1h"), Ok(Since::Ago(Duration::from_secs(3_600))));
        for bad in ["", "-1", "yesterday", "4000d", "0s", "99999999999999999999"] {
            assert!(since(bad).is_err(), "{bad:?}");
        }
    }
}
