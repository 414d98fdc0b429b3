//! The Redis of a run: it keeps what it was told through a SIGKILL, and can be emptied, full and read-only.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::net::Net;
use super::part::Part;
use super::process::{Process, clean};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Redis {
    net: Arc<Net>,
    process: Option<Process>,
    runs: u32,
    folder: PathBuf,
    logs: PathBuf,
}

impl Redis {
    /// Makes one with its data in `folder`, and starts it.
    ///
    /// # Errors
    /// Where Redis is not installed or does not start.
    pub async fn start(net: &Arc<Net>, folder: &Path, logs: &Path) -> anyhow::Result<Self> {
        let mut redis = Self {
            net: net.clone(),
            process: None,
            runs: 0,
            folder: folder.to_owned(),
            logs: logs.to_owned(),
        };
        redis.run().await?;
        Ok(redis)
    }

    pub fn url() -> String {
        format!("redis://{}:6379", Part::Redis.ip())
    }

    /// How it ended, where it did although it should run.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.ended()
    }

    /// Starts it, if it does not run, and waits until it answers.
    ///
    /// # Errors
    /// Where it does not come up.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        if self.process.as_mut().is_none_or(|process| process.ended().is_some()) {
            self.runs += 1;
            let mut command = clean(Path::new("redis-server"));
            command.current_dir(&self.folder).args([
                "--bind",
                "0.0.0.0",
                "--port",
                "6379",
                "--protected-mode",
                "no",
            ]);
            command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]);
            let log = self.logs.join(format!("redis-{}.log", self.runs));
            self.process = Some(Process::start(&self.net, Part::Redis, command, &log)?);
        }
        let deadline = Instant::now() + PATIENCE;
        while self.tell(&["PING"]).await.is_err() {
            ensure!(Instant::now() < deadline, "redis does not come up: see {}", self.logs.display());
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub fn kill(&mut self) {
        self.process = None;
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// Writes are refused, as by a replica after a failover, or taken again.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn read_only(&self, on: bool) -> anyhow::Result<()> {
        // Its new master is nobody, so that it keeps what it has.
        let master = if on { ["127.0.0.1", "1"] } else { ["NO", "ONE"] };
        self.tell(&[&["REPLICAOF"], &master[..]].concat()).await
    }

    /// Writes are refused for want of memory, or taken again.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn full(&self, on: bool) -> anyhow::Result<()> {
        self.tell(&["CONFIG", "SET", "maxmemory", if on { "1" } else { "0" }]).await
    }

    /// All it had is gone.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn empty(&self) -> anyhow::Result<()> {
        self.tell(&["FLUSHALL"]).await
    }

    /// Ends it in order, if it is there.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM);
            process.ends_within(PATIENCE).await;
        }
    }

    async fn tell(&self, words: &[&str]) -> anyhow::Result<()> {
        let (first, rest) = words.split_first().context("a command has a name")?;
        let mut connection = connect(Duration::from_secs(5)).await?;
        redis::cmd(first).arg(rest).query_async::<redis::Value>(&mut connection).await?;
        Ok(())
    }
}

/// A connection to it that waits so long for an answer.
///
/// # Errors
/// Where it does not take one.
pub async fn connect(patience: Duration) -> redis::RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(5)))
        .set_response_timeout(Some(patience));
    redis::Client::open(Redis::url())?.get_multiplexed_async_connection_with_config(&config).await
}
