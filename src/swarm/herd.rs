//! The devices of one process, on one thread: the loop.
//!
//! A turn of the loop goes in this order, so that a device's answers wait for nothing that can wait:
//! what sockets of sessions have to say, then other sockets, then what is due, then new dials, then the record.
//!
//! - No turn waits longer than [`LONGEST_WAIT`]; a turn that took far longer is told as the swarm's own lateness.
//! - Dials are paced, and few a turn.
//! - Everything is bounded by the number of devices: each has at most two connections and one entry among the dials.

mod ends;
mod io;

use std::collections::VecDeque;
use std::io::Result;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::BytesMut;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::behaviour::{Behaviour, Lot, chance};
use super::options::Plan;
use super::record::{Line, Record};
use super::socket::{self, Output};
use super::tally::{Pulse, Tally};
use super::timers::{Due, Timers};
use super::visit::{Act, ECHOED_WITHIN, Turn, Visit};
use crate::time::{Mono, Timestamp};
use crate::token::DeviceTokens;

/// The longest time without a turn: the record is behind by no more.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// From here on the swarm tells that it stood still itself.
const LATE: Duration = Duration::from_millis(250);
const DIALS_A_TURN: u32 = 32;
const LEAVES_A_TURN: usize = 256;
const EVENTS_A_TURN: usize = 1_024;
const READ_BYTES: usize = 16 << 10;
const PULSE: Duration = Duration::from_secs(1);

/// What of the pacing is saved up while nobody dials, in seconds.
const SAVED: f64 = 0.05;

const SIGNALS: Token = Token(usize::MAX);

/// A device between its visits, and beside them.
#[derive(Debug, Clone, Copy)]
struct Device {
    behaviour: Behaviour,
    /// Connections, dials among them.
    lines: u8,
    /// A dial is among those that wait, or has its time.
    due: bool,
    /// Dials in a row that came to nothing.
    failures: u16,
    /// Which of the addresses it dials next.
    target: u16,
    visits: u32,
}

/// A connection.
struct Conn {
    visit: Visit,
    stream: TcpStream,
    output: Output,
    /// What is left of an unfinished frame, or of the answer to the handshake.
    rest: Box<[u8]>,
    step: Step,
    target: u16,
    /// When its timer is set.
    armed: Mono,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connecting,
    Asked,
    Upgraded,
}

/// The end of the run.
struct Leaving {
    /// Connections up to this place were told.
    told: usize,
    until: Mono,
}

pub struct Herd<'a> {
    plan: &'a Plan,
    tokens: DeviceTokens,
    poll: Poll,
    signals: mio::net::UnixStream,
    signalled: usize,
    devices: Vec<Device>,
    conns: Slab<Conn>,
    timers: Timers,
    /// Devices that are to dial.
    waiting: VecDeque<u32>,
    allowance: f64,
    next_number: u64,
    turn: Turn,
    record: Option<Record>,
    tally: Tally,
    leaving: Option<Leaving>,
    acts: Vec<Act>,
    inbox: BytesMut,
    outbox: BytesMut,
    chunk: Box<[u8]>,
}

impl<'a> Herd<'a> {
    /// The devices of this plan. Each byte of `signals` is one signal: the first has them leave, the second ends at once.
    ///
    /// # Errors
    /// A record that cannot be made; no more open files.
    pub fn new(plan: &'a Plan, tokens: DeviceTokens, signals: UnixStream, args: &[String]) -> Result<Self> {
        let poll = Poll::new()?;
        signals.set_nonblocking(true)?;
        let mut signals = mio::net::UnixStream::from_std(signals);
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        let count = plan.numbers().count();
        let mut record = plan.record.as_deref().map(Record::create).transpose()?;
        if let Some(record) = &mut record {
            let (pid, seed) = (std::process::id(), plan.habits.seed);
            record.add(Line::Swarm { pid, devices: count, seed, args });
        }
        Ok(Self {
            plan,
            tokens,
            poll,
            signals,
            signalled: 0,
            devices: plan.numbers().map(|n| Device::new(plan, n)).collect(),
            conns: Slab::with_capacity(count),
            timers: Timers::default(),
            waiting: plan.numbers().collect(),
            allowance: 0.0,
            next_number: 1,
            turn: Turn { mono: Mono::now(), wall: Timestamp::now() },
            record,
            tally: Tally::default(),
            leaving: None,
            acts: Vec::new(),
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            chunk: vec![0; READ_BYTES].into_boxed_slice(),
        })
    }

