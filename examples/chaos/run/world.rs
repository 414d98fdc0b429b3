//! Everything that a run sets up, and the way to each part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, sleep, timeout};

use super::Options;
use super::ails::Ails;
use super::alarms::Alarms;
use super::clock::Clock;
use super::net::Net;
use super::node::{Api, Node, Secrets};
use super::part::Part;
use super::plan::Kind;
use super::postgres::{Postgres, let_pass};
use super::record::Lines;
use super::redis::Redis;
use super::swarm::{Devices, Swarm};
use super::troubles::Troubles;

const LOOK: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(60);

/// All parts of an installation under test.
pub struct World {
    pub net: Arc<Net>,
    pub api: Api,
    pub nodes: Vec<Mutex<Node>>,
    pub postgres: Option<Mutex<Postgres>>,
    pub redis: Option<Mutex<Redis>>,
    pub swarms: Vec<Mutex<Swarm>>,
    pub faults: Lines,
    pub operator: Lines,
    pub troubles: Troubles,
    /// Nodes drain one after another.
    pub draining: Mutex<()>,
    pub ails: Ails,
    alarms: Mutex<Alarms>,
    claims: BTreeMap<Part, Arc<Mutex<()>>>,
    program: PathBuf,
    secrets: Secrets,
    seed: u64,
    out: PathBuf,
}

/// Where a run puts what.
pub struct Places<'a> {
    /// For what stays.
    pub out: &'a Path,
    /// For what goes with the run: data, disks, clocks.
    pub folder: &'a Path,
}

impl World {
    /// Starts all of it, and waits until every node is ready. No device is there yet.
    ///
    /// # Errors
    /// Where any of it does not start.
    pub async fn start(options: &Options, net: Net, seed: u64, places: Places<'_>) -> anyhow::Result<Self> {
        let Places { out, folder } = places;
        let (net, secrets, logs) = (Arc::new(net), Secrets::new(), out.join("nodes"));
        let parts = options.parts();
        for part in &parts {
            std::fs::create_dir_all(folder.join(part.to_string()))?;
        }
        let_pass(folder)?;
        let own = |part: Part| folder.join(part.to_string());
        let clock = |part: Part| -> anyhow::Result<Option<Clock>> {
            let wanted = options.kinds().contains(&Kind::Clock);
            wanted.then(|| Clock::new(&own(part), part != Part::Postgres)).transpose()
        };
        let (mut postgres, mut redis) = (None, None);
        if options.schedule.setup.has_stores() {
            let_pass(&own(Part::Postgres))?;
            let clock = clock(Part::Postgres)?;
            postgres = Some(Mutex::new(Postgres::start(&net, &own(Part::Postgres), &logs, clock).await?));
            redis = Some(Mutex::new(Redis::start(&net, &own(Part::Redis), &logs).await?));
        }
        let mut nodes = Vec::new();
        for part in parts.iter().copied().filter(|part| part.is_node()) {
            let mut node = Node::prepare(part, &net, options, &secrets, &own(part), &logs, clock(part)?)?;
            node.start()?;
            nodes.push(Mutex::new(node));
        }
        let swarms = [Part::Swarm('a'), Part::Swarm('b'), Part::Swarm('c')];
        let mut world = Self {
            api: Api::new(&secrets)?,
            net,
            nodes,
            postgres,
            redis,
            swarms: Vec::new(),
            faults: Lines::create(&out.join("faults.jsonl"))?,
            operator: Lines::create(&out.join("operator.jsonl"))?,
            troubles: Troubles::default(),
            draining: Mutex::default(),
            ails: Ails::default(),
            alarms: Mutex::default(),
            claims: parts.iter().copied().chain(swarms).map(|part| (part, Arc::default())).collect(),
            program: options.swarm.clone().unwrap_or_else(|| options.lastpong.clone()),
            secrets,
            seed,
            out: out.to_owned(),
        };
        world.swarms =
            world.devices(&world.node_parts()).swarms(options.devices).into_iter().map(Mutex::new).collect();
        ensure!(
            world.become_whole(PATIENCE).await,
            "not every node became ready in {PATIENCE:?}: see {}",
            logs.display()
        );
        Ok(world)
    }

    pub fn node_parts(&self) -> Vec<Part> {
        (1..).zip(&self.nodes).map(|(n, _)| Part::Node(n)).collect()
    }

    pub fn devices<'a>(&'a self, nodes: &'a [Part]) -> Devices<'a> {
        let (net, program, out) = (&self.net, self.program.as_path(), self.out.as_path());
        Devices { net, program, secret: &self.secrets.token, seed: self.seed, nodes, out }
    }

