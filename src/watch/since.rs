//! Where in the log a time is: found by halving, a page of one event at a time.
//!
//! Times in the log rise with `seq` but for the moment that an event may wait for its commit, which is near enough for
//! people. The time is the server's, as its answers tell it.

use std::time::Duration;

use reqwest::Response;
use reqwest::header::DATE;
use serde::Deserialize;

use super::client::{Client, Refused};
use crate::time::Timestamp;

#[derive(Deserialize)]
struct Page {
    events: Vec<Timed>,
    oldest: i64,
    newest: i64,
}

#[derive(Deserialize)]
struct Timed {
    time: Timestamp,
}

/// The `seq` after which the events of the last `ago` are.
pub(super) async fn place(client: &Client, ago: Duration) -> Result<i64, Refused> {
    let (answer, ends) = client.page::<Page>(&[("limit", "1")]).await?;
    let wanted = date(&answer).unwrap_or_else(Timestamp::now).saturating_sub(ago);
    let first_after = async |seq: i64| {
        let (_, page) = client.page::<Page>(&[("after", &seq.to_string()), ("limit", "1")]).await?;
        Ok(page.events.first().map(|event| event.time))
    };
    halve(ends.oldest - 1, ends.newest, wanted, first_after).await
}

/// The greatest `seq` from `low` to `high` with nothing but later times than `wanted` after it, and `low` where all are.
async fn halve<E>(
    mut low: i64,
    mut high: i64,
    wanted: Timestamp,
    mut first_after: impl AsyncFnMut(i64) -> Result<Option<Timestamp>, E>,
) -> Result<i64, E> {
    while low < high {
        let middle = low + (high - low) / 2;
        match first_after(middle).await? {
            Some(time) if time < wanted => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(low.max(0))
}

fn date(answer: &Response) -> Option<Timestamp> {
    let text = answer.headers().get(DATE)?.to_str().ok()?;
    let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(Timestamp(zoned.timestamp().as_microsecond()))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn the_place_is_before_the_first_that_is_late_enough() {
        // The event of a seq is of ten times that second.
        let (oldest, newest) = (5, 40);
        for wanted in [0, 49, 50, 51, 233, 399, 400, 401, 1_000] {
            let mut asked = 0;
            let first_after = async |seq: i64| {
                asked += 1;
                Ok::<_, Infallible>(Some(seq + 1).filter(|seq| *seq <= newest).map(|seq| Timestamp(seq * 10)))
            };
            let place = halve(oldest - 1, newest, Timestamp(wanted), first_after).await.unwrap();
            let first = (oldest..=newest).find(|seq| seq * 10 >= wanted);
            assert_eq!(place, first.map_or(newest, |seq| seq - 1), "{wanted}");
            assert!(asked <= 6, "{asked} requests");
        }
        // Of an empty log.
        let none = async |_| Ok::<_, Infallible>(None);
        assert_eq!(halve(0, 0, Timestamp(7), none).await.unwrap(), 0);
    }
}
