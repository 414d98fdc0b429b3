//! The relay over a real log and a real Redis, which are broken in between.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::config::RedisUrl;
use crate::feed::Limits;
use crate::feed::tests::Log;
use crate::store::live::tests::server::{Redis, Reply};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn link(redis: &Redis) -> RedisLink {
    RedisLink::new(&RedisUrl::parse(&redis.url()).unwrap(), Arc::default()).unwrap()
}

fn relay(feed: &Feed, redis: &Redis) -> Relay {
    Relay::spawn(feed.clone(), link(redis), 1_000_000)
}

/// The stream's entries as `seq` and the id of the event.
fn entries(redis: &Redis) -> Vec<(i64, String)> {
    let reply = redis.command(&["XRANGE", STREAM, "-", "+"]);
    let entry = |entry: &Reply| {
        let [id, fields] = entry.list() else { panic!("no entry: {entry:?}") };
        let fields: HashMap<_, _> =
            fields.texts().chunks(2).map(|f| (f[0].to_owned(), f[1].to_owned())).collect();
        let event: serde_json::Value = serde_json::from_str(&fields["event"]).unwrap();
        assert_eq!(
            (event["id"].as_str(), event["type"].as_str()),
            (Some(&*fields["id"]), Some(&*fields["type"]))
        );
        let seq = seq_of(id.text()).unwrap();
        assert_eq!(event["data"]["seq"], seq);
        (seq, fields["id"].clone())
    };
    reply.list().iter().map(entry).collect()
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the stream ends with the log, and holds it to be the log from `from` on.
async fn settled(log: &Log, redis: &Redis, from: i64) {
    let newest = log.store.bounds().await.unwrap().newest;
    let end = format!("{newest}-0");
    eventually("the stream to end with the log", || {
        redis.ask(&["XREVRANGE", STREAM, "+", "-", "COUNT", "1"]).is_ok_and(
            |reply| matches!(&reply, Reply::List(l) if l.first().is_some_and(|e| e.list()[0].text() == end)),
        )
    })
    .await;
    let mut expected = Vec::new();
    let mut after = from - 1;
    while after < newest {
        let page = log.store.events(after, &EventFilter::default(), 1_000).await.unwrap();
        after = page.scanned_to;
        expected.extend(page.events.iter().map(|event| (event.seq, event.id.to_string())));
    }
    assert_eq!(entries(redis), expected);
}

async fn publish(log: &Log, feed: &Feed, devices: std::ops::Range<usize>) {
    feed.publish(&log.sessions(devices).await);
}

#[tokio::test]
async fn what_is_in_the_log_and_what_comes_is_in_the_stream_once_and_in_order() {
    let (log, redis) = (Log::new().await, Redis::start());
    log.sessions(0..150).await;
    let feed = log.feed(Limits::default()).await;
    let relay = relay(&feed, &redis);
    settled(&log, &redis, 1).await;
    for n in 3..10 {
        publish(&log, &feed, n * 50..(n + 1) * 50).await;
    }
    settled(&log, &redis, 1).await;
    eventually("no lag", || feed.0.metrics.outbox_lag.with_label_values(&[SINK]).get() == 0).await;
    publish(&log, &feed, 0..20).await;
    feed.close();
    relay.finish(PATIENCE).await;
    settled(&log, &redis, 1).await;
    assert_eq!(redis.command(&["EXISTS", LOCK]).int(), 0, "the next relay need not wait");
}

#[tokio::test]
async fn one_of_two_relays_copies_and_the_other_takes_over() {
    let (log, redis) = (Log::new().await, Redis::start());
    let feed = log.feed(Limits::default()).await;
    let (mut one, mut other) = (relay(&feed, &redis), relay(&feed, &redis));
    for n in 0..6 {
        publish(&log, &feed, n * 100..(n + 1) * 100).await;
        // Killed at any moment, also between append and the next; the lock then runs out.
        std::mem::swap(&mut one, &mut other);
        drop(std::mem::replace(&mut one, relay(&feed, &redis)));
        redis.command(&["DEL", LOCK]);
    }
    settled(&log, &redis, 1).await;
}

#[tokio::test]
async fn a_relay_that_lost_its_lock_writes_nothing() {
    let (log, redis) = (Log::new().await, Redis::start());
    let feed = log.feed(Limits::default()).await;
    let mut stopped = Copier::new(feed.clone(), link(&redis), 1_000);
    let events = log.sessions(0..4).await;
    assert!(stopped.take_turn().await.unwrap());
    assert!(matches!(stopped.append(&events[..2]).await, Ok(Appended::Done)));
    redis.command(&["DEL", LOCK]);
    let mut successor = Copier::new(feed, link(&redis), 1_000);
    assert!(successor.take_turn().await.unwrap() && !stopped.take_turn().await.unwrap());
    assert!(matches!(successor.append(&[]).await, Ok(Appended::Moved(end)) if end == "2-0"));
    successor.place("2-0").await.unwrap();
    assert!(matches!(successor.append(&events[2..4]).await, Ok(Appended::Done)));
    assert!(matches!(stopped.append(&events[2..]).await, Ok(Appended::Fenced)));
    assert_eq!(entries(&redis).len(), 4);
}

/// What Redis did not do in a turn of the relay's, it does in the next.
#[tokio::test]
async fn a_call_of_an_earlier_turn_writes_nothing() {
    let (log, redis) = (Log::new().await, Redis::start());
    let feed = log.feed(Limits::default()).await;
    let mut copier = Copier::new(feed, link(&redis), 1_000);
    let events = log.sessions(0..4).await;
    assert!(copier.take_turn().await.unwrap());
    let earlier = copier.turn;
    // The lock is the relay's own, so it need not run out.
    assert!(copier.take_turn().await.unwrap());
    let turn = std::mem::replace(&mut copier.turn, earlier);
    assert!(matches!(copier.append(&events).await, Ok(Appended::Fenced)));
    assert!(entries(&redis).is_empty());
    copier.turn = turn;
    assert!(matches!(copier.append(&events).await, Ok(Appended::Done)));
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_filled_anew() {
    let (log, mut redis) = (Log::new().await, Redis::start());
    let feed = log.feed(Limits::default()).await;
    let _relay = relay(&feed, &redis);
    publish(&log, &feed, 0..300).await;
    settled(&log, &redis, 1).await;
    redis.kill();
    publish(&log, &feed, 300..400).await;
    redis.restart_empty();
    publish(&log, &feed, 400..450).await;
    settled(&log, &redis, 1).await;
    for lose in [&["FLUSHALL"][..], &["DEL", STREAM]] {
        redis.command(lose);
        publish(&log, &feed, 0..5).await;
        settled(&log, &redis, 1).await;
    }
}

#[tokio::test]
async fn a_redis_with_an_older_stream_goes_on_from_there() {
    let (log, mut redis) = (Log::new().await, Redis::start_with(&[]));
    let feed = log.feed(Limits::default()).await;
    let _relay = relay(&feed, &redis);
    publish(&log, &feed, 0..100).await;
    settled(&log, &redis, 1).await;
    // The lock is in the snapshot too.
    redis.command(&["SAVE"]);
    publish(&log, &feed, 100..200).await;
    settled(&log, &redis, 1).await;
    redis.restart();
    publish(&log, &feed, 200..210).await;
    settled(&log, &redis, 1).await;
}

#[tokio::test]
async fn a_redis_that_hangs_refuses_or_is_full_only_delays() {
    let (log, redis) = (Log::new().await, Redis::start());
    let master = Redis::start();
    let feed = log.feed(Limits::default()).await;
    let _relay = relay(&feed, &redis);
    publish(&log, &feed, 0..20).await;
    settled(&log, &redis, 1).await;
    let lag = || feed.0.metrics.outbox_lag.with_label_values(&[SINK]).get();

    redis.stop();
    publish(&log, &feed, 20..40).await;
    eventually("the lag to be told while it hangs", || lag() >= 40).await;
    redis.cont();
    settled(&log, &redis, 1).await;

    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    publish(&log, &feed, 40..60).await;
    eventually("the lag to be told while it is full", || lag() >= 40).await;
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    settled(&log, &redis, 1).await;

    // As a replica of an empty master it is read-only, and then empty.
    redis.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    publish(&log, &feed, 60..80).await;
    eventually("the lag to be told while it is read-only", || lag() >= 40).await;
    redis.command(&["REPLICAOF", "NO", "ONE"]);
    settled(&log, &redis, 1).await;
}

#[tokio::test]
async fn a_stream_is_filled_with_the_newest_alone_and_stays_bounded() {
    let (log, redis) = (Log::new().await, Redis::start());
    log.sessions(0..500).await;
    let feed = log.feed(Limits::default()).await;
    let _relay = Relay::spawn(feed.clone(), link(&redis), 300);
    settled(&log, &redis, 701).await;
    for n in 0..10 {
        publish(&log, &feed, n * 100..(n + 1) * 100).await;
    }
    let end = format!("{}-0", feed.newest());
    eventually("the last event", || entries(&redis).last().is_some_and(|(seq, _)| format!("{seq}-0") == end))
        .await;
    let kept = entries(&redis).len();
    assert!((300..1_000).contains(&kept), "{kept} events are kept");
}

#[tokio::test]
async fn a_stream_of_another_log_is_left_alone() {
    let (log, redis) = (Log::new().await, Redis::start());
    log.sessions(0..5).await;
    let feed = log.feed(Limits::default()).await;
    for seq in ["3-0", "3000-0", "3000-5"] {
        redis.command(&["DEL", STREAM, LOCK]);
        redis.command(&["XADD", STREAM, seq, "type", "x", "id", "another", "event", "{}"]);
        let mut copier = Copier::new(feed.clone(), link(&redis), 1_000);
        assert!(matches!(copier.try_lead().await, Err(Trouble::Foreign(end)) if end == seq), "{seq}");
        assert_eq!(redis.command(&["XLEN", STREAM]).int(), 1);
    }
}

#[tokio::test]
async fn what_is_new_is_published_and_what_is_refilled_is_not() {
    let (log, redis) = (Log::new().await, Redis::start());
    log.sessions(0..10).await;
    let feed = log.feed(Limits::default()).await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut heard = client.get_async_pubsub().await.unwrap();
    heard.psubscribe("lastpong:events:*").await.unwrap();
    let _relay = relay(&feed, &redis);
    settled(&log, &redis, 1).await;
    publish(&log, &feed, 10..15).await;
    settled(&log, &redis, 1).await;
    redis.command(&["FLUSHALL"]);
    settled(&log, &redis, 1).await;
    publish(&log, &feed, 15..17).await;
    settled(&log, &redis, 1).await;
    let mut messages = heard.on_message();
    for seq in 21..=34 {
        let message = tokio::time::timeout(PATIENCE, futures_util::StreamExt::next(&mut messages));
        let message = message.await.expect("a message").expect("the connection stays");
        let event: serde_json::Value = serde_json::from_slice(message.get_payload_bytes()).unwrap();
        assert_eq!(event["data"]["seq"], seq);
        assert_eq!(
            message.get_channel_name(),
            format!("lastpong:events:{}", event["type"].as_str().unwrap())
        );
    }
}

/// Redis was emptied, and the relay that refilled the stream is gone: the next one knows nothing of what was published.
#[tokio::test]
async fn who_goes_on_refilling_publishes_only_what_is_new() {
    let (log, redis) = (Log::new().await, Redis::start());
    let feed = log.feed(Limits::default()).await;
    publish(&log, &feed, 0..10).await;
    let first = relay(&feed, &redis);
    settled(&log, &redis, 1).await;
    let newest = log.store.bounds().await.unwrap().newest;
    assert_eq!(redis.command(&["GET", TOLD]).text(), newest.to_string());
    drop(first);
    // As it is when three events of the refill are in the stream.
    let page = log.store.events(0, &EventFilter::default(), 3).await.unwrap();
    redis.command(&["DEL", STREAM, LOCK]);
    for event in &page.events {
        let (seq, id) = (format!("{}-0", event.seq), event.id.to_string());
        redis.command(&["XADD", STREAM, &seq, "type", event.kind.as_str(), "id", &id, "event", &event.json]);
    }
    let client = redis::Client::open(redis.url()).unwrap();
    let mut heard = client.get_async_pubsub().await.unwrap();
    heard.psubscribe("lastpong:events:*").await.unwrap();
    let _second = relay(&feed, &redis);
    settled(&log, &redis, 1).await;
    publish(&log, &feed, 10..11).await;
    settled(&log, &redis, 1).await;
    let mut messages = heard.on_message();
    let message = tokio::time::timeout(PATIENCE, futures_util::StreamExt::next(&mut messages));
    let message = message.await.expect("a message").expect("the connection stays");
    let event: serde_json::Value = serde_json::from_slice(message.get_payload_bytes()).unwrap();
    assert_eq!(event["data"]["seq"], newest + 1, "an old event was published again");
}
