use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn habits() -> Habits {
    Habits {
        seed: 7,
        stay: (SECOND * 10, SECOND * 10),
        jitter: SECOND / 5,
        loss: 0.5,
        ping: None,
        heartbeat: None,
        dialect: Dialect::Json,
    }
}

/// A visit and its clock: both clocks tell the same time.
struct Tested {
    visit: Visit,
    habits: Habits,
    now: Mono,
}

impl Tested {
    fn dialling(behaviour: Behaviour) -> Self {
        let now = Mono(1_000_000);
        Self { visit: Visit::new(1, 1, 1, behaviour, now), habits: habits(), now }
    }

    fn live(behaviour: Behaviour) -> Self {
        let mut tested = Self::dialling(behaviour);
        assert!(matches!(tested.welcome()[..], [Act::Welcomed(_)]));
        tested
    }

    fn welcome(&mut self) -> Vec<Act> {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let text = format!(
            r#"{{"type":"welcome","session_id":"{id}","node_id":"n","device_seq":1,"ping_interval_ms":20000,"pong_timeout_ms":1000}}"#
        );
        self.frame(Frame::Text(BytesMut::from(text.as_bytes())))
    }

    fn frame(&mut self, frame: Frame) -> Vec<Act> {
        let mut acts = Vec::new();
        let turn = Turn { mono: self.now, wall: Timestamp(self.now.0 as i64) };
        self.visit.on_frame(frame, turn, &self.habits, &mut acts);
        acts
    }

    fn ping(&mut self) -> Vec<Act> {
        self.frame(Frame::Ping(BytesMut::from(&b"token"[..])))
    }

    /// Lets time pass to what is due next.
    fn next(&mut self) -> Vec<Act> {
        assert!(self.visit.next_due() < NEVER, "nothing is due");
        self.now = self.now.max(self.visit.next_due());
        let mut acts = Vec::new();
        self.visit.on_time(self.now, &self.habits, &mut acts);
        acts
    }

    fn leave(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        self.visit.leave(self.now, &mut acts);
        acts
    }
}

fn pong() -> Act {
    Act::Say(Say::Pong(BytesMut::from(&b"token"[..])))
}

fn closing() -> [Act; 2] {
    [Act::Say(Say::Close(Some(1000))), Act::Did(Deed::Close)]
}

#[test]
fn a_dial_without_a_welcome_fails() {
    let mut slow = Tested::dialling(Behaviour::Answer);
    assert!(matches!(slow.next()[..], [Act::Fail(_, None)]));
    let mut closed = Tested::dialling(Behaviour::Answer);
    let acts = closed.frame(Frame::Close(Some(1001)));
    assert!(matches!(acts[..], [Act::Say(Say::Close(Some(1001))), Act::Fail(_, Some(1001))]), "{acts:?}");
    assert!(matches!(Tested::dialling(Behaviour::Answer).leave()[..], [Act::Fail(_, None)]));
}

#[test]
fn one_that_answers_answers_and_does_nothing() {
    let mut tested = Tested::live(Behaviour::Answer);
    assert_eq!(tested.ping(), [pong()]);
    let later = tested.now + SECOND / 2;
    tested.visit.pongs_written(1, tested.now, later, Timestamp(9));
    assert_eq!((tested.visit.tale.pongs, tested.visit.tale.slowest_us), (1, 500_000));
    assert!(tested.visit.did_nothing() && tested.visit.owed_since(None).is_none());
    assert_eq!(
        tested.frame(Frame::Close(Some(4011))),
        [Act::Say(Say::Close(Some(4011))), Act::End(How::CloseFrame, Some(4011))]
    );
}

#[test]
fn one_that_hears_nothing_any_more_gives_up() {
    let mut tested = Tested::live(Behaviour::Answer);
    tested.now = tested.now + SECOND * 60;
    tested.ping();
    let heard = tested.now;
    assert_eq!(tested.next(), [Act::Did(Deed::GaveUp), Act::End(How::Own, None)]);
    assert_eq!(tested.now, heard + SECOND * 61);
    assert!(tested.visit.gave_up() && tested.visit.did_nothing(), "the silence is not its doing");
    let mut silent = Tested::live(Behaviour::Silent);
    assert_eq!(silent.next(), [Act::Did(Deed::Silent)]);
    assert_eq!(silent.next(), [Act::Did(Deed::GaveUp), Act::End(How::Own, None)]);
    assert!(!silent.visit.gave_up() && !silent.visit.did_nothing(), "its own silence came before");
}

#[test]
fn a_pong_that_took_longer_than_allowed_is_the_devices_own_fault() {
    let mut tested = Tested::live(Behaviour::Answer);
    tested.ping();
    tested.visit.pongs_written(1, tested.now, tested.now + SECOND, Timestamp(9));
    assert!(!tested.visit.did_nothing());
}

