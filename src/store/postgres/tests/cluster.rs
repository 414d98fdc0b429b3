//! Many nodes on one database: takeover, fences, the dead and who speaks for them.

use std::collections::HashMap;

use futures_util::future::join_all;
use serde_json::json;

use super::*;
use crate::event::EventKind;
use crate::store::{LastHeard, Outcome, Status};

#[tokio::test]
async fn a_newcomer_takes_the_place_of_another_nodes_session() {
    let (server, [a, b]) = nodes(["a", "b"]).await;
    let (old, new) = (a.start("d", 1), b.start("d", 9));
    a.commit(vec![old.said()]).await.unwrap();
    let heard = LastHeard { session_id: old.id(), last_pong_at: Some(at(4)), last_active_at: at(5) };
    a.store.touch(a.run.incarnation, vec![HeardPage { number: 1, heard: vec![heard] }]).await.unwrap();

    let other = b.start("other", 9);
    let done = b.commit(vec![other.said(), new.said()]).await.unwrap();
    assert_eq!(done.outcomes, [recorded(1), recorded(3)]);
    assert_eq!(done.events.iter().map(|e| e.seq).collect::<Vec<_>>(), [2, 3, 4]);
    let end = &done.events[1];
    assert_eq!((end.session_id, end.reason), (Some(old.id()), Some(Reason::Replaced)));
    let told = data(end);
    for (key, value) in [
        ("detected_by", json!("peer_node")),
        ("initiator", json!("server")),
        ("node_id", json!("a")),
        ("incarnation", json!(a.run.incarnation)),
        ("device_seq", json!(2)),
        ("last_pong_at", json!(at(4))),
        ("last_active_at", json!(at(5))),
        ("pings_sent", json!(null)),
    ] {
        assert_eq!(told[key], value, "{key}");
    }
    assert_eq!(log(&b.store).await[1..], done.events);
    // The old node learns that another end stands, and said twice it makes nothing twice.
    let late = a.commit(vec![old.ended(Reason::ReadError, 11)]).await.unwrap();
    assert_eq!((late.outcomes, late.events), (vec![Outcome::Superseded], vec![]));
    let again = b.commit(vec![other.said(), new.said()]).await.unwrap();
    assert_eq!((again.outcomes, again.events), (vec![recorded(1), recorded(3)], vec![]));
    drop(server);
}

#[tokio::test]
async fn a_start_told_late_takes_nobodys_place() {
    let (_server, [a, b]) = nodes(["a", "b"]).await;
    let (here, late) = (a.start("d", 9), b.start("d", 3));
    a.commit(vec![here.said()]).await.unwrap();
    let done = b.commit(vec![late.late(), late.ended(Reason::ReadError, 8)]).await.unwrap();
    // It is on the record with one end, and that is not what its node says of it.
    assert_eq!(done.outcomes, [recorded(2), Outcome::Superseded]);
    let reasons: Vec<_> = done.events.iter().map(|e| (e.session_id, e.reason)).collect();
    assert_eq!(reasons, [(Some(late.id()), None), (Some(late.id()), Some(Reason::Replaced))]);
    assert_eq!(b.store.session(here.id()).await.unwrap().unwrap().status, Status::Active);

    // A past one meets nobody, whenever it was; its end follows with it.
    let past = b.start("d", 20);
    let done = b.commit(vec![past.past(), past.ended(Reason::ReadError, 21)]).await.unwrap();
    assert_eq!(done.outcomes, [recorded(4), recorded(5)]);
    assert_eq!(b.store.session(here.id()).await.unwrap().unwrap().status, Status::Active);
}

