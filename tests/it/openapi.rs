//! The OpenAPI document, held against a running server: by asking for all that it says, and by schemathesis, which makes
//! up requests of its own, good and bad.

use reqwest::Method;
use serde_json::Value;
use tokio::process::Command;

use crate::support::server::ADMIN_TOKEN;
use crate::support::{Device, Events, Server, within};

/// What schemathesis cannot know of the API: which requests never end, and which good ones may be refused.
const SETTINGS: &str = include_str!("python/schemathesis.toml");

/// What streams to whoever asks.
const ENDLESS: [&str; 2] = ["/v1/events", "/debug/live"];

async fn document(server: &Server) -> Value {
    let answer = server.bare(Method::GET, "/openapi.json").send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/json");
    serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON")
}

fn members(item: &Value) -> usize {
    item.as_object().expect("an object").len()
}

#[tokio::test]
async fn every_route_of_the_document_is_there_and_takes_its_methods_alone() {
    let server = Server::start_embedded(&[]).await;
    let document = document(&server).await;
    for (path, item) in document["paths"].as_object().expect("paths") {
        let id = "0199d3f0-0000-7000-8000-000000000000";
        let names = [("{session_id}", id), ("{id}", id), ("{device_id}", "d1"), ("{name}", "app.js")];
        let concrete = names.iter().fold(path.clone(), |path, (name, with)| path.replace(name, with));
        let item = item.as_object().expect("methods");
        for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH] {
            let told = item.contains_key(&method.as_str().to_lowercase());
            if ENDLESS.contains(&path.as_str()) && method == Method::GET {
                continue;
            }
            let asked = server.bare(method.clone(), &concrete).bearer_auth(ADMIN_TOKEN);
            let answer = asked.send().await.expect("an answer");
            let (status, body) = (answer.status().as_u16(), answer.text().await.expect("a body"));
            assert_eq!(status != 405, told, "{method} {path}: {status} {body}");
            assert!(!body.contains("nothing is at"), "{method} {path}: {status} {body}");
        }
    }
}

#[tokio::test]
async fn schemathesis_finds_no_request_that_is_answered_otherwise_than_it_says() {
    let server = Server::start_embedded(&[("RUST_LOG", "warn")]).await;
    // Something to be shown: a live session and one that has ended, with their events.
    let _live = Device::connect(&server, "live-1").await;
    let ended = Device::connect(&server, "ended-1").await;
    let id = ended.session_id();
    drop(ended);
    Events::new().only_end(&server, &id).await;
    let dir = tempfile::tempdir().expect("a directory");
    let settings = dir.path().join("schemathesis.toml");
    std::fs::write(&settings, SETTINGS.replace("TOKEN", ADMIN_TOKEN).replace("SESSION", &id))
        .expect("written");
    let interpreter = std::env::var_os("TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let run = Command::new(interpreter)
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(&settings)
        .args(["run", &server.url("/openapi.json")])
        .current_dir(dir.path())
        .env("COLUMNS", "200")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(std::time::Duration::from_secs(900), run).await;
    let output = output.expect("schemathesis ends").expect("TEST_PYTHON has schemathesis: scripts/setup");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    // All but the document itself, which it has by then, and the dashboard's stream.
    let paths = document(&server).await["paths"].clone();
    let operations: usize = paths.as_object().expect("paths").values().map(members).sum();
    assert!(said.contains(&format!("Tested: {}\n", operations - 2)), "{said}");
    // It may have drained it.
    let undone = server.bare(Method::DELETE, "/v1/node/drain").bearer_auth(ADMIN_TOKEN).send().await;
    assert_eq!(undone.expect("an answer").status(), 200);
    // What it did to the server was not too much for it.
    let (ready, _) = within("an answer", server.readiness()).await;
    assert!(ready);
}