#[test]
fn each_deed_comes_after_the_stay() {
    for (behaviour, expected) in [
        (Behaviour::Silent, vec![Act::Did(Deed::Silent)]),
        (Behaviour::Deaf, vec![Act::Did(Deed::Deaf)]),
        (Behaviour::Reset, vec![Act::Linger, Act::Did(Deed::Reset), Act::End(How::Own, None)]),
        (Behaviour::Close, closing().into()),
        (Behaviour::Bye, vec![Act::Say(Say::Bye), Act::Did(Deed::Bye)]),
        (Behaviour::Vanish, vec![Act::Did(Deed::Vanish), Act::End(How::Own, None)]),
        (Behaviour::Twice, vec![Act::Again]),
    ] {
        let mut tested = Tested::live(behaviour);
        let welcomed_at = tested.now;
        assert_eq!(tested.ping(), [pong()], "{behaviour:?} answers during its stay");
        assert_eq!(tested.next(), expected, "{behaviour:?}");
        assert_eq!(tested.now.since(welcomed_at), SECOND * 10, "{behaviour:?}");
        assert_eq!(tested.visit.did_nothing(), behaviour == Behaviour::Twice);
    }
    let mut flap = Tested::live(Behaviour::Flap);
    let welcomed_at = flap.now;
    assert_eq!(flap.next(), closing());
    assert!(flap.now.since(welcomed_at) < SECOND * 2);
}

#[test]
fn a_silent_one_owes_its_first_unanswered_ping() {
    let mut tested = Tested::live(Behaviour::Silent);
    tested.next();
    let first = tested.now;
    assert_eq!(tested.ping(), []);
    tested.now = first + SECOND;
    assert_eq!(tested.ping(), []);
    assert_eq!((tested.visit.tale.pings, tested.visit.tale.lost), (2, 2));
    assert_eq!(tested.visit.owed_since(Some(Timestamp(i64::MAX))), Some(first.0 as i64));
}

#[test]
fn a_lossy_one_loses_its_share_and_tells_it_now_and_then() {
    let mut tested = Tested::live(Behaviour::Lossy);
    let began = tested.now;
    let mut told = 0;
    for _ in 0..200 {
        tested.now = tested.now + SECOND;
        told += tested.ping().iter().filter(|a| **a == Act::TellLoss).count() as u64;
    }
    assert!((60..140).contains(&tested.visit.tale.lost), "{}", tested.visit.tale.lost);
    assert!(told > 5 && told <= tested.now.since(began).as_secs() / 10 + 1, "{told}");
}

#[test]
fn late_answers_come_in_order_and_are_bounded() {
    let mut tested = Tested::live(Behaviour::Late);
    let first = tested.now;
    for _ in 0..MAX_LATE {
        assert_eq!(tested.ping(), []);
        tested.now = tested.now + Duration::from_millis(1);
    }
    assert_eq!(tested.visit.owed_since(None), Some(first.0 as i64));
    assert!(!tested.visit.did_nothing(), "answers are owed");
    assert_eq!(tested.ping(), [pong()], "one too many: the first is answered at once");
    let mut answered = 0;
    while !tested.visit.late.is_empty() {
        answered += tested.next().len();
    }
    assert_eq!(answered, MAX_LATE);
    assert!(tested.visit.owed_since(None).is_none() && tested.visit.tale.slowest_us > 1_000);
}

#[test]
fn own_pings_and_heartbeats_keep_their_period_and_are_measured() {
    let mut tested = Tested::dialling(Behaviour::Answer);
    (tested.habits.ping, tested.habits.heartbeat) = (Some(SECOND), Some(SECOND * 3));
    tested.welcome();
    let (mut pings, mut beats, began) = (0, 0, tested.now);
    while tested.now.since(began) < SECOND * 30 {
        for act in tested.next() {
            match act {
                Act::Say(Say::Ping(n)) => {
                    pings += 1;
                    let echo = Frame::Pong(BytesMut::from(&n.to_be_bytes()[..]));
                    assert_eq!(tested.frame(echo), [Act::PingTook(Duration::ZERO)]);
                }
                Act::Say(Say::Heartbeat(Dialect::Json, n)) => {
                    beats += 1;
                    let ack = format!(r#"{{"type":"ack","id":{n},"code":200}}"#);
                    let ack = Frame::Text(BytesMut::from(ack.as_bytes()));
                    assert_eq!(tested.frame(ack), [Act::HeartbeatTook(Duration::ZERO)]);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!((29..=31).contains(&pings) && (9..=11).contains(&beats), "{pings} pings, {beats} heartbeats");
}

#[test]
fn leaving_waits_for_the_echo_and_not_for_ever() {
    let mut tested = Tested::live(Behaviour::Answer);
    assert_eq!(tested.leave(), closing());
    assert_eq!(tested.leave(), [], "once is enough");
    assert_eq!(tested.ping(), [], "nothing follows a close frame");
    assert_eq!(tested.frame(Frame::Close(Some(1000))), [Act::End(How::CloseFrame, Some(1000))]);
    let mut ignored = Tested::live(Behaviour::Answer);
    ignored.leave();
    let left_at = ignored.now;
    assert_eq!(ignored.next(), [Act::End(How::Own, None)]);
    assert_eq!(ignored.now.since(left_at), ECHOED_WITHIN);
    let mut deaf = Tested::live(Behaviour::Deaf);
    deaf.next();
    assert_eq!(deaf.leave(), [], "one that does not read would not see the echo");
    let mut bye = Tested::live(Behaviour::Bye);
    bye.next();
    assert_eq!(
        bye.frame(Frame::Close(Some(1000))),
        [Act::Say(Say::Close(Some(1000))), Act::End(How::CloseFrame, Some(1000))]
    );
}
