use super::*;
use proptest::{collection::vec, prelude::*};

fn pool(name: &str, first: &str, last: &str) -> Arc<Pool> {
    let [first, last] = [first, last].map(|text| text.parse().unwrap());
    Arc::new(Pool { name: name.into(), first, last, attributes: vec![] })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const ANY: &str = "0.0.0.0";

fn give(leases: &mut Leases, pools: &[Arc<Pool>], asked: &str, who: &str, holder: u64) -> Option<Lease> {
    leases.give(pools, ip(asked), Applicant { who, holder, before: &[], beside: &[] })
}

#[test]
fn who_had_an_address_gets_it_again() {
    let pools = [pool("p", "10.3.0.1", "10.3.0.3")];
    let mut leases = Leases::default();
    let has = |leases: &mut Leases, asked, who, holder| {
        give(leases, &pools, asked, who, holder).map(|lease| lease.address.to_string())
    };
    let shown = |text: &str| Some(text.to_owned());
    assert_eq!(has(&mut leases, ANY, "a", 1), shown("10.3.0.1"));
    assert_eq!(has(&mut leases, ANY, "b", 2), shown("10.3.0.2"));
    assert_eq!(has(&mut leases, ANY, "b", 3), shown("10.3.0.3"));
    assert_eq!(has(&mut leases, ANY, "c", 4), None);
    let lease = |n: u8| Lease { pool: pools[0].clone(), address: [10, 3, 0, n].into() };
    // By another than who has it, nothing is given back.
    leases.take_back(&lease(2), 3);
    assert_eq!(leases.counts("p"), (3, 0));
    leases.take_back(&lease(2), 2);
    leases.take_back(&lease(3), 3);
    leases.take_back(&lease(1), 1);
    assert_eq!(leases.counts("p"), (0, 3));
    assert_eq!(has(&mut leases, ANY, "a", 5), shown("10.3.0.1"));
    assert_eq!(has(&mut leases, "10.3.0.2", "b", 6), shown("10.3.0.2"));
    let told = leases.told("p");
    let all = [(ip("10.3.0.1"), "a", true), (ip("10.3.0.2"), "b", true), (ip("10.3.0.3"), "b", false)];
    assert_eq!(told, all);
    // Somebody new gets the one that is free for the longest.
    assert_eq!(has(&mut leases, "10.3.0.1", "c", 7), shown("10.3.0.3"));
}

#[test]
fn an_address_that_nobody_had_is_given_where_it_is_asked_for() {
    let pools = [pool("v4", "10.3.0.1", "10.3.0.9"), pool("v6", "fd00::1", "fd00::ffff:ffff:ffff:ffff")];
    let mut leases = Leases::default();
    let mut has = |asked| give(&mut leases, &pools, asked, asked, 1).map(|lease| lease.address.to_string());
    assert_eq!(has("10.3.0.2").as_deref(), Some("10.3.0.2"));
    assert_eq!(has(ANY).as_deref(), Some("10.3.0.1"));
    assert_eq!(has("10.4.0.1").as_deref(), Some("10.3.0.3"), "one of the pool, and not the second again");
    assert_eq!(has("fd00::abcd").as_deref(), Some("fd00::abcd"));
    assert_eq!(has("::").as_deref(), Some("fd00::1"));
}

#[test]
fn who_ends_for_another_leaves_it_the_address() {
    let pools = [pool("p", "10.3.0.1", "10.3.0.2")];
    let mut leases = Leases::default();
    let first = give(&mut leases, &pools, ANY, "a", 1).unwrap();
    let to = Applicant { who: "a", holder: 2, before: &[1], beside: &[] };
    assert_eq!(leases.give(&pools, ip(ANY), to), Some(first.clone()));
    leases.take_back(&first, 1);
    assert_eq!(leases.counts("p"), (1, 0), "it is another's by now");
    leases.pass_on(&first, 2, 3);
    leases.take_back(&first, 2);
    assert_eq!(leases.counts("p"), (1, 0));
    // Not to who has proven to be another.
    let to = Applicant { who: "b", holder: 4, before: &[3], beside: &[] };
    assert_eq!(leases.give(&pools, ip(ANY), to).unwrap().address, ip("10.3.0.2"));
}

/// Who authenticates anew has its address under both, and asks for it. It is nobody else's before both have given it back.
#[test]
fn an_address_is_shared_by_who_asks_for_it() {
    let pools = [pool("p", "10.3.0.1", "10.3.0.9")];
    let mut leases = Leases::default();
    let first = give(&mut leases, &pools, ANY, "a", 1).unwrap();
    let of = |leases: &mut Leases, who, holder, asked| {
        let to = Applicant { who, holder, before: &[], beside: &[1, 2] };
        leases.give(&pools, ip(asked), to).unwrap().address.to_string()
    };
    assert_eq!(of(&mut leases, "a", 2, "10.3.0.1"), "10.3.0.1");
    assert_eq!(of(&mut leases, "a", 3, ANY), "10.3.0.2", "that one is not asked for");
    assert_eq!(of(&mut leases, "b", 4, "10.3.0.1"), "10.3.0.3", "it is another's");
    // Whichever goes first; the second has gone on under another number.
    leases.pass_on(&first, 2, 5);
    for (gone, then) in [(5, 1), (1, 5)] {
        let mut leases = Leases::default();
        leases.hold_again(&first, "a", 1);
        leases.hold_again(&first, "a", 5);
        leases.take_back(&first, gone);
        assert_eq!(leases.counts("p"), (1, 0));
        leases.take_back(&first, then);
        assert_eq!(leases.counts("p"), (0, 1));
    }
    leases.take_back(&first, 1);
    assert_eq!(leases.counts("p"), (3, 0));
    leases.take_back(&first, 5);
    assert_eq!(leases.counts("p"), (2, 1));
}

#[test]
fn a_pool_with_other_addresses_is_another() {
    let mut leases = Leases::default();
    give(&mut leases, &[pool("p", "10.3.0.1", "10.3.0.2")], ANY, "a", 1).unwrap();
    let now = [pool("p", "10.4.0.1", "10.4.0.2")];
    assert_eq!(give(&mut leases, &now, ANY, "a", 1).unwrap().address, ip("10.4.0.1"));
}

/// What is remembered has an end, however many addresses there are.
#[test]
fn a_great_pool_takes_no_more_memory() {
    let pools = [pool("p", "fd00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")];
    let mut leases = Leases::default();
    for n in 0..2 * MOST_REMEMBERED as u64 {
        let lease = give(&mut leases, &pools, "::", &n.to_string(), n).unwrap();
        leases.take_back(&lease, n);
    }
    assert_eq!(leases.counts("p"), (0, MOST_REMEMBERED));
}

proptest! {
    /// Against a model that is a map: nobody has another's address, and one is refused only where all are given.
    #[test]
    fn nobody_has_an_address_of_another(operations in vec((any::<bool>(), 0..6u8, 0..6u8), 0..200)) {
        let pools = [pool("a", "10.3.0.1", "10.3.0.3"), pool("b", "10.4.0.0", "10.4.0.0")];
        let mut leases = Leases::default();
        let mut model: BTreeMap<IpAddr, (u64, Lease)> = BTreeMap::new();
        for (number, (gives, who, asked)) in operations.into_iter().enumerate() {
            let number = number as u64;
            if gives {
                let asked: IpAddr = [10, 3, 0, asked].into();
                let to = Applicant { who: &who.to_string(), holder: number, before: &[], beside: &[] };
                match leases.give(&pools, asked, to) {
                    Some(lease) => prop_assert!(model.insert(lease.address, (number, lease)).is_none()),
                    None => prop_assert_eq!(model.len(), 4),
                }
            } else if let Some(address) = model.keys().nth(usize::from(who)).copied() {
                let (holder, lease) = model.remove(&address).unwrap();
                leases.take_back(&lease, holder);
            }
            let told = ["a", "b"].map(|name| leases.counts(name).0);
            prop_assert_eq!(told[0] + told[1], model.len());
        }
    }
}
