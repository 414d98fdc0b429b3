//! The sessions of one worker thread, and their deadlines.
//!
//! - A deadline is acted on by the supervisor's tick, whether or not the session's own task is being polled: a
//!   peer that stops reading, or a task that hangs, cannot hold up its own end.
//! - Each child has one entry of the wheel that counts. An entry made for an earlier holder of the key, or for
//!   a deadline that was since brought nearer, has another serial and lapses.
//! - A child that panics while it is asked is taken for crashed; the others are asked all the same.
//! - What happened waits in `facts` until the root takes it: at most two facts a session, so the bound on
//!   sessions bounds it.
//!
//! One thread owns all of this: sessions and supervisor share it without locks.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use slab::Slab;

use crate::ids::SessionId;
use crate::metrics::{Counted, Metrics};
use crate::store::{LastHeard, Start};
use crate::time::{Mono, Now};
use crate::token::Proof;

use super::admission::Admission;
use super::clock::{Attended, AttendedClock, Clocks};
use super::closeup::{CloseUp, Heartbeats};
use super::messages::{Command, Fact, Flush, Order};
use super::snapshot::SessionView;
use super::wheel::Wheel;

/// A session as its supervisor knows it.
pub trait Child {
    fn session_id(&self) -> SessionId;
    /// The next deadline.
    fn due(&self) -> Attended;
    /// The deadline is over: act on it. False where nothing is left of the session.
    fn on_deadline(&self, now: Clocks) -> bool;
    /// Do as the root says.
    fn obey(&self, what: Command);
    /// The session's code panicked.
    fn crashed(&self);
    /// For inspection; none once it ended.
    fn view(&self, now: &Now) -> Option<SessionView>;
    /// For the record; none unless its start is on it.
    fn last_heard(&self, now: &Now) -> Option<LastHeard>;
    fn was_heard_since(&self, since: Mono) -> bool;
    /// What is seen of it closely, where there is more than its view; none once it ended.
    fn look(&self, now: &Now) -> Option<CloseUp> {
        let (heartbeats, socket) = (Heartbeats::default(), None);
        Some(CloseUp { view: self.view(now)?, heartbeats, socket })
    }
}

/// Sessions that are fetched from memory together.
const TOGETHER: usize = 32;

struct Seat {
    child: Rc<dyn Child>,
    serial: u32,
    entered_at: Attended,
}

#[derive(Clone, Copy)]
struct Entry {
    key: u32,
    serial: u32,
}

/// One worker's sessions.
pub struct Roster {
    pub worker: usize,
    pub metrics: Arc<Metrics>,
    /// A part of the metrics that waits for the next tick.
    pub counted: Counted,
    admission: Arc<Admission>,
    clock: RefCell<AttendedClock>,
    seats: RefCell<Slab<Seat>>,
    wheel: RefCell<Wheel<Entry>>,
    next_serial: Cell<u32>,
    facts: RefCell<Vec<Fact>>,
    flush: RefCell<Option<Recipient<Flush>>>,
}

impl Roster {
    pub fn new(worker: usize, metrics: Arc<Metrics>, admission: Arc<Admission>, now: Mono) -> Rc<Self> {
        let clock = AttendedClock::new(now);
        Rc::new(Self {
            worker,
            counted: metrics.counted(),
            metrics,
            admission,
            wheel: RefCell::new(Wheel::new(clock.read(now).attended)),
            clock: RefCell::new(clock),
            seats: RefCell::default(),
            next_serial: Cell::new(0),
            facts: RefCell::default(),
            flush: RefCell::new(None),
        })
    }

    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    pub fn clocks(&self) -> Clocks {
        self.clocks_at(Mono::now())
    }

    fn clocks_at(&self, now: Mono) -> Clocks {
        self.clock.borrow().read(now)
    }

    /// Whether what is read now may have waited for this worker.
    pub fn is_catching_up(&self, now: Mono) -> bool {
        self.clock.borrow().is_catching_up(now)
    }

    /// A device was let in: `child` is looked after from here on, and its start goes on the record.
    pub fn join(&self, start: Start, proof: Proof, child: impl FnOnce(u32) -> Rc<dyn Child>) -> u32 {
        let (key, due) = {
            let mut seats = self.seats.borrow_mut();
            let vacant = seats.vacant_entry();
            let key = u32::try_from(vacant.key()).expect("sessions are bounded below 2^32");
            let child = child(key);
            let due = child.due();
            vacant.insert(Seat { child, serial: 0, entered_at: due });
            (key, due)
        };
        self.enter(key, due);
        self.tell(Fact::Arrived { key, start, proof });
        key
    }

    /// The child's deadline may have come nearer.
    pub fn hasten(&self, key: u32, due: Attended) {
        let nearer = self.seats.borrow().get(key as usize).is_some_and(|seat| due < seat.entered_at);
        if nearer {
            self.enter(key, due);
        }
    }

    /// Nothing is left of the session. Its key may have passed to another since it left before: the id decides.
    pub fn leave(&self, key: u32, session_id: SessionId) {
        let mut seats = self.seats.borrow_mut();
        if seats.get(key as usize).is_some_and(|seat| seat.child.session_id() == session_id) {
            let left = seats.remove(key as usize);
            // What the session drops may come back here.
            drop(seats);
            drop(left);
        }
    }

