//! The node's journal: what is durable in its own data folder until the SQL store takes it.
//!
//! - [`Journal::append`] is durable (fsynced) when it returns, all of it or, with an error, nothing.
//! - Entries come out in the order in which they went in, and stay until they are removed. Nothing is dropped: an
//!   entry that cannot be read stops what reads it, with one line that names the file.
//! - The file is this process's alone, held by a lock beside it, until the journal is closed or the process dies.
//!
//! One SQLite file of the same kind as the record, and the same writing thread (`sqlite/`), which the few reads use
//! too.
//!
//! Left out on purpose: giving space back to the disk. A journal that was long once is used again.

mod aside;
mod entry;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use uuid::Uuid;

use super::sqlite::open::{self, Layout, Limits};
use super::sqlite::writer::Writer;
use super::{StoreError, Told};
use crate::ids::NodeId;
use crate::time::Timestamp;

pub use entry::Entry;

diesel::table! {
    entries (id) {
        id -> BigInt,
        kind -> Text,
        session_id -> Nullable<Text>,
        entry -> Text,
    }
}

diesel::table! {
    folder (id) {
        id -> BigInt,
        home -> Text,
        node_id -> Text,
        checked_at -> BigInt,
    }
}

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/journal");

static LAYOUT: Layout = Layout {
    name: "journal",
    migrations: || MIGRATIONS,
    application_id: 1_818_914_412,
    probe,
    repair: "put a backup in its place, or move it and its -wal file away, which gives up what it holds: starts and \
             ends that the SQL store does not have yet",
};

/// Cheap to clone; its calls may be awaited on any Tokio runtime.
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

struct Shared {
    writer: Writer,
    path: PathBuf,
    home: Uuid,
    /// The newest entry that an earlier process left.
    left_by_earlier: i64,
    entries: AtomicU64,
}

impl Journal {
    /// Opens the journal of `node` at `path`, made where there is none. Blocks: for a plain thread.
    ///
    /// # Errors
    ///
    /// One line that names the path, what is wrong with it and what to do.
    pub fn open(path: &Path, node: &NodeId) -> Result<Self, StoreError> {
        Self::open_with(path, node, Limits::default())
    }

    fn open_with(path: &Path, node: &NodeId, limits: Limits) -> Result<Self, StoreError> {
        let mut opened = open::open_as(&LAYOUT, path, limits)?;
        let first_look = |conn: &mut SqliteConnection| {
            let home = home_of(conn)?;
            let left: Option<i64> = entries::table.select(diesel::dsl::max(entries::id)).first(conn)?;
            let count: i64 = entries::table.count().get_result(conn)?;
            belong_to(conn, node, count)?;
            Ok((home, left.unwrap_or(0), u64::try_from(count).unwrap_or(0)))
        };
        let (home, left_by_earlier, count) =
            first_look(&mut opened.conn).map_err(|error| in_file(path, error))?;
        let shared = Shared {
            writer: Writer::start(opened)?,
            path: path.to_owned(),
            home,
            left_by_earlier,
            entries: AtomicU64::new(count),
        };
        Ok(Self(Arc::new(shared)))
    }

    /// Names this data folder: made once, and kept by every run in it.
    pub fn home(&self) -> Uuid {
        self.0.home
    }

    /// Entries up to and with this one were left by an earlier process; 0 where none were.
    pub fn left_by_earlier(&self) -> i64 {
        self.0.left_by_earlier
    }

    /// How many entries wait to be moved.
    #[expect(clippy::len_without_is_empty, reason = "whether it is empty is decided by reading it")]
    pub fn len(&self) -> u64 {
        self.0.entries.load(Relaxed)
    }

    /// Puts these behind all that is there, in this order.
    pub async fn append(&self, entries: Arc<Vec<Entry>>) -> Result<(), StoreError> {
        let count = entries.len() as u64;
        self.run(move |conn| {
            for entry in entries.iter() {
                let row = (
                    entries::kind.eq(entry.kind()),
                    entries::session_id.eq(entry.session_id().map(|id| id.to_string())),
                    entries::entry.eq(entry.to_json()?),
                );
                diesel::insert_into(entries::table).values(row).execute(conn)?;
            }
            Ok(())
        })
        .await?;
        self.0.entries.fetch_add(count, Relaxed);
        Ok(())
    }

