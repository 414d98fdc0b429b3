//! Devices on public clients that we did not write, over TLS where they speak it: each holds a session through many
//! pings and leaves.
//!
//! `TEST_ROUND_TRIPS` says how many pings each answers, one every half second; `120` is a minute.

use std::path::Path;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::chromium::Chromium;
use crate::support::python::Script;
use crate::support::server::ADMIN_TOKEN;
use crate::support::tls::{Authority, text};
use crate::support::{Server, eventually, size, token};

/// A node, and who trusts it.
struct Node {
    server: Server,
    authority: Authority,
    http: reqwest::Client,
    /// With what names of schemes end where TLS is spoken.
    s: &'static str,
}

const QUICK: [(&str, &str); 2] = [("PING_INTERVAL", "500ms"), ("PONG_TIMEOUT", "20s")];

impl Node {
    async fn start() -> Self {
        let authority = Authority::new();
        let issued = authority.server("localhost");
        let server = Server::start(&[&issued.settings()[..], &QUICK].concat()).await;
        Self { server, http: authority.https(), authority, s: "s" }
    }

    async fn plain() -> Self {
        let authority = Authority::new();
        Self { server: Server::start(&QUICK).await, http: authority.https(), authority, s: "" }
    }

    fn url(&self) -> String {
        format!("ws{}://{}/ws", self.s, self.server.addr)
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        let url = format!("http{}://{}{path}", self.s, self.server.addr);
        let asked = self.http.get(url).bearer_auth(ADMIN_TOKEN).header("Accept", "application/json").send();
        asked.await.expect("an answer")
    }

    /// Waits until this session answered as many pings as it is to.
    async fn is_held(&self, welcome: &Value) {
        let session = welcome["session_id"].as_str().expect("an id");
        let enough = size::round_trips() as u64;
        // A minute of pings takes longer than a condition may.
        for some in 1..=enough.div_ceil(20) {
            let wanted = (some * 20).min(enough);
            eventually("answered pings", async || {
                let shown: Value =
                    self.get(&format!("/debug/connections/{session}")).await.json().await.expect("JSON");
                let pongs = find(&shown, "pongs_received").and_then(|pongs| pongs.as_u64());
                (pongs.unwrap_or_else(|| panic!("no pongs in {shown}")) >= wanted).then_some(())
            })
            .await;
        }
    }

    /// Holds that it ended as its device said.
    async fn ended(&self, welcome: &Value, code: impl Into<Value>) {
        let (session, code) = (welcome["session_id"].clone(), code.into());
        let end = eventually("the end record", async || {
            let page: Value = self.get("/v1/events?limit=1000").await.json().await.expect("JSON");
            let events = page["events"].as_array().expect("events").clone();
            events.into_iter().find(|event| {
                event["type"] == "lastpong.session.disconnected.v1" && event["data"]["session_id"] == session
            })
        })
        .await;
        let data = &end["data"];
        let told = json!([data["reason"], data["initiator"], data["detected_by"], data["close_code"]]);
        assert_eq!(told, json!(["client_closed", "device", "close_frame", code]), "{end}");
    }

    /// One that says its welcome, is held, is told to leave, and says how it ended.
    async fn holds(&self, mut script: Script) {
        let welcome = script.next("welcome").await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        self.is_held(&welcome).await;
        assert_eq!(script.ask("closed").await, 1000);
        self.ended(&welcome, 1000).await;
    }

    async fn python(&self, library: &str) {
        let (url, token, ca) = (self.url(), token(library), self.authority.pem());
        let arguments = [library, &url, &token, text(&ca)];
        self.holds(Script::start(library, include_str!("python/clients.py"), &arguments).await).await;
    }
}

/// The value of this name, wherever it is.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => fields.get(name).or_else(|| fields.values().find_map(|v| find(v, name))),
        _ => None,
    }
}

#[tokio::test]
async fn python_websockets() {
    Node::start().await.python("websockets").await;
}

#[tokio::test]
async fn python_websocket_client() {
    Node::start().await.python("websocket").await;
}

#[tokio::test]
async fn python_aiohttp() {
    Node::start().await.python("aiohttp").await;
}

#[tokio::test]
async fn node_ws() {
    let modules = std::env::var_os("TEST_NODE_PATH").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/node/node_modules"),
        Into::into,
    );
    assert!(
        modules.join("ws").is_dir(),
        "there is no `ws` in {} (`scripts/setup` installs it; TEST_NODE_PATH may name another folder)",
        modules.display()
    );
    let node = Node::start().await;
    let mut command = Command::new("node");
    command.env("NODE_PATH", modules).args(["-e", include_str!("support/node_client.cjs")]);
    command.args([&node.url(), &token("node"), text(&node.authority.pem())]);
    node.holds(Script::of(command)).await;
}

/// `scripts/setup` installs it, without TLS, which would need a library of the system's: the node is a plain one.
#[tokio::test]
async fn websocat() {
    let node = Node::plain().await;
    let mut command = Command::new("websocat");
    // One frame a line, both ways. Asked to read a pipe without blocking, it blocks now and then.
    command
        .arg("--no-async-stdio")
        .arg(node.url())
        .arg("-H")
        .arg(format!("Authorization: Bearer {}", token("websocat")));
    let mut script = Script::of(command);
    let welcome = script.line("a welcome").await;
    node.is_held(&welcome).await;
    script.write("{\"type\":\"heartbeat\",\"id\":7}\n").await;
    assert_eq!(script.line("an ack").await["id"], 7);
    script.leave();
    // It closes without a code.
    node.ended(&welcome, Value::Null).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium() {
    let node = Node::start().await;
    let browser = Chromium::start(&node.server).await;
    browser.go("/login").await;
    browser
        .script(&format!(
            "const s = new WebSocket(`wss://${{location.host}}/ws`, ['lastpong.v1', 'token.{}']);
             s.onmessage = (m) => window.welcome ??= JSON.parse(m.data);
             s.onclose = (e) => window.ended = [e.code, e.wasClean, s.protocol];
             window.socket = s;",
            token("browser")
        ))
        .await;
    browser.until("a welcome", "return !!window.welcome").await;
    let welcome = browser.script("return window.welcome").await;
    node.is_held(&welcome).await;
    browser.script("window.socket.close(1000)").await;
    browser.until("the end", "return !!window.ended").await;
    assert_eq!(browser.script("return window.ended").await, json!([1000, true, "lastpong.v1"]));
    node.ended(&welcome, 1000).await;
    browser.close().await;
}
