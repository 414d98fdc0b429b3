//! The log: order, numbers, filters, retention.

use super::*;
use crate::event::EventKind;

pub fn order_and_numbers<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        let run = Incarnation::new();
        let (a, b, a2) = (Sample::new("a", run, 1), Sample::new("b", run, 2), Sample::new("a", run, 4));
        let first = commit(&store, vec![a.start(), b.start(), a.end(Reason::Replaced, 3), a2.start()]).await;
        assert_eq!(first.outcomes, [recorded(1), recorded(1), recorded(2), recorded(3)]);
        let second = commit(&store, vec![b.end(Reason::Kicked, 5), a2.end(Reason::ReadError, 6)]).await;
        assert_eq!(second.outcomes, [recorded(2), recorded(4)]);

        let told: Vec<_> = first.events.iter().chain(&second.events).cloned().collect();
        assert_eq!(told.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(told.iter().map(|e| device_seq(e)).collect::<Vec<_>>(), [1, 1, 2, 3, 2, 4]);
        assert_eq!(whole_log(&store).await, told, "the log says something else than the commit");
        store.close().await;
    });
    block_on(async {
        let store = bench.open();
        let next = commit(&store, vec![Sample::new("a", Incarnation::new(), 9).start()]).await;
        assert_eq!((next.events[0].seq, next.outcomes[0]), (7, recorded(5)), "numbers began anew");
        assert_eq!(store.bounds().await.unwrap(), LogBounds { oldest: 1, newest: 7 });
        store.close().await;
    });
}

pub fn a_start_is_written_once<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        let session = Sample::new("a", Incarnation::new(), 1);
        let twice = commit(&store, vec![session.start(), session.start()]).await;
        assert_eq!(twice.outcomes, [recorded(1), recorded(1)]);
        assert_eq!(twice.events.len(), 1);
        commit(&store, vec![session.end(Reason::Kicked, 2)]).await;
        let late = commit(&store, vec![session.start()]).await;
        assert_eq!((late.outcomes, late.events), (vec![recorded(1)], vec![]));
        assert_eq!(whole_log(&store).await.len(), 2);
        store.close().await;
    });
}

pub fn one_end_stands<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        let run = Incarnation::new();
        let session = Sample::new("a", run, 1);
        let stranger = Sample { incarnation: Incarnation::new(), ..session.clone() };
        let unborn = Sample::new("a", run, 1);
        let done = commit(
            &store,
            vec![
                session.start(),
                stranger.end(Reason::NodeLost, 2),
                session.end(Reason::PongTimeout, 3),
                session.end(Reason::Kicked, 4),
                unborn.end(Reason::Kicked, 4),
            ],
        )
        .await;
        let over = Outcome::Superseded;
        assert_eq!(done.outcomes, [recorded(1), over, recorded(2), over, over]);
        let again = commit(&store, vec![session.end(Reason::Kicked, 5)]).await;
        assert_eq!((again.outcomes, again.events), (vec![over], vec![]));
        let log = whole_log(&store).await;
        assert_eq!(log.iter().map(|e| e.reason).collect::<Vec<_>>(), [None, Some(Reason::PongTimeout)]);
        store.close().await;
    });
}

pub fn filters_and_pages<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        let run = Incarnation::new();
        let sessions: Vec<_> =
            (0..60).map(|n| Sample::new(["pump-1", "pump-2", "gate:1"][n % 3], run, n as i64)).collect();
        for (n, session) in sessions.iter().enumerate() {
            let reason = [Reason::Kicked, Reason::Banned][n % 2];
            commit(&store, vec![session.start(), session.end(reason, n as i64 + 1)]).await;
        }
        let log = whole_log(&store).await;
        let any = EventFilter::default;
        let word = |text: &str| vec![text.parse::<Match>().unwrap()];
        let both = vec![Match::Is("gate:1".into()), Match::Is("pump-2".into()), Match::Is("pump-2".into())];
        let filters = [
            (any(), 120),
            (EventFilter { types: word(EventKind::SessionConnected.as_str()), ..any() }, 60),
            (EventFilter { types: word("lastpong.session.*"), ..any() }, 120),
            (EventFilter { device_ids: word("pump-*"), ..any() }, 80),
            (EventFilter { device_ids: word("pump-1"), ..any() }, 40),
            (EventFilter { device_ids: both, reasons: word("kicked"), ..any() }, 20),
            (EventFilter { device_types: word("valve"), ..any() }, 0),
            (EventFilter { session_id: Some(sessions[7].session_id), ..any() }, 2),
            (
                EventFilter { session_id: Some(sessions[7].session_id), device_ids: word("pump-2"), ..any() },
                2,
            ),
            (
                EventFilter { session_id: Some(sessions[7].session_id), device_ids: word("pump-1"), ..any() },
                0,
            ),
            (EventFilter { session_id: Some(SessionId::new()), ..any() }, 0),
        ];
        for (filter, expected) in filters {
            let wanted: Vec<_> = log.iter().filter(|e| filter.matches(e)).cloned().collect();
            assert_eq!(wanted.len(), expected, "{filter:?}");
            for limit in [1, 7, 1_000] {
                assert_eq!(read_all(&store, 0, &filter, limit).await, wanted, "{filter:?} by {limit}");
            }
            let later: Vec<_> = wanted.iter().filter(|e| e.seq > 50).cloned().collect();
            assert_eq!(read_all(&store, 50, &filter, 9).await, later, "{filter:?} after 50");
        }
        let beyond = store.events(9_999, &any(), 10).await.unwrap();
        assert_eq!((beyond.events.len(), beyond.scanned_to), (0, 9_999));
        store.close().await;
    });
}

