//! What a device did to its session, and the reasons that its deeds allow.
//!
//! | the device | reasons allowed | why |
//! | --- | --- | --- |
//! | sent a close frame, or `bye` | `client_closed` | it was there to be read before anything after it |
//! | reset, or closed without a frame | `read_error`, `ping_failed` | a write may meet it before a read |
//! | fell silent, lost pings, was late | `pong_timeout` | not before as many pongs could be missed |
//! | stopped reading | `pong_timeout`, `ping_failed`, `slow_consumer`, and at its process's end `read_error` | unread data makes the kernel reset |
//! | gave up a connection that was silent | `read_error`, `ping_failed`, `pong_timeout` | the node may hear of it or not; why it was silent is for P4 |
//! | was killed with its process | as `explain` says, and from then on `pong_timeout` | what it did at last is not on record |
//!
//! What a fault explains stays allowed for each: the server's close and the device's deed may cross, and a deed may not get
//! through a cut. A deed counts where it came before the first subscriber had the end.

use super::at::{At, SECOND};
use super::devices::{Conn, Deed, How};
use super::explain::{Case, NEAR};

/// How a device bore itself until its session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearing {
    /// It read and answered to the last, and did nothing to end it.
    Answered,
    /// It answered until it ended its session by a deed.
    AnsweredAndLeft,
    /// It answered until it heard nothing more, and gave up then.
    GaveUp(At),
    /// Something else: it is for P6 alone.
    Otherwise,
}

pub fn bearing(case: &Case<'_>) -> Bearing {
    let Some(conn) = case.conn else { return Bearing::Otherwise };
    let Some(end) = conn.end else { return Bearing::Otherwise };
    if let Some(at) = gave_up(case, conn) {
        return Bearing::GaveUp(at);
    }
    let left = leaving_since(conn);
    let owed_since = end.owed_since.filter(|since| left.is_none_or(|left| *since < left));
    let owed = owed_since.is_some_and(|since| too_slow(case, end.at.since(since)));
    if lost(conn) > 0 || too_slow(case, end.slowest) || owed || stalled(case) || end.how == How::Left {
        return Bearing::Otherwise;
    }
    let mut deeds = case.deeds().map(|(_, deed)| deed).peekable();
    if deeds.peek().is_none() {
        // It says that it closed, and not how.
        return if end.how == How::Itself { Bearing::Otherwise } else { Bearing::Answered };
    }
    if deeds.all(|d| matches!(d, Deed::Close | Deed::Bye | Deed::Reset | Deed::Vanish)) {
        Bearing::AnsweredAndLeft
    } else {
        Bearing::Otherwise
    }
}

/// When it gave up its connection, having been there to hear all the while.
fn gave_up(case: &Case<'_>, conn: &Conn) -> Option<At> {
    let at = conn.did(Deed::GaveUp)?;
    let from = at.before(case.records.run.given_up_after());
    let deaf = conn.did(Deed::Deaf).is_some();
    (!deaf && !stalled_between(case, from, at)).then_some(at)
}

/// An answer took, or is owed for, so long that with the network's and the node's own time it may have been missed.
fn too_slow(case: &Case<'_>, slowest: i64) -> bool {
    slowest >= case.records.run.pong_timeout() / 2
}

/// Its process stood still for long before the end.
fn stalled(case: &Case<'_>) -> bool {
    let run = &case.records.run;
    let from = case.from.before(run.lease()).before(run.deadline());
    stalled_between(case, from, case.to)
}

fn stalled_between(case: &Case<'_>, from: At, to: At) -> bool {
    let long = case.records.run.pong_timeout() / 2;
    let swarm = case.swarm().map_or(&[][..], |s| &s.lates[..]);
    swarm.iter().any(|(at, late)| *late >= long && *at >= from && at.before(*late) <= to.after(SECOND))
}

/// The device's own deeds allow this reason.
pub fn allows(case: &Case<'_>) -> bool {
    case.deeds().any(|(at, deed)| deed_allows(case, at, deed)) || unanswered_allows(case)
}

fn deed_allows(case: &Case<'_>, at: At, deed: Deed) -> bool {
    let run = &case.records.run;
    match (deed, case.reason) {
        (Deed::Close | Deed::Bye, "client_closed") => true,
        (Deed::Reset | Deed::Vanish, "read_error" | "ping_failed") => true,
        (Deed::GaveUp, "read_error" | "ping_failed" | "pong_timeout") => true,
        // The pings missed are those that came after; a fifth is left for the time on the way.
        (Deed::Silent | Deed::Deaf, "pong_timeout") => case.to.since(at) >= run.deadline() / 5 * 4,
        (Deed::Deaf, "ping_failed" | "slow_consumer") => true,
        (Deed::Deaf, "read_error") => {
            let swarm = case.swarm();
            let over = swarm.and_then(|s| s.leaving.or(s.gone_at));
            over.is_some_and(|over| over <= case.to.after(SECOND))
        }
        _ => false,
    }
}

/// It left pings unanswered, whether by intent or because its process was slow, so that they may have been missed.
fn unanswered_allows(case: &Case<'_>) -> bool {
    let run = &case.records.run;
    let Some(conn) = case.conn else { return false };
    let Some(end) = conn.end else {
        // Killed with its process: what it did in its last moment is not on record, nor how slow it was.
        let gone = case.swarm().and_then(|s| s.gone_at).is_some_and(|gone| gone.before(NEAR) <= case.to);
        let behaviour = case.records.names.text(conn.behaviour);
        let badly = conn.did(Deed::Lose).is_some() || matches!(behaviour, "late" | "lossy") || stalled(case);
        return match case.reason {
            "pong_timeout" => gone || badly,
            "client_closed" => gone,
            _ => false,
        };
    };
    match case.reason {
        "pong_timeout" => {
            let left = leaving_since(conn);
            let owed =
                end.owed_since.filter(|since| left.is_none_or(|left| *since < left)).is_some_and(|since| {
                    let until = end.at.max(case.to);
                    // Nor is much known of the time on the way where the machine was so busy that Postgres was slow.
                    let busy = case.records.was_slow(since.before(NEAR), until);
                    until.since(since) >= if busy { run.deadline() / 2 } else { run.deadline() / 5 * 4 }
                });
            let lost = lost(conn) >= u64::from(run.max_missed_pongs);
            // What a silent device lost, and since when, its deed tells.
            let silent = conn.did(Deed::Silent).is_some();
            too_slow(case, end.slowest) || stalled(case) || (owed && (lost || (end.lost == 0 && !silent)))
        }
        "read_error" | "ping_failed" => end.how == How::Itself && conn.deeds.is_empty(),
        _ => false,
    }
}

/// When it sent its close: after that it owes no answer.
fn leaving_since(conn: &Conn) -> Option<At> {
    conn.deeds.iter().find(|(_, d)| matches!(d, Deed::Close | Deed::Bye)).map(|(at, _)| *at)
}

/// How many pings it left unanswered while it owed answers: none, where the first came after its close.
fn lost(conn: &Conn) -> u64 {
    let Some(end) = conn.end else { return 0 };
    match (leaving_since(conn), end.owed_since) {
        (Some(left), Some(since)) if since >= left => 0,
        _ => end.lost,
    }
}
