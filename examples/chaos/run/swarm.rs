//! The devices of a run: processes of `lastpong swarm`, told apart by a letter, each recording what its devices saw.
//!
//! - `a`: most of them; they stay and answer, a few late or with losses.
//! - `b`: they come and leave in every way a device can.
//! - `c`: a few that stay, and whose process a fault kills.
//!
//! All talk while they behave: a heartbeat of their own every two seconds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;

use super::net::Net;
use super::node::PORT;
use super::part::Part;
use super::process::{Process, clean};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Swarm {
    pub part: Part,
    pub devices: u32,
    net: Arc<Net>,
    program: PathBuf,
    secret: String,
    arguments: Vec<String>,
    out: PathBuf,
    runs: u32,
    process: Option<Process>,
}

/// What the swarms of a run have in common.
pub struct Devices<'a> {
    pub net: &'a Arc<Net>,
    pub program: &'a Path,
    pub secret: &'a str,
    pub seed: u64,
    pub nodes: &'a [Part],
    /// The run's folder.
    pub out: &'a Path,
}

/// What is particular to one.
struct Herd<'a> {
    letter: char,
    devices: u32,
    /// Handshakes in a second, at most.
    rate: u32,
    mix: &'a str,
    stay: &'a str,
    prefix: String,
}

impl Devices<'_> {
    /// The three swarms of so many devices together; none runs yet.
    pub fn swarms(&self, devices: u32) -> Vec<Swarm> {
        let many = devices * 70 / 100;
        let some = devices * 25 / 100;
        let come_and_go =
            "answer=8,silent=10,deaf=6,reset=18,close=22,bye=16,vanish=14,flap=2,twice=2,slow=2";
        let all = [
            ('a', many, "answer=90,late=6,lossy=4"),
            ('b', some, come_and_go),
            ('c', devices - many - some, "answer=100"),
        ];
        let herd = |(letter, devices, mix)| {
            let prefix = Part::Swarm(letter).to_string();
            Herd { letter, devices, rate: (devices / 10).clamp(50, 400), mix, stay: "5s..40s", prefix }
        };
        all.map(|one| self.swarm(herd(one))).into()
    }

    /// One that floods a node with handshakes, of devices that nobody else has.
    pub fn flood(&self, number: u32) -> Swarm {
        let prefix = format!("flood-{number}");
        let mix = "vanish=40,reset=30,close=30";
        self.swarm(Herd { letter: 'f', devices: 1_000, rate: 400, mix, stay: "100ms..1s", prefix })
    }

    fn swarm(&self, herd: Herd<'_>) -> Swarm {
        let options = [
            ("--devices", herd.devices.to_string()),
            ("--rate", herd.rate.to_string()),
            ("--mix", herd.mix.to_owned()),
            ("--stay", herd.stay.to_owned()),
            ("--prefix", herd.prefix),
            ("--seed", (self.seed ^ u64::from(herd.letter)).to_string()),
            // Soon, so that a short run has many sessions; not at once, so that a node that starts is not overrun.
            ("--backoff", "300ms..5s".to_owned()),
            // So that much lies unread where a node was stopped, and whose pong is behind it.
            ("--heartbeat", "2s".to_owned()),
            ("--processes", "1".to_owned()),
        ];
        let mut arguments: Vec<String> =
            options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        // A device that an operator ended is told not to come back; here it does, or fewer and fewer would be left.
        arguments.extend(["--quiet", "--stubborn"].map(str::to_owned));
        arguments.extend(self.nodes.iter().map(|node| format!("{}:{PORT}", node.ip())));
        let (net, program) = (self.net.clone(), self.program.to_owned());
        let (secret, out) = (self.secret.to_owned(), self.out.to_owned());
        let part = Part::Swarm(herd.letter);
        let devices = herd.devices;
        Swarm { part, devices, net, program, secret, arguments, out, runs: 0, process: None }
    }
}

impl Swarm {
    /// Starts it, with the devices it always has.
    ///
    /// # Errors
    /// Where the program can not be run.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.runs += 1;
        let name = format!("{}-{}", self.part, self.runs);
        self.start_as(&name)
    }

    /// The same, with records of this name.
    ///
    /// # Errors
    /// Where the program can not be run.
    pub fn start_as(&mut self, name: &str) -> anyhow::Result<()> {
        let mut command = clean(&self.program);
        command.current_dir(&self.out).env("LASTPONG_TOKEN_SECRET", &self.secret);
        command.arg("swarm").arg("--record").arg(self.out.join("devices").join(format!("{name}.jsonl")));
        command.args(&self.arguments);
        let log = self.out.join("nodes").join(format!("{name}.log"));
        self.process = Some(Process::start(&self.net, Part::Devices, command, &log)?);
        Ok(())
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// SIGKILL: all its sockets end at once.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Whether it ended although nobody asked it to.
    pub fn is_gone(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_some())
    }

    /// Tells the devices to leave, and waits until they have.
    ///
    /// # Errors
    /// Where it does not end in time.
    pub async fn leave(&mut self) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal(Signal::TERM);
        let ended = process.ends_within(PATIENCE).await;
        ensure!(
            ended.is_some(),
            "{} did not end in {PATIENCE:?}: see {}",
            self.part,
            process.log().display()
        );
        Ok(())
    }
}
