//! Two engines of IKEv2 or of IKEv1, asked for anything at any time, over a network that loses, repeats, mixes up and changes what it
//! carries: neither panics, what they have has an end, and nothing of a child SA stays behind its IKE SA.
#![no_main]

mod ike_end;

use arbitrary::Arbitrary;
use ike_end::{End, Rng};
use libfuzzer_sys::fuzz_target;
use portcullis_ike::{connection::Ikev1, v2::output::Datagram};

/// What they speak.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Spoken {
    V2,
    V1 { is_aggressive: bool },
}

impl Spoken {
    fn ikev1(self) -> Option<Ikev1> {
        match self {
            Spoken::V2 => None,
            Spoken::V1 { is_aggressive } => Some(Ikev1 { is_aggressive, ..Ikev1::default() }),
        }
    }
}

#[derive(Debug, Arbitrary)]
enum Step {
    /// A message arrives, and is there still or not.
    Deliver(u8, bool),
    Lose(u8),
    /// It arrives changed.
    Change(u8, u16, u8),
    Done(u8),
    Wait(u16),
    Begin(bool),
    Child(bool),
    Rekey(bool, u8),
    RekeyChild(bool, u8),
    Delete(bool, u8),
    DeleteChild(bool, u8),
}

/// What is on its way, at most.
const MOST: usize = 64;

struct World {
    ends: [End; 2],
    network: Vec<(usize, Datagram)>,
    now_ms: u64,
    rng: Rng,
}

impl World {
    fn with(&mut self, at: usize, does: impl FnOnce(&mut End, &mut Rng, u64)) {
        does(&mut self.ends[at], &mut self.rng, self.now_ms);
        for Datagram { local, peer, octets, .. } in self.ends[at].sent.drain(..) {
            if self.network.len() < MOST {
                self.network.push((1 - at, Datagram { local: peer, peer: local, octets, dscp: 0 }));
            }
        }
    }

    fn take(&mut self, step: Step) {
        let pick = |n: u8, of: usize| usize::from(n) % of.max(1);
        let end = |left: bool| usize::from(!left);
        match step {
            Step::Deliver(n, stays) => {
                let n = pick(n, self.network.len());
                let Some((at, datagram)) = self.network.get(n).cloned() else { return };
                if !stays {
                    self.network.remove(n);
                }
                self.with(at, |end, rng, now| end.receive(&datagram, rng, now));
            }
            Step::Lose(n) if !self.network.is_empty() => {
                self.network.remove(pick(n, self.network.len()));
            }
            Step::Change(n, at, bits) => {
                let n = pick(n, self.network.len());
                let Some((to, mut datagram)) = self.network.get(n).cloned() else { return };
                let len = datagram.octets.len();
                datagram.octets[usize::from(at) % len] ^= bits;
                self.with(to, |end, rng, now| end.receive(&datagram, rng, now));
            }
            Step::Done(n) => {
                let at = usize::from(n) % 2;
                self.with(at, |end, rng, now| end.job_done(usize::from(n) / 2, rng, now));
            }
            Step::Wait(ms) => {
                self.now_ms += u64::from(ms) * 4;
                for at in [0, 1] {
                    self.with(at, End::tick);
                }
            }
            Step::Begin(left) => self.with(end(left), |end, rng, now| end.begin(rng, now)),
            Step::Child(left) => self.with(end(left), |end, rng, now| end.child(rng, now)),
            Step::Rekey(left, n) => self.with(end(left), |end, rng, now| end.rekey(n, rng, now)),
            Step::RekeyChild(left, n) => self.with(end(left), |end, rng, now| end.rekey_child(n, rng, now)),
            Step::Delete(left, n) => self.with(end(left), |end, rng, now| end.delete(n, rng, now)),
            Step::DeleteChild(left, n) => self.with(end(left), |end, rng, now| end.delete_child(n, rng, now)),
            Step::Lose(_) => {}
        }
    }
}

fuzz_target!(|input: (bool, Spoken, Vec<Step>)| {
    let (is_up, spoken, steps) = input;
    let mut rng = Rng(7);
    let ends = [0, 1].map(|at| End::new(at, spoken.ikev1(), &mut rng));
    let mut world = World { ends, network: vec![], now_ms: 0, rng };
    if is_up {
        world.take(Step::Begin(true));
        for n in 0..16 {
            world.take(Step::Done(n));
            world.take(Step::Deliver(0, false));
        }
    }
    for step in steps {
        world.take(step);
        world.ends.iter().for_each(End::check);
    }
});
