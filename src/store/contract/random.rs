//! Random histories, with the database opened anew in between: the promises hold whatever the order.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::event::EventKind;

/// One step; the numbers choose among what there is at that point.
#[derive(Debug, Clone)]
enum Step {
    Start {
        device: usize,
    },
    StartAgain {
        session: prop::sample::Index,
    },
    End {
        session: prop::sample::Index,
        reason: usize,
    },
    /// An end of a session that another run says.
    EndByStranger {
        session: prop::sample::Index,
    },
    EndOfUnborn {
        device: usize,
    },
    /// What was collected goes to the store.
    Commit,
    /// The last batch is sent once more.
    CommitAgain,
    Reopen {
        recover: bool,
    },
}

const DEVICES: [&str; 4] = ["a", "b", "c", "d"];

fn step() -> impl Strategy<Value = Step> {
    let session = any::<prop::sample::Index>;
    prop_oneof![
        6 => (0..DEVICES.len()).prop_map(|device| Step::Start { device }),
        2 => session().prop_map(|session| Step::StartAgain { session }),
        6 => (session(), 0..Reason::ALL.len()).prop_map(|(session, reason)| Step::End { session, reason }),
        1 => session().prop_map(|session| Step::EndByStranger { session }),
        1 => (0..DEVICES.len()).prop_map(|device| Step::EndOfUnborn { device }),
        3 => Just(Step::Commit),
        1 => Just(Step::CommitAgain),
        1 => any::<bool>().prop_map(|recover| Step::Reopen { recover }),
    ]
}

pub fn random_histories<B: Bench>() {
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    runner
        .run(&prop::collection::vec(step(), 1..80), |steps| {
            block_on(run::<B>(steps));
            Ok(())
        })
        .unwrap();
}

async fn run<B: Bench>(steps: Vec<Step>) {
    let bench = B::new();
    let mut store = bench.open();
    let mut incarnation = Incarnation::new();
    let mut sessions: Vec<Sample> = Vec::new();
    let (mut batch, mut last) = (Vec::new(), Arc::new(Vec::new()));
    let mut told = Vec::new();
    for (now, step) in steps.into_iter().enumerate() {
        let now = now as i64;
        match step {
            Step::Start { device } => {
                sessions.push(Sample::new(DEVICES[device], incarnation, now));
                batch.extend(sessions.last().map(Sample::start));
            }
            Step::EndOfUnborn { device } => {
                batch.push(Sample::new(DEVICES[device], incarnation, now).end(Reason::Kicked, now));
            }
            Step::Commit => {
                last = Arc::new(std::mem::take(&mut batch));
                told.extend(store.commit(&writer(), Arc::clone(&last)).await.unwrap().events);
            }
            Step::CommitAgain => {
                let again = store.commit(&writer(), Arc::clone(&last)).await.unwrap();
                assert_eq!(again.outcomes.len(), last.len());
                assert!(again.events.is_empty(), "a batch sent twice made events twice");
            }
            Step::Reopen { recover } => {
                store.close().await;
                store = bench.open();
                incarnation = Incarnation::new();
                if recover {
                    told.extend(store.recover(&super::run(incarnation), at(now), 1_000).await.unwrap());
                }
            }
            _ if sessions.is_empty() => {}
            Step::StartAgain { session } => batch.push(session.get(&sessions).start()),
            Step::End { session, reason } => batch.push(session.get(&sessions).end(Reason::ALL[reason], now)),
            Step::EndByStranger { session } => {
                let stranger = Sample { incarnation: Incarnation::new(), ..session.get(&sessions).clone() };
                batch.push(stranger.end(Reason::NodeLost, now));
            }
        }
    }
    let log = whole_log(&store).await;
    assert_eq!(log, told, "the log is not what the commits returned");
    check(&log);
    store.close().await;
}

fn check(log: &[Arc<Event>]) {
    let mut numbers: HashMap<&DeviceId, i64> = HashMap::new();
    let mut active: HashMap<SessionId, bool> = HashMap::new();
    let mut runs: HashMap<SessionId, serde_json::Value> = HashMap::new();
    for (n, event) in log.iter().enumerate() {
        assert_eq!(event.seq, n as i64 + 1);
        let number = numbers.entry(event.device_id.as_ref().unwrap()).or_default();
        *number += 1;
        assert_eq!(device_seq(event), *number, "a gap or a repeat in a device's order");
        let session = event.session_id.unwrap();
        let said_by = data(event)["incarnation"].clone();
        assert_eq!(
            *runs.entry(session).or_insert_with(|| said_by.clone()),
            said_by,
            "another run ended a session"
        );
        match event.kind {
            EventKind::SessionConnected => {
                assert_eq!(active.insert(session, true), None, "a session started twice");
            }
            EventKind::SessionDisconnected => {
                assert_eq!(
                    active.insert(session, false),
                    Some(true),
                    "an end without a start, or a second end"
                );
            }
            other => panic!("nobody wrote {other:?}"),
        }
    }
}