    /// Sends a fact to the root with what else has happened in this turn of the loop.
    pub fn tell(&self, fact: Fact) {
        self.admission.more_backlog(1);
        let mut facts = self.facts.borrow_mut();
        facts.push(fact);
        if facts.len() == 1
            && let Some(flush) = &*self.flush.borrow()
        {
            // A full mailbox is no loss: what fills it, or the next tick, flushes too.
            let _ = flush.try_send(Flush);
        }
    }

    fn enter(&self, key: u32, due: Attended) {
        let serial = self.next_serial.get().wrapping_add(1);
        self.next_serial.set(serial);
        if let Some(seat) = self.seats.borrow_mut().get_mut(key as usize) {
            seat.serial = serial;
            seat.entered_at = due;
            self.wheel.borrow_mut().enter(Entry { key, serial }, due);
        }
    }

    fn child(&self, key: u32) -> Option<Rc<dyn Child>> {
        self.seats.borrow().get(key as usize).map(|seat| seat.child.clone())
    }

    // What follows is for the supervisor of this worker alone.

    pub(super) fn flush_by(&self, flush: Recipient<Flush>) {
        *self.flush.borrow_mut() = Some(flush);
    }

    /// Takes up to `most` facts, oldest first.
    pub(super) fn take_facts(&self, most: usize) -> Vec<Fact> {
        let mut facts = self.facts.borrow_mut();
        if facts.len() <= most {
            return std::mem::take(&mut *facts);
        }
        let rest = facts.split_off(most);
        std::mem::replace(&mut *facts, rest)
    }

    /// Facts that the root has not taken.
    pub(super) fn waiting(&self) -> usize {
        self.facts.borrow().len()
    }

    /// Puts back what the root had no room for.
    pub(super) fn return_facts(&self, mut returned: Vec<Fact>) {
        let mut facts = self.facts.borrow_mut();
        returned.append(&mut facts);
        *facts = returned;
    }

    /// One tick: acts on the deadlines that are over. Returns how long the worker had stalled, where it had. Open to
    /// whoever measures it.
    pub fn tick(&self, now: Mono) -> Option<Duration> {
        let stall = self.clock.borrow_mut().tick(now);
        let clocks = self.clocks_at(now);
        let mut due = Vec::new();
        self.wheel.borrow_mut().turn(clocks.attended, &mut due);
        for some in due.chunks(TOGETHER) {
            self.fetch(some);
            for Entry { key, serial } in some {
                let counts =
                    self.seats.borrow().get(*key as usize).is_some_and(|seat| seat.serial == *serial);
                if counts {
                    self.ask(*key, clocks);
                }
            }
        }
        self.counted.flush();
        stall
    }

    /// Has the sessions of these come into the cache. Among very many none is there, and while one is waited for the
    /// others can be on their way.
    fn fetch(&self, some: &[Entry]) {
        let seats = self.seats.borrow();
        for seat in some.iter().filter_map(|entry| seats.get(entry.key as usize)) {
            black_box(seat.child.due());
        }
    }

    fn ask(&self, key: u32, clocks: Clocks) {
        let Some(child) = self.child(key) else { return };
        let stays = child.due() > clocks.attended || self.guarded(&child, |child| child.on_deadline(clocks));
        if stays {
            // Never for the slot that is just being emptied.
            self.enter(key, child.due().max(clocks.attended + Duration::from_micros(1)));
        } else {
            self.leave(key, child.session_id());
        }
    }

    /// Runs the session's code so that its panic is its own.
    fn guarded(&self, child: &Rc<dyn Child>, run: impl FnOnce(&dyn Child) -> bool) -> bool {
        catch_unwind(AssertUnwindSafe(|| run(&**child))).unwrap_or_else(|_| {
            child.crashed();
            true
        })
    }

    pub(super) fn obey(&self, order: Order) {
        if let Some(child) = self.child(order.key)
            && child.session_id() == order.session_id
        {
            self.guarded(&child, |child| {
                child.obey(order.what);
                true
            });
        }
    }

    /// Looks at the seats from `key` on, at most `most` of them; returns where to go on, none at the end.
    pub(super) fn visit(&self, key: usize, most: usize, mut see: impl FnMut(&dyn Child)) -> Option<usize> {
        let seats = self.seats.borrow();
        let end = key.saturating_add(most);
        for key in key..end.min(seats.capacity()) {
            if let Some(seat) = seats.get(key) {
                see(&*seat.child);
            }
        }
        (end < seats.capacity()).then_some(end)
    }

    pub(super) fn look(&self, key: u32, session_id: SessionId) -> Option<CloseUp> {
        let child = self.child(key).filter(|child| child.session_id() == session_id)?;
        child.look(&Now::read())
    }

    /// Seats taken: sessions, and the sockets of those that ended a moment ago.
    pub(super) fn len(&self) -> usize {
        self.seats.borrow().len()
    }
}

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;
