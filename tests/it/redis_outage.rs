//! Redis goes away, comes back empty, or takes no writes: that costs the freshness of live state and of the stream, and
//! nothing else. Afterwards the stream holds every event once and in order, and live state is that of the devices.

use crate::support::size::{lanes, outage, sessions};
use crate::support::{Churn, Device, Events, Fleet, Server, Stores, eventually, heavy, ledger, live};

const BRISK: [(&str, &str); 3] = [("PING_INTERVAL", "1s"), ("PONG_TIMEOUT", "5s"), ("UPDATE_INTERVAL", "1s")];

/// Whether the node can tell that something is wrong while it lasts.
#[derive(PartialEq, Eq)]
enum Noticed {
    /// `/readyz` says so.
    Yes,
    /// It is over before anyone asks.
    No,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stands_still() {
    let _turn = heavy().await;
    an_outage(Noticed::Yes, |stores| stores.redis.stop(), |stores| stores.redis.cont()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed() {
    let _turn = heavy().await;
    an_outage(Noticed::Yes, |stores| stores.redis.kill(), |stores| stores.redis.restart()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_empty() {
    let _turn = heavy().await;
    an_outage(Noticed::Yes, |stores| stores.redis.kill(), |stores| stores.redis.restart_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_flushed() {
    let _turn = heavy().await;
    let flush = |stores: &mut Stores| drop(stores.redis.command(&["FLUSHALL"]));
    an_outage(Noticed::No, flush, |_| ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_evicted_some_of_it() {
    let _turn = heavy().await;
    let evict = |stores: &mut Stores| {
        for key in stores.redis.command(&["KEYS", "lastpong:*"]).texts().iter().step_by(2) {
            stores.redis.command(&["DEL", key]);
        }
    };
    an_outage(Noticed::No, evict, |_| ()).await;
}

/// As a master that became another's replica; this other one is nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_becomes_read_only() {
    let _turn = heavy().await;
    let begin = |stores: &mut Stores| drop(stores.redis.command(&["REPLICAOF", "127.0.0.1", "1"]));
    let end = |stores: &mut Stores| drop(stores.redis.command(&["REPLICAOF", "NO", "ONE"]));
    an_outage(Noticed::Yes, begin, end).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_out_of_memory() {
    let _turn = heavy().await;
    let limit =
        |stores: &mut Stores, bytes: &str| drop(stores.redis.command(&["CONFIG", "SET", "maxmemory", bytes]));
    an_outage(Noticed::Yes, |stores| limit(stores, "1"), |stores| limit(stores, "0")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_whose_clients_are_paused() {
    let _turn = heavy().await;
    // It outlasts the outage by a little, and nobody can end it: who would say so is paused, too.
    let length = (outage() + std::time::Duration::from_secs(5)).as_millis().to_string();
    let begin = |stores: &mut Stores| drop(stores.redis.command(&["CLIENT", "PAUSE", &length, "ALL"]));
    let end = |stores: &mut Stores| drop(stores.redis.command(&["PING"]));
    an_outage(Noticed::Yes, begin, end).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_drops_every_connection() {
    let _turn = heavy().await;
    let cut = |stores: &mut Stores| drop(stores.redis.command(&["CLIENT", "KILL", "TYPE", "normal"]));
    an_outage(Noticed::No, cut, |_| ()).await;
}

async fn an_outage(noticed: Noticed, begin: impl FnOnce(&mut Stores), end: impl FnOnce(&mut Stores)) {
    let mut stores = Stores::start().await;
    let server = Server::start_on(&stores, &BRISK).await;
    let mut staying = Fleet::hold(&server, "staying", sessions()).await;
    let churn = Churn::start(&[server.addr], "restless", lanes()).await;
    // What is to be lost has to be there first.
    eventually("a stream", async || (!live::stream(&stores.redis).is_empty()).then_some(())).await;

    stores.suffer(begin);
    if noticed == Noticed::Yes {
        eventually("a node that says what it lacks", async || {
            let (ready, verdicts) = server.readiness().await;
            assert!(
                ready && verdicts["sql"] && verdicts["admission"],
                "Redis is not needed to admit: {verdicts:?}"
            );
            (!verdicts["redis"]).then_some(())
        })
        .await;
    }
    // The outage itself is what is tested: there is no condition to wait for but its length.
    tokio::time::sleep(outage()).await;
    churn.more_numbered(lanes()).await;
    assert_eq!(staying.ended(), vec![0; 0], "devices that answer stay");
    stores.suffer(end);
    server.whole().await;
    churn.more_numbered(lanes()).await;
    assert!(churn.turned_away().is_empty(), "a device was turned away: {:?}", churn.turned_away());
    assert_eq!(churn.unnumbered(), 0, "the record did not depend on Redis");
    let visits = churn.stop().await;
    assert_eq!(staying.ended(), vec![0; 0], "devices that answer stay");

    let mut log = Events::new();
    log.until_ended(&server, visits.iter().map(|visit| visit.welcomed.session_id.clone())).await;
    live::stream_is(&stores.redis, &log.all).await;
    let held = staying.welcomed();
    let sessions = held.iter().map(|told| (told.session_id.clone(), told.device_id.clone()));
    live::settles_to(&stores.redis, sessions).await;

    staying.leave().await;
    log.until_ended(&server, held.iter().map(|told| told.session_id.clone())).await;
    live::stream_is(&stores.redis, &log.all).await;
    live::settles_to(&stores.redis, []).await;
    let welcomed: Vec<_> = visits.into_iter().map(|visit| visit.welcomed).chain(held).collect();
    let stories = ledger::check(&log.all, &welcomed);
    assert!(stories.values().all(|story| story.reasons == ["client_closed"]), "{stories:#?}");
}

/// Live state decides nothing: whose key is gone stays, and is there again soon.
#[tokio::test]
async fn a_session_whose_key_is_gone_stays() {
    let stores = Stores::start().await;
    let server = Server::start_on(&stores, &BRISK).await;
    let mut device = Device::connect(&server, "forgotten").await;
    let all = [(device.session_id(), "forgotten".to_owned())];
    for _ in 0..3 {
        live::settles_to(&stores.redis, all.clone()).await;
        stores.redis.command(&["DEL", &format!("lastpong:session:{}", device.session_id())]);
        stores.redis.command(&["ZREM", "lastpong:active", &device.session_id()]);
    }
    live::settles_to(&stores.redis, all).await;
    device.answer_pings(2).await;
    device.close(Some(1000)).await;
    let end = Events::new().only_end(&server, &device.session_id()).await;
    assert_eq!(end["data"]["reason"], "client_closed");
}
