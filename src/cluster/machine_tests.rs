//! Nodes on one record: the directory, the course with its journal, and the watch of each node, with a model of the store
//! that decides as Postgres does. Nodes are killed, stand still and are cut off between any two steps; what they ask is
//! done, refused, done without an answer, or done much later. Time is the same for all, and passed in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::lease::{Verdict, Watch};
use crate::event::Connected;
use crate::ids::{DeviceId, Incarnation, NodeId, Run, SessionId};
use crate::random_tests::{Tally, try_histories};
use crate::reason::{DetectedBy, Reason};
use crate::registry::batch::Grouping;
use crate::registry::course::{Course, Failure, Job, Step as Next};
use crate::registry::drain::{Stretch, stretches};
use crate::registry::messages::Recorded;
use crate::store::journal::Entry;
use crate::store::{End, Peer, PeerState, Start, Told, Write};
use crate::supervisor::directory::{Directory, Effects, tests as sample};
use crate::supervisor::messages::{Command, Fact, Order, Seat, ToEnd};
use crate::time::{Mono, Timestamp};

const NODES: usize = 3;
const DEVICES: u8 = 3;
const LEASE: Duration = Duration::from_secs(10);
/// In microseconds: a start that took no longer is as good as told when it happened.
const PROMPT: i64 = 2_000_000;
const GROUP: usize = 3;
const DRAIN: usize = 4;

/// How a call of store or journal goes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Luck {
    Good,
    Refused,
    /// Done, and told as refused.
    Unanswered,
    /// Told as refused, and done some time later.
    Late,
}

#[derive(Debug, Clone)]
enum Step {
    Arrive(usize, u8),
    Leave(usize, usize),
    /// Facts, orders and what was recorded go on their way within the node.
    Pump(usize),
    /// The next step of one of the node's jobs on journal or store.
    Work(usize, usize, Luck),
    /// The next step of the node's renewal, or of what came of it.
    Renew(usize, Luck),
    /// The node reads which sessions have ended on the record.
    Notice(usize),
    Pass(u64),
    /// Healthy nodes go through whole turns, each so many times.
    Turns(u32),
    Crash(usize),
    /// From the store; the journal is at hand.
    Cut(usize, bool),
    /// SIGSTOP, and SIGCONT.
    Stop(usize, bool),
    /// A node stops for good, and then the one that declares it lost, at once: the third has both to see to.
    StopTwo(usize),
    /// The store is away for everyone, for so many seconds.
    Outage(u32),
    LateCommit,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = || 0..NODES;
    let luck = || prop_oneof![8 => Just(Luck::Good), 2 => Just(Luck::Refused), 1 => Just(Luck::Unanswered), 1 => Just(Luck::Late)];
    let step = prop_oneof![
        10 => (node(), 0..DEVICES).prop_map(|(node, device)| Step::Arrive(node, device)),
        4 => (node(), 0usize..4).prop_map(|(node, which)| Step::Leave(node, which)),
        12 => node().prop_map(Step::Pump),
        20 => (node(), 0usize..2, luck()).prop_map(|(node, which, luck)| Step::Work(node, which, luck)),
        10 => (node(), luck()).prop_map(|(node, luck)| Step::Renew(node, luck)),
        3 => node().prop_map(Step::Notice),
        6 => (0u64..2_500).prop_map(Step::Pass),
        6 => (1u32..14).prop_map(Step::Turns),
        1 => node().prop_map(Step::Crash),
        2 => (node(), any::<bool>()).prop_map(|(node, cut)| Step::Cut(node, cut)),
        2 => (node(), any::<bool>()).prop_map(|(node, stop)| Step::Stop(node, stop)),
        1 => node().prop_map(Step::StopTwo),
        1 => (1u32..40).prop_map(Step::Outage),
        1 => Just(Step::LateCommit),
    ];
    prop::collection::vec(step, 1..200)
}

struct Row {
    run: Incarnation,
    renewals: i64,
    renewed_at: Mono,
    state: PeerState,
}

/// The store as Postgres keeps it.
#[derive(Default)]
struct Store {
    now: Mono,
    rows: BTreeMap<NodeId, Row>,
    active: BTreeMap<SessionId, Arc<Connected>>,
    seen: BTreeSet<SessionId>,
    /// Device, session, whether it is the end.
    log: Vec<(DeviceId, SessionId, bool)>,
    /// Starts that came by a journal: their devices were elsewhere meanwhile.
    late: BTreeSet<SessionId>,
}

