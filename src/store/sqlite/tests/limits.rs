//! A full database, a locked one, indexes in use.

use crate::store::Told;
use std::sync::Arc;

use super::*;
use crate::event::{Connected, Meta};
use crate::ids::{EventId, Incarnation, SessionId};
use crate::store::{EventFilter, Start, Write};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn run() -> Run {
    Run { node_id: "n".parse().unwrap(), incarnation: Incarnation::new() }
}

fn batch(starts: usize) -> Arc<Vec<Write>> {
    let incarnation = Incarnation::new();
    let start = |n: usize| Connected {
        device_id: format!("d{n}").parse().unwrap(),
        device_type: Default::default(),
        session_id: SessionId::new(),
        node_id: "n".parse().unwrap(),
        incarnation,
        connected_at: Timestamp::now(),
        remote_addr: "127.0.0.1:1".parse().unwrap(),
        meta: Meta::new(),
        trace_id: None,
    };
    Arc::new(
        (0..starts)
            .map(|n| {
                Write::Start(Start {
                    event_id: EventId::new(),
                    data: Arc::new(start(n)),
                    after_seq: 0,
                    told: Told::Now,
                })
            })
            .collect(),
    )
}

/// SQLite's own bound on the file stands for the disk's: the error and its handling are the same.
#[test]
fn a_full_database_takes_nothing_and_keeps_all() {
    let file = File::new();
    block_on(file.open().close());
    let (kept, refused) = (batch(10), batch(2_000));
    block_on(async {
        let full = SqliteStore::open_with(&file.path(), Limits { max_pages: Some(60) }).unwrap();
        full.commit(&run(), Arc::clone(&kept)).await.unwrap();
        for _ in 0..3 {
            match full.commit(&run(), Arc::clone(&refused)).await {
                Err(StoreError::Retry(line)) => assert!(line.contains("is full"), "{line:?}"),
                other => panic!("{other:?}"),
            }
            assert_eq!(full.events(0, &EventFilter::default(), 5_000).await.unwrap().events.len(), 10);
        }
        full.commit(&run(), batch(1)).await.unwrap();
        full.close().await;
    });
    block_on(async {
        let store = file.open();
        assert_eq!(store.commit(&run(), refused).await.unwrap().events.len(), 2_000);
        assert_eq!(store.bounds().await.unwrap().newest, 2_011);
        assert!(store.commit(&run(), kept).await.unwrap().events.is_empty());
        store.close().await;
    });
}

#[test]
fn a_full_disk_is_named_at_the_start() {
    let file = File::new();
    match SqliteStore::open_with(&file.path(), Limits { max_pages: Some(3) }) {
        Err(StoreError::Broken(line)) => {
            assert!(line.contains("its disk is full; free some space"), "{line:?}")
        }
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn a_file_locked_from_outside_is_waited_for_then_left_for_later() {
    let file = File::new();
    let store = file.open();
    let mut outside = SqliteConnection::establish(file.path().to_str().unwrap()).unwrap();
    outside.batch_execute("BEGIN IMMEDIATE").unwrap();
    let writes = batch(3);
    block_on(async {
        match store.commit(&run(), Arc::clone(&writes)).await {
            Err(StoreError::Retry(line)) => assert!(line.contains("is locked"), "{line:?}"),
            other => panic!("{other:?}"),
        }
        assert!(store.ping().await.is_err(), "ready while no batch would be taken");
        assert_eq!(store.bounds().await.unwrap().newest, 0, "reading waited for a writer");
        outside.batch_execute("ROLLBACK").unwrap();
        store.ping().await.unwrap();
        assert_eq!(store.commit(&run(), writes).await.unwrap().events.len(), 3);
        store.close().await;
    });
}

#[test]
fn a_full_queue_refuses_at_once() {
    let file = File::new();
    let store = file.open();
    let mut outside = SqliteConnection::establish(file.path().to_str().unwrap()).unwrap();
    outside.batch_execute("BEGIN IMMEDIATE").unwrap();
    block_on(async {
        let run = run();
        let many: Vec<_> = (0..100).map(|_| store.commit(&run, batch(1))).collect();
        let mut many = futures_util::future::join_all(many);
        // Polled once, every batch has found its place in the queue or none.
        assert!(futures_util::poll!(&mut many).is_pending());
        outside.batch_execute("ROLLBACK").unwrap();
        let results = many.await;
        let full = |r: &Result<_, StoreError>| matches!(r, Err(StoreError::Retry(line)) if line.contains("wait for the disk"));
        assert!(results.iter().filter(|r| full(r)).count() >= 30, "{results:?}");
        assert!(results.iter().filter(|r| r.is_ok()).count() >= 64, "{results:?}");
        store.close().await;
    });
}
