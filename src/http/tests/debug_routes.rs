//! What an operator sees of sessions and events.

use super::*;
use crate::reason::Reason;

#[actix_web::test]
async fn live_sessions_are_sorted_filtered_and_paged() {
    let house = house((0..20).map(view).collect(), Limits::default()).await;
    let ids = |list: &Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["device_id"].as_str().unwrap().to_owned())
            .collect()
    };
    let (mut seen, mut uri) = (Vec::new(), "/debug/connections?sort=-rtt&limit=6".to_owned());
    loop {
        let list = house.found(&uri).await;
        assert_eq!(list["total"], 20);
        assert!(list["now"].is_string());
        seen.extend(ids(&list));
        let Some(cursor) = list["next_cursor"].as_str() else { break };
        uri = format!("/debug/connections?sort=-rtt&limit=6&cursor={cursor}");
    }
    assert_eq!(seen, (0..20).rev().map(|n| format!("d{n:02}")).collect::<Vec<_>>());
    for (query, expected) in [
        ("state=suspect", vec!["d03"]),
        ("device_id=d1*&min_rtt_ms=17.5", vec!["d18", "d19"]),
        ("remote_addr=10.0.0.4/31", vec!["d04", "d05"]),
        ("remote_addr=10.0.0.4", vec!["d04"]),
        ("remote_addr=::ffff:10.0.0.4/127", vec!["d04", "d05"]),
        ("idle_gt=17500ms&node=n1&device_type=meter", vec!["d18", "d19"]),
        ("node=n2", vec![]),
    ] {
        assert_eq!(ids(&house.found(&format!("/debug/connections?{query}")).await), expected, "{query}");
    }
    let cursor = house.found("/debug/connections?sort=rtt&limit=1").await["next_cursor"].clone();
    let mixed = format!("/debug/connections?sort=idle&cursor={}", cursor.as_str().unwrap());
    house.refused(&mixed, 400).await;
}

#[actix_web::test]
async fn closed_sessions_come_from_the_record() {
    let house = house(vec![], Limits::default()).await;
    house.record(0..5).await;
    let kicked = house.log.connected("other");
    let writes = vec![house.log.start(&kicked), house.log.end(&kicked, Reason::Kicked)];
    house.doors.feed.publish(&house.log.commit(writes).await);
    let (mut seen, mut uri) = (Vec::new(), "/debug/connections?state=closed&limit=4".to_owned());
    loop {
        let list = house.found(&uri).await;
        assert_eq!(list["total"], 6);
        seen.extend(list["items"].as_array().unwrap().iter().map(|s| s["device_id"].to_string()));
        let Some(cursor) = list["next_cursor"].as_str() else { break };
        uri = format!("/debug/connections?state=closed&limit=4&cursor={cursor}");
    }
    seen.sort();
    assert_eq!(seen, ["\"d0\"", "\"d1\"", "\"d2\"", "\"d3\"", "\"d4\"", "\"other\""]);
    let one =
        house.found("/debug/connections?state=closed&reason=kicked&device_id=oth*&device_type=meter").await;
    assert_eq!(one["items"][0]["end"]["initiator"], "operator");
    assert_eq!(house.found("/debug/connections?state=closed&node=n2").await["items"], json!([]));
}

#[actix_web::test]
async fn one_session_is_shown_live_or_from_the_record_with_its_events() {
    let live = view(1);
    let house = house(vec![live.clone()], Limits::default()).await;
    house.record(0..3).await;
    let shown = house.found(&format!("/debug/connections/{}", live.session_id)).await;
    assert_eq!((&shown["state"], &shown["events"]), (&json!("live"), &json!([])));
    assert!(shown["now"].is_string());
    let closed = house.log.connected("gone");
    let writes = vec![house.log.start(&closed), house.log.end(&closed, Reason::PongTimeout)];
    house.doors.feed.publish(&house.log.commit(writes).await);
    let shown = house.found(&format!("/debug/connections/{}", closed.session_id)).await;
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("closed"), &json!("pong_timeout")));
    assert_eq!(seqs(&shown["events"]), [7, 8]);
    let nobody = house.refused(&format!("/debug/connections/{}", SessionId::new()), 404).await;
    assert_eq!(nobody["input"], "session_id");
}