/// What a commit says of each start: on the record, or overtaken.
type Outcomes = Vec<(DeviceId, SessionId, bool)>;

impl Store {
    fn is_fenced(&self, run: &Run) -> bool {
        let row = self.rows.get(&run.node_id);
        row.is_some_and(|row| row.run != run.incarnation || row.state != PeerState::Live)
    }

    fn begin(&mut self, run: &Run, now: Mono) {
        let (run, name) = (run.incarnation, run.node_id.clone());
        let before = self.rows.get(&name).filter(|row| row.run == run).map_or(-1, |row| row.renewals);
        self.rows.insert(name, Row { run, renewals: before + 1, renewed_at: now, state: PeerState::Live });
    }

    fn commit(&mut self, run: &Run, batch: &[Write]) -> Result<Outcomes, Failure> {
        if self.is_fenced(run) {
            return Err(Failure::Fenced);
        }
        let mut outcomes = Vec::new();
        for write in batch {
            match write {
                Write::End(end) => {
                    let of = self.active.get(&end.data.session_id);
                    if of.is_some_and(|of| of.incarnation == end.data.incarnation) {
                        self.end(end.data.session_id);
                    }
                }
                Write::Start(start) => {
                    let recorded = self.seen.contains(&start.data.session_id) || self.start(start);
                    outcomes.push((start.data.device_id.clone(), start.data.session_id, recorded));
                }
            }
        }
        Ok(outcomes)
    }

    fn start(&mut self, start: &Start) -> bool {
        let data = &start.data;
        let there: Vec<_> =
            self.active.values().filter(|there| there.device_id == data.device_id).cloned().collect();
        let own = there.iter().find(|there| there.incarnation == data.incarnation);
        assert!(own.is_none(), "a start before the end of the one it replaces");
        let overtaken = there.iter().any(|there| there.connected_at > data.connected_at);
        match start.told {
            Told::Now if overtaken && data.connected_at.0 + PROMPT < self.now.0 as i64 => return false,
            Told::Past => {}
            Told::Late if overtaken => {}
            Told::Now | Told::Late => there.iter().for_each(|there| self.end(there.session_id)),
        }
        self.seen.insert(data.session_id);
        self.active.insert(data.session_id, data.clone());
        self.log.push((data.device_id.clone(), data.session_id, false));
        if start.told != Told::Now {
            self.late.insert(data.session_id);
        }
        if start.told == Told::Late && overtaken {
            self.end(data.session_id);
        }
        true
    }

    fn end(&mut self, id: SessionId) {
        if let Some(start) = self.active.remove(&id) {
            self.log.push((start.device_id.clone(), id, true));
        }
    }

    /// Ends what a node's other runs have left; at most so many.
    fn end_of(&mut self, node: &NodeId, but: Option<Incarnation>, most: usize) -> usize {
        let left = self.active.values().filter(|s| s.node_id == *node && Some(s.incarnation) != but);
        let left: Vec<_> = left.map(|s| s.session_id).take(most).collect();
        left.iter().for_each(|id| self.end(*id));
        left.len()
    }

    fn live_run(&self, node: &NodeId) -> Option<Incarnation> {
        self.rows.get(node).filter(|row| row.state == PeerState::Live).map(|row| row.run)
    }

    fn peers_of(&self, node: &NodeId) -> Vec<Peer> {
        let peers = self.rows.iter().filter(|(name, _)| *name != node);
        peers
            .map(|(name, row)| Peer {
                run: Run { node_id: name.clone(), incarnation: row.run },
                renewals: row.renewals,
                state: row.state.clone(),
            })
            .collect()
    }
}

#[derive(Debug)]
struct UnderWay {
    run: Run,
    job: Job,
    read: Option<Vec<(i64, Entry)>>,
    done: Option<(Result<Outcomes, Failure>, bool)>,
}

enum Renewal {
    Asked(Mono),
    /// What the store says, and for how long each had not renewed then; or that it is away.
    Answered(Mono, Option<(Vec<Peer>, Vec<Duration>)>),
}

