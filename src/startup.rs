//! The only place where actors are made and wired, and where they are stopped in order.
//!
//! Up: secrets, stores, the registry and the root supervisor, then what an earlier run left is ended on the record, and
//! only then the listener with a supervisor for each worker. With Postgres away the last two may change places: what
//! is to be recorded waits in the journal. Down: nobody is let in, sessions are ended over the spread, the registry settles,
//! subscribers are told the rest, the stores close.

mod acts;
mod limits;
mod looks;
mod stop;
mod stores;
mod tokens;
mod workers;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use actix::{Actor, Addr};
use actix_server::Server;
use actix_web::web::Data;
use anyhow::Context as _;
use tokio::sync::watch;

use crate::cluster::membership::Membership;
use crate::cluster::repairs::Repairs;
use crate::cluster::{membership, notices};
use crate::config::Settings;
use crate::feed::stream::Relay;
use crate::feed::{self, Feed, UNKNOWN, tail};
use crate::http::Doors;
use crate::http::auth::Auth;
use crate::http::health::Readiness;
use crate::ids::{Incarnation, Run};
use crate::log_filter::LogFilter;
use crate::login::Logins;
use crate::metrics::Metrics;
use crate::peer::Proxies;
use crate::projection;
use crate::projection::live::Projector;
use crate::projection::record::{self, Reconciler};
use crate::registry::actor::{Parts, Registry};
use crate::registry::batch::Grouping;
use crate::registry::messages::{Report, ReportRuns, WhenDrained};
use crate::secret::Secret;
use crate::session::handshake::Gate;
use crate::session::once::Once;
use crate::store::live::Live;
use crate::supervisor::Inspector;
use crate::supervisor::admission::Admission;
use crate::supervisor::root::{Registrar, RootSupervisor};
use crate::supervisor::worker::Uplinks;
use crate::time::Timestamp;
use crate::tls;
use crate::trace;

use stop::StopSignals;
use stores::Stores;
use tokens::{Tokens, once};
use workers::{Workers, listen, raise_file_limit};

/// Sessions recovered in one transaction.
const RECOVER: usize = 1_000;
const VITAL_CHECK: Duration = Duration::from_secs(1);
/// How long subscribers have to take what is left.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Runs a node until it is told to stop. `ready` is told the address, once devices may come.
///
/// # Errors
/// What kept it from starting, or from stopping in good order.
pub fn serve(
    settings: Settings,
    log_filter: Arc<LogFilter>,
    ready: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    for name in settings.without_effect() {
        log::warn!("{name} is set but has no effect in this version");
    }
    if let Some(files) = tls::Files::of(&settings) {
        files.check()?;
    }
    let tokens = Tokens::open(&settings)?;
    let (admin_token, _) = settings.admin_token()?;
    let stores = Stores::open(&settings)?;
    let listener = listen(settings.bind).with_context(|| format!("cannot listen on {}", settings.bind))?;
    raise_file_limit();
    let system = actix::System::new();
    let aside = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("lastpong-aside")
        .enable_all()
        .build()
        .context("cannot start a thread")?;
    let node = Node {
        settings: Arc::new(settings),
        tokens,
        admin_token,
        stores,
        log_filter,
        aside: aside.handle().clone(),
    };
    let served = system.block_on(node.run(listener, ready));
    aside.shutdown_background();
    trace::stop(LAST_WORDS);
    served
}

struct Node {
    settings: Arc<Settings>,
    tokens: Tokens,
    admin_token: Secret,
    stores: Stores,
    log_filter: Arc<LogFilter>,
    /// For work that no device waits for.
    aside: tokio::runtime::Handle,
}

/// A node without its listener.
struct Running {
    root: Addr<RootSupervisor>,
    registry: Addr<Registry>,
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
    doors: Data<Doors>,
    runs: watch::Receiver<Run>,
    /// The record has all that it was told.
    direct: Arc<AtomicBool>,
    membership: Option<Addr<Membership>>,
    relay: Option<Relay>,
    projector: Option<Projector>,
    once: Option<Arc<Once>>,
}

