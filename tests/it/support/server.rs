//! The program under test: started, stopped, stalled, killed and started again on the same data.
//!
//! `TEST_STORE=postgres` puts every program that does not ask for stores of its own on a private Postgres and Redis, so
//! that the same stories are told of both configurations; `sqlite`, the default, leaves it to itself.
//!
//! Its settings come from the environment alone, and nothing of this process's own `LASTPONG_` variables reaches it.
//! It is always ended and waited for, and what it wrote is shown when its test fails.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::token::SECRET;
use super::{PATIENCE, Stores, eventually, within};

pub const ADMIN_TOKEN: &str = "an-admin-token-of-the-tests-0123456789";

/// One lastpong.
pub struct Server {
    pub addr: SocketAddr,
    dir: Arc<TempDir>,
    settings: BTreeMap<String, String>,
    child: Child,
    said: Arc<Mutex<String>>,
    http: reqwest::Client,
    /// Where it has some to itself: they last as long as it, over restarts.
    stores: Option<Stores>,
}

impl Server {
    /// Starts one with these settings (names without `LASTPONG_`), on the stores that `TEST_STORE` names, and waits until
    /// it says where it listens.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        match std::env::var("TEST_STORE").as_deref() {
            Err(_) | Ok("sqlite") => Self::start_embedded(settings).await,
            Ok("postgres") => {
                let stores = Stores::start().await;
                let mut server = Self::start_on(&stores, settings).await;
                server.stores = Some(stores);
                server
            }
            Ok(other) => panic!("TEST_STORE is {other}; allowed: sqlite or postgres"),
        }
    }

    /// The same on these stores, which its test holds; a setting of a store's address goes before theirs.
    pub async fn start_on(stores: &Stores, settings: &[(&str, &str)]) -> Self {
        let (postgres, redis) = (stores.postgres.url(), stores.redis.url());
        let on_them = [("DATABASE_URL", postgres.as_str()), ("REDIS_URL", &redis)];
        Self::start_embedded(&[&on_them[..], settings].concat()).await
    }

    /// The same with nothing but what the settings say: with SQLite and without Redis, where they name no store.
    pub async fn start_embedded(settings: &[(&str, &str)]) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a directory for the data"));
        let mut all: BTreeMap<String, String> = [
            ("BIND", "127.0.0.1:0"),
            ("NODE_ID", "node-1"),
            ("TOKEN_SECRET", SECRET),
            ("ADMIN_TOKEN", ADMIN_TOKEN),
            ("HANDSHAKES_PER_SEC", "100000"),
            ("MAX_SESSIONS_PER_IP", "100000"),
            ("DRAIN_SPREAD", "0s"),
            // Devices of the tests come and go as no other does.
            ("FLAP_COUNT", "10000"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Self::run(dir, all).await
    }

    /// Starts it again on the same data, after it ended.
    pub async fn restart(mut self) -> Self {
        self.exited().await;
        let stores = self.stores.take();
        let mut server = Self::run(self.dir.clone(), std::mem::take(&mut self.settings)).await;
        server.stores = stores;
        server
    }

    async fn run(dir: Arc<TempDir>, settings: BTreeMap<String, String>) -> Self {
        let mut child = command(&dir, &settings).spawn().expect("the program can be started");
        let said = Arc::new(Mutex::new(String::new()));
        let (found, address) = oneshot::channel();
        collect(child.stderr.take().expect("piped"), said.clone(), None);
        collect(child.stdout.take().expect("piped"), said.clone(), Some(found));
        // A connection kept for later may be closed by the server just as the next request is sent on it.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build();
        let http = http.expect("an HTTP client");
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server = Self { addr: nowhere, dir, settings, child, said, http, stores: None };
        server.addr = within("the program to say where it listens", address)
            .await
            .expect("the program ended before it said where it listens");
        server
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it was started with.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a pid");
        kill_process(pid, signal).expect("the program is there to be told");
    }

    /// SIGSTOP, and waits until it stands still: each thread of it, which takes a moment where the machine is busy.
    pub async fn freeze(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        let stands = |task: std::io::Result<std::fs::DirEntry>| {
            // The name before the state may have any character in it; a thread may have ended meanwhile.
            let stat = std::fs::read_to_string(task.expect("a thread").path().join("stat"));
            stat.map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
        };
        eventually("the program to stand still", async || {
            std::fs::read_dir(&tasks).expect("the program is there").all(stands).then_some(())
        })
        .await;
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.exited().await;
    }

    /// Waits until it ended by itself or by a signal sent before.
    pub async fn exited(&mut self) -> ExitStatus {
        eventually("the program to end", async || self.child.try_wait().expect("a child to wait for")).await
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child to wait for").is_none()
    }

    /// All that it wrote, standard output and error together.
    pub fn said(&self) -> String {
        self.said.lock().expect("no reader panicked").clone()
    }

    /// Resident bytes, as the kernel counts them.
    pub fn resident_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("/proc of the program");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS in /proc/PID/status");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("kilobytes") * 1024
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// A request without a token or anything else.
    pub fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path)).timeout(PATIENCE)
    }

    /// A GET of JSON as the admin.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.bare(Method::GET, path).bearer_auth(ADMIN_TOKEN).header("Accept", "application/json")
    }

    /// The JSON at `path`, as the admin.
    ///
    /// # Panics
    /// When the answer is not 200 with JSON.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).send().await.unwrap_or_else(|e| panic!("GET {path}: {e}"));
        let status = answer.status();
        let body = answer.text().await.unwrap_or_else(|e| panic!("GET {path}: {e}"));
        assert_eq!(status, 200, "GET {path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("GET {path}: {e}: {body}"))
    }

    /// Status and body of a GET as the admin.
    pub async fn status(&self, path: &str) -> (u16, String) {
        let answer = self.get(path).send().await.unwrap_or_else(|e| panic!("GET {path}: {e}"));
        (answer.status().as_u16(), answer.text().await.unwrap_or_default())
    }

    /// One sample of `/metrics`, by its name and labels as they are written there, `None` before its first.
    pub async fn metric(&self, sample: &str) -> Option<f64> {
        let (status, text) = self.status("/metrics").await;
        assert_eq!(status, 200, "GET /metrics: {text}");
        text.lines().find_map(|l| l.strip_prefix(sample)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// Whether `/readyz` would have devices admitted, and its verdict on each dependency by name.
    pub async fn readiness(&self) -> (bool, BTreeMap<String, bool>) {
        let (status, body) = self.status("/readyz").await;
        let report: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}"));
        let all = report["dependencies"].as_array().unwrap_or_else(|| panic!("no dependencies: {body}"));
        let verdict = |d: &Value| Some((d["name"].as_str()?.to_owned(), d["ok"].as_bool()?));
        let verdicts = all.iter().map(|d| verdict(d).unwrap_or_else(|| panic!("no verdict: {d}"))).collect();
        (status == 200, verdicts)
    }

    /// Waits until it is ready and has all of its dependencies, and its journal is moved to the store.
    pub async fn whole(&self) {
        eventually("a node that has all it needs", async || {
            let (ready, verdicts) = self.readiness().await;
            let empty = self.metric("lastpong_journal_entries").await.is_none_or(|entries| entries == 0.0);
            (ready && verdicts.values().all(|ok| *ok) && empty).then_some(())
        })
        .await;
    }

    /// How many sessions are live on this node, by the debug page.
    pub async fn live(&self) -> u64 {
        let node = self.setting("NODE_ID").expect("a node has a name");
        self.json(&format!("/debug/connections?node={node}&limit=1")).await["total"]
            .as_u64()
            .expect("a total")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A stopped process does not die of SIGTERM; SIGKILL ends any.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- what lastpong said ---\n{}--- end ---",
                self.said.lock().map_or_else(|e| e.into_inner().clone(), |s| s.clone())
            );
        }
    }
}