    /// # Errors
    /// Where the part is no node of this run.
    pub fn node(&self, part: Part) -> anyhow::Result<&Mutex<Node>> {
        let Part::Node(n) = part else { anyhow::bail!("{part} is no node") };
        self.nodes.get(usize::from(n) - 1).with_context(|| format!("there is no {part}"))
    }

    /// # Errors
    /// Where this run has none.
    pub fn postgres(&self) -> anyhow::Result<&Mutex<Postgres>> {
        self.postgres.as_ref().context("there is no postgres")
    }

    /// # Errors
    /// Where this run has none.
    pub fn redis(&self) -> anyhow::Result<&Mutex<Redis>> {
        self.redis.as_ref().context("there is no redis")
    }

    /// # Errors
    /// Where the part is no swarm of this run.
    pub fn swarm(&self, part: Part) -> anyhow::Result<&Mutex<Swarm>> {
        let Part::Swarm(letter) = part else { anyhow::bail!("{part} is no swarm") };
        let place = (letter as usize).checked_sub('a' as usize);
        place.and_then(|place| self.swarms.get(place)).with_context(|| format!("there is no {part}"))
    }

    /// Takes the parts for one fault, once no other has them. Nothing where that takes too long.
    pub async fn claim(&self, parts: &BTreeSet<Part>) -> Option<Vec<OwnedMutexGuard<()>>> {
        let mut claimed = Vec::new();
        for part in parts {
            let lock = self.claims.get(part)?.clone();
            claimed.push(timeout(PATIENCE / 2, lock.lock_owned()).await.ok()?);
        }
        Some(claimed)
    }

    /// Waits until these nodes have all they need; while a cause of trouble is there it is enough that they admit devices,
    /// and no patience is lost.
    ///
    /// # Errors
    /// The node for which this was too long.
    pub async fn recovers(&self, nodes: &[Part], patience: Duration) -> Result<(), Part> {
        let mut deadline = Instant::now() + patience;
        for node in nodes {
            loop {
                let before = self.ails.any();
                if self.api.is_whole(*node).await || before && self.api.is_ready(*node).await {
                    break;
                }
                if before || self.ails.any() {
                    deadline = Instant::now() + patience;
                } else if Instant::now() > deadline {
                    return Err(*node);
                }
                sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Waits until every node has all that it needs, and nothing left in its journal.
    pub async fn become_whole(&self, patience: Duration) -> bool {
        self.recovers(&self.node_parts(), patience).await.is_ok()
    }

    /// Watches over what should run, for ever: what ended by itself is a failure of the run, and is started again.
    pub async fn watch(&self) {
        loop {
            for node in &self.nodes {
                let Ok(mut node) = node.try_lock() else { continue };
                if let Some((status, log)) = node.ended() {
                    self.troubles.add(format!(
                        "{} ended by itself, {status}: see {}",
                        node.part,
                        log.display()
                    ));
                    self.troubles.note(node.start());
                }
            }
            self.watch_stores().await;
            for swarm in &self.swarms {
                let Ok(mut swarm) = swarm.try_lock() else { continue };
                if swarm.is_gone() {
                    self.troubles.add(format!("{} ended by itself", swarm.part));
                    swarm.kill();
                }
            }
            sleep(LOOK).await;
        }
    }

    async fn watch_stores(&self) {
        if let Some(Ok(mut postgres)) = self.postgres.as_ref().map(Mutex::try_lock)
            && let Some(status) = postgres.ended()
            && !self.ails.may_end(Part::Postgres)
        {
            self.troubles.add(format!("postgres ended by itself, {status}"));
            self.troubles.note(postgres.run().await);
        }
        if let Some(Ok(mut redis)) = self.redis.as_ref().map(Mutex::try_lock)
            && let Some(status) = redis.ended()
            && !self.ails.may_end(Part::Redis)
        {
            self.troubles.add(format!("redis ended by itself, {status}"));
            self.troubles.note(redis.run().await);
        }
        self.heed_alarms().await;
    }

    /// Looks for what the stores wrote of processes that ended as none should, since the last look.
    pub async fn heed_alarms(&self) {
        let mut alarms = self.alarms.lock().await;
        for part in [Part::Postgres, Part::Redis] {
            let new = alarms.look(&self.out.join("nodes"), &format!("{part}-"));
            for alarm in self.troubles.note(new.map_err(Into::into)).unwrap_or_default() {
                if !self.ails.may_end(part) {
                    self.troubles.add(alarm);
                }
            }
        }
    }
}