impl Node {
    async fn run(self, listener: TcpListener, ready: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
        let mut stop = StopSignals::new()?;
        let address = listener.local_addr()?;
        let run = Run { node_id: self.settings.node_id.clone(), incarnation: Incarnation::new() };
        let mut running = tokio::select! {
            running = self.start(&run) => running?,
            () = stop.next() => anyhow::bail!("stopped while ending what an earlier run left; the next start goes on"),
        };
        let server = self.listen(&running, listener)?;
        let handle = server.handle();
        let mut server = actix_rt::spawn(server);
        ready(address);
        log::info!(address:% = address, node_id:% = run.node_id, incarnation:% = run.incarnation; "serving");
        tokio::select! {
            stopped = &mut server => {
                stopped??;
                anyhow::bail!("the listener stopped by itself");
            }
            () = running.vital_part_lost() => {
                // Another run ends the sessions on the record; to go on would be to hold them off it.
                anyhow::bail!("a supervisor or the registry died, or this node may not go on: see the log, and start again");
            }
            () = stop.next() => {}
        }
        log::info!("stopping: no new sessions; a second signal stops at once");
        let (relay, projector) = (running.relay.take(), running.projector.take());
        tokio::select! {
            drained = self.stop(&running, &handle, relay, projector) => drained?,
            () = stop.next() => anyhow::bail!("stopped at once; sessions that were left end at the next start"),
        }
        log::info!("stopped");
        Ok(())
    }

    /// Everything but the listener; what an earlier run left is on the record, or in the journal.
    async fn start(&self, run: &Run) -> anyhow::Result<Running> {
        let settings = &self.settings;
        let store = &self.stores.sql;
        let metrics = Arc::new(Metrics::new());
        if let Some(endpoint) = &settings.otel_exporter_otlp_endpoint {
            trace::start(endpoint, &run.node_id, run.incarnation, metrics.clone())?;
        }
        let shared_log = store.cluster().is_some();
        match store.cluster() {
            Some(cluster) => membership::take_name(cluster, settings.node_lease)
                .await
                .with_context(|| format!("node {}", settings.node_id))?,
            None => self.recover(run, &metrics).await?,
        }
        let newest = if shared_log { UNKNOWN } else { store.bounds().await?.newest };
        let limits =
            feed::Limits { subscribers: settings.max_subscribers, shared_log, ..feed::Limits::default() };
        let feed = Feed::with_limits(store.clone(), newest, metrics.clone(), limits);
        let live = match &self.stores.redis {
            Some(url) => Some(Live::open(Some(url), settings.session_timeout, metrics.clone())?),
            None => None,
        };
        let store_away = Arc::default();
        let direct = Arc::new(AtomicBool::new(false));
        let admission = Admission::new(limits::of(settings), Arc::clone(&store_away));
        let registry = Registry::new(Parts {
            store: store.clone(),
            journal: self.stores.journal.clone(),
            feed: feed.clone(),
            metrics: metrics.clone(),
            run: run.clone(),
            grouping: Grouping { delay: settings.commit_delay, size: settings.commit_batch },
            retention: settings.event_retention,
            audit_retention: settings.audit_retention,
            sweep_batch: settings.cleanup_batch_size,
            store_away,
            direct: direct.clone(),
        })
        .start();
        let registrar =
            Registrar { record: registry.clone().recipient(), reborn: registry.clone().recipient() };
        let (run_now, runs) = watch::channel(run.clone());
        let root =
            RootSupervisor::new(settings.workers, registrar, run_now, admission.clone(), metrics.clone())
                .start();
        let peers = self.peers(live.as_ref());
        let doors = Data::new(Doors {
            node_id: settings.node_id.clone(),
            run: runs.clone(),
            ends: root.clone().recipient(),
            feed: feed.clone(),
            store: store.clone(),
            inspector: Inspector::default(),
            pulse: self.pulse((&metrics, &root), &feed, &peers, live.is_some()),
            peers,
            auth: Auth::new(
                self.admin_token.clone(),
                Logins::new(store.clone(), metrics.clone()),
                Proxies::of(settings),
                admission.clone(),
            )
            .over_tls(settings.tls_cert.is_some()),
            readiness: Readiness::new(admission.clone(), self.stores.probes(live.as_ref())),
            metrics: metrics.clone(),
            metrics_public: settings.metrics_public,
            acts: self.acts(&root, &admission),
        });
        doors.pulse.start(&self.aside);
        self.tokens.follow(&self.aside);
        let mut running = Running {
            root,
            registry,
            admission,
            metrics,
            doors,
            runs,
            direct,
            membership: None,
            relay: None,
            projector: None,
            once: once(settings, live.as_ref(), &self.aside),
        };
        self.join(&mut running, live.as_ref()).await?;
        self.follow_operators(&running).await?;
        if let Some(live) = live {
            self.project(&mut running, live);
        }
        Ok(running)
    }

    /// Ends what an earlier run left in this node's own file.
    async fn recover(&self, run: &Run, metrics: &Metrics) -> anyhow::Result<()> {
        let store = &self.stores.sql;
        store.begin(run, Timestamp::now()).await?;
        let mut recovered = 0;
        loop {
            let ends = metrics.timed("sql", "recover", store.recover(run, Timestamp::now(), RECOVER)).await?;
            if ends.is_empty() {
                break;
            }
            metrics.count_ends(&ends);
            recovered += ends.len();
            if recovered % (10 * RECOVER) == 0 {
                log::info!(sessions = recovered; "ending sessions that an earlier run left");
            }
        }
        if recovered > 0 {
            log::info!(sessions = recovered; "ended what an earlier run left, as node_lost");
        }
        Ok(())
    }

