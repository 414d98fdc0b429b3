//! The cases that matter, by name.

use super::*;

const NOW: Timestamp = Timestamp(100_000_000);

fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

fn revocation(tokens: Tokens, at: i64, until: Option<i64>) -> Revocation {
    let until = until.map(|second| Timestamp(second * 1_000_000));
    let at = Timestamp(at * 1_000_000);
    Revocation { id: RevocationId::new(), tokens, reason: None, by: "ada".into(), at, until }
}

/// A `jti` of the tests is a number, and its own hash.
fn of_token(jti: u64, until: Option<i64>) -> Revocation {
    revocation(Tokens::Jti(jti.to_string()), 50, until)
}

fn of_device(name: &str, at: i64, until: Option<i64>) -> Revocation {
    revocation(Tokens::Device(device(name)), at, until)
}

fn hash(jti: &str) -> u64 {
    jti.parse().unwrap()
}

fn proof(jti: u64, issued: u32) -> Proof {
    Proof { jti, issued }
}

#[test]
fn a_token_is_refused_by_its_id_until_it_has_expired_in_any_case() {
    let mut list = List::default();
    let (short, long) = (of_token(7, Some(101)), of_token(8, None));
    let changed = list.apply(vec![short.clone(), long.clone()], hash, NOW);
    assert_eq!(changed.whom, [Fresh::Token(7), Fresh::Token(8)]);
    assert_eq!((changed.fresh, changed.gone), (vec![short.clone(), long.clone()], vec![]));
    let refused = |list: &List, jti, now| list.refuses(&device("d"), proof(jti, 1_000), now);
    assert!(refused(&list, 7, NOW) && refused(&list, 8, NOW));
    assert!(!refused(&list, 9, NOW) && !refused(&list, 0, NOW), "another, or none");
    assert!(!refused(&list, 7, Timestamp(101_000_000)) && refused(&list, 8, Timestamp(i64::MAX)));
    assert_eq!(list.apply(vec![long.clone()], hash, NOW), Changed::default(), "it was there already");
    assert_eq!(list.sweep(NOW), Changed::default());
    assert_eq!(list.sweep(Timestamp(101_000_000)).gone, [short.id]);
    assert_eq!(list.tokens.len(), 1);
    // One that was over when it was heard of never holds.
    assert_eq!(list.apply(vec![of_token(5, Some(100))], hash, NOW), Changed::default());
}

#[test]
fn a_device_s_tokens_are_refused_that_were_issued_until_then() {
    let mut list = List::default();
    let first = of_device("d", 50, None);
    assert_eq!(list.apply(vec![first.clone()], hash, NOW).whom, [Fresh::Device(device("d"))]);
    let refused = |list: &List, name, issued| list.refuses(&device(name), proof(3, issued), NOW);
    assert!(refused(&list, "d", 0), "it does not say when");
    assert!(refused(&list, "d", 49) && refused(&list, "d", 50), "of the same second");
    assert!(!refused(&list, "d", 51), "a newer one");
    assert!(!refused(&list, "e", 49), "another device's");
    let again = of_device("d", 60, None);
    let changed = list.apply(vec![again.clone()], hash, NOW);
    assert_eq!((changed.fresh, changed.gone), (vec![again], vec![first.id]));
    assert!(refused(&list, "d", 60) && !refused(&list, "d", 61));
}

#[test]
fn another_list_says_what_is_new_and_what_is_gone() {
    let (stays, goes, anew) = (of_token(1, None), of_token(2, None), of_device("d", 60, None));
    let mut list = List::default();
    list.apply(vec![of_device("d", 50, None), stays.clone(), goes.clone()], hash, NOW);
    let (list, changed) = list.replaced_by(vec![anew.clone(), stays], hash, NOW);
    assert_eq!((changed.fresh, changed.whom), (vec![anew], vec![Fresh::Device(device("d"))]));
    assert!(changed.gone.len() == 2 && changed.gone.contains(&goes.id));
    assert!(!list.refuses(&device("e"), proof(2, 0), NOW) && list.refuses(&device("e"), proof(1, 0), NOW));
}
