//! The events of one device are in order, whatever it does: takeovers, newcomers at once, quick returns.

use futures_util::future::{join, join_all};
use rand::Rng;

use crate::support::events::{CONNECTED, DISCONNECTED};
use crate::support::fleet::Welcomed;
use crate::support::raw::{CLOSE, Raw, Seen};
use crate::support::{Ask, Events, Server, eventually, ledger, token, within};

const DEVICES: usize = 100;

#[tokio::test]
async fn two_newcomers_at_once() {
    let server = Server::start(&[]).await;
    let told: Vec<_> = join_all((0..DEVICES).map(|n| contest(&server, format!("contested-{n}")))).await;
    let told: Vec<_> = told.into_iter().flatten().collect();
    let events = quiet(&server).await;
    // A newcomer may be overtaken before its welcome, and even before its start is on the record.
    let stories = ledger::check(&events.all, &[]);
    for (session, seen) in told {
        let story = &stories[&session];
        let expected = if seen == Seen::Close(Some(4509)) { "replaced" } else { "client_closed" };
        assert_eq!(story.reasons, [expected], "a device saw {seen:?}: {story:?}");
    }
    let stayed = stories.values().filter(|s| s.reasons == ["client_closed"]).count();
    assert_eq!(stayed, DEVICES, "of each device one session stays until it leaves");
}

/// One holds the device, two take it over at the same moment, and whoever is left leaves in good order. Gives the
/// sessions that were welcome, each with what it saw of its end.
async fn contest(server: &Server, device: String) -> Vec<(String, Seen)> {
    let ask = Ask::with_token(&token(&device));
    let (mut first, welcome) = Raw::connect(server.addr, &token(&device)).await;
    let (mut a, mut b) = join(ask.admitted(server.addr), ask.admitted(server.addr)).await;
    let mut told = vec![(session(&welcome), first.closed(true).await)];
    let (of_a, of_b) = join(first_word(&mut a), first_word(&mut b)).await;
    let mut welcomed: Vec<_> =
        [(a, of_a), (b, of_b)].into_iter().filter_map(|(raw, w)| Some((raw, w?))).collect();
    assert!(!welcomed.is_empty(), "{device}: nobody won");
    // Who was told the higher number came last, and stays.
    welcomed.sort_by_key(|(_, welcome)| welcome["device_seq"].as_i64());
    let (mut winner, welcome) = welcomed.pop().expect("somebody won");
    for (mut loser, welcome) in welcomed {
        told.push((session(&welcome), loser.closed(true).await));
    }
    winner.send(CLOSE, &1000u16.to_be_bytes()).await.expect("the winner is still connected");
    told.push((session(&welcome), winner.closed(true).await));
    told
}

#[tokio::test]
async fn of_a_storm_of_newcomers_one_stays() {
    let server = Server::start(&[]).await;
    let (mut first, welcome) = Raw::connect(server.addr, &token("wanted")).await;
    let ask = Ask::with_token(&token("wanted"));
    let mut newcomers = join_all((0..DEVICES).map(|_| ask.admitted(server.addr))).await;
    let words = join_all(newcomers.iter_mut().map(first_word)).await;
    let mut told: Vec<(Raw, serde_json::Value)> =
        newcomers.into_iter().zip(words).filter_map(|(raw, word)| Some((raw, word?))).collect();
    assert_eq!(first.closed(true).await, Seen::Close(Some(4509)));
    told.push((first, welcome));
    told.sort_by_key(|(_, welcome)| welcome["device_seq"].as_i64());
    let welcomed: Vec<_> = told.iter().map(|(_, welcome)| Welcomed::read("wanted".into(), welcome)).collect();
    let (mut winner, last) = told.pop().expect("somebody won");
    for (mut loser, _) in told.drain(1..) {
        assert_eq!(loser.closed(true).await, Seen::Close(Some(4509)));
    }
    let mut log = Events::new();
    log.pull(&server).await;
    // One is live: every start but the winner's has its end, and the winner's is the newest of the device.
    let (starts, ends) = (log.of_kind(CONNECTED).count(), log.of_kind(DISCONNECTED).count());
    assert_eq!((starts, log.all.len() as i64), (ends + 1, last["device_seq"].as_i64().expect("a number")));
    winner.send(CLOSE, &1000u16.to_be_bytes()).await.expect("the winner is still connected");
    assert_eq!(winner.closed(true).await, Seen::Close(Some(1000)));
    let events = at_rest(&server, starts).await;
    let stories = ledger::check(&events.all, &welcomed);
    for told in &welcomed {
        // Starts and ends in turn: a session follows its predecessor's end.
        assert!(told.device_seq.is_some_and(|n| n % 2 == 1), "{told:?}");
    }
    let replaced = stories.values().filter(|s| s.reasons == ["replaced"]).count();
    assert_eq!((replaced, stories.len()), (starts - 1, starts));
}

