//! A run: an installation is set up, devices and subscribers come, faults are brought about by a seeded schedule, and
//! everything that anyone saw is written down for the checker.
//!
//! - A run touches nothing but what it made: namespaces, mounts, processes and a folder of its own, which go when it
//!   ends, however it ends. Several go on side by side.
//! - It judges nothing but whether it could be carried out. The promises are the checker's business.
//!
//! `plan` is the schedule; `net`, `disk`, `clock`, `process` and `guardian` are the ground it stands on; `node`,
//! `postgres`, `redis`, `swarm` and `subscriber` live on it, together as `world`; `faults` and `kicks` trouble them;
//! `finish` ends it. `needs` is what the machine has to have, `ails`, `alarms` and `probe` are what goes wrong meanwhile.

mod ails;
mod alarms;
mod clock;
mod disk;
mod faults;
mod finish;
mod guardian;
mod kicks;
mod needs;
mod net;
mod node;
mod part;
pub mod plan;
mod postgres;
mod probe;
mod process;
mod record;
mod redis;
mod subscriber;
mod swarm;
mod troubles;
mod world;

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use self::guardian::Guardian;
use self::net::Net;
use self::part::Part;
use self::plan::{Kind, Planned, Scene};
use self::record::About;
use self::subscriber::Subscribers;
use self::world::{Places, World};

/// How long devices may take to come, before the schedule begins without the rest.
const GATHERING: Duration = Duration::from_secs(90);

// The checker has options of the same name.
#[derive(Args, Clone)]
#[group(id = "installation")]
pub struct Options {
    /// The program under test, which simulates the devices too
    #[arg(long, default_value = "target/release/lastpong", value_name = "PATH")]
    pub lastpong: PathBuf,
    /// Another program for the simulated devices
    #[arg(long, value_name = "PATH")]
    pub swarm: Option<PathBuf>,
    #[command(flatten)]
    pub schedule: Schedule,
    /// How many devices
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(20..=60_000))]
    pub devices: u32,
    /// So many pongs missed in a row end a session
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=10))]
    pub max_missed: u32,
    /// Safeties that a program built with the feature `chaos` does without (src/chaos.rs); it ends at an unknown one
    #[arg(long, value_delimiter = ',', value_name = "SAFETIES")]
    pub lacking: Vec<String>,
    /// The folder of the records, emptied first [default: chaos/SETUP-SEED in CARGO_TARGET_DIR or target]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Keep the data of nodes and stores too; records are always kept
    #[arg(long)]
    pub keep: bool,
}

/// What decides the schedule.
#[derive(Args, Clone)]
pub struct Schedule {
    /// Nodes on Postgres and Redis, or one by itself
    #[arg(long, value_enum, default_value = "cluster")]
    pub setup: Setup,
    /// How many nodes; the embedded set-up has one
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub nodes: u8,
    /// How long faults come
    #[arg(long, default_value_t = 10)]
    pub minutes: u64,
    /// The same in seconds
    #[arg(long, conflicts_with = "minutes")]
    pub seconds: Option<u64>,
    /// Repeats a schedule; by default another one each time
    #[arg(long)]
    pub seed: Option<u64>,
    /// Only these kinds of faults
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    pub only: Vec<Kind>,
    /// All kinds but these
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS", conflicts_with = "only")]
    pub without: Vec<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Setup {
    Cluster,
    Embedded,
}

impl Setup {
    pub fn has_stores(self) -> bool {
        self == Self::Cluster
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Embedded => "embedded",
        }
    }
}

impl Schedule {
    pub fn over(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(self.minutes * 60))
    }

    pub fn kinds(&self) -> Vec<Kind> {
        let all = if self.only.is_empty() { Kind::value_variants() } else { &self.only };
        all.iter().copied().filter(|kind| !self.without.contains(kind)).collect()
    }

    pub fn plan(&self, seed: u64) -> Vec<Planned> {
        plan::plan(seed, self.scene(), &self.kinds(), self.over())
    }

    fn scene(&self) -> Scene {
        let nodes = if self.setup.has_stores() { self.nodes } else { 1 };
        Scene { nodes, has_stores: self.setup.has_stores(), lease: node::LEASE }
    }
}

/// How a run went.
pub struct Outcome {
    pub out: PathBuf,
    /// What failed of the run itself.
    pub troubles: Vec<String>,
    /// Held while the records are this run's alone.
    pub _lock: File,
}

/// A run that was asked for wrongly, or is not possible here: nothing was started.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl Options {
    fn kinds(&self) -> Vec<Kind> {
        self.schedule.kinds()
    }

    fn parts(&self) -> Vec<Part> {
        let scene = self.schedule.scene();
        let stores = scene.has_stores.then_some([Part::Postgres, Part::Redis]);
        let nodes = (1..=scene.nodes).map(Part::Node);
        nodes.chain(stores.into_iter().flatten()).chain([Part::Devices, Part::Runner]).collect()
    }
}