/// The program with a clean environment, working where no `.env` lies.
fn command(dir: &TempDir, settings: &BTreeMap<String, String>) -> Command {
    let mut command = lastpong();
    command.current_dir(dir.path());
    command.env("LASTPONG_DATA_DIR", dir.path().join("data"));
    for (name, value) in settings {
        match name.as_str() {
            "RUST_LOG" | "DATABASE_URL" | "REDIS_URL" | "OTEL_EXPORTER_OTLP_ENDPOINT" => {
                command.env(name, value)
            }
            _ => command.env(format!("LASTPONG_{name}"), value),
        };
    }
    command.arg("serve").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The built program, or the one that `TEST_LASTPONG` names (a release build with the feature `chaos`, say), knowing
/// nothing of this process's environment but where programs and homes lie.
pub fn lastpong() -> Command {
    let program = std::env::var_os("TEST_LASTPONG").unwrap_or_else(|| env!("CARGO_BIN_EXE_lastpong").into());
    let mut command = Command::new(program);
    command.env_clear();
    for name in ["PATH", "HOME", "LANG"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// What a run that should end by itself came to.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `command` to its end; kills it, and fails, if it has none.
pub fn run_to_end(mut command: Command) -> Run {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started");
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("a child to wait for").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let output = child.wait_with_output().expect("output");
            panic!("the program did not end by itself; it said {}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().expect("output");
    Run {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Keeps what comes out of `pipe`, and tells the address once it is said.
fn collect(
    pipe: impl Read + Send + 'static,
    said: Arc<Mutex<String>>,
    mut found: Option<oneshot::Sender<SocketAddr>>,
) {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(pipe);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            let said_at = text.trim().strip_prefix("dashboard: ");
            let address =
                said_at.and_then(|url| url.split_once("://")).map(|(_, a)| a.trim_end_matches('/').parse());
            if let (Some(Ok(address)), Some(sender)) =
                (address, found.take_if(|_| text.starts_with("dashboard:")))
            {
                let _ = sender.send(address);
            }
            said.lock().expect("no reader panicked").push_str(&text);
            line.clear();
        }
    });
}
