//! A lastpong of the bench: the program as it is released, with its own data and secrets, on stores of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Map, Value};
use tempfile::TempDir;

use super::Subject;
use crate::postgres::Postgres;
use crate::process::{Process, clean};
use crate::redis_server::Redis;
use crate::watch::http::Http;
use crate::world::World;

/// Where its record and its live state are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// SQLite, and nothing else.
    Embedded,
    /// Postgres and Redis.
    Stores,
}

/// As a Postgres is set up for such work: it waits for its disk, and makes no checkpoint within a measurement.
pub const POSTGRES: [&str; 4] =
    ["fsync=on", "full_page_writes=on", "shared_buffers=512MB", "max_wal_size=4GB"];

/// How long the ends of what has left may take to be recorded.
const ENDED_WITHIN: Duration = Duration::from_secs(120);

pub struct Lastpong {
    // It is gone before what it works on is.
    process: Process,
    pub addr: SocketAddr,
    pub http: Http,
    pub stores: Option<Arc<Stores>>,
    pub data: TempDir,
    settings: Vec<(String, String)>,
    token_secret: String,
}

/// Servers of the nodes that hold them, gone with the last.
pub struct Stores {
    pub postgres: Postgres,
    pub redis: Redis,
}

impl Stores {
    /// Starts them, Postgres with these settings beside those of every row.
    pub fn start(more: &[&str]) -> Arc<Self> {
        let postgres = Postgres::start_with(&[&POSTGRES[..], more].concat());
        Arc::new(Self { postgres, redis: Redis::start_with(&["--appendonly", "no"]) })
    }
}

impl Lastpong {
    /// Starts one with these settings (names without `LASTPONG_`) beside the bench's own.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start(world: &World, subject: Subject, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_under(world, subject, settings, &[])
    }

    /// The same, run by a program with these arguments, as valgrind is.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start_under(
        world: &World,
        subject: Subject,
        settings: &[(&str, &str)],
        under: &[&str],
    ) -> anyhow::Result<Self> {
        let program = match subject {
            Subject::Other => world.other.as_ref().context("there is no other lastpong")?,
            _ => &world.lastpong,
        };
        let stores = (subject == Subject::Lastpong(Setup::Stores)).then(|| Stores::start(&[]));
        Self::run(program, world.workers, "bench", stores, settings, under)
    }

    /// One node of several on these stores.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start_node(
        world: &World,
        name: &str,
        stores: &Arc<Stores>,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        Self::run(&world.lastpong, world.workers, name, Some(stores.clone()), settings, &[])
    }

    fn run(
        program: &Path,
        workers: u32,
        name: &str,
        stores: Option<Arc<Stores>>,
        settings: &[(&str, &str)],
        under: &[&str],
    ) -> anyhow::Result<Self> {
        let data = TempDir::with_prefix("lastpong-bench-")?;
        let mut command = match under.split_first() {
            None => clean(program),
            Some((runner, arguments)) => {
                let mut command = clean(runner.as_ref());
                command.args(arguments).arg(program);
                command
            }
        };
        let settings: Vec<(String, String)> =
            settings.iter().map(|(name, value)| (format!("LASTPONG_{name}"), (*value).to_owned())).collect();
        let [token_secret, admin] = [(); 2].map(|()| format!("{:032x}", rand::random::<u128>()));
        command.arg("serve").current_dir(data.path());
        command.env("RUST_LOG", "warn").env("LASTPONG_BIND", "127.0.0.1:0");
        command.env("LASTPONG_NODE_ID", name).env("LASTPONG_DATA_DIR", data.path().join("data"));
        command.env("LASTPONG_TOKEN_SECRET", &token_secret).env("LASTPONG_ADMIN_TOKEN", &admin);
        command.env("LASTPONG_WORKERS", workers.to_string());
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        if let Some(stores) = &stores {
            command.env("DATABASE_URL", stores.postgres.url()).env("REDIS_URL", stores.redis.url());
        }
        let mut process = Process::start(command, &data.path().join("log"))?;
        let said = process.says("dashboard: http://")?;
        let addr = said.trim_end_matches('/').parse().with_context(|| format!("no address: {said}"))?;
        let http = Http::new(addr, &admin);
        Ok(Self { process, addr, http, stores, data, settings, token_secret })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn token_secret(&self) -> &str {
        &self.token_secret
    }

    /// The settings that are not as they are by default, and bear on what is measured.
    pub fn told(&self) -> Map<String, Value> {
        let mut told: Map<String, Value> =
            self.settings.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        if self.stores.is_some() {
            told.insert("postgres".into(), POSTGRES.join(" ").into());
            told.insert("redis".into(), "appendonly=no".into());
        }
        told
    }

    /// A metric, over all its labels.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let metrics = self.http.get("/metrics")?;
        let of = |line: &&str| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']);
        Ok(metrics.lines().filter(of).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    /// A metric by its one label, as `name{label="value"}`.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn by_label(&self, name: &str) -> anyhow::Result<Vec<(String, f64)>> {
        let metrics = self.http.get("/metrics")?;
        let one = |line: &str| {
            let (label, value) = line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} ")?;
            Some((label.split('"').nth(1)?.to_owned(), value.parse().ok()?))
        };
        Ok(metrics.lines().filter_map(one).collect())
    }

    /// Calls of the SQL store so far that did this, and the seconds that they took together.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn store_calls(&self, op: &str) -> anyhow::Result<(f64, f64)> {
        let metrics = self.http.get("/metrics")?;
        let one = |name: &str| {
            let of_op = |line: &&str| {
                line.starts_with(name)
                    && line.contains(r#"store="sql""#)
                    && line.contains(&format!("op=\"{op}\""))
            };
            let value = metrics.lines().find(of_op).and_then(|line| line.rsplit_once(' ')?.1.parse().ok());
            value.unwrap_or_default()
        };
        Ok((one("lastpong_store_seconds_count{"), one("lastpong_store_seconds_sum{")))
    }

    pub fn has_ended(&self, sessions: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + ENDED_WITHIN;
        loop {
            let ended = self.metric("lastpong_disconnects_total")?;
            if ended >= sessions as f64 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{ended} of {sessions} sessions ended in {ENDED_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
