//! One lastpong of a run: started, asked, stopped, killed and started again on the same data.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::Value;

use super::Options;
use super::clock::Clock;
use super::disk::Disk;
use super::net::Net;
use super::part::Part;
use super::postgres::Postgres;
use super::process::{Process, clean};
use super::redis::Redis;

pub const PORT: u16 = 8080;
pub const PING_INTERVAL: Duration = Duration::from_secs(3);
pub const PONG_TIMEOUT: Duration = Duration::from_secs(2);
pub const LEASE: Duration = Duration::from_secs(5);
pub const DRAIN_SPREAD: Duration = Duration::from_secs(2);

pub struct Node {
    pub part: Part,
    net: Arc<Net>,
    program: PathBuf,
    settings: Vec<(String, String)>,
    logs: PathBuf,
    process: Option<Process>,
    runs: u32,
    pub disk: Disk,
    pub clock: Option<Clock>,
}

/// What everyone who speaks to nodes needs.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    pub admin_token: Arc<str>,
}

impl Node {
    /// Prepares one with its data in `folder`; it does not run yet.
    ///
    /// # Errors
    /// Where it can have no disk.
    pub fn prepare(
        part: Part,
        net: &Arc<Net>,
        options: &Options,
        secrets: &Secrets,
        folder: &Path,
        logs: &Path,
        clock: Option<Clock>,
    ) -> anyhow::Result<Self> {
        let disk = Disk::mount(folder)?;
        let seconds = |duration: Duration| format!("{}s", duration.as_secs());
        let own = [
            ("BIND", format!("{}:{PORT}", part.ip())),
            ("NODE_ID", part.to_string()),
            ("DATA_DIR", disk.root().join("data").display().to_string()),
            ("TOKEN_SECRET", secrets.token.clone()),
            ("ADMIN_TOKEN", secrets.admin.clone()),
            ("PING_INTERVAL", seconds(PING_INTERVAL)),
            ("PONG_TIMEOUT", seconds(PONG_TIMEOUT)),
            ("MAX_MISSED_PONGS", options.max_missed.to_string()),
            ("NODE_LEASE", seconds(LEASE)),
            ("UPDATE_INTERVAL", "2s".to_owned()),
            ("DRAIN_SPREAD", seconds(DRAIN_SPREAD)),
        ];
        let mut settings: Vec<_> =
            own.into_iter().map(|(name, value)| (format!("LASTPONG_{name}"), value)).collect();
        if !options.lacking.is_empty() {
            settings.push(("CHAOS_WITHOUT".to_owned(), options.lacking.join(",")));
        }
        if options.schedule.setup.has_stores() {
            settings.push(("DATABASE_URL".to_owned(), Postgres::url()));
            settings.push(("REDIS_URL".to_owned(), Redis::url()));
        }
        let (net, program, logs) = (net.clone(), options.lastpong.clone(), logs.to_owned());
        Ok(Self { part, net, program, settings, logs, process: None, runs: 0, disk, clock })
    }

    /// Starts it on what data it has.
    ///
    /// # Errors
    /// Where the program can not be run.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.runs += 1;
        let mut command = clean(&self.program);
        command.arg("serve").current_dir(self.disk.root()).envs(self.settings.iter().cloned());
        if let Some(clock) = &self.clock {
            clock.rule(&mut command);
        }
        let log = self.logs.join(format!("{}-{}.log", self.part, self.runs));
        let process = self.process.insert(Process::start(&self.net, self.part, command, &log)?);
        self.clock.as_ref().map_or(Ok(()), |clock| clock.rules(process.pid()))
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGTERM, and waits until it ended.
    ///
    /// # Errors
    /// Where it did not end in time, and had to be killed, or did not end well.
    pub async fn stop(&mut self, patience: Duration) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal(Signal::TERM);
        let log = process.log().display().to_string();
        let status = process.ends_within(patience).await;
        let status =
            status.with_context(|| format!("{} did not stop in {patience:?}: see {log}", self.part))?;
        ensure!(status.success(), "{} ended with {status} when told to stop: see {log}", self.part);
        Ok(())
    }

    /// How it ended by itself, where it did, and where it says why.
    pub fn ended(&mut self) -> Option<(ExitStatus, PathBuf)> {
        let process = self.process.as_mut()?;
        process.ended().map(|status| (status, process.log().to_owned()))
    }
}

/// The secrets of one run.
pub struct Secrets {
    pub token: String,
    pub admin: String,
}

impl Secrets {
    pub fn new() -> Self {
        let new = || format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        Self { token: new(), admin: new() }
    }
}

impl Api {
    /// # Errors
    /// Where there can be no HTTP client.
    pub fn new(secrets: &Secrets) -> anyhow::Result<Self> {
        // A connection kept for later may be closed by the node just as the next request is sent on it.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build()?;
        Ok(Self { http, admin_token: secrets.admin.as_str().into() })
    }

    pub fn url(node: Part, path: &str) -> String {
        format!("http://{}:{PORT}{path}", node.ip())
    }

    pub fn request(&self, method: Method, node: Part, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, Self::url(node, path)).bearer_auth(&self.admin_token)
    }

    /// The JSON at `path`.
    ///
    /// # Errors
    /// Where there is no answer in ten seconds, or it is not 200 with JSON.
    pub async fn json(&self, node: Part, path: &str) -> anyhow::Result<Value> {
        let request = self.request(Method::GET, node, path).header("Accept", "application/json");
        let answer = request.timeout(Duration::from_secs(10)).send().await?;
        let status = answer.status();
        let body = answer.text().await?;
        ensure!(status == 200, "GET {path} of {node}: {status}: {body}");
        serde_json::from_str(&body).with_context(|| format!("GET {path} of {node}: {body}"))
    }

    /// Whether the node would admit devices now.
    pub async fn is_ready(&self, node: Part) -> bool {
        let request = self.request(Method::GET, node, "/readyz").timeout(Duration::from_secs(3));
        request.send().await.is_ok_and(|answer| answer.status() == 200)
    }

    /// Whether the node has all that it depends on, and nothing left in its journal.
    pub async fn is_whole(&self, node: Part) -> bool {
        let Ok(report) = self.json(node, "/readyz").await else { return false };
        let verdicts = report["dependencies"].as_array();
        let all = verdicts.is_some_and(|all| all.iter().all(|verdict| verdict["ok"] == true));
        all && matches!(self.metric(node, "lastpong_journal_entries").await, Ok(None | Some(0.0)))
    }

    /// A sample of `/metrics`, `None` before its first.
    async fn metric(&self, node: Part, sample: &str) -> anyhow::Result<Option<f64>> {
        let request = self.request(Method::GET, node, "/metrics").timeout(Duration::from_secs(5));
        let text = request.send().await?.error_for_status()?.text().await?;
        Ok(text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.trim().parse().ok()))
    }
}
