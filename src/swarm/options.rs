//! What a swarm is asked to be, on the command line, and the [`Plan`] that comes of it.
//!
//! Whoever holds a plan holds one that fits together: what does not was refused with what is allowed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use super::backoff::Backoff;
use super::behaviour::Mix;
use super::visit::Habits;
use super::wire::Dialect;
use crate::config::{Settings, units};
use crate::ids::{DeviceId, DeviceType};

/// So many devices of one swarm on loopback need no further source addresses. A source has about 28,000 ports; once half
/// of them are taken, Linux looks for milliseconds before it finds one more.
const PORTS_OF_ONE_SOURCE: u32 = 10_000;

/// What is wrong with what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BadOptions {
    #[error("{0:?} is no address, allowed is HOST:PORT or ws://HOST:PORT")]
    Address(String),
    #[error("{name:?} was not found: {source}")]
    Resolve { name: String, source: std::io::Error },
    #[error("--source {0} and the address {1} are not of one family, allowed are two of IPv4 or two of IPv6")]
    Family(IpNet, IpAddr),
    #[error("--processes {0} are more than there are devices, allowed is 1 to {1}")]
    Processes(u32, u32),
    #[error("--prefix: {0}")]
    Prefix(#[from] crate::ids::BadName),
}

pub const HELP: &str = "\
Examples:
  lastpong swarm                                       100 devices that answer, at LASTPONG_BIND
  lastpong swarm --devices 10000 --rate 2000 --for 5m 10.0.0.1:8080 10.0.0.2:8080
  lastpong swarm --mix answer=80,late=5,lossy=5,silent=2,reset=2,close=2,flap=1 --stay 10s..60s
  lastpong swarm --devices 1000 --for 1m --json --record seen.jsonl

Behaviours, each with its share in --mix:
  answer  answers every ping at once           reset   resets the connection
  late    answers some time later (--jitter)   close   sends a close frame
  lossy   leaves some unanswered (--loss)      bye     says `bye`
  silent  reads on, and answers nothing        vanish  closes without a word
  deaf    stops reading                        flap    comes and goes every second or so
  slow    sends its handshake in dribbles      twice   connects while its first connection lives
Those that leave or fall silent behave for --stay first, and behave so again when they come back.
Any device that hears nothing for three ping intervals and a pong timeout gives its connection up and dials anew.

SIGTERM or SIGINT has the devices leave with a close frame and ends with the report; a second one stops at once.
Exits with 1 if no device was welcomed. Devices show tokens made with LASTPONG_TOKEN_SECRET, or else with
token.secret in LASTPONG_DATA_DIR.";

