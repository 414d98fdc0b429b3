//! Opening a file of ours: who may, whether it is ours, and how connections are set up. The record and the node's
//! journal are both opened here; a [`Layout`] says how they differ.
//!
//! Every failure is one line that names the path, what is wrong and what to do: it is what an operator sees of a start
//! that did not happen. A file that is refused stays as it is; the empty lock beside it may be new.
//!
//! SQLite lets many processes share a file; lastpong must not, because a second one would take the sessions of the
//! first for lost. The lock on `<path>.lock` tells them apart and goes with its process, SIGKILL included.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection;
use diesel::migration::{Migration, MigrationSource};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel::sqlite::Sqlite;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::store::StoreError;
use crate::store::error::one_line;
use crate::time::Timestamp;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// What a file is for, and what follows for its opening.
pub(in crate::store) struct Layout {
    /// What it is called in messages.
    pub name: &'static str,
    pub migrations: fn() -> EmbeddedMigrations,
    /// `PRAGMA application_id`, as the first migration sets it.
    pub application_id: i64,
    /// A small write, which tells whether any would be taken.
    pub probe: fn(&mut SqliteConnection, Timestamp) -> Result<(), StoreError>,
    /// What to do with a damaged one.
    pub repair: &'static str,
}

/// The record of sessions and the event log.
pub(super) static RECORD: Layout = Layout {
    name: "database",
    migrations: || MIGRATIONS,
    application_id: 1_818_325_876,
    probe: super::write::probe,
    repair: "put a backup in its place, or move it and its -wal file away to begin anew",
};

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// A file up to this size is read through for damage at each start, which takes a fraction of a second. In a larger
/// one damage is found where it is met.
const CHECKED_THROUGH: u64 = 64 << 20;

/// Bounds on the file besides the disk's own.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::store) struct Limits {
    /// As `PRAGMA max_page_count`: past it the database is as full as on a full disk.
    pub max_pages: Option<u32>,
}

/// A file that is ours and up to date.
pub(in crate::store) struct Opened {
    pub layout: &'static Layout,
    pub conn: SqliteConnection,
    pub url: String,
    pub limits: Limits,
    /// `None` beside the process that holds it.
    pub lock: Option<File>,
}

/// Whether a file may be another process's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Company {
    Alone,
    Beside,
}

/// Opens the record.
pub(super) fn open(path: &Path, limits: Limits) -> Result<Opened, StoreError> {
    open_as(&RECORD, path, limits)
}

pub(in crate::store) fn open_as(
    layout: &'static Layout,
    path: &Path,
    limits: Limits,
) -> Result<Opened, StoreError> {
    prepare(layout, path, limits, Company::Alone).map(|(opened, _)| opened)
}

/// Opens the record whether or not another process holds it: for a command that neither has sessions nor ends any. The
/// file of a process that runs has to be of this version.
pub(super) fn open_beside(path: &Path) -> Result<Opened, StoreError> {
    prepare(&RECORD, path, Limits::default(), Company::Beside).map(|(opened, _)| opened)
}

/// See [`crate::store::Store::migrate_sqlite`].
pub fn migrate(path: &Path) -> Result<Vec<String>, StoreError> {
    let (mut opened, applied) = prepare(&RECORD, path, Limits::default(), Company::Alone)?;
    checkpoint(&mut opened.conn)?;
    Ok(applied)
}

fn prepare(
    layout: &'static Layout,
    path: &Path,
    limits: Limits,
    company: Company,
) -> Result<(Opened, Vec<String>), StoreError> {
    let name = layout.name;
    let refuse =
        |wrong: String| StoreError::Broken(format!("cannot open the {name} {}: {wrong}", path.display()));
    let absolute = std::path::absolute(path).map_err(|error| refuse(error.to_string()))?;
    let url = absolute
        .to_str()
        .ok_or_else(|| refuse("its path is not UTF-8; choose one that is".into()))?
        .to_owned();
    let lock = take_lock(&absolute, layout, company).map_err(refuse)?;
    let size = check_file(&absolute, layout).map_err(refuse)?;
    let content = match lock {
        Some(_) => check_content(&url, layout, limits, size),
        None => check_shared(&url, layout, limits),
    };
    let (conn, applied) = content.map_err(|fault| refuse(fault.advice(layout)))?;
    Ok((Opened { layout, conn, url, limits, lock }, applied))
}

