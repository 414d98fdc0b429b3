//! What every live store must do, whatever is beneath it.

use std::time::{Duration, Instant};

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any test.
pub(super) const LONG: Duration = Duration::from_secs(3_600);

/// A live store of a test's own, gone with this value.
pub(super) trait Bench {
    fn new() -> Self;

    fn open(&self, ttl: Duration) -> Live;
}

/// Makes a test of each promise, for one kind of [`Bench`].
macro_rules! live_contract {
    ($module:ident, $bench:ty) => {
        mod $module {
            $crate::store::live::contract::live_contract!(@ $bench:
                what_is_put_is_read, a_heartbeat_replaces_what_changes, a_heartbeat_brings_nothing_back,
                a_device_keeps_its_latest_session, a_batch_says_who_is_unknown, activity_is_told_of_what_is_there,
                all_are_met_page_by_page, what_is_not_updated_is_gone, marks_are_a_nodes_own);
        }
    };
    (@ $bench:ty: $($name:ident),*) => {
        $(
            #[tokio::test]
            async fn $name() {
                $crate::store::live::contract::$name::<$bench>().await;
            }
        )*
    };
}
pub(super) use live_contract;

pub(super) fn session(device: &str) -> LiveSession {
    LiveSession {
        vitals: Vitals {
            state: LiveState::Live,
            last_pong_at: None,
            last_active_at: Timestamp::now(),
            rtt_ms: RttMs::default(),
            missed: 0,
            pings_sent: 0,
            pongs_received: 0,
        },
        session_id: SessionId::new(),
        device_id: device.parse().unwrap(),
        device_type: "meter".parse().unwrap(),
        device_seq: Some(1),
        node_id: "node-1".parse().unwrap(),
        incarnation: Incarnation::new(),
        connected_at: Timestamp::now(),
        reconnect_count: 0,
        remote_addr: "[2001:db8::7]:4711".parse().unwrap(),
        // A text that looks like where the vitals end.
        meta: Arc::new([("site".to_owned(), r#"Köln ,"session_id": "x""#.to_owned())].into()),
        trace_id: None,
    }
}

fn beat(session: &LiveSession, pongs: u32) -> Heartbeat {
    Heartbeat {
        session_id: session.session_id,
        vitals: Vitals {
            state: LiveState::Suspect,
            last_pong_at: Some(Timestamp::now()),
            last_active_at: Timestamp::now(),
            rtt_ms: RttMs { last: Some(1.5), min: Some(0.25), avg: Some(1.0), max: Some(2.0) },
            missed: 1,
            pings_sent: pongs + 1,
            pongs_received: pongs,
        },
    }
}

fn key(session: &LiveSession) -> (SessionId, DeviceId) {
    (session.session_id, session.device_id.clone())
}

async fn all(live: &Live) -> Vec<SessionId> {
    let (mut ids, mut cursor) = (Vec::new(), 0);
    loop {
        let page = live.page(cursor).await.unwrap();
        ids.extend(page.sessions.into_iter().filter_map(|(id, session)| session.map(|_| id)));
        cursor = page.next;
        if cursor == 0 {
            ids.sort();
            ids.dedup();
            return ids;
        }
    }
}

pub(super) async fn what_is_put_is_read<B: Bench>() {
    let bench = B::new();
    let live = bench.open(LONG);
    live.ping().await.unwrap();
    let sessions: Vec<_> = (0..1_500).map(|n| session(&format!("d{n}"))).collect();
    live.put(&sessions).await.unwrap();
    live.put(&[]).await.unwrap();
    for one in [&sessions[0], &sessions[999], &sessions[1_499]] {
        assert_eq!(live.session(one.session_id).await.unwrap().as_ref(), Some(one));
        assert_eq!(live.session_of(&one.device_id).await.unwrap(), Some(one.session_id));
    }
    let keys: Vec<_> = sessions[1..].iter().map(key).collect();
    live.remove(&keys).await.unwrap();
    live.remove(&[]).await.unwrap();
    assert_eq!(all(&live).await, [sessions[0].session_id]);
    assert_eq!(live.session(sessions[1].session_id).await.unwrap(), None);
    assert_eq!(live.session_of(&sessions[1].device_id).await.unwrap(), None);
}

pub(super) async fn a_heartbeat_replaces_what_changes<B: Bench>() {
    let bench = B::new();
    let live = bench.open(LONG);
    let mut held = session("d");
    live.put(std::slice::from_ref(&held)).await.unwrap();
    for n in [7, 123_456, 8] {
        let beat = beat(&held, n);
        assert!(live.update_heartbeat(&beat).await.unwrap());
        held.vitals = beat.vitals;
        assert_eq!(live.session(held.session_id).await.unwrap().as_ref(), Some(&held));
        assert_eq!(live.session_heartbeat(held.session_id).await.unwrap().as_ref(), Some(&held.vitals));
    }
}

pub(super) async fn a_heartbeat_brings_nothing_back<B: Bench>() {
    let bench = B::new();
    let live = bench.open(LONG);
    let gone = session("d");
    live.put(std::slice::from_ref(&gone)).await.unwrap();
    live.remove(&[key(&gone)]).await.unwrap();
    assert!(!live.update_heartbeat(&beat(&gone, 1)).await.unwrap());
    assert_eq!(live.session_heartbeat(gone.session_id).await.unwrap(), None);
    assert_eq!(live.session_of(&gone.device_id).await.unwrap(), None);
    assert!(live.page(0).await.unwrap().sessions.is_empty());
}

pub(super) async fn a_device_keeps_its_latest_session<B: Bench>() {
    let bench = B::new();
    let live = bench.open(LONG);
    let (first, second) = (session("d"), session("d"));
    live.put(std::slice::from_ref(&second)).await.unwrap();
    // Written late, as by a node that did not know of the second yet.
    live.put(std::slice::from_ref(&first)).await.unwrap();
    assert_eq!(live.session_of(&first.device_id).await.unwrap(), Some(second.session_id));
    live.remove(&[key(&first)]).await.unwrap();
    assert_eq!(live.session_of(&first.device_id).await.unwrap(), Some(second.session_id));
    live.remove(&[key(&second)]).await.unwrap();
    assert_eq!(live.session_of(&first.device_id).await.unwrap(), None);
    live.put(&[first.clone(), second.clone()]).await.unwrap();
    assert_eq!(live.session_of(&first.device_id).await.unwrap(), Some(second.session_id));
}

pub(super) async fn a_batch_says_who_is_unknown<B: Bench>() {
    let bench = B::new();
    let live = bench.open(LONG);
    let sessions: Vec<_> = (0..2_300).map(|n| session(&format!("d{n}"))).collect();
    let known = |n: &usize| n % 7 != 3;
    let put: Vec<_> = (0..2_300).filter(known).map(|n| sessions[n].clone()).collect();
    live.put(&put).await.unwrap();
    let beats: Vec<_> = sessions.iter().map(|s| beat(s, 5)).collect();
    let unknown = live.update_heartbeat_batch(&beats).await.unwrap();
    let expected: Vec<_> = (0..2_300).filter(|n| !known(n)).map(|n| sessions[n].session_id).collect();
    assert_eq!(unknown, expected);
    assert_eq!(all(&live).await.len(), put.len());
    let ids: Vec<_> = put.iter().map(|s| s.session_id).collect();
    let read = live.sessions(&ids).await.unwrap();
    assert!(read.iter().all(|s| s.as_ref().is_some_and(|s| s.vitals.pongs_received == 5)));
}

pub(super) async fn activity_is_told_of_what_is_there<B: Bench>() {
    let bench = B::new();
    let live = bench.open(LONG);
    let (fresh, mut silent, absent, replaced) = (session("a"), session("b"), session("c"), session("d"));
    silent.vitals.last_active_at = Timestamp::now().saturating_sub(Duration::from_secs(100));
    live.put(&[fresh.clone(), silent.clone(), replaced.clone(), session("d")]).await.unwrap();
    let minute = Duration::from_secs(60);
    for (asked, verdict) in
        [(&fresh, Activity::Active), (&silent, Activity::Inactive), (&absent, Activity::Unknown)]
    {
        assert_eq!(live.check_activity(asked.session_id, minute).await, verdict);
    }
    assert_eq!(live.check_activity(silent.session_id, LONG).await, Activity::Active);
    let asked: Vec<_> = [&absent, &fresh, &silent, &replaced].map(key).into();
    assert_eq!(
        live.check_and_keep(&asked, minute).await.unwrap(),
        [Activity::Unknown, Activity::Active, Activity::Inactive, Activity::Unknown]
    );
}

pub(super) async fn all_are_met_page_by_page<B: Bench>() {
    let bench = B::new();
    let live = bench.open(LONG);
    assert!(all(&live).await.is_empty());
    let sessions: Vec<_> = (0..2_000).map(|n| session(&format!("d{n}"))).collect();
    live.put(&sessions).await.unwrap();
    let mut expected: Vec<_> = sessions.iter().map(|s| s.session_id).collect();
    expected.sort();
    assert!(live.page(0).await.unwrap().sessions.len() < 1_500, "a page is bounded");
    assert_eq!(all(&live).await, expected);
    live.forget(&expected[..1]).await.unwrap();
}

pub(super) async fn what_is_not_updated_is_gone<B: Bench>() {
    let bench = B::new();
    let live = bench.open(Duration::from_millis(800));
    let (kept, beaten, left) = (session("kept"), session("beaten"), session("left"));
    live.put(&[kept.clone(), beaten.clone(), left.clone()]).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while live.session(left.session_id).await.unwrap().is_some() {
        assert!(Instant::now() < deadline, "it is never gone");
        live.check_and_keep(&[key(&kept)], LONG).await.unwrap();
        live.update_heartbeat(&beat(&beaten, 1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(live.check_activity(left.session_id, LONG).await, Activity::Unknown);
    assert!(!live.update_heartbeat(&beat(&left, 1)).await.unwrap());
    // It may still have its place among the active; nothing is known of it there.
    assert!(!all(&live).await.contains(&left.session_id));
}

pub(super) async fn marks_are_a_nodes_own<B: Bench>() {
    let bench = B::new();
    let live = bench.open(LONG);
    let (one, other): (NodeId, NodeId) = ("node-1".parse().unwrap(), "node-2".parse().unwrap());
    assert_eq!(live.mark(&one).await.unwrap(), None);
    live.set_mark(&one, "a").await.unwrap();
    live.set_mark(&one, "b").await.unwrap();
    assert_eq!(live.mark(&one).await.unwrap().as_deref(), Some("b"));
    assert_eq!(live.mark(&other).await.unwrap(), None);
}
