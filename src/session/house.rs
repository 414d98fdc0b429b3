//! What the sessions of one worker have in common: their supervisor, their pace and their limits.

use std::rc::Rc;
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::watch;

use crate::config::Settings;
use crate::ids::Run;
use crate::metrics::Metrics;
use crate::supervisor::closeup::Past;
use crate::supervisor::roster::Roster;
use crate::supervisor::snapshot::State;

use super::frames::FrameLimits;
use super::noted::Noted;
use super::poller::Poller;
use super::socket::Limits;
use super::state::Pace;

/// What the sessions of one worker have in common.
pub struct House {
    pub roster: Rc<Roster>,
    pub poller: Rc<Poller>,
    /// The run that sessions begin under now.
    pub run: watch::Receiver<Run>,
    /// The newest event that this node knows of.
    pub newest: watch::Receiver<i64>,
    pub pace: Pace,
    pub socket: Limits,
    /// Zero is no limit.
    pub frames_per_sec: u32,
    /// Zero is no limit.
    pub bytes_per_sec: u64,
    /// A message of the largest size, with its heads.
    pub bytes_at_once: u64,
    /// How long a message may take to be complete.
    pub message_timeout: Duration,
    /// How long a start may take to be durable.
    pub patience: Duration,
    pub close_timeout: Duration,
    /// The heartbeats of those that are looked at.
    pub noted: Noted,
    /// Where they go at the end.
    pub past: Past,
    gauges: [IntGauge; 3],
}

impl House {
    pub fn new(
        roster: Rc<Roster>,
        poller: Rc<Poller>,
        settings: &Settings,
        run: watch::Receiver<Run>,
        newest: watch::Receiver<i64>,
        past: Past,
    ) -> Self {
        let gauge = |state| roster.metrics.sessions.with_label_values(&[state]);
        let pace = Pace {
            ping_interval: settings.ping_interval,
            pong_timeout: settings.pong_timeout,
            max_missed_pongs: settings.max_missed_pongs,
            adaptive: settings.adaptive_ping,
        };
        let frames = FrameLimits {
            frame: settings.max_frame_bytes as u32,
            message: settings.max_message_bytes as u32,
        };
        Self {
            gauges: ["starting", "live", "suspect"].map(gauge),
            run,
            newest,
            // What is written may stay unacknowledged for twice as long as a device may be silent.
            socket: Limits {
                frames,
                output: settings.max_output_bytes as u32,
                output_of_all: settings.max_output_total / settings.workers,
                no_progress: pace.verdict() * 2,
            },
            pace,
            poller,
            frames_per_sec: settings.frames_per_sec,
            bytes_per_sec: settings.bytes_per_sec as u64,
            bytes_at_once: settings.bytes_per_sec.max(settings.max_message_bytes * 2) as u64,
            message_timeout: settings.message_timeout,
            patience: settings.handshake_timeout,
            close_timeout: settings.close_timeout,
            noted: Noted::default(),
            past,
            roster,
        }
    }

    pub fn metrics(&self) -> &Metrics {
        &self.roster.metrics
    }

    pub fn gauge(&self, state: State) -> &IntGauge {
        &self.gauges[state as usize]
    }
}
