//! The actor of one session: does what it is told to.
//!
//! It begins when its start is durable; nothing that a device sends is read before its welcome. What must happen in
//! time (pings, pongs, deadlines, the end) does not wait for a mailbox: see [`super::life`].

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use actix::{Actor, AsyncContext, Context, Handler, Message};
use futures_util::FutureExt;

use crate::store::Start;
use crate::supervisor::roster::Child;
use crate::token::Proof;

use super::house::House;
use super::life::{Parts, Session};

/// The session's start is durable.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Begin {
    pub device_seq: Option<i64>,
}

pub struct SessionActor {
    session: Rc<Session>,
}

impl SessionActor {
    /// Puts a session into the roster and starts its actor. A panic of the session's code ends that session.
    pub fn spawn(
        house: Rc<House>,
        start: Start,
        proof: Proof,
        parts: impl FnOnce(actix::Addr<Self>) -> Parts,
    ) {
        let mut ctx = Context::new();
        ctx.set_mailbox_capacity(1);
        let parts = parts(ctx.address());
        let mut session = None;
        house.roster.join(start, proof, |key| {
            let child = Rc::new(Session::new(house.clone(), key, parts));
            session = Some(child.clone());
            child
        });
        let Some(session) = session else { return };
        let watched = session.clone();
        let life = AssertUnwindSafe(ctx.into_future(Self { session })).catch_unwind();
        // Not an async block: that would hold the whole of the actor twice.
        actix_rt::spawn(life.map(move |ended| {
            if ended.is_err() {
                watched.crashed();
            }
        }));
    }
}

impl Actor for SessionActor {
    type Context = Context<Self>;
}

impl Handler<Begin> for SessionActor {
    type Result = ();

    fn handle(&mut self, Begin { device_seq }: Begin, _: &mut Self::Context) {
        self.session.begin(device_seq);
    }
}
