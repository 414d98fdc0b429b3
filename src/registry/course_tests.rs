//! The course against a model of the store and the journal that fail in every way they can: refused, done without an
//! answer, done much later, the process killed between any two steps, the run declared lost.

use crate::store::Told;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::event::{Connected, Disconnected};
use crate::ids::{Incarnation, SessionId};
use crate::registry::drain::{Stretch, stretches};
use crate::registry::tests::{end_of, start_of};
use crate::store::{End, Start};

const GROUP: usize = 3;
const DRAIN: usize = 4;

fn run() -> Run {
    Run { node_id: "n".parse().unwrap(), incarnation: Incarnation::new() }
}

fn course(run: &Run, has_journal: bool) -> Course {
    let grouping = Grouping { delay: Duration::ZERO, size: GROUP };
    Course::new(run.clone(), Timestamp(0), grouping, has_journal)
}

/// The store as Postgres keeps it: it takes writes of the run that it knows, while that is not declared lost.
#[derive(Default)]
struct Record {
    known: Option<Incarnation>,
    lost: bool,
    active: BTreeMap<SessionId, Arc<Connected>>,
    /// Device, session, whether it is the end.
    log: Vec<(String, SessionId, bool)>,
    seen: BTreeSet<SessionId>,
}

impl Record {
    fn commit(&mut self, run: &Run, batch: &[Write]) -> Result<(), Failure> {
        if self.lost || self.known.is_some_and(|known| known != run.incarnation) {
            return Err(Failure::Fenced);
        }
        for write in batch {
            match write {
                Write::Start(Start { data, .. }) if self.seen.insert(data.session_id) => {
                    self.active.insert(data.session_id, data.clone());
                    self.log.push((data.device_id.to_string(), data.session_id, false));
                }
                Write::Start(_) => {}
                Write::End(End { data, .. }) => self.end(data.session_id),
            }
        }
        Ok(())
    }

    fn end(&mut self, id: SessionId) {
        if let Some(start) = self.active.remove(&id) {
            self.log.push((start.device_id.to_string(), id, true));
        }
    }

    fn end_all_but(&mut self, run: Option<Incarnation>) {
        let lost = self.active.values().filter(|start| Some(start.incarnation) != run);
        let lost: Vec<_> = lost.map(|start| start.session_id).collect();
        lost.into_iter().for_each(|id| self.end(id));
    }
}

#[derive(Debug)]
struct UnderWay {
    run: Run,
    job: Job,
    read: Option<Vec<(i64, Entry)>>,
    done: Option<Done>,
}

#[derive(Debug)]
struct Done {
    result: Result<(), Failure>,
    all: bool,
}

/// How a step of a job goes.
#[derive(Debug, Clone, Copy)]
enum Luck {
    Good,
    Refused,
    /// Done, and told as refused.
    Unanswered,
    /// Told as refused, and done some time later.
    Late,
}

#[derive(Debug, Clone)]
enum Turn {
    /// The device's next start or end.
    Push(usize),
    Ask,
    /// The next step of one job.
    Step(usize, Luck),
    Pass(u64),
    /// A commit that was taken for lost is done after all.
    LateCommit,
    Crash,
    DeclareLost,
    /// The cluster has found out that the run is lost, before a write did.
    Rebirth,
}

struct World {
    has_journal: bool,
    now: Mono,
    course: Course,
    record: Record,
    journal: Vec<(i64, Entry)>,
    next_id: i64,
    left_by_earlier: i64,
    jobs: Vec<UnderWay>,
    late: Vec<(Run, Arc<Vec<Write>>)>,
    /// Each device's session, as the root knows it.
    open: BTreeMap<usize, (Arc<Connected>, Arc<Disconnected>)>,
    /// On their way in this process.
    backlog: usize,
    told_starts: BTreeSet<SessionId>,
    told_ends: BTreeSet<SessionId>,
}

impl World {
    fn new(has_journal: bool) -> Self {
        Self {
            has_journal,
            now: Mono(0),
            course: course(&run(), has_journal),
            record: Record::default(),
            journal: Vec::new(),
            next_id: 1,
            left_by_earlier: 0,
            jobs: Vec::new(),
            late: Vec::new(),
            open: BTreeMap::new(),
            backlog: 0,
            told_starts: BTreeSet::new(),
            told_ends: BTreeSet::new(),
        }
    }

