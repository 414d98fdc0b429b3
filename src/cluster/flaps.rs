//! What follows from flapping: a ban of the device, where the settings say so, and a line in the log.
//!
//! Each node follows the log and acts on what it has itself put there, so that one ban comes of one event. While the
//! record cannot be written the ban waits; once the time is over for which it was to be, it is not made any more, and
//! none takes the place of one that holds longer. A node that dies between the event and the ban makes none: the event says for how long the device was to be banned.

use std::sync::Arc;
use std::time::Duration;

use crate::bans::Bans;
use crate::event::{Event, EventKind};
use crate::feed::{Feed, UNKNOWN};
use crate::ids::{BanId, NodeId};
use crate::metrics::Metrics;
use crate::store::audit::{Action, Signature};
use crate::store::bans::{Ban, Target};
use crate::store::flapping::Flapped;
use crate::store::{EventFilter, Match, Store};
use crate::time::Timestamp;

/// Events read in one go.
const PAGE: usize = 100;
const PAUSE: Duration = Duration::from_millis(500);
/// How long each ban may take to hold on this node.
const PATIENCE: Duration = Duration::from_secs(2);

pub struct Flaps {
    pub feed: Feed,
    pub store: Store,
    pub bans: Arc<Bans>,
    pub node: NodeId,
    /// Zero is none.
    pub ban: Duration,
    pub metrics: Arc<Metrics>,
}

impl Flaps {
    /// Acts on every event from here on, for as long as the feed is there.
    pub async fn follow(self) {
        let kind = EventKind::DeviceFlapping.as_str().to_owned();
        let filter = EventFilter { types: vec![Match::Is(kind)], ..EventFilter::default() };
        let mut newest = self.feed.subscribe();
        while self.feed.newest() == UNKNOWN {
            if newest.changed().await.is_err() {
                return;
            }
        }
        let mut after = self.feed.newest();
        loop {
            let Ok(page) = self.feed.read(after, &filter, PAGE).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            for event in &page.events {
                self.act(event).await;
            }
            let moved = page.scanned_to > after;
            after = after.max(page.scanned_to);
            if !moved && newest.changed().await.is_err() {
                return;
            }
        }
    }

    async fn act(&self, event: &Event) {
        #[derive(serde::Deserialize)]
        struct Told {
            source: String,
            data: Flapped,
        }
        let Ok(Told { source, data }) = serde_json::from_str::<Told>(&event.json) else { return };
        if source.strip_prefix("/lastpong/") != Some(self.node.as_str()) {
            return;
        }
        self.metrics.record.flapping.inc();
        log::warn!(device_id:% = data.device_id, starts = data.starts, span_ms = data.span_ms; "a device is flapping");
        if !self.ban.is_zero() {
            self.ban(event.time, data).await;
        }
    }

    async fn ban(&self, at: Timestamp, told: Flapped) {
        let until = at.saturating_add(self.ban);
        let reason = Some(format!("flapping: {} starts in {} ms", told.starts, told.span_ms));
        let by = "flapping policy".to_owned();
        let ban = Ban {
            id: BanId::new(),
            target: Target::Device(told.device_id),
            reason,
            by,
            at,
            until: Some(until),
        };
        let signature = Signature { actor: ban.by.clone(), remote_addr: None, node: self.node.clone() };
        let entry = signature.entry(Action::Ban, &ban.target, Some(format!("until {until}")));
        while ban.holds(Timestamp::now()) && !self.bans.outlast(&ban) {
            match self.store.ban(ban.clone(), entry.clone()).await {
                Ok(rev) => {
                    self.bans.until_done(rev, PATIENCE).await;
                    return;
                }
                Err(error) => {
                    log::debug!(error:% = error; "a flapping device cannot be banned yet");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
