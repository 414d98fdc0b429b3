//! The driver's end of a load.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;

use super::SECRET;
use super::order::{Answer, Dialect, How, Order};
use crate::process::{clean, spawn};

/// How much later than asked an answer may come: it can be long, and the machine busy.
const GRACE: Duration = Duration::from_secs(60);

/// How long a dial, or a wave of them, may take.
const CONNECTED_WITHIN_S: u64 = 180;

/// A load of this driver; its devices are gone with it.
pub struct Client {
    child: Child,
    orders: UnixStream,
    answers: BufReader<UnixStream>,
    /// Devices so far: the number of the next.
    next: u32,
}

impl Client {
    /// Starts one whose devices connect to `to`.
    ///
    /// # Errors
    /// Where it can not be started.
    pub fn start(
        to: SocketAddr,
        dialect: Dialect,
        interval: Duration,
        prefix: &str,
        secret: Option<&str>,
    ) -> anyhow::Result<Self> {
        let (orders, stdin) = UnixStream::pair()?;
        let (answers, stdout) = UnixStream::pair()?;
        let dialect = dialect.to_possible_value().context("a dialect without a name")?;
        let mut command: Command = clean(&std::env::current_exe()?);
        command.args(["load", "--to", &to.to_string(), "--dialect", dialect.get_name()]);
        command.args(["--interval-ms", &interval.as_millis().to_string(), "--prefix", prefix]);
        command.envs(secret.map(|secret| (SECRET, secret)));
        command.stdin(Stdio::from(OwnedFd::from(stdin))).stdout(Stdio::from(OwnedFd::from(stdout)));
        Ok(Self { child: spawn(command)?, orders, answers: BufReader::new(answers), next: 0 })
    }

    /// Gives an order and waits until it is done.
    ///
    /// # Errors
    /// Where it was not done in its time, or the load is gone.
    pub fn ask(&mut self, order: &Order) -> anyhow::Result<Answer> {
        let within = match order {
            Order::Connect { within_s, .. }
            | Order::Visit { within_s, .. }
            | Order::Leave { within_s, .. }
            | Order::Silence { within_s, .. }
            | Order::Storm { within_s, .. } => *within_s,
            Order::Stat => 0,
        };
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.orders.write_all(&line).with_context(|| format!("the load is gone before {order:?}"))?;
        self.answers.get_ref().set_read_timeout(Some(Duration::from_secs(within) + GRACE))?;
        let mut text = String::new();
        let read = self.answers.read_line(&mut text).with_context(|| format!("no answer to {order:?}"))?;
        anyhow::ensure!(read > 0, "the load ended at {order:?}");
        let answer: Answer = serde_json::from_str(&text)?;
        if let Some(error) = &answer.error {
            let Answer { refused, failed, lost, .. } = &answer;
            bail!("{order:?}: {error} (refused {refused:?}, failed {failed}, lost {lost})");
        }
        Ok(answer)
    }

    /// So many more connect; gives their numbers.
    ///
    /// # Errors
    /// Where not all are there in time.
    pub fn connect(&mut self, count: u32, under_way: u32) -> anyhow::Result<(Range<u32>, Answer)> {
        let answer = self.ask(&Order::Connect { count, under_way, within_s: CONNECTED_WITHIN_S })?;
        Ok((self.numbers(count), answer))
    }

    /// So many connect, and leave as soon as they are there.
    ///
    /// # Errors
    /// Where not all came in time.
    pub fn visit(&mut self, count: u32, under_way: u32) -> anyhow::Result<Answer> {
        let answer = self.ask(&Order::Visit { count, under_way, within_s: CONNECTED_WITHIN_S })?;
        self.numbers(count);
        Ok(answer)
    }

    fn numbers(&mut self, count: u32) -> Range<u32> {
        let first = self.next;
        self.next += count;
        first..self.next
    }

    /// # Errors
    /// Where they did not leave in time, or some were gone before.
    pub fn leave(&mut self, devices: Range<u32>, how: How, gap: Duration) -> anyhow::Result<Answer> {
        let count = devices.len();
        let within_s = CONNECTED_WITHIN_S + (gap * count as u32).as_secs();
        let answer = self.ask(&Order::Leave { devices, how, gap_us: gap.as_micros() as u64, within_s })?;
        anyhow::ensure!(
            answer.left.len() == count,
            "only {} of {count} devices were there",
            answer.left.len()
        );
        Ok(answer)
    }

    /// # Errors
    /// Where the load is gone.
    pub fn stat(&mut self) -> anyhow::Result<Answer> {
        self.ask(&Order::Stat)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
