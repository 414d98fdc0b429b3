//! A batch of starts and ends, as the database's function takes it: arrays, one element for each write.
//!
//! The function decides everything under its lock, but for one thing: where a start meets its device's session of
//! another run, it writes nothing and says who is in the way. What the record says then is made here: the end of the
//! one who is in the way goes into the batch, unless the newcomer was held up and has been overtaken or lost, and the
//! batch is asked again. So the end of the old and the start of the new are one transaction, whoever else came in between.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::calls::{lastpong_commit_flapping, sole};
use super::columns::Columns;
use super::left::{self, Ending};
use super::rows::Left;
use crate::event::{Event, EventKind, EventRow};
use crate::ids::{EventId, Incarnation, NodeId, Run, SessionId};
use crate::reason::{DetectedBy, Reason};
use crate::store::flapping::{Flapping, micros};
use crate::store::{Committed, Outcome, Start, StoreError, Told, Write};
use crate::time::Timestamp;

/// So often a batch is asked again because others came in between. Each time one of them got on.
const MOST_ROUNDS: usize = 32;

/// A start that comes to the record in this time is as good as told when it happened. One that took longer was held
/// up here, by a stall or a queue, and the clocks are asked whether its device has come elsewhere since.
const PROMPT: Duration = Duration::from_secs(2);

/// A write, and its place in the batch as it was asked for; none where takeover added it.
struct Entry {
    write: Write,
    asked: Option<usize>,
}

pub(super) async fn commit(
    conn: &mut AsyncPgConnection,
    run: &Run,
    flapping: Option<Flapping>,
    batch: &[Write],
) -> Result<Committed, StoreError> {
    if batch.is_empty() {
        return Ok(Committed::default());
    }
    let mut entries: Vec<_> =
        batch.iter().enumerate().map(|(n, write)| Entry { write: write.clone(), asked: Some(n) }).collect();
    for _ in 0..MOST_ROUNDS {
        if entries.is_empty() {
            return Ok(Committed { outcomes: vec![Outcome::Superseded; batch.len()], events: Vec::new() });
        }
        let columns = Columns::of(entries.iter().map(|entry| &entry.write))?;
        let answer = ask(conn, run, flapping, &columns).await?;
        if answer.fenced {
            return Err(StoreError::Fenced);
        }
        if answer.met.is_empty() {
            return committed(run, batch.len(), &entries, columns, &answer);
        }
        settle(conn, &mut entries, answer.met).await?;
    }
    Err(StoreError::Retry(format!("a device of the batch changed its node {MOST_ROUNDS} times meanwhile")))
}

/// What the function said.
struct Answer {
    fenced: bool,
    /// By the place of a newcomer in the batch: who is in its way.
    met: BTreeMap<usize, Vec<Met>>,
    seqs: Vec<i64>,
    device_seqs: Vec<i64>,
    flaps: Vec<Flap>,
}

/// A start in the batch with which its device begins to flap, and what was told of it.
struct Flap {
    start: usize,
    seq: i64,
    device_seq: i64,
    data: String,
}

#[derive(Debug, Clone, Copy)]
enum Met {
    OnRecord(SessionId),
    /// Started earlier in this batch, at this place.
    InBatch(usize),
}

type Row = (
    bool,
    Vec<i64>,
    Vec<Option<Uuid>>,
    Vec<i64>,
    Vec<i64>,
    Vec<i64>,
    Vec<i64>,
    Vec<i64>,
    Vec<i64>,
    Vec<String>,
);

/// More starts than a device ever has: nothing is flapping.
const NEVER: i64 = 1 << 40;

