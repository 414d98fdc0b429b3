//! A session as its actor, its supervisor and its socket's poller share it. All are of one thread.
//!
//! - It ends once, by whoever is first to say so; the record of it is made at that moment, and the close that
//!   follows cannot change it.
//! - Its end needs no task: the supervisor pings, judges, ends and shuts the socket from its own tick.
//! - After its end it only waits, for at most the close timeout, for the peer to take the close frame.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::chaos::{Safety, lacks};
use crate::event::{Connected, Disconnected};
use crate::ids::{EventId, SessionId};
use crate::metrics::Limit;
use crate::protocol::ToDevice;
use crate::rate::Schedule;
use crate::reason::{DetectedBy, Reason};
use crate::store::{End, LastHeard};
use crate::supervisor::admission::Pass;
use crate::supervisor::clock::{Attended, Clocks};
use crate::supervisor::closeup::CloseUp;
use crate::supervisor::messages::{Command, Fact};
use crate::supervisor::roster::Child;
use crate::supervisor::snapshot::{SessionView, Source, State};
use crate::time::{Mono, Now, millis};
use crate::trace;
use actix::Addr;

use super::actor::{Begin, SessionActor};
use super::frames::Frame;
use super::house::House;
use super::socket::{Gone, OverBound, Socket};
use super::state::{Action, Liveness};

/// One session.
pub struct Session {
    pub(super) house: Rc<House>,
    pub(super) key: u32,
    pub(super) start: Arc<Connected>,
    socket: Socket,
    pub(super) liveness: RefCell<Liveness>,
    /// Zero until it is known.
    device_seq: Cell<i64>,
    pub(super) frames: Cell<Schedule>,
    pub(super) bytes: Cell<Schedule>,
    ended: Cell<bool>,
    /// The token expires then; or, where it ended, the socket is shut.
    limit: Cell<Attended>,
    /// Until it ends.
    actor: Cell<Option<Addr<SessionActor>>>,
    _pass: Pass,
}

/// What a session is made of.
pub struct Parts {
    pub start: Arc<Connected>,
    /// When the device was let in: the moment of `start.connected_at`.
    pub connected: Mono,
    pub socket: Socket,
    /// How long the token is good for.
    pub authenticated_for: Duration,
    pub pass: Pass,
    pub actor: Addr<SessionActor>,
}

/// How an end came about, beyond its reason.
pub(super) enum Farewell {
    /// The connection is gone: nobody to say goodbye to.
    None,
    Close(Option<u16>),
}

impl Session {
    pub fn new(house: Rc<House>, key: u32, parts: Parts) -> Self {
        let now = house.roster.clocks();
        house.gauge(State::Starting).inc();
        Self {
            key,
            start: parts.start,
            socket: parts.socket,
            liveness: RefCell::new(Liveness::new(Clocks { mono: parts.connected, ..now }, house.patience)),
            device_seq: Cell::new(0),
            frames: Cell::default(),
            bytes: Cell::default(),
            ended: Cell::new(false),
            limit: Cell::new(now.attended + parts.authenticated_for),
            actor: Cell::new(Some(parts.actor)),
            _pass: parts.pass,
            house,
        }
    }

