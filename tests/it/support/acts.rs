//! What operators do by HTTP, and what is answered.

use reqwest::Method;
use serde_json::Value;

use super::raw::{Answer, Raw};
use super::server::ADMIN_TOKEN;
use super::{Ask, Server, token, within};

/// Status and body (null where there is none) of what the holder of this token does.
pub async fn act_as(
    server: &Server,
    bearer: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> (u16, Value) {
    let mut request = server.bare(method, path).bearer_auth(bearer);
    if let Some(body) = body {
        request = request.json(body);
    }
    let answer = request.send().await.unwrap_or_else(|e| panic!("{path}: {e}"));
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap_or_else(|e| panic!("{path}: {e}"));
    let json = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") };
    (status, json)
}

/// The same of the admin token.
pub async fn act(server: &Server, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
    act_as(server, ADMIN_TOKEN, method, path, body).await
}

/// What becomes of a device that knocks: its socket, or the refusal.
pub async fn knock(server: &Server, device: &str) -> Result<Raw, Answer> {
    let ask = Ask::with_token(&token(device));
    within("an answer to the handshake", ask.send(server.addr)).await.expect("an answer")
}

/// All items of a list, by pages of `limit`, newest page first.
pub async fn paged(server: &Server, path: &str, limit: usize) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.json(&format!("{path}?limit={limit}{cursor}")).await;
        let part = page["items"].as_array().unwrap_or_else(|| panic!("no items: {page}"));
        assert!(part.len() <= limit, "a page over its limit: {page}");
        items.extend(part.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => {
                assert_eq!(page["total"], items.len(), "{page}");
                return items;
            }
        }
    }
}
