use super::*;
use crate::traffic_selector::tests::{Point, of_all, points, read, selectors};
use portcullis_sadb::Flow;
use proptest::{collection::vec, prelude::*};
use std::collections::HashSet;

fn policy(local: &str, remote: &str) -> Policy {
    Policy { local: read(local), remote: read(remote) }
}

/// What a responder accepts, as `TSi | TSr`, with a `+` where there is more.
fn narrowed(policies: &[(&str, &str)], tsi: &str, tsr: &str) -> Option<(usize, String)> {
    let policies: Vec<_> = policies.iter().map(|(local, remote)| policy(local, remote)).collect();
    let narrowed = narrow(&policies, &read(tsi), &read(tsr))?;
    let more = if narrowed.additional_possible { " +" } else { "" };
    let text = format!("{} | {}{more}", narrowed.accepted.remote, narrowed.accepted.local);
    // The initiator takes it.
    let offered = Policy { local: read(tsi), remote: read(tsr) };
    let (tsi, tsr) = (narrowed.accepted.remote.emit(), narrowed.accepted.local.emit());
    let accepted = Policy { local: narrowed.accepted.remote, remote: narrowed.accepted.local };
    assert_eq!(offered.accept(&tsi, &tsr), Some(accepted));
    Some((narrowed.policy, text))
}

fn some(policy: usize, text: &str) -> Option<(usize, String)> {
    Some((policy, text.to_owned()))
}

// RFC 7296 §2.9
#[test]
fn both_sides_have_what_is_in_both_policies() {
    let ours = [("10.2.0.0/16", "10.1.0.0/16")];
    // All of it, more than it, a part of it, something beside it, nothing.
    assert_eq!(narrowed(&ours, "10.1.0.0/16", "10.2.0.0/16"), some(0, "10.1.0.0/16 | 10.2.0.0/16"));
    assert_eq!(narrowed(&ours, "10.0.0.0/8", "0.0.0.0/0"), some(0, "10.1.0.0/16 | 10.2.0.0/16"));
    assert_eq!(
        narrowed(&ours, "10.1.5.0/24[tcp]", "10.2.0.0/16[tcp/80]"),
        some(0, "10.1.5.0/24[tcp] | 10.2.0.0/16[tcp/80]")
    );
    assert_eq!(
        narrowed(&ours, "10.0.255.0-10.1.0.9", "10.2.0.0/16"),
        some(0, "10.1.0.0-10.1.0.9 | 10.2.0.0/16")
    );
    assert_eq!(narrowed(&ours, "10.1.0.0/16", "10.3.0.0/16"), None);
    assert_eq!(narrowed(&ours, "10.3.0.0/16", "10.2.0.0/16"), None);
    assert_eq!(narrowed(&ours, "", "10.2.0.0/16"), None);
    assert_eq!(narrowed(&[], "10.1.0.0/16", "10.2.0.0/16"), None);
    // Not one way round and not the other.
    assert_eq!(narrowed(&ours, "10.2.0.0/16", "10.1.0.0/16"), None);
}

#[test]
fn the_policy_that_fits_best_is_taken() {
    let wide = ("0.0.0.0/0", "0.0.0.0/0");
    let net = ("10.2.0.0/16", "10.1.0.0/16");
    let part = ("10.2.7.0/24", "10.1.0.0/16");
    let asked = ("10.1.0.0/16", "10.2.0.0/16");
    // One that is for that and nothing else, wherever it stands.
    for (policies, best) in [([wide, net, part], 1), ([net, wide, part], 0), ([part, wide, net], 2)] {
        assert_eq!(narrowed(&policies, asked.0, asked.1).unwrap().0, best);
    }
    // One that has all of it, before one that has a part.
    assert_eq!(narrowed(&[part, wide], asked.0, asked.1).unwrap().0, 1);
    // And one that has the packet, before all.
    let (tsi, tsr) = ("10.1.0.1[tcp/1], 10.1.0.0/16", "10.2.7.1[tcp/2], 10.2.0.0/16");
    assert_eq!(narrowed(&[("10.2.8.0/24", "10.1.0.0/16"), part], tsi, tsr).unwrap().0, 1);
}

