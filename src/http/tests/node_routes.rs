use super::*;

#[actix_web::test]
async fn a_drain_is_told_and_noted_and_that_of_a_stop_is_not_undone() {
    let house = house(vec![], Limits::default()).await;
    let post = TestRequest::post().uri("/v1/node/drain").insert_header(("Authorization", TOKEN));
    let begun = house.send(post).await;
    assert_eq!(begun.status, 202, "{:?}", begun.body);
    let until = "1970-01-01T00:00:00.000000Z";
    let shown = json!({"node": NODE, "state": "draining", "live": 3, "ended": 2, "of": 5, "until": until});
    assert_eq!(begun.json(), shown);
    assert_eq!(house.found("/v1/node/drain").await, shown);
    let delete = TestRequest::delete().uri("/v1/node/drain").insert_header(("Authorization", TOKEN));
    let refused = house.send(delete).await;
    assert_eq!(
        (refused.status, refused.header("content-type")),
        (StatusCode::CONFLICT, problem::CONTENT_TYPE)
    );
    let audit = house.found("/v1/audit").await;
    assert_eq!((&audit["total"], &audit["items"][1]["action"]), (&json!(2), &json!("drain")), "{audit}");
}
