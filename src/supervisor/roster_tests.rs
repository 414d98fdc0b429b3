//! One worker in virtual time: its roster, wheel and attended clock with the liveness of its sessions, among devices whose
//! answers take their time, while the worker stalls, reads late, and sessions panic.

use std::cell::OnceCell;
use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::*;
use crate::random_tests::{Tally, try_histories};
use crate::reason::{DetectedBy, Reason};
use crate::session::state::{Action, Liveness, Pace};
use crate::supervisor::admission::Limits;
use crate::supervisor::clock::MAX_STEP;
use crate::supervisor::directory::tests::start;
use crate::supervisor::wheel::SLOT;

const PATIENCE: Duration = Duration::from_secs(15);
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// How a device answers the pings that are to come: after so many thousandths of the pong timeout, or not.
type Habit = Option<u16>;

#[derive(Debug, Clone)]
enum Step {
    Arrive(Habit),
    /// The start is durable; the first ping comes at this share of an interval.
    Welcome(usize, f64),
    Turn(usize, Habit),
    /// A frame, or a pong that answers nothing.
    Chat(usize, bool),
    End(usize),
    Panic(usize),
    /// The worker turns its loop: each turn takes so long and reads the sockets before or after its tick, or not at all,
    /// but at least every second turn.
    Run {
        turns: u32,
        each: u64,
        reads: u32,
    },
    /// The worker does not run.
    Stall(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = || 0usize..8;
    let habit = || prop_oneof![6 => (0u16..=1_000).prop_map(Some), 2 => Just(None), 1 => (1_001u16..4_000).prop_map(Some)];
    let step = prop_oneof![
        6 => habit().prop_map(Step::Arrive),
        14 => (who(), 0.0f64..=1.0).prop_map(|(who, phase)| Step::Welcome(who, phase)),
        2 => (who(), habit()).prop_map(|(who, habit)| Step::Turn(who, habit)),
        3 => (who(), any::<bool>()).prop_map(|(who, pong)| Step::Chat(who, pong)),
        1 => who().prop_map(Step::End),
        1 => who().prop_map(Step::Panic),
        12 => (1u32..60, 1u64..250, any::<u32>()).prop_map(|(turns, each, reads)| Step::Run { turns, each, reads }),
        8 => (20u32..60, 15u64..25, any::<u32>()).prop_map(|(turns, each, reads)| Step::Run { turns, each, reads }),
        3 => (251u64..60_000).prop_map(Step::Stall),
    ];
    prop::collection::vec(step, 1..70)
}

fn pace() -> impl Strategy<Value = Pace> {
    (100u64..5_000, 300u64..2_000, 1u32..4).prop_map(|(interval, timeout, max_missed_pongs)| Pace {
        ping_interval: ms(interval),
        pong_timeout: ms(timeout),
        max_missed_pongs,
        adaptive: false,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Silent,
    NeverWelcomed,
    Panicked,
    Told,
}

/// What is shared by all: the worker's pace, and the moment.
struct Worker {
    roster: OnceCell<Rc<Roster>>,
    pace: Pace,
    now: Cell<Mono>,
}

impl Worker {
    fn clocks(&self) -> Clocks {
        self.roster.get().unwrap().clocks_at(self.now.get())
    }
}

struct Ping {
    sent: Mono,
    attended: Attended,
    answered_after: Option<Duration>,
}

/// A session as `session::life` makes one of its liveness, with its device at the other end of the wire.
struct Session {
    worker: Rc<Worker>,
    id: SessionId,
    key: Cell<u32>,
    liveness: RefCell<Liveness>,
    habit: Cell<Habit>,
    /// On their way from the device: when they arrive, and the token where it is a pong.
    wire: RefCell<Vec<(Mono, Option<u64>)>>,
    pings: RefCell<Vec<Ping>>,
    fragile: Cell<bool>,
    closing: Cell<Option<Attended>>,
    ends: RefCell<Vec<Why>>,
    /// When it was welcomed, or last read a pong; and the longest turn of the loop since.
    heard: Cell<Clocks>,
    /// When its deadline was last brought nearer, perhaps into the past.
    hastened: Cell<Attended>,
    slowest: Cell<Duration>,
    /// What should not have been: a panic where it is asked would be taken for the session's own.
    wrong: RefCell<Option<String>>,
}

impl Session {
    fn read(&self) {
        let now = self.worker.now.get();
        let mut wire = self.wire.borrow_mut();
        wire.sort_by_key(|(arrives, _)| *arrives);
        let arrived = wire.partition_point(|(arrives, _)| *arrives <= now);
        let arrived: Vec<_> = wire.drain(..arrived).collect();
        drop(wire);
        if self.closing.get().is_some() {
            return;
        }
        let clocks = self.worker.clocks();
        for (_, token) in arrived {
            match token {
                Some(token) => {
                    let heard = self.liveness.borrow_mut().on_pong(clocks, &self.worker.pace, Some(token));
                    let sent = self.pings.borrow().get(token as usize).map(|ping| ping.sent);
                    assert!(heard.rtt.is_none_or(|rtt| sent.is_some_and(|sent| now.since(sent) == rtt)));
                    self.heard.set(clocks);
                    self.slowest.set(Duration::ZERO);
                }
                None => self.liveness.borrow_mut().on_frame(clocks),
            }
        }
        self.hasten();
    }

    fn hasten(&self) {
        self.hastened.set(self.worker.clocks().attended);
        self.worker.roster.get().unwrap().hasten(self.key.get(), self.due());
    }

    fn end(&self, why: Why) {
        if !self.liveness.borrow_mut().end() {
            return;
        }
        self.ends.borrow_mut().push(why);
        let shut_at = self.worker.clocks().attended + CLOSE_TIMEOUT;
        self.closing.set(Some(shut_at));
        self.hasten();
    }

    fn hold(&self, is_so: bool, else_wrong: &str) {
        if !is_so {
            self.wrong.borrow_mut().get_or_insert_with(|| else_wrong.to_owned());
        }
    }

    fn is_live(&self) -> bool {
        self.liveness.borrow().is_recorded()
    }

    /// How long a device may be silent, in attended time, until it is ended: each deadline may come up a slot and a turn
    /// of the loop late.
    fn most(&self) -> Duration {
        let pace = &self.worker.pace;
        let deadlines = pace.max_missed_pongs + 1;
        let late = SLOT + self.slowest.get().min(MAX_STEP);
        pace.ping_interval + pace.verdict() + late * deadlines
    }
}

impl Child for Session {
    fn session_id(&self) -> SessionId {
        self.id
    }

    fn due(&self) -> Attended {
        self.closing.get().unwrap_or_else(|| self.liveness.borrow().due())
    }

    fn on_deadline(&self, now: Clocks) -> bool {
        self.hold(now.attended >= self.due(), "asked before its time");
        if self.closing.get().is_some() {
            return false;
        }
        if self.fragile.take() {
            std::panic::resume_unwind(Box::new("a panic"));
        }
        let pace = &self.worker.pace;
        let token = self.pings.borrow().len() as u64;
        let was_recorded = self.is_live();
        self.read();
        let action = self.liveness.borrow_mut().on_deadline(now, pace, token);
        match action {
            Action::Wait => {}
            Action::Ping { token, suspect } => {
                let missed = suspect || self.liveness.borrow().missed() > 0;
                let before = self.pings.borrow().last().map(|ping| ping.attended);
                let soon = before.is_some_and(|before| now.attended < before + pace.ping_interval);
                self.hold(missed || !soon, "asked again before its interval");
                self.liveness.borrow_mut().pinged(now, pace, token);
                let after = self.habit.get().map(|share| pace.pong_timeout * u32::from(share) / 1_000);
                self.pings.borrow_mut().push(Ping {
                    sent: now.mono,
                    attended: now.attended,
                    answered_after: after,
                });
                self.wire.borrow_mut().extend(after.map(|after| (now.mono + after, Some(token))));
            }
            Action::Dead if was_recorded => {
                let pings = self.pings.borrow();
                let missed = pings.iter().rev().take(pace.max_missed_pongs as usize);
                for ping in missed {
                    let answered = ping.answered_after.is_some_and(|after| after <= pace.pong_timeout);
                    self.hold(!answered, "ended as silent, and it answered a ping in time");
                }
                self.hold(pings.len() >= pace.max_missed_pongs as usize, "ended before it was asked");
                drop(pings);
                self.end(Why::Silent);
            }
            Action::Dead => self.end(Why::NeverWelcomed),
        }
        true
    }

    fn obey(&self, _: Command) {
        self.end(Why::Told);
    }

    fn crashed(&self) {
        self.end(Why::Panicked);
    }

    fn view(&self, _: &Now) -> Option<SessionView> {
        None
    }

    fn last_heard(&self, _: &Now) -> Option<LastHeard> {
        None
    }

    fn was_heard_since(&self, _: Mono) -> bool {
        false
    }
}

struct World<'a> {
    worker: Rc<Worker>,
    sessions: Vec<Rc<Session>>,
    gone: HashMap<SessionId, Why>,
    has_read: bool,
    tally: &'a Tally,
}

thread_local! {
    static HOUSE: (Arc<Metrics>, Arc<Admission>) = {
        let limits = Limits::default();
        (Arc::default(), Admission::new(limits, Arc::default()))
    };
}

impl<'a> World<'a> {
    fn new(pace: Pace, tally: &'a Tally) -> Self {
        let worker = Rc::new(Worker { roster: OnceCell::new(), pace, now: Cell::new(Mono(77)) });
        let roster =
            HOUSE.with(|(metrics, admission)| Roster::new(0, metrics.clone(), admission.clone(), Mono(77)));
        let _ = worker.roster.set(roster);
        Self { worker, sessions: Vec::new(), gone: HashMap::new(), has_read: true, tally }
    }

    fn roster(&self) -> &Rc<Roster> {
        self.worker.roster.get().unwrap()
    }

    fn some(&self, n: usize) -> Option<&Rc<Session>> {
        self.sessions.get(n % self.sessions.len().max(1))
    }

    fn take(&mut self, step: Step) {
        let now = self.worker.now.get();
        match step {
            Step::Arrive(habit) if self.sessions.len() < 8 => self.arrive(habit),
            Step::Arrive(_) => {}
            Step::Welcome(n, phase) => {
                if let Some(session) = self.some(n) {
                    let clocks = self.worker.clocks();
                    let began = session.liveness.borrow_mut().recorded(clocks, &self.worker.pace, phase);
                    if began {
                        session.heard.set(clocks);
                        session.slowest.set(Duration::ZERO);
                        session.hasten();
                    }
                }
            }
            Step::Turn(n, habit) => {
                if let Some(session) = self.some(n) {
                    session.habit.set(habit);
                }
            }
            Step::Chat(n, pong) => {
                if let Some(session) = self.some(n) {
                    session.wire.borrow_mut().push((now, pong.then_some(u64::MAX)));
                }
            }
            Step::End(n) => {
                if let Some(session) = self.some(n) {
                    let (key, session_id) = (session.key.get(), session.id);
                    let what = Command::End { reason: Reason::Kicked, detected_by: DetectedBy::Operator };
                    // One that was for another session, which had the seat before.
                    let ends = session.ends.borrow().len();
                    self.roster().obey(Order { key, session_id: SessionId::new(), what });
                    assert_eq!(session.ends.borrow().len(), ends, "ended in the place of another");
                    self.roster().obey(Order { key, session_id, what });
                }
            }
            Step::Panic(n) => {
                if let Some(session) = self.some(n) {
                    session.fragile.set(true);
                }
            }
            Step::Run { turns, each, reads } => {
                (0..turns).for_each(|n| self.turn(ms(each), reads >> (n % 31)))
            }
            Step::Stall(length) => {
                self.tally.add("stalls", 1);
                self.turn(ms(length), 1);
            }
        }
    }

    fn arrive(&mut self, habit: Habit) {
        let (worker, start) = (self.worker.clone(), start(1));
        let id = start.data.session_id;
        let now = worker.clocks();
        let session = Rc::new(Session {
            id,
            key: Cell::new(0),
            liveness: RefCell::new(Liveness::new(now, PATIENCE)),
            habit: Cell::new(habit),
            wire: RefCell::default(),
            pings: RefCell::default(),
            fragile: Cell::new(false),
            closing: Cell::new(None),
            ends: RefCell::default(),
            heard: Cell::new(now),
            hastened: Cell::new(now.attended),
            slowest: Cell::new(Duration::ZERO),
            wrong: RefCell::default(),
            worker,
        });
        let key = self.roster().join(start, Default::default(), |key| {
            session.key.set(key);
            session.clone()
        });
        assert_eq!(key, session.key.get());
        self.sessions.push(session);
    }

    /// One turn of the loop, which took so long.
    fn turn(&mut self, took: Duration, reads: u32) {
        self.tally.add("steps", 1);
        self.worker.now.set(self.worker.now.get() + took);
        for session in &self.sessions {
            session.slowest.set(session.slowest.get().max(took));
        }
        if reads & 3 == 0 {
            self.read();
        }
        let stall = self.roster().tick(self.worker.now.get());
        assert_eq!(stall, took.checked_sub(MAX_STEP).filter(|stall| !stall.is_zero()));
        let attended = self.worker.clocks().attended;
        for session in &self.sessions {
            let seated =
                self.roster().child(session.key.get()).is_some_and(|child| child.session_id() == session.id);
            let due = session.due().max(session.hastened.get());
            let late = Duration::from_micros(attended.0.saturating_sub(due.0));
            assert!(!seated || late < SLOT, "its deadline was over {late:?} ago");
        }
        if reads & 3 == 1 || !self.has_read {
            self.read();
        }
        self.has_read = reads & 3 < 2 || !self.has_read;
        self.roster().take_facts(usize::MAX);
        self.look();
    }

    fn read(&self) {
        self.sessions.iter().for_each(|session| session.read());
    }

    /// Nobody is forgotten, by the wheel or otherwise.
    fn look(&mut self) {
        let attended = self.worker.clocks().attended;
        let passed = |since: Attended| Duration::from_micros(attended.0 - since.0);
        for session in &self.sessions {
            if session.is_live() {
                let silent = passed(session.heard.get().attended);
                assert!(
                    silent <= session.most(),
                    "silent for {silent:?}, and {:?} are the most",
                    session.most()
                );
            }
            assert!(session.ends.borrow().len() <= 1, "ended twice");
            assert_eq!(*session.wrong.borrow(), None);
        }
        let roster = self.roster().clone();
        let (gone, tally) = (&mut self.gone, self.tally);
        self.sessions.retain(|session| {
            let seated =
                roster.child(session.key.get()).is_some_and(|child| child.session_id() == session.id);
            if !seated {
                let ends = session.ends.borrow();
                let [why] = ends[..] else { panic!("left without an end") };
                tally.add(
                    match why {
                        Why::Silent => "ended as silent",
                        Why::NeverWelcomed => "never welcomed",
                        Why::Panicked => "panicked",
                        Why::Told => "told to end",
                    },
                    1,
                );
                assert_eq!(gone.insert(session.id, why), None);
            } else if session.is_live() && session.pings.borrow().len() > 3 {
                tally.add("turns of well-known sessions", 1);
            }
            seated
        });
        assert_eq!(self.roster().len(), self.sessions.len());
    }
}

fn history(pace: Pace, steps: Vec<Step>, tally: &Tally) -> TestCaseResult {
    let mut world = World::new(pace, tally);
    for step in steps {
        world.take(step);
    }
    Ok(())
}

#[test]
fn who_answers_lives_on_and_who_does_not_is_ended_in_time() {
    let least = [
        ("steps", 300_000),
        ("stalls", 1_000),
        ("ended as silent", 500),
        ("never welcomed", 50),
        ("panicked", 200),
        ("told to end", 200),
        ("turns of well-known sessions", 100_000),
    ];
    try_histories("roster", 1_500, (pace(), steps()), &least, |(pace, steps), tally| {
        history(pace, steps, tally)
    });
}