    /// Runs until all is said; `on_pulse` is called each second.
    ///
    /// # Errors
    /// A record that cannot be written; the kernel's refusal to wait.
    pub fn run(mut self, mut on_pulse: impl FnMut(&Pulse)) -> Result<Tally> {
        let began = Mono::now();
        let mut events = Events::with_capacity(EVENTS_A_TURN);
        let mut next_pulse = began + PULSE;
        while !self.is_over() {
            if let Err(e) = self.poll.poll(&mut events, Some(self.wait()))
                && e.kind() != std::io::ErrorKind::Interrupted
            {
                return Err(e);
            }
            self.begin_turn();
            self.on_events(&events);
            self.on_timers();
            if self.signalled > 0 || self.plan.run_for.is_some_and(|d| self.turn.mono.since(began) >= d) {
                self.begin_to_leave();
            }
            match self.leaving {
                None => self.dial_some(),
                Some(_) => self.leave_some(),
            }
            self.flush_record()?;
            if self.turn.mono >= next_pulse {
                next_pulse = self.turn.mono + PULSE;
                on_pulse(&self.pulse());
            }
        }
        self.end_the_rest();
        self.tell(Line::Done);
        self.flush_record()?;
        self.tally.pulse = self.pulse();
        Ok(self.tally)
    }

    fn is_over(&self) -> bool {
        let Some(leaving) = &self.leaving else { return false };
        let deaf = |(_, conn): (usize, &Conn)| conn.visit.is_deaf();
        let all_told = leaving.told >= self.conns.capacity();
        self.signalled > 1 || self.turn.mono >= leaving.until || (all_told && self.conns.iter().all(deaf))
    }

    /// How long nothing is to be done.
    fn wait(&self) -> Duration {
        let now = Mono::now();
        let timer = self.timers.next().map_or(LONGEST_WAIT, |at| at.since(now));
        let dial = match (&self.leaving, self.waiting.is_empty()) {
            (None, false) => Duration::from_secs_f64((1.0 - self.allowance).max(0.0) / self.plan.rate),
            (None, true) => LONGEST_WAIT,
            (Some(leaving), _) if leaving.told < self.conns.capacity() => Duration::ZERO,
            (Some(_), _) => LONGEST_WAIT,
        };
        // The kernel's timeout is in milliseconds, rounded up: what is nearer is looked at again.
        timer.min(dial).min(LONGEST_WAIT)
    }

    fn begin_turn(&mut self) {
        let last = std::mem::replace(&mut self.turn, Turn { mono: Mono::now(), wall: Timestamp::now() });
        let passed = self.turn.mono.since(last.mono);
        let most = (self.plan.rate * SAVED).max(1.0);
        self.allowance = (self.allowance + passed.as_secs_f64() * self.plan.rate).min(most);
        if passed > LATE {
            let ms = passed.as_millis() as u64;
            self.tally.late_ms += ms;
            self.tell(Line::Late { ms });
        }
    }

    fn on_events(&mut self, events: &Events) {
        // Sessions before handshakes: a ping is owed an answer, a handshake can wait.
        let upgraded = |herd: &Self, token: Token| {
            herd.conns.get(token.0).is_some_and(|conn| conn.step == Step::Upgraded)
        };
        let (mut others, mut signalled) = (Vec::new(), false);
        for event in events {
            match event.token() {
                SIGNALS => signalled = true,
                token if upgraded(self, token) => self.on_event(token.0, event),
                _ => others.push(event),
            }
        }
        for event in others {
            self.on_event(event.token().0, event);
        }
        if signalled {
            self.count_signals();
        }
    }

    fn count_signals(&mut self) {
        let mut bytes = [0; 16];
        while let Ok(n) = std::io::Read::read(&mut self.signals, &mut bytes)
            && n > 0
        {
            self.signalled += n;
        }
    }

    fn on_timers(&mut self) {
        while let Some((at, due)) = self.timers.pop(self.turn.mono) {
            match due {
                Due::Dial { device } => self.waiting.push_back(device),
                Due::Visit { place, number } => {
                    let Some(conn) = self.conns.get_mut(place) else { continue };
                    if conn.visit.number == number && conn.armed == at {
                        conn.armed = Mono(u64::MAX);
                        self.on_time(place);
                    }
                }
            }
        }
    }