/// `None` where another process holds the file, and may.
fn take_lock(path: &Path, layout: &Layout, company: Company) -> Result<Option<File>, String> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    if !dir.is_dir() {
        return Err(format!("there is no directory {}; make it first", dir.display()));
    }
    let beside = beside(path, ".lock");
    let lock = File::options().create(true).write(true).truncate(false).open(&beside).map_err(|error| match error
        .kind()
    {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => format!(
            "the directory {} may not be written ({error}); give this user the right to, or choose another",
            dir.display()
        ),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Fault::Full.advice(layout),
        _ => format!("its lock file {} cannot be made ({error})", beside.display()),
    })?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) if company == Company::Beside => Ok(None),
        Err(TryLockError::WouldBlock) => Err(format!(
            "another lastpong process holds it (by {}); stop that one, or give this one a file of its own",
            beside.display()
        )),
        Err(TryLockError::Error(error)) => Err(format!(
            "{} cannot be locked ({error}); choose a directory on a disk that knows file locks",
            beside.display()
        )),
    }
}

/// Looks at the file before SQLite does, which would delete the write-ahead log of a file that was emptied. Returns
/// the file's size.
fn check_file(path: &Path, layout: &Layout) -> Result<u64, String> {
    let wal = beside(path, "-wal");
    let log_bytes = std::fs::metadata(&wal).map_or(0, |m| m.len());
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound && log_bytes == 0 => return Ok(0),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(
                Fault::Damaged(format!("it is gone, but its log {} is not", wal.display())).advice(layout)
            );
        }
        Err(error) => return Err(format!("it may not be read ({error}); give this user the right to")),
    };
    let meta = file.metadata().map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("it is not a file; choose another path".into());
    }
    if meta.len() == 0 {
        return match log_bytes {
            0 => Ok(0),
            _ => {
                Err(Fault::Damaged(format!("it is empty, but its log {} is not", wal.display()))
                    .advice(layout))
            }
        };
    }
    let mut head = [0; MAGIC.len()];
    match file.read_exact(&mut head) {
        Ok(()) if head == *MAGIC => Ok(meta.len()),
        Ok(()) => Err(Fault::Foreign("is not a SQLite database".into()).advice(layout)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Err(Fault::Foreign("is not a SQLite database".into()).advice(layout))
        }
        Err(error) => Err(format!("it cannot be read ({error})")),
    }
}

fn check_content(
    url: &str,
    layout: &Layout,
    limits: Limits,
    size: u64,
) -> Result<(SqliteConnection, Vec<String>), Fault> {
    // Read first, with nothing set: setting up a connection writes, and a file that is not ours stays as it is.
    let mut conn = SqliteConnection::establish(url)?;
    conn.batch_execute(BUSY_TIMEOUT)?;
    check_owner(&mut conn, layout)?;
    if size <= CHECKED_THROUGH {
        check_through(&mut conn)?;
    }
    drop(conn);
    let mut conn = establish_writer(url, limits)?;
    let mut applied = Vec::new();
    for migration in conn.pending_migrations((layout.migrations)())? {
        conn.run_migration(&migration)?;
        applied.push(migration.name().to_string());
    }
    (layout.probe)(&mut conn, Timestamp::now())?;
    Ok((conn, applied))
}

/// Of a file that another process holds: it was looked through and brought up to date by that one.
fn check_shared(
    url: &str,
    layout: &Layout,
    limits: Limits,
) -> Result<(SqliteConnection, Vec<String>), Fault> {
    let mut conn = SqliteConnection::establish(url)?;
    conn.batch_execute(BUSY_TIMEOUT)?;
    check_owner(&mut conn, layout)?;
    match conn.pending_migrations((layout.migrations)())?.first() {
        Some(_) => {
            Err(Fault::Other("the process that runs on it is of an earlier version; stop it first".into()))
        }
        None => Ok((establish_writer(url, limits)?, Vec::new())),
    }
}

#[derive(QueryableByName)]
struct Owner {
    #[diesel(sql_type = BigInt)]
    application_id: i64,
}

#[derive(QueryableByName)]
struct Tables {
    #[diesel(sql_type = BigInt)]
    tables: i64,
}

#[derive(QueryableByName)]
struct Finding {
    #[diesel(sql_type = Text)]
    quick_check: String,
}