#[tokio::test]
async fn the_log_says_who_came_first_where_a_clock_is_wrong() {
    let (_server, [a, b]) = nodes(["a", "b"]).await;
    // By the clock of its node it begins a day later than all others.
    let (ahead, late) = (a.start("d", 86_400), b.start("d", 3));
    let begun = a.commit(vec![ahead.said()]).await.unwrap().events[0].seq;
    let done = b.commit(vec![late.late_after(begun)]).await.unwrap();
    let told: Vec<_> = done.events.iter().map(|e| (e.session_id, e.reason)).collect();
    assert_eq!(told, [(Some(ahead.id()), Some(Reason::Replaced)), (Some(late.id()), None)]);
    assert_eq!(b.store.session(late.id()).await.unwrap().unwrap().status, Status::Active);
}

/// Both were let in while the store was away, and then a node was killed. Its journal is moved by its next run.
#[tokio::test]
async fn who_was_lost_with_its_node_is_in_nobody_s_way_whatever_its_clock_said() {
    for lost_one_is_moved_first in [true, false] {
        let (_server, [a, b]) = nodes(["a", "b"]).await;
        let (lost, here) = (a.start("d", 3_600), b.start("d", 3));
        let again = Node { run: Run { incarnation: Incarnation::new(), ..a.run.clone() }, ..a };
        again.store.begin(&again.run, at(10)).await.unwrap();
        let mut told = Vec::new();
        let moves = [(&again, &lost), (&b, &here)];
        for n in if lost_one_is_moved_first { [0, 1] } else { [1, 0] } {
            told.extend(moves[n].0.commit(vec![moves[n].1.late()]).await.unwrap().events);
        }
        let told: Vec<_> = told.iter().map(|e| (e.session_id.unwrap(), e.reason)).collect();
        let mut expected = vec![(lost.id(), None), (lost.id(), Some(Reason::Replaced)), (here.id(), None)];
        if !lost_one_is_moved_first {
            expected = vec![(here.id(), None), (lost.id(), None), (lost.id(), Some(Reason::NodeLost))];
        }
        assert_eq!(told, expected);
        assert_eq!(b.store.session(here.id()).await.unwrap().unwrap().status, Status::Active);
    }
}

#[tokio::test]
async fn a_start_that_was_held_up_is_not_begun_where_its_device_has_gone_on() {
    let (_server, [a, b]) = nodes(["a", "b"]).await;
    let (held_up, here, other) = (b.start("d", 1), a.start("d", 2), b.start("e", 1));
    a.commit(vec![here.said()]).await.unwrap();
    let batch = vec![held_up.said(), other.said(), held_up.ended(Reason::Replaced, 9)];
    let done = b.commit(batch).await.unwrap();
    assert_eq!(done.outcomes, [Outcome::Superseded, recorded(1), Outcome::Superseded]);
    assert_eq!(done.events.iter().map(|e| e.session_id.unwrap()).collect::<Vec<_>>(), [other.id()]);
    assert!(b.store.session(held_up.id()).await.unwrap().is_none());
    assert_eq!(a.store.session(here.id()).await.unwrap().unwrap().status, Status::Active);
    let alone = b.commit(vec![held_up.said()]).await.unwrap();
    assert_eq!((alone.outcomes, alone.events), (vec![Outcome::Superseded], vec![]));

    // By a few seconds, the clocks of two machines prove nothing.
    let now = (Timestamp::now().0 - at(0).0) / 1_000_000;
    let (first, second) = (a.start("f", now + 60), b.start("f", now));
    a.commit(vec![first.said()]).await.unwrap();
    let done = b.commit(vec![second.said()]).await.unwrap();
    assert_eq!(done.events[0].reason, Some(Reason::Replaced), "{done:?}");
}

