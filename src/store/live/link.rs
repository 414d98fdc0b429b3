//! The way to Redis: one multiplexed connection for all, made when it is needed and made anew when it fails.
//!
//! - Every call has a deadline, so that a Redis that hangs is like one that is dead.
//! - After a failure the breaker keeps callers away for a moment; whoever is refused is told at once.
//! - A connection is given up with the first failure that may be its own: a timeout, an end of stream, an answer that
//!   this server cannot write (a failover). The next call connects anew, and asks the Sentinels again.
//! - What may be sent twice is for the caller to know: a call that failed may have been carried out.
//!
//! Left out: reads that block. They would need a connection of their own, and nothing here waits on Redis.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, TlsMode, Value,
};
use redis::{RedisError, RedisResult, ServerErrorKind};

use crate::breaker::Breaker;
use crate::config::RedisUrl;
use crate::metrics::Metrics;
use crate::time::Mono;

use super::LiveError;

/// How long one answer may take.
const RESPONSE: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_secs(1);
/// How long a call may take in all, connecting included.
const CALL: Duration = Duration::from_secs(2);
/// How often an outage is logged.
const COMPLAIN: Duration = Duration::from_secs(30);
/// Keys that one script is given where they may be anywhere: a few milliseconds of Redis's time.
const KEYS: usize = 250;
/// Commands under way at once in a cluster, where they go to many servers.
const AT_ONCE: usize = 250;

/// A Redis, one or many behind it. Cheap to clone.
#[derive(Clone)]
pub struct RedisLink(Arc<Shared>);

struct Shared {
    target: Target,
    metrics: Arc<Metrics>,
    /// Taken while connecting, so that many who ask at once make one connection.
    connection: tokio::sync::Mutex<Option<Numbered>>,
    health: Mutex<Health>,
}

struct Health {
    breaker: Breaker,
    complained: Option<Instant>,
}

enum Target {
    Server(Client),
    // A client keeps what it knows of its Sentinels.
    Sentinel(tokio::sync::Mutex<SentinelClient>),
    Cluster(ClusterClient),
}

#[derive(Clone)]
enum Connection {
    Managed(ConnectionManager),
    Direct(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// A connection is given up by whoever saw it fail, unless another did and it is a new one by now.
#[derive(Clone)]
struct Numbered {
    connection: Connection,
    number: u64,
}

impl RedisLink {
    /// Connects at the first call.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn new(url: &RedisUrl, metrics: Arc<Metrics>) -> Result<Self, LiveError> {
        let target = Target::new(url).map_err(|e| LiveError(describe(&e)))?;
        let health = Health { breaker: Breaker::new(), complained: None };
        let link = Self(Arc::new(Shared {
            target,
            metrics,
            connection: tokio::sync::Mutex::new(None),
            health: Mutex::new(health),
        }));
        link.0.tell(&link.0.health());
        Ok(link)
    }

    /// How many keys a script may be given that lie anywhere: in a cluster, one.
    pub fn keys_per_script(&self) -> usize {
        if matches!(self.0.target, Target::Cluster(_)) { 1 } else { KEYS }
    }

    /// Sends one command. `op` names it to the metrics.
    pub async fn ask<T: FromRedisValue>(&self, op: &str, command: Cmd) -> Result<T, LiveError> {
        let answer = self.call(op, vec![command]).await?.pop().unwrap_or_default();
        T::from_redis_value(answer).map_err(|e| LiveError(e.to_string()))
    }

    /// Sends commands that do not depend on each other, pipelined, and returns their answers in order. None is in
    /// doubt where it succeeds; with an error some may have been carried out.
    pub async fn ask_all<T: FromRedisValue>(
        &self,
        op: &str,
        commands: Vec<Cmd>,
    ) -> Result<Vec<T>, LiveError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let answers = self.call(op, commands).await?.into_iter().map(T::from_redis_value);
        answers.collect::<Result<_, _>>().map_err(|e| LiveError(e.to_string()))
    }

    async fn call(&self, op: &str, commands: Vec<Cmd>) -> Result<Vec<Value>, LiveError> {
        if !self.0.allows() {
            return Err(LiveError("redis did not answer a moment ago".to_owned()));
        }
        let trial = Trial { shared: &self.0, told: false };
        let began = Instant::now();
        let mut used = None;
        let done = tokio::time::timeout(CALL, self.0.send(&commands, &mut used)).await;
        self.0.metrics.store_seconds.with_label_values(&["redis", op]).observe(began.elapsed().as_secs_f64());
        let error = match done {
            Ok(Ok(values)) => {
                trial.succeeded();
                return Ok(values);
            }
            Ok(Err(error)) if is_ours(&error) => {
                // It answered, and the fault is in what was asked.
                trial.succeeded();
                return Err(LiveError(describe(&error)));
            }
            Ok(Err(error)) => describe(&error),
            Err(_) => format!("no answer within {} s", CALL.as_secs()),
        };
        self.0.give_up(used).await;
        trial.failed(&error);
        Err(LiveError(error))
    }
}