/// One process, and the folder that outlives it.
struct Node {
    name: NodeId,
    run: Run,
    cut: bool,
    stopped: bool,
    directory: Directory,
    course: Course,
    watch: Watch,
    journal: Vec<(i64, Entry)>,
    next_id: i64,
    left_by_earlier: i64,
    sockets: BTreeMap<u32, Start>,
    next_key: u32,
    facts: VecDeque<Fact>,
    orders: VecDeque<Order>,
    recorded: VecDeque<Recorded>,
    jobs: Vec<UnderWay>,
    begun: Option<Incarnation>,
    renewal: Option<Renewal>,
    /// Since when, and until when, it has had answers from the store without a break.
    sees: Option<(Mono, Mono)>,
    verdicts: VecDeque<Verdict>,
    noticed: usize,
}

fn course(run: &Run) -> Course {
    Course::new(run.clone(), Timestamp(0), Grouping { delay: Duration::ZERO, size: GROUP }, true)
}

impl Node {
    fn new(n: usize) -> Self {
        let name: NodeId = format!("n{n}").parse().unwrap();
        let run = Run { node_id: name.clone(), incarnation: Incarnation::new() };
        Self {
            course: course(&run),
            watch: Watch::new(name.clone(), LEASE),
            name,
            run,
            cut: false,
            stopped: false,
            directory: Directory::default(),
            journal: Vec::new(),
            next_id: 1,
            left_by_earlier: 0,
            sockets: BTreeMap::new(),
            next_key: 0,
            facts: VecDeque::new(),
            orders: VecDeque::new(),
            recorded: VecDeque::new(),
            jobs: Vec::new(),
            begun: None,
            renewal: None,
            sees: None,
            verdicts: VecDeque::new(),
            noticed: 0,
        }
    }

    /// Killed and started again: the folder is left.
    fn restart(&mut self, log: usize) {
        let (journal, next_id, cut) = (std::mem::take(&mut self.journal), self.next_id, self.cut);
        let n: usize = self.name.as_str()[1..].parse().unwrap();
        let left_by_earlier = next_id - 1;
        *self = Self { journal, next_id, cut, left_by_earlier, noticed: log, ..Self::new(n) };
    }

    fn carry_out(&mut self, effects: Effects, now: Mono) {
        self.course.push(effects.writes, now);
        self.orders.extend(effects.orders.into_iter().map(|(_, order)| order));
    }

    /// As the root does.
    fn fenced(&mut self, lost: &Run) {
        if *lost != self.run {
            return;
        }
        self.run = Run { incarnation: Incarnation::new(), ..self.run.clone() };
        self.course.reborn(self.run.clone(), Timestamp(1));
        let what = Command::End { reason: Reason::NodeLost, detected_by: DetectedBy::Watchdog };
        self.orders.extend(self.directory.orders_for_all(what).into_iter().map(|(_, order)| order));
    }

    fn end_socket(&mut self, key: u32) {
        if let Some(start) = self.sockets.remove(&key) {
            self.facts.push_back(Fact::Ended { end: sample::end(&start) });
        }
    }

    fn order_to_end(&mut self, device_id: DeviceId, session_id: SessionId, effects: &mut Effects) {
        let (reason, detected_by) = (Reason::Replaced, DetectedBy::PeerNode);
        self.directory.to_end(&ToEnd { device_id, session_id, reason, detected_by }, effects);
    }
}

struct World<'a> {
    now: Mono,
    store: Store,
    nodes: Vec<Node>,
    late: Vec<(Run, Arc<Vec<Write>>)>,
    welcomed: BTreeSet<SessionId>,
    stop_who_declares: bool,
    tally: &'a Tally,
}

impl<'a> World<'a> {
    fn new(tally: &'a Tally) -> Self {
        let nodes = (0..NODES).map(Node::new).collect();
        let (late, welcomed) = (Vec::new(), BTreeSet::new());
        Self { now: Mono(0), store: Store::default(), nodes, late, welcomed, stop_who_declares: false, tally }
    }

