//! Server-sent events (WHATWG HTML, section 9.2): how a subscription looks on the wire.
//!
//! `id:` is the `seq`, `event:` the type, `data:` the CloudEvent on one line. A comment comes at once, so
//! that the client knows that it is connected, and every 15 s in which nothing else does.
//!
//! A client that left is noticed when it is written to, so its seat is free after two comments at the latest.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;

use super::cursor::{Next, Subscription};
use crate::event::Event;

/// The longest silence on a stream.
pub const COMMENT_EVERY: Duration = Duration::from_secs(15);

enum Stage {
    Opening(Subscription),
    Following(Subscription),
    Over,
}

/// The subscription as the body of a response. Each item is made only when the one before it was taken.
pub fn stream(subscription: Subscription) -> impl Stream<Item = Result<Bytes, Infallible>> {
    unfold(Stage::Opening(subscription), |stage| async {
        let (text, next) = match stage {
            Stage::Opening(s) => {
                (format!(": connected, events after {} follow\n\n", s.after()), Stage::Following(s))
            }
            Stage::Following(mut s) => match s.next(COMMENT_EVERY).await {
                Ok(Next::Batch { missed, events }) => {
                    let mut text = String::new();
                    if let Some(missed) = missed {
                        let (from, to) = missed.into_inner();
                        let _ = write!(text, ": events {from} to {to} are past their retention\n\n");
                    }
                    events.iter().for_each(|event| encode(event, &mut text));
                    (text, Stage::Following(s))
                }
                Ok(Next::Quiet) => (": quiet\n\n".to_owned(), Stage::Following(s)),
                Ok(Next::Closed) => (": closing, come back with Last-Event-ID\n\n".to_owned(), Stage::Over),
                Err(error) => {
                    log::warn!(error:% = error, after = s.after(); "a stream ended: the log could not be read");
                    (": the log cannot be read now, come back with Last-Event-ID\n\n".to_owned(), Stage::Over)
                }
            },
            Stage::Over => return None,
        };
        Some((Ok(Bytes::from(text)), next))
    })
}

fn encode(event: &Arc<Event>, into: &mut String) {
    let _ = write!(into, "id: {}\nevent: {}\ndata: ", event.seq, event.kind.as_str());
    // A line break in JSON can only be white space between its tokens; on the wire it would end the field. What
    // lastpong writes has none, and to look at the bytes is quick.
    if event.json.bytes().any(|byte| matches!(byte, b'\n' | b'\r')) {
        into.extend(event.json.split(['\n', '\r']));
    } else {
        into.push_str(&event.json);
    }
    into.push_str("\n\n");
}
