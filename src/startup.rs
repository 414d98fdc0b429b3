//! The only place where actors are made and wired, and where they are stopped in order.
//!
//! Up: secrets, store, recovery of what an earlier run left, then registry, root supervisor, and with the first
//! connection's worker its supervisor. Nothing is admitted before the recovery is on the record. Down: nobody is let in, sessions are
//! ended over the spread, the registry settles, subscribers are told the rest, the store closes.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use actix::{Actor, Addr};
use actix_http::HttpService;
use actix_server::{Server, ServerHandle};
use actix_service::{fn_service, map_config};
use actix_web::App;
use actix_web::dev::AppConfig;
use actix_web::web::Data;
use anyhow::Context as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::config::{Settings, TokenReplay};
use crate::feed::{self, Feed};
use crate::http::auth::AdminAuth;
use crate::http::events_ws::SILENCE;
use crate::http::health::Readiness;
use crate::http::{self, Doors};
use crate::ids::{Incarnation, Run};
use crate::metrics::Metrics;
use crate::registry::actor::{Parts, Registry};
use crate::registry::batch::Grouping;
use crate::registry::messages::{Report, Settle};
use crate::secret::{Secret, make_private_dir};
use crate::session::handshake::{Gate, RefusalLog};
use crate::session::house::House;
use crate::store::Store;
use crate::supervisor::Inspector;
use crate::supervisor::admission::{Admission, Limits};
use crate::supervisor::inspector::Window;
use crate::supervisor::messages::{CountSessions, Drain};
use crate::supervisor::root::RootSupervisor;
use crate::supervisor::roster::Roster;
use crate::supervisor::snapshot::WorkerSnapshot;
use crate::supervisor::worker::{Uplinks, WorkerSupervisor};
use crate::time::{Mono, Timestamp};
use crate::token::{DeviceTokens, UsedTokens};
use crate::upgrade::Upgrades;

/// Connections that may wait to be accepted, as far as `net.core.somaxconn` allows.
const BACKLOG: i32 = 8192;
/// Tokens remembered as used, at most.
const USED_TOKENS: usize = 1_000_000;
/// Sessions recovered in one transaction.
const RECOVER: usize = 1_000;
/// How long after its spread a drain may still take.
const DRAIN_GRACE: Duration = Duration::from_secs(10);
const DRAIN_CHECK: Duration = Duration::from_millis(20);
const VITAL_CHECK: Duration = Duration::from_secs(1);
/// How long subscribers have to take what is left.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Runs a node until it is told to stop. `ready` is told the address, once devices may come.
///
/// # Errors
/// What kept it from starting, or from stopping in good order.
pub fn serve(settings: Settings, ready: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
    for name in settings.without_effect() {
        log::warn!("{name} is set but has no effect in this version");
    }
    let (token_secret, _) = settings.token_secret()?;
    let (admin_token, _) = settings.admin_token()?;
    let store = open_store(&settings)?;
    let listener = listen(settings.bind).with_context(|| format!("cannot listen on {}", settings.bind))?;
    raise_file_limit();
    let system = actix::System::new();
    let node = Node { settings: Arc::new(settings), token_secret, admin_token, store };
    system.block_on(node.run(listener, ready))
}

fn open_store(settings: &Settings) -> anyhow::Result<Store> {
    let path = settings.database_path();
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_private_dir(folder)?;
    }
    Ok(Store::open_sqlite(&path)?)
}

/// With room for those who all return at once.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A subscriber that does not read gives up its place; devices are given a time of their own once admitted.
fn give_up_in_time(connection: &TcpStream) {
    if let Err(error) = SockRef::from(connection).set_tcp_user_timeout(Some(SILENCE)) {
        log::debug!(error:% = error; "a connection is gone already");
    }
}

/// Each session is an open file: takes all that the system grants.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            log::warn!(error:% = error; "the limit on open files could not be raised");
        }
    }
    log::info!(open_files:? = limit.current; "sessions, subscribers and files together are bounded by the system");
}

