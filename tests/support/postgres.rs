//! A Postgres server of a test's own: started, stalled, killed and started again on the same data.
//!
//! - It has a directory, a port and a socket of its own, and ends with its value, or with this process however that
//!   dies. As root it runs as another user, for Postgres refuses root.
//! - `initdb` runs once for all tests of a machine; each server begins with a copy of what it made.
//! - Nothing is asked of the disk but that it keeps files (`fsync = off`): a SIGKILL of the server loses nothing.
//!
//! Calls block, some of them for a second: they are for tests alone. Left out on purpose: a pool of servers. One
//! server for each test costs less than a second and shares nothing.

// Used by the unit tests and by the black-box tests, which do not all use all of it.
#![allow(dead_code)]

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long a server may take to come up or to go. Far more than it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The user, and owner, of every database of a server.
const SUPERUSER: &str = "lastpong";

const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// One running server.
pub struct Postgres {
    dir: TempDir,
    port: Port,
    settings: Vec<String>,
    postmaster: Child,
}

impl Postgres {
    /// Starts one, with an empty database, and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with more settings, each as `name=value`.
    pub fn start_with(settings: &[&str]) -> Self {
        let dir = TempDir::with_prefix("lastpong-pg-").expect("a directory for the server");
        let owner = Owner::get();
        owner.owns(dir.path());
        let copied = Command::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(template())
            .arg(dir.path().join("data"))
            .status()
            .expect("cp");
        assert!(copied.success(), "the new server's data could not be copied");
        let port = Port::take();
        let settings: Vec<_> = settings.iter().map(|s| (*s).to_owned()).collect();
        let postmaster = start(dir.path(), port.number, &settings);
        Self { dir, port, settings, postmaster }
    }

