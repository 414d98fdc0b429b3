//! The contract on SQLite, and what only a file can have wrong with it.

use std::fs;
use std::path::PathBuf;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use tempfile::TempDir;

use super::open::Limits;
use super::*;
use crate::store::contract::{Bench, contract_tests};
use crate::store::{Store, StoreError};

struct File {
    dir: TempDir,
}

impl File {
    fn path(&self) -> PathBuf {
        self.dir.path().join("lastpong.db")
    }

    /// Speaks to the file past the store, as the sqlite3 shell of an operator would.
    fn sql(&self, statements: &str) {
        let mut conn = SqliteConnection::establish(self.path().to_str().unwrap()).unwrap();
        conn.batch_execute("PRAGMA busy_timeout = 10000").unwrap();
        conn.batch_execute(statements).unwrap();
    }
}

impl Bench for File {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn open(&self) -> Store {
        Store::open_sqlite(&self.path()).unwrap()
    }

    fn refuse_after(&self, events: i64) {
        self.sql(&format!(
            "CREATE TABLE refusal AS SELECT newest + {events} AS after FROM log_head;
             CREATE TRIGGER refuse BEFORE INSERT ON events WHEN NEW.seq > (SELECT after FROM refusal)
             BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
        ));
    }

    fn repair(&self) {
        self.sql("DROP TRIGGER refuse; DROP TABLE refusal");
    }
}

contract_tests!(File);

mod limits;
mod opening;