async fn ask(
    conn: &mut AsyncPgConnection,
    run: &Run,
    flapping: Option<Flapping>,
    columns: &Columns,
) -> Result<Answer, StoreError> {
    let c = columns;
    let (count, window, ban) = flapping.map_or((NEVER, 0, 0), |rule| {
        (i64::try_from(rule.count).unwrap_or(NEVER), rule.window_us(), micros(rule.ban))
    });
    let call = lastpong_commit_flapping(
        run.node_id.as_str(),
        run.incarnation.0,
        &c.is_end,
        &c.past,
        &c.event_ids,
        &c.session_ids,
        &c.device_ids,
        &c.device_types,
        &c.node_ids,
        &c.runs,
        &c.times,
        &c.datas,
        &c.remote_addrs,
        &c.metas,
        &c.trace_ids,
        &c.reasons,
        &c.last_pongs,
        &c.last_actives,
        &c.reconnects,
        &c.flap_ids,
        count,
        window,
        ban,
    );
    let (
        fenced,
        newcomers,
        occupants,
        neighbours,
        seqs,
        device_seqs,
        flaps,
        flap_seqs,
        flap_numbers,
        flap_datas,
    ): Row = diesel::select(call).load(conn).await.and_then(sole)?;
    // The function counts from 1.
    let place =
        |n: i64| usize::try_from(n - 1).map_err(|_| StoreError::bad_row("answer", "place", &n.to_string()));
    let mut met: BTreeMap<usize, Vec<Met>> = BTreeMap::new();
    for ((newcomer, occupant), neighbour) in newcomers.into_iter().zip(occupants).zip(neighbours) {
        let who = match occupant {
            Some(id) => Met::OnRecord(SessionId(id)),
            None => Met::InBatch(place(neighbour)?),
        };
        met.entry(place(newcomer)?).or_default().push(who);
    }
    let flaps = flaps.into_iter().zip(flap_seqs).zip(flap_numbers).zip(flap_datas);
    let flaps = flaps
        .map(|(((start, seq), device_seq), data)| Ok(Flap { start: place(start)?, seq, device_seq, data }))
        .collect::<Result<_, StoreError>>()?;
    Ok(Answer { fenced, met, seqs, device_seqs, flaps })
}

/// Puts into the batch what makes room for the newcomers: the ends of those in their way, or, where one of these
/// connected later than the newcomer did, the newcomer's own. Whoever was lost with its run overtakes nobody and takes no
/// place of one who was not, whatever the clocks say.
async fn settle(
    conn: &mut AsyncPgConnection,
    entries: &mut Vec<Entry>,
    met: BTreeMap<usize, Vec<Met>>,
) -> Result<(), StoreError> {
    let on_record: Vec<_> = met
        .values()
        .flatten()
        .filter_map(|who| match who {
            Met::OnRecord(id) => Some(*id),
            Met::InBatch(_) => None,
        })
        .collect();
    let there = left::sessions(conn, &on_record).await?;
    let there: HashMap<_, _> = there.into_iter().map(|left| (left.session_id, left)).collect();
    let live_runs = left::live_runs(conn).await?;
    let detected = Timestamp::now();
    let replaced = Ending { reason: Reason::Replaced, by: DetectedBy::PeerNode, detected };
    let node_lost = Ending { reason: Reason::NodeLost, by: DetectedBy::Recovery, detected };
    // From the last, so that the places of those before stay as they are.
    for (newcomer, who) in met.into_iter().rev() {
        let mut in_the_way: BTreeMap<SessionId, Left> = BTreeMap::new();
        for one in who {
            let left = match one {
                // One that is there no more has ended by itself meanwhile.
                Met::OnRecord(id) => there.get(&id).cloned(),
                Met::InBatch(n) => {
                    entries.get(n).and_then(Entry::start).map(|start| Left::from(&*start.data))
                }
            };
            in_the_way.extend(left.map(|left| (left.session_id, left)));
        }
        let Some(start) = entries.get(newcomer).and_then(Entry::start).cloned() else { continue };
        let connected_at = start.data.connected_at;
        let is_lost = |incarnation: Incarnation| !live_runs.contains(&incarnation);
        let lost = is_lost(start.data.incarnation);
        let outlived = lost && in_the_way.values().any(|left| !is_lost(left.incarnation));
        // Two nodes' clocks are compared only where neither this nor the log says who came first.
        let overtaken = in_the_way.values().any(|left| {
            (lost || !is_lost(left.incarnation))
                && left.start_seq > start.after_seq
                && left.connected_at > connected_at
        });
        match start.told {
            Told::Late if outlived || overtaken => {
                let ending = if outlived { node_lost } else { replaced };
                let end = Entry { write: ending.of(&Left::from(&*start.data)), asked: None };
                entries[newcomer].write = Write::Start(Start { told: Told::Past, ..start });
                entries.insert(newcomer + 1, end);
            }
            // Its device was not welcomed, and is told instead that it has come elsewhere.
            Told::Now if overtaken && connected_at < Timestamp::now().saturating_sub(PROMPT) => {
                let session_id = start.data.session_id;
                entries.retain(|entry| entry.session_id() != session_id);
            }
            // Who comes to the record last has come last: clocks of two nodes say less of it.
            _ => {
                let ends = in_the_way.values().map(|left| Entry { write: replaced.of(left), asked: None });
                entries.splice(newcomer..newcomer, ends);
            }
        }
    }
    Ok(())
}

