//! Opening what a node keeps its record in.

use crate::config::{Database, RedisUrl, Settings};
use crate::http::health::Probe;
use crate::ids::Run;
use crate::secret::make_private_dir;
use crate::store::Store;
use crate::store::flapping::Flapping;
use crate::store::journal::Journal;
use crate::store::live::Live;

/// Where this node writes.
pub(super) struct Stores {
    pub sql: Store,
    /// Takes what the SQL store does not, where that is another machine's.
    pub journal: Option<Journal>,
    /// Live state in Redis, and the stream.
    pub redis: Option<RedisUrl>,
}

impl Stores {
    /// Opens what is local; what is not is reached later, and may be away.
    ///
    /// # Errors
    /// One line that says what cannot be opened, and what to do.
    pub fn open(settings: &Settings) -> anyhow::Result<Self> {
        let flapping = Flapping {
            count: settings.flap_count as usize,
            window: settings.flap_window,
            ban: settings.flap_ban,
        };
        let redis = settings.redis_url.as_ref().and_then(|url| RedisUrl::parse(url.expose()));
        match settings.database() {
            Database::Sqlite(path) => {
                if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                    make_private_dir(folder)?;
                }
                Ok(Self { sql: Store::open_sqlite(&path)?.with_flapping(flapping), journal: None, redis })
            }
            Database::Postgres(url) => {
                make_private_dir(&settings.data_dir)?;
                let journal = Journal::open(&settings.data_dir.join("journal.db"), &settings.node_id)?;
                let sql = Store::open_postgres(&url, &settings.node_id, Some(journal.home()))?;
                Ok(Self { sql: sql.with_flapping(flapping), journal: Some(journal), redis })
            }
        }
    }

    /// What readiness asks. With a journal, devices are let in while the SQL store is away.
    pub fn probes(&self, live: Option<&Live>) -> Vec<Probe> {
        let sql = self.sql.clone();
        let ask = move || {
            let sql = sql.clone();
            Box::pin(async move { sql.ping().await.map_err(|error| error.to_string()) }) as _
        };
        let mut probes = vec![Probe::new("sql", self.journal.is_none(), ask)];
        if let Some(journal) = self.journal.clone() {
            let ask = move || {
                let journal = journal.clone();
                Box::pin(async move { journal.ping().await.map_err(|error| error.to_string()) }) as _
            };
            probes.push(Probe::new("journal", true, ask));
        }
        if let Some(live) = live.cloned() {
            let ask = move || {
                let live = live.clone();
                Box::pin(async move { live.ping().await.map_err(|error| error.to_string()) }) as _
            };
            probes.push(Probe::new("redis", false, ask));
        }
        probes
    }

    /// Lets go. A `run` that stops in good order says so: nobody has to look for what it left.
    pub async fn close(&self, run: Option<&Run>) {
        if let (Some(cluster), Some(run)) = (self.sql.cluster(), run)
            && let Err(error) = cluster.retire(run).await
        {
            log::warn!(error:% = error; "the peers could not be told that this node stops: they will find out");
        }
        self.sql.close().await;
        if let Some(journal) = &self.journal {
            journal.close().await;
        }
    }
}