    fn take(&mut self, turn: Turn) {
        match turn {
            Turn::Push(device) => self.push(device),
            Turn::Ask => self.ask(),
            Turn::Step(which, luck) if !self.jobs.is_empty() => {
                let which = which % self.jobs.len();
                self.step(which, luck);
            }
            Turn::Step(..) => {}
            Turn::Pass(ms) => self.now = self.now + Duration::from_millis(ms),
            Turn::LateCommit => {
                if let Some((run, batch)) = self.late.pop() {
                    let _ = self.record.commit(&run, &batch);
                }
            }
            Turn::Crash if self.has_journal => {
                self.jobs.clear();
                self.open.clear();
                self.backlog = 0;
                self.left_by_earlier = self.next_id - 1;
                self.course = course(&run(), true);
            }
            Turn::DeclareLost if self.has_journal && self.record.known.is_some() => {
                self.record.lost = true;
                self.record.end_all_but(None);
            }
            Turn::Rebirth if self.record.lost && self.record.known == Some(self.course.run().incarnation) => {
                self.rebirth();
            }
            Turn::Crash | Turn::DeclareLost | Turn::Rebirth => {}
        }
        if self.course.is_fenced() {
            self.rebirth();
        }
    }

    /// What the root does: all sessions end, and those to come are of another run.
    fn rebirth(&mut self) {
        let dropped = self.course.reborn(run(), Timestamp(1));
        self.backlog -= dropped;
        for device in self.open.keys().copied().collect::<Vec<_>>() {
            self.push(device);
        }
    }

    fn push(&mut self, device: usize) {
        let write = match self.open.remove(&device) {
            Some((_, end)) => Write::End(end_of(end)),
            None => {
                let (start, end) = start_of(&format!("d{device}"), self.course.run());
                self.open.insert(device, (start.clone(), end));
                Write::Start(Start {
                    event_id: crate::ids::EventId::new(),
                    data: start,
                    after_seq: 0,
                    told: Told::Now,
                })
            }
        };
        self.backlog += 1;
        self.course.push(vec![write], self.now);
    }

    fn ask(&mut self) {
        while let Step::Do(job) = self.course.next(false, false, self.now) {
            self.jobs.push(UnderWay { run: self.course.run().clone(), job, read: None, done: None });
        }
        let appends = self.jobs.iter().filter(|j| matches!(j.job, Job::Append(_))).count();
        assert!(appends <= 1 && self.jobs.len() - appends <= 1, "{:?}", self.jobs);
    }

    /// A job does its work in one step, a drain reads in one before; in the next it tells.
    fn step(&mut self, which: usize, luck: Luck) {
        let UnderWay { run, job, read, done } = &mut self.jobs[which];
        if done.is_some() {
            let job = self.jobs.remove(which);
            return self.tell(job);
        }
        let away = Err(Failure::Away);
        let result = match job {
            Job::Housekeep => unreachable!("no chores were offered"),
            Job::Commit(batch) => match luck {
                Luck::Good => self.record.commit(run, batch),
                Luck::Refused => away,
                Luck::Unanswered => self.record.commit(run, batch).and(away),
                Luck::Late => {
                    self.late.push((run.clone(), batch.clone()));
                    away
                }
            },
            Job::Append(entries) => {
                if !matches!(luck, Luck::Refused) {
                    for entry in entries.iter() {
                        self.journal.push((self.next_id, entry.clone()));
                        self.next_id += 1;
                    }
                }
                if matches!(luck, Luck::Good) { Ok(()) } else { away }
            }
            Job::Drain { .. } if read.is_none() => {
                *read = Some(self.journal.iter().take(DRAIN).cloned().collect());
                return;
            }
            Job::Drain { begin } => {
                let entries = read.take().unwrap_or_default();
                let all = entries.len() < DRAIN;
                if begin.is_some() && !matches!(luck, Luck::Refused) {
                    self.record.known = Some(run.incarnation);
                    self.record.lost = false;
                }
                let result =
                    drain(&mut self.record, &mut self.journal, run, self.left_by_earlier, entries, luck);
                let all = all && result == Ok(true);
                *done = Some(Done { result: result.map(|_| ()), all });
                return;
            }
        };
        *done = Some(Done { result, all: false });
    }

    fn tell(&mut self, UnderWay { run, job, done, .. }: UnderWay) {
        let Some(Done { result, all }) = done else { return };
        let dropped = match job {
            Job::Commit(batch) => {
                if result.is_ok() {
                    batch.iter().for_each(|write| self.told(write));
                }
                self.course.committed(&run, batch, result, self.now)
            }
            Job::Append(entries) => {
                if result.is_ok() {
                    entries.iter().for_each(|entry| match entry {
                        Entry::Write(write) => self.told(write),
                        Entry::Begin(..) => {}
                    });
                }
                self.course.appended(&run, entries, result.is_ok(), self.now)
            }
            Job::Drain { begin } => {
                let begun = begin.is_none() || result.is_ok();
                self.course.drained(&run, begun, all, result, self.now);
                0
            }
            Job::Housekeep => 0,
        };
        self.backlog -= dropped;
    }

