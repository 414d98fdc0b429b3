//! Hearing of commits as they happen, so that a reader of the log need not keep asking.
//!
//! A notice says only that there is something to read; many may come as one. A connection can be lost without a word,
//! so whoever listens also reads now and then unasked.

use std::future::poll_fn;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client};

use super::connect::{Connection, whole};
use super::lane::Lane;
use crate::store::StoreError;

const DEADLINE: Duration = Duration::from_secs(5);

/// Hears of commits until its connection is lost.
pub struct Listener {
    notices: mpsc::Receiver<()>,
    /// Dropped, it closes the connection.
    _client: Client,
}

impl Listener {
    pub(super) async fn open(lane: &Lane) -> Result<Self, StoreError> {
        let connector = lane.connector().clone();
        let opening = lane.spawn(async move {
            let opened = async {
                let (client, connection) = connector.open().await?;
                let (notice, notices) = mpsc::channel(1);
                tokio::spawn(drive(connection, notice));
                let listening = client.batch_execute("LISTEN lastpong_log").await;
                listening.map_err(|error| StoreError::Retry(whole(&error)))?;
                Ok(Listener { notices, _client: client })
            };
            let in_time = tokio::time::timeout(DEADLINE, opened).await;
            in_time.unwrap_or_else(|_| Err(StoreError::Retry("the database did not answer".into())))
        });
        opening.map(|done| done.unwrap_or_else(|error| Err(StoreError::Retry(error.to_string())))).await
    }

    /// Returns when something was committed since the last time; at once, if something was already.
    ///
    /// # Errors
    ///
    /// The connection was lost: listen anew.
    pub async fn changed(&mut self) -> Result<(), StoreError> {
        let lost = || StoreError::Retry("the connection that listens for commits was lost".into());
        self.notices.recv().await.ok_or_else(lost)
    }
}

/// Drives the connection to its end.
async fn drive(mut connection: Connection, notice: mpsc::Sender<()>) {
    while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
        if let AsyncMessage::Notification(_) = message {
            // A full queue holds a notice already, and one is as good as two.
            let _ = notice.try_send(());
        }
    }
}
