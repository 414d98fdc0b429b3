//! How a connection is made and set up.
//!
//! No text from here holds the URL: it may carry a password.

use std::time::Duration;

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, Socket};

use crate::secret::Secret;
use crate::store::StoreError;
use crate::store::error::one_line;

/// A connection attempt may take so long, and so long may pass until the kernel finds that nobody acknowledges.
const PATIENCE: Duration = Duration::from_secs(2);

/// An idle connection is looked after so often.
const KEEPALIVE: Duration = Duration::from_secs(5);

const FORM: &str = "allowed is postgres://USER:PASSWORD@HOST:PORT/DATABASE";

/// Knows where the server is and how to set up a connection to it.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    setup: String,
}

impl Connector {
    /// `who` is what the server's own lists call its connections by.
    ///
    /// # Errors
    ///
    /// A URL that cannot be read, or that asks for what cannot be done.
    pub(super) fn new(url: &Secret, who: &str) -> Result<Self, StoreError> {
        let refuse = |what: &str| StoreError::Broken(format!("DATABASE_URL: {what}; {FORM}"));
        let mut config: Config =
            url.expose().parse().map_err(|_| refuse("it cannot be read as an address of Postgres"))?;
        if config.get_hosts().is_empty() {
            return Err(refuse("it names no host"));
        }
        if config.get_ssl_mode() == SslMode::Require {
            return Err(refuse("sslmode=require is not supported by this version"));
        }
        config
            .application_name(format!("lastpong/{who}"))
            .connect_timeout(PATIENCE)
            .keepalives(true)
            .keepalives_idle(KEEPALIVE)
            .keepalives_interval(KEEPALIVE)
            .keepalives_retries(2)
            .tcp_user_timeout(PATIENCE * 2);
        Ok(Self { config, setup: String::new() })
    }

    /// The same with connections on which no statement takes longer than this.
    pub(super) fn with_timeout(&self, timeout: Duration) -> Self {
        let setup = format!(
            "SET statement_timeout = {};
             SET idle_in_transaction_session_timeout = {};
             SET synchronous_commit = on;
             -- Each statement in a function sees what was committed before it.
             SET default_transaction_isolation = 'read committed';
             -- No query of lastpong has reason to read a long table through. The planner would, where it still
             -- takes the table for short.
             SET enable_seqscan = off;
             SET jit = off;
             SET client_min_messages = warning",
            timeout.as_millis(),
            timeout.as_millis() * 2,
        );
        Self { config: self.config.clone(), setup }
    }

    /// Opens a connection, driven by the runtime that this is awaited on.
    pub(super) async fn connect(&self) -> Result<AsyncPgConnection, StoreError> {
        let (client, connection) = self.open().await?;
        let failed = |error: &dyn std::fmt::Display| StoreError::Retry(one_line(&error.to_string()));
        let conn = AsyncPgConnection::try_from_client_and_connection(client, connection).await;
        let mut conn = conn.map_err(|error| failed(&error))?;
        conn.batch_execute(&self.setup).await.map_err(|error| failed(&error))?;
        Ok(conn)
    }

    /// The bare connection, for whoever drives it himself.
    pub(super) async fn open(&self) -> Result<(Client, Connection), StoreError> {
        self.config.connect(NoTls).await.map_err(|error| {
            let text = format!("no connection to the database: {}", whole(&error));
            match error.code() {
                Some(
                    &SqlState::INVALID_PASSWORD
                    | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION
                    | &SqlState::INVALID_CATALOG_NAME,
                ) => StoreError::Broken(text),
                _ => StoreError::Retry(text),
            }
        })
    }
}

/// What the error says, with what it says of its cause, which is often all that says anything.
pub(super) fn whole(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => one_line(&format!("{error}: {cause}")),
        None => one_line(&error.to_string()),
    }
}

pub(super) type Connection = tokio_postgres::Connection<Socket, tokio_postgres::tls::NoTlsStream>;
