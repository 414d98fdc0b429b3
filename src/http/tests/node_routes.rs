use super::*;

fn asked(method: Method, uri: &str) -> TestRequest {
    TestRequest::with_uri(uri).method(method).insert_header(("Authorization", TOKEN))
}

#[actix_web::test]
async fn the_drain_of_a_stop_is_told_and_not_changed() {
    let house = house(vec![], Limits::default()).await;
    let until = "1970-01-01T00:00:00.000000Z";
    let shown = json!({"node": NODE, "state": "draining", "live": 3, "ended": 2, "of": 5, "until": until});
    assert_eq!(house.found("/v1/node/drain").await, shown);
    for method in [Method::POST, Method::DELETE] {
        let refused = house.send(asked(method.clone(), "/v1/node/drain")).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{method}");
        assert_eq!(refused.header("content-type"), problem::CONTENT_TYPE);
    }
    let audit = house.found("/v1/audit").await;
    assert_eq!(audit["total"], 0, "what came to nothing is noted: {audit}");
}

#[actix_web::test]
async fn another_node_than_is_meant_does_nothing() {
    let house = house(vec![], Limits::default()).await;
    let own = format!("?node={NODE}");
    for (path, methods) in [
        ("/v1/node/drain", &[Method::GET, Method::POST, Method::DELETE][..]),
        ("/v1/node/log", &[Method::GET, Method::PUT]),
    ] {
        assert_eq!(house.get(&format!("{path}{own}")).await.status, 200, "{path}");
        for method in methods {
            let answer = house.send(asked(method.clone(), &format!("{path}?node=n2"))).await;
            assert_eq!(answer.status, StatusCode::CONFLICT, "{method} {path}");
            let problem = answer.json();
            let named = ["input", "value", "allowed"].map(|key| problem[key].as_str().unwrap_or_default());
            assert_eq!(named, ["node", "n2", NODE], "{method} {path}");
        }
        assert_eq!(house.refused(&format!("{path}?node=a%20b"), 400).await["input"], "node");
    }
    assert_eq!(house.found("/v1/audit").await["total"], 0);
    let filter = r#"{"filter":"warn"}"#;
    let set = asked(Method::PUT, &format!("/v1/node/log{own}")).set_payload(filter);
    assert_eq!(house.send(set).await.status, 200);
}

/// Nobody follows the changes of bans here.
#[actix_web::test]
async fn a_ban_that_does_not_hold_yet_is_said_to_be_on_its_way() {
    let house = house(vec![], Limits::default()).await;
    let given = house.send(asked(Method::PUT, "/v1/devices/d/ban")).await;
    assert_eq!((given.status, &given.json()["device_id"]), (StatusCode::ACCEPTED, &json!("d")));
    let body = r#"{"remote_addr":"192.0.2.1"}"#;
    assert_eq!(house.send(asked(Method::POST, "/v1/bans").set_payload(body)).await.status, 202);
    let lifted = house.send(asked(Method::DELETE, "/v1/devices/d/ban")).await;
    assert_eq!((lifted.status, &lifted.body[..]), (StatusCode::ACCEPTED, &b""[..]));
}