#[tokio::test]
async fn a_batch_that_makes_room_by_itself_is_left_as_it_is() {
    let (_server, [a, b]) = nodes(["a", "b"]).await;
    let (first, second, third) = (a.start("d", 1), b.start("d", 2), a.start("d", 3));
    a.commit(vec![first.said()]).await.unwrap();
    let batch = vec![first.ended(Reason::NodeLost, 2), second.said(), third.said()];
    let done = b.commit(batch).await.unwrap();
    // The end that was there stands; the second was in the third's way in this very batch.
    assert_eq!(done.outcomes, [recorded(2), recorded(3), recorded(5)]);
    let told: Vec<_> = done.events.iter().map(|e| (e.session_id.unwrap(), e.reason)).collect();
    let expected = [
        (first.id(), Some(Reason::NodeLost)),
        (second.id(), None),
        (second.id(), Some(Reason::Replaced)),
        (third.id(), None),
    ];
    assert_eq!(told, expected);
    // Of the same run nobody is in the way: its own directory sees to that.
    let fourth = a.start("d", 4);
    assert_eq!(a.commit(vec![fourth.said()]).await.unwrap().events.len(), 1);
}

#[tokio::test]
async fn a_lost_run_writes_nothing() {
    let (server, [a, b]) = nodes(["a", "b"]).await;
    let held = a.start("d", 1);
    a.commit(vec![held.said()]).await.unwrap();
    let peer = b.peer("a").await;
    let seq = b.store.declare_lost(&b.run, &peer).await.unwrap();
    assert_eq!(seq, Some(2));
    let record = "SELECT * FROM nodes WHERE node_id = 'a'; SELECT newest FROM log_head; SELECT * FROM events;
        SELECT * FROM session_records; SELECT count(*) FROM last_heard";
    let before = server.0.sql(record);
    for _ in 0..2 {
        assert_fenced(a.commit(vec![held.ended(Reason::Kicked, 2), a.start("e", 2).said()]).await);
        assert_fenced(a.store.renew(&a.run).await);
        assert_fenced(a.store.declare_lost(&a.run, &b.peer("b-none").await).await);
        let page = HeardPage { number: 1, heard: vec![] };
        assert_fenced(a.store.touch(a.run.incarnation, vec![page]).await);
        assert_fenced(a.store.end_session(&a.run, held.id(), Reason::Kicked, DetectedBy::Operator).await);
        assert!(!a.store.adopt(&a.run, &a.run.node_id).await.unwrap());
    }
    assert_eq!(server.0.sql(record), before);
    // Born again it goes on, and what the run before held is there to be recovered.
    let reborn = Node { run: Run { incarnation: Incarnation::new(), ..a.run.clone() }, ..a.clone() };
    reborn.store.begin(&reborn.run, at(3)).await.unwrap();
    assert_fenced(a.commit(vec![held.ended(Reason::Kicked, 2)]).await);
    assert_eq!(reborn.store.recover(&reborn.run, at(4), 10).await.unwrap().len(), 1);
    reborn.store.renew(&reborn.run).await.unwrap();
    assert_eq!(b.peer("a").await.state, PeerState::Live);
}

#[tokio::test]
async fn one_of_two_rivals_declares_a_node_lost() {
    let (_server, [a, b, c]) = nodes(["a", "b", "c"]).await;
    a.commit(vec![a.start("d", 1).said(), a.start("e", 1).said()]).await.unwrap();
    let seen = b.peer("a").await;
    a.store.renew(&a.run).await.unwrap();
    assert_eq!(b.store.declare_lost(&b.run, &seen).await.unwrap(), None, "it has renewed since");
    let seen = b.peer("a").await;
    let rivals = [&b, &c].map(|rival| rival.store.declare_lost(&rival.run, &seen));
    let said: Vec<_> = join_all(rivals).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(said.iter().flatten().collect::<Vec<_>>(), [&3], "{said:?}");
    let winner = if said[0].is_some() { "b" } else { "c" };
    let reaper = winner.parse().unwrap();
    assert_eq!(b.peer("a").await.state, PeerState::Lost { reaper });
    let event = log(&b.store).await.pop().unwrap();
    assert_eq!((event.kind, event.device_id.clone()), (EventKind::NodeLost, None));
    let told = json!({"seq": 3, "node_id": "a", "incarnation": a.run.incarnation, "declared_by": winner,
        "sessions": 2, "renewals": seen.renewals});
    assert_eq!(data(&event), told);
}

