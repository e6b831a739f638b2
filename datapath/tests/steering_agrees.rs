//! The XDP program's decision and the datapath's classifier say the same of a frame.
//!
//! Each sees what the other does not: steering has the tables, and remembers first fragments; the
//! classifier has all bytes, so that it alone finds that a packet is bad.

#[path = "../../ebpf/tests/frames/mod.rs"]
mod frames;

use frames::generate::{self, Rng};
use frames::tables::{ESP_PORTS, tables};
use portcullis_datapath::classify::{Class, classify};
use portcullis_datapath::wire::{self, Ip, Place, UdpPorts, protocol};
use portcullis_ebpf::Reason::{self, *};
use portcullis_ebpf::{Decision, steer, worker_of_spi};

const WORKERS: u32 = 4;
const FRAMES: u64 = 200_000;

fn agree(frame: &[u8], Decision { worker, reason }: Decision, class: Class) -> bool {
    let owns = |spi| worker == worker_of_spi(spi, WORKERS);
    match (reason, class) {
        (Esp, Class::Esp { spi, udp: false, .. }) => owns(spi),
        (EspInUdp, Class::Esp { spi, udp: true, .. }) => owns(spi),
        (Ah, Class::Ah { spi }) => owns(spi),
        (Fragment, Class::Fragment) => true,
        (TooBig, Class::TooBig { spi }) => owns(spi),
        // To a host; the classifier does not know whose it is.
        (ClearTo | ClearFrom | Unprotected, Class::TooBig { .. }) => true,
        // Only who saw the first fragment knows what is in a later one.
        (Fragment, Class::Clear { .. }) => parsed(frame).is_some_and(|(ip, _)| ip.place == Place::Later),
        (ClearTo | ClearFrom | Local | Unprotected, Class::Clear { .. }) => true,
        // To the gateway it is IKE; to the classifier, which does not know whose it is, a packet as all others.
        (Ike | IkeNatT | Keepalive | TruncatedUdp, Class::Clear { .. }) => is_udp_to_ike(frame),
        (NotIp | TooManyTags, Class::Kernel) => true,
        // The kernel's, whatever it carries.
        (LinkScope, _) => true,
        (_, Class::Bad(_)) => true,
        _ => false,
    }
}

fn parsed(frame: &[u8]) -> Option<(Ip, &[u8])> {
    let packet = &frame[wire::ethernet(frame).ok()?.1..];
    Some((Ip::parse(packet).ok()?, packet))
}

/// UDP to a port of IKE, or too short to have one.
fn is_udp_to_ike(frame: &[u8]) -> bool {
    parsed(frame).is_some_and(|(ip, packet)| {
        let is_short = ip.len() < ip.payload() + wire::UDP;
        let dport = wire::be16(packet, ip.payload() + 2);
        ip.protocol() == protocol::UDP && (is_short || dport == 500 || ESP_PORTS.contains(&dport))
    })
}

/// Compares on many frames, and says how many of each reason the classifier calls bad, and not.
fn compare(generate: impl Fn(&mut Rng) -> Vec<u8>) -> Vec<(Reason, u64, u64)> {
    let (tables, ports) = (tables(), UdpPorts::new(&ESP_PORTS).unwrap());
    let mut seen: Vec<_> = Reason::ALL.iter().map(|&reason| (reason, 0, 0)).collect();
    for seed in 0..FRAMES {
        let frame = generate(&mut Rng(seed));
        let decision = steer(frame.as_slice(), WORKERS, &tables);
        let class = classify(&frame, &ports);
        assert!(agree(&frame, decision, class), "seed {seed}: {decision:?} {class:?} {frame:02x?}");
        let (_, bad, good) = &mut seen[decision.reason as usize];
        *(if matches!(class, Class::Bad(_)) { bad } else { good }) += 1;
    }
    seen
}

#[test]
fn on_whole_frames() {
    for (reason, bad, good) in compare(generate::frame) {
        match reason {
            // Whole frames are rarely bad, so that agreement is not for lack of a claim.
            Esp | EspInUdp | Ah | Fragment | TooBig | ClearTo | ClearFrom | Local | Unprotected | Ike
            | IkeNatT | Keepalive => {
                assert!(good > 1000 && bad < good / 8, "{reason:?}: {good} good, {bad} bad");
            }
            TooManyExtensions | TruncatedExtension => assert_eq!(good, 0, "{reason:?}"),
            _ => {}
        }
    }
}

#[test]
fn on_mutated_frames() {
    for (reason, _, good) in compare(generate::mutated) {
        if matches!(
            reason,
            BadIp | TruncatedIpv4 | TruncatedIpv6 | TruncatedExtension | TruncatedEsp | TruncatedAh
        ) {
            assert_eq!(good, 0, "{reason:?}");
        }
    }
}