    fn take(&mut self, step: Step) {
        self.tally.add("steps", 1);
        self.store.now = self.now;
        match step {
            Step::Arrive(n, device) => self.arrive(n, device),
            Step::Pump(n) | Step::Work(n, ..) | Step::Renew(n, _) | Step::Notice(n) | Step::Leave(n, _)
                if self.nodes[n].stopped => {}
            Step::Leave(n, which) => {
                let node = &mut self.nodes[n];
                let key = node.sockets.keys().nth(which % node.sockets.len().max(1)).copied();
                key.into_iter().for_each(|key| node.end_socket(key));
            }
            Step::Pump(n) => self.pump(n),
            Step::Work(n, which, luck) => self.work(n, which, luck),
            Step::Renew(n, luck) => self.renew(n, luck),
            Step::Notice(n) => self.notice(n),
            Step::Pass(ms) => self.now = self.now + Duration::from_millis(ms),
            Step::Turns(turns) => (0..turns).for_each(|_| self.turn()),
            Step::Crash(n) => {
                self.tally.add("crashes", 1);
                let log = self.store.log.len();
                self.nodes[n].restart(log);
            }
            Step::Cut(n, cut) => self.nodes[n].cut = cut,
            Step::Stop(n, stop) => self.nodes[n].stopped = stop,
            Step::StopTwo(n) => self.stop_two(n),
            Step::Outage(turns) => {
                self.nodes.iter_mut().for_each(|node| node.cut = true);
                (0..turns).for_each(|_| self.turn());
                self.nodes.iter_mut().for_each(|node| node.cut = false);
            }
            Step::LateCommit => {
                if let Some((run, batch)) = self.late.pop() {
                    let _ = self.store.commit(&run, &batch);
                }
            }
        }
    }

    fn stop_two(&mut self, n: usize) {
        self.mend();
        (0..4).for_each(|_| self.turn());
        let (name, run) = (self.nodes[n].name.clone(), self.nodes[n].run.incarnation);
        self.nodes[n].stopped = true;
        self.stop_who_declares = true;
        // Its lease and a little more, twice over.
        (0..28).for_each(|_| self.turn());
        let left = self.store.active.values().filter(|s| s.node_id == name && s.incarnation == run).count();
        assert_eq!(left, 0, "what a lost node held is not ended");
        self.stop_who_declares = false;
    }

    /// A second, in which all nodes do what they can.
    fn turn(&mut self) {
        self.now = self.now + Duration::from_secs(1);
        self.store.now = self.now;
        for n in (0..NODES).filter(|n| !self.nodes[*n].stopped).collect::<Vec<_>>() {
            self.tally.add("steps", 14);
            self.notice(n);
            (0..4).for_each(|_| self.renew(n, Luck::Good));
            for _ in 0..3 {
                self.pump(n);
                self.work(n, 0, Luck::Good);
                self.work(n, 1, Luck::Good);
            }
        }
    }

    fn arrive(&mut self, n: usize, device: u8) {
        let node = &mut self.nodes[n];
        let mut start = sample::start(device);
        let data = Arc::make_mut(&mut start.data);
        data.node_id = node.name.clone();
        data.incarnation = node.run.incarnation;
        data.connected_at = Timestamp(self.now.0 as i64);
        let key = node.next_key;
        node.next_key += 1;
        node.sockets.insert(key, start.clone());
        node.facts.push_back(Fact::Arrived { key, start });
    }

    fn pump(&mut self, n: usize) {
        let (node, now) = (&mut self.nodes[n], self.now);
        let mut effects = Effects::default();
        while let Some(fact) = node.facts.pop_front() {
            match fact {
                Fact::Arrived { key, start } => {
                    let data = start.data.clone();
                    node.directory.arrived(start, Seat { worker: 0, key }, &mut effects);
                    if data.incarnation != node.run.incarnation {
                        node.order_to_end(data.device_id.clone(), data.session_id, &mut effects);
                    }
                }
                Fact::Ended { end } => node.directory.ended(end, &mut effects),
            }
        }
        node.carry_out(effects, now);
        while let Some(Recorded { starts, overtaken, .. }) = node.recorded.pop_front() {
            let mut effects = Effects::default();
            for (device, id, seq) in starts {
                node.directory.recorded(&device, id, seq, &mut effects);
            }
            for (device, id) in overtaken {
                node.order_to_end(device, id, &mut effects);
            }
            node.carry_out(effects, now);
        }
        while let Some(Order { key, session_id, what }) = node.orders.pop_front() {
            if node.sockets.get(&key).is_none_or(|start| start.data.session_id != session_id) {
                continue;
            }
            match what {
                Command::Welcome { .. } => {
                    let journaled = |entry: &(i64, Entry)| matches!(&entry.1, Entry::Write(Write::Start(start)) if start.data.session_id == session_id);
                    let durable = self.store.seen.contains(&session_id) || node.journal.iter().any(journaled);
                    assert!(durable, "a device is welcomed before its start is durable");
                    self.welcomed.insert(session_id);
                    self.tally.add("welcomes", 1);
                }
                Command::End { .. } => node.end_socket(key),
            }
        }
        while let Next::Do(job) = node.course.next(false, false, now) {
            node.jobs.push(UnderWay { run: node.course.run().clone(), job, read: None, done: None });
        }
    }

