//! `lastpong watch`: the events of an installation as they happen, with its totals, over its HTTP API.
//!
//! | file | holds |
//! | --- | --- |
//! | `options` | what is asked |
//! | `client` | the requests, and what their refusals mean |
//! | `wire` | server-sent events, read from chunks of bytes (pure) |
//! | `since` | where in the log a time is |
//! | `line` | an event as a line |
//! | `totals` | counts and rate, and the line that shows them (pure) |
//! | `screen` | the terminal, or the pipe |
//!
//! - A stream that was had once is had again, however often it is lost: after a back-off, and from the event that was
//!   shown last, so that none is left out or shown twice. Who is refused for good is told why and the program ends.
//! - It sees lastpong from outside only, and sends its token nowhere but to the address that it was given.
//! - It keeps nothing of an event but counts, by reasons that are known beforehand.

mod client;
mod line;
pub mod options;
mod screen;
mod since;
mod totals;
mod wire;

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval, sleep};

use crate::config::Settings;
use client::{Client, Refused};
use options::{Since, WatchOptions};
use screen::Screen;
use totals::Totals;
use wire::{Message, Parser};

/// How often the line of totals is drawn anew, and sessions are counted.
const TICK: Duration = Duration::from_secs(1);
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// The first and the longest wait before a lost stream is asked for again; the time between doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Why there is nothing to watch.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("{0}")]
    Refused(#[from] Refused),
    #[error("no token: set LASTPONG_ADMIN_TOKEN, or run where {path} is; {error}")]
    NoToken { path: String, error: io::Error },
    #[error("standard output: {0}")]
    Output(io::Error),
    #[error(transparent)]
    Io(io::Error),
}

impl WatchError {
    /// Whether what was asked cannot be, now or later.
    pub fn is_bad_request(&self) -> bool {
        matches!(self, Self::Refused(Refused::BadRequest { .. } | Refused::BadUrl { .. }))
    }
}

