//! EAP of both ends: of packets that the other has said, whole, changed or made up, neither comes to a key that the other
//! has not got, and none goes on for ever.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_ike::{
    eap::{Authenticator, Demand, Identity, Means, Method, Next, NtHash, Peer, Reply, Secrets},
    identity::IdPattern,
};
use rand_core::{TryCryptoRng, TryRng};
use std::{convert::Infallible, sync::Arc};

/// Randomness that is always the same.
struct Counter(u8);

impl TryRng for Counter {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0 = self.0.wrapping_add(1);
        Ok(self.0.into())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.try_next_u32().map(u64::from)
    }

    fn try_fill_bytes(&mut self, octets: &mut [u8]) -> Result<(), Infallible> {
        octets.iter_mut().try_for_each(|octet| {
            *octet = self.try_next_u32()? as u8;
            Ok(())
        })
    }
}

impl TryCryptoRng for Counter {}

/// What becomes of a packet on its way: an octet is changed, or it is another one.
type Change<'a> = (u8, u8, Option<&'a [u8]>);

fn changed(octets: &[u8], (at, bits, other): &Change<'_>) -> Vec<u8> {
    let mut octets = other.map_or_else(|| octets.to_vec(), <[u8]>::to_vec);
    let length = octets.len().max(1);
    if let Some(octet) = octets.get_mut(usize::from(*at) % length) {
        *octet ^= bits;
    }
    octets
}

fuzz_target!(|input: (bool, Vec<Change<'_>>)| {
    let (asks, changes) = input;
    let mut secrets = Secrets::default();
    assert!(secrets.add(&["carol".to_owned()], &NtHash::of("a password")));
    let secrets = Arc::new(secrets);
    let identity = if asks { Identity::Asked(IdPattern::Any) } else { Identity::OfIke };
    let demand = Demand { method: Method::MsChapV2, identity, tls: None };
    let means = Means { method: None, identity: None, authority: None, tls: None };
    let id = |text: &str| text.parse::<IdPattern>().unwrap();
    let user = id("carol").identity().unwrap();
    let mut server = Authenticator::new(&demand, &secrets, ("gw", &user), 0);
    let mut peer = Peer::new(&means, &secrets, ("carol", id("gw")), 0);
    let mut rng = Counter(0);
    let mut next = server.begin(&mut rng);
    let mut changes = changes.iter();
    let (mut knows, mut proven) = (false, None);
    for _ in 0..200 {
        let octets = match next {
            Next::Ask(octets) => {
                // Success of MSCHAPv2: it has found the password right, and proves that it knows it.
                knows |= octets.get(4..6) == Some(&[26, 3]);
                octets
            }
            Next::Success(octets, of) => {
                let user = of.who.rsplit('\\').next().map(str::to_ascii_lowercase);
                assert_eq!(user.as_deref(), Some("carol"), "behind any domain");
                proven = Some(of);
                octets
            }
            Next::Failure(octets, _) => octets,
        };
        let octets = changes.next().map_or_else(|| octets.clone(), |change| changed(&octets, change));
        match peer.handle(&octets, &mut rng) {
            Reply::Answer(answer) => {
                let answer = changes.next().map_or_else(|| answer.clone(), |change| changed(&answer, change));
                next = server.handle(&answer, &mut rng);
            }
            Reply::Success(of) => {
                // What has made it succeed may be made up, but not that the other knows the password, nor the key.
                assert!(proven.map_or(knows, |proven| proven.msk == of.msk));
                return;
            }
            Reply::Failure(_) => return,
        }
    }
    panic!("it has an end");
});
