//! What others did to sessions of this node, read in the log.
//!
//! Every end passes here, of whichever node, and goes to the root supervisor: a session that is still held is one that
//! somebody else has ended (a takeover, a kick, this node's being declared lost). Ends of this node's own saying find
//! nothing there any more. What is not told in time, the reconciler finds.

use std::time::Duration;

use actix::Recipient;

use crate::event::{Event, EventKind};
use crate::feed::{Feed, UNKNOWN};
use crate::reason::DetectedBy;
use crate::store::{EventFilter, Match};
use crate::supervisor::messages::{EndSessions, ToEnd};

/// Events read in one go.
const PAGE: usize = 1_000;
const PAUSE: Duration = Duration::from_millis(250);

/// Tells `root` of every end from here on, for as long as it is there.
pub async fn follow(feed: Feed, root: Recipient<EndSessions>) {
    let filter = EventFilter {
        types: vec![Match::Is(EventKind::SessionDisconnected.as_str().to_owned())],
        ..EventFilter::default()
    };
    let mut newest = feed.subscribe();
    while feed.newest() == UNKNOWN {
        if newest.changed().await.is_err() {
            return;
        }
    }
    let mut after = feed.newest();
    loop {
        match feed.read(after, &filter, PAGE).await {
            Ok(page) => {
                let ends: Vec<_> = page.events.iter().filter_map(|event| ended(event)).collect();
                if !ends.is_empty() && root.send(EndSessions(ends)).await.is_err() {
                    return;
                }
                let moved = page.scanned_to > after;
                after = after.max(page.scanned_to);
                if moved {
                    continue;
                }
            }
            Err(error) => {
                log::debug!(error:% = error; "the log cannot be read");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        }
        if newest.changed().await.is_err() {
            return;
        }
    }
}

fn ended(event: &Event) -> Option<ToEnd> {
    Some(ToEnd {
        device_id: event.device_id.clone()?,
        session_id: event.session_id?,
        reason: event.reason?,
        detected_by: DetectedBy::PeerNode,
    })
}
