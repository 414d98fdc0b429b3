//! Revocations and the order of their changes.

use std::collections::BTreeSet;
use std::slice::from_ref;

use super::actions::entry;
use super::*;
use crate::ids::RevocationId;
use crate::store::audit::Action;
use crate::store::revocations::{Revocation, Tokens};

fn of_token(jti: &str, until: Option<i64>) -> Revocation {
    revocation(Tokens::Jti(jti.to_owned()), until)
}

fn of_device(name: &str, until: Option<i64>) -> Revocation {
    revocation(Tokens::Device(device(name)), until)
}

fn revocation(tokens: Tokens, until: Option<i64>) -> Revocation {
    let (id, reason, by) = (RevocationId::new(), Some("stolen ☃".into()), "ada".to_owned());
    Revocation { id, tokens, reason, by, at: at(0), until: until.map(at) }
}

async fn revoke(store: &Store, revocation: &Revocation) -> i64 {
    let entry = entry(Action::Revoke, &revocation.tokens.to_string());
    store.revoke(revocation.clone(), entry).await.expect("revoked")
}

async fn listed(store: &Store, now: i64) -> Vec<Revocation> {
    let all = store.revoked(None, at(now), 100).await.expect("revocations");
    assert_eq!(store.revoked_total(at(now)).await.expect("a number"), all.len() as u64);
    all
}

pub fn revocations_are_kept_until_they_are_over<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        // A device and a token may have the same name.
        let (token, short, of_it) =
            (of_token("a", None), of_token("é \"b\"", Some(60)), of_device("a", None));
        for revocation in [&token, &short, &of_it] {
            revoke(&store, revocation).await;
        }
        assert_eq!(listed(&store, 59).await, [of_it.clone(), short.clone(), token.clone()], "newest first");
        assert_eq!(store.revoked(Some(of_it.id), at(1), 1).await.unwrap(), from_ref(&short), "the next page");
        assert_eq!(listed(&store, 60).await, [of_it.clone(), token.clone()]);
        // One given anew takes the place of the one before.
        let anew = Revocation { reason: None, by: "zoe".into(), at: at(5), ..of_device("a", Some(70)) };
        revoke(&store, &anew).await;
        assert_eq!(listed(&store, 1).await, [anew.clone(), short, token.clone()]);
        let audit = store.audit(None, 100).await.expect("the audit");
        assert!(audit.len() == 4 && audit.iter().all(|entry| entry.action == Action::Revoke), "{audit:?}");
        store.close().await;
    });
    block_on(async {
        let store = bench.open();
        assert_eq!(listed(&store, 1).await.len(), 3, "they are kept");
        assert_eq!(store.forget_revocations(at(60), 100).await.unwrap(), 0, "it is forgotten too soon");
        assert_eq!(store.forget_revocations(at(61), 100).await.unwrap(), 1);
        assert_eq!(store.forget_revocations(at(1_000), 100).await.unwrap(), 1);
        assert_eq!(store.revocations(0, 100).await.unwrap().changes.len(), 1, "for good is for good");
        store.close().await;
    });
}

pub fn changes_of_revocations_are_numbered<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        assert_eq!(store.revocations(0, 100).await.unwrap(), Default::default());
        let (a, b) = (of_token("a", None), of_device("b", Some(60)));
        let (first, second) = (revoke(&store, &a).await, revoke(&store, &b).await);
        assert!(0 < first && first < second);
        let told = store.revocations(0, 100).await.unwrap();
        let expected = [(first, a.clone()), (second, b)];
        assert_eq!((&told.changes[..], told.newest), (&expected[..], second));
        assert_eq!(store.revocations(0, 1).await.unwrap().changes, expected[..1]);
        assert_eq!(store.revocations(first, 100).await.unwrap().changes, expected[1..]);
        assert_eq!(store.revocations(second, 100).await.unwrap().changes, []);
        assert_eq!(store.forget_revocations(at(61), 100).await.unwrap(), 1);
        // A number is not used again, although the row that had it is gone.
        let third = revoke(&store, &of_token("a", None)).await;
        assert!(third > second);
        assert_eq!(store.revocations(second, 100).await.unwrap().changes.len(), 1);
        store.close().await;
    });
}

pub fn revocations_at_once_are_all_told<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        let names: BTreeSet<String> = (0..40).map(|n| format!("token t{n:02}")).collect();
        let revocations = futures_util::future::join_all((0..40).map(|n| {
            let store = store.clone();
            async move { revoke(&store, &of_token(&format!("t{n:02}"), None)).await }
        }));
        let follow = async {
            let (mut rev, mut told) = (0, BTreeSet::new());
            while told.len() < names.len() {
                for (next, revocation) in store.revocations(rev, 7).await.expect("changes").changes {
                    assert!(next > rev, "out of order");
                    rev = next;
                    told.insert(revocation.tokens.to_string());
                }
            }
            told
        };
        let (revs, told) = futures_util::future::join(revocations, follow).await;
        assert_eq!(told, names);
        assert_eq!(revs.iter().collect::<BTreeSet<_>>().len(), names.len(), "a number was used twice");
        store.close().await;
    });
}
