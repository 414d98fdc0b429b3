//! How many events are on the record, asked of the database itself past lastpong.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::sql_types::BigInt;
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

use crate::clock::now_us;
use crate::subjects::Lastpong;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// A connection of the bench's own.
pub enum Record {
    Sqlite(Box<SqliteConnection>),
    Postgres { runtime: Runtime, client: Box<Client> },
}

#[derive(QueryableByName)]
struct Newest {
    #[diesel(sql_type = BigInt)]
    newest: i64,
}

impl Record {
    /// # Errors
    /// Where the database can not be opened.
    pub fn open(lastpong: &Lastpong) -> anyhow::Result<Self> {
        let Some(stores) = &lastpong.stores else {
            let path = lastpong.data.path().join("data/lastpong.db");
            let mut connection = SqliteConnection::establish(&path.display().to_string())?;
            connection.batch_execute("PRAGMA query_only = 1; PRAGMA busy_timeout = 1000")?;
            return Ok(Self::Sqlite(Box::new(connection)));
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&stores.postgres.url(), NoTls).await?;
            tokio::spawn(connection);
            anyhow::Ok(client)
        })?;
        Ok(Self::Postgres { runtime, client: Box::new(client) })
    }

    /// The `seq` of the newest event.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub fn newest(&mut self) -> anyhow::Result<i64> {
        Ok(match self {
            Self::Sqlite(connection) => {
                let query = diesel::sql_query("SELECT coalesce(max(seq), 0) AS newest FROM events");
                query.get_result::<Newest>(&mut **connection)?.newest
            }
            Self::Postgres { runtime, client } => {
                let query = "SELECT coalesce(max(seq), 0) FROM events";
                runtime.block_on(client.query_one(query, &[]))?.get(0)
            }
        })
    }

    /// Waits until the newest is this one, or later; gives the moment.
    ///
    /// # Errors
    /// Where it was not in time.
    pub fn until(&mut self, seq: i64, within: Duration) -> anyhow::Result<u64> {
        let deadline = Instant::now() + within;
        loop {
            let newest = self.newest()?;
            if newest >= seq {
                return Ok(now_us());
            }
            anyhow::ensure!(Instant::now() < deadline, "the record is at {newest}, not at {seq}");
            std::thread::sleep(LOOK);
        }
    }
}
