//! The worker threads: each an HTTP server with a supervisor of its own, on one listener.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use actix::Actor;
use actix_http::HttpService;
use actix_server::Server;
use actix_service::{IntoService, Service, ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::App;
use actix_web::dev::AppConfig;
use actix_web::web::Data;
use anyhow::Context as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::config::Settings;
use crate::front::{self, Connections, Front, Received};
use crate::http::events_ws::SILENCE;
use crate::http::{self, Doors};
use crate::ids::Run;
use crate::metrics::Metrics;
use crate::session::handshake::{Gate, RefusalLog};
use crate::session::house::House;
use crate::session::poller::Poller;
use crate::supervisor::Inspector;
use crate::supervisor::admission::Admission;
use crate::supervisor::inspector::Window;
use crate::supervisor::roster::Roster;
use crate::supervisor::snapshot::WorkerSnapshot;
use crate::supervisor::worker::{Uplinks, WorkerSupervisor};
use crate::time::Mono;
use crate::tls::{Addresses, Files, Handshakes, Stream, Tls};
use crate::upgrade::Upgrades;

use super::{LAST_WORDS, Node};

/// Connections that may wait to be accepted, as far as `net.core.somaxconn` allows.
const BACKLOG: i32 = 8192;

/// What one worker's server takes beyond the limit of connections, to refuse it.
const SPARE: usize = 1_000;

/// With room for those who all return at once.
pub(super) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// An event is sent when it is there, not when the one before it was acknowledged. A subscriber that does not read gives up
/// its place; devices are given a time of their own once admitted.
fn prepare(connection: &TcpStream) {
    let socket = SockRef::from(connection);
    let prepared = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_user_timeout(Some(SILENCE)));
    if let Err(error) = prepared {
        log::debug!(error:% = error; "a connection is gone already");
    }
}

/// HTTP behind its front. What waits there has none of HTTP's buffers: those are made with its call.
fn behind<H>(
    front: Rc<Front>,
    http: H,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = (), InitError = H::InitError>
where
    H: ServiceFactory<(Stream, Option<SocketAddr>), Config = (), Response = ()> + 'static,
    H::Service: 'static,
    H::Error: std::fmt::Debug,
{
    let http = Rc::new(http);
    fn_factory(move || {
        let (front, http) = (front.clone(), http.clone());
        async move {
            let http = Rc::new(http.new_service(()).await?);
            let serve = move |stream: TcpStream| {
                let (front, http) = (front.clone(), http.clone());
                // Boxed, here and below: whoever awaits what he was given holds it twice.
                Box::pin(async move {
                    prepare(&stream);
                    let Some(known) = front.receive(&stream).await else { return Ok(()) };
                    let Some(Received { stream, peer, place: _place }) = front.open(stream, known).await
                    else {
                        return Ok(());
                    };
                    let handle = front::handle(stream.tcp());
                    let served = Box::pin(http.call((stream, Some(peer))));
                    if let Some(Err(error)) = front::watched(handle, front.patience, served).await {
                        log::debug!(error:? = error, peer:% = peer; "a connection ended");
                    }
                    Ok::<_, ()>(())
                })
            };
            Ok::<_, H::InitError>(serve.into_service())
        }
    })
}

/// Each session is an open file: takes all that the system grants.
pub(super) fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            log::warn!(error:% = error; "the limit on open files could not be raised");
        }
    }
    log::info!(open_files:? = limit.current; "sessions, subscribers and files together are bounded by the system");
}

impl Node {
    /// Where connections are within TLS: the certificates, which are followed from here on.
    pub(super) fn tls(&self, metrics: &Arc<Metrics>) -> anyhow::Result<Option<Arc<Tls>>> {
        let Some(files) = Files::of(&self.settings) else { return Ok(None) };
        let tls = Tls::open(files, metrics.clone())?;
        let _aside = self.aside.enter();
        self.aside.spawn(tls.clone().follow(self.settings.tls_reload).context("SIGHUP cannot be caught")?);
        Ok(Some(tls))
    }
}