// RFC 7296 §2.9: the example of a gateway of 198.51.100.0/24 and one that has SAs for single hosts.
#[test]
fn the_packet_that_wants_an_sa_is_kept() {
    let host = ("192.0.2.0/24", "198.51.100.66");
    let whole = ("192.0.2.0/24", "198.51.100.0/24[tcp]");
    let (tsi, tsr) = ("198.51.100.66[tcp/1024], 198.51.100.0/24", "192.0.2.123[tcp/23], 192.0.2.0/24");
    assert_eq!(narrowed(&[host], tsi, tsr), some(0, "198.51.100.66/32 | 192.0.2.0/24"));
    // The first policy would do without it.
    let other = ("192.0.2.0/24", "198.51.100.67");
    assert_eq!(narrowed(&[other, host], tsi, tsr), some(1, "198.51.100.66/32 | 192.0.2.0/24 +"));
    assert_eq!(narrowed(&[other, whole], tsi, tsr), some(1, "198.51.100.0/24[tcp] | 192.0.2.0/24 +"));
    // None has it, so it is the first that has something.
    assert_eq!(narrowed(&[other], tsi, tsr), some(0, "198.51.100.67/32 | 192.0.2.0/24"));
}

// RFC 7296 §2.9
#[test]
fn what_more_is_possible_is_told() {
    let (one, two) = (("10.2.0.0/24", "10.1.0.0/16"), ("10.2.1.0/24", "10.1.0.0/16"));
    assert_eq!(narrowed(&[one, two], "10.1.0.0/16", "10.2.0.0/16"), some(0, "10.1.0.0/16 | 10.2.0.0/24 +"));
    assert_eq!(narrowed(&[one, two], "10.1.0.0/16", "10.2.1.0/24"), some(1, "10.1.0.0/16 | 10.2.1.0/24"));
    // The same once more, or less, is nothing more.
    assert_eq!(
        narrowed(&[one, one, ("10.2.0.7", "10.1.0.0/24[udp]")], "10.1.0.0/16", "10.2.0.0/16"),
        some(0, "10.1.0.0/16 | 10.2.0.0/24")
    );
    // More than there is room for.
    let hosts = |net: u8| (0..200).map(|n| format!("10.{net}.{}.0/24", n)).collect::<Vec<_>>().join(", ");
    let (tsi, split) = (hosts(1), "10.1.0.0/16[tcp], 10.1.0.0/16[udp]");
    let narrow = narrow(&[policy("10.2.0.0/16", split)], &read(&tsi), &read("10.2.0.0/16")).unwrap();
    assert_eq!((narrow.accepted.remote.iter().count(), narrow.additional_possible), (255, true));
}

// RFC 7296 §2.9, RFC 4301 §4.4.1.1
#[test]
fn sides_are_of_one_family_and_protocol() {
    let both = ("10.2.0.0/16, fd02::/64", "10.1.0.0/16, fd01::/64");
    assert_eq!(narrowed(&[both], both.1, both.0), some(0, "10.1.0.0/16, fd01::/64 | 10.2.0.0/16, fd02::/64"));
    assert_eq!(narrowed(&[both], "10.1.0.0/16", "fd02::/64"), None);
    assert_eq!(narrowed(&[both], "10.1.0.0/16, fd01::/64", "fd02::/64"), some(0, "fd01::/64 | fd02::/64"));
    assert_eq!(narrowed(&[both], "10.1.0.0/16[tcp]", "10.2.0.0/16[udp]"), None);
    let pairs = |local, remote| {
        let pairs = policy(local, remote);
        pairs.pairs().map(|(local, remote)| format!("{local} {remote}")).collect::<Vec<_>>()
    };
    assert_eq!(
        pairs("10.2.0.0/16, fd02::/64", "10.1.0.0/16, fd01::/64"),
        ["10.2.0.0/16 10.1.0.0/16", "fd02::/64 fd01::/64"]
    );
    assert_eq!(pairs("10.2.0.0/16", "10.1.0.0/16[tcp/80]"), ["10.2.0.0/16[tcp] 10.1.0.0/16[tcp/80]"]);
    assert_eq!(pairs("10.2.0.0/16[tcp]", "10.1.0.0/16[udp]").len(), 0);
}