    /// Where it listens, as `DATABASE_URL` says it.
    pub fn url(&self) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/postgres", self.port.number)
    }

    /// The address of another database of it, made with `sql("CREATE DATABASE …")`.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/{database}", self.port.number)
    }

    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// Where its data, its log and its socket are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Gives a file in its directory to the user that it runs as.
    pub fn owns(&self, path: &Path) {
        Owner::get().owns(path);
    }

    /// SIGKILL for all its processes at one moment, as a machine dies. Ends when they are gone.
    pub fn kill(&mut self) {
        let all = self.freeze();
        all.iter().for_each(|pid| signal(*pid, Signal::KILL));
        self.postmaster.wait().expect("a child to wait for");
        wait_for("the server's processes to be gone", || all.iter().all(|pid| !is_alive(*pid)));
        self.forget_shared_memory();
    }

    /// SIGSTOP for all its processes: it answers nothing, and keeps every connection.
    pub fn stall(&self) {
        self.freeze();
    }

    /// SIGCONT for all its processes.
    pub fn resume(&self) {
        let postmaster = self.postmaster.id() as i32;
        children(postmaster).into_iter().chain([postmaster]).for_each(|pid| signal(pid, Signal::CONT));
    }

    /// Ends it in order, cutting its connections (SIGINT, "fast"), if it is still there. Nothing listens afterwards.
    pub fn stop(&mut self) {
        if self.is_running() {
            self.resume();
            signal(self.postmaster.id() as i32, Signal::INT);
            let postmaster = &mut self.postmaster;
            wait_for("the server to end", || postmaster.try_wait().expect("a child to wait for").is_some());
        }
    }

    /// Starts it again, on the same data and port, after ending it if it still ran. Waits until it answers.
    pub fn restart(&mut self) {
        self.stop();
        self.postmaster = start(self.dir.path(), self.port.number, &self.settings);
    }

    pub fn is_running(&mut self) -> bool {
        self.postmaster.try_wait().expect("a child to wait for").is_none()
    }

    /// `pg_terminate_backend` for every connection that is open now. Says how many there were.
    pub fn terminate_backends(&self) -> usize {
        let answer = self.sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        );
        answer.parse().expect("a count")
    }

    /// Runs statements past the product, as an operator would, and returns what they answer: a line a row, `|`
    /// between columns.
    ///
    /// # Panics
    /// When one fails.
    pub fn sql(&self, statements: &str) -> String {
        self.sql_in("postgres", statements)
    }

    /// The same, in another database.
    pub fn sql_in(&self, database: &str, statements: &str) -> String {
        let output = Command::new(program("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(self.url_of(database))
            .args(["-c", statements])
            .stdin(Stdio::null())
            .output()
            .expect("psql can be started");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statements}: {error}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// All that it wrote to its log.
    pub fn log(&self) -> String {
        log_of(self.dir.path())
    }

    /// Stops every process and names them. The postmaster first: then no new one comes.
    fn freeze(&self) -> Vec<i32> {
        let postmaster = self.postmaster.id() as i32;
        signal(postmaster, Signal::STOP);
        wait_for("the server to stand still", || matches!(state(postmaster), Some('T') | None));
        let mut all = children(postmaster);
        all.iter().for_each(|pid| signal(*pid, Signal::STOP));
        all.push(postmaster);
        all
    }

    /// A killed server leaves its lock in the System V shared memory behind, which only a restart takes away. A
    /// machine has room for some thousand of them.
    fn forget_shared_memory(&self) {
        let pidfile = fs::read_to_string(self.dir.path().join("data/postmaster.pid")).unwrap_or_default();
        if let Some(id) = pidfile.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
            let _ = Command::new("ipcrm").args(["-m", id]).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if matches!(self.postmaster.try_wait(), Ok(None)) {
            self.kill();
        }
        if std::thread::panicking() {
            eprintln!("--- what postgres said ---\n{}--- end ---", self.log());
        }
    }
}

/// Starts a server on the data in `dir`. The first start after a SIGKILL may find the dead one's traces: then again.
fn start(dir: &Path, port: u16, settings: &[String]) -> Child {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut postmaster = spawn(command(dir, port, settings)).expect("postgres can be started");
        loop {
            if postmaster.try_wait().expect("a child to wait for").is_some() {
                break;
            }
            if is_ready(dir, postmaster.id()) {
                return postmaster;
            }
            if Instant::now() > deadline {
                let _ = postmaster.kill();
                panic!("postgres did not come up: {}", log_of(dir));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(Instant::now() < deadline, "postgres ends by itself: {}", log_of(dir));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn command(dir: &Path, port: u16, settings: &[String]) -> Command {
    let mut command = Command::new(program("postgres"));
    let log = File::options().create(true).append(true).open(dir.join("log")).expect("a file for the log");
    command.arg("-D").arg(dir.join("data")).arg("-k").arg(dir).args(["-h", "127.0.0.1", "-p"]);
    command.arg(port.to_string());
    let quick = [
        "fsync=off",
        // Segments in /dev/shm would outlive a server that is killed.
        "dynamic_shared_memory_type=mmap",
        "full_page_writes=off",
        "shared_buffers=32MB",
        "max_connections=100",
        "max_wal_size=256MB",
        "log_line_prefix=%m [%p] %a ",
    ];
    for setting in quick.iter().copied().chain(settings.iter().map(String::as_str)) {
        command.arg("-c").arg(setting);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
    Owner::get().runs(&mut command);
    command
}

/// What the postmaster writes in the eighth line of its file once it lets clients in.
fn is_ready(dir: &Path, pid: u32) -> bool {
    let pidfile = fs::read_to_string(dir.join("data/postmaster.pid")).unwrap_or_default();
    let mut lines = pidfile.lines();
    lines.next() == Some(&pid.to_string()) && lines.nth(6).is_some_and(|line| line.trim() == "ready")
}

fn log_of(dir: &Path) -> String {
    String::from_utf8_lossy(&fs::read(dir.join("log")).unwrap_or_default()).into_owned()
}

/// Starts a process that dies with this one. The kernel's signal comes when the *thread* that started it ends, so one
/// thread that never ends starts them all.
#[allow(
    unsafe_code,
    reason = "the standard library has no safe form of what a child does before its program"
)]
fn spawn(mut command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static STARTER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, incoming) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in incoming {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    // SIGQUIT ends a server at once and lets it clear away its shared memory.
    let dies_with_us = || Ok(rustix::process::set_parent_process_death_signal(Some(Signal::QUIT))?);
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(dies_with_us) };
    let (answer, child) = mpsc::channel();
    starter.send((command, answer)).expect("the starter never ends");
    child.recv().expect("the starter answers")
}

/// What `initdb` made, once for all: `cp` is many times quicker.
fn template() -> PathBuf {
    let owner = Owner::get();
    let initdb = program("initdb");
    let version = Command::new(&initdb).arg("--version").output().expect("initdb can be started");
    let version: String = String::from_utf8_lossy(&version.stdout)
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .expect("initdb says its version")
        .to_owned();
    let home = std::env::temp_dir().join(format!("lastpong-pg-template-{}", owner.uid));
    fs::create_dir_all(&home).expect("a directory for the template");
    owner.owns(&home);
    let done = home.join(&version);
    let lock = File::create(home.join("lock")).expect("a lock for the template");
    lock.lock().expect("a lock for the template");
    if !done.exists() {
        let making = home.join("making");
        let _ = fs::remove_dir_all(&making);
        let mut command = Command::new(initdb);
        command.arg("-D").arg(&making).args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C"]);
        command.args(["--no-sync", "--no-instructions", "--wal-segsize=4"]).current_dir(&home);
        owner.runs(&mut command);
        let output = command.stdin(Stdio::null()).output().expect("initdb can be started");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        fs::rename(making, &done).expect("the template takes its name");
    }
    done
}

/// Who runs the servers: whoever runs the tests, or for root the user `postgres`, or else `nobody`.
struct Owner {
    uid: u32,
    gid: u32,
    is_other: bool,
}

impl Owner {
    fn get() -> Self {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        if uid != 0 {
            return Self { uid, gid, is_other: false };
        }
        let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let find = |name: &str| {
            let fields: Vec<_> =
                users.lines().find(|l| l.split(':').next() == Some(name))?.split(':').collect();
            Some(Self {
                uid: fields.get(2)?.parse().ok()?,
                gid: fields.get(3)?.parse().ok()?,
                is_other: true,
            })
        };
        find("postgres").or_else(|| find("nobody")).expect("a user postgres or nobody, to run Postgres as")
    }

    fn owns(&self, path: &Path) {
        if self.is_other {
            std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid)).expect("root gives files away");
        }
        if path.is_dir() {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("permissions");
        }
    }

    fn runs(&self, command: &mut Command) {
        if self.is_other {
            command.uid(self.uid).gid(self.gid);
        }
    }
}