    /// Takes this run's place among the nodes of one record, where there are several.
    async fn join(&self, running: &mut Running, live: Option<&Live>) -> anyhow::Result<()> {
        let (root, registry) = (running.root.clone(), running.registry.clone());
        registry.send(Report(root.clone().recipient())).await?;
        let Some(cluster) = self.stores.sql.cluster() else { return Ok(()) };
        let membership = Membership::new(membership::Parts {
            store: cluster.clone(),
            node_id: self.settings.node_id.clone(),
            lease: self.settings.node_lease,
            fenced: root.clone().recipient(),
            witness: live.and_then(Live::link).cloned(),
            metrics: running.metrics.clone(),
        })
        .start();
        // Whether a refused write was a fence is for the lease to say.
        let runs =
            ReportRuns { fenced: membership.clone().recipient(), begun: membership.clone().recipient() };
        running.membership = Some(membership);
        registry.send(runs).await?;
        match registry.send(WhenDrained).await? {
            Ok(()) => {}
            Err(why) if self.settings.start_degraded => {
                log::warn!(why = why.as_str(); "starting without the SQL store: sessions are journaled until it is there");
            }
            Err(why) => anyhow::bail!("DATABASE_URL: the SQL store is away: {why}"),
        }
        let feed = &running.doors.feed;
        if let Ok(bounds) = feed.bounds().await {
            feed.begin_at(bounds.newest);
        }
        actix_rt::spawn(tail::follow(feed.clone(), cluster.clone()));
        actix_rt::spawn(notices::follow(feed.clone(), root.clone().recipient()));
        let repairs = Repairs {
            store: cluster.clone(),
            run: running.runs.clone(),
            ends: root.recipient(),
            metrics: running.metrics.clone(),
        }
        .start();
        let (direct, admission) = (running.direct.clone(), running.admission.clone());
        let reconciler = Reconciler::new(record::Parts {
            store: self.stores.sql.clone(),
            inspector: running.doors.inspector.clone(),
            run: running.runs.clone(),
            metrics: running.metrics.clone(),
            found: repairs.recipient(),
            update_interval: self.settings.update_interval,
            settled: Box::new(move || direct.load(Relaxed) && admission.backlog() == 0),
        });
        self.aside.spawn(reconciler.run());
        Ok(())
    }

    /// Shows the sessions in Redis, and copies the log to its stream.
    fn project(&self, running: &mut Running, live: Live) {
        let _aside = self.aside.enter();
        let feed = &running.doors.feed;
        running.relay =
            live.link().map(|link| Relay::spawn(feed.clone(), link.clone(), self.settings.stream_maxlen));
        running.projector = Some(Projector::start(projection::live::Parts {
            live,
            feed: feed.clone(),
            inspector: running.doors.inspector.clone(),
            run: running.runs.clone(),
            metrics: running.metrics.clone(),
            update_interval: self.settings.update_interval,
            session_timeout: self.settings.session_timeout,
            max_inactive: self.settings.max_inactive,
        }));
    }

    fn listen(&self, running: &Running, listener: TcpListener) -> anyhow::Result<Server> {
        let settings = &self.settings;
        let gate = Arc::new(Gate {
            settings: settings.clone(),
            tokens: self.tokens.verifier.clone(),
            once: running.once.clone(),
            admission: running.admission.clone(),
            proxies: Proxies::of(settings),
            metrics: running.metrics.clone(),
        });
        let uplinks = Uplinks {
            facts: running.root.clone().recipient(),
            enlist: running.root.clone().recipient(),
            heard: running.registry.clone().recipient(),
        };
        let workers = Workers {
            settings: settings.clone(),
            metrics: running.metrics.clone(),
            admission: running.admission.clone(),
            inspector: running.doors.inspector.clone(),
            uplinks,
            gate,
            doors: running.doors.clone(),
            run: running.runs.clone(),
            next: Arc::default(),
            tls: self.tls(&running.metrics)?,
        };
        workers.listen(listener)
    }
}

impl Running {
    /// Returns when an actor is gone without which nothing is recorded, or no deadline kept.
    async fn vital_part_lost(&self) {
        let member = || self.membership.as_ref().is_none_or(Addr::connected);
        while self.root.connected()
            && self.registry.connected()
            && self.doors.inspector.all_connected()
            && member()
        {
            tokio::time::sleep(VITAL_CHECK).await;
        }
    }
}
