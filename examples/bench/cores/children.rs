//! Sessions without sockets: what a roster looks after, as heavy as the real thing, and devices that answer at once.
//!
//! - A [`Phantom`] keeps the real liveness and the real start, in an allocation as large as that of a real session, and
//!   does for a deadline what a session does: it asks its device and counts the ping. Only the frame is not sent.
//! - Its pongs come later, by [`Devices::answer`], so that a session's memory is visited twice for each ping, as it is
//!   where pongs come from a network.
//!
//! Left out: the task that reads a socket. Its memory is part of the row `memory`, its work of the row `pings`.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lastpong::event::{Connected, Meta};
use lastpong::ids::{DeviceType, EventId, Run, SessionId};
use lastpong::session::life::Session;
use lastpong::session::state::{Action, Liveness, Pace};
use lastpong::store::{LastHeard, Start, Told};
use lastpong::supervisor::clock::{Attended, Clocks};
use lastpong::supervisor::messages::Command;
use lastpong::supervisor::roster::{Child, Roster};
use lastpong::supervisor::snapshot::{SessionView, Source};
use lastpong::time::{Mono, Now};
use lastpong::token::Proof;

/// What a session has in common with its neighbours on one thread.
pub struct Devices {
    pub roster: Rc<Roster>,
    pub pace: Pace,
    run: Run,
    /// By their keys in the roster.
    all: RefCell<Vec<Rc<Phantom>>>,
    welcomed: Cell<usize>,
    /// Asked and not answered yet: key and token.
    asked: RefCell<Vec<(u32, u64)>>,
    late: RefCell<Late>,
}

/// By how many whole milliseconds deadlines were acted on late: a count for each, the last for all beyond.
#[derive(Debug, Clone)]
pub struct Late(Vec<u32>);

impl Default for Late {
    fn default() -> Self {
        Self(vec![0; 1_000])
    }
}

impl Late {
    fn add(&mut self, late: u64) {
        let place = (late / 1_000).min(self.0.len() as u64 - 1);
        self.0[place as usize] += 1;
    }

    pub fn merge(&mut self, other: &Late) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// The milliseconds that a share of the deadlines was not later than.
    pub fn quantile_ms(&self, share: f64) -> usize {
        let all: u32 = self.0.iter().sum();
        let rank = (share * f64::from(all)).ceil() as u32;
        let mut seen = 0;
        let reached = |count: &u32| {
            seen += count;
            seen >= rank
        };
        self.0.iter().position(reached).map_or(0, |place| place + 1)
    }
}

struct Own {
    devices: Rc<Devices>,
    key: u32,
    start: Arc<Connected>,
    liveness: RefCell<Liveness>,
}

/// One session.
pub struct Phantom {
    own: Own,
    _the_rest: [u8; size_of::<Session>().saturating_sub(size_of::<Own>())],
}

impl Devices {
    pub fn new(roster: Rc<Roster>, run: Run) -> Rc<Self> {
        let pace = Pace {
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            max_missed_pongs: 2,
            adaptive: false,
        };
        Rc::new(Self {
            roster,
            pace,
            run,
            all: RefCell::default(),
            welcomed: Cell::new(0),
            asked: RefCell::default(),
            late: RefCell::default(),
        })
    }

