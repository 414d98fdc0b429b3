//! A start without the stores, and what `/readyz` says of each dependency.

use std::collections::BTreeMap;

use crate::support::server::{lastpong, run_to_end};
use crate::support::size::lanes;
use crate::support::{Churn, Device, Events, Fleet, Server, Stores, ledger, live};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_postgres_serves_and_tells_it_later() {
    let mut stores = Stores::start().await;
    stores.suffer(|stores| stores.postgres.stop());
    a_start_without(stores, |stores| stores.postgres.restart(), &["sql"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_with_a_postgres_that_stands_still_serves_and_tells_it_later() {
    let mut stores = Stores::start().await;
    stores.suffer(|stores| stores.postgres.stall());
    a_start_without(stores, |stores| stores.postgres.resume(), &["sql"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_any_store_serves_and_tells_it_later() {
    let mut stores = Stores::start().await;
    stores.suffer(|stores| {
        stores.postgres.stop();
        stores.redis.kill();
    });
    let end = |stores: &mut Stores| {
        stores.postgres.restart();
        stores.redis.restart();
    };
    a_start_without(stores, end, &["sql", "redis"]).await;
}

/// The database is empty, too: what makes it ours is done when it is there.
async fn a_start_without(mut stores: Stores, end: impl FnOnce(&mut Stores), missing: &[&str]) {
    let server = Server::start_on(&stores, &[("UPDATE_INTERVAL", "1s")]).await;
    let mut early = Fleet::hold(&server, "early", 20).await;
    assert!(early.welcomed().iter().all(|told| told.device_seq.is_none()), "numbered while Postgres is away");
    let mut left = Device::connect(&server, "left-early").await;
    left.close(Some(1000)).await;
    let (ready, verdicts) = server.readiness().await;
    assert!(ready, "a node with a journal admits: {verdicts:?}");
    let names = ["admission", "journal", "redis", "sql"];
    let expected: BTreeMap<_, _> = names.map(|name| (name.to_owned(), !missing.contains(&name))).into();
    assert_eq!(verdicts, expected);

    stores.suffer(end);
    server.whole().await;
    let churn = Churn::start(&[server.addr], "later", lanes()).await;
    let visits = churn.stop().await;
    assert_eq!(early.ended(), vec![0; 0], "devices that answer stay");
    let mut told: Vec<_> = visits.into_iter().map(|visit| visit.welcomed).collect();
    let held = early.welcomed();
    live::settles_to(&stores.redis, held.iter().map(|t| (t.session_id.clone(), t.device_id.clone()))).await;
    early.leave().await;
    told.extend(held);
    let mut log = Events::new();
    let sessions = told.iter().map(|told| told.session_id.clone()).chain([left.session_id()]);
    log.until_ended(&server, sessions).await;
    let stories = ledger::check(&log.all, &told);
    assert!(stories.values().all(|story| story.reasons == ["client_closed"]), "{stories:#?}");
    live::stream_is(&stores.redis, &log.all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_postgres_is_refused_where_that_is_set() {
    let mut stores = Stores::start().await;
    let (url, redis) =
        (stores.postgres.url().replacen("lastpong@", "lastpong:a-password@", 1), stores.redis.url());
    assert!(url.contains("a-password"), "{url}");
    stores.suffer(|stores| stores.postgres.stop());
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = lastpong();
    command.current_dir(dir.path()).arg("serve").env("LASTPONG_DATA_DIR", dir.path().join("data"));
    command
        .env("LASTPONG_BIND", "127.0.0.1:0")
        .env("LASTPONG_START_DEGRADED", "false")
        .env("RUST_LOG", "error");
    command.env("DATABASE_URL", url).env("REDIS_URL", redis);
    let run = tokio::task::spawn_blocking(|| run_to_end(command)).await.expect("it ran");
    assert_eq!(run.code, Some(1), "stdout: {}\nstderr: {}", run.stdout, run.stderr);
    assert_eq!(run.stderr.trim_end().lines().count(), 1, "one line is enough: {}", run.stderr);
    assert!(run.stderr.contains("DATABASE_URL") || run.stderr.contains("postgres"), "{}", run.stderr);
    assert!(!run.stderr.contains("a-password") && !run.stdout.contains("a-password"), "a secret is shown");
}

#[tokio::test]
async fn each_dependency_is_named() {
    let stores = Stores::start().await;
    let server = Server::start_on(&stores, &[]).await;
    server.whole().await;
    let (ready, verdicts) = server.readiness().await;
    assert!(ready);
    let names = ["admission", "journal", "redis", "sql"];
    assert_eq!(verdicts, names.map(|name| (name.to_owned(), true)).into());
    // Alone it has no journal to depend on, and no Redis.
    let alone = Server::start_embedded(&[]).await;
    let (ready, verdicts) = alone.readiness().await;
    assert!(ready && verdicts["sql"] && verdicts["admission"], "{verdicts:?}");
    assert!(!verdicts.contains_key("redis"), "{verdicts:?}");
}
