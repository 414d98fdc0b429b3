//! What rows say: sessions, history, recovery.

use serde_json::json;

use super::*;
use crate::event::EventKind;

pub fn what_is_written_is_read<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        let run = Incarnation::new();
        store.begin(&super::run(run), at(0)).await.unwrap();
        store.begin(&super::run(run), at(1)).await.unwrap();
        store.ping().await.unwrap();
        let session = Sample::new("a", run, 1);
        commit(&store, vec![session.start()]).await;
        let active = store.session(session.session_id).await.unwrap().unwrap();
        assert_eq!((active.status, active.end_time, active.end), (Status::Active, None, None));
        assert_eq!((active.node_id, active.incarnation, active.start_time), (node(), run, at(1)));

        let end = session.disconnected(Reason::PongTimeout, 61);
        let event_id = EventId::new();
        commit(&store, vec![Write::End(End { event_id, data: Arc::new(end.clone()) })]).await;
        let closed = store.session(session.session_id).await.unwrap().unwrap();
        assert_eq!((closed.status, closed.end_time), (Status::Closed, Some(at(61))));
        assert_eq!((closed.device_id, closed.reason), (device("a"), Some(Reason::PongTimeout)));
        assert_eq!(serde_json::from_str::<Disconnected>(&closed.end.unwrap()).unwrap(), end);

        let log = whole_log(&store).await;
        assert_eq!(log[1].id, event_id);
        assert_eq!((log[1].kind, log[1].time), (EventKind::SessionDisconnected, at(61)));
        let mut said = serde_json::to_value(&end).unwrap();
        said["seq"] = json!(2);
        said["device_seq"] = json!(2);
        assert_eq!(data(&log[1]), said);
        assert!(store.session(SessionId::new()).await.unwrap().is_none());
        store.close().await;
    });
}

pub fn history_pages<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        let run = Incarnation::new();
        let sessions: Vec<_> =
            (0..40).map(|n| Sample::new(["ab-1", "ab_1", "AB-1", "b"][n % 4], run, 0)).collect();
        let still_here = Sample::new("b", run, 0);
        let reason = |n: usize| if n < 10 { Reason::Kicked } else { Reason::Banned };
        let starts = sessions.iter().map(Sample::start).chain([still_here.start()]).collect();
        commit(&store, starts).await;
        // Clocks are set back and ends have one time: history is in the order of the record whatever they say.
        let ends = sessions.iter().enumerate().map(|(n, s)| s.end(reason(n), 50 - n as i64 / 5)).collect();
        commit(&store, ends).await;

        let newest_first: Vec<_> = sessions.iter().rev().map(|s| s.session_id).collect();
        let mut filter = HistoryFilter::default();
        let mut read = Vec::new();
        loop {
            let page = store.history(&filter, 7).await.unwrap();
            assert_eq!(store.history_total(&filter).await.unwrap(), 40);
            let Some(last) = page.last() else { break };
            filter.before = last.end_seq;
            assert!(page.iter().all(|r| r.status == Status::Closed && r.end.is_some()));
            read.extend(page.iter().map(|r| r.session_id));
        }
        assert_eq!(read, newest_first);

        let any = HistoryFilter::default;
        let device = |text: &str| HistoryFilter { device_id: Some(text.parse().unwrap()), ..any() };
        for (filter, expected) in [
            (device("ab-1"), 10),
            (device("ab*"), 20),
            (device("ab_*"), 10),
            (device("*"), 40),
            (device("zz*"), 0),
            (HistoryFilter { reason: Some(Reason::Kicked), ..any() }, 10),
            (HistoryFilter { reason: Some(Reason::Kicked), ..device("b") }, 2),
            (HistoryFilter { device_type: Some("meter".into()), ..any() }, 40),
            (HistoryFilter { node_id: Some("elsewhere".into()), ..any() }, 0),
        ] {
            assert_eq!(store.history(&filter, 100).await.unwrap().len(), expected, "{filter:?}");
            assert_eq!(store.history_total(&filter).await.unwrap(), expected as u64, "{filter:?}");
        }
        store.close().await;
    });
}

