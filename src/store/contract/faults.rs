//! What fails leaves nothing behind; what is read is whole; what was asked for is done.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

pub fn a_failed_batch_leaves_nothing<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        let run = Incarnation::new();
        let earlier = Sample::new("a", run, 0);
        commit(&store, vec![earlier.start()]).await;
        let sessions: Vec<_> = (0..20).map(|n| Sample::new(["a", "b"][n % 2], run, n as i64)).collect();
        let batch: Vec<_> = [earlier.end(Reason::Replaced, 1)]
            .into_iter()
            .chain(sessions.iter().map(Sample::start))
            .collect();
        let batch = Arc::new(batch);

        bench.refuse_after(9);
        for _ in 0..3 {
            let error = store.commit(&writer(), Arc::clone(&batch)).await.unwrap_err();
            assert!(matches!(error, StoreError::Retry(_)), "{error:?}");
            assert_eq!(whole_log(&store).await.len(), 1, "part of the batch is in the log");
            assert_eq!(store.bounds().await.unwrap().newest, 1);
            let record = store.session(earlier.session_id).await.unwrap().unwrap();
            assert_eq!(record.status, Status::Active, "part of the batch is on the record");
        }
        bench.repair();
        let done = store.commit(&writer(), Arc::clone(&batch)).await.unwrap();
        assert_eq!(done.events.iter().map(|e| e.seq).collect::<Vec<_>>(), (2..=22).collect::<Vec<_>>());
        assert_eq!(done.outcomes[..3], [recorded(2), recorded(3), recorded(1)]);

        // As after a commit whose answer was lost: everything is there, nothing is told again.
        let again = store.commit(&writer(), Arc::clone(&batch)).await.unwrap();
        assert_eq!(again.outcomes[0], Outcome::Superseded);
        assert_eq!(again.outcomes[1..], done.outcomes[1..]);
        assert!(again.events.is_empty());
        assert_eq!(whole_log(&store).await.len(), 22);
        store.close().await;
    });
}

pub fn readers_see_whole_batches<B: Bench>() {
    const BATCH: usize = 40;
    let bench = B::new();
    let store = bench.open();
    let run = Incarnation::new();
    let (done, states_seen) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|threads| {
        let reader = threads.spawn(|| {
            block_on(async {
                let mut seen = 0;
                while !done.load(Ordering::Relaxed) {
                    let page = store.events(seen, &EventFilter::default(), 4_000).await.unwrap();
                    assert_eq!(page.events.len() % BATCH, 0, "part of a batch was read");
                    let expected: Vec<i64> = (seen + 1..=page.scanned_to).collect();
                    assert_eq!(page.events.iter().map(|e| e.seq).collect::<Vec<_>>(), expected);
                    if page.scanned_to > seen {
                        states_seen.fetch_add(1, Ordering::Relaxed);
                    }
                    seen = page.scanned_to;
                }
            });
        });
        block_on(async {
            while states_seen.load(Ordering::Relaxed) < 10 && !reader.is_finished() {
                let batch = (0..BATCH).map(|n| Sample::new(&format!("d{n}"), run, 0).start()).collect();
                commit(&store, batch).await;
            }
        });
        done.store(true, Ordering::Relaxed);
    });
    block_on(store.close());
}

pub fn close_finishes_the_work<B: Bench>() {
    let bench = B::new();
    let run = Incarnation::new();
    block_on(async {
        let store = bench.open();
        let other = store.clone();
        let batches = (0..10).map(|n| {
            let (store, session) = (store.clone(), Sample::new(&format!("d{n}"), run, n));
            async move { store.commit(&writer(), Arc::new(vec![session.start()])).await }
        });
        // Each batch is in the queue before the close is: a future of this join is first polled in its place.
        let (committed, ()) =
            futures_util::future::join(futures_util::future::join_all(batches), store.close()).await;
        assert!(committed.iter().all(Result::is_ok), "{committed:?}");
        let late = other.commit(&writer(), Arc::new(vec![Sample::new("late", run, 0).start()])).await;
        assert!(late.is_err(), "a closed store took a batch");
        other.close().await;
    });
    block_on(async {
        let store = bench.open();
        assert_eq!(whole_log(&store).await.len(), 10);
        store.close().await;
    });
}