    /// One more session, put together as the handshake does it; its start goes up as a fact.
    pub fn connect(self: &Rc<Self>, number: usize, clocks: Clocks) -> anyhow::Result<()> {
        let [_, a, b, c] = (number as u32).to_be_bytes();
        let start = Arc::new(Connected {
            device_id: format!("device-{number:09}").parse()?,
            device_type: DeviceType::default(),
            session_id: SessionId::new(),
            node_id: self.run.node_id.clone(),
            incarnation: self.run.incarnation,
            connected_at: Now::read().wall,
            remote_addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, a, b, c)), 40_000),
            meta: Meta::new(),
            trace_id: None,
        });
        let fact = Start { event_id: EventId::new(), data: start.clone(), after_seq: 0, told: Told::Now };
        let mut made = None;
        self.roster.join(fact, Proof::default(), |key| {
            let patience = self.pace.verdict();
            let own = Own {
                devices: self.clone(),
                key,
                start,
                liveness: RefCell::new(Liveness::new(clocks, patience)),
            };
            let child = Rc::new(Phantom { own, _the_rest: [0; _] });
            made = Some(child.clone());
            child
        });
        self.all.borrow_mut().extend(made);
        Ok(())
    }

    /// Welcomes all at once, for a roster that has no supervisor.
    pub fn welcome_all(&self, clocks: Clocks) {
        self.all.borrow().iter().for_each(|phantom| phantom.welcome(clocks));
    }

    pub fn welcomed(&self) -> usize {
        self.welcomed.get()
    }

    /// Whoever was asked answers now. Returns how many those were.
    pub fn answer(&self, clocks: Clocks) -> usize {
        let asked = std::mem::take(&mut *self.asked.borrow_mut());
        let all = self.all.borrow();
        for (key, token) in &asked {
            all[*key as usize].heard_pong(*token, clocks);
        }
        asked.len()
    }

    /// How late deadlines were acted on since this was last asked.
    pub fn take_late(&self) -> Late {
        std::mem::take(&mut *self.late.borrow_mut())
    }
}

impl Phantom {
    fn welcome(&self, clocks: Clocks) {
        let Own { devices, key, liveness, .. } = &self.own;
        if liveness.borrow_mut().recorded(clocks, &devices.pace, rand::random()) {
            devices.welcomed.set(devices.welcomed.get() + 1);
            devices.roster.hasten(*key, self.due());
        }
    }

    fn heard_pong(&self, token: u64, clocks: Clocks) {
        let Own { devices, key, liveness, .. } = &self.own;
        liveness.borrow_mut().on_frame(clocks);
        let heard = liveness.borrow_mut().on_pong(clocks, &devices.pace, Some(token));
        let metrics = &devices.roster.metrics;
        if let Some(rtt) = heard.rtt {
            metrics.messages.pongs_matched.inc();
            metrics.ping_rtt.observe(rtt.as_secs_f64());
        }
        devices.roster.hasten(*key, self.due());
    }
}

impl Child for Phantom {
    fn session_id(&self) -> SessionId {
        self.own.start.session_id
    }

    fn due(&self) -> Attended {
        self.own.liveness.borrow().due()
    }

    fn on_deadline(&self, now: Clocks) -> bool {
        let Own { devices, key, liveness, .. } = &self.own;
        devices.late.borrow_mut().add(now.attended.0.saturating_sub(self.due().0));
        let token = rand::random();
        let action = liveness.borrow_mut().on_deadline(now, &devices.pace, token);
        match action {
            Action::Wait => true,
            Action::Ping { token, .. } => {
                liveness.borrow_mut().pinged(now, &devices.pace, token);
                devices.roster.metrics.messages.pings_sent.inc();
                devices.asked.borrow_mut().push((*key, token));
                true
            }
            Action::Dead => false,
        }
    }

    fn obey(&self, what: Command) {
        if let Command::Welcome { .. } = what {
            self.welcome(self.own.devices.roster.clocks());
        }
    }

    fn crashed(&self) {}

    fn view(&self, now: &Now) -> Option<SessionView> {
        let Own { start, key, .. } = &self.own;
        let liveness = self.own.liveness.borrow();
        Some(SessionView {
            state: liveness.state()?,
            start: start.clone(),
            session_id: start.session_id,
            device_seq: Some(1),
            source: Source::Here,
            key: *key,
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
        let liveness = self.own.liveness.borrow();
        liveness.is_recorded().then(|| LastHeard {
            session_id: self.own.start.session_id,
            last_pong_at: liveness.last_pong().map(|at| now.wall_at(at)),
            last_active_at: now.wall_at(liveness.last_active()),
        })
    }

    fn was_heard_since(&self, since: Mono) -> bool {
        self.own.liveness.borrow().last_active() > since
    }
}