#[tokio::test]
async fn what_a_lost_node_left_is_ended_once() {
    let (server, [a, b, c]) = nodes(["a", "b", "c"]).await;
    let left: Vec<_> = (0..7).map(|n| a.start(&format!("d{n}"), n)).collect();
    a.commit(left.iter().map(Said::said).collect()).await.unwrap();
    let heard = LastHeard { session_id: left[2].id(), last_pong_at: None, last_active_at: at(5) };
    a.store.touch(a.run.incarnation, vec![HeardPage { number: 1, heard: vec![heard] }]).await.unwrap();
    b.store.declare_lost(&b.run, &b.peer("a").await).await.unwrap().unwrap();
    // One has come back elsewhere meanwhile.
    let back = c.start("d0", 20);
    c.commit(vec![back.said()]).await.unwrap();
    let mut ends = Vec::new();
    for expected in [4, 2, 0, 0] {
        let some = b.store.reap(&b.run, &a.run.node_id, at(30), 4).await.unwrap();
        assert_eq!(some.len(), expected);
        ends.extend(some);
    }
    let sessions: Vec<_> = ends.iter().map(|e| e.session_id.unwrap()).collect();
    assert_eq!(sessions, left[1..].iter().map(Said::id).collect::<Vec<_>>());
    let told = data(&ends[1]);
    assert_eq!((&told["reason"], &told["detected_by"]), (&json!("node_lost"), &json!("peer_node")));
    assert_eq!((&told["last_active_at"], &told["node_id"]), (&json!(at(5)), &json!("a")));
    assert_eq!(b.peer("a").await.state, PeerState::Gone);
    assert_eq!(server.0.sql("SELECT count(*) FROM last_heard"), "0");
    assert_eq!(c.store.session(back.id()).await.unwrap().unwrap().status, Status::Active);

    // A node that is back is not reaped for what it was.
    let reborn = Node { run: Run { incarnation: Incarnation::new(), ..a.run.clone() }, ..a.clone() };
    reborn.store.begin(&reborn.run, at(40)).await.unwrap();
    reborn.commit(vec![reborn.start("d1", 41).said()]).await.unwrap();
    assert!(b.store.reap(&b.run, &a.run.node_id, at(42), 4).await.unwrap().is_empty());
    assert_eq!(b.peer("a").await.state, PeerState::Live);
}

#[tokio::test]
async fn a_dead_reaper_is_followed_by_one() {
    let (_server, [a, b, c, d]) = nodes(["a", "b", "c", "d"]).await;
    let lost = &a.run.node_id;
    assert!(!b.store.adopt(&b.run, lost).await.unwrap(), "it is not lost");
    b.store.declare_lost(&b.run, &b.peer("a").await).await.unwrap().unwrap();
    assert!(b.store.adopt(&b.run, lost).await.unwrap(), "it is to go on with its own");
    assert!(!c.store.adopt(&c.run, lost).await.unwrap(), "its reaper is alive");
    c.store.declare_lost(&c.run, &c.peer("b").await).await.unwrap().unwrap();
    let adopted = join_all([&c, &d].map(|node| node.store.adopt(&node.run, lost))).await;
    let adopted: Vec<_> = adopted.into_iter().map(Result::unwrap).collect();
    assert_eq!(adopted.iter().filter(|took| **took).count(), 1, "{adopted:?}");
    let reaper = if adopted[0] { "c" } else { "d" }.parse().unwrap();
    assert_eq!(d.peer_or("a", &c).await.state, PeerState::Lost { reaper });
}

