//! Nothing secret is said: not in the log, however much is logged, not in an answer, a list, a page or a metric.
//!
//! Everybody who has a secret uses it here, rightly and wrongly, and then all that the program ever said is looked through.

use reqwest::Method;
use serde_json::json;

use crate::support::acts::act;
use crate::support::login::{Browser, PASSWORD, add, bearer};
use crate::support::minter::{Minter, set};
use crate::support::raw::Seen;
use crate::support::server::ADMIN_TOKEN;
use crate::support::token::{SECRET, now};
use crate::support::{Ask, Device, Events, Server, Stores, Token, eventually};

const DATABASE_PASSWORD: &str = "hunter2-of-the-database";

/// All that was said to those who asked, with what they asked for.
#[derive(Default)]
struct Heard(Vec<(String, String)>);

impl Heard {
    /// The answer to a handshake, which is to be refused.
    async fn refusal(&mut self, server: &Server, ask: Ask) {
        let answer = ask.refused(server.addr).await;
        self.0.push((format!("a handshake to {}", ask.target), format!("{}{}", answer.head, answer.body)));
    }

    async fn answer(&mut self, what: String, request: reqwest::RequestBuilder) {
        let answer = request.send().await.unwrap_or_else(|e| panic!("{what}: {e}"));
        let head = format!("{:?}", answer.headers());
        self.0.push((what, head + &answer.text().await.unwrap_or_default()));
    }

    /// Holds that none of these was said.
    fn lacks(&self, secrets: &[(&str, &str)]) {
        for (name, secret) in secrets {
            assert!(secret.len() > 8, "{name} is too short to be looked for");
            for (what, text) in &self.0 {
                let at = text.find(secret);
                let around = at.map(|at| text[..at].chars().rev().take(200).collect::<String>());
                let around = around.map(|text| text.chars().rev().collect::<String>());
                assert!(at.is_none(), "{name} is said in {what}, after {around:?}");
            }
        }
    }
}

