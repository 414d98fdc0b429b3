//! Moves what operators did while the record could not be written out of this node's journal, once it can.

use std::time::Duration;

use crate::store::audit::Book;

const PAUSE: Duration = Duration::from_secs(5);

/// Moves what waits, for as long as the node runs.
pub async fn keep_moving(book: Book) {
    loop {
        match book.move_waiting().await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => log::debug!(error:% = error; "entries of the audit are moved later"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
