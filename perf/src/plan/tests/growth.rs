//! More of anything never takes less.

use super::*;
use proptest::prelude::*;

/// A profile of any costs: none is negative, which is all that fits promise.
fn profiles() -> impl Strategy<Value = Profile> {
    let terms =
        proptest::collection::vec((0.0..500.0, 0.0..2.0, 0.0..1.0, 0.0..900.0, 0.0..300.0, 0.0..300.0), 4);
    // What several workers cost, by path and number, and ports by direction.
    let extras = proptest::collection::vec((0.0..200.0, 0.0..1.0, 0.0..0.5, 0.0..300.0), 12);
    let ports = proptest::collection::vec((0.0..9000.0, 0.0..2.0, 0.0..2.0), 2);
    (terms, 0.0..0.2f64, extras, ports).prop_map(|(terms, noise, extras, ports)| {
        let mut profile = host();
        for (path, (packet, short, long, chunk, few, many)) in profile.paths.iter_mut().zip(terms) {
            path.whole = certain(&[
                (Per::Packet, 10.0 + packet),
                (Per::ShortOctet, short),
                (Per::LongOctet, long),
                (Per::LongPacket, many),
                (Per::Chunk { octets: 4000 }, chunk),
                (Per::ManySas { from: 1, to: 100, open: false }, few),
                (Per::ManySas { from: 100, to: 10_000, open: true }, many),
                (Per::ManySasOctets { from: 100, to: 10_000, open: true }, few),
            ]);
            path.whole.noise = noise;
        }
        for (path, extras) in profile.paths.iter_mut().zip(extras.chunks(3)) {
            let several = [2, 4, 16].into_iter().zip(extras).map(|(workers, (packet, short, long, many))| {
                let mut extra = certain(&[
                    (Per::Packet, *packet),
                    (Per::ShortOctet, *short),
                    (Per::LongOctet, *long),
                    (Per::ManySas { from: 1, to: 500, open: true }, *many),
                ]);
                extra.noise = noise;
                WorkersCost { workers, extra }
            });
            path.workers = several.collect();
        }
        let of_port = |(direction, (packet, short, long))| {
            let terms = [(Per::Packet, packet), (Per::ShortOctet, short), (Per::LongOctet, long)];
            PortCost { kind: "veth".to_owned(), direction, extra: certain(&terms) }
        };
        profile.ports = [Way::Encap, Way::Decap].into_iter().zip(ports).map(of_port).collect();
        profile
    })
}

/// What is to be carried, in numbers that grow.
#[derive(Clone, Copy, Debug)]
struct Asked {
    kpps: u32,
    octets: u32,
    tunnels: u32,
    new_tunnels: u32,
    rekeys: u32,
    headroom: u32,
}

fn asked() -> impl Strategy<Value = Asked> {
    (1..5_000u32, 28..4000u32, 100..50_000u32, 0..2000u32, 1..1000u32, 0..100u32).prop_map(
        |(kpps, octets, tunnels, new_tunnels, rekeys, headroom)| Asked {
            kpps,
            octets,
            tunnels,
            new_tunnels,
            rekeys,
            headroom,
        },
    )
}

impl Asked {
    fn question(self, boxes: Option<u32>) -> Question {
        let values = [
            ("rate", format!("{}kpps", self.kpps)),
            ("sizes", self.octets.to_string()),
            ("tunnels", self.tunnels.to_string()),
            ("new-tunnels", self.new_tunnels.to_string()),
            ("rekey", format!("{}s", 100_000 / self.rekeys)),
            ("headroom", (1.0 + f64::from(self.headroom) / 100.0).to_string()),
            ("port-speed", "100Gbit/s".to_owned()),
        ];
        let limits = [
            ("cores", "32"),
            ("memory", "4GB"),
            ("memory-bandwidth", "50GB/s"),
            ("pcie", "3x16"),
            ("ports", "2"),
        ];
        let limits = limits.iter().filter(|_| boxes.is_none()).copied();
        let boxes = boxes.map(|n| ("boxes", n.to_string()));
        let values: Vec<(&str, String)> = values.into_iter().chain(boxes).collect();
        Question::new(values.iter().map(|(option, value)| (*option, value.as_str())).chain(limits)).unwrap()
    }

    /// The same with more of something.
    fn with_more(self, what: usize, more: u32) -> Asked {
        match what {
            0 => Asked { kpps: self.kpps + more, ..self },
            1 => Asked { octets: (self.octets + more).min(9000), ..self },
            2 => Asked { tunnels: self.tunnels + more, ..self },
            3 => Asked { new_tunnels: self.new_tunnels + more, ..self },
            4 => Asked { rekeys: self.rekeys + more, ..self },
            _ => Asked { headroom: self.headroom + more, ..self },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn more_never_takes_fewer_boxes(profile in profiles(), asked in asked(), what in 0..6usize, more in 1..3000u32) {
        let boxes = |asked: Asked| answer(&asked.question(None), &profile).map(|a| a.boxes);
        // That no number of boxes can do it is worst.
        match (boxes(asked), boxes(asked.with_more(what, more))) {
            // More tunnels may be spread more evenly over no more boxes.
            (Ok(few), Ok(many)) => prop_assert!(what == 2 || many >= few, "{few} and then {many}"),
            (Err(_), Ok(_)) => prop_assert_eq!(what, 2, "only more tunnels can be spread over more boxes"),
            _ => {}
        }
    }

    #[test]
    fn more_never_takes_fewer_cores_or_less_of_anything(
        profile in profiles(), asked in asked(), what in 0..6usize, more in 1..3000u32
    ) {
        let load = |asked: Asked| answer(&asked.question(Some(1)), &profile).unwrap().each_box;
        let (few, many) = (load(asked), load(asked.with_more(what, more)));
        prop_assert!(many.workers >= few.workers && many.other_cores >= few.other_cores, "{few:?} and then {many:?}");
        prop_assert!(few.fits || !many.fits);
        for (a, b) in few.resources.iter().zip(&many.resources) {
            // With one worker more, each has fewer SAs: the cores that are busy need not be more.
            if a.name != "worker cores" || few.workers == many.workers {
                prop_assert!(b.demand >= a.demand * (1.0 - 1e-9), "{}: {} and then {}", a.name, a.demand, b.demand);
            }
        }
    }

    #[test]
    fn what_is_full_at_a_rate_fits_below_it_and_not_above(profile in profiles(), asked in asked()) {
        let mut question = asked.question(None);
        question.headroom = super::super::question::Headroom::Factor(1.0);
        if let Ok(a) = answer(&question, &profile) {
            question.boxes = Some(a.boxes);
            let mut fits = |times: f64| {
                question.rate = super::super::question::Rate::Packets(a.full_at.packets_per_sec * times);
                answer(&question, &profile).unwrap().fits
            };
            prop_assert!(fits(0.999) && !fits(1.001));
        }
    }
}
