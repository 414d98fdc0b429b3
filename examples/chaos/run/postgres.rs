//! The Postgres of a run, as an operator would have it: what is committed is on its disk (`fsync` on), and the disk is
//! small enough to be full.
//!
//! It refuses root, so it runs as the user `postgres` or `nobody`. Its shared memory is in files of its own folder where
//! it may be, so that one that is killed leaves little behind.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep, timeout};

use super::clock::Clock;
use super::disk::Disk;
use super::net::Net;
use super::part::Part;
use super::process::{Process, clean};

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(10);

pub struct Postgres {
    net: Arc<Net>,
    process: Option<Process>,
    runs: u32,
    logs: PathBuf,
    pub disk: Disk,
    pub clock: Option<Clock>,
}

impl Postgres {
    /// Makes one with its data in `folder`, and starts it.
    ///
    /// # Errors
    /// Where Postgres is not installed or does not start.
    pub async fn start(
        net: &Arc<Net>,
        folder: &Path,
        logs: &Path,
        clock: Option<Clock>,
    ) -> anyhow::Result<Self> {
        let disk = Disk::mount(folder)?;
        let owner = Owner::find()?;
        std::os::unix::fs::chown(disk.root(), Some(owner.uid), Some(owner.gid))?;
        let data = disk.root().join("data");
        let mut initdb = clean(&program("initdb")?);
        initdb.arg("-D").arg(&data).args(["-U", "lastpong", "-A", "trust", "-E", "UTF8", "--locale=C"]);
        initdb.args(["--no-sync", "--no-instructions"]).current_dir("/").uid(owner.uid).gid(owner.gid);
        let output = tokio::task::block_in_place(|| initdb.output()).context("initdb can not be run")?;
        ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        File::options()
            .append(true)
            .open(data.join("pg_hba.conf"))?
            .write_all(b"host all all samenet trust\n")?;
        let mut postgres =
            Self { net: net.clone(), process: None, runs: 0, logs: logs.to_owned(), disk, clock };
        postgres.run().await?;
        Ok(postgres)
    }

