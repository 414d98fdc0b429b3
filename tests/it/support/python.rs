//! Programs in Python on public packages, that say one JSON object a line.
//!
//! `TEST_PYTHON` names the interpreter that has the packages; without it, `python3`.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::within;

/// A running program; it is killed with this value.
pub struct Script {
    child: Child,
    told: Option<ChildStdin>,
    said: Lines<BufReader<ChildStdout>>,
}

impl Script {
    /// Starts one that imports `package`.
    pub async fn start(package: &str, source: &str, arguments: &[&str]) -> Self {
        let interpreter = std::env::var_os("TEST_PYTHON").unwrap_or_else(|| "python3".into());
        let check = Command::new(&interpreter).args(["-c", &format!("import {package}")]).output().await;
        let check = check
            .unwrap_or_else(|e| panic!("{interpreter:?} cannot be run: {e}; TEST_PYTHON may name another"));
        assert!(
            check.status.success(),
            "{interpreter:?} has no `{package}` (`scripts/setup` makes one that has; TEST_PYTHON names it): {}",
            String::from_utf8_lossy(&check.stderr)
        );
        let mut command = Command::new(&interpreter);
        command.args(["-c", source]).args(arguments);
        Self::of(command)
    }

    /// Starts this one, which need not be in Python.
    pub fn of(mut command: Command) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = piped.spawn().unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"));
        let said = BufReader::new(child.stdout.take().expect("piped")).lines();
        let told = child.stdin.take();
        Self { child, told, said }
    }

    /// What it says next, whatever that is.
    pub async fn line(&mut self, what: &str) -> Value {
        let line = within(what, self.said.next_line()).await.expect("a line");
        let line = line.unwrap_or_else(|| panic!("the program ended without {what}"));
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }

    pub async fn write(&mut self, text: &str) {
        let told = self.told.as_mut().expect("it was told to leave");
        within("the program to take a line", told.write_all(text.as_bytes())).await.expect("it reads");
    }

    /// Tells it that there is nothing more to come.
    pub fn leave(&mut self) {
        self.told = None;
    }

    /// Sends it a line, and takes what it says to that.
    pub async fn ask(&mut self, name: &str) -> Value {
        self.write("\n").await;
        self.next(name).await
    }

    /// What it says next, which must be of this name.
    pub async fn next(&mut self, name: &str) -> Value {
        let said = self.line(name).await;
        said.get(name).unwrap_or_else(|| panic!("{said} is not {name}")).clone()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid as i32)).expect("the program runs");
        kill_process(pid, signal).expect("the program is there to be told");
    }
}