/// Its welcome; none where it was told instead that another has come.
async fn first_word(raw: &mut Raw) -> Option<serde_json::Value> {
    let frame = within("a welcome or a close", raw.answering()).await.expect("readable").expect("a frame");
    if frame.opcode == CLOSE {
        assert_eq!(frame.close_code(), Some(4509));
        return None;
    }
    Some(serde_json::from_slice(&frame.payload).expect("JSON"))
}

#[tokio::test]
async fn quick_returns_and_takeovers_of_many_devices() {
    let server = Server::start(&[]).await;
    let returns = 20;
    join_all((0..DEVICES).map(|n| restless(&server, format!("restless-{n}"), returns))).await;
    let events = at_rest(&server, DEVICES * returns).await;
    ledger::check(&events.all, &[]);
    for n in 0..DEVICES {
        assert_eq!(events.of_device(&format!("restless-{n}")).count(), returns * 2);
    }
}

/// Connects again and again; each time the last connection is closed, reset, or just left to be taken over.
async fn restless(server: &Server, device: String, returns: usize) {
    let bearer = token(&device);
    let mut left = Vec::new();
    for _ in 0..returns {
        let (mut raw, _) = Raw::connect(server.addr, &bearer).await;
        match rand::rng().random_range(0..3) {
            0 => {
                raw.send(CLOSE, &1000u16.to_be_bytes()).await.expect("connected");
            }
            1 => raw.reset(),
            _ => left.push(raw),
        }
    }
}

#[tokio::test]
async fn a_newcomer_that_gives_up_before_its_welcome_still_adds_up() {
    let server = Server::start(&[]).await;
    let mut sockets = Vec::new();
    for n in 0..DEVICES {
        let mut stream = tokio::net::TcpStream::connect(server.addr).await.expect("the server listens");
        let ask = Ask::with_token(&token(&format!("hasty-{n}")));
        tokio::io::AsyncWriteExt::write_all(&mut stream, &ask.bytes()).await.expect("the handshake is sent");
        sockets.push(stream);
    }
    // Some of them are admitted already, some are on the way to the disk, some are unread.
    drop(sockets);
    let mut fence = Vec::new();
    for n in 0..DEVICES {
        fence.push(Raw::connect(server.addr, &token(&format!("hasty-{n}"))).await);
    }
    drop(fence);
    let events = quiet(&server).await;
    ledger::check(&events.all, &[]);
}

/// The whole log, once it holds the start and the end of `sessions`.
async fn at_rest(server: &Server, sessions: usize) -> Events {
    let mut events = Events::new();
    eventually("every session's start and end", async || {
        events.pull(server).await;
        (events.of_kind(DISCONNECTED).count() >= sessions).then_some(())
    })
    .await;
    assert_eq!(events.of_kind(CONNECTED).count(), sessions);
    assert_eq!(events.of_kind(DISCONNECTED).count(), sessions);
    events
}

/// The whole log, once as many sessions have ended as have started and none is live.
async fn quiet(server: &Server) -> Events {
    let mut events = Events::new();
    eventually("every session to end", async || {
        let live = server.live().await;
        events.pull(server).await;
        let (starts, ends) = (events.of_kind(CONNECTED).count(), events.of_kind(DISCONNECTED).count());
        (live == 0 && starts == ends && starts >= DEVICES).then_some(())
    })
    .await;
    events
}

fn session(welcome: &serde_json::Value) -> String {
    welcome["session_id"].as_str().expect("a session id").to_owned()
}