impl Shared {
    async fn send(&self, commands: &[Cmd], used: &mut Option<u64>) -> RedisResult<Vec<Value>> {
        let Numbered { connection, number } = self.connection().await?;
        *used = Some(number);
        match connection {
            Connection::Managed(connection) => pipelined(connection, commands).await,
            Connection::Direct(connection) => pipelined(connection, commands).await,
            Connection::Cluster(connection) => {
                let mut answers = Vec::with_capacity(commands.len());
                for some in commands.chunks(AT_ONCE) {
                    let asked = some.iter().map(|command| {
                        let mut connection = connection.clone();
                        async move { command.query_async::<Value>(&mut connection).await }
                    });
                    answers.extend(try_join_all(asked).await?);
                }
                Ok(answers)
            }
        }
    }

    async fn connection(&self) -> RedisResult<Numbered> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = &*held {
            return Ok(connection.clone());
        }
        static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let connection = Numbered { connection: self.target.connect().await?, number };
        Ok(held.insert(connection).clone())
    }

    async fn give_up(&self, used: Option<u64>) {
        let mut held = self.connection.lock().await;
        if held.as_ref().is_some_and(|held| Some(held.number) == used) {
            *held = None;
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allows(&self) -> bool {
        let mut health = self.health();
        let allowed = health.breaker.allows(Mono::now());
        self.tell(&health);
        allowed
    }

    fn tell(&self, health: &Health) {
        let state = health.breaker.state().gauge();
        self.metrics.breaker_state.with_label_values(&["redis"]).set(state);
    }
}

/// A call whose end the breaker must hear of, also where nobody waits for it any more.
struct Trial<'a> {
    shared: &'a Shared,
    told: bool,
}

impl Trial<'_> {
    fn succeeded(mut self) {
        self.told = true;
        let mut health = self.shared.health();
        health.breaker.succeeded();
        if health.complained.take().is_some() {
            log::info!("redis answers again");
        }
        self.shared.tell(&health);
    }

    fn failed(mut self, why: &str) {
        self.told = true;
        let mut health = self.shared.health();
        health.breaker.failed(Mono::now());
        if health.complained.is_none_or(|last| last.elapsed() > COMPLAIN) {
            health.complained = Some(Instant::now());
            log::warn!(why; "redis is away: live state and the stream wait for it");
        }
        self.shared.tell(&health);
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.told {
            let mut health = self.shared.health();
            health.breaker.failed(Mono::now());
            self.shared.tell(&health);
        }
    }
}

impl Target {
    fn new(url: &RedisUrl) -> RedisResult<Self> {
        // TLS needs one for the whole process. Whoever was first chose well enough.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Ok(match url {
            RedisUrl::Server(url) => Target::Server(Client::open(url.expose())?),
            RedisUrl::Sentinel { sentinels, master, login, tls } => {
                let login = login.expose().into_connection_info()?.redis_settings().clone();
                let mut node = SentinelNodeConnectionInfo::default().set_redis_connection_info(login);
                if *tls {
                    node = node.set_tls_mode(TlsMode::Secure);
                }
                let sentinels = sentinels.iter().map(String::as_str).collect();
                let client =
                    SentinelClient::build(sentinels, master, Some(node), SentinelServerType::Master)?;
                Target::Sentinel(tokio::sync::Mutex::new(client))
            }
            RedisUrl::Cluster(servers) => {
                let servers = servers.iter().map(|url| url.expose());
                let client = ClusterClient::builder(servers)
                    .connection_timeout(CONNECT)
                    .response_timeout(RESPONSE)
                    .retries(1)
                    .build()?;
                Target::Cluster(client)
            }
        })
    }

    async fn connect(&self) -> RedisResult<Connection> {
        Ok(match self {
            Target::Server(client) => {
                // It may connect anew by itself when an idle connection ends; how often to try is the breaker's.
                let config = ConnectionManagerConfig::new()
                    .set_connection_timeout(Some(CONNECT))
                    .set_response_timeout(Some(RESPONSE))
                    .set_number_of_retries(0);
                Connection::Managed(ConnectionManager::new_with_config(client.clone(), config).await?)
            }
            Target::Sentinel(client) => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(CONNECT))
                    .set_response_timeout(Some(RESPONSE));
                let mut client = client.lock().await;
                Connection::Direct(client.get_async_connection_with_config(&config).await?)
            }
            Target::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
        })
    }
}

async fn pipelined(mut connection: impl ConnectionLike, commands: &[Cmd]) -> RedisResult<Vec<Value>> {
    if let [command] = commands {
        return Ok(vec![command.query_async(&mut connection).await?]);
    }
    let mut pipeline = redis::Pipeline::with_capacity(commands.len());
    commands.iter().for_each(|command| _ = pipeline.add_command(command.clone()));
    pipeline.query_async(&mut connection).await
}

/// Whether it is the asker's fault, and Redis is well.
fn is_ours(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::UnexpectedReturnType | ErrorKind::Client | ErrorKind::Extension => {
            // A server may say of itself by a code that the library does not know: full, refusing, failing over.
            !matches!(
                error.code(),
                Some("OOM" | "MISCONF" | "NOREPLICAS" | "NOAUTH" | "NOPERM" | "WRONGPASS" | "BUSY")
            )
        }
        ErrorKind::Server(kind) => matches!(kind, ServerErrorKind::ResponseError | ServerErrorKind::NoScript),
        _ => false,
    }
}

/// One line. An error of Redis names no password.
fn describe(error: &RedisError) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