#[actix_web::test]
async fn recent_events_come_newest_first() {
    let house = house(vec![], Limits { ring_events: 10, ..Limits::default() }).await;
    assert_eq!(house.found("/debug/events").await["items"], json!([]));
    house.record(0..1300).await;
    let first = house.found("/debug/events?limit=5").await;
    assert_eq!(seqs(&first["items"]), [2600, 2599, 2598, 2597, 2596]);
    assert_eq!((&first["total"], &first["feed"]["newest"]), (&json!(2600), &json!(2600)));
    let (mut seen, mut uri) = (Vec::new(), "/debug/events?limit=999&reason=read_error".to_owned());
    loop {
        let page = house.found(&uri).await;
        seen.extend(seqs(&page["items"]));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        uri = format!("/debug/events?limit=999&reason=read_error&cursor={cursor}");
    }
    assert_eq!(seen, (1..=1300).rev().map(|n| n * 2).collect::<Vec<_>>());
}

#[actix_web::test]
async fn who_is_not_here_costs_no_snapshot() {
    let live = view(1);
    let house = house(vec![live.clone()], Limits::default()).await;
    let ended = house.log.connected("gone");
    house.log.commit(vec![house.log.start(&ended), house.log.end(&ended, Reason::Kicked)]).await;
    let asked = async |id: SessionId, times: usize| {
        let before = house.taken.load(Relaxed);
        for _ in 0..times {
            house.get(&format!("/debug/connections/{id}")).await;
        }
        house.taken.load(Relaxed) - before
    };
    // The last snapshot is renewed once in some seconds, whoever is asked for.
    for (id, who) in [
        (live.session_id, "one that the last snapshot shows"),
        (SessionId::new(), "an id that somebody made up"),
        (ended.session_id, "one that ended"),
    ] {
        let taken = asked(id, 20).await;
        assert!(taken < 10, "{who}: {taken} snapshots");
    }
    // One that has begun since the last snapshot, as the record says.
    let begun = house.log.connected("begun");
    house.log.commit(vec![house.log.start(&begun)]).await;
    assert!(asked(begun.session_id, 1).await >= 1);
}

#[actix_web::test]
async fn the_events_of_a_session_are_read_from_where_it_began() {
    let house = house(vec![], Limits::default()).await;
    // More than one read gets through.
    let mut before = Vec::new();
    for _ in 0..3_000 {
        let one = house.log.connected("old");
        before.extend([house.log.start(&one), house.log.end(&one, Reason::ReadError)]);
    }
    house.log.commit(before).await;
    let last = house.log.connected("old");
    house.log.commit(vec![house.log.start(&last), house.log.end(&last, Reason::Kicked)]).await;
    let held = house.log.connected("old");
    house.log.commit(vec![house.log.start(&held)]).await;
    for (id, seqs_of) in [(last.session_id, vec![6_001, 6_002]), (held.session_id, vec![6_003])] {
        let reads = house.event_reads();
        let shown = house.found(&format!("/debug/connections/{id}")).await;
        assert_eq!(seqs(&shown["events"]), seqs_of);
        // One that finds them, one that finds the log's end.
        assert!(house.event_reads() - reads <= 2, "{} reads", house.event_reads() - reads);
    }
}

#[actix_web::test]
async fn who_follows_events_reads_only_what_came_since() {
    let house = house(vec![], Limits { ring_events: 10, ..Limits::default() }).await;
    house.record(0..1300).await;
    let path = "/debug/events?reason=kicked";
    let whole = house.page(path).await;
    assert!(whole.contains(r#"id="rows""#) && whole.contains(r#"data-scanned="2600""#), "{whole}");
    let reads = house.event_reads();
    assert!(reads > 1, "a rare filter is looked for through all of the log");
    house.record(1300..1302).await;
    let since = house.page(&format!("{path}&since=2600")).await;
    assert!(!since.contains(r#"id="rows""#) && since.contains(r#"data-scanned="2604""#), "{since}");
    assert!(since.contains("the newest is 2604"), "{since}");
    assert_eq!(house.event_reads(), reads, "what came since is in memory");
    let kicked = house.log.connected("other");
    let writes = vec![house.log.start(&kicked), house.log.end(&kicked, Reason::Kicked)];
    house.doors.feed.publish(&house.log.commit(writes).await);
    let found = house.page(&format!("{path}&since=2604")).await;
    assert!(found.contains(r#"data-key="2606""#) && !found.contains("since="), "{found}");
    house.refused(&format!("{path}&since=1"), 400).await;
}