    /// The oldest entries, at most `limit`, each with the number to remove it by. A start whose end is here too is
    /// said to be past.
    pub async fn oldest(&self, limit: usize) -> Result<Vec<(i64, Entry)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.run(move |conn| {
            let rows: Vec<Row> = diesel::sql_query(OLDEST).bind::<BigInt, _>(limit).load(conn)?;
            rows.into_iter().map(Row::into_entry).collect()
        })
        .await
    }

    /// Removes the entries up to and with this one, which are on the record now.
    pub async fn remove_to(&self, id: i64) -> Result<(), StoreError> {
        let gone = self
            .run(move |conn| Ok(diesel::delete(entries::table.filter(entries::id.le(id))).execute(conn)?))
            .await?;
        let less = |count: u64| Some(count.saturating_sub(gone as u64));
        let _ = self.0.entries.fetch_update(Relaxed, Relaxed, less);
        Ok(())
    }

    /// Whether entries would be taken now: a small write, made durable as any other.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.run(|conn| probe(conn, Timestamp::now())).await
    }

    /// Finishes what was asked for and lets go of the file. Whatever is asked of the journal later fails.
    pub async fn close(&self) {
        self.0.writer.close().await;
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteConnection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.0.writer.run(work).await.map_err(|error| in_file(&self.0.path, error))
    }
}

const OLDEST: &str = "SELECT id, kind, entry, kind = 'start' AND EXISTS (\
     SELECT 0 FROM entries AS later WHERE later.kind = 'end' AND later.session_id = entries.session_id\
     ) AS past FROM entries ORDER BY id LIMIT ?";

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Text)]
    entry: String,
    #[diesel(sql_type = Bool)]
    past: bool,
}

impl Row {
    fn into_entry(self) -> Result<(i64, Entry), StoreError> {
        let Row { id, kind, entry, past } = self;
        let told = if past { Told::Past } else { Told::Late };
        Entry::from_json(&kind, &entry, told).map(|entry| (id, entry)).map_err(|error| {
            StoreError::Broken(format!(
                "entry {id} cannot be read ({error}); run the version of lastpong that wrote it, or put a backup in \
                 its place"
            ))
        })
    }
}

fn home_of(conn: &mut SqliteConnection) -> Result<Uuid, StoreError> {
    let known: String = folder::table.select(folder::home).first(conn)?;
    if !known.is_empty() {
        return known.parse().map_err(|_| StoreError::bad_row("folder", "home", &known));
    }
    let made = Uuid::new_v4();
    diesel::update(folder::table).set(folder::home.eq(made.to_string())).execute(conn)?;
    Ok(made)
}

/// What a node of another name left would be told in the wrong name, and its sessions never be ended.
fn belong_to(conn: &mut SqliteConnection, node: &NodeId, entries: i64) -> Result<(), StoreError> {
    let before: String = folder::table.select(folder::node_id).first(conn)?;
    if before != node.as_str() {
        if !before.is_empty() && entries > 0 {
            return Err(StoreError::Broken(format!(
                "it holds {entries} starts and ends of node {before}, which the SQL store does not have yet: start with \
                 LASTPONG_NODE_ID={before} until they are moved, or give node {node} a data folder of its own"
            )));
        }
        diesel::update(folder::table).set(folder::node_id.eq(node.as_str())).execute(conn)?;
    }
    Ok(())
}

fn probe(conn: &mut SqliteConnection, at: Timestamp) -> Result<(), StoreError> {
    diesel::update(folder::table).set(folder::checked_at.eq(at.0)).execute(conn)?;
    Ok(())
}

/// Says which of the node's files it was.
fn in_file(path: &Path, error: StoreError) -> StoreError {
    let name = |text: String| format!("the journal {}: {text}", path.display());
    match error {
        StoreError::Retry(text) => StoreError::Retry(name(text)),
        StoreError::Broken(text) => StoreError::Broken(name(text)),
        other => other,
    }
}
