//! How long Postgres takes for the smallest commit, asked by one who has nothing to do with lastpong. A store that is slow
//! although no fault says so (the machine is shared) keeps nodes from it all the same.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, NoTls};

use super::postgres::Postgres;
use super::record::Lines;
use super::troubles::Troubles;

const EVERY: Duration = Duration::from_millis(250);
/// From here on a commit is slow: nodes write batches, which take longer, and have other things to do besides.
const SLOW: Duration = Duration::from_millis(500);
/// One that hangs is told of as slow again and again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks for ever, and writes down what was slow.
pub async fn probe(slow: &Lines, troubles: &Troubles) {
    let mut client = None;
    loop {
        let began = Instant::now();
        let asked = timeout(PATIENCE, commit(&mut client)).await;
        // A failure is for the faults to explain. What was half done is not known: then anew.
        if !matches!(asked, Ok(Ok(()))) {
            client = None;
        }
        let took = began.elapsed();
        if took >= SLOW {
            let line = json!({"is": "slow", "took_ms": took.as_millis() as u64});
            troubles.note(slow.write(line).map_err(Into::into));
        }
        sleep(EVERY).await;
    }
}

/// A record in the log and its commit, without a row anywhere.
async fn commit(client: &mut Option<Client>) -> Result<(), tokio_postgres::Error> {
    if client.is_none() {
        let (connected, connection) = tokio_postgres::connect(&Postgres::url(), NoTls).await?;
        // It ends with its client.
        tokio::spawn(connection);
        *client = Some(connected);
    }
    let Some(client) = client else { return Ok(()) };
    client.batch_execute("SELECT pg_logical_emit_message(true, 'probe', '')").await
}
