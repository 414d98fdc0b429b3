//! Bans, the order of their changes, and the audit.

use std::collections::BTreeSet;
use std::slice::from_ref;

use super::*;
use crate::ids::{AuditId, BanId};
use crate::store::audit::{Action, Entry, Signature};
use crate::store::bans::{Ban, BanChange, Target, WhichBan, network};

pub(in crate::store) fn of_device(name: &str, until: Option<i64>) -> Ban {
    let (target, by) = (Target::Device(device(name)), "ada".to_owned());
    Ban { id: BanId::new(), target, reason: Some("loud ☃".into()), by, at: at(0), until: until.map(at) }
}

fn of_network(net: &str) -> Ban {
    Ban { target: Target::Network(network(net).expect("a network")), reason: None, ..of_device("x", None) }
}

pub(in crate::store) fn entry(action: Action, target: &str) -> Entry {
    let remote_addr = Some("2001:db8::7".parse().expect("an address"));
    Signature { actor: "ada".into(), remote_addr, node: node() }.entry(action, target, Some("why".into()))
}

async fn ban(store: &Store, ban: &Ban) -> i64 {
    store.ban(ban.clone(), entry(Action::Ban, &ban.target.to_string())).await.expect("banned")
}

async fn lift(store: &Store, which: WhichBan, now: i64) -> Option<i64> {
    store.lift_ban(which, at(now), entry(Action::Lift, "x")).await.expect("lifted or not")
}

async fn listed(store: &Store, now: i64) -> Vec<Ban> {
    let bans = store.bans(None, at(now), 100).await.expect("bans");
    assert_eq!(store.bans_total(at(now)).await.expect("a number"), bans.len() as u64);
    bans
}

async fn actions(store: &Store) -> Vec<Action> {
    let entries = store.audit(None, 100).await.expect("the audit");
    assert_eq!(store.audit_total().await.expect("a number"), entries.len() as u64);
    entries.iter().map(|entry| entry.action).collect()
}

pub fn bans_come_and_go<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        let (a, net) = (of_device("a", None), of_network("10.0.0.0/8"));
        ban(&store, &a).await;
        ban(&store, &net).await;
        assert_eq!(listed(&store, 1).await, [net.clone(), a.clone()], "the newest first");
        assert_eq!(store.bans(Some(net.id), at(1), 100).await.unwrap(), from_ref(&a), "the next page");
        assert_eq!(store.bans(None, at(1), 1).await.unwrap(), from_ref(&net));
        assert_eq!(store.ban_by_id(net.id, at(1)).await.unwrap(), Some(net.clone()));
        assert_eq!(store.ban_by_id(BanId::new(), at(1)).await.unwrap(), None);

        // One given anew takes the place of the one before.
        let anew = Ban { reason: None, by: "zoe".into(), ..of_device("a", Some(60)) };
        ban(&store, &anew).await;
        assert_eq!(listed(&store, 1).await, [anew.clone(), net.clone()]);
        assert_eq!(store.ban_by_id(a.id, at(1)).await.unwrap(), None);
        assert_eq!(lift(&store, WhichBan::Id(a.id), 1).await, None, "it is another ban");

        assert!(lift(&store, WhichBan::Device(device("a")), 1).await.is_some());
        assert_eq!(lift(&store, WhichBan::Device(device("a")), 1).await, None, "it is lifted");
        assert_eq!(lift(&store, WhichBan::Device(device("b")), 1).await, None);
        assert!(lift(&store, WhichBan::Id(net.id), 1).await.is_some());
        assert_eq!(listed(&store, 1).await, []);
        assert_eq!(
            actions(&store).await,
            [Action::Lift, Action::Lift, Action::Ban, Action::Ban, Action::Ban],
            "what came to nothing is noted, or what was done is not"
        );
        ban(&store, &of_device("a", None)).await;
        store.close().await;
    });
    block_on(async {
        let store = bench.open();
        assert_eq!(listed(&store, 1).await.len(), 1, "bans are kept, also of who was banned before");
        store.close().await;
    });
}

