//! A private Redis: a real server of a test's own, to be killed, stopped, emptied and started again.
//!
//! - It keeps what it was told (append-only file, synced at each write) unless its test starts it otherwise.
//! - It is gone with its value, and with its process even where that dies without saying so.
//! - Its port lies below the ephemeral ones, so that no connection of another test happens to hold it.
//!
//! The standard library speaks to it, so that what is tested is not asked by the client that is tested. Used by the
//! tests in `src/` and by the stories; each uses a part.
#![allow(dead_code, reason = "each of the two places that use it uses a part")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const PORTS: std::ops::Range<u32> = 20_000..32_000;

/// One Redis server.
pub struct Redis {
    port: u16,
    args: Vec<String>,
    dir: TempDir,
    child: Option<Child>,
}

/// What a Redis answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Nil,
    Int(i64),
    Text(String),
    Error(String),
    List(Vec<Reply>),
}

impl Redis {
    /// Starts one that keeps its data through [`Redis::kill`] and [`Redis::restart`].
    pub fn start() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// Starts one with these arguments, as `--maxmemory 4mb`; without `--appendonly yes` only `SAVE` keeps data.
    pub fn start_with(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory for Redis");
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut redis = Self { port: 0, args, dir, child: None };
        let deadline = Instant::now() + PATIENCE;
        loop {
            redis.port = free_port();
            if redis.run() {
                return redis;
            }
            assert!(Instant::now() < deadline, "no Redis could be started: {}", redis.log());
        }
    }

    /// Starts a Sentinel, which monitors nothing yet.
    pub fn start_sentinel() -> Self {
        Self::start_with(&["sentinel.conf", "--sentinel"])
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("Redis is running").id()
    }

    /// Its data.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on what data it kept, at the same port.
    pub fn restart(&mut self) {
        self.kill();
        let deadline = Instant::now() + PATIENCE;
        while !self.run() {
            assert!(Instant::now() < deadline, "Redis did not start again: {}", self.log());
        }
    }

    /// Starts it again without any data, at the same port.
    pub fn restart_empty(&mut self) {
        self.kill();
        for entry in std::fs::read_dir(self.dir.path()).expect("the directory of Redis") {
            let path = entry.expect("an entry of it").path();
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.expect("what Redis kept can be removed");
        }
        self.restart();
    }