pub fn recovery_ends_the_lost<B: Bench>() {
    let bench = B::new();
    let before = Incarnation::new();
    let lost: Vec<_> = (0..7).map(|n| Sample::new(&format!("d{n}"), before, n)).collect();
    block_on(async {
        let store = bench.open();
        store.begin(&super::run(before), at(0)).await.unwrap();
        let ended = Sample::new("ended", before, 0);
        commit(&store, lost.iter().chain([&ended]).map(Sample::start).collect()).await;
        commit(&store, vec![ended.end(Reason::Kicked, 8)]).await;
        let heard =
            LastHeard { session_id: lost[2].session_id, last_pong_at: Some(at(40)), last_active_at: at(41) };
        store.touch(before, vec![HeardPage { number: 7, heard: vec![heard] }]).await.unwrap();
        store.close().await;
    });
    block_on(async {
        let store = bench.open();
        let now = Incarnation::new();
        let back = super::run;
        store.begin(&back(now), at(50)).await.unwrap();
        let living = Sample::new("living", now, 51);
        commit(&store, vec![living.start()]).await;
        let mut ends = Vec::new();
        for expected in [3, 3, 1, 0] {
            let some = store.recover(&back(now), at(60), 3).await.unwrap();
            assert_eq!(some.len(), expected);
            ends.extend(some);
        }
        assert_eq!(sessions_of(&ends), lost.iter().map(|s| s.session_id).collect::<Vec<_>>());
        assert_eq!(whole_log(&store).await[10..], ends);
        let told = data(&ends[2]);
        let expected = [
            ("reason", json!("node_lost")),
            ("initiator", json!("server")),
            ("detected_by", json!("recovery")),
            ("close_code", json!(null)),
            ("node_id", json!("node-1")),
            ("incarnation", json!(before)),
            ("connected_at", json!(at(2))),
            ("last_pong_at", json!(at(40))),
            ("last_active_at", json!(at(41))),
            ("disconnected_at", json!(at(60))),
            ("detection_ms", json!(19_000.0)),
            ("duration_ms", json!(58_000.0)),
            ("pings_sent", json!(null)),
            ("pongs_received", json!(null)),
            ("device_seq", json!(2)),
            ("remote_addr", json!("[2001:db8::7]:4711")),
            ("meta", json!({"site": "Köln \"Süd\""})),
            ("trace_id", json!("4bf92f3577b34da6a3ce929d0e0e4736")),
        ];
        for (key, value) in expected {
            assert_eq!(told[key], value, "{key}");
        }
        assert_eq!((&data(&ends[0])["last_pong_at"], device_seq(&ends[0])), (&json!(null), 2));
        let of_living = store.session(living.session_id).await.unwrap().unwrap();
        assert_eq!(of_living.status, Status::Active);
        // The clock may have been set back between the runs.
        let third = back(Incarnation::new());
        store.begin(&third, at(-9)).await.unwrap();
        let early = store.recover(&third, at(-9), 10).await.unwrap();
        assert_eq!(
            (&data(&early[0])["detection_ms"], &data(&early[0])["duration_ms"]),
            (&json!(0.0), &json!(0.0))
        );
        store.close().await;
    });
}

pub fn who_is_here_is_told<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        let run = super::run(Incarnation::new());
        let mut sessions: Vec<_> =
            (0..9).map(|n| Sample::new(&format!("d{n}"), run.incarnation, n)).collect();
        let elsewhere = Sample::new("d9", Incarnation::new(), 0);
        commit(&store, sessions.iter().chain([&elsewhere]).map(Sample::start).collect()).await;
        commit(&store, vec![sessions.remove(3).end(Reason::Kicked, 9)]).await;

        let mut read = Vec::new();
        loop {
            let page = store.active_page(&run, read.last().copied(), 3).await.unwrap();
            assert!(page.iter().all(|r| (r.status, &r.end) == (Status::Active, &None)));
            read.extend(page.iter().map(|r| r.session_id));
            if page.len() < 3 {
                break;
            }
        }
        assert_eq!(read, sessions.iter().map(|s| s.session_id).collect::<Vec<_>>());
        let asked = ["d9", "d3", "d0", "nobody"].map(device);
        let mut there: Vec<_> =
            store.active_of(&asked).await.unwrap().into_iter().map(|r| r.session_id).collect();
        there.sort_unstable();
        assert_eq!(there, [sessions[0].session_id, elsewhere.session_id]);
        assert!(store.active_of(&[]).await.unwrap().is_empty());
        store.close().await;
    });
}

pub fn pages_of_the_last_heard_keep_to_their_run<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        let run = Incarnation::new();
        let (ours, silent, closed) =
            (Sample::new("a", run, 1), Sample::new("b", run, 2), Sample::new("c", run, 3));
        let batch = vec![ours.start(), silent.start(), closed.start(), closed.end(Reason::Kicked, 4)];
        commit(&store, batch).await;
        let heard = |s: &Sample, pong: Option<i64>, active: i64| LastHeard {
            session_id: s.session_id,
            last_pong_at: pong.map(at),
            last_active_at: at(active),
        };
        let page = |number, heard| HeardPage { number, heard };
        let first = vec![heard(&ours, None, 11), heard(&closed, Some(10), 11)];
        store.touch(run, vec![page(1, first), page(2, vec![])]).await.unwrap();
        store.touch(run, vec![page(1, vec![heard(&ours, Some(10), 12)])]).await.unwrap();
        store.touch(Incarnation::new(), vec![page(1, vec![heard(&silent, Some(20), 21)])]).await.unwrap();
        let record = store.session(closed.session_id).await.unwrap().unwrap();
        assert_eq!((record.status, record.end_time), (Status::Closed, Some(at(4))));
        let ends = store.recover(&super::run(Incarnation::new()), at(30), 10).await.unwrap();
        let times =
            |n: usize| (data(&ends[n])["last_pong_at"].clone(), data(&ends[n])["last_active_at"].clone());
        assert_eq!(times(0), (json!(at(10)), json!(at(12))), "the later page stands");
        assert_eq!(times(1), (json!(null), json!(at(2))), "another run spoke of its session");
        store.close().await;
    });
}
