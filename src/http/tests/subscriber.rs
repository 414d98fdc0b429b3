//! The WebSocket of a subscriber, frame by frame.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use actix_codec::{Decoder, Encoder};
use actix_http::ws::{CloseCode, Codec, Frame, Message};
use actix_web::error::PayloadError;
use bytes::BytesMut;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;

use super::*;
use crate::http::events_ws::{PING_EVERY, SILENCE, events_ws};

/// The other end of an accepted subscription.
struct Subscriber {
    frames: Pin<Box<dyn Stream<Item = Result<Bytes, actix_web::Error>>>>,
    says: mpsc::UnboundedSender<Bytes>,
    codec: Codec,
    unread: BytesMut,
}

impl Subscriber {
    async fn accepted(house: &House, query: &str) -> Self {
        let (says, heard) = mpsc::unbounded_channel();
        let payload = stream::unfold(heard, |mut heard: mpsc::UnboundedReceiver<Bytes>| async {
            heard.recv().await.map(|chunk| (Ok::<_, PayloadError>(chunk), heard))
        });
        let frames = events_ws(&house.doors, query, payload, pending()).await.unwrap();
        let codec = Codec::new().client_mode();
        Self { frames: Box::pin(frames), says, codec, unread: BytesMut::new() }
    }

    async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.codec.decode(&mut self.unread).unwrap() {
                return Some(frame);
            }
            self.unread.extend_from_slice(&self.frames.next().await?.unwrap());
        }
    }

    /// The next event's `seq`.
    async fn seq(&mut self) -> i64 {
        match self.frame().await {
            Some(Frame::Text(text)) => {
                let event: Value = serde_json::from_slice(&text).unwrap();
                event["data"]["seq"].as_i64().unwrap()
            }
            other => panic!("no event but {other:?}"),
        }
    }

    async fn close_code(&mut self) -> CloseCode {
        match self.frame().await {
            Some(Frame::Close(Some(reason))) => reason.code,
            other => panic!("no close frame but {other:?}"),
        }
    }

    fn say(&mut self, message: Message) {
        let mut bytes = BytesMut::new();
        self.codec.encode(message, &mut bytes).unwrap();
        self.says.send(bytes.freeze()).unwrap();
    }
}

#[actix_web::test]
async fn each_event_is_a_frame_and_the_end_says_that_we_leave() {
    let house = house(vec![], Limits::default()).await;
    house.record(0..2).await;
    let mut subscriber = Subscriber::accepted(&house, "after=1&types=lastpong.session.*").await;
    for seq in 2..=4 {
        assert_eq!(subscriber.seq().await, seq);
    }
    house.record(2..3).await;
    assert_eq!((subscriber.seq().await, subscriber.seq().await), (5, 6));
    subscriber.say(Message::Ping(Bytes::from_static(b"there?")));
    assert!(matches!(subscriber.frame().await, Some(Frame::Pong(payload)) if payload == "there?"));
    house.record(3..4).await;
    house.doors.feed.close();
    assert_eq!((subscriber.seq().await, subscriber.seq().await), (7, 8));
    assert_eq!(subscriber.close_code().await, CloseCode::Away);
    assert_eq!(subscriber.frame().await, None);
    drop(subscriber);
    assert_eq!(house.doors.feed.standing().subscribers, 0);
}

#[actix_web::test]
async fn a_close_is_echoed_and_frees_the_seat() {
    let house = house(vec![], Limits::default()).await;
    let mut subscriber = Subscriber::accepted(&house, "").await;
    subscriber.say(Message::Close(Some(CloseCode::Normal.into())));
    assert_eq!(subscriber.close_code().await, CloseCode::Normal);
    assert_eq!(subscriber.frame().await, None);
}

#[actix_web::test]
async fn a_bad_query_is_refused_before_the_handshake() {
    let house = house(vec![], Limits { subscribers: 0, ..Limits::default() }).await;
    for (query, status) in [("after=1", 400), ("limit=1", 400), ("x=y", 400), ("", 503)] {
        let refused = events_ws(&house.doors, query, stream::empty(), pending()).await.err().expect(query);
        assert_eq!(refused.status.as_u16(), status, "{query}");
    }
}

#[actix_web::test]
async fn one_who_takes_nothing_is_given_no_more_than_two_batches() {
    let house = house(vec![], Limits::default()).await;
    house.record(0..2000).await;
    let mut subscriber = Subscriber::accepted(&house, "after=0").await;
    let first = subscriber.frames.next().await.unwrap().unwrap();
    subscriber.unread.extend_from_slice(&first);
    let mut seen = 0;
    while let Some(Frame::Text(_)) = subscriber.codec.decode(&mut subscriber.unread).unwrap() {
        seen += 1;
    }
    assert!((1..=256).contains(&seen), "{seen} events at once");
    assert!(house.doors.feed.standing().slowest_lag >= 4000 - 2 * 256);
    for seq in seen + 1..=4000 {
        assert_eq!(subscriber.seq().await, seq);
    }
}

#[actix_web::test]
async fn a_garbled_frame_ends_the_subscription() {
    let house = house(vec![], Limits::default()).await;
    let mut subscriber = Subscriber::accepted(&house, "").await;
    // Unmasked, which a client may not send.
    subscriber.says.send(Bytes::from_static(&[0x81, 0x01, b'x'])).unwrap();
    assert_eq!(subscriber.close_code().await, CloseCode::Protocol);
    assert_eq!(subscriber.frame().await, None);
}

#[actix_web::test]
async fn one_who_does_not_answer_is_closed_and_one_who_does_is_kept() {
    let house = house(vec![], Limits::default()).await;
    let mut silent = Subscriber::accepted(&house, "").await;
    let mut answering = Subscriber::accepted(&house, "").await;
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let patience = start + SILENCE * 3;
    let answers = async {
        while let Ok(frame) = tokio::time::timeout_at(patience, answering.frame()).await {
            assert!(matches!(frame, Some(Frame::Ping(_))), "{frame:?}");
            answering.say(Message::Pong(Bytes::new()));
        }
    };
    let closed = async {
        loop {
            match silent.frame().await {
                Some(Frame::Ping(_)) => {}
                Some(Frame::Close(Some(reason))) => return (reason.code, start.elapsed()),
                other => panic!("{other:?}"),
            }
        }
    };
    let ((), (code, after)) = tokio::join!(answers, closed);
    assert_eq!(code, CloseCode::Other(4012));
    assert!(after >= SILENCE && after <= SILENCE + PING_EVERY + Duration::from_secs(1), "{after:?}");
}
