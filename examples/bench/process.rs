//! A program of the bench: started with nothing of this process's settings, and gone with its value, or with the driver
//! however that ends.
//!
//! The kernel ends a child with the thread that started it, so all are started from the driver's main thread.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Signal, set_parent_process_death_signal};

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(10);

/// How long a program may take until it can be spoken to; some write a database first.
const UP_WITHIN: Duration = Duration::from_secs(60);

pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; all that it writes goes to the file `log`.
    ///
    /// # Errors
    /// Where it can not be started.
    pub fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Self { child: spawn(command)?, log: log.to_owned() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a line of what it wrote begins so, and gives the rest of that line.
    ///
    /// # Errors
    /// Where it ends before, or is too slow.
    pub fn says(&mut self, beginning: &str) -> anyhow::Result<String> {
        let log = self.log.clone();
        self.until(&format!("to say {beginning:?}"), || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let line = said.lines().find_map(|line| line.strip_prefix(beginning).map(str::to_owned));
            line.filter(|_| said.ends_with('\n'))
        })
    }

    /// Waits until `done` gives something.
    ///
    /// # Errors
    /// Where the program ends before, or it takes too long.
    pub fn until<T>(&mut self, what: &str, mut done: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + UP_WITHIN;
        loop {
            if let Some(done) = done() {
                return Ok(done);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("waited for a program {what}, it ended with {status}: {}", self.said());
            }
            if Instant::now() > deadline {
                bail!("waited for a program {what} for {UP_WITHIN:?} in vain: {}", self.said());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The end of what it wrote.
    fn said(&self) -> String {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = said.lines().rev().take(5).collect();
        last.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended is only waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a process that dies with this one.
///
/// # Errors
/// Where it can not be started.
pub fn spawn(mut command: Command) -> anyhow::Result<Child> {
    let dies_with_us = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(dies_with_us) };
    let program = command.get_program().to_owned();
    command.spawn().with_context(|| format!("{} can not be started", program.display()))
}

/// A program that knows nothing of this process's environment but where programs, homes and temporary files lie.
pub fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for name in ["PATH", "HOME", "LANG", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Where a program lies, if it does in PATH or beside the programs of the system.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|file| file.is_file())
}