/// `lastpong swarm`.
#[derive(Debug, Clone, Args)]
pub struct SwarmOptions {
    /// Where lastpong listens, as HOST:PORT or ws://HOST:PORT; devices are spread over several [default: LASTPONG_BIND]
    #[arg(value_name = "ADDR")]
    pub addresses: Vec<String>,
    /// How many devices
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub devices: u32,
    /// How many handshakes are begun in a second, at most
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: u32,
    /// How long it runs, as 30s or 5m [default: until it is told to stop]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub run_for: Option<Duration>,
    /// The time from one ping of a device's own to the next [default: none are sent]
    #[arg(long, value_name = "DURATION", value_parser = period)]
    pub ping: Option<Duration>,
    /// The time from one application heartbeat to the next [default: none are sent]
    #[arg(long, value_name = "DURATION", value_parser = period)]
    pub heartbeat: Option<Duration>,
    /// The form of heartbeats
    #[arg(long, value_enum, default_value_t)]
    pub dialect: Dialect,
    /// The shares of behaviours, as answer=80,late=5,silent=2
    #[arg(long, default_value = "answer=100", value_name = "NAME=SHARE,…")]
    pub mix: Mix,
    /// How long a device that will leave or fall silent behaves before it does
    #[arg(long, default_value = "10s..60s", value_name = "FROM..TO", value_parser = range)]
    pub stay: (Duration, Duration),
    /// The median lateness of late answers; some are up to 16 times as late
    #[arg(long, default_value = "200ms", value_name = "DURATION", value_parser = period)]
    pub jitter: Duration,
    /// The share of pings that lossy devices leave unanswered
    #[arg(long, default_value_t = 0.2, value_name = "0..1", value_parser = share)]
    pub loss: f64,
    /// Devices come back after their session's end (the default)
    #[arg(long, overrides_with = "no_reconnect")]
    pub reconnect: bool,
    /// Devices do not come back
    #[arg(long)]
    pub no_reconnect: bool,
    /// The delay before a device comes back: full jitter below FROM, doubled by each failure up to TO
    #[arg(long, default_value = "500ms..15s", value_name = "FROM..TO", value_parser = range)]
    pub backoff: (Duration, Duration),
    /// Devices come back even after a close code that says not to
    #[arg(long)]
    pub stubborn: bool,
    /// Device ids are PREFIX-1, PREFIX-2, …
    #[arg(long, default_value = "swarm")]
    pub prefix: String,
    /// The device type that is asked for
    #[arg(long)]
    pub device_type: Option<DeviceType>,
    /// Source addresses, each device its own in turn, as 127.0.0.0/8 [default: what the system chooses; over loopback
    /// and with more than 20,000 devices, 127.0.0.0/8]
    #[arg(long, value_name = "CIDR")]
    pub source: Option<IpNet>,
    /// How many processes share the devices [default: as many as the limit of open files needs]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub processes: Option<u32>,
    /// Repeats the behaviours and times of an earlier run [default: random, and told in the report]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Writes what each device saw, as JSON lines, to this file; with several processes to FILE-0, FILE-1, …
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// The report as one JSON object
    #[arg(long)]
    pub json: bool,
    /// No progress
    #[arg(long)]
    pub quiet: bool,
    /// Which process of how many this is; given by the first of them
    #[arg(long, hide = true, value_parser = part)]
    pub part: Option<Part>,
}

/// One process's part: the devices whose number leaves this rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub index: u32,
    pub of: u32,
}

