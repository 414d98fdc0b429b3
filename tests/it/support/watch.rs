//! A running `lastpong watch`, whose output is piped.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::server::{ADMIN_TOKEN, lastpong};
use super::within;

/// It is killed with this value.
pub struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    notes: Lines<BufReader<ChildStderr>>,
}

/// How it ended.
pub struct Ended {
    pub code: Option<i32>,
    /// What was left to read.
    pub lines: Vec<String>,
    pub stderr: String,
}

impl Watch {
    /// Starts one on the lastpong at `url` with these further arguments.
    pub fn start(url: &str, arguments: &[&str]) -> Self {
        Self::with_token(url, ADMIN_TOKEN, arguments)
    }

    pub fn with_token(url: &str, token: &str, arguments: &[&str]) -> Self {
        let mut command = Command::from(lastpong());
        let command =
            command.args(["watch", "--url", url]).args(arguments).env("LASTPONG_ADMIN_TOKEN", token);
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().expect("the program can be started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let notes = BufReader::new(child.stderr.take().expect("piped")).lines();
        Self { child, lines, notes }
    }

    /// The next line that it prints.
    pub async fn line(&mut self) -> String {
        let line = within("a line of the watch", self.lines.next_line()).await.expect("it can be read");
        line.expect("a line, not the end")
    }

    /// The same of `--json`.
    pub async fn json(&mut self) -> Value {
        let line = self.line().await;
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }

    /// What it says of the connection next.
    pub async fn note(&mut self) -> String {
        let line = within("a note of the watch", self.notes.next_line()).await.expect("it can be read");
        line.expect("a line, not the end")
    }

    /// Waits until it is told of events.
    pub async fn connected(&mut self) {
        while !self.note().await.contains("connected, events after") {}
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid as i32)).expect("it runs");
        kill_process(pid, signal).expect("it is there to be told");
    }

    /// Waits until it ended by itself or by a signal sent before.
    pub async fn ended(mut self) -> Ended {
        let mut lines = Vec::new();
        while let Some(line) =
            within("the watch to end", self.lines.next_line()).await.expect("it can be read")
        {
            lines.push(line);
        }
        let mut stderr = String::new();
        while let Some(line) = within("its errors", self.notes.next_line()).await.expect("they can be read") {
            stderr += &(line + "\n");
        }
        let status = within("the watch to end", self.child.wait()).await.expect("a child to wait for");
        Ended { code: status.code(), lines, stderr }
    }
}
