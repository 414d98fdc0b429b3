//! The durable log of events, read page by page.

use std::collections::HashSet;

use serde_json::Value;

use super::{Device, Server, eventually};

pub const CONNECTED: &str = "lastpong.session.connected.v1";
pub const DISCONNECTED: &str = "lastpong.session.disconnected.v1";
pub const NODE_LOST: &str = "lastpong.node.lost.v1";

/// Everything read so far.
#[derive(Default)]
pub struct Events {
    pub all: Vec<Value>,
    after: i64,
    ids: HashSet<String>,
}

impl Events {
    /// A reader from the oldest event on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads what there is; holds that `seq` rises and that no event comes twice.
    pub async fn pull(&mut self, server: &Server) {
        loop {
            // The first page begins at the oldest kept.
            let after = if self.all.is_empty() { String::new() } else { format!("&after={}", self.after) };
            let page = server.json(&format!("/v1/events?limit=1000{after}")).await;
            let events = page["events"].as_array().expect("events in the page").clone();
            let next = page["next_after"].as_i64();
            if events.is_empty() {
                return;
            }
            for event in events {
                let seq = event["data"]["seq"].as_i64().expect("a seq");
                assert!(seq > self.after, "seq {seq} came after {}: {event}", self.after);
                self.after = seq;
                let id = event["id"].as_str().expect("an id").to_owned();
                assert!(self.ids.insert(id), "an event came twice: {event}");
                self.all.push(event);
            }
            assert_eq!(next, Some(self.after), "next_after is the last seq of its page");
        }
    }

    /// The first event that satisfies `wanted`, read or yet to come.
    pub async fn wait_for(&mut self, server: &Server, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut looked_at = 0;
        eventually(what, async || {
            self.pull(server).await;
            let found = self.all[looked_at..].iter().find(|event| wanted(event)).cloned();
            looked_at = self.all.len();
            found
        })
        .await
    }

    /// The one end record of a session.
    ///
    /// Waits for it, then lets a whole further session begin and end, so that a second record would have had its
    /// chance to be written, and holds that there is none.
    pub async fn only_end(&mut self, server: &Server, session_id: &str) -> Value {
        let end = self
            .wait_for(server, &format!("the end of session {session_id}"), |e| is_end_of(e, session_id))
            .await;
        let mut fence = Device::connect(server, &format!("fence-{}", self.all.len())).await;
        let fence_id = fence.session_id();
        fence.close(Some(1000)).await;
        self.wait_for(server, "the end of the fence", |e| is_end_of(e, &fence_id)).await;
        let ends: Vec<_> = self.all.iter().filter(|e| is_end_of(e, session_id)).collect();
        assert_eq!(ends.len(), 1, "a session ends once: {ends:#?}");
        end
    }

    /// Reads until all of these sessions have their end.
    pub async fn until_ended(&mut self, server: &Server, sessions: impl IntoIterator<Item = String>) {
        let mut open: HashSet<String> = sessions.into_iter().collect();
        let mut looked_at = 0;
        eventually("sessions to end", async || {
            self.pull(server).await;
            for event in self.all[looked_at..].iter().filter(|e| e["type"] == DISCONNECTED) {
                open.remove(event["data"]["session_id"].as_str().expect("a session id"));
            }
            looked_at = self.all.len();
            open.is_empty().then_some(())
        })
        .await;
    }

    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.all.iter().filter(move |event| event["type"] == kind)
    }

    pub fn of_device<'a>(&'a self, device_id: &'a str) -> impl Iterator<Item = &'a Value> {
        self.all.iter().filter(move |event| event["subject"] == device_id)
    }
}

pub fn is_end_of(event: &Value, session_id: &str) -> bool {
    event["type"] == DISCONNECTED && event["data"]["session_id"] == session_id
}
