//! Nodes on one record: the directory, the course with its journal, and the watch of each node, with a model of the store
//! that decides as Postgres does. Nodes are killed, stand still and are cut off between any two steps; what they ask is
//! done, refused, done without an answer, or done much later. Time is the same for all, and passed in; what their wall clocks say differs.

mod node;
mod steps;
mod store;
mod watch;

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
use node::{Node, Renewal, UnderWay, drain, oldest};
use steps::{Luck, Step, steps};
use store::{Outcomes, Store};

const NODES: usize = 3;
const DEVICES: u8 = 3;
const LEASE: Duration = Duration::from_secs(10);
/// In microseconds: a start that took no longer is as good as told when it happened.
const PROMPT: i64 = 2_000_000;
const GROUP: usize = 3;
const DRAIN: usize = 4;

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
            Step::Clock(n, seconds) => self.nodes[n].ahead = seconds * 1_000_000,
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
        data.connected_at = Timestamp(self.now.0 as i64 + node.ahead);
        let key = node.next_key;
        node.next_key += 1;
        node.sockets.insert(key, start.clone());
        node.facts.push_back(Fact::Arrived { key, start, proof: Default::default() });
    }

    fn pump(&mut self, n: usize) {
        let (node, now) = (&mut self.nodes[n], self.now);
        let mut effects = Effects::default();
        while let Some(fact) = node.facts.pop_front() {
            match fact {
                Fact::Arrived { key, start, proof } => {
                    let data = start.data.clone();
                    node.directory.arrived(start, Seat { worker: 0, key, proof }, &mut effects);
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