// RFC 7296 §2.9
#[test]
fn an_answer_is_of_what_was_offered() {
    let ours = policy("10.1.0.0/24, 10.1.1.0/24", "10.2.0.0/16[tcp]");
    let flow =
        Flow { src: [10, 1, 0, 1].into(), dst: [10, 2, 0, 2].into(), protocol: 6, ports: Some((1024, 80)) };
    let offer = ours.offer(Some(TrafficSelector::of_flow(&flow)));
    assert_eq!(
        offer,
        policy("10.1.0.1[tcp/1024], 10.1.0.0/24, 10.1.1.0/24", "10.2.0.2[tcp/80], 10.2.0.0/16[tcp]")
    );
    assert_eq!(ours.offer(None), ours);
    let accept = |tsi, tsr| {
        let Policy { local, remote } = policy(tsi, tsr);
        offer.accept(&local.emit(), &remote.emit()).is_some()
    };
    // Two that are side by side may come back as one.
    for (tsi, tsr) in [
        ("10.1.0.0/23", "10.2.0.0/16[tcp]"),
        ("10.1.0.1[tcp/1024]", "10.2.0.2[tcp/80]"),
        ("10.1.0.255-10.1.1.0", "10.2.0.0/16[tcp/1-2], 10.2.5.0/24[tcp/opaque]"),
    ] {
        assert!(accept(tsi, tsr), "{tsi} {tsr}");
    }
    for (tsi, tsr) in [
        ("10.1.0.0/22", "10.2.0.0/16[tcp]"),
        ("10.1.0.0/24", "10.2.0.0/16"),
        ("10.1.0.0/24", "10.2.0.0/16[tcp], 10.3.0.0/32[tcp]"),
        ("10.1.0.0/24", ""),
        ("", "10.2.0.0/16[tcp]"),
        ("10.1.0.0/24[udp]", "10.2.0.0/16[tcp]"),
        ("fd00::/64", "10.2.0.0/16[tcp]"),
    ] {
        assert!(!accept(tsi, tsr), "{tsi} {tsr}");
    }
    let label =
        message::TrafficSelector::Unknown { kind: message::TsType::TS_SECLABEL, octet: 0, data: vec![1] };
    let remote = ours.remote.emit();
    assert_eq!(offer.accept(&[&ours.local.emit()[..], &[label]].concat(), &remote), None);
    // The packet's selectors are in others, if they come back beside them.
    let both = policy("10.1.0.1[tcp/1024], 10.1.0.0/24", "10.2.0.2[tcp/80], 10.2.0.0/16[tcp]");
    let accepted = offer.accept(&both.local.emit(), &both.remote.emit());
    assert_eq!(accepted, Some(policy("10.1.0.0/24", "10.2.0.0/16[tcp]")));
}

// RFC 7296 §2.9.2
#[test]
fn what_is_narrower_is_seen() {
    let old = policy("10.1.0.0/23", "10.2.0.0/16[tcp]");
    for (local, remote) in [
        ("10.1.0.0/23", "10.2.0.0/16[tcp]"),
        ("10.1.0.0/16", "10.2.0.0/16"),
        ("10.1.0.0/24, 10.1.1.0/24", "10.2.0.0/16[tcp]"),
        ("10.9.0.0/16, 10.1.0.0-10.1.1.7, 10.1.1.8-10.1.1.255", "10.2.0.0/16[tcp]"),
    ] {
        assert!(!policy(local, remote).is_narrower_than(&old), "{local} {remote}");
    }
    for (local, remote) in [
        ("10.1.0.0/24", "10.2.0.0/16[tcp]"),
        ("10.1.0.0/23", "10.2.0.0/16[udp]"),
        ("10.1.0.0/23", "10.2.0.0/16[tcp/80]"),
        ("10.1.0.0/24, 10.1.1.128/25", "10.2.0.0/16[tcp]"),
    ] {
        assert!(policy(local, remote).is_narrower_than(&old), "{local} {remote}");
    }
}