    fn dial_some(&mut self) {
        for _ in 0..DIALS_A_TURN {
            if self.allowance < 1.0 {
                return;
            }
            let Some(device) = self.waiting.pop_front() else { return };
            self.allowance -= 1.0;
            self.dial(device);
        }
    }

    fn dial(&mut self, number: u32) {
        let plan = self.plan;
        let device = self.device(number);
        device.due = false;
        device.lines += 1;
        device.visits += 1;
        let (behaviour, visit, target) = (device.behaviour, device.visits, device.target);
        let conn = self.next_number;
        self.next_number += 1;
        self.tally.pulse.begun += 1;
        let to = plan.targets[usize::from(target)].addr;
        if self.record.is_some() {
            let device = &plan.device_id(number);
            self.tell(Line::Dial { conn, device, to, behaviour: behaviour.as_str() });
        }
        let visit = Visit::new(conn, number, visit, behaviour, Mono::now());
        let entry = self.conns.vacant_entry();
        let token = Token(entry.key());
        let opened = socket::dial(to, plan.source_of(number)).and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, token, interest).map(|()| stream)
        });
        match opened {
            Ok(stream) => {
                let (output, rest, armed) = (Output::default(), Box::default(), Mono(u64::MAX));
                entry.insert(Conn { visit, stream, output, rest, step: Step::Connecting, target, armed });
                self.arm(token.0);
            }
            Err(e) => self.failed(&visit, &e.to_string(), None),
        }
    }

    /// A device with a connection dials for another.
    fn dial_beside(&mut self, number: u32) {
        let device = self.device(number);
        if device.due || device.lines > 1 {
            return;
        }
        device.due = true;
        self.aim_elsewhere(number);
        self.waiting.push_back(number);
    }

    /// Sets the timer of a connection to what is due next.
    fn arm(&mut self, place: usize) {
        let Some(conn) = self.conns.get_mut(place) else { return };
        let dribble = conn.output.dribble_due().unwrap_or(Mono(u64::MAX));
        let due = conn.visit.next_due().min(dribble);
        if due < conn.armed {
            conn.armed = due;
            self.timers.add(due, Due::Visit { place, number: conn.visit.number });
        }
    }

    fn begin_to_leave(&mut self) {
        if self.leaving.is_some() {
            return;
        }
        self.tell(Line::Leaving);
        self.waiting.clear();
        self.leaving = Some(Leaving { told: 0, until: Mono(u64::MAX) });
    }

    /// Tells some devices to leave; later turns tell the others.
    fn leave_some(&mut self) {
        let Some(leaving) = &mut self.leaving else { return };
        let first = leaving.told;
        if first >= self.conns.capacity() {
            return;
        }
        leaving.told = first + LEAVES_A_TURN;
        leaving.until = self.turn.mono + ECHOED_WITHIN;
        for place in first..first + LEAVES_A_TURN {
            if let Some(conn) = self.conns.get_mut(place) {
                conn.visit.leave(self.turn.mono, &mut self.acts);
                self.act(place);
            }
        }
    }

    fn device(&mut self, number: u32) -> &mut Device {
        let index = (number - 1 - self.plan.part.index) / self.plan.part.of;
        &mut self.devices[index as usize]
    }

    fn tell(&mut self, line: Line<'_>) {
        if let Some(record) = &mut self.record {
            record.add(line);
        }
    }

    fn flush_record(&mut self) -> Result<()> {
        self.record.as_mut().map_or(Ok(()), Record::flush)
    }

    fn pulse(&self) -> Pulse {
        let mut pulse = self.tally.pulse.clone();
        pulse.live = self.conns.iter().filter(|(_, c)| c.visit.is_live()).count() as u64;
        pulse.dialling = self.conns.len() as u64 - pulse.live;
        pulse
    }
}

impl Device {
    fn new(plan: &Plan, number: u32) -> Self {
        let target = number as usize % plan.targets.len();
        Self {
            behaviour: plan.mix.of(plan.habits.seed, number),
            lines: 0,
            due: true,
            failures: 0,
            target: target as u16,
            visits: 0,
        }
    }
}

/// The key of a connection's handshake: not kept, but drawn again.
fn handshake_key(plan: &Plan, visit: &Visit) -> String {
    super::wire::key(&mut chance(plan.habits.seed, Lot::Key, visit.device, visit.number as u32))
}
