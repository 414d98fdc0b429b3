//! Pages and streams of the event log.

use super::*;
use crate::feed::seats::Sink;

#[actix_web::test]
async fn pages_lead_through_the_log() {
    let house = house(vec![], Limits::default()).await;
    let empty = house.found("/v1/events").await;
    assert_eq!(empty, json!({"events": [], "next_after": 0, "oldest": 1, "newest": 0}));
    house.record(0..10).await;
    let (mut seen, mut after) = (Vec::new(), 0);
    loop {
        let page = house.found(&format!("/v1/events?after={after}&limit=7")).await;
        assert_eq!((&page["oldest"], &page["newest"]), (&json!(1), &json!(20)));
        if page["events"] == json!([]) {
            break;
        }
        seen.extend(seqs(&page["events"]));
        after = page["next_after"].as_i64().unwrap();
    }
    assert_eq!(seen, (1..=20).collect::<Vec<_>>());
    let first = &house.found("/v1/events?limit=1").await["events"][0];
    assert_eq!((&first["type"], &first["subject"]), (&json!("lastpong.session.connected.v1"), &json!("d0")));
    let ends = house.found("/v1/events?reason=read_*&device_id=d3,d4").await;
    assert_eq!((seqs(&ends["events"]), &ends["next_after"]), (vec![8, 10], &json!(20)));
}

#[actix_web::test]
async fn a_stream_resumes_where_the_client_says() {
    let house = house(vec![], Limits::default()).await;
    house.record(0..5).await;
    let ask = |uri: &str| {
        let get = TestRequest::get().uri(uri).insert_header(("Authorization", TOKEN));
        get.insert_header(("Accept", "text/event-stream"))
    };
    for bad in [
        ask("/v1/events?after=11"),
        ask("/v1/events?limit=5"),
        ask("/v1/events").insert_header(("Last-Event-ID", "x")),
    ] {
        assert_eq!(house.send(bad).await.status, 400);
    }
    // Closed after the handlers began, so that each body ends once it told everything.
    let app = init_service(App::new().app_data(house.doors.clone()).configure(routes)).await;
    let mut bodies = Vec::new();
    for (request, expected) in [
        (ask("/v1/events?after=3").insert_header(("Last-Event-ID", "7")), vec![8, 9, 10, 11, 12]),
        (
            ask("/v1/events?after=3&types=*.disconnected.v1".replace("*.", "lastpong.session.").as_str()),
            vec![4, 6, 8, 10, 12],
        ),
        (ask("/v1/events"), vec![11, 12]),
    ] {
        let response = call_service(&app, request.to_request()).await;
        assert_eq!(response.headers().get("content-type").unwrap(), "text/event-stream");
        bodies.push((response.into_body(), expected));
    }
    house.record(5..6).await;
    house.doors.feed.close();
    for (body, expected) in bodies {
        let text =
            String::from_utf8(to_bytes(body).await.unwrap_or_else(|_| panic!("no body")).to_vec()).unwrap();
        let ids: Vec<i64> = text.lines().filter_map(|l| l.strip_prefix("id: ")?.parse().ok()).collect();
        assert_eq!(ids, expected, "{text}");
    }
    let late = house.send(ask("/v1/events")).await;
    assert_eq!((late.status.as_u16(), late.header("retry-after")), (503, "1"));
}

#[actix_web::test]
async fn subscribers_beyond_the_bound_are_told_when_to_come_back() {
    let house = house(vec![], Limits { subscribers: 1, ..Limits::default() }).await;
    let seat = house.doors.feed.follow(Sink::Sse, 0, Default::default()).unwrap();
    let ask = || TestRequest::get().uri("/v1/events").insert_header(("Authorization", TOKEN));
    let answer = house.send(ask()).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "5"));
    drop(seat);
    let app = init_service(App::new().app_data(house.doors.clone()).configure(routes)).await;
    assert_eq!(call_service(&app, ask().to_request()).await.status(), 200);
}
