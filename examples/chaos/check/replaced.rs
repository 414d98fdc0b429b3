//! Whether the same device was there again, so that one of its sessions had to give way.
//!
//! - The other dial may have reached a node: one that was refused, or whose request never left, replaces nobody.
//! - It came later; or so near before that either could be admitted first; or one of the two was told late by a
//!   journal, and the first end to reach the store stands.
//! - Both were there at one time, as their devices know. Where a fault or a slow Postgres kept the record from what had
//!   happened before, a session may be over for its device, and live on record until the next one comes.

use super::at::{At, SECOND};
use super::devices::Conn;
use super::explain::{Case, NEAR};
use super::order::told_late;

/// Dials so near each other may be admitted in the other order.
const AT_ONCE: i64 = 5 * SECOND;

pub fn was_replaced(case: &Case<'_>) -> bool {
    let records = case.records;
    let device = case.conn.map_or(case.end.device, |c| c.device);
    let Some(dials) = records.dials.get(&device) else {
        // Not one of the devices that keep records.
        return case.conn.is_none();
    };
    let reached = dials.iter().map(|place| &records.conns[*place]).filter(|other| other.may_have_reached());
    let Some(conn) = case.conn else { return reached.count() > 0 };
    let mut others = reached.filter(|other| (other.swarm, other.number) != (conn.swarm, conn.number));
    others.any(|other| {
        let met = over(case, other).after(NEAR) >= conn.dial_at;
        let later = other.dial_at.after(AT_ONCE) >= conn.dial_at;
        let in_turn = later || (met && either_told_late(case, other));
        let together = met && other.dial_at <= over(case, conn).after(NEAR);
        other.dial_at <= case.to && in_turn && (together || was_still_on_record(case, conn, other))
    })
}

/// When the device lost it. What broke before its welcome a node may have found out some time later.
fn over(case: &Case<'_>, conn: &Conn) -> At {
    let gone = case.records.swarms[conn.swarm as usize].gone_at;
    let fell = conn.fell.map(|(at, _)| at.after(AT_ONCE));
    conn.end.map(|end| end.at).or(fell).or(gone).unwrap_or(At::NEVER)
}

fn either_told_late(case: &Case<'_>, other: &Conn) -> bool {
    told_late(case.records, case.number) || other.welcome.is_none_or(|w| w.device_seq.is_none())
}

/// It was over for its device, and a fault or a slow Postgres kept that from the record.
fn was_still_on_record(case: &Case<'_>, conn: &Conn, other: &Conn) -> bool {
    let records = case.records;
    let nodes: Vec<&str> =
        other.welcome.map(|w| records.names.text(w.node)).into_iter().chain([case.node]).collect();
    let from = over(case, conn).min(case.to).before(NEAR);
    let faults = records.faults.all().iter();
    let mut felt = faults.filter(|f| f.is_felt(from, case.to, case.settling()));
    felt.any(|f| records.concerns(f, &nodes, case.swarm())) || records.was_slow(from, case.to)
}