/// Carries out a run. It has to be called while the process has this one thread alone.
///
/// # Errors
/// Where it can not be carried out to its end.
pub fn run(mut options: Options, seed: u64) -> anyhow::Result<Outcome> {
    let missing = needs::missing(&needs::of(&options.kinds(), options.schedule.setup.has_stores()));
    missing.map_or(Ok(()), |missing| Err(Refused(missing)))?;
    for program in [Some(&options.lastpong), options.swarm.as_ref()].into_iter().flatten() {
        if !program.is_file() {
            bail!(Refused(format!("there is no program {}: build it first", program.display())));
        }
    }
    for program in [Some(&mut options.lastpong), options.swarm.as_mut()].into_iter().flatten() {
        *program = std::fs::canonicalize(&*program).with_context(|| program.display().to_string())?;
    }
    let name = format!("{}-{seed}", options.schedule.setup.name());
    let out = options.out.clone().unwrap_or_else(|| target().join("chaos").join(name));
    std::fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let out = std::fs::canonicalize(out)?;
    let lock = record::lock(&out)?.ok_or_else(|| {
        Refused(format!("{} is another run's that goes on: choose another --out", out.display()))
    })?;
    eprintln!("chaos: seed {seed}");
    let about = About::begin(&out, facts(&options, seed))?;

    let prefix = format!("lpc{}", std::process::id());
    let folder = std::env::temp_dir().join(format!("lastpong-chaos-{}", std::process::id()));
    std::fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    let _guardian = Guardian::set(&prefix, &folder, options.keep)?;
    let net = Net::lay(&prefix, &options.parts())?;
    // The runtime's threads are started by this one, and are where it is.
    net.enter(Part::Runner)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let places = Places { out: &out, folder: &folder };
    let troubles = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            result = carry_out(&options, net, seed, places, &about) => result,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminated.recv() => bail!("interrupted"),
        }
    })?;
    Ok(Outcome { out, troubles, _lock: lock })
}

/// Where Cargo puts what it builds.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

async fn carry_out(
    options: &Options,
    net: Net,
    seed: u64,
    places: Places<'_>,
    about: &About,
) -> anyhow::Result<Vec<String>> {
    let out = places.out;
    let world = Arc::new(World::start(options, net, seed, places).await?);
    let has_stores = options.schedule.setup.has_stores();
    let subscribers = Subscribers::start(&world.api, &world.node_parts(), has_stores, out)?;
    let slow = record::Lines::create(&out.join("slow.jsonl"))?;
    about.know("subscribers", json!(subscribers.names()))?;
    for swarm in &world.swarms {
        swarm.lock().await.start()?;
    }
    let work = async {
        gather(&world).await;
        let plan = options.schedule.plan(seed);
        tokio::select! {
            () = faults::all(&world, plan) => {}
            () = kicks::kicks(&world, seed) => {}
            () = progress(&world) => {}
            () = probe::probe(&slow, &world.troubles), if has_stores => {}
        }
        finish::finish(&world, about, subscribers, out).await
    };
    tokio::select! {
        result = work => result?,
        () = world.watch() => {}
    }
    Ok(world.troubles.all())
}

/// Waits until the devices are there.
async fn gather(world: &World) {
    match finish::stayers_are_there(world, GATHERING).await {
        Ok(present) => eprintln!("chaos: {present} are there; faults begin"),
        Err(present) => world.troubles.add(format!("{present} came in {GATHERING:?}")),
    }
}

/// Says now and then how many devices are live, for ever.
async fn progress(world: &World) {
    let begin = Instant::now();
    loop {
        sleep(Duration::from_secs(10)).await;
        eprintln!("{:>7.1} s  {} live", begin.elapsed().as_secs_f64(), finish::total(world).await);
    }
}

fn facts(options: &Options, seed: u64) -> serde_json::Value {
    let ms = |duration: Duration| duration.as_millis() as u64;
    let git = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let revision =
        git.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let nodes: Vec<_> = options.parts().into_iter().filter(|part| part.is_node()).collect();
    json!({
        "seed": seed,
        "setup": options.schedule.setup.name(),
        "nodes": nodes,
        "devices": options.devices,
        "minutes": options.schedule.over().as_secs_f64() / 60.0,
        "ping_interval_ms": ms(node::PING_INTERVAL),
        "pong_timeout_ms": ms(node::PONG_TIMEOUT),
        "max_missed_pongs": options.max_missed,
        "lacking": options.lacking,
        "lease_ms": ms(node::LEASE),
        "drain_spread_ms": ms(node::DRAIN_SPREAD),
        "revision": revision,
        "faults": options.schedule.kinds(),
        "began_at": record::now(),
    })
}