    fn told(&mut self, write: &Write) {
        self.backlog -= 1;
        match write {
            Write::Start(start) => self.told_starts.insert(start.data.session_id),
            Write::End(end) => self.told_ends.insert(end.data.session_id),
        };
    }

    /// Everything works again. Says that all came to rest.
    fn heal(&mut self) -> bool {
        for _ in 0..2_000 {
            self.take(Turn::Pass(500));
            self.take(Turn::Ask);
            self.take(Turn::Step(0, Luck::Good));
            if self.jobs.is_empty() && self.course.is_direct() && self.course.is_settled() {
                return true;
            }
        }
        false
    }

    fn check(&self) {
        assert_eq!(self.backlog, 0, "writes were neither told nor dropped");
        assert!(!self.course.refuses());
        assert!(self.journal.is_empty(), "{:?}", self.journal);
        let ended: BTreeSet<_> = self.record.log.iter().filter(|e| e.2).map(|e| e.1).collect();
        for id in &self.told_starts {
            assert!(self.record.seen.contains(id), "a welcomed session was never on the record");
            let live = self.open.values().any(|(start, _)| start.session_id == *id);
            assert_eq!(!ended.contains(id), live, "a session without an end, or a live one with one");
        }
        let mut devices: BTreeMap<&str, Option<SessionId>> = BTreeMap::new();
        for (device, id, is_end) in &self.record.log {
            let holder = devices.entry(device).or_default();
            let before = std::mem::replace(holder, (!is_end).then_some(*id));
            assert_eq!(before, is_end.then_some(*id), "{device} is out of order: {:?}", self.record.log);
        }
    }
}

