//! `GET /v1/events/ws`: one CloudEvent a text frame.
//!
//! - The subscriber pulls. Each poll of the returned stream allows the actor one batch, so one who does not
//!   read its socket holds two batches in memory and no more.
//! - A ping goes out every [`PING_EVERY`]; who is silent for [`SILENCE`] is closed with 4012. That is noticed
//!   only while the stream is polled: a write that makes no progress for [`SILENCE`] is for the writer to
//!   give up.
//! - One whose login is over is closed with 4005.
//! - A closed feed ends the stream with 1001, once all that was published has been told.
//!
//! What a subscriber says is read for its signs of life and otherwise ignored. Events that retention took
//! before they were read cannot be told in a frame; they are logged, and show as a gap in `seq`.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, StreamHandler, WrapFuture};
use actix_web::error::PayloadError;
use actix_web_actors::ws;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use futures_util::{Stream, stream};
use tokio::time::Instant;

use super::Doors;
use super::events::Asked;
use crate::feed::cursor::{Next, Subscription};
use crate::feed::seats::Sink;
use crate::problem::Problem;
use crate::store::StoreError;

pub const PING_EVERY: Duration = Duration::from_secs(15);
/// The longest silence of a subscriber, and the longest time that a write to it may take.
pub const SILENCE: Duration = Duration::from_secs(45);

/// Devices are closed with the same code for a missed pong: it says to come back.
const SILENT: ws::CloseCode = ws::CloseCode::Other(4012);
/// As for a device whose token's time is over.
const OVER: ws::CloseCode = ws::CloseCode::Other(4005);

/// Follows the log for a subscriber whose request was authorized, and whose handshake is answered by the
/// caller. `payload` is what comes from its socket; what is returned goes to it, and its end is the
/// connection's. Once `over` is, so is its right to follow.
///
/// Must be called on an actix arbiter.
///
/// # Errors
/// The refusal to answer in place of the handshake.
pub async fn events_ws<S, F>(
    doors: &Doors,
    query: &str,
    payload: S,
    over: F,
) -> Result<impl Stream<Item = Result<Bytes, actix_web::Error>> + use<S, F>, Problem>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + 'static,
    F: Future<Output = ()> + 'static,
{
    let subscription = Asked::of_stream(query)?.follow(&doors.feed, Sink::WebSocket).await?;
    let allowed = Rc::new(Cell::new(false));
    let teller = Teller {
        over: Some(Box::pin(over)),
        subscription: Some(subscription),
        allowed: allowed.clone(),
        heard: Instant::now(),
        ticked: Instant::now(),
    };
    let mut frames = Box::pin(ws::WebsocketContext::create(teller, one_at_a_time(payload)));
    Ok(stream::poll_fn(move |cx| {
        allowed.set(true);
        frames.as_mut().poll_next(cx)
    }))
}

/// Lets the decoder work between two chunks: it would else gather whatever the peer sends without an end.
fn one_at_a_time<S: Stream>(payload: S) -> impl Stream<Item = S::Item> {
    let mut payload = Box::pin(payload);
    let mut resting = false;
    stream::poll_fn(move |cx| {
        if std::mem::take(&mut resting) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = payload.as_mut().poll_next(cx);
        resting = matches!(polled, Poll::Ready(Some(_)));
        polled
    })
}

struct Teller {
    over: Option<LocalBoxFuture<'static, ()>>,
    /// Away while its next batch is awaited.
    subscription: Option<Subscription>,
    /// Set by each poll of the outgoing stream, taken by each batch.
    allowed: Rc<Cell<bool>>,
    heard: Instant,
    ticked: Instant,
}

type Context = ws::WebsocketContext<Teller>;

impl Actor for Teller {
    type Context = Context;

    fn started(&mut self, ctx: &mut Context) {
        ctx.run_interval(PING_EVERY, |teller, ctx| teller.tick(ctx));
        if let Some(over) = self.over.take() {
            ctx.spawn(over.into_actor(self).map(|(), _, ctx| close(ctx, OVER, "the login is over")));
        }
        self.follow(ctx);
    }
}

impl Teller {
    fn follow(&mut self, ctx: &mut Context) {
        let Some(mut subscription) = self.subscription.take() else { return };
        let allowed = self.allowed.clone();
        let next = async move {
            // No waker is kept: the actor is polled only by polls of the outgoing stream, each of which
            // allows first.
            poll_fn(|_| if allowed.take() { Poll::Ready(()) } else { Poll::Pending }).await;
            let next = subscription.next(SILENCE).await;
            (subscription, next)
        };
        ctx.spawn(next.into_actor(self).map(|(subscription, next), teller, ctx| {
            teller.subscription = Some(subscription);
            teller.tell(next, ctx);
        }));
    }

    fn tell(&mut self, next: Result<Next, StoreError>, ctx: &mut Context) {
        match next {
            Ok(Next::Batch { missed, events }) => {
                if let Some(missed) = missed {
                    let (from, to) = missed.into_inner();
                    log::info!(from, to; "a subscriber missed events that are past their retention");
                }
                events.iter().for_each(|event| ctx.text(&*event.json));
                self.follow(ctx);
            }
            Ok(Next::Quiet) => self.follow(ctx),
            Ok(Next::Closed) => close(ctx, ws::CloseCode::Away, "shutting down"),
            Err(error) => {
                log::warn!(error:% = error; "a subscriber was closed: the log could not be read");
                close(ctx, ws::CloseCode::Error, "the log cannot be read now");
            }
        }
    }

    fn tick(&mut self, ctx: &mut Context) {
        // A late tick means that nobody polled, so that what the peer said meanwhile is still unread.
        let late = self.ticked.elapsed() > PING_EVERY * 2;
        self.ticked = Instant::now();
        if late {
            self.heard = Instant::now();
        }
        if self.heard.elapsed() > SILENCE {
            return close(ctx, SILENT, "no sign of life");
        }
        ctx.ping(b"");
    }
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Teller {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, ctx: &mut Context) {
        self.heard = Instant::now();
        match message {
            Ok(ws::Message::Ping(payload)) => ctx.pong(&payload),
            Ok(ws::Message::Close(reason)) => {
                ctx.close(reason);
                ctx.stop();
            }
            Ok(_) => {}
            Err(ws::ProtocolError::Overflow) => close(ctx, ws::CloseCode::Size, "frame too big"),
            Err(_) => close(ctx, ws::CloseCode::Protocol, "protocol error"),
        }
    }
}

fn close(ctx: &mut Context, code: ws::CloseCode, why: &str) {
    ctx.close(Some(ws::CloseReason { code, description: Some(why.to_owned()) }));
    ctx.stop();
}
