//! A server that is cut off, killed, hung: the store is used on as soon as it answers.

use std::time::Instant;

use super::*;
use crate::store::audit::{Action, Entry};
use crate::store::bans::WhichBan;
use crate::store::contract::actions::{entry, of_device};

/// Asks until it is done; how long that takes is the server's.
async fn eventually<T>(mut work: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match work().await {
            Ok(done) => return done,
            Err(StoreError::Retry(text)) => assert!(Instant::now() < deadline, "it is not back: {text}"),
            Err(error) => panic!("not for a later time: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn use_all(node: &Node) {
    eventually(async || node.store.ping().await).await;
    eventually(async || node.store.bounds().await).await;
    eventually(async || node.store.renew(&node.run).await).await;
}

fn assert_retry<T: std::fmt::Debug>(done: Result<T, StoreError>) {
    match done {
        Err(StoreError::Retry(line)) => assert!(!line.contains('\n'), "{line:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn connections_that_are_cut_are_replaced() {
    let (server, [a]) = nodes(["a"]).await;
    for n in 0..3 {
        use_all(&a).await;
        assert!(server.0.terminate_backends() >= 3);
        let start = a.start("d", n);
        eventually(async || a.commit(vec![start.said()]).await).await;
    }
    assert_eq!(log(&a.store).await.len(), 3);
}

/// A row of an answer is sent before its transaction is committed.
#[tokio::test]
async fn what_is_answered_and_not_committed_is_not_done() {
    let (server, [a, b, c]) = nodes(["a", "b", "c"]).await;
    a.commit(vec![a.start("there", 1).said()]).await.unwrap();
    a.store.declare_lost(&a.run, &a.peer("c").await).await.unwrap();
    a.store.ban(of_device("loud", None), entry(Action::Ban, "loud")).await.unwrap();
    let peer = a.peer("b").await;
    server.0.sql(
        "CREATE FUNCTION too_late() RETURNS TRIGGER LANGUAGE plpgsql AS $$
         BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER too_late AFTER INSERT OR DELETE ON events
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION too_late();
         CREATE CONSTRAINT TRIGGER too_late AFTER INSERT ON audit
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION too_late();
         CREATE CONSTRAINT TRIGGER too_late AFTER INSERT OR UPDATE ON nodes
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION too_late()",
    );
    assert_retry(a.commit(vec![a.start("d", 2).said()]).await);
    assert_retry(a.store.begin(&a.run, at(3)).await);
    assert_retry(a.store.renew(&a.run).await);
    assert_retry(a.store.declare_lost(&a.run, &peer).await);
    assert_retry(a.store.adopt(&a.run, &c.run.node_id).await);
    assert_retry(a.store.expire_events(at(9), 100).await);
    assert_retry(a.store.ban(of_device("d", None), entry(Action::Ban, "d")).await);
    let loud = WhichBan::Device("loud".parse().unwrap());
    assert_retry(a.store.lift_ban(loud, at(1), entry(Action::Lift, "loud")).await);

    server.0.sql(
        "DROP TRIGGER too_late ON events; DROP TRIGGER too_late ON nodes; DROP TRIGGER too_late ON audit",
    );
    assert_eq!(log(&a.store).await.len(), 2, "nothing was committed");
    assert_eq!(b.store.renew(&b.run).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_killed_server_is_used_again() {
    let (mut server, [a]) = nodes(["a"]).await;
    use_all(&a).await;
    server.0.kill();
    let start = a.start("d", 1);
    assert_retry(a.commit(vec![start.said()]).await);
    assert_retry(a.store.bounds().await);
    assert_retry(a.store.renew(&a.run).await);
    assert_retry(a.store.migrate().await);
    server.0.restart();
    let done = eventually(async || a.commit(vec![start.said()]).await).await;
    assert_eq!(done.outcomes, [recorded(1)]);
    use_all(&a).await;
}

#[tokio::test]
async fn a_hung_server_is_like_a_dead_one() {
    let (server, [a]) = nodes(["a"]).await;
    use_all(&a).await;
    server.0.stall();
    let start = a.start("d", 1);
    let (commit, read, lease, listen) = futures_util::join!(
        a.commit(vec![start.said()]),
        a.store.bounds(),
        a.store.renew(&a.run),
        a.store.listen(),
    );
    assert_retry(commit);
    assert_retry(read);
    assert_retry(lease);
    assert_retry(listen.map(|_| ()));
    server.0.resume();
    // Whether the hung server did what it was asked in the end or not: once it is on the record.
    let done = eventually(async || a.commit(vec![start.said()]).await).await;
    assert_eq!(done.outcomes, [recorded(1)]);
    use_all(&a).await;
    assert_eq!(log(&a.store).await.len(), 1);
}

#[tokio::test]
async fn who_listens_hears_of_others_commits() {
    let (mut server, [a, b]) = nodes(["a", "b"]).await;
    let mut listener = a.store.listen().await.unwrap();
    for n in 0..3 {
        b.commit(vec![b.start("d", n).said()]).await.unwrap();
        tokio::time::timeout(Duration::from_secs(60), listener.changed()).await.unwrap().unwrap();
    }
    server.0.kill();
    let lost = async { while listener.changed().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(60), lost).await.unwrap();
}

#[tokio::test]
async fn nodes_that_start_at_once_migrate_once() {
    let server = Server::new();
    let stores: Vec<_> = (0..4).map(|n| server.store(&format!("n{n}"))).collect();
    let applied = futures_util::future::join_all(stores.iter().map(PostgresStore::migrate)).await;
    let applied: Vec<_> = applied.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(
        applied,
        [
            "2026-11-21-000000_record",
            "2026-11-22-000000_actions",
            "2026-11-22-010000_revocations",
            "2026-11-23-010000_flapping"
        ]
    );
    server.0.sql("INSERT INTO __diesel_schema_migrations (version) VALUES ('20991231000000')");
    match stores[0].migrate().await {
        Err(StoreError::Broken(line)) => {
            assert!(line.contains("later version of lastpong") && line.contains("20991231000000"), "{line}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_database_that_is_not_ours_is_left_alone() {
    let server = Server::new();
    server.0.sql("CREATE TABLE events (body TEXT)");
    let store = server.store("a");
    match store.migrate().await {
        Err(StoreError::Broken(line)) => assert!(line.contains("already exists"), "{line}"),
        other => panic!("{other:?}"),
    }
    let tables = server.0.sql("SELECT relname FROM pg_stat_user_tables WHERE relname LIKE '%nodes%'");
    assert_eq!(tables, "");
    match store.ping().await {
        Err(StoreError::Broken(line)) => assert!(line.contains("does not exist"), "{line}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_url_is_said_without_its_secret() {
    let server = Server::new();
    let node = "a".parse().unwrap();
    for url in
        ["postgres://me:hunter2@", "postgres://me:hunter2@db:x/y", "postgres://me:hunter2@db/x?color=red"]
    {
        match PostgresStore::new(&Secret::new(url), &node, None) {
            Err(StoreError::Broken(line)) => {
                assert!(line.contains("DATABASE_URL") && !line.contains("hunter2"), "{line}");
            }
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("{url} was taken"),
        }
    }
    let nowhere = Secret::new(server.0.url_of("nowhere").replace('@', ":hunter2@"));
    match PostgresStore::new(&nowhere, &node, None).unwrap().migrate().await {
        Err(StoreError::Broken(line)) => {
            assert!(line.contains("\"nowhere\" does not exist") && !line.contains("hunter2"), "{line}");
        }
        other => panic!("{other:?}"),
    }
}

/// It would be sent again for ever, and every time the other connections would be let go.
#[tokio::test]
async fn a_value_that_is_refused_is_not_for_a_later_time() {
    let (_server, [a]) = nodes(["a"]).await;
    let bad = Entry { detail: Some("debug,a\0b=debug".into()), ..entry(Action::LogFilter, "a") };
    match a.store.note(bad).await {
        Err(StoreError::Broken(line)) => assert!(line.contains("refused a value"), "{line}"),
        other => panic!("{other:?}"),
    }
    a.store.note(entry(Action::LogFilter, "a")).await.unwrap();
}