pub fn a_ban_ends_by_itself<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        let short = of_device("short", Some(60));
        ban(&store, &short).await;
        assert_eq!(listed(&store, 59).await, from_ref(&short));
        assert_eq!(listed(&store, 60).await, []);
        assert_eq!(store.ban_by_id(short.id, at(60)).await.unwrap(), None);
        assert_eq!(lift(&store, WhichBan::Device(device("short")), 60).await, None);
        assert_eq!(store.forget_bans(at(60), 100).await.unwrap(), 0, "it is forgotten too soon");
        assert_eq!(store.forget_bans(at(61), 100).await.unwrap(), 1);
        assert_eq!(store.ban_changes(0, 100).await.unwrap().changes, []);
        store.close().await;
    });
}

pub fn changes_of_bans_are_numbered<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        assert_eq!(store.ban_changes(0, 100).await.unwrap(), Default::default());
        let (a, b) = (of_device("a", None), of_network("2001:db8::/32"));
        let first = ban(&store, &a).await;
        let second = ban(&store, &b).await;
        assert!(0 < first && first < second);
        let changes = store.ban_changes(0, 100).await.unwrap();
        let expected = [(first, &a), (second, &b)];
        let expected = expected.map(|(rev, ban)| BanChange { rev, ban: ban.clone(), lifted: false });
        assert_eq!((&changes.changes[..], changes.newest), (&expected[..], second));
        assert_eq!(store.ban_changes(0, 1).await.unwrap().changes, expected[..1]);
        assert_eq!(store.ban_changes(first, 100).await.unwrap().changes, expected[1..]);
        assert_eq!(store.ban_changes(second, 100).await.unwrap().changes, []);

        let lifted = lift(&store, WhichBan::Device(device("a")), 5).await.expect("it was banned");
        let told = store.ban_changes(second, 100).await.unwrap();
        assert_eq!(told.changes, [BanChange { rev: lifted, ban: a.clone(), lifted: true }]);
        assert_eq!(store.forget_bans(at(5), 100).await.unwrap(), 0, "it is forgotten too soon");
        assert_eq!(store.forget_bans(at(6), 100).await.unwrap(), 1);
        assert_eq!(store.ban_changes(second, 100).await.unwrap().changes, []);
        // A number is not used again, although the row that had it is gone.
        assert!(ban(&store, &a).await > lifted);
        store.close().await;
    });
}

pub fn bans_at_once_are_all_told<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        let names: BTreeSet<String> = (0..40).map(|n| format!("d{n:02}")).collect();
        let bans = futures_util::future::join_all(names.iter().map(|name| {
            let store = store.clone();
            async move { ban(&store, &of_device(name, None)).await }
        }));
        let follow = async {
            let (mut rev, mut told) = (0, BTreeSet::new());
            while told.len() < names.len() {
                for change in store.ban_changes(rev, 7).await.expect("changes").changes {
                    assert!(change.rev > rev, "out of order");
                    rev = change.rev;
                    told.insert(change.ban.target.to_string());
                }
            }
            told
        };
        let (revs, told) = futures_util::future::join(bans, follow).await;
        assert_eq!(told, names);
        assert_eq!(revs.iter().collect::<BTreeSet<_>>().len(), names.len(), "a number was used twice");
        store.close().await;
    });
}

pub fn the_audit_is_paged_and_forgotten<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        let target = |n: i64| format!("target-{n}");
        let of_action = |n: i64| Entry { at: at(n), ..entry(Action::ALL[n as usize], &target(n)) };
        let mut entries: Vec<Entry> = (0..5).map(of_action).collect();
        let bare = Entry { at: at(5), remote_addr: None, detail: None, ..entry(Action::UserAdd, "zoe") };
        entries.push(bare);
        for entry in &entries {
            store.note(entry.clone()).await.unwrap();
            store.note(entry.clone()).await.unwrap();
        }
        assert_eq!(store.audit_total().await.unwrap(), 6, "an entry is there twice");
        let (mut read, mut before) = (Vec::new(), None::<AuditId>);
        loop {
            let page = store.audit(before, 4).await.unwrap();
            let Some(last) = page.last() else { break };
            before = Some(last.id);
            read.extend(page);
        }
        let newest_first: Vec<Entry> = entries.into_iter().rev().collect();
        assert_eq!(read, newest_first);
        assert_eq!(store.forget_audit(at(3), 2).await.unwrap(), 2);
        assert_eq!(store.forget_audit(at(3), 100).await.unwrap(), 1);
        assert_eq!(store.audit(None, 100).await.unwrap(), newest_first[..3]);
        store.close().await;
    });
}