/// Follows until a signal, until the reader of the output is gone, or for as long as was asked. `url` is where lastpong
/// is, unless the options say it.
///
/// # Errors
/// What kept it from the first event, or forbids to go on.
pub fn run(options: &WatchOptions, settings: &Settings, url: &str) -> Result<(), WatchError> {
    let url = options.url.as_deref().unwrap_or(url);
    let token = settings.known_admin_token().map_err(|error| WatchError::NoToken {
        path: settings.admin_token_path().display().to_string(),
        error,
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(WatchError::Io)?.block_on(async {
        let stopped = async {
            let mut term = signal(SignalKind::terminate())?;
            tokio::select! {
                asked = tokio::signal::ctrl_c() => asked,
                _ = term.recv() => Ok(()),
                () = over(options.duration) => Ok(()),
            }
        };
        let mut watch = Watch {
            client: Client::new(url, &token, options)?,
            screen: Screen::of_stdout(options.json),
            totals: Totals::default(),
            after: None,
        };
        let watched = tokio::select! {
            stopped = stopped => stopped.map_err(WatchError::Io),
            watched = watch.follow(options.since) => watched,
        };
        watch.screen.finish();
        match watched {
            // The reader has seen enough, as `head` has.
            Err(WatchError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            watched => watched,
        }
    })
}

async fn over(after: Option<Duration>) {
    match after {
        Some(after) => sleep(after).await,
        None => std::future::pending().await,
    }
}

struct Watch {
    client: Client,
    screen: Screen,
    totals: Totals,
    /// The event that was seen last; before the first, where the stream began.
    after: Option<i64>,
}

/// How one stream came to its end.
struct Lost {
    why: String,
    /// It brought something, so that the next try is a first one.
    brought: bool,
    retry_after: Option<Duration>,
}

impl Watch {
    async fn follow(&mut self, since: Option<Since>) -> Result<(), WatchError> {
        self.after = match since {
            None => None,
            Some(Since::After(seq)) => Some(seq),
            Some(Since::Ago(ago)) => Some(since::place(&self.client, ago).await?),
        };
        let (mut failures, mut begun) = (0, false);
        loop {
            let lost = match self.stream(&mut begun).await? {
                Ok(lost) => lost,
                Err(refused) if begun || refused.passes() => {
                    Lost { why: refused.to_string(), brought: false, retry_after: refused.retry_after() }
                }
                Err(refused) => return Err(refused.into()),
            };
            failures = if lost.brought { 0 } else { failures + 1 };
            let wait = wait(failures, lost.retry_after, rand::random());
            self.screen.note(&format!("{}; again in {:.1} s", lost.why, wait.as_secs_f64()));
            sleep(wait).await;
        }
    }

    /// Follows one stream to its end. The inner error is a refusal that may pass.
    async fn stream(&mut self, begun: &mut bool) -> Result<Result<Lost, Refused>, WatchError> {
        let answer = match self.client.events(self.after).await {
            Ok(answer) => answer,
            Err(refused) if refused.is_final() => return Err(refused.into()),
            Err(refused) => return Ok(Err(refused)),
        };
        *begun = true;
        let (mut chunks, mut parser) = (answer.bytes_stream(), Parser::default());
        let (mut tick, mut counted) = (interval(TICK), None::<Instant>);
        let mut brought = false;
        loop {
            tokio::select! {
                chunk = chunks.next() => {
                    let lost = |why: String| Ok(Ok(Lost { why, brought, retry_after: None }));
                    match chunk {
                        Some(Ok(bytes)) => match parser.push(&bytes) {
                            Ok(messages) => {
                                brought = true;
                                messages.into_iter().try_for_each(|message| self.take(message))?;
                            }
                            Err(too_long) => return Err(Refused::NotLastpong { why: too_long.to_string() }.into()),
                        },
                        Some(Err(error)) => return lost(format!("the stream was lost: {}", client::root_cause(&error))),
                        None => return lost("the stream ended".into()),
                    }
                }
                _ = tick.tick(), if self.screen.shows_totals() => {
                    if counted.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
                        counted = Some(Instant::now());
                        self.totals.live = self.client.live().await;
                    }
                    self.screen.draw(&self.totals).map_err(WatchError::Output)?;
                }
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<(), WatchError> {
        match message {
            Message::Event { id, data } => {
                let event = line::Event::read(&data).map_err(|why| Refused::NotLastpong { why })?;
                self.after = Some(id.parse().unwrap_or(event.seq()));
                self.totals.count(&event, Instant::now());
                self.screen.event(&event, &data, &self.totals).map_err(WatchError::Output)
            }
            // Also where the stream begins, which one that is lost without an event would not know.
            Message::Comment(text) => {
                self.after = self.after.or_else(|| began_after(&text));
                if text != "quiet" {
                    self.screen.note(&text);
                }
                Ok(())
            }
        }
    }
}

/// The `seq` in the first comment of a stream.
fn began_after(comment: &str) -> Option<i64> {
    comment.strip_prefix("connected, events after ")?.strip_suffix(" follow")?.parse().ok()
}

/// Exponential with jitter, so that many who lost one server do not come back as one.
fn wait(failures: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let bound = FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT);
    asked.unwrap_or_default().min(LONGEST_WAIT) + bound.mul_f64(0.5 + chance / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_their_bound_and_begin_after_what_was_asked() {
        assert_eq!(wait(0, None, 1.0), FIRST_WAIT);
        assert_eq!(wait(0, None, 0.0), FIRST_WAIT / 2);
        assert_eq!(wait(2, None, 1.0), FIRST_WAIT * 4);
        assert_eq!(wait(u32::MAX, None, 1.0), LONGEST_WAIT);
        assert_eq!(wait(0, Some(Duration::from_secs(3)), 1.0), Duration::from_secs(3) + FIRST_WAIT);
        assert!(wait(0, Some(Duration::from_secs(86_400)), 1.0) <= LONGEST_WAIT + FIRST_WAIT);
    }

    #[test]
    fn the_first_comment_says_where_the_stream_begins() {
        assert_eq!(began_after("connected, events after 17 follow"), Some(17));
        assert_eq!(began_after("quiet"), None);
    }
}