impl Entry {
    fn session_id(&self) -> SessionId {
        match &self.write {
            Write::Start(start) => start.data.session_id,
            Write::End(end) => end.data.session_id,
        }
    }

    fn start(&self) -> Option<&Start> {
        match &self.write {
            Write::Start(start) => Some(start),
            Write::End(_) => None,
        }
    }
}

fn committed(
    run: &Run,
    asked: usize,
    entries: &[Entry],
    columns: Columns,
    answer: &Answer,
) -> Result<Committed, StoreError> {
    if answer.seqs.len() != entries.len() || answer.device_seqs.len() != entries.len() {
        return Err(StoreError::Broken("the database answered for another batch than it was asked".into()));
    }
    let mut done = Committed { outcomes: vec![Outcome::Superseded; asked], events: Vec::new() };
    let flap_ids = columns.flap_ids;
    let numbers = answer.seqs.iter().zip(&answer.device_seqs);
    for ((entry, data), (&seq, &device_seq)) in entries.iter().zip(columns.datas).zip(numbers) {
        if let Some(outcome) = entry.asked.and_then(|n| done.outcomes.get_mut(n)).filter(|_| device_seq > 0) {
            *outcome = Outcome::Recorded { device_seq };
        }
        if seq > 0 {
            done.events.push(event(&entry.write, &run.node_id, seq, device_seq, data));
        }
    }
    for flap in &answer.flaps {
        let start = entries.get(flap.start).and_then(Entry::start);
        let (Some(start), Some(Some(id))) = (start, flap_ids.get(flap.start)) else {
            return Err(StoreError::Broken("the database tells of a start that it was not given".into()));
        };
        done.events.push(flapping(start, EventId(*id), &run.node_id, flap));
    }
    Ok(done)
}

fn flapping(start: &Start, id: EventId, told_by: &NodeId, flap: &Flap) -> Arc<Event> {
    let data = &start.data;
    let row = EventRow {
        seq: flap.seq,
        device_seq: Some(flap.device_seq),
        id,
        kind: EventKind::DeviceFlapping,
        time: data.connected_at,
        node_id: told_by.clone(),
        device_id: Some(data.device_id.clone()),
        device_type: Some(data.device_type.clone()),
        session_id: Some(data.session_id),
        reason: None,
        data: flap.data.clone(),
    };
    Arc::new(row.into())
}

fn event(write: &Write, told_by: &NodeId, seq: i64, device_seq: i64, data: String) -> Arc<Event> {
    let (id, kind, time, device_id, device_type, session_id, reason) = match write {
        Write::Start(Start { event_id, data: d, .. }) => {
            let kind = EventKind::SessionConnected;
            (*event_id, kind, d.connected_at, &d.device_id, &d.device_type, d.session_id, None)
        }
        Write::End(end) => {
            let (kind, d) = (EventKind::SessionDisconnected, &end.data);
            let reason = Some(d.reason);
            (end.event_id, kind, d.disconnected_at, &d.device_id, &d.device_type, d.session_id, reason)
        }
    };
    let row = EventRow {
        seq,
        device_seq: Some(device_seq),
        id,
        kind,
        time,
        node_id: told_by.clone(),
        device_id: Some(device_id.clone()),
        device_type: Some(device_type.clone()),
        session_id: Some(session_id),
        reason,
        data,
    };
    Arc::new(row.into())
}