/// A port that no other test has, whichever process runs it, held by a lock until it is dropped.
struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    fn take() -> Self {
        let locks = std::env::temp_dir().join("lastpong-test-ports");
        fs::create_dir_all(&locks).expect("a directory for locks");
        let span = u32::from(PORTS.end - PORTS.start);
        // Processes begin far from each other, so that they seldom ask for the same one.
        let first = std::process::id().wrapping_mul(97) % span;
        for n in 0..span {
            let number = PORTS.start + ((first + n) % span) as u16;
            let lock = File::create(locks.join(number.to_string())).expect("a lock file");
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no port of {PORTS:?} is free");
    }
}

/// A program of Postgres: where its packages put it, or in PATH.
fn program(name: &str) -> PathBuf {
    let version = |dir: &Path| dir.file_name().and_then(|n| n.to_str()?.parse::<u32>().ok());
    let mut installed: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .map(|dirs| dirs.filter_map(|dir| Some(dir.ok()?.path())).collect())
        .unwrap_or_default();
    installed.sort_by_key(|dir: &PathBuf| version(dir));
    let in_packages = installed.into_iter().rev().map(|dir| dir.join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    // The real programs before PATH's, where `initdb` often is not, so that all are of one version.
    let found =
        in_packages.chain(std::env::split_paths(&path)).map(|dir| dir.join(name)).find(|p| p.is_file());
    found.unwrap_or_else(|| {
        panic!("{name} is neither in /usr/lib/postgresql/*/bin nor in PATH: install postgresql")
    })
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // One that is gone already needs none.
        let _ = kill_process(pid, signal);
    }
}

/// A process's state as the kernel's letter: `T` is stopped, `Z` dead and not waited for.
fn state(pid: i32) -> Option<char> {
    stat(pid).map(|(state, _)| state)
}

fn is_alive(pid: i32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

fn children(parent: i32) -> Vec<i32> {
    let all = fs::read_dir("/proc").expect("/proc");
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent)).collect()
}

/// State and parent, behind the name, which is in brackets and may hold anything.
fn stat(pid: i32) -> Option<(char, i32)> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = line.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
