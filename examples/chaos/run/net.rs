//! The network of a run: a namespace for each part, joined by a bridge in one more, and what can be done to the packets.
//!
//! - Everything is in namespaces of this run, so that several runs go on side by side, with the same addresses, and none
//!   touches the machine's own network.
//! - A rule hits packets, of connections there are as of those to come: the kernel is never asked what it remembers of
//!   them.
//! - A cut and a loss are at the receiver, a slow link at the sender.
//!
//! It needs root, `ip` and `tc` (iproute2) and `iptables`. Left out on purpose: delay without loss of room, for which
//! not every kernel has the means.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};

use anyhow::{Context, ensure};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::part::Part;

/// So many packets wait at a slow link; then they are lost, as in a router.
const QUEUE: u32 = 64;

/// The namespaces. They go with the run's guardian.
pub struct Net {
    spaces: BTreeMap<Part, Space>,
}

/// One namespace, and a thread in it that does what is to be done there.
struct Space {
    name: String,
    work: Sender<Box<dyn FnOnce() + Send>>,
}

impl Net {
    /// Lays it, for these parts, with names that begin with `prefix`.
    ///
    /// # Errors
    /// Where the kernel or the user's rights do not allow it.
    pub fn lay(prefix: &str, parts: &[Part]) -> anyhow::Result<Self> {
        let hub = format!("{prefix}-hub");
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link add br0 type bridge"))?;
        ip(&format!("-n {hub} link set br0 up"))?;
        let mut spaces = BTreeMap::new();
        for part in parts {
            let (name, wire) = (format!("{prefix}-{part}"), format!("v-{part}"));
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link add eth0 type veth peer name {wire} netns {hub}"))?;
            ip(&format!("-n {name} addr add {}/24 dev eth0", part.ip()))?;
            ip(&format!("-n {name} link set lo up"))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            ip(&format!("-n {hub} link set {wire} master br0 up"))?;
            // What no class claims passes as if nothing were there.
            run("tc", &format!("-n {name} qdisc add dev eth0 root handle 1: htb default 0"))?;
            spaces.insert(*part, Space::open(name)?);
        }
        let net = Self { spaces };
        // As many devices as there are ports.
        let ports = "/proc/sys/net/ipv4/ip_local_port_range";
        net.within(Part::Devices, move || std::fs::write(ports, "1024 65535"))?.context(ports)?;
        Ok(net)
    }

    /// Moves this thread, and all that it will start, into the part's namespace.
    ///
    /// # Errors
    /// Where the kernel does not allow it.
    pub fn enter(&self, part: Part) -> anyhow::Result<()> {
        enter(&self.space(part)?.name)
    }

    /// Starts a program in the part's namespace; it dies with this process, and is in a group of its own.
    ///
    /// # Errors
    /// Where it can not be started.
    pub fn spawn(&self, part: Part, mut command: Command) -> anyhow::Result<Child> {
        command.process_group(0);
        let dies_with_us = || Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?);
        // SAFETY: the closure makes one system call and allocates nothing.
        unsafe { command.pre_exec(dies_with_us) };
        let program = command.get_program().to_owned();
        // The kernel's signal comes when the thread that started it ends, and the namespace's thread never does.
        let child = self.within(part, move || command.spawn())?;
        child.with_context(|| format!("{} can not be started", program.display()))
    }

    /// Runs a program to its end in the part's namespace.
    ///
    /// # Errors
    /// Where it fails.
    pub fn run(&self, part: Part, program: &'static str, arguments: String) -> anyhow::Result<()> {
        self.within(part, move || run(program, &arguments))?
    }

    fn within<T: Send + 'static>(
        &self,
        part: Part,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let (done, result) = channel();
        let job = Box::new(move || _ = done.send(work()));
        self.space(part)?.work.send(job).ok().context("the thread of a namespace ended")?;
        tokio::task::block_in_place(|| result.recv()).context("the thread of a namespace ended")
    }

    fn space(&self, part: Part) -> anyhow::Result<&Space> {
        // Swarms have no network of their own.
        let part = if matches!(part, Part::Swarm(_)) { Part::Devices } else { part };
        self.spaces.get(&part).with_context(|| format!("{part} has no network in this run"))
    }

    /// Drops so large a share of the packets one way, or lets them through again.
    ///
    /// # Errors
    /// Where `iptables` fails.
    pub fn lose(&self, (from, to): (Part, Part), share: f64, begin: bool) -> anyhow::Result<()> {
        let some = match share {
            1.0 => String::new(),
            share => format!(" -m statistic --mode random --probability {share}"),
        };
        let verb = if begin { "-A" } else { "-D" };
        self.run(to, "iptables", format!("-w {verb} INPUT -s {}{some} -j DROP", from.ip()))
    }

    /// Lets so many kilobits through in a second, one way. `number` is of this fault alone.
    ///
    /// # Errors
    /// Where `tc` fails.
    pub fn narrow(&self, (from, to): (Part, Part), number: u32, kbit: Option<u32>) -> anyhow::Result<()> {
        let class = format!("1:{:x}", 0x10 + number);
        let filter = format!("dev eth0 parent 1: protocol ip prio {number}");
        let steps = match kbit {
            Some(kbit) => vec![
                format!("class add dev eth0 parent 1: classid {class} htb rate {kbit}kbit quantum 1600"),
                format!("qdisc add dev eth0 parent {class} pfifo limit {QUEUE}"),
                format!("filter add {filter} u32 match ip dst {}/32 flowid {class}", to.ip()),
            ],
            None => vec![format!("filter del {filter}"), format!("class del dev eth0 classid {class}")],
        };
        steps.into_iter().try_for_each(|step| self.run(from, "tc", step))
    }
}

impl Space {
    fn open(name: String) -> anyhow::Result<Self> {
        let (work, todo) = channel::<Box<dyn FnOnce() + Send>>();
        let (told, entered) = channel();
        let own = name.clone();
        std::thread::Builder::new().name(own.clone()).spawn(move || {
            let entering = enter(&own);
            let inside = entering.is_ok();
            let _ = told.send(entering);
            if inside {
                todo.into_iter().for_each(|job| job());
            }
        })?;
        entered.recv().context("the thread of a namespace ended")??;
        Ok(Self { name, work })
    }
}

fn enter(name: &str) -> anyhow::Result<()> {
    let path = format!("/run/netns/{name}");
    let space = File::open(&path).with_context(|| path.clone())?;
    move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).context(path)
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    run("ip", arguments)
}

/// Runs a program to its end.
///
/// # Errors
/// Where it fails, with what it said.
pub fn run(program: &str, arguments: &str) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments.split(' ')).output();
    let output = output.with_context(|| format!("{program} can not be run"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{program} {arguments}` failed: {}", said.trim());
    Ok(())
}
