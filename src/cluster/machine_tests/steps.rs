//! What may happen.

use super::*;

/// How a call of store or journal goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Luck {
    Good,
    Refused,
    /// Done, and told as refused.
    Unanswered,
    /// Told as refused, and done some time later.
    Late,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
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
    /// A node's wall clock is off by so many seconds from here on.
    Clock(usize, i64),
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
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
        1 => (node(), prop_oneof![Just(0i64), -90i64..90]).prop_map(|(node, off)| Step::Clock(node, off)),
    ];
    prop::collection::vec(step, 1..200)
}
