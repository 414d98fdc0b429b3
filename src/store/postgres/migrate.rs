//! Bringing the database up to this version.
//!
//! Nodes that start at once take turns by an advisory lock. Every failure is one line for an operator, without secrets.

use std::time::Duration;

use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;
use diesel::sql_types::Text;
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::connect::Connector;
use crate::store::StoreError;
use crate::store::error::one_line;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// How long one migration may take, and how long a node waits for another's.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a server may take to let us in.
const CONNECT: Duration = Duration::from_secs(5);

/// How long all of it may take. A server that stops answering in the middle of it keeps the thread, not the caller.
pub(super) const IN_ALL: Duration = Duration::from_secs(120);

/// Whether every migration was applied, and none of a later version.
pub(super) async fn is_current(conn: &mut AsyncPgConnection) -> Result<bool, StoreError> {
    #[derive(diesel::QueryableByName)]
    struct Applied {
        #[diesel(sql_type = Text)]
        version: String,
    }
    #[derive(diesel::QueryableByName)]
    struct There {
        #[diesel(sql_type = diesel::sql_types::Bool)]
        there: bool,
    }
    let look = "SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS there";
    let there: There = diesel::sql_query(look).get_result(conn).await?;
    if !there.there {
        return Ok(false);
    }
    let all = "SELECT version::text AS version FROM __diesel_schema_migrations";
    let mut applied: Vec<String> =
        diesel::sql_query(all).load::<Applied>(conn).await?.into_iter().map(|row| row.version).collect();
    let ours = MigrationSource::<Pg>::migrations(&MIGRATIONS)
        .map_err(|error| StoreError::Broken(one_line(&error.to_string())))?;
    let mut known: Vec<_> = ours.iter().map(|m| m.name().version().to_string()).collect();
    applied.sort_unstable();
    known.sort_unstable();
    Ok(applied == known)
}

/// Names the migrations that it took. Blocks: for a plain thread, without a runtime of its own.
pub(super) fn migrate(connector: &Connector) -> Result<Vec<String>, StoreError> {
    let broken = |error: &dyn std::fmt::Display| StoreError::Broken(one_line(&error.to_string()));
    // Diesel waits for its migrations in a blocking way, while another thread drives the connection.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("lastpong-migrate")
        .enable_all()
        .build()
        .map_err(|error| broken(&error))?;
    let connector = connector.with_timeout(PATIENCE);
    let ready = runtime.block_on(async {
        let connected = tokio::time::timeout(CONNECT, connector.connect()).await;
        let mut conn =
            connected.unwrap_or_else(|_| Err(StoreError::Retry("the database did not answer".into())))?;
        check_server(&mut conn).await?;
        // Let go with the connection.
        conn.batch_execute("SELECT pg_advisory_lock(1818325876, 1)").await?;
        Ok::<_, StoreError>(conn)
    })?;
    apply(AsyncMigrationHarness::new(ready))
}

fn apply(mut harness: AsyncMigrationHarness<AsyncPgConnection>) -> Result<Vec<String>, StoreError> {
    let refuse = |wrong: &dyn std::fmt::Display| {
        StoreError::Broken(format!("cannot bring the database up to date: {}", one_line(&wrong.to_string())))
    };
    let ours = MigrationSource::<Pg>::migrations(&MIGRATIONS).map_err(|error| refuse(&error))?;
    let known: Vec<_> = ours.iter().map(|m| m.name().version().to_string()).collect();
    let applied = harness.applied_migrations().map_err(|error| refuse(&error))?;
    if let Some(later) = applied.iter().map(ToString::to_string).find(|version| !known.contains(version)) {
        return Err(refuse(&format_args!(
            "a later version of lastpong wrote it (it has migration {later}); run that version"
        )));
    }
    let mut names = Vec::new();
    for migration in ours {
        if !applied.iter().any(|version| *version == migration.name().version()) {
            harness.run_migration(&*migration).map_err(|error| refuse(&error))?;
            names.push(migration.name().to_string());
        }
    }
    Ok(names)
}

/// Refuses a server that lastpong cannot keep its promises on.
async fn check_server(conn: &mut AsyncPgConnection) -> Result<(), StoreError> {
    diesel::define_sql_function! { fn current_setting(name: Text) -> Text; }
    let says = async |conn: &mut AsyncPgConnection, name: &str| -> Result<String, StoreError> {
        Ok(diesel::select(current_setting(name)).get_result(conn).await?)
    };
    let encoding = says(conn, "server_encoding").await?;
    if encoding != "UTF8" {
        return Err(StoreError::Broken(format!(
            "the database's encoding is {encoding}; give lastpong one that was made with ENCODING 'UTF8'"
        )));
    }
    let version = says(conn, "server_version_num").await?;
    if version.parse::<u32>().is_ok_and(|version| version < 120_000) {
        let shown = says(conn, "server_version").await?;
        return Err(StoreError::Broken(format!("the server is Postgres {shown}; at least 12 is needed")));
    }
    Ok(())
}