    /// A job does its work in one step, a drain reads in one before; in the next it tells.
    fn work(&mut self, n: usize, which: usize, luck: Luck) {
        let (node, store) = (&mut self.nodes[n], &mut self.store);
        if node.jobs.is_empty() {
            return;
        }
        let which = which % node.jobs.len();
        if node.jobs[which].done.is_some() {
            let job = node.jobs.remove(which);
            return self.tell(n, job);
        }
        let UnderWay { run, job, read, done } = &mut node.jobs[which];
        let store_luck = if node.cut { Luck::Refused } else { luck };
        let away = || Err(Failure::Away);
        *done = Some(match job {
            Job::Housekeep => unreachable!("no chores were offered"),
            Job::Commit(batch) => {
                let result = match store_luck {
                    Luck::Good => store.commit(run, batch),
                    Luck::Refused => away(),
                    Luck::Unanswered => store.commit(run, batch).and_then(|_| away()),
                    Luck::Late => {
                        self.late.push((run.clone(), batch.clone()));
                        away()
                    }
                };
                (result, false)
            }
            Job::Append(entries) => {
                if luck != Luck::Refused {
                    for entry in entries.iter() {
                        node.journal.push((node.next_id, entry.clone()));
                        node.next_id += 1;
                    }
                }
                (if luck == Luck::Good { Ok(Vec::new()) } else { away() }, false)
            }
            Job::Drain { .. } if read.is_none() => {
                *read = Some(oldest(&node.journal));
                return;
            }
            Job::Drain { begin } => {
                if begin.is_some() && store_luck != Luck::Refused {
                    store.begin(run, self.now);
                    node.begun = Some(run.incarnation);
                }
                let entries = read.take().unwrap_or_default();
                let all = entries.len() < DRAIN;
                let result = drain(store, &mut node.journal, run, node.left_by_earlier, entries, store_luck);
                let all = all && matches!(result, Ok(true));
                (result.map(|_| Vec::new()), all)
            }
        });
    }

    fn tell(&mut self, n: usize, UnderWay { run, job, done, .. }: UnderWay) {
        let (node, now) = (&mut self.nodes[n], self.now);
        let Some((result, all)) = done else { return };
        let told = result.as_ref().map(|_| ()).map_err(|failure| *failure);
        match job {
            Job::Commit(batch) => {
                if let Ok(outcomes) = result {
                    let (recorded, overtaken): (Vec<_>, Vec<_>) =
                        outcomes.into_iter().partition(|(.., is)| *is);
                    let starts = recorded.into_iter().map(|(device, id, _)| (device, id, Some(1))).collect();
                    let overtaken = overtaken.into_iter().map(|(device, id, _)| (device, id)).collect();
                    node.recorded.push_back(Recorded { starts, overtaken, writes: 0 });
                }
                node.course.committed(&run, batch, told, now);
            }
            Job::Append(entries) => {
                if told.is_ok() {
                    let starts = entries.iter().filter_map(|entry| match entry {
                        Entry::Write(Write::Start(start)) => {
                            Some((start.data.device_id.clone(), start.data.session_id, None))
                        }
                        _ => None,
                    });
                    node.recorded.push_back(Recorded { starts: starts.collect(), ..Recorded::default() });
                    self.tally.add("journaled", entries.len() as u64);
                }
                node.course.appended(&run, entries, told.is_ok(), now);
            }
            Job::Drain { begin } => {
                node.course.drained(&run, begin.is_none() || told.is_ok(), all, told, now);
            }
            Job::Housekeep => {}
        }
        let run = node.course.run().clone();
        if node.course.is_fenced() {
            self.tally.add("fenced", 1);
            node.fenced(&run);
        }
    }