    /// SIGSTOP: it is there and says nothing.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn cont(&self) {
        self.signal(Signal::CONT);
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a pid");
        kill_process(pid, signal).expect("Redis is there to be told");
    }

    /// Asks it one thing on a connection of its own.
    ///
    /// # Panics
    /// When there is no answer, or the answer is an error.
    pub fn command(&self, words: &[&str]) -> Reply {
        match self.ask(words) {
            Ok(Reply::Error(error)) => panic!("{words:?}: {error}"),
            Ok(reply) => reply,
            Err(error) => panic!("{words:?}: {error}"),
        }
    }

    /// As [`Redis::command`], for answers that may be errors.
    pub fn ask(&self, words: &[&str]) -> std::io::Result<Reply> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        (&stream).write_all(text.as_bytes())?;
        Reply::read(&mut BufReader::new(stream))
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn arguments(&self) -> std::io::Result<Vec<String>> {
        let port = self.port.to_string();
        let own = ["--bind", "127.0.0.1", "--logfile", "log", "--port", &port];
        let own = own.map(str::to_owned).into_iter();
        // A Sentinel writes what it learns to a file of its own, which must be there and come first.
        match self.args.split_first() {
            Some((file, rest)) if file.ends_with(".conf") => {
                std::fs::File::options().append(true).create(true).open(self.dir.path().join(file))?;
                Ok(std::iter::once(file.clone()).chain(own).chain(rest.to_vec()).collect())
            }
            _ => Ok(own.chain(["--save".into(), String::new()]).chain(self.args.clone()).collect()),
        }
    }

    /// Runs it. False where it ended before it answered, as when its port was taken meanwhile.
    fn run(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        command
            .current_dir(self.dir.path())
            .args(self.arguments().expect("a configuration can be written"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = spawn(command).expect("redis-server is in PATH");
        let own = format!("process_id:{}\r", child.id());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if child.try_wait().expect("a child to wait for").is_some() {
                return false;
            }
            // Whoever answers at the port is ours only if it says so. While it loads its data it answers INFO already.
            let ours = matches!(self.ask(&["INFO", "server"]), Ok(Reply::Text(info)) if info.contains(&own));
            if ours && self.ask(&["PING"]).is_ok_and(|reply| reply == Reply::Text("PONG".into())) {
                self.child = Some(child);
                return true;
            }
            assert!(Instant::now() < deadline, "Redis does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Reply {
    /// # Panics
    /// When it is no text.
    pub fn text(&self) -> &str {
        match self {
            Reply::Text(text) => text,
            other => panic!("not a text: {other:?}"),
        }
    }

    /// # Panics
    /// When it is no number.
    pub fn int(&self) -> i64 {
        match self {
            Reply::Int(n) => *n,
            other => panic!("not a number: {other:?}"),
        }
    }

    /// # Panics
    /// When it is no list.
    pub fn list(&self) -> &[Reply] {
        match self {
            Reply::List(list) => list,
            other => panic!("not a list: {other:?}"),
        }
    }

    /// The texts of a list.
    pub fn texts(&self) -> Vec<&str> {
        self.list().iter().map(Reply::text).collect()
    }

    fn read(from: &mut impl BufRead) -> std::io::Result<Self> {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let bad = || std::io::Error::other(format!("not an answer of Redis: {line:?}"));
        let line_end = line.strip_suffix("\r\n").ok_or_else(bad)?;
        let (kind, rest) = line_end.split_at_checked(1).ok_or_else(bad)?;
        let number = || rest.parse::<i64>().map_err(|_| bad());
        Ok(match kind {
            "+" => Reply::Text(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Int(number()?),
            "$" => match usize::try_from(number()?) {
                Err(_) => Reply::Nil,
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    from.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
                }
            },
            "*" => match usize::try_from(number()?) {
                Err(_) => Reply::Nil,
                Ok(length) => Reply::List((0..length).map(|_| Reply::read(from)).collect::<Result<_, _>>()?),
            },
            _ => return Err(bad()),
        })
    }
}

/// A port that nobody listens on. Tests of several processes look at once: each begins elsewhere.
fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU32> =
        LazyLock::new(|| AtomicU32::new(std::process::id().wrapping_mul(7_919)));
    loop {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (PORTS.start + turn % (PORTS.end - PORTS.start)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

type Job = (Command, SyncSender<std::io::Result<Child>>);

/// Starts a process that dies with this one. The kernel ends it with the *thread* that started it, so this is done on
/// one that lasts as long as the process.
#[allow(
    unsafe_code,
    reason = "the standard library has no safe form of what a child does before its program"
)]
fn spawn(mut command: Command) -> std::io::Result<Child> {
    static STARTER: LazyLock<Mutex<Sender<Job>>> = LazyLock::new(|| {
        let (jobs, todo) = channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, done) in todo {
                let _ = done.send(command.spawn());
            }
        });
        Mutex::new(jobs)
    });
    // SAFETY: between fork and exec only one system call is made, which allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        });
    }
    let (done, child) = sync_channel(1);
    let starter = STARTER.lock().expect("no starter panicked");
    starter.send((command, done)).expect("the starter lasts as long as the process");
    drop(starter);
    child.recv().expect("the starter answers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_its_data_until_it_is_emptied() {
        let mut redis = Redis::start();
        redis.command(&["SET", "a", "1\r\n2"]);
        redis.kill();
        redis.restart();
        assert_eq!(
            redis.command(&["MGET", "a", "b"]),
            Reply::List(vec![Reply::Text("1\r\n2".into()), Reply::Nil])
        );
        assert_eq!(redis.command(&["DBSIZE"]).int(), 1);
        redis.restart_empty();
        assert_eq!(redis.command(&["DBSIZE"]).int(), 0);
        assert!(matches!(redis.ask(&["NONSENSE"]), Ok(Reply::Error(_))));
    }
}
