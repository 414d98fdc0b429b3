//! Live state in Redis. Each command minds one place, so that it works in a cluster as on one server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, cmd};

use crate::ids::{DeviceId, NodeId, SessionId};
use crate::metrics::Metrics;

use super::link::RedisLink;
use super::{Heartbeat, LiveError, LivePage, LiveSession, Vitals};

const ACTIVE: &str = "lastpong:active";
/// What `ping` writes; gone at once.
const PING: &str = "lastpong:ping";
/// Sessions in one pipeline.
const CHUNK: usize = 1_000;
/// Sessions in a page, about.
const PAGE: usize = 500;

/// Puts what changes with a heartbeat in the place of what was there, in each session that there is; answers the
/// places in the list of those that there are not. What changes is all the text before the `session_id`.
const BEAT: &str = "
local unknown = {}
for i, key in ipairs(KEYS) do
  local old = redis.call('GET', key)
  local cut = old and string.find(old, ',\"session_id\":', 1, true)
  if cut then
    redis.call('SET', key, ARGV[i + 1] .. string.sub(old, cut), 'PX', ARGV[1])
  else
    unknown[#unknown + 1] = i
  end
end
return unknown";

/// Names each device's session, unless it has a later one. Ids are in the order of time.
const NAME: &str = "
for i, key in ipairs(KEYS) do
  local named = redis.call('GET', key)
  if not named or named <= ARGV[i + 1] then
    redis.call('SET', key, ARGV[i + 1], 'PX', ARGV[1])
  end
end";

/// Takes away what names these sessions, where it still names them.
const UNNAME: &str = "
for i, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[i + 1] then
    redis.call('DEL', key)
  end
end";

#[derive(Clone)]
pub struct RedisLive {
    link: RedisLink,
    ttl: Duration,
    metrics: Arc<Metrics>,
}

impl RedisLive {
    pub(super) fn new(link: RedisLink, ttl: Duration, metrics: Arc<Metrics>) -> Self {
        Self { link, ttl, metrics }
    }

    pub(super) fn link(&self) -> &RedisLink {
        &self.link
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn ttl(&self) -> u64 {
        (self.ttl.as_millis() as u64).max(1)
    }

    pub(super) async fn put(&self, sessions: &[LiveSession]) -> Result<(), LiveError> {
        for some in sessions.chunks(CHUNK) {
            let mut commands = Vec::with_capacity(some.len() + 8);
            for session in some {
                let mut set = cmd("SET");
                set.arg(session_key(session.session_id)).arg(json(session)?).arg("PX").arg(self.ttl());
                commands.push(set);
            }
            let names = some.iter().map(|s| (device_key(&s.device_id), s.session_id.to_string()));
            commands.extend(self.scripts(NAME, names));
            commands.push(active(&[], some.iter().map(|s| (s.session_id, score(&s.vitals, s)))));
            self.link.ask_all::<()>("put", commands).await?;
        }
        Ok(())
    }

    pub(super) async fn remove(&self, sessions: &[(SessionId, DeviceId)]) -> Result<(), LiveError> {
        for some in sessions.chunks(CHUNK) {
            let names = some.iter().map(|(id, device)| (device_key(device), id.to_string()));
            let mut commands = self.scripts(UNNAME, names);
            commands.extend(some.iter().map(|(id, _)| Cmd::del(session_key(*id))));
            commands.push(inactive(some.iter().map(|(id, _)| *id)));
            self.link.ask_all::<()>("remove", commands).await?;
        }
        Ok(())
    }

    pub(super) async fn update(&self, heartbeats: &[Heartbeat]) -> Result<Vec<SessionId>, LiveError> {
        let mut unknown = Vec::new();
        let counts = &self.metrics.live.heartbeat_updates;
        for some in heartbeats.chunks(CHUNK) {
            let began = Instant::now();
            let updated = self.update_some(some).await;
            self.metrics.live.heartbeat_update_seconds.observe(began.elapsed().as_secs_f64());
            match updated {
                Ok(strangers) => {
                    counts.with_label_values(&["unknown"]).inc_by(strangers.len() as u64);
                    counts.with_label_values(&["written"]).inc_by((some.len() - strangers.len()) as u64);
                    unknown.extend(strangers);
                }
                Err(error) => {
                    counts.with_label_values(&["failed"]).inc_by(some.len() as u64);
                    return Err(error);
                }
            }
        }
        Ok(unknown)
    }

    async fn update_some(&self, heartbeats: &[Heartbeat]) -> Result<Vec<SessionId>, LiveError> {
        let mut beats = Vec::with_capacity(heartbeats.len());
        for beat in heartbeats {
            let mut head = json(&beat.vitals)?;
            // The session's text goes on after it.
            head.pop();
            beats.push((session_key(beat.session_id), head));
        }
        let per_script = self.link.keys_per_script();
        let answers: Vec<Vec<usize>> = self.link.ask_all("heartbeats", self.scripts(BEAT, beats)).await?;
        let places = answers
            .iter()
            .enumerate()
            .flat_map(|(script, places)| places.iter().map(move |place| script * per_script + place - 1));
        let unknown: Vec<_> =
            places.filter_map(|place| heartbeats.get(place)).map(|b| b.session_id).collect();
        // Only where it is: what was removed does not come back by a late heartbeat.
        let scores = heartbeats.iter().filter_map(|b| Some((b.session_id, b.vitals.last_pong_at?.0 / 1000)));
        let ranked = active(&["XX"], scores);
        if ranked.args_iter().len() > 3 {
            self.link.ask::<()>("heartbeats", ranked).await?;
        }
        Ok(unknown)
    }

    pub(super) async fn sessions(&self, ids: &[SessionId]) -> Result<Vec<Option<LiveSession>>, LiveError> {
        let mut found = Vec::with_capacity(ids.len());
        for some in ids.chunks(CHUNK) {
            let commands = some.iter().map(|id| Cmd::get(session_key(*id))).collect();
            let texts: Vec<Option<Vec<u8>>> = self.link.ask_all("sessions", commands).await?;
            found.extend(texts.into_iter().map(parse));
        }
        Ok(found)
    }

    pub(super) async fn keep(
        &self,
        sessions: &[(SessionId, DeviceId)],
    ) -> Result<Vec<Option<Vitals>>, LiveError> {
        let mut found = Vec::with_capacity(sessions.len());
        for some in sessions.chunks(CHUNK) {
            let get = |key: String| {
                let mut get = cmd("GETEX");
                get.arg(key).arg("PX").arg(self.ttl());
                get
            };
            let commands = some
                .iter()
                .flat_map(|(id, device)| [get(session_key(*id)), get(device_key(device)), rank(*id)]);
            let answers: Vec<Option<Vec<u8>>> = self.link.ask_all("keep", commands.collect()).await?;
            for (answer, (id, _)) in answers.chunks_exact(3).zip(some) {
                let [session, named, rank] = answer else { continue };
                let whole = named.as_deref() == Some(id.to_string().as_bytes()) && rank.is_some();
                found.push(parse(session.clone()).filter(|_| whole).map(|session| session.vitals));
            }
        }
        Ok(found)
    }

    pub(super) async fn session_of(&self, device: &DeviceId) -> Result<Option<SessionId>, LiveError> {
        let named: Option<String> = self.link.ask("session_of", Cmd::get(device_key(device))).await?;
        Ok(named.and_then(|id| id.parse().ok()))
    }

    pub(super) async fn page(&self, cursor: u64) -> Result<LivePage, LiveError> {
        let mut scan = cmd("ZSCAN");
        scan.arg(ACTIVE).arg(cursor).arg("COUNT").arg(PAGE);
        let (next, members): (u64, Vec<String>) = self.link.ask("page", scan).await?;
        // Members and their scores take turns. What is no id was not put there by lastpong.
        let ids: Vec<SessionId> = members.iter().step_by(2).filter_map(|id| id.parse().ok()).collect();
        let sessions = self.sessions(&ids).await?;
        Ok(LivePage { sessions: ids.into_iter().zip(sessions).collect(), next })
    }

    pub(super) async fn forget(&self, ids: &[SessionId]) -> Result<(), LiveError> {
        for some in ids.chunks(CHUNK) {
            self.link.ask::<()>("forget", inactive(some.iter().copied())).await?;
        }
        Ok(())
    }

    pub(super) async fn mark(&self, node: &NodeId) -> Result<Option<String>, LiveError> {
        self.link.ask("mark", Cmd::get(node_key(node))).await
    }

    pub(super) async fn set_mark(&self, node: &NodeId, mark: &str) -> Result<(), LiveError> {
        self.link.ask("mark", Cmd::pset_ex(node_key(node), mark, self.ttl())).await
    }

    pub(super) async fn ping(&self) -> Result<(), LiveError> {
        self.link.ask("ping", Cmd::pset_ex(PING, "", 1_000u64)).await
    }

    /// Calls of one script for all these keys, each with its word, as many in a call as may be.
    fn scripts(&self, script: &str, words: impl IntoIterator<Item = (String, String)>) -> Vec<Cmd> {
        let words: Vec<_> = words.into_iter().collect();
        let call = |some: &[(String, String)]| {
            let mut call = cmd("EVAL");
            call.arg(script).arg(some.len());
            some.iter().for_each(|(key, _)| _ = call.arg(key));
            call.arg(self.ttl());
            some.iter().for_each(|(_, word)| _ = call.arg(word));
            call
        };
        words.chunks(self.link.keys_per_script()).map(call).collect()
    }
}

/// By last pong, or by when it connected, in milliseconds.
fn score(vitals: &Vitals, session: &LiveSession) -> i64 {
    vitals.last_pong_at.unwrap_or(session.connected_at).0 / 1000
}

fn active(flags: &[&str], scores: impl Iterator<Item = (SessionId, i64)>) -> Cmd {
    let mut add = cmd("ZADD");
    add.arg(ACTIVE).arg(flags);
    scores.for_each(|(id, score)| _ = add.arg(score).arg(id.to_string()));
    add
}

fn inactive(ids: impl Iterator<Item = SessionId>) -> Cmd {
    let mut take = cmd("ZREM");
    take.arg(ACTIVE);
    ids.for_each(|id| _ = take.arg(id.to_string()));
    take
}

fn rank(id: SessionId) -> Cmd {
    let mut rank = cmd("ZSCORE");
    rank.arg(ACTIVE).arg(id.to_string());
    rank
}

fn session_key(id: SessionId) -> String {
    format!("lastpong:session:{id}")
}

fn device_key(id: &DeviceId) -> String {
    format!("lastpong:device:{id}")
}

fn node_key(id: &NodeId) -> String {
    format!("lastpong:node:{id}")
}

fn json(value: &impl serde::Serialize) -> Result<String, LiveError> {
    serde_json::to_string(value).map_err(|e| LiveError(e.to_string()))
}

/// None where it is not what lastpong wrote: then it is as good as absent, and written anew.
fn parse(text: Option<Vec<u8>>) -> Option<LiveSession> {
    serde_json::from_slice(&text?).ok()
}