    fn renew(&mut self, n: usize, luck: Luck) {
        let (node, store, now) = (&mut self.nodes[n], &mut self.store, self.now);
        let reached = luck != Luck::Refused && !node.cut;
        if node.begun != Some(node.run.incarnation) {
            return;
        }
        if let Some(verdict) = node.verdicts.pop_front() {
            if reached {
                self.carry_out(n, verdict);
            }
            return;
        }
        match node.renewal.take() {
            None => node.renewal = Some(Renewal::Asked(now)),
            Some(Renewal::Asked(asked)) => {
                let mut answer = None;
                if reached {
                    if store.is_fenced(&node.run) {
                        let run = node.run.clone();
                        node.watch.failed();
                        self.tally.add("fenced", 1);
                        return node.fenced(&run);
                    }
                    let row = store.rows.get_mut(&node.name).expect("it has begun");
                    row.renewals += 1;
                    row.renewed_at = now;
                    let peers = store.peers_of(&node.name);
                    let silent = |peer: &Peer| now.since(store.rows[&peer.run.node_id].renewed_at);
                    let silent = peers.iter().map(silent).collect();
                    answer = Some((peers, silent)).filter(|_| luck != Luck::Unanswered);
                }
                node.renewal = Some(Renewal::Answered(asked, answer));
            }
            Some(Renewal::Answered(_, None)) => {
                node.watch.failed();
                node.sees = None;
            }
            Some(Renewal::Answered(asked, Some((peers, silent)))) => {
                let sees = node.sees.filter(|(_, last)| now.since(*last) <= LEASE / 2);
                let (since, _) = *node.sees.insert((sees.map_or(now, |(since, _)| since), now));
                let verdicts = node.watch.renewed(asked, now, &peers);
                for verdict in &verdicts {
                    if let Verdict::Lost(lost) = verdict {
                        let silent =
                            peers.iter().zip(&silent).find(|(peer, _)| *peer == lost).map(|(_, s)| *s);
                        assert!(silent.is_some_and(|silent| silent >= LEASE), "lost after {silent:?}");
                        assert!(now.since(since) >= LEASE, "lost to a watcher that looked away");
                    }
                }
                node.verdicts.extend(verdicts);
            }
        }
    }

    /// As the membership does it, one call of the store after the other.
    fn carry_out(&mut self, n: usize, verdict: Verdict) {
        let (node, store) = (&mut self.nodes[n], &mut self.store);
        if store.live_run(&node.name) != Some(node.run.incarnation) {
            return;
        }
        let lost = match verdict {
            Verdict::Lost(peer) => {
                let row = store.rows.get_mut(&peer.run.node_id).expect("it was seen");
                let same = (row.run, row.renewals) == (peer.run.incarnation, peer.renewals);
                if !same || row.state != PeerState::Live {
                    return;
                }
                assert!(self.now.since(row.renewed_at) >= LEASE, "a node that renews is declared lost");
                row.state = PeerState::Lost { reaper: node.name.clone() };
                self.tally.add("declared lost", 1);
                node.stopped |= std::mem::take(&mut self.stop_who_declares);
                peer.run.node_id
            }
            Verdict::Adopt(lost) => {
                let reaper = match &store.rows[&lost].state {
                    PeerState::Lost { reaper } => reaper.clone(),
                    _ => return,
                };
                if reaper != node.name && store.live_run(&reaper).is_some() {
                    return;
                }
                self.tally.add("adopted", 1);
                store.rows.get_mut(&lost).unwrap().state = PeerState::Lost { reaper: node.name.clone() };
                lost
            }
            Verdict::Reap(lost) => lost,
        };
        let but = store.live_run(&lost);
        if store.end_of(&lost, but, 1) > 0 {
            self.tally.add("reaped", 1);
            // And the next with the next step.
            return node.verdicts.push_front(Verdict::Reap(lost));
        }
        let row = store.rows.get_mut(&lost).expect("it was seen");
        if row.state == (PeerState::Lost { reaper: node.name.clone() }) {
            row.state = PeerState::Gone;
        }
    }

    fn notice(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if node.cut {
            return;
        }
        let mut effects = Effects::default();
        for (device, session, is_end) in &self.store.log[node.noticed..] {
            if *is_end {
                node.order_to_end(device.clone(), *session, &mut effects);
            }
        }
        node.noticed = self.store.log.len();
        node.carry_out(effects, self.now);
    }

    fn mend(&mut self) {
        self.nodes.iter_mut().for_each(|node| (node.cut, node.stopped) = (false, false));
    }

    /// Everything works again, until all is at rest.
    fn heal(&mut self) {
        self.late.clear();
        self.mend();
        for _ in 0..60 {
            self.turn();
        }
        for node in &self.nodes {
            assert!(
                node.course.is_direct() && node.course.is_settled(),
                "it never comes back: {:?}",
                node.course
            );
            assert!(node.journal.is_empty());
        }
    }

