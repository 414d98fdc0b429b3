//! The actor of one session: reads its socket and answers its device.
//!
//! It begins when its start is durable; nothing that a device sends is read before its welcome. What must
//! happen in time (pings, deadlines, the end) does not depend on it: see [`super::life`].

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, StreamHandler};
use bytes::BytesMut;
use futures_util::FutureExt;

use crate::protocol::{FromDevice, NotUnderstood, ToDevice, lwp_ack};
use crate::store::Start;
use crate::supervisor::roster::Child;
use crate::time::Now;

use super::frames::{Frame, Inbound};
use super::house::House;
use super::life::{Parts, Session};
use super::socket::{Incoming, Received};

/// The session's start is durable.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Begin {
    pub device_seq: Option<i64>,
}

pub struct SessionActor {
    session: Rc<Session>,
    /// What came with the handshake.
    read: BytesMut,
}

impl SessionActor {
    /// Puts a session into the roster and starts its actor. A panic of the session's code ends that session.
    pub fn spawn(
        house: Rc<House>,
        start: Start,
        read: BytesMut,
        parts: impl FnOnce(actix::Addr<Self>) -> Parts,
    ) {
        let mut ctx = Context::new();
        ctx.set_mailbox_capacity(1);
        let parts = parts(ctx.address());
        let mut session = None;
        house.roster.join(start, |key| {
            let child = Rc::new(Session::new(house.clone(), key, parts));
            session = Some(child.clone());
            child
        });
        let Some(session) = session else { return };
        let watched = session.clone();
        let life = AssertUnwindSafe(ctx.into_future(Self { session, read })).catch_unwind();
        // Not an async block: that would hold the whole of the actor twice.
        actix_rt::spawn(life.map(move |ended| {
            if ended.is_err() {
                watched.crashed();
            }
        }));
    }

    fn heard(&self, frame: Inbound) {
        let session = &self.session;
        match frame {
            Inbound::Close(code) => session.closed_by_device(code),
            _ if !session.count_frame() => {}
            Inbound::Pong(token) => session.heard_pong(token[..].try_into().ok().map(u64::from_be_bytes)),
            Inbound::Text(text) => match std::str::from_utf8(&text) {
                Ok(text) => self.heard_text(text),
                Err(_) => self.not_understood(NotUnderstood::NotJson),
            },
            Inbound::Binary(_) => self.not_understood(NotUnderstood::Binary),
            Inbound::Ping(data) => {
                session.house().roster.metrics.messages.device_pings.inc();
                session.send(Frame::Pong(&data));
            }
            Inbound::Fragment => {}
        }
    }

    fn heard_text(&self, text: &str) {
        let session = &self.session;
        let messages = &session.house().roster.metrics.messages;
        let answer = match FromDevice::parse(text) {
            Ok(FromDevice::Heartbeat { id }) => {
                messages.heartbeats.inc();
                messages.acks.inc();
                ToDevice::Ack { id, code: 200, server_time: Now::read().wall }.json()
            }
            Ok(FromDevice::Lwp { mid }) => {
                messages.heartbeats.inc();
                messages.acks.inc();
                lwp_ack(mid)
            }
            Ok(FromDevice::Bye) => {
                messages.byes.inc();
                return session.left();
            }
            #[cfg(feature = "chaos")]
            Ok(FromDevice::Panic) => panic!("a panic was asked for"),
            Err(why) => return self.not_understood(why),
        };
        session.send(Frame::Text(&answer));
    }

    fn not_understood(&self, why: NotUnderstood) {
        self.session.house().roster.metrics.messages.errors.inc();
        let error = ToDevice::Error { code: why.code(), message: &why.to_string() };
        self.session.send(Frame::Text(&error.json()));
    }
}

impl Actor for SessionActor {
    type Context = Context<Self>;
}

impl Handler<Begin> for SessionActor {
    type Result = ();

    fn handle(&mut self, Begin { device_seq }: Begin, ctx: &mut Self::Context) {
        if self.session.welcome(device_seq) {
            let frames = self.session.house().frames;
            let read = std::mem::take(&mut self.read);
            ctx.add_stream(Incoming::new(self.session.clone(), frames, read));
        }
    }
}

impl StreamHandler<Received> for SessionActor {
    fn handle(&mut self, received: Received, _: &mut Self::Context) {
        let session = &self.session;
        match received {
            Received::Gone(gone) => session.gone(gone),
            Received::Frame(Inbound::Close(_)) if session.has_ended() => session.leave(),
            _ if session.has_ended() => {}
            Received::Violation(violation) => {
                session.heard_frame();
                session.violated(violation);
            }
            Received::Frame(frame) => {
                session.heard_frame();
                self.heard(frame);
            }
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