/// The parts of a token that nobody else has: who has the signature has the token.
fn signature(token: &str) -> &str {
    token.rsplit('.').next().expect("a signature")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_said_however_much_is_said() {
    let stores = Stores::start().await;
    let minter = Minter::eddsa("eddsa-1");
    let dir = tempfile::tempdir().expect("a directory");
    let keys = dir.path().join("keys.json");
    std::fs::write(&keys, set(&[&minter])).expect("a file");
    let keys = keys.to_string_lossy().into_owned();
    // It is not asked for, and is as secret as if it were.
    let database = stores.postgres.url().replacen('@', &format!(":{DATABASE_PASSWORD}@"), 1);
    let settings = [
        ("DATABASE_URL", &*database),
        ("RUST_LOG", "trace"),
        ("LOG_LINES_PER_SEC", "0"),
        ("TOKEN_KEYS", &*keys),
        ("TOKEN_REPLAY", "once"),
        ("PING_INTERVAL", "500ms"),
    ];
    let server = Server::start_on(&stores, &settings).await;
    let mut heard = Heard::default();
    let mint = |device: &str| {
        minter.mint(&json!({"sub": device, "exp": now() + 600, "iat": now(), "jti": format!("jti-{device}")}))
    };

    // Tokens that are good, by either way in.
    let (by_header, by_protocol) = (mint("by-header"), mint("by-protocol"));
    let mut device = Device::with_token(&server, &by_header).await;
    device.text(r#"{"type":"heartbeat","id":1}"#).await;
    heard.0.push(("a welcome".into(), device.welcome.to_string()));
    heard.0.push(("an ack".into(), device.json().await.to_string()));
    device.answer_pings(1).await;
    let offer = Ask::bare().header("Sec-WebSocket-Protocol", &format!("lastpong.v1, token.{by_protocol}"));
    let admitted = offer.admitted(server.addr).await;
    heard.0.push(("the answer to a browser".into(), admitted.head.clone()));

    // Tokens that are not, wherever someone may put them.
    let expired = Token::of("expired").expires_in(-60).mint();
    let forged = Token::of("forged").with("jti", "forged").signed_with(&"f".repeat(32)).mint();
    let misplaced = Token::of("misplaced").with("jti", "misplaced").mint();
    let refused = Token::of("banned").with("jti", "banned").mint();
    act(&server, Method::PUT, "/v1/devices/banned/ban", None).await;
    for token in [&expired, &forged, &by_header, &refused] {
        heard.refusal(&server, Ask::with_token(token)).await;
        let offer = Ask::bare().header("Sec-WebSocket-Protocol", &format!("lastpong.v1, token.{token}"));
        heard.refusal(&server, offer).await;
    }
    let short = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzaG9ydCJ9.of-which-all-can-be-shown";
    for token in [&misplaced, short] {
        for query in ["token=", "access_token=", "device_type=", "meta.token=", "jwt=", "", "meta."] {
            heard.refusal(&server, Ask::bare().target(&format!("/ws?{query}{token}"))).await;
        }
        for path in ["/ws/T", "/T", "/v1/devices/T", "/v1/devices/T/ban"] {
            let asked = server.bare(Method::PUT, &path.replace('T', token)).bearer_auth(ADMIN_TOKEN);
            heard.answer("a token in a path".into(), asked).await;
        }
        for name in ["device_id", "device_type"] {
            let mut body = json!({"device_id": "d"});
            body[name] = json!(token);
            let asked = server.bare(Method::POST, "/v1/tokens").bearer_auth(ADMIN_TOKEN).json(&body);
            heard.answer("a token for a name".into(), asked).await;
        }
    }
    heard.refusal(&server, Ask::bare().header("Authorization", &format!("Basic {misplaced}"))).await;
    for method in [Method::GET, Method::POST] {
        for path in ["/v1/events?limit=1", "/debug/connections", "/v1/tokens/revoke", "/metrics"] {
            let asked = server.bare(method.clone(), path).bearer_auth(&misplaced);
            heard.answer(format!("{method} {path} by a device's token"), asked).await;
        }
    }
    for body in [json!({"jti": misplaced}), json!({"device_id": misplaced})] {
        let asked = server.bare(Method::POST, "/v1/tokens/revoke").bearer_auth(ADMIN_TOKEN).json(&body);
        heard.answer("a token that is pasted".into(), asked).await;
    }

    // People who log in, or try to.
    add(&server, "ada", "admin").await;
    let login = bearer(&server, "ada").await;
    let mut browser = Browser::logged_in(&server, "ada").await;
    let cookie = browser.cookies.values().next().expect("a cookie").clone();
    let wrong = "a wrong password of somebody";
    let attempt = json!({"username": "ada", "password": wrong});
    heard.answer("a wrong login".into(), server.bare(Method::POST, "/auth/login").json(&attempt)).await;

    // A token that is revoked while its session lasts.
    let (status, told) =
        act(&server, Method::POST, "/v1/tokens/revoke", Some(&json!({"jti": "jti-by-header"}))).await;
    assert_eq!(status, 200, "{told}");
    assert_eq!(device.closed().await, Seen::Close(Some(4500)));
    let mut events = Events::new();
    events.wait_for(&server, "its end", |event| event["data"]["reason"] == "token_revoked").await;
    heard.refusal(&server, Ask::with_token(&by_header)).await;

    // All that can be looked at, as a program and as a person.
    let session = format!("/debug/connections/{}", device.session_id());
    let document = server.json("/openapi.json").await;
    let mut paths: Vec<String> = document["paths"].as_object().expect("paths").keys().cloned().collect();
    paths.retain(|path| !path.contains('{') && path != "/debug/live" && !path.ends_with("/ws"));
    paths.extend([session, "/debug/connections?state=closed".into(), "/v1/devices/by-header".into()]);
    for path in &paths {
        let page = if path == "/v1/events" { "/v1/events?after=0&limit=1000" } else { path };
        heard.answer(format!("GET {path}"), server.get(page)).await;
        if path == "/v1/events" {
            // To a browser it never ends.
            continue;
        }
        let html = browser.get(page).await;
        heard.0.push((format!("the page {path}"), html.text().await.unwrap_or_default()));
    }
    let seen = heard.0.iter().any(|(what, text)| what == "GET /v1/events" && text.contains("token_revoked"));
    assert!(seen, "the end of the session is not among what was looked at");

    // What the log says, once it has said all of this; and what is left in Redis.
    drop((device, admitted));
    eventually("a log of all", async || server.said().contains("by-header").then_some(())).await;
    for key in stores.redis.command(&["KEYS", "*"]).texts() {
        heard.0.push(("a key in Redis".into(), key.to_owned()));
    }
    let said = server.said();
    assert!(said.contains("TRACE") && said.contains("revoke"), "too little is logged to be looked through");
    heard.0.push(("the log".into(), said));

    let secrets = [
        ("the token secret", SECRET),
        ("the admin token", ADMIN_TOKEN),
        ("a good token", signature(&by_header)),
        ("a browser's token", signature(&by_protocol)),
        ("an expired token", signature(&expired)),
        ("a forged token", signature(&forged)),
        ("a token in the wrong place", signature(&misplaced)),
        ("a short one", signature(short)),
        ("a banned device's token", signature(&refused)),
        ("a password", PASSWORD),
        ("a wrong password", wrong),
        ("a login", login.as_str()),
        ("a cookie", cookie.as_str()),
        ("the database's password", DATABASE_PASSWORD),
    ];
    heard.lacks(&secrets);
}
