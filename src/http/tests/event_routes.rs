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

/// Reads a response until it said `wanted` complete events, and returns their ids.
async fn ids(response: &mut reqwest::Response, wanted: usize) -> Vec<i64> {
    let mut text = String::new();
    loop {
        let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
        let ids: Vec<i64> = whole.lines().filter_map(|l| l.strip_prefix("id: ")?.parse().ok()).collect();
        if ids.len() >= wanted {
            return ids;
        }
        let chunk = response.chunk().await.unwrap().expect("the stream goes on");
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
}

#[actix_web::test]
async fn over_a_socket_one_who_is_cut_frees_its_seat_and_misses_nothing() {
    let house = house(vec![], Limits { subscribers: 1, ..Limits::default() }).await;
    let doors = house.doors.clone();
    let server = actix_web::HttpServer::new(move || App::new().app_data(doors.clone()).configure(routes));
    let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}/v1/events", server.addrs()[0]);
    let server = server.run();
    let handle = server.handle();
    let running = actix_web::rt::spawn(server);
    let client = reqwest::Client::new();
    let ask = |after: i64| {
        let get = client.get(&url).header("Authorization", TOKEN);
        get.header("Last-Event-ID", after.to_string()).send()
    };
    let mut last = 0;
    for n in 0..5 {
        let mut response = ask(last).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(ask(0).await.unwrap().status(), 503, "the one seat is taken");
        house.record(n * 10..(n + 1) * 10).await;
        let got = ids(&mut response, 10).await;
        assert_eq!(got[..10], (last + 1..=last + 10).collect::<Vec<_>>());
        last = got[9];
        drop(response);
        // That it is gone shows when it is written to. What is told meanwhile is for its next connection.
        while house.doors.feed.standing().subscribers > 0 {
            house.record(0..1).await;
        }
    }
    let newest = house.doors.feed.newest();
    let mut response = ask(last).await.unwrap();
    house.doors.feed.close();
    let rest = (last + 1..=newest).collect::<Vec<_>>();
    assert_eq!(ids(&mut response, rest.len()).await, rest);
    while response.chunk().await.unwrap().is_some() {}
    handle.stop(false).await;
    running.await.unwrap().unwrap();
}