fn part(text: &str) -> Result<Part, String> {
    let parsed =
        text.split_once('/').and_then(|(i, n)| Some(Part { index: i.parse().ok()?, of: n.parse().ok()? }));
    parsed.filter(|p| p.index < p.of).ok_or_else(|| "allowed is INDEX/COUNT".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    units::parse_duration(text).ok_or_else(|| "allowed is a duration, as 500ms, 25s, 5m or 1h".to_owned())
}

fn period(text: &str) -> Result<Duration, String> {
    duration(text)
        .ok()
        .filter(|d| !d.is_zero())
        .ok_or_else(|| "allowed is a duration of 1ms or more, as 500ms, 25s, 5m or 1h".to_owned())
}

fn range(text: &str) -> Result<(Duration, Duration), String> {
    let both = text.split_once("..").and_then(|(a, b)| Some((duration(a).ok()?, duration(b).ok()?)));
    both.filter(|(from, to)| from <= to)
        .ok_or_else(|| "allowed are two durations, the shorter first, as 10s..60s".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|s| (0.0..=1.0).contains(s));
    share.ok_or_else(|| "allowed is a number of 0 to 1".to_owned())
}

/// Where devices connect to.
#[derive(Debug, Clone)]
pub struct Target {
    pub addr: SocketAddr,
    /// As the `Host` header says it.
    pub host: String,
}

/// What one process has to do.
#[derive(Debug, Clone)]
pub struct Plan {
    pub targets: Vec<Target>,
    pub devices: u32,
    pub part: Part,
    /// Handshakes begun in a second by this part.
    pub rate: f64,
    pub run_for: Option<Duration>,
    pub mix: Mix,
    pub habits: Habits,
    pub backoff: Backoff,
    pub prefix: String,
    pub device_type: Option<DeviceType>,
    pub source: Option<IpNet>,
    pub record: Option<PathBuf>,
}

impl Plan {
    /// The plan of one part of the swarm.
    ///
    /// # Errors
    /// What does not fit together, or cannot be found.
    pub fn new(
        options: &SwarmOptions,
        settings: &Settings,
        seed: u64,
        part: Part,
    ) -> Result<Self, BadOptions> {
        let targets = targets(&options.addresses, settings)?;
        if part.of > options.devices {
            return Err(BadOptions::Processes(part.of, options.devices));
        }
        // The longest id is good, so all are.
        format!("{}-{}", options.prefix, options.devices).parse::<DeviceId>()?;
        let source = options.source.or_else(|| default_source(&targets, options.devices));
        let stranger = |net: &IpNet| targets.iter().find(|t| t.addr.is_ipv4() != net.addr().is_ipv4());
        if let Some(net) = &source
            && let Some(target) = stranger(net)
        {
            return Err(BadOptions::Family(*net, target.addr.ip()));
        }
        let record = options.record.clone().map(|file| match part.of {
            1 => file,
            _ => numbered(file, part.index),
        });
        Ok(Self {
            targets,
            devices: options.devices,
            part,
            rate: f64::from(options.rate) / f64::from(part.of),
            run_for: options.run_for,
            mix: options.mix.clone(),
            habits: Habits {
                seed,
                stay: options.stay,
                jitter: options.jitter,
                loss: options.loss,
                ping: options.ping,
                heartbeat: options.heartbeat,
                dialect: options.dialect,
            },
            backoff: Backoff {
                min: options.backoff.0,
                max: options.backoff.1,
                reconnect: !options.no_reconnect,
                stubborn: options.stubborn,
            },
            prefix: options.prefix.clone(),
            device_type: options.device_type.clone(),
            source,
            record,
        })
    }

    /// The numbers of this part's devices; of the whole swarm they are 1 to [`Plan::devices`].
    pub fn numbers(&self) -> impl Iterator<Item = u32> + use<> {
        (1 + self.part.index..=self.devices).step_by(self.part.of as usize)
    }

    pub fn device_id(&self, number: u32) -> DeviceId {
        let id = format!("{}-{number}", self.prefix);
        id.parse().expect("the longest id of the swarm was checked")
    }

    /// The address that a device's connections come from, where it does not matter `None`.
    pub fn source_of(&self, device: u32) -> Option<IpAddr> {
        self.source.map(|net| nth_host(net, device))
    }
}

/// `seen.jsonl` becomes `seen-3.jsonl`.
fn numbered(file: PathBuf, index: u32) -> PathBuf {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let name = match file.extension() {
        Some(extension) => format!("{stem}-{index}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{index}"),
    };
    file.with_file_name(name)
}

fn targets(addresses: &[String], settings: &Settings) -> Result<Vec<Target>, BadOptions> {
    if addresses.is_empty() {
        let mut addr = settings.bind;
        match addr.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        return Ok(vec![Target { addr, host: addr.to_string() }]);
    }
    addresses.iter().map(|text| target(text)).collect()
}

fn target(text: &str) -> Result<Target, BadOptions> {
    let bad = || BadOptions::Address(text.to_owned());
    let host = text.strip_prefix("ws://").unwrap_or(text);
    let host = host.strip_suffix("/ws").or(host.strip_suffix('/')).unwrap_or(host);
    let (name, port) = host.rsplit_once(':').ok_or_else(bad)?;
    if name.is_empty() || name.contains('/') || port.parse::<u16>().is_err() {
        return Err(bad());
    }
    let found = host.to_socket_addrs().map(|mut all| all.next());
    let found = found.map_err(|source| BadOptions::Resolve { name: name.to_owned(), source })?;
    Ok(Target { addr: found.ok_or_else(bad)?, host: host.to_owned() })
}

fn default_source(targets: &[Target], devices: u32) -> Option<IpNet> {
    let local = targets.iter().all(|t| t.addr.is_ipv4() && t.addr.ip().is_loopback());
    (local && devices > PORTS_OF_ONE_SOURCE).then(|| "127.0.0.0/8".parse().expect("a well-formed network"))
}

/// The `n`th address of a network, around and around, without the first and the last of one that has more than two.
fn nth_host(net: IpNet, n: u32) -> IpAddr {
    match net {
        IpNet::V4(net) => {
            let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
            let (first, last) = if last - first > 1 { (first + 1, last - 1) } else { (first, last) };
            let hosts = u64::from(last - first) + 1;
            Ipv4Addr::from(first + (u64::from(n) % hosts) as u32).into()
        }
        IpNet::V6(net) => {
            let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
            let (first, last) = if last - first > 1 { (first + 1, last - 1) } else { (first, last) };
            let hosts = (last - first).saturating_add(1);
            Ipv6Addr::from(first + u128::from(n) % hosts).into()
        }
    }
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