struct Node {
    settings: Arc<Settings>,
    token_secret: Secret,
    admin_token: Secret,
    store: Store,
}

/// What of a running node is needed to stop it.
struct Running {
    root: Addr<RootSupervisor>,
    registry: Addr<Registry>,
    admission: Arc<Admission>,
    doors: Data<Doors>,
    server: ServerHandle,
}

impl Node {
    async fn run(self, listener: TcpListener, ready: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
        let mut stop = StopSignals::new()?;
        let address = listener.local_addr()?;
        let run = Run { node_id: self.settings.node_id.clone(), incarnation: Incarnation::new() };
        self.store.begin(&run, Timestamp::now()).await?;
        tokio::select! {
            recovered = self.recover(&run) => recovered?,
            () = stop.next() => anyhow::bail!("stopped while ending what an earlier run left; the next start goes on"),
        }
        let (running, server) = self.start(listener, &run).await?;
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
                anyhow::bail!("a supervisor or the registry died: start again");
            }
            () = stop.next() => {}
        }
        log::info!("stopping: no new sessions; a second signal stops at once");
        tokio::select! {
            drained = self.stop(&running) => drained?,
            () = stop.next() => anyhow::bail!("stopped at once; sessions that were left end at the next start"),
        }
        log::info!("stopped");
        Ok(())
    }

    async fn recover(&self, run: &Run) -> anyhow::Result<()> {
        let mut recovered = 0;
        loop {
            let now = Timestamp::now();
            let ends = self.store.recover(run, now, RECOVER).await?;
            if ends.is_empty() {
                break;
            }
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

    async fn start(&self, listener: TcpListener, run: &Run) -> anyhow::Result<(Running, Server)> {
        let settings = &self.settings;
        let metrics = Arc::new(Metrics::new());
        let feed_limits = feed::Limits { subscribers: settings.max_subscribers, ..feed::Limits::default() };
        let newest = self.store.bounds().await?.newest;
        let feed = Feed::with_limits(self.store.clone(), newest, metrics.clone(), feed_limits);
        let store_away = Arc::default();
        let admission = Admission::new(
            Limits {
                sessions: settings.max_sessions,
                sessions_per_ip: settings.max_sessions_per_ip as usize,
                handshakes_per_sec: settings.handshakes_per_sec,
            },
            Arc::clone(&store_away),
        );
        let registry = Registry::new(Parts {
            store: self.store.clone(),
            feed: feed.clone(),
            metrics: metrics.clone(),
            run: run.clone(),
            grouping: Grouping { delay: settings.commit_delay, size: settings.commit_batch },
            retention: settings.event_retention,
            sweep_batch: settings.cleanup_batch_size,
            store_away,
        })
        .start();
        let record = registry.clone().recipient();
        let root = RootSupervisor::new(settings.workers, record, admission.clone(), metrics.clone()).start();
        registry.try_send(Report(root.clone().recipient())).context("the registry did not start")?;
        let inspector = Inspector::default();
        let doors = Data::new(Doors {
            node_id: settings.node_id.clone(),
            feed,
            store: self.store.clone(),
            inspector: inspector.clone(),
            auth: AdminAuth::new(self.admin_token.clone()),
            readiness: Readiness::new(self.store.clone(), admission.clone()),
            metrics: metrics.clone(),
            metrics_public: settings.metrics_public,
        });
        let gate = Arc::new(Gate {
            settings: settings.clone(),
            tokens: DeviceTokens::new(&self.token_secret),
            used: (settings.token_replay == TokenReplay::Once).then(|| UsedTokens::new(USED_TOKENS)),
            admission: admission.clone(),
        });
        let uplinks = Uplinks {
            facts: root.clone().recipient(),
            enlist: root.clone().recipient(),
            heard: registry.clone().recipient(),
        };
        let workers = Workers {
            settings: settings.clone(),
            metrics,
            admission: admission.clone(),
            inspector,
            uplinks,
            gate,
            doors: doors.clone(),
            incarnation: run.incarnation,
            next: Arc::new(AtomicUsize::new(0)),
        };
        let server = workers.listen(listener)?;
        Ok((Running { root, registry, admission, doors, server: server.handle() }, server))
    }

    /// Ends every session, sees it on the record, tells the subscribers, closes.
    async fn stop(&self, running: &Running) -> anyhow::Result<()> {
        let spread = self.settings.drain_spread;
        running.root.send(Drain { spread }).await?;
        let all_ended = async {
            // No session, nobody on the way in, no socket still being closed, no fact on its way to the store.
            while running.root.send(CountSessions).await? > 0
                || running.admission.holds_any()
                || running.admission.backlog() > 0
            {
                tokio::time::sleep(DRAIN_CHECK).await;
            }
            running.registry.send(Settle).await?;
            anyhow::Ok(())
        };
        let patience = spread + self.settings.handshake_timeout + self.settings.close_timeout + DRAIN_GRACE;
        let ended = tokio::time::timeout(patience, all_ended).await;
        running.doors.feed.close();
        let _ = tokio::time::timeout(LAST_WORDS, running.server.stop(true)).await;
        self.store.close().await;
        ended.context("the store did not take every end in time: the next start writes what is missing")?
    }
}

impl Running {
    /// Returns when an actor is gone without which nothing is recorded, or no deadline kept.
    async fn vital_part_lost(&self) {
        while self.root.connected() && self.registry.connected() && self.doors.inspector.all_connected() {
            tokio::time::sleep(VITAL_CHECK).await;
        }
    }
}

/// What every worker thread is made from.
#[derive(Clone)]
struct Workers {
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    admission: Arc<Admission>,
    inspector: Inspector,
    uplinks: Uplinks,
    gate: Arc<Gate>,
    doors: Data<Doors>,
    incarnation: Incarnation,
    next: Arc<AtomicUsize>,
}

impl Workers {
    fn listen(self, listener: TcpListener) -> anyhow::Result<Server> {
        let head_timeout = self.settings.handshake_timeout;
        let workers = self.settings.workers;
        let server = Server::build()
            .workers(workers)
            .disable_signals()
            .shutdown_timeout(LAST_WORDS.as_secs())
            .listen("lastpong", listener, move || {
                let upgrades = Rc::new(self.supervised());
                let doors = self.doors.clone();
                let app = App::new().app_data(doors).configure(http::routes);
                HttpService::build()
                    .client_request_timeout(head_timeout)
                    .client_disconnect_timeout(Duration::ZERO)
                    .tcp_nodelay(true)
                    .on_connect_ext(|connection: &TcpStream, _| give_up_in_time(connection))
                    .upgrade(fn_service(move |(request, connection)| {
                        let upgrades = upgrades.clone();
                        async move {
                            upgrades.serve(request, connection).await;
                            Ok::<_, std::convert::Infallible>(())
                        }
                    }))
                    .h1(map_config(app, |()| AppConfig::default()))
                    .tcp()
            })?
            .run();
        Ok(server)
    }

    /// The supervisor of this thread, and what brings sessions to it.
    fn supervised(&self) -> Upgrades {
        let worker = self.next.fetch_add(1, Relaxed);
        let roster = Roster::new(worker, self.metrics.clone(), self.admission.clone());
        let nothing_yet =
            WorkerSnapshot { worker, taken_at: Timestamp::now(), taken: Mono(0), sessions: Vec::new() };
        let (publish, published) = watch::channel(Arc::new(nothing_yet));
        let supervisor = WorkerSupervisor::new(
            roster.clone(),
            self.uplinks.clone(),
            self.settings.update_interval,
            publish,
        )
        .start();
        self.inspector.add(Window { worker: supervisor.recipient(), published });
        Upgrades {
            house: Rc::new(House::new(roster, &self.settings, self.incarnation)),
            gate: self.gate.clone(),
            doors: self.doors.clone(),
            log: RefusalLog::default(),
        }
    }
}

/// SIGTERM and SIGINT.
struct StopSignals {
    term: Signal,
    int: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