    pub fn house(&self) -> &House {
        &self.house
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// The start is durable: welcomes the device and listens to it, unless the session ended meanwhile.
    pub fn begin(self: &Rc<Self>, device_seq: Option<i64>) {
        let house = &self.house;
        let began =
            self.liveness.borrow_mut().recorded(house.roster.clocks(), &house.pace, rand::random::<f64>());
        if !began {
            return;
        }
        self.welcome(device_seq);
        if self.has_ended() {
            return;
        }
        if let Err(error) = self.socket.listen(self.clone()) {
            log::error!(session_id:% = self.start.session_id, error:% = error; "a socket cannot be watched");
            self.end(Reason::InternalError, DetectedBy::Watchdog);
        }
    }

    fn welcome(&self, device_seq: Option<i64>) {
        let house = &self.house;
        self.device_seq.set(device_seq.unwrap_or(0));
        house.gauge(State::Starting).dec();
        house.gauge(State::Live).inc();
        house.metrics().connections_of(&self.start.device_type, "active").inc();
        house.metrics().messages.welcomes.inc();
        house.roster.hasten(self.key, self.due());
        self.send(Frame::Text(
            &ToDevice::Welcome {
                session_id: self.start.session_id,
                device_id: &self.start.device_id,
                node_id: &self.start.node_id,
                device_seq,
                // Of a device that answers; who answers badly is asked more often.
                ping_interval_ms: house.pace.interval(1.0).as_millis() as u64,
                pong_timeout_ms: house.pace.pong_timeout.as_millis() as u64,
                resume_token: None,
                server_time: Now::read().wall,
            }
            .json(),
        ));
        trace::welcomed(&self.start);
    }

    /// Sends a frame, or ends the session where too much waits already.
    pub fn send(&self, frame: Frame<'_>) {
        if let Err(over) = self.socket.send(frame) {
            self.house.metrics().limited(match over {
                OverBound::Own => Limit::Output,
                OverBound::Total => Limit::OutputTotal,
            });
            self.end(Reason::SlowConsumer, DetectedBy::Socket);
        }
    }

    pub fn heard_frame(&self, now: Clocks) {
        self.liveness.borrow_mut().on_frame(now);
    }

    /// The device closed, with this code where it gave one; it is echoed.
    pub fn closed_by_device(&self, code: Option<u16>) {
        self.end_with(Reason::ClientClosed, DetectedBy::CloseFrame, code, Farewell::Close(code));
    }

    /// The device said `bye`: it is sent a normal close, which it has yet to echo.
    pub fn left(&self) {
        self.closed_by_device(Some(1000));
    }

    /// The connection is gone, before the session's end or after.
    pub fn gone(&self, gone: Gone) {
        let reason = match gone {
            Gone::ByPeer => Reason::ReadError,
            Gone::NoProgress => Reason::PingFailed,
        };
        self.end_with(reason, DetectedBy::Socket, None, Farewell::None);
        self.leave();
    }

    /// Nothing more is expected of the peer.
    pub fn leave(&self) {
        self.socket.shut();
        self.house.roster.leave(self.key, self.start.session_id);
    }

    pub(super) fn end(&self, reason: Reason, detected_by: DetectedBy) {
        let code = reason.close_code();
        self.end_with(reason, detected_by, code, Farewell::Close(code));
    }

    pub(super) fn end_with(
        &self,
        reason: Reason,
        detected_by: DetectedBy,
        close_code: Option<u16>,
        farewell: Farewell,
    ) {
        let state = self.liveness.borrow().state();
        let (Some(state), true) = (state, self.liveness.borrow_mut().end()) else { return };
        let house = &self.house;
        let record = self.record(reason, detected_by, close_code);
        house.gauge(state).dec();
        if state != State::Starting {
            house.metrics().connections_of(&self.start.device_type, "active").dec();
            house.metrics().detection.observe(record.detection_ms / 1000.0);
        }
        log::debug!(session_id:% = record.session_id, device_id:% = record.device_id, reason:% = reason; "session ended");
        trace::ended(&self.start, &record, state != State::Starting);
        let _ = self.actor.take();
        if let Some(beats) = house.noted.take(self.key, reason == Reason::PongTimeout) {
            house.past.keep(self.start.session_id, beats, Mono::now());
        }
        if let Farewell::Close(code) = farewell {
            self.socket.send_last(Frame::Close(code));
        }
        let shut_at = house.roster.clocks().attended + house.close_timeout;
        self.ended.set(true);
        self.limit.set(shut_at);
        house.roster.hasten(self.key, shut_at);
        house.roster.tell(Fact::Ended { end: End { event_id: EventId::new(), data: Arc::new(record) } });
    }

    fn record(&self, reason: Reason, detected_by: DetectedBy, close_code: Option<u16>) -> Disconnected {
        let now = Now::read();
        let liveness = self.liveness.borrow();
        let start = &self.start;
        // In order even where the wall clock was set back meanwhile; the durations are true in any case.
        let told = |at| now.wall_at(at).max(start.connected_at);
        Disconnected {
            device_id: start.device_id.clone(),
            device_type: start.device_type.clone(),
            session_id: start.session_id,
            node_id: start.node_id.clone(),
            incarnation: start.incarnation,
            reason,
            initiator: reason.initiator(),
            detected_by,
            close_code,
            connected_at: start.connected_at,
            last_pong_at: liveness.last_pong().map(told),
            last_active_at: told(liveness.last_active()),
            disconnected_at: told(now.mono),
            detection_ms: liveness.silent_ms(now.mono),
            duration_ms: millis(now.mono.since(liveness.connected())),
            rtt_ms: liveness.rtt_ms(),
            pings_sent: Some(liveness.pings_sent()),
            pongs_received: Some(liveness.pongs_received()),
            reconnect_count: 0,
            remote_addr: start.remote_addr,
            meta: start.meta.clone(),
            trace_id: start.trace_id.clone(),
        }
    }

    /// Asks the device, or judges it.
    fn check_liveness(&self, now: Clocks) {
        if self.liveness.borrow().awaits_pong() && !lacks(Safety::StallGuard) {
            self.hear_out();
        }
        if self.is_overdue(now.mono) {
            return;
        }
        let action = self.liveness.borrow_mut().on_deadline(now, &self.house.pace, rand::random());
        match action {
            Action::Wait => {}
            Action::Ping { token, suspect } => self.ping(now, token, suspect),
            Action::Dead if self.liveness.borrow().is_recorded() => {
                self.end(Reason::PongTimeout, DetectedBy::Heartbeat);
            }
            Action::Dead => self.end(Reason::InternalError, DetectedBy::Watchdog),
        }
    }

    fn ping(&self, now: Clocks, token: u64, suspect: bool) {
        if suspect {
            self.house.gauge(State::Live).dec();
            self.house.gauge(State::Suspect).inc();
            trace::noticed(self.start.session_id, "suspect");
            log::debug!(session_id:% = self.start.session_id; "suspect: a pong was missed");
        }
        log::trace!(session_id:% = self.start.session_id; "ping sent");
        self.liveness.borrow_mut().pinged(now, &self.house.pace, token);
        self.house.roster.counted.pings_sent.inc();
        self.house.noted.pinged(self.key);
        self.send(Frame::Ping(&token.to_be_bytes()));
    }
}

impl Child for Session {
    fn session_id(&self) -> SessionId {
        self.start.session_id
    }

