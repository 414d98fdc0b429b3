//! Postgres goes away and comes back: devices are welcomed all the while, nobody who answers is ended, and afterwards
//! the record tells all of it, each start and end once and in order.

use crate::support::churn::Visit;
use crate::support::fleet::Welcomed;
use crate::support::size::{lanes, outage, sessions};
use crate::support::{Churn, Disk, Events, Fleet, Server, Stores, eventually, heavy, ledger};

const BRISK: [(&str, &str); 3] = [("PING_INTERVAL", "1s"), ("PONG_TIMEOUT", "5s"), ("UPDATE_INTERVAL", "1s")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_stands_still() {
    let _turn = heavy().await;
    an_outage(|stores| stores.postgres.stall(), |stores| stores.postgres.resume()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_killed() {
    let _turn = heavy().await;
    an_outage(|stores| stores.postgres.kill(), |stores| stores.postgres.restart()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_stands_still_and_is_killed_then() {
    let _turn = heavy().await;
    let end = |stores: &mut Stores| {
        stores.postgres.kill();
        stores.postgres.restart();
    };
    an_outage(|stores| stores.postgres.stall(), end).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_becomes_read_only() {
    let _turn = heavy().await;
    let turn = |stores: &mut Stores, on: &str| {
        stores.postgres.sql(&format!("ALTER SYSTEM SET default_transaction_read_only = {on}"));
        stores.postgres.sql("SELECT pg_reload_conf()");
    };
    an_outage(|stores| turn(stores, "on"), |stores| turn(stores, "off")).await;
}

async fn an_outage(begin: impl FnOnce(&mut Stores), end: impl FnOnce(&mut Stores)) {
    let mut stores = Stores::start().await;
    let server = Server::start_on(&stores, &BRISK).await;
    let mut staying = Fleet::hold(&server, "staying", sessions()).await;
    let churn = Churn::start(&[server.addr], "restless", lanes()).await;

    stores.suffer(begin);
    churn.more_unnumbered(lanes()).await;
    // The outage itself is what is tested: there is no condition to wait for but its length.
    tokio::time::sleep(outage()).await;
    churn.more_unnumbered(lanes()).await;
    answers_go_on(&staying).await;
    let (ready, verdicts) = server.readiness().await;
    assert!(ready, "a node with a journal admits: {verdicts:?}");
    assert!(
        !verdicts["sql"] && verdicts["journal"] && verdicts["redis"] && verdicts["admission"],
        "{verdicts:?}"
    );

    stores.suffer(end);
    server.whole().await;
    churn.more_numbered(lanes()).await;
    assert!(churn.turned_away().is_empty(), "a device was turned away: {:?}", churn.turned_away());
    let visits = churn.stop().await;
    assert_eq!(staying.ended(), vec![0; 0], "devices that answer stay");
    staying.leave().await;
    let books = at_rest(&server, &visits, &[staying.welcomed()].concat()).await;
    books.in_turn();
    for visit in &visits {
        assert!(visit.left_in_order(), "{visit:?}");
    }
    for story in books.stories.values() {
        assert_eq!(story.reasons, ["client_closed"], "{story:?}");
    }
}

/// Waits for as many pongs as there are devices: about one each.
async fn answers_go_on(fleet: &Fleet) {
    let since = fleet.pongs();
    let enough = since + fleet.welcomed_count() as u64;
    eventually("a round of pongs", async || (fleet.pongs() >= enough).then_some(())).await;
    assert_eq!(fleet.ended(), vec![0; 0], "devices that answer stay");
}

/// The books once all who were welcomed have ended; holds that each of them is in there, and no session open.
async fn at_rest(server: &Server, visits: &[Visit], others: &[Welcomed]) -> ledger::Books {
    let told: Vec<_> =
        visits.iter().map(|visit| visit.welcomed.clone()).chain(others.iter().cloned()).collect();
    let mut log = Events::new();
    log.until_ended(server, told.iter().map(|told| told.session_id.clone())).await;
    // A second end of any of them would have come before this one's.
    let mut last = crate::support::Device::connect(server, "the-last").await;
    last.close(Some(1000)).await;
    log.until_ended(server, [last.session_id()]).await;
    let books = ledger::audit(&log.all);
    books.tell_of(&told);
    books.all_ended();
    assert!(books.lost.is_empty(), "a node was given up: {:#?}", books.lost);
    books
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_while_postgres_is_away() {
    let _turn = heavy().await;
    let mut stores = Stores::start().await;
    let mut server = Server::start_on(&stores, &BRISK).await;
    let mut staying = Fleet::hold(&server, "staying", sessions()).await;
    let churn = Churn::start(&[server.addr], "restless", lanes()).await;
    stores.suffer(|stores| stores.postgres.stall());
    churn.more_unnumbered(2 * lanes()).await;

    server.kill().await;
    staying.all_ended().await;
    stores.suffer(|stores| stores.postgres.kill());
    let server = server.restart().await;
    churn.go_to(&[server.addr]);
    let mut again = Fleet::hold(&server, "again", sessions()).await;
    assert!(again.welcomed().iter().all(|told| told.device_seq.is_none()), "numbered while Postgres is away");
    churn.more_unnumbered(lanes()).await;
    tokio::time::sleep(outage()).await;
    answers_go_on(&again).await;

    stores.suffer(|stores| stores.postgres.restart());
    server.whole().await;
    churn.more_numbered(lanes()).await;
    let visits = churn.stop().await;
    assert_eq!(again.ended(), vec![0; 0], "devices that answer stay");
    again.leave().await;
    let books = at_rest(&server, &visits, &[staying.welcomed(), again.welcomed()].concat()).await;
    books.in_turn();
    for told in staying.welcomed() {
        assert_eq!(books.of(&told.session_id).reasons, ["node_lost"], "{told:?}");
    }
    for told in again.welcomed() {
        assert_eq!(books.of(&told.session_id).reasons, ["client_closed"], "{told:?}");
    }
    // An end may be lost with the node before it is in the journal: then the session ends with the node.
    let lost = |visit: &&Visit| books.of(&visit.welcomed.session_id).reasons == ["node_lost"];
    let lost_after_leaving = visits.iter().filter(|visit| visit.left_in_order()).filter(lost).count();
    assert!(lost_after_leaving <= lanes(), "{lost_after_leaving} ends were lost: more than were under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_again_and_again() {
    let _turn = heavy().await;
    let mut stores = Stores::start().await;
    let server = Server::start_on(&stores, &BRISK).await;
    let mut staying = Fleet::hold(&server, "staying", sessions()).await;
    let churn = Churn::start(&[server.addr], "restless", lanes()).await;
    for _ in 0..10 {
        stores.suffer(|stores| stores.postgres.terminate_backends());
        churn.more_numbered(lanes()).await;
    }
    server.whole().await;
    assert!(churn.turned_away().is_empty(), "a device was turned away: {:?}", churn.turned_away());
    let visits = churn.stop().await;
    assert_eq!(staying.ended(), vec![0; 0], "devices that answer stay");
    staying.leave().await;
    let books = at_rest(&server, &visits, &staying.welcomed()).await;
    books.in_turn();
    assert!(books.stories.values().all(|story| story.reasons == ["client_closed"]), "{books:#?}");
}

/// Neither the store nor the node's own disk takes anything: then nobody new is let in, and still nobody is ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_the_journal() {
    let disk = Disk::mount();
    let mut stores = Stores::start().await;
    let data = disk.data_dir();
    let server = Server::start_on(&stores, &[&BRISK[..], &[("DATA_DIR", &data)]].concat()).await;
    let mut staying = Fleet::hold(&server, "staying", 50).await;
    let churn = Churn::start(&[server.addr], "restless", 10).await;
    stores.suffer(|stores| stores.postgres.kill());
    churn.more_unnumbered(10).await;
    let trouble = disk.fill();
    eventually("newcomers to be turned away", async || {
        let refused = |answer: &String| answer.contains("503");
        churn.turned_away().iter().any(refused).then_some(())
    })
    .await;
    eventually("a node that says so", async || {
        let (ready, verdicts) = server.readiness().await;
        (!ready && !verdicts["sql"] && !verdicts["journal"] && !verdicts["admission"]).then_some(())
    })
    .await;
    answers_go_on(&staying).await;
    drop(trouble);
    churn.more_unnumbered(10).await;
    stores.suffer(|stores| stores.postgres.restart());
    server.whole().await;
    let visits = churn.stop().await;
    assert_eq!(staying.ended(), vec![0; 0], "devices that answer stay");
    staying.leave().await;
    let books = at_rest(&server, &visits, &staying.welcomed()).await;
    books.in_turn();
    assert!(books.stories.values().all(|story| story.reasons == ["client_closed"]), "{books:#?}");
}