fn check_owner(conn: &mut SqliteConnection, layout: &Layout) -> Result<(), Fault> {
    let owner: Owner = diesel::sql_query("PRAGMA application_id").get_result(conn)?;
    let schema: Tables =
        diesel::sql_query("SELECT count(*) AS tables FROM sqlite_schema").get_result(conn)?;
    if schema.tables == 0 {
        return Ok(());
    }
    // Migrating for the first time makes the migrations' own table before the one that sets the id.
    let begun = schema.tables <= 2
        && diesel::sql_query("SELECT 0 FROM __diesel_schema_migrations").execute(conn).is_ok();
    if owner.application_id != layout.application_id && !begun {
        return Err(Fault::Foreign("is the database of another program".into()));
    }
    let known: Vec<String> = MigrationSource::<Sqlite>::migrations(&(layout.migrations)())?
        .iter()
        .map(|migration| migration.name().version().to_string())
        .collect();
    let applied = conn.applied_migrations()?;
    match applied.iter().map(ToString::to_string).find(|version| !known.contains(version)) {
        Some(version) => Err(Fault::Later(version)),
        None => Ok(()),
    }
}

fn check_through(conn: &mut SqliteConnection) -> Result<(), Fault> {
    let found: Vec<Finding> = diesel::sql_query("PRAGMA quick_check(1)").load(conn)?;
    match found.first() {
        Some(finding) if finding.quick_check != "ok" => Err(Fault::Damaged(one_line(&finding.quick_check))),
        _ => Ok(()),
    }
}

/// Why the content will not do.
enum Fault {
    Foreign(String),
    Damaged(String),
    Later(String),
    Full,
    Locked,
    ReadOnly(String),
    Other(String),
}

impl Fault {
    fn advice(self, layout: &Layout) -> String {
        match self {
            Fault::Foreign(what) => format!("it {what}; move it away, or choose another path"),
            Fault::Damaged(how) => format!("it is damaged ({how}); {}", layout.repair),
            Fault::Later(version) => {
                format!("a later version of lastpong wrote it (it has migration {version}); run that version")
            }
            Fault::Full => "its disk is full; free some space".into(),
            Fault::Locked => "another program keeps it locked; stop that program".into(),
            Fault::ReadOnly(how) => {
                format!(
                    "it may not be written ({how}); give this user the right to write it and its directory"
                )
            }
            Fault::Other(how) => how,
        }
    }

    fn from_text(text: &str) -> Self {
        let text = one_line(text);
        let says = |words: &str| text.contains(words);
        match () {
            () if says("not a database") => Fault::Foreign("is not a SQLite database".into()),
            () if says("malformed") => Fault::Damaged(text),
            () if says("is full") => Fault::Full,
            () if says("is locked") => Fault::Locked,
            () if says("readonly") || says("nable to open") => Fault::ReadOnly(text),
            () => Fault::Other(text),
        }
    }
}

impl<E: std::fmt::Display> From<E> for Fault {
    fn from(error: E) -> Self {
        Fault::from_text(&error.to_string())
    }
}

const BUSY_TIMEOUT: &str = "PRAGMA busy_timeout = 2000";

/// A commit is an fsync (`synchronous = FULL`). The write-ahead log is moved into the file every 64 MiB: a batch of
/// scattered ends changes a few thousand pages, mostly those that the batch before it changed, which are then moved
/// once for several batches. The log is cut back to 128 MiB where a long read held that up. The cache holds the pages
/// of some 100,000 live sessions, so that a batch neither reads them again nor spills into the log before its end.
const WRITER: &[&str] = &[
    BUSY_TIMEOUT,
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 16384",
    "PRAGMA journal_size_limit = 134217728",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16384",
];

const READER: &[&str] =
    &[BUSY_TIMEOUT, "PRAGMA query_only = ON", "PRAGMA temp_store = MEMORY", "PRAGMA cache_size = -4096"];

/// Opens the connection that writes.
pub(super) fn connect_writer(
    url: &str,
    layout: &Layout,
    limits: Limits,
) -> Result<SqliteConnection, StoreError> {
    establish_writer(url, limits).map_err(|fault| StoreError::Retry(fault.advice(layout)))
}

fn establish_writer(url: &str, limits: Limits) -> Result<SqliteConnection, Fault> {
    let mut conn = SqliteConnection::establish(url)?;
    for pragma in WRITER {
        conn.batch_execute(pragma)?;
    }
    if let Some(pages) = limits.max_pages {
        conn.batch_execute(&format!("PRAGMA max_page_count = {pages}"))?;
    }
    Ok(conn)
}

pub(super) fn configure_reader(conn: &mut SqliteConnection) -> QueryResult<()> {
    READER.iter().try_for_each(|pragma| conn.batch_execute(pragma))
}

/// Moves the write-ahead log into the file, as far as no reader is in the way.
pub(super) fn checkpoint(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    Ok(conn.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)")?)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
