//! The same ends with a public client that we did not write: Python's `websockets`.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::python::Script;
use crate::support::{Device, End, Events, Server, Token, token};

const SCRIPT: &str = include_str!("python/device.py");

struct Python {
    script: Script,
    session_id: String,
}

impl Python {
    /// Connects a device that then does `what`.
    async fn connect(server: &Server, token: &str, what: &str) -> Self {
        let url = format!("ws://{}/ws", server.addr);
        let mut script = Script::start("websockets.asyncio.client", SCRIPT, &[&url, token, what]).await;
        let welcome = script.next("welcome").await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        let session_id = welcome["session_id"].as_str().expect("a session id").to_owned();
        Self { script, session_id }
    }

    /// Holds that the device saw `code`, and that its session ended as `end`.
    async fn ends(mut self, server: &Server, code: impl Into<Value>, end: End) {
        assert_eq!(self.script.next("closed").await, code.into());
        end.check(&Events::new().only_end(server, &self.session_id).await);
    }
}

#[tokio::test]
async fn it_is_acknowledged_and_leaves() {
    let server = Server::start(&[]).await;
    let mut python = Python::connect(&server, &token("talker"), "heartbeat").await;
    assert_eq!(python.script.next("answer").await["id"], "from python");
    assert_eq!(python.script.next("answer").await["headers"]["mid"], "from python");
    python.ends(&server, 1000, End::by("client_closed").code(1000)).await;
}

#[tokio::test]
async fn it_closes_with_a_code_of_its_own() {
    let server = Server::start(&[]).await;
    let python = Python::connect(&server, &token("closer"), "close").await;
    python.ends(&server, 4321, End::by("client_closed").code(4321)).await;
}

#[tokio::test]
async fn it_says_bye() {
    let server = Server::start(&[]).await;
    let python = Python::connect(&server, &token("polite"), "bye").await;
    python.ends(&server, 1000, End::by("client_closed").code(1000)).await;
}

#[tokio::test]
async fn it_answers_pings_and_is_kept() {
    let settings = [("PING_INTERVAL", "200ms"), ("PONG_TIMEOUT", "5s"), ("MAX_MISSED_PONGS", "1")];
    let server = Server::start(&settings).await;
    let python = Python::connect(&server, &token("steady"), "hold").await;
    crate::support::eventually("ten round trips", async || {
        (server.metric("lastpong_ping_rtt_seconds_count").await >= Some(10.0)).then_some(())
    })
    .await;
    assert_eq!(server.live().await, 1);
    python.script.signal(Signal::KILL);
    End::by("read_error").check(&Events::new().only_end(&server, &python.session_id).await);
}

#[tokio::test]
async fn it_is_stopped_and_times_out() {
    let settings = [("PING_INTERVAL", "500ms"), ("PONG_TIMEOUT", "1s"), ("MAX_MISSED_PONGS", "1")];
    let server = Server::start(&settings).await;
    let python = Python::connect(&server, &token("frozen"), "hold").await;
    // A stopped process keeps its socket, and neither reads nor answers.
    python.script.signal(Signal::STOP);
    End::by("pong_timeout").check(&Events::new().only_end(&server, &python.session_id).await);
    // When it goes on, it finds out.
    python.script.signal(Signal::CONT);
    let mut python = python;
    python.script.next("closed").await;
}

#[tokio::test]
async fn it_sends_too_much_at_once() {
    let server = Server::start(&[]).await;
    let python = Python::connect(&server, &token("verbose"), "big").await;
    python.ends(&server, 1009, End::by("message_too_big")).await;
}

#[tokio::test]
async fn it_sends_too_often() {
    let server = Server::start(&[("FRAMES_PER_SEC", "20")]).await;
    let python = Python::connect(&server, &token("hasty"), "flood").await;
    python.ends(&server, 4013, End::by("rate_limited")).await;
}

#[tokio::test]
async fn it_is_replaced() {
    let server = Server::start(&[]).await;
    let python = Python::connect(&server, &token("twin"), "hold").await;
    let _twin = Device::connect(&server, "twin").await;
    python.ends(&server, 4509, End::by("replaced")).await;
}

#[tokio::test]
async fn its_token_runs_out() {
    let server = Server::start(&[]).await;
    let python = Python::connect(&server, &Token::of("guest").expires_in(10).mint(), "hold").await;
    python.ends(&server, 4005, End::by("token_expired")).await;
}

#[tokio::test]
async fn it_is_drained() {
    let mut server = Server::start(&[]).await;
    let mut python = Python::connect(&server, &token("drained"), "hold").await;
    server.signal(Signal::TERM);
    assert_eq!(python.script.next("closed").await, 1001);
    assert_eq!(server.exited().await.code(), Some(0));
    let server = server.restart().await;
    End::by("draining").check(&Events::new().only_end(&server, &python.session_id).await);
}
