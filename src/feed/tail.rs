//! Reading the log as it grows, where other nodes write to it too.
//!
//! The store gives `seq` in the order of commits and without gaps, so what follows the newest that was read is all
//! there is: nothing is skipped, whoever wrote it. It is read when the store says that something was written, when this
//! node's own commit shows that it is behind, and now and then in any case.

use std::time::Duration;

use super::{Feed, UNKNOWN};
use crate::store::StoreError;
use crate::store::postgres::{Listener, PostgresStore};

/// Events read in one go.
const PAGE: usize = 1_000;
/// Without a word from the store, this often.
const ANYWAY: Duration = Duration::from_millis(250);

/// Publishes what is written to the log, until the feed is closed. On the thread of the others that publish.
pub async fn follow(feed: Feed, store: PostgresStore) {
    let mut listener = None;
    let mut readable = true;
    while !feed.is_closed() {
        let read = catch_up(&feed, &store).await;
        match &read {
            Err(error) if readable => {
                log::warn!(error:% = error; "the log cannot be read: events are told later")
            }
            Ok(()) if !readable => log::info!("the log is read again"),
            _ => {}
        }
        readable = read.is_ok();
        wait(&feed, &store, &mut listener).await;
    }
}

/// Publishes all that there is.
///
/// # Errors
/// The store cannot be read.
pub async fn catch_up(feed: &Feed, store: &PostgresStore) -> Result<(), StoreError> {
    if feed.newest() == UNKNOWN {
        feed.begin_at(feed.bounds().await?.newest);
    }
    loop {
        let before = feed.newest();
        let page = feed.0.metrics.timed("sql", "follow", store.follow(before, PAGE)).await?;
        feed.publish(&page.events);
        if feed.newest() == before {
            return Ok(());
        }
    }
}

/// Returns when there may be something to read.
async fn wait(feed: &Feed, store: &PostgresStore, listener: &mut Option<Listener>) {
    if listener.is_none() {
        *listener = store.listen().await.ok();
    }
    tokio::select! {
        () = feed.0.behind.notified() => {}
        () = tokio::time::sleep(ANYWAY) => {}
        heard = heard(listener) => if heard.is_err() { *listener = None },
    }
}

/// At the next word of the store.
async fn heard(listener: &mut Option<Listener>) -> Result<(), StoreError> {
    match listener {
        Some(listener) => listener.changed().await,
        None => std::future::pending().await,
    }
}