    fn due(&self) -> Attended {
        let limit = self.limit.get();
        if self.has_ended() { limit } else { self.liveness.borrow().due().min(limit) }
    }

    fn on_deadline(&self, now: Clocks) -> bool {
        if self.has_ended() {
            self.socket.shut();
            return false;
        }
        if now.attended >= self.limit.get() {
            self.hear_out();
            self.end(Reason::TokenExpired, DetectedBy::Watchdog);
        } else {
            self.check_liveness(now);
        }
        true
    }

    fn obey(&self, what: Command) {
        match what {
            Command::Welcome { device_seq } => {
                let Some(actor) = self.actor.take() else { return };
                let told = actor.try_send(Begin { device_seq });
                self.actor.set(Some(actor));
                if told.is_err() {
                    self.end(Reason::InternalError, DetectedBy::Watchdog);
                }
            }
            Command::End { reason, detected_by } => {
                self.hear_out();
                self.end(reason, detected_by);
            }
        }
    }

    fn crashed(&self) {
        log::error!(session_id:% = self.start.session_id, device_id:% = self.start.device_id; "this session panicked and ends alone");
        // What it panicked at is not looked at again.
        self.socket.discard();
        self.end(Reason::InternalError, DetectedBy::Watchdog);
    }

    fn view(&self, now: &Now) -> Option<SessionView> {
        let liveness = self.liveness.borrow();
        Some(SessionView {
            state: liveness.state()?,
            start: self.start.clone(),
            session_id: self.start.session_id,
            device_seq: Some(self.device_seq.get()).filter(|n| *n > 0),
            source: Source::Here,
            key: self.key,
            last_pong_at: liveness.last_pong().map(|at| now.wall_at(at)),
            last_active_at: now.wall_at(liveness.last_active()),
            idle_ms: liveness.silent_ms(now.mono),
            rtt_ms: liveness.rtt_ms(),
            missed: liveness.missed(),
            pings_sent: liveness.pings_sent(),
            pongs_received: liveness.pongs_received(),
            reconnect_count: 0,
        })
    }

    fn last_heard(&self, now: &Now) -> Option<LastHeard> {
        let liveness = self.liveness.borrow();
        liveness.is_recorded().then(|| LastHeard {
            session_id: self.start.session_id,
            last_pong_at: liveness.last_pong().map(|at| now.wall_at(at)),
            last_active_at: now.wall_at(liveness.last_active()),
        })
    }

    fn was_heard_since(&self, since: Mono) -> bool {
        self.liveness.borrow().last_active() > since
    }

    fn look(&self, now: &Now) -> Option<CloseUp> {
        let view = self.view(now)?;
        Some(CloseUp {
            view,
            heartbeats: self.house.noted.look(self.key, now, self.liveness.borrow().beats(now)),
            socket: self.socket.stats().ok(),
        })
    }
}
