//! One node: what a process holds, and its journal.

use super::*;

#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) run: Run,
    pub(super) job: Job,
    pub(super) read: Option<Vec<(i64, Entry)>>,
    pub(super) done: Option<(Result<Outcomes, Failure>, bool)>,
}

pub(super) enum Renewal {
    Asked(Mono),
    /// What the store says, and for how long each had not renewed then; or that it is away.
    Answered(Mono, Option<(Vec<Peer>, Vec<Duration>)>),
}

/// One process, and the folder that outlives it.
pub(super) struct Node {
    pub(super) name: NodeId,
    pub(super) run: Run,
    pub(super) cut: bool,
    pub(super) stopped: bool,
    /// Microseconds that its wall clock is ahead.
    pub(super) ahead: i64,
    pub(super) directory: Directory,
    pub(super) course: Course,
    pub(super) watch: Watch,
    pub(super) journal: Vec<(i64, Entry)>,
    pub(super) next_id: i64,
    pub(super) left_by_earlier: i64,
    pub(super) sockets: BTreeMap<u32, Start>,
    pub(super) next_key: u32,
    pub(super) facts: VecDeque<Fact>,
    pub(super) orders: VecDeque<Order>,
    pub(super) recorded: VecDeque<Recorded>,
    pub(super) jobs: Vec<UnderWay>,
    pub(super) begun: Option<Incarnation>,
    pub(super) renewal: Option<Renewal>,
    /// Since when, and until when, it has had answers from the store without a break.
    pub(super) sees: Option<(Mono, Mono)>,
    pub(super) verdicts: VecDeque<Verdict>,
    pub(super) noticed: usize,
}

pub(super) fn course(run: &Run) -> Course {
    Course::new(run.clone(), Timestamp(0), Grouping { delay: Duration::ZERO, size: GROUP }, true)
}

impl Node {
    pub(super) fn new(n: usize) -> Self {
        let name: NodeId = format!("n{n}").parse().unwrap();
        let run = Run { node_id: name.clone(), incarnation: Incarnation::new() };
        Self {
            course: course(&run),
            watch: Watch::new(name.clone(), LEASE),
            name,
            run,
            cut: false,
            stopped: false,
            ahead: 0,
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
    pub(super) fn restart(&mut self, log: usize) {
        let journal = std::mem::take(&mut self.journal);
        let (next_id, cut, ahead) = (self.next_id, self.cut, self.ahead);
        let n: usize = self.name.as_str()[1..].parse().unwrap();
        let left_by_earlier = next_id - 1;
        *self = Self { journal, next_id, cut, ahead, left_by_earlier, noticed: log, ..Self::new(n) };
    }

    pub(super) fn carry_out(&mut self, effects: Effects, now: Mono) {
        self.course.push(effects.writes, now);
        self.orders.extend(effects.orders.into_iter().map(|(_, order)| order));
    }

    /// As the root does.
    pub(super) fn fenced(&mut self, lost: &Run) {
        if *lost != self.run {
            return;
        }
        self.run = Run { incarnation: Incarnation::new(), ..self.run.clone() };
        self.course.reborn(self.run.clone(), Timestamp(1));
        let what = Command::End { reason: Reason::NodeLost, detected_by: DetectedBy::Watchdog };
        self.orders.extend(self.directory.orders_for_all(what).into_iter().map(|(_, order)| order));
    }

    pub(super) fn end_socket(&mut self, key: u32) {
        if let Some(start) = self.sockets.remove(&key) {
            self.facts.push_back(Fact::Ended { end: sample::end(&start) });
        }
    }

    pub(super) fn order_to_end(&mut self, device_id: DeviceId, session_id: SessionId, effects: &mut Effects) {
        let (reason, detected_by) = (Reason::Replaced, DetectedBy::PeerNode);
        self.directory.to_end(&ToEnd { device_id, session_id, reason, detected_by }, effects);
    }
}

/// As the journal says them.
pub(super) fn oldest(journal: &[(i64, Entry)]) -> Vec<(i64, Entry)> {
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
pub(super) fn drain(
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