    fn check(&self) {
        let ended: BTreeSet<_> = self.store.log.iter().filter(|fact| fact.2).map(|fact| fact.1).collect();
        let ends = self.store.log.iter().filter(|fact| fact.2).count();
        assert_eq!(ended.len(), ends, "a session has two ends");
        let held: Vec<_> =
            self.nodes.iter().flat_map(|node| node.sockets.values()).map(|s| &s.data).collect();
        let live: BTreeSet<_> = held.iter().map(|data| data.session_id).collect();
        let devices: BTreeSet<_> = held.iter().map(|data| &data.device_id).collect();
        assert_eq!(devices.len(), held.len(), "a device has two live sessions");
        for id in &self.welcomed {
            assert!(self.store.seen.contains(id), "a welcomed session was never on the record");
            assert_ne!(
                ended.contains(id),
                live.contains(id),
                "a session without an end, or a live one with one"
            );
        }
        let active: BTreeSet<_> = self.store.active.keys().copied().collect();
        assert_eq!(active, live, "the record and the nodes differ");
        // Those that were told late may overlap others.
        let mut holders: BTreeMap<&DeviceId, Option<SessionId>> = BTreeMap::new();
        for (device, id, is_end) in self.store.log.iter().filter(|fact| !self.store.late.contains(&fact.1)) {
            let before = holders.entry(device).or_default();
            match is_end {
                true => assert_eq!(before.take(), Some(*id), "an end out of order"),
                false => assert_eq!(before.replace(*id), None, "a start before the end of the one before"),
            }
        }
        self.tally.add("ends", ends as u64);
        self.tally.add("live at the end", live.len() as u64);
    }
}

/// As the journal says them.
fn oldest(journal: &[(i64, Entry)]) -> Vec<(i64, Entry)> {
    let ended: BTreeSet<_> = journal
        .iter()
        .filter_map(|(_, entry)| match entry {
            Entry::Write(Write::End(End { data, .. })) => Some(data.session_id),
            _ => None,
        })
        .collect();
    let read = |(id, entry): &(i64, Entry)| match entry {
        Entry::Write(Write::Start(start)) => {
            let told = if ended.contains(&start.data.session_id) { Told::Past } else { Told::Late };
            (*id, Entry::Write(Write::Start(Start { told, ..start.clone() })))
        }
        other => (*id, other.clone()),
    };
    journal.iter().take(DRAIN).map(read).collect()
}

/// As [`crate::registry::drain`] does it; true where it came to the end of what it read.
fn drain(
    store: &mut Store,
    journal: &mut Vec<(i64, Entry)>,
    run: &Run,
    left_by_earlier: i64,
    entries: Vec<(i64, Entry)>,
    luck: Luck,
) -> Result<bool, Failure> {
    if luck == Luck::Refused {
        return Err(Failure::Away);
    }
    for stretch in stretches(entries) {
        let to = match stretch {
            Stretch::Begin { run: other, to, .. }
                if to > left_by_earlier && other.incarnation > run.incarnation =>
            {
                return Ok(false);
            }
            Stretch::Begin { to, .. } => {
                if store.is_fenced(run) {
                    return Err(Failure::Fenced);
                }
                store.end_of(&run.node_id, Some(run.incarnation), usize::MAX);
                to
            }
            Stretch::Writes { writes, to } => {
                store.commit(run, &writes)?;
                to
            }
        };
        // Killed, or cut off, before the removal.
        if matches!(luck, Luck::Unanswered | Luck::Late) {
            return Err(Failure::Away);
        }
        journal.retain(|(id, _)| *id > to);
    }
    Ok(true)
}

fn history(steps: Vec<Step>, tally: &Tally) -> TestCaseResult {
    let mut world = World::new(tally);
    steps.into_iter().for_each(|step| world.take(step));
    world.heal();
    world.check();
    Ok(())
}

#[test]
fn every_welcomed_session_has_one_end_whichever_node_dies() {
    let least = [
        ("steps", 500_000),
        ("welcomes", 2_000),
        ("journaled", 2_000),
        ("crashes", 500),
        ("declared lost", 100),
        ("reaped", 200),
        ("adopted", 50),
        ("fenced", 100),
        ("ends", 3_000),
        ("live at the end", 500),
    ];
    try_histories("cluster", 800, steps(), &least, history);
}