    /// As `DATABASE_URL` says it.
    pub fn url() -> String {
        format!("postgres://lastpong@{}:5432/postgres", Part::Postgres.ip())
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
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.is_ready() && self.sql("SELECT 1").await.is_ok() {
                return Ok(());
            }
            // The first start after a SIGKILL may find the dead one's traces and end: then again.
            if self.process.as_mut().is_none_or(|process| process.ended().is_some()) {
                self.spawn()?;
            }
            ensure!(Instant::now() < deadline, "postgres does not come up: see {}", self.logs.display());
            sleep(LOOK * 5).await;
        }
    }

    fn spawn(&mut self) -> anyhow::Result<()> {
        self.runs += 1;
        let owner = Owner::find()?;
        let mut command = clean(&program("postgres")?);
        command.arg("-D").arg(self.data()).args(["-h", "0.0.0.0", "-p", "5432", "-k", ""]);
        let settings = [
            "dynamic_shared_memory_type=mmap",
            "shared_buffers=64MB",
            "max_connections=200",
            "log_line_prefix=%m [%p] %a ",
            // A client that is out of reach is given up, as on a server that is looked after.
            "tcp_keepalives_idle=10",
            "tcp_user_timeout=20000",
        ];
        settings.iter().for_each(|setting| _ = command.arg("-c").arg(setting));
        command.current_dir("/").uid(owner.uid).gid(owner.gid);
        if let Some(clock) = &self.clock {
            clock.rule(&mut command);
        }
        let log = self.logs.join(format!("postgres-{}.log", self.runs));
        let process = self.process.insert(Process::start(&self.net, Part::Postgres, command, &log)?);
        self.clock.as_ref().map_or(Ok(()), |clock| clock.rules(process.pid()))
    }

    /// SIGKILL for all its processes at one moment, as a machine dies.
    pub async fn kill(&mut self) {
        let all = self.stall().await;
        all.iter().for_each(|pid| signal(*pid, Signal::KILL));
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
        while all.iter().any(|pid| state(*pid).is_some_and(|(state, _)| state != 'Z')) {
            sleep(LOOK).await;
        }
    }

    /// SIGSTOP for all its processes, and which they are. The postmaster first: then no new one comes.
    pub async fn stall(&self) -> Vec<i32> {
        let Some(postmaster) = self.process.as_ref().map(|process| process.pid() as i32) else {
            return Vec::new();
        };
        signal(postmaster, Signal::STOP);
        while state(postmaster).is_some_and(|(state, _)| !matches!(state, 'T' | 'Z')) {
            sleep(LOOK).await;
        }
        let mut all = children(postmaster);
        all.iter().for_each(|pid| signal(*pid, Signal::STOP));
        all.push(postmaster);
        all
    }

    /// SIGCONT for all its processes.
    pub fn resume(&self) {
        if let Some(postmaster) = self.process.as_ref().map(|process| process.pid() as i32) {
            children(postmaster).into_iter().chain([postmaster]).for_each(|pid| signal(pid, Signal::CONT));
        }
    }

    /// Whether it takes writes.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn read_only(&self, on: bool) -> anyhow::Result<()> {
        let word = if on { "on" } else { "off" };
        self.sql(&format!("ALTER SYSTEM SET default_transaction_read_only = {word}")).await?;
        self.sql("SELECT pg_reload_conf()").await
    }

    /// Ends it in order, if it is there.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::INT);
            process.ends_within(PATIENCE).await;
        }
    }

    async fn sql(&self, statement: &str) -> anyhow::Result<()> {
        let ask = async {
            let (client, connection) = tokio_postgres::connect(&Self::url(), tokio_postgres::NoTls).await?;
            let speaking = tokio::spawn(connection);
            let done = client.batch_execute(statement).await;
            drop(client);
            let _ = speaking.await;
            done
        };
        timeout(PATIENCE / 6, ask).await.context("postgres does not answer")??;
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.disk.root().join("data")
    }

    /// By what the postmaster writes in the eighth line of its file once it lets clients in.
    fn is_ready(&self) -> bool {
        let pidfile = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let mut lines = pidfile.lines();
        let ours = self.process.as_ref().map(|process| process.pid().to_string());
        lines.next().map(str::to_owned) == ours && lines.nth(6).is_some_and(|line| line.trim() == "ready")
    }
}

struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    fn find() -> anyhow::Result<Self> {
        let users = fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
        let find = |name: &str| {
            let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut numbers = line.split(':').skip(2);
            Some(Self { uid: numbers.next()?.parse().ok()?, gid: numbers.next()?.parse().ok()? })
        };
        find("postgres")
            .or_else(|| find("nobody"))
            .context("there is no user postgres or nobody to run Postgres as")
    }
}

/// A program of Postgres: where its packages put it, or in PATH.
///
/// # Errors
/// Where it is in neither.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut versions: Vec<_> = installed.filter_map(|dir| Some(dir.ok()?.path())).collect();
    versions.sort_by_key(|dir| dir.file_name().and_then(|n| n.to_str()?.parse::<u32>().ok()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = versions.into_iter().rev().map(|dir| dir.join("bin")).chain(std::env::split_paths(&path));
    match places.map(|dir| dir.join(name)).find(|path| path.is_file()) {
        Some(path) => Ok(fs::canonicalize(&path).unwrap_or(path)),
        None => bail!("{name} is neither in /usr/lib/postgresql/*/bin nor in PATH: install postgresql"),
    }
}

/// Lets any user pass through a folder that only its owner may read.
///
/// # Errors
/// Where its permissions can not be changed.
pub fn let_pass(folder: &Path) -> anyhow::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o711))
        .with_context(|| folder.display().to_string())
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // One that is gone already needs none.
        let _ = kill_process(pid, signal);
    }
}

fn children(parent: i32) -> Vec<i32> {
    let all = fs::read_dir("/proc").into_iter().flatten();
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| state(*pid).is_some_and(|(_, of)| of == parent)).collect()
}

/// A process's state as the kernel's letter, and its parent. They stand behind the name, which may hold anything.
fn state(pid: i32) -> Option<(char, i32)> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = line.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}
