//! One device, several nodes: the last to come has it, and each of the others ends once, as replaced.

use futures_util::future::{join, join_all};

use crate::support::events::{CONNECTED, is_end_of};
use crate::support::fleet::Welcomed;
use crate::support::raw::{CLOSE, Raw, Seen};
use crate::support::size::{devices, rounds};
use crate::support::{Ask, Cluster, Device, End, Events, eventually, heavy, ledger, token, within};

#[tokio::test]
async fn a_device_that_comes_to_another_node_ends_its_session_here() {
    let cluster = Cluster::start(2, &[]).await;
    let mut first = Device::connect(&cluster.nodes[0], "moving").await;
    let mut second = Device::connect(&cluster.nodes[1], "moving").await;
    assert_eq!(first.closed().await, Seen::Close(Some(4509)));
    assert_eq!(second.welcome["device_seq"], 3, "its start follows the other's end");
    let mut log = Events::new();
    let end = log.only_end(&cluster.nodes[0], &first.session_id()).await;
    End::by("replaced").by_a_peer().check(&end);
    assert_eq!(end["data"]["node_id"], "node-1");
    assert_eq!(second.close(Some(1000)).await, Seen::Close(Some(1000)));
    log.until_ended(&cluster.nodes[0], [second.session_id()]).await;
    ledger::check(&log.all, &[]);
}

/// A welcomed newcomer that answers; what it sees of its end.
type Newcomer = tokio::task::JoinHandle<Seen>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_newcomers_at_two_nodes_at_once_one_stays() {
    let _turn = heavy().await;
    let cluster = Cluster::start(2, &[]).await;
    let addrs = cluster.addrs();
    let contests = (0..devices()).map(|n| contest(addrs.clone(), format!("wanted-{n}")));
    let told: Vec<(String, Vec<(Welcomed, Newcomer)>)> = join_all(contests).await;

    // Everything that lost is told so; one of each device is left.
    let mut winners = Vec::new();
    let mut losers = Vec::new();
    for (device, newcomers) in told {
        let mut standing = newcomers;
        eventually(&format!("one of {device} to be left"), async || {
            (standing.iter().filter(|(_, task)| !task.is_finished()).count() == 1).then_some(())
        })
        .await;
        for (welcomed, task) in standing.drain(..) {
            match task.is_finished() {
                false => winners.push((welcomed, task)),
                true => losers.push((welcomed, task.await.expect("no device panicked"))),
            }
        }
    }
    let mut log = Events::new();
    log.until_ended(&cluster.nodes[0], losers.iter().map(|(told, _)| told.session_id.clone())).await;
    let books = ledger::audit(&log.all);
    books.in_turn();
    for (told, seen) in &losers {
        assert_eq!(*seen, Seen::Close(Some(4509)), "{told:?}");
        assert_eq!(books.of(&told.session_id).reasons, ["replaced"], "{told:?}");
    }
    for (told, _) in &winners {
        assert!(
            !log.all.iter().any(|e| is_end_of(e, &told.session_id)),
            "the one that is left ended: {told:?}"
        );
        for node in &cluster.nodes {
            let presence = node.json(&format!("/v1/devices/{}", told.device_id)).await;
            assert_eq!(presence["session"]["session_id"], *told.session_id, "{presence}");
        }
    }
    // Also those that were overtaken before their welcome are on the record with one end, if they are on it.
    let (starts, open) = (log.of_kind(CONNECTED).count(), winners.len());
    let ended = books.stories.values().filter(|story| story.reasons == ["replaced"]).count();
    assert_eq!((ended, open), (starts - devices(), devices()));

    let sessions: Vec<_> = winners.iter().map(|(told, _)| told.session_id.clone()).collect();
    winners.iter().for_each(|(_, task)| task.abort());
    log.until_ended(&cluster.nodes[1], sessions).await;
    let welcomed: Vec<_> =
        losers.into_iter().map(|(told, _)| told).chain(winners.into_iter().map(|(told, _)| told)).collect();
    ledger::check(&log.all, &welcomed);
}

/// Comes to both nodes at once, round by round; gives all that were welcome, of whom one still holds the device.
async fn contest(addrs: Vec<std::net::SocketAddr>, device: String) -> (String, Vec<(Welcomed, Newcomer)>) {
    let ask = Ask::with_token(&token(&device));
    let mut all = Vec::new();
    for _ in 0..rounds() {
        let (a, b) = join(newcomer(&ask, addrs[0], &device), newcomer(&ask, addrs[1], &device)).await;
        assert!(a.is_some() || b.is_some(), "{device}: nobody won");
        all.extend([a, b].into_iter().flatten());
    }
    (device, all)
}

/// `None` where it was told instead of its welcome that another has come. It answers to its end.
async fn newcomer(ask: &Ask, addr: std::net::SocketAddr, device: &str) -> Option<(Welcomed, Newcomer)> {
    let mut raw = ask.admitted(addr).await;
    let first = within("a welcome or a close", raw.answering()).await.expect("readable").expect("a frame");
    if first.opcode == CLOSE {
        assert_eq!(first.close_code(), Some(4509));
        return None;
    }
    let welcome = serde_json::from_slice(&first.payload).expect("JSON");
    let welcomed = Welcomed::read(device.to_owned(), &welcome);
    Some((welcomed, tokio::spawn(answer(raw))))
}

/// For as long as it takes: the one that stays is still here when all contests are over.
async fn answer(mut raw: Raw) -> Seen {
    loop {
        match raw.answering().await {
            Ok(Some(close)) if close.opcode == CLOSE => return Seen::Close(close.close_code()),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return Seen::Nothing,
        }
    }
}