/// One call does not read a long log to its end for the one event that is wanted.
pub fn bounded_reading<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        let run = Incarnation::new();
        for part in 0..12 {
            let crowd: Vec<_> =
                (0..1_000).map(|n| Sample::new(&format!("crowd-{}", n % 50), run, part).start()).collect();
            commit(&store, crowd).await;
        }
        let rare = Sample::new("rare", run, 99);
        commit(&store, vec![rare.start()]).await;
        let by_scan =
            EventFilter { device_ids: vec![Match::StartsWith("rare".into())], ..EventFilter::default() };
        let first = store.events(0, &by_scan, 10).await.unwrap();
        assert!(first.events.is_empty() && first.scanned_to > 0 && first.scanned_to < 12_001, "{first:?}");
        assert_eq!(sessions_of(&read_all(&store, 0, &by_scan, 10).await), [rare.session_id]);
        // By the devices' own index it is there at once, and the nearer end of two tracks bounds the page.
        let by_index = EventFilter { device_ids: vec![Match::Is("rare".into())], ..EventFilter::default() };
        let page = store.events(0, &by_index, 10).await.unwrap();
        assert_eq!((sessions_of(&page.events), page.scanned_to), (vec![rare.session_id], 12_001));
        let two = vec![Match::Is("rare".into()), Match::Is("crowd-3".into())];
        let two = EventFilter { device_ids: two, ..EventFilter::default() };
        assert_eq!(read_all(&store, 0, &two, 100).await.len(), 241);
        store.close().await;
    });
}

pub fn retention_keeps_numbers<B: Bench>() {
    let bench = B::new();
    let run = Incarnation::new();
    let (old, long) = (Sample::new("a", run, 1), Sample::new("b", run, 2));
    block_on(async {
        let store = bench.open();
        let recent = Sample::new("a", run, 100);
        commit(&store, vec![old.start(), long.start(), old.end(Reason::Kicked, 3)]).await;
        commit(&store, vec![recent.start(), recent.end(Reason::Kicked, 101)]).await;
        assert_eq!(store.expire_events(at(1), 10).await.unwrap(), 0, "not older than its own time");
        assert_eq!(store.expire_events(at(50), 2).await.unwrap(), 2);
        assert!(store.session(old.session_id).await.unwrap().is_some(), "its end is still in the log");
        assert_eq!(store.bounds().await.unwrap(), LogBounds { oldest: 3, newest: 5 });
        assert_eq!(store.expire_events(at(50), 2).await.unwrap(), 1);
        assert_eq!(store.expire_events(at(50), 2).await.unwrap(), 0);
        assert!(store.session(old.session_id).await.unwrap().is_none());
        assert!(store.session(long.session_id).await.unwrap().is_some(), "an active session left the record");
        assert_eq!(whole_log(&store).await.iter().map(|e| e.seq).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(store.expire_events(at(500), 10).await.unwrap(), 2);
        assert_eq!(store.bounds().await.unwrap(), LogBounds { oldest: 6, newest: 5 });
        let empty = store.events(0, &EventFilter::default(), 10).await.unwrap();
        assert_eq!((empty.events.len(), empty.scanned_to), (0, 5));
        store.close().await;
    });
    block_on(async {
        let store = bench.open();
        let next =
            commit(&store, vec![Sample::new("a", run, 600).start(), long.end(Reason::Kicked, 601)]).await;
        assert_eq!(next.outcomes, [recorded(5), recorded(2)], "a device's numbers began anew");
        assert_eq!(next.events.iter().map(|e| e.seq).collect::<Vec<_>>(), [6, 7], "a number came twice");
        // An event that was stamped by a clock that ran ahead holds back what follows: there are no holes.
        let ahead = Sample::new("c", run, 9_000);
        commit(&store, vec![ahead.start(), Sample::new("c", run, 700).start()]).await;
        assert_eq!(store.expire_events(at(8_000), 10).await.unwrap(), 2);
        assert_eq!(store.bounds().await.unwrap(), LogBounds { oldest: 8, newest: 9 });
        store.close().await;
    });
}