/// Packets by both of their sides.
fn traffic(policy: &Policy) -> HashSet<(Point, Point)> {
    let (local, remote) = (of_all(&policy.local), of_all(&policy.remote));
    let goes = |a: &Point, b: &Point| a.0.is_ipv4() == b.0.is_ipv4() && a.1 == b.1;
    local.iter().flat_map(|a| remote.iter().filter(move |b| goes(a, b)).map(|b| (*a, *b))).collect()
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    vec((selectors(), selectors()).prop_map(|(local, remote)| Policy { local, remote }), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Packets are accepted if they were asked for and one policy has them, which is one that has the first selectors if
    /// there is one, of those perhaps another than the first; and all other policies have no others, or it is told.
    #[test]
    fn narrowing_is_what_is_in_both(policies in policies(), tsi in selectors(), tsr in selectors()) {
        let asked = traffic(&Policy { local: tsr.clone(), remote: tsi.clone() });
        let both = |policy: &Policy| traffic(policy).intersection(&asked).copied().collect::<HashSet<_>>();
        let all: Vec<_> = policies.iter().map(both).collect();
        let first = |side: &TrafficSelectors| TrafficSelectors::new(side.iter().take(1).copied());
        let (first_local, first_remote) = (of_all(&first(&tsr)), of_all(&first(&tsi)));
        let has_first = |policy: &Policy| {
            of_all(&policy.local).is_superset(&first_local) && of_all(&policy.remote).is_superset(&first_remote)
        };
        let possible: Vec<_> = (0..policies.len()).filter(|at| !all[*at].is_empty()).collect();
        let Some(narrowed) = narrow(&policies, &tsi, &tsr) else {
            prop_assert!(possible.is_empty());
            return Ok(());
        };
        prop_assert!(possible.contains(&narrowed.policy));
        let is_one = possible.iter().any(|at| has_first(&policies[*at]));
        prop_assert_eq!(has_first(&policies[narrowed.policy]), is_one);
        let accepted = traffic(&narrowed.accepted);
        prop_assert_eq!(&accepted, &all[narrowed.policy]);
        if has_first(&policies[narrowed.policy]) {
            let firsts = traffic(&Policy { local: first(&tsr), remote: first(&tsi) });
            prop_assert!(accepted.is_superset(&firsts));
        }
        if all.iter().any(|other| !accepted.is_superset(other)) {
            prop_assert!(narrowed.additional_possible);
        }
        let offered = Policy { local: tsi, remote: tsr };
        prop_assert!(offered.accept(&narrowed.accepted.remote.emit(), &narrowed.accepted.local.emit()).is_some());
    }

    /// Pairs are the same traffic.
    #[test]
    fn pairs_are_all_traffic(local in selectors(), remote in selectors()) {
        let policy = Policy { local, remote };
        let one = |(local, remote)| Policy { local: TrafficSelectors::new([local]), remote: TrafficSelectors::new([remote]) };
        let pairs: HashSet<_> = policy.pairs().flat_map(|pair| traffic(&one(pair))).collect();
        prop_assert_eq!(pairs, traffic(&policy));
        prop_assert!(policy.pairs().all(|(local, remote)| local.protocol() == remote.protocol()));
    }

    #[test]
    fn only_what_was_offered_is_accepted(offered in policies(), answer in policies()) {
        let (Some(offered), Some(answer)) = (offered.first(), answer.first()) else { return Ok(()) };
        let is_in = |a: &TrafficSelectors, b: &TrafficSelectors| of_all(a).is_subset(&of_all(b));
        let expected = is_in(&answer.local, &offered.local) && is_in(&answer.remote, &offered.remote);
        let accepted = offered.accept(&answer.local.emit(), &answer.remote.emit());
        prop_assert_eq!(accepted.is_some(), expected && !traffic(answer).is_empty());
        prop_assert!(points().len() > 100);
    }
}
