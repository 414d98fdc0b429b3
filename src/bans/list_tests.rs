//! The list against a plain one, and the cases that matter by name.

use proptest::prelude::*;

use super::*;
use crate::store::bans::network;

fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

fn ban(target: Target, until: Option<i64>) -> Ban {
    let until = until.map(Timestamp);
    Ban { id: BanId::new(), target, reason: None, by: "ada".into(), at: Timestamp(0), until }
}

fn of_device(name: &str, until: Option<i64>) -> Ban {
    ban(Target::Device(device(name)), until)
}

fn of_network(net: &str, until: Option<i64>) -> Ban {
    ban(Target::Network(network(net).unwrap()), until)
}

fn change(ban: &Ban, lifted: bool) -> BanChange {
    BanChange { rev: 1, ban: ban.clone(), lifted }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const NOW: Timestamp = Timestamp(100);

#[test]
fn a_ban_holds_until_it_is_over_or_lifted() {
    let mut list = List::default();
    let (short, long) = (of_device("short", Some(101)), of_device("long", None));
    let changed = list.apply(vec![change(&short, false), change(&long, false)], NOW);
    assert_eq!((changed.fresh.len(), changed.gone.len()), (2, 0));
    assert_eq!(list.device(&device("short"), NOW), Some(Banned::Device { until: Some(Timestamp(101)) }));
    assert_eq!(list.device(&device("short"), Timestamp(101)), None, "it is over");
    assert_eq!(list.device(&device("Short"), NOW), None, "names are told apart by case");
    assert_eq!(list.device(&device("long"), Timestamp(i64::MAX)), Some(Banned::Device { until: None }));
    assert_eq!(list.apply(vec![change(&long, false)], NOW).fresh, [], "it was there already");

    let lifted = list.apply(vec![change(&long, true)], NOW);
    assert_eq!(lifted.gone, [long.target]);
    assert_eq!(list.device(&device("long"), NOW), None);
    let over = list.over(Timestamp(101));
    assert_eq!(over, std::slice::from_ref(&short.target));
    list.remove(&over);
    assert!(list.devices.is_empty());
    // One that was over when it was heard of never holds.
    assert_eq!(list.apply(vec![change(&of_device("late", Some(100)), false)], NOW).fresh, []);
}

#[test]
fn a_network_holds_for_all_of_it_in_either_family() {
    let mut list = List::default();
    let nets = [
        of_network("10.0.0.0/8", None),
        of_network("10.1.0.0/16", Some(100)),
        of_network("2001:db8::/32", None),
    ];
    list.apply(nets.iter().map(|ban| change(ban, false)).collect(), Timestamp(0));
    for banned in ["10.255.0.1", "10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"] {
        assert!(list.address(ip(banned), NOW).is_some(), "{banned}");
    }
    for free in ["11.0.0.1", "2001:db9::1", "::10.0.0.1", "::1"] {
        assert!(list.address(ip(free), NOW).is_none(), "{free}");
    }
    // The narrower of two does not hide the wider when it is over, nor is it hidden.
    assert_eq!(list.address(ip("10.1.2.3"), NOW), Some(Banned::Address { until: None }));
    list.apply(vec![change(&nets[0], true)], NOW);
    assert_eq!(
        list.address(ip("10.1.2.3"), Timestamp(99)),
        Some(Banned::Address { until: Some(Timestamp(100)) })
    );
    assert_eq!(list.address(ip("10.2.0.1"), Timestamp(99)), None);
}

#[test]
fn what_holds_longer_is_known_to() {
    let mut list = List::default();
    let (short, long) = (of_device("short", Some(200)), of_device("long", None));
    list.apply(vec![change(&short, false), change(&long, false)], NOW);
    let outlasts = |name, until| list.outlasts(&of_device(name, until));
    assert!(outlasts("short", Some(199)) && outlasts("short", Some(200)) && !outlasts("short", Some(201)));
    assert!(!outlasts("short", None) && outlasts("long", None) && outlasts("long", Some(9_999)));
    assert!(!outlasts("else", Some(101)));
}

#[test]
fn another_list_says_what_is_new_and_what_is_gone() {
    let (stays, goes, over) =
        (of_device("stays", None), of_network("10.0.0.0/8", None), of_device("over", Some(101)));
    let mut list = List::default();
    list.apply([&stays, &goes, &over].map(|ban| change(ban, false)).into(), NOW);
    let anew = Ban { id: BanId::new(), ..over.clone() };
    let anew = Ban { until: None, ..anew };
    let (list, changed) = list.replaced_by(vec![stays.clone(), anew.clone()], NOW);
    assert_eq!(changed, Changed { fresh: vec![anew], gone: vec![goes.target] });
    assert!(
        list.device(&device("stays"), NOW).is_some()
            && list.device(&device("over"), Timestamp(200)).is_some()
    );
}

proptest! {
    /// Whatever is banned and lifted: who is refused is who a plain list of networks refuses.
    #[test]
    fn the_tree_knows_what_a_plain_list_knows(
        steps in prop::collection::vec((any::<u32>(), 0u8..=32, any::<bool>(), prop::option::of(50i64..150)), 1..60),
        asked in prop::collection::vec(any::<u32>(), 20),
    ) {
        let (mut list, mut plain) = (List::default(), HashMap::<IpNet, Option<i64>>::new());
        for (bits, length, lifted, until) in steps {
            // Few bits differ, so that networks lie within each other.
            let net = network(&format!("{}/{length}", std::net::Ipv4Addr::from(bits & 0xC000_0003))).unwrap();
            list.apply(vec![change(&ban(Target::Network(net), until), lifted)], Timestamp(0));
            match lifted {
                true => _ = plain.remove(&net),
                false => _ = plain.insert(net, until),
            }
        }
        for bits in asked {
            let from = IpAddr::from(std::net::Ipv4Addr::from(bits & 0xC000_0003));
            let refused = plain.iter().any(|(net, until)| net.contains(&from) && until.is_none_or(|u| u > NOW.0));
            prop_assert_eq!(list.address(from, NOW).is_some(), refused, "{}", from);
        }
    }
}
