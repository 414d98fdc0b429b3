use proptest::prelude::*;

use super::*;

const PACE: Pace = Pace {
    ping_interval: Duration::from_secs(25),
    pong_timeout: Duration::from_secs(10),
    max_missed_pongs: 2,
    adaptive: false,
};

fn at(seconds: u64) -> Clocks {
    Clocks { mono: Mono(seconds * 1_000_000), attended: Attended(seconds * 1_000_000) }
}

/// A welcomed session whose first ping (token 1) was sent at second 5.
fn asked() -> Liveness {
    let mut session = Liveness::new(at(0), Duration::from_secs(10));
    assert!(session.recorded(at(0), &PACE, 0.2));
    assert_eq!(session.on_deadline(at(4), &PACE, 1), Action::Wait);
    assert_eq!(session.on_deadline(at(5), &PACE, 1), Action::Ping { token: 1, suspect: false });
    session.pinged(at(5), &PACE, 1);
    session
}

#[test]
fn a_device_that_answers_lives_on_and_is_measured() {
    let mut session = asked();
    let heard = session.on_pong(at(7), &PACE, Some(1));
    assert_eq!(heard, Heard { rtt: Some(Duration::from_secs(2)), recovered: false });
    assert_eq!(session.due(), at(30).attended, "the next ping is an interval after the last");
    assert_eq!(session.on_deadline(at(30), &PACE, 2), Action::Ping { token: 2, suspect: false });
    assert_eq!(session.rtt_ms().avg, Some(2000.0));
}

#[test]
fn a_silent_device_is_suspect_then_dead_at_its_deadlines() {
    let mut session = asked();
    assert_eq!(session.on_deadline(at(14), &PACE, 2), Action::Wait);
    assert_eq!(session.on_deadline(at(15), &PACE, 2), Action::Ping { token: 2, suspect: true });
    assert_eq!(session.state(), Some(State::Suspect));
    session.pinged(at(15), &PACE, 2);
    assert_eq!(session.on_deadline(at(24), &PACE, 3), Action::Wait);
    assert_eq!(session.on_deadline(at(25), &PACE, 3), Action::Dead);
}

#[test]
fn a_late_pong_is_life_but_no_round_trip() {
    let mut session = asked();
    assert_eq!(session.on_deadline(at(15), &PACE, 2), Action::Ping { token: 2, suspect: true });
    session.pinged(at(15), &PACE, 2);
    let heard = session.on_pong(at(16), &PACE, Some(1));
    assert_eq!(heard, Heard { rtt: None, recovered: true });
    assert_eq!(session.rtt_ms(), RttMs::default());
    // The newer ping is still to be answered, but one miss is no longer in a row with the other.
    assert_eq!(session.on_deadline(at(25), &PACE, 3), Action::Ping { token: 3, suspect: true });
}

#[test]
fn an_unsolicited_pong_is_life_and_answers_nothing() {
    let mut session = asked();
    for token in [None, Some(99)] {
        assert_eq!(session.on_pong(at(6), &PACE, token).rtt, None);
    }
    assert_eq!(session.due(), at(15).attended);
    assert_eq!(session.pongs_received(), 2);
}

#[test]
fn a_round_trip_over_a_stall_is_not_measured() {
    let mut session = asked();
    let stalled = Clocks { mono: Mono(65_000_000), attended: Attended(5_250_000) };
    assert_eq!(session.on_deadline(stalled, &PACE, 2), Action::Wait, "no deadline passed in the stall");
    assert_eq!(session.on_pong(stalled, &PACE, Some(1)).rtt, None);
}

#[test]
fn frames_are_life_but_no_answer() {
    let mut session = asked();
    session.on_frame(at(14));
    assert_eq!(session.last_active(), at(14).mono);
    assert_eq!(session.on_deadline(at(15), &PACE, 2), Action::Ping { token: 2, suspect: true });
}

#[test]
fn a_start_that_is_not_recorded_in_time_is_given_up() {
    let mut session = Liveness::new(at(0), Duration::from_secs(10));
    assert_eq!(session.on_deadline(at(9), &PACE, 1), Action::Wait);
    assert_eq!(session.on_deadline(at(10), &PACE, 1), Action::Dead);
    assert!(session.end());
    assert!(!session.recorded(at(11), &PACE, 0.0), "too late to be welcomed");
}

#[test]
fn adaptive_pace_follows_the_quality() {
    let pace = Pace { adaptive: true, ..PACE };
    let intervals = [1.0, 0.81, 0.8, 0.51, 0.5, 0.0].map(|q| pace.interval(q).as_secs());
    assert_eq!(intervals, [60, 60, 30, 30, 15, 15]);
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u32),
    Stall(u32),
    Answer,
    Stray(Option<u64>),
    Frame,
    End,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => (1u32..15_000).prop_map(Step::Pass),
        10 => (1u32..600_000).prop_map(Step::Stall),
        40 => Just(Step::Answer),
        10 => proptest::option::of(any::<u64>()).prop_map(Step::Stray),
        10 => Just(Step::Frame),
        1 => Just(Step::End),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Against a model that only remembers when pings went unanswered.
    #[test]
    fn nobody_dies_who_answers_and_nobody_silent_lives(steps in prop::collection::vec(step(), 1..120), missed in 1u32..4) {
        let pace = Pace { max_missed_pongs: missed, ..PACE };
        let mut now = at(0);
        let mut session = Liveness::new(now, Duration::from_secs(10));
        session.recorded(now, &pace, 0.5);
        let (mut token, mut newest, mut unanswered, mut ended) = (0, None, 0, false);
        for step in steps {
            match step {
                Step::Pass(ms) => {
                    now.mono.0 += u64::from(ms) * 1000;
                    now.attended.0 += u64::from(ms) * 1000;
                }
                Step::Stall(ms) => now.mono.0 += u64::from(ms) * 1000,
                Step::Answer => {
                    let heard = session.on_pong(now, &pace, newest);
                    unanswered = 0;
                    if newest.is_none() { prop_assert_eq!(heard.rtt, None); }
                    newest = None;
                }
                Step::Stray(token) => {
                    prop_assert_eq!(session.on_pong(now, &pace, token.map(|t| t | 1 << 63)).rtt, None);
                    unanswered = 0;
                }
                Step::Frame => session.on_frame(now),
                Step::End => { prop_assert_eq!(session.end(), !ended); ended = true; }
            }
            token += 1;
            let due = session.due();
            match session.on_deadline(now, &pace, token) {
                Action::Wait => prop_assert!(ended || now.attended < due),
                Action::Ping { token, suspect } => {
                    prop_assert!(now.attended >= due && !ended);
                    if newest.is_some() {
                        unanswered += 1;
                    }
                    prop_assert!(unanswered < missed);
                    prop_assert!(!suspect || unanswered > 0);
                    session.pinged(now, &pace, token);
                    prop_assert_eq!(session.due(), now.attended + pace.pong_timeout);
                    newest = Some(token);
                }
                Action::Dead => {
                    prop_assert!(now.attended >= due && newest.is_some() && unanswered + 1 == missed);
                    break;
                }
            }
            prop_assert_eq!(session.state().is_none(), ended);
        }
    }
}
