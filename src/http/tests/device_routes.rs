//! Presence, and ending a session.

use super::*;
use crate::reason::{DetectedBy, Reason};

fn authorized(request: TestRequest) -> TestRequest {
    request.insert_header(("Authorization", TOKEN))
}

fn query(body: &Value) -> TestRequest {
    authorized(TestRequest::post()).uri("/v1/devices/query").set_payload(body.to_string())
}

#[actix_web::test]
async fn presence_is_what_the_record_says() {
    let house = house(vec![], Limits::default()).await;
    let (here, gone) = (house.log.connected("here"), house.log.connected("gone"));
    let writes = vec![house.log.start(&here), house.log.start(&gone), house.log.end(&gone, Reason::Kicked)];
    house.log.commit(writes).await;
    let one = house.found("/v1/devices/here").await;
    assert_eq!((&one["device_id"], &one["online"]), (&json!("here"), &json!(true)));
    assert_eq!(one["session"]["session_id"], json!(here.session_id));
    assert!(one["now"].is_string());
    for absent in ["gone", "never-seen"] {
        let one = house.found(&format!("/v1/devices/{absent}")).await;
        assert_eq!((&one["online"], &one["session"]), (&json!(false), &Value::Null), "{absent}");
    }
    let many = house.send(query(&json!({"device_ids": ["gone", "here", "gone"]}))).await.json();
    let online: Vec<_> = many["items"].as_array().unwrap().iter().map(|d| d["online"].clone()).collect();
    assert_eq!(online, [false, true, false]);
}

#[actix_web::test]
async fn a_query_that_cannot_be_is_refused() {
    let house = house(vec![], Limits::default()).await;
    house.refused("/v1/devices/a%20b", 400).await;
    let many: Vec<_> = (0..1_001).map(|n| format!("d{n}")).collect();
    let bodies = [
        json!({}),
        json!([]),
        json!({"device_ids": ["a b"]}),
        json!({"device_ids": many}),
        json!({"ids": []}),
    ];
    for body in bodies {
        let answer = house.send(query(&body)).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (400, problem::CONTENT_TYPE));
    }
    let bare = house.send(TestRequest::post().uri("/v1/devices/query")).await;
    assert_eq!(bare.status, 401);
    assert_eq!(house.get("/v1/devices/query").await.status, 405);
}

#[actix_web::test]
async fn a_session_of_this_node_is_ended_by_its_supervisor() {
    let house = house((0..3).map(view).collect(), Limits::default()).await;
    let listed = house.found("/debug/connections?device_id=d01").await;
    let id = listed["items"][0]["session_id"].as_str().unwrap().to_owned();
    let kick = |id: &str| authorized(TestRequest::delete()).uri(&format!("/v1/sessions/{id}"));
    assert_eq!(house.send(kick(&id)).await.status, 204);
    let ended = house.ended.lock().unwrap().clone();
    assert_eq!(ended.len(), 1);
    let what = &ended[0];
    assert_eq!((what.session_id.to_string(), what.device_id.as_str()), (id, "d01"));
    assert_eq!((what.reason, what.detected_by), (Reason::Kicked, DetectedBy::Operator));
    assert_eq!(house.send(kick(&SessionId::new().to_string())).await.status, 404);
    assert_eq!(house.send(kick("x")).await.status, 400);
    assert_eq!(house.send(TestRequest::delete().uri("/v1/sessions/x")).await.status, 401);
}