/// What every worker thread is made from.
#[derive(Clone)]
pub(super) struct Workers {
    pub settings: Arc<Settings>,
    pub metrics: Arc<Metrics>,
    pub admission: Arc<Admission>,
    pub inspector: Inspector,
    pub uplinks: Uplinks,
    pub gate: Arc<Gate>,
    pub doors: Data<Doors>,
    pub run: watch::Receiver<Run>,
    pub next: Arc<AtomicUsize>,
    /// None where connections are plain.
    pub tls: Option<Arc<Tls>>,
}

impl Workers {
    pub(super) fn listen(self, listener: TcpListener) -> anyhow::Result<Server> {
        let settings = self.settings.clone();
        let (head_timeout, workers) = (settings.handshake_timeout, settings.workers);
        let connections =
            Connections::new(settings.max_connections, settings.max_connections_per_ip as usize);
        let addresses = Arc::<Addresses>::default();
        let server = Server::build()
            .workers(workers)
            // Those beyond the limit are told so, and do not fill the backlog.
            .max_concurrent_connections(settings.max_connections + SPARE)
            .disable_signals()
            .shutdown_timeout(LAST_WORDS.as_secs())
            .listen("lastpong", listener, move || {
                let upgrades = Rc::new(self.supervised());
                let doors = self.doors.clone();
                let app = App::new().app_data(doors).configure(http::routes);
                let front = Rc::new(self.front(connections.clone(), addresses.clone()));
                let http = HttpService::build()
                    .client_request_timeout(head_timeout)
                    .client_disconnect_timeout(Duration::ZERO)
                    .upgrade(fn_service(move |(request, connection)| {
                        let upgrades = upgrades.clone();
                        Box::pin(async move {
                            upgrades.serve(request, connection).await;
                            Ok::<_, std::convert::Infallible>(())
                        })
                    }))
                    .h1(map_config(app, |()| AppConfig::default()));
                behind(front, http)
            })?
            .run();
        Ok(server)
    }

    fn front(&self, connections: Arc<Connections>, addresses: Arc<Addresses>) -> Front {
        let (admission, metrics) = (self.admission.clone(), self.metrics.clone());
        Front::new(&self.settings, connections, admission, self.handshakes(addresses), metrics)
    }

    /// The worker's share of those that all may have under way.
    fn handshakes(&self, addresses: Arc<Addresses>) -> Option<Handshakes> {
        let bound = self.settings.max_tls_handshakes.div_ceil(self.settings.workers);
        let patience = self.settings.handshake_timeout;
        Some(Handshakes::new(self.tls.clone()?, addresses, self.metrics.clone(), patience, bound))
    }

    /// The supervisor of this thread, and what brings sessions to it.
    fn supervised(&self) -> Upgrades {
        let worker = self.next.fetch_add(1, Relaxed);
        let roster = Roster::new(worker, self.metrics.clone(), self.admission.clone(), Mono::now());
        let (publish, published) = watch::channel(Arc::new(WorkerSnapshot::none(worker)));
        let supervisor = WorkerSupervisor::new(
            roster.clone(),
            self.uplinks.clone(),
            self.settings.update_interval,
            publish,
        )
        .start();
        let look = supervisor.clone().recipient();
        self.inspector.add(Window { worker: supervisor.recipient(), look, published });
        let poller = Poller::start().expect("an epoll for each worker");
        let newest = self.doors.feed.subscribe();
        let past = self.inspector.past();
        Upgrades {
            house: Rc::new(House::new(roster, poller, &self.settings, self.run.clone(), newest, past)),
            gate: self.gate.clone(),
            doors: self.doors.clone(),
            log: RefusalLog::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn a_connection_sends_at_once_and_gives_up_in_time() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _there = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (here, _) = listener.accept().await.unwrap();
        prepare(&here);
        let socket = SockRef::from(&here);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(SILENCE));
    }
}