/// As [`crate::registry::drain`] does it; true where it came to the end of what it read.
fn drain(
    record: &mut Record,
    journal: &mut Vec<(i64, Entry)>,
    run: &Run,
    left_by_earlier: i64,
    entries: Vec<(i64, Entry)>,
    luck: Luck,
) -> Result<bool, Failure> {
    for stretch in stretches(entries) {
        if matches!(luck, Luck::Refused) {
            return Err(Failure::Away);
        }
        let to = match stretch {
            Stretch::Begin { run: other, to, .. }
                if to > left_by_earlier && other.incarnation > run.incarnation =>
            {
                return Ok(false);
            }
            Stretch::Begin { to, .. } => {
                if record.known == Some(run.incarnation) && !record.lost {
                    record.end_all_but(Some(run.incarnation));
                } else {
                    return Err(Failure::Fenced);
                }
                to
            }
            Stretch::Writes { writes, to } => {
                record.commit(run, &writes)?;
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

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let luck = prop_oneof![
        4 => Just(Luck::Good),
        2 => Just(Luck::Refused),
        1 => Just(Luck::Unanswered),
        1 => Just(Luck::Late),
    ];
    let turn = prop_oneof![
        12 => (0usize..4).prop_map(Turn::Push),
        12 => Just(Turn::Ask),
        20 => (0usize..2, luck).prop_map(|(which, luck)| Turn::Step(which, luck)),
        8 => (0u64..1_500).prop_map(Turn::Pass),
        1 => Just(Turn::LateCommit),
        1 => Just(Turn::Crash),
        1 => Just(Turn::DeclareLost),
        2 => Just(Turn::Rebirth),
    ];
    prop::collection::vec(turn, 0..250)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn nothing_is_lost_or_overtaken(turns in turns(), has_journal in prop::bool::weighted(0.8)) {
        let mut world = World::new(has_journal);
        turns.into_iter().for_each(|turn| world.take(turn));
        prop_assert!(world.heal(), "it never comes back: {:?}", world.course);
        world.check();
    }
}

fn next(course: &mut Course, now: u64) -> Option<Job> {
    match course.next(false, false, Mono(now)) {
        Step::Do(job) => Some(job),
        Step::Wait(_) | Step::Rest => None,
    }
}

fn some_start(run: &Run) -> Write {
    let data = start_of("d", run).0;
    Write::Start(Start { event_id: crate::ids::EventId::new(), data, after_seq: 0, told: Told::Now })
}

/// A course with a journal that has just been drained.
fn direct(run: &Run) -> Course {
    let mut course = course(run, true);
    let Some(Job::Append(begin)) = next(&mut course, 0) else { panic!("the run did not begin") };
    course.appended(run, begin, true, Mono(0));
    assert!(matches!(next(&mut course, 0), Some(Job::Drain { begin: Some(_) })));
    course.drained(run, true, true, Ok(()), Mono(0));
    assert!(course.is_direct());
    course
}

#[test]
fn a_store_that_hangs_holds_up_no_append() {
    let run = run();
    let mut course = direct(&run);
    course.push(vec![some_start(&run)], Mono(0));
    let Some(Job::Commit(batch)) = next(&mut course, 0) else { panic!("no commit") };
    course.committed(&run, batch, Err(Failure::Away), Mono(0));
    let Some(Job::Append(entries)) = next(&mut course, 0) else { panic!("the batch waits for the store") };
    assert_eq!(entries.len(), 1);
    course.appended(&run, entries, true, Mono(0));
    let later = 1_000_000;
    assert!(matches!(next(&mut course, later), Some(Job::Drain { begin: None })));
    for _ in 0..100 {
        // The drain hangs on.
        course.push(vec![some_start(&run)], Mono(later));
        let Some(Job::Append(entries)) = next(&mut course, later) else {
            panic!("a drain holds up an append")
        };
        course.appended(&run, entries, true, Mono(later));
    }
}

#[test]
fn a_journal_that_is_written_to_without_a_break_is_drained_all_the_same() {
    let run = run();
    let mut course = direct(&run);
    course.push(vec![some_start(&run)], Mono(0));
    let Some(Job::Commit(batch)) = next(&mut course, 0) else { panic!("no commit") };
    course.committed(&run, batch, Err(Failure::Away), Mono(0));
    let mut now = 0;
    let mut drains = 0;
    while !course.is_direct() {
        now += 200_000;
        course.push(vec![some_start(&run)], Mono(now));
        let mut jobs = Vec::new();
        while let Some(job) = next(&mut course, now) {
            jobs.push(job);
        }
        for job in jobs {
            match job {
                Job::Append(entries) => _ = course.appended(&run, entries, true, Mono(now)),
                Job::Drain { .. } => {
                    drains += 1;
                    course.drained(&run, true, true, Ok(()), Mono(now));
                }
                other => panic!("{other:?} past the journal"),
            }
        }
        assert!(drains < 10, "it never gets to the end");
    }
    assert!(matches!(next(&mut course, now), Some(Job::Commit(_))));
}

#[test]
fn a_journal_that_fails_refuses_until_it_or_the_store_takes() {
    let run = run();
    let mut course = direct(&run);
    course.push(vec![some_start(&run)], Mono(0));
    let Some(Job::Commit(batch)) = next(&mut course, 0) else { panic!("no commit") };
    course.committed(&run, batch, Err(Failure::Away), Mono(0));
    assert!(!course.refuses());
    let Some(Job::Append(entries)) = next(&mut course, 0) else { panic!("no append") };
    course.appended(&run, entries, false, Mono(0));
    assert!(course.refuses());
    // The store is back before the journal's disk is.
    assert!(matches!(next(&mut course, 150_000), Some(Job::Append(_) | Job::Drain { .. })));
}

#[test]
fn a_fenced_run_does_nothing_until_it_is_another() {
    let old = run();
    let mut course = direct(&old);
    course.push(vec![some_start(&old)], Mono(0));
    let Some(Job::Commit(batch)) = next(&mut course, 0) else { panic!("no commit") };
    course.committed(&old, batch, Err(Failure::Fenced), Mono(0));
    assert!(course.is_fenced());
    assert!(next(&mut course, 10_000_000).is_none());
    assert_eq!(course.reborn(old.clone(), Timestamp(0)), 0, "a run cannot follow on itself");
    assert!(course.is_fenced());
    let new = run();
    assert_eq!(course.reborn(new.clone(), Timestamp(0)), 1, "nobody was welcomed for that start");
    assert!(!course.is_fenced());
    let Some(Job::Append(entries)) = next(&mut course, 10_000_000) else { panic!("no beginning") };
    assert!(matches!(&entries[..], [Entry::Begin(run, _)] if *run == new));
}

#[test]
fn nothing_is_appended_beside_a_commit_though_the_run_became_another() {
    let old = run();
    let mut course = direct(&old);
    course.push(vec![some_start(&old)], Mono(0));
    let Some(Job::Commit(batch)) = next(&mut course, 0) else { panic!("no commit") };
    let new = run();
    course.reborn(new.clone(), Timestamp(0));
    course.push(vec![some_start(&new)], Mono(0));
    assert!(next(&mut course, 0).is_none(), "what the commit holds comes first");
    assert_eq!(
        course.committed(&old, batch, Err(Failure::Away), Mono(0)),
        1,
        "its start is of no use any more"
    );
    let Some(Job::Append(entries)) = next(&mut course, 0) else { panic!("no append") };
    assert!(matches!(&entries[..], [Entry::Begin(..), Entry::Write(_)]), "{entries:?}");
}