#[tokio::test]
async fn a_node_that_stops_in_order_is_gone() {
    let (_server, [a, b]) = nodes(["a", "b"]).await;
    let held = a.start("d", 1);
    a.commit(vec![held.said()]).await.unwrap();
    a.store.retire(&a.run).await.unwrap();
    assert_eq!(b.peer("a").await.state, PeerState::Live, "it left a session behind");
    a.commit(vec![held.ended(Reason::Draining, 2)]).await.unwrap();
    a.store.retire(&a.run).await.unwrap();
    assert_eq!(b.peer("a").await.state, PeerState::Gone);
    assert_eq!(b.store.declare_lost(&b.run, &b.peer("a").await).await.unwrap(), None);
}

#[tokio::test]
async fn a_session_is_ended_from_another_node() {
    let (_server, [a, b]) = nodes(["a", "b"]).await;
    let held = a.start("d", 1);
    a.commit(vec![held.said()]).await.unwrap();
    let kick = || b.store.end_session(&b.run, held.id(), Reason::Kicked, DetectedBy::Operator);
    let end = kick().await.unwrap().unwrap();
    assert_eq!((end.session_id, end.reason, end.seq), (Some(held.id()), Some(Reason::Kicked), 2));
    assert_eq!((&data(&end)["node_id"], &data(&end)["detected_by"]), (&json!("a"), &json!("operator")));
    assert_eq!(kick().await.unwrap(), None, "it was ended twice");
}

/// Four nodes at once, on devices that all of them share, while a reader follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_at_once_leave_no_gap_and_no_second_session() {
    const ROUNDS: i64 = 25;
    let (server, nodes) = nodes(["a", "b", "c", "d"]).await;
    let reader = server.store("reader");
    let (newest, end) = tokio::sync::watch::channel(i64::MAX);
    let following = tokio::spawn(async move {
        let mut seen = 0;
        while seen < *end.borrow() {
            let page = reader.events(seen, &EventFilter::default(), 500).await.unwrap();
            let expected: Vec<i64> = (seen + 1..=page.scanned_to).collect();
            assert_eq!(page.events.iter().map(|e| e.seq).collect::<Vec<_>>(), expected, "skipped");
            seen = page.scanned_to;
        }
    });
    let writing = nodes.map(|node| {
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let starts: Vec<_> = (0..20).map(|n| node.start(&format!("d{n}"), round)).collect();
                node.commit(starts.iter().map(Said::said).collect()).await.unwrap();
                let ends = starts.iter().step_by(3).map(|s| s.ended(Reason::ReadError, round + 1));
                // Whoever is still there; the others were replaced.
                node.commit(ends.collect()).await.unwrap();
                // A device has one session of a run at most; the directory of a node sees to that.
                let rest: Vec<_> = starts.iter().map(|s| s.ended(Reason::Replaced, round + 1)).collect();
                if round + 1 < ROUNDS {
                    node.commit(rest).await.unwrap();
                }
            }
        })
    });
    for writer in writing {
        writer.await.unwrap();
    }
    let store = server.store("reader-2");
    newest.send(store.bounds().await.unwrap().newest).unwrap();
    following.await.unwrap();

    let log = log(&store).await;
    let (mut numbers, mut here) = (HashMap::new(), HashMap::new());
    for (n, event) in log.iter().enumerate() {
        assert_eq!(event.seq, n as i64 + 1);
        let device = event.device_id.clone().unwrap();
        let number = numbers.entry(device.clone()).or_insert(0);
        *number += 1;
        assert_eq!(data(event)["device_seq"], *number);
        match event.kind {
            EventKind::SessionConnected => {
                let first = *here.entry(device).or_insert(event.session_id);
                // One that comes too late goes at once.
                let too_late = first != event.session_id;
                assert!(!too_late || log[n + 1].session_id == event.session_id, "two sessions of one device");
            }
            _ if here.get(&device) == Some(&event.session_id) => _ = here.remove(&device),
            _ => assert_eq!(log[n - 1].session_id, event.session_id, "an end of who was not there"),
        }
    }
    let active = server.0.sql("SELECT count(*) FROM session_records WHERE status = 'active'");
    assert_eq!(active, here.len().to_string());
}
