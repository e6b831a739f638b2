//! Attaching to devices: modes, predecessors, strangers, and what goes wrong.
//!
//! Needs root. Each test has a network namespace of its own, without a name: it goes with the thread.

#[path = "../../ebpf/tests/frames/mod.rs"]
mod frames;
mod netns;

use std::cell::Cell;
use std::time::Duration;

use aya::EbpfLoader;
use aya::programs::{Xdp, XdpMode};
use frames::tables::{HERE4, OWN4, PEER4, THERE4};
use frames::{ARP, ESP, ICMP, IPV4, esp, ethernet, ipv4};
use netns::{Wire, ip, wait};
use portcullis_datapath::fib::Prefix;
use portcullis_datapath::steering::{Attached, Mode, Owner, Steering, SteeringError, Wanted};
use portcullis_ebpf::Reason;

const SOON: Duration = Duration::from_secs(2);
const DRIVER: Attached = Attached { mode: Mode::Driver, fallback: None, replaced: false };
const GENERIC: Attached = Attached { mode: Mode::Generic, ..DRIVER };

/// A device with a cable to another one in the same namespace.
struct Cable {
    far: Wire,
    near: Wire,
    sent: Cell<u8>,
}

impl Cable {
    fn new() -> Cable {
        netns::enter();
        ip("link add near type veth peer name far");
        ip("link set near up");
        ip("link set far up");
        Cable { far: Wire::open("far"), near: Wire::open("near"), sent: Cell::new(0) }
    }

    /// Sends a frame, and says whether the kernel's stack gets it before the one that is sent next.
    #[track_caller]
    fn passes(&self, frame: &[u8]) -> bool {
        self.sent.set(self.sent.get() + 1);
        let next = ethernet(&[], ARP, &[self.sent.get(); 46]);
        self.far.send(frame);
        self.far.send(&next);
        let (mut passed, mut over) = (false, false);
        wait(SOON, || {
            while let Some(seen) = self.near.receive() {
                passed |= seen == frame;
                over |= seen == next;
            }
            over
        });
        assert!(over, "the frame that must pass did not");
        passed
    }
}

fn steering() -> Steering {
    let mut steering = Steering::load(1).unwrap();
    let prefix = |addr: [u8; 4], len| Prefix { addr: addr.into(), len };
    steering.protect(prefix(THERE4, 24), Owner::Worker(0)).unwrap();
    steering.protect(prefix(OWN4, 32), Owner::Kernel).unwrap();
    steering
}

fn arp() -> Vec<u8> {
    ethernet(&[], ARP, &[0; 46])
}

fn clear() -> Vec<u8> {
    ethernet(&[], IPV4, &ipv4(HERE4, THERE4, ICMP, &[0; 40]))
}

/// Waits until these counters stand so; others may move, by what the kernel sends by itself.
#[track_caller]
fn expect(steering: &Steering, expected: &[(Reason, u64)]) {
    let so = || expected.iter().all(|&(reason, n)| steering.counters().unwrap().get(reason) == n);
    assert!(wait(SOON, so), "{expected:?}: {:?}", steering.counters());
}

#[test]
fn frames_are_steered_and_counted_in_either_mode() {
    for (wanted, attached) in [(Wanted::Auto, DRIVER), (Wanted::Driver, DRIVER), (Wanted::Generic, GENERIC)] {
        let cable = Cable::new();
        let mut steering = steering();
        assert_eq!(steering.attach(3, "near", wanted).unwrap(), attached);
        assert!(cable.passes(&arp()));
        assert!(cable.passes(&ethernet(&[], IPV4, &ipv4(HERE4, OWN4, ICMP, &[0; 40]))));
        // Without a socket, what is for a worker is for nobody.
        assert!(!cable.passes(&clear()));
        assert!(!cable.passes(&ethernet(&[], IPV4, &ipv4(PEER4, OWN4, ESP, &esp(0x1234, 64)))));
        use Reason::*;
        expect(&steering, &[(Local, 1), (ClearTo, 1), (Esp, 1), (NoSocket, 2), (ForeignPort, 0)]);

        steering.detach().unwrap();
        assert!(cable.passes(&clear()));
        expect(&steering, &[(ClearTo, 1)]);
    }
}

#[test]
fn a_frame_larger_than_a_page_is_steered_by_its_first_buffer() {
    let cable = Cable::new();
    ip("link set near mtu 9000");
    ip("link set far mtu 9000");
    let mut steering = steering();
    assert_eq!(steering.attach(0, "near", Wanted::Driver).unwrap(), DRIVER);
    cable.far.send(&ethernet(&[], IPV4, &ipv4(HERE4, THERE4, ICMP, &[0; 8900])));
    expect(&steering, &[(Reason::ClearTo, 1), (Reason::NoSocket, 1)]);
}

#[test]
fn a_killed_datapath_keeps_the_gate_shut_and_is_replaced() {
    for wanted in [Wanted::Driver, Wanted::Generic, Wanted::Auto] {
        let cable = Cable::new();
        let mut first = steering();
        let mode = first.attach(0, "near", wanted).unwrap().mode;
        drop(first);
        assert!(!cable.passes(&clear()));
        assert!(cable.passes(&arp()));

        let mut second = steering();
        let attached = second.attach(0, "near", wanted).unwrap();
        assert_eq!(attached, Attached { mode, fallback: None, replaced: true });
        assert!(!cable.passes(&clear()));
        expect(&second, &[(Reason::ClearTo, 1)]);
        second.detach().unwrap();
        assert!(cable.passes(&clear()));
    }
}

#[test]
fn a_start_that_fails_half_way_opens_no_gate_that_was_shut() {
    for was_shut in [true, false] {
        let cable = Cable::new();
        if was_shut {
            steering().attach(0, "near", Wanted::Driver).unwrap();
        }
        let mut second = steering();
        assert_eq!(second.attach(0, "near", Wanted::Driver).unwrap().replaced, was_shut);
        assert!(second.attach(1, "nowhere", Wanted::Driver).is_err());
        second.give_up().unwrap();
        drop(second);
        assert_eq!(cable.passes(&clear()), !was_shut);
    }
}

#[test]
fn a_predecessor_in_the_other_mode_is_replaced() {
    let cable = Cable::new();
    let mut generic = steering();
    generic.attach(0, "near", Wanted::Generic).unwrap();
    drop(generic);

    // To get driver mode there would be a moment without a program, so Auto does not.
    let mut auto = steering();
    let attached = auto.attach(0, "near", Wanted::Auto).unwrap();
    assert_eq!((attached.mode, attached.replaced), (Mode::Generic, true));
    assert!(attached.fallback.unwrap().contains("predecessor"));
    drop(auto);

    for (wanted, mode) in [(Wanted::Driver, Mode::Driver), (Wanted::Generic, Mode::Generic)] {
        let mut steering = steering();
        let attached = steering.attach(0, "near", wanted).unwrap();
        assert_eq!(attached, Attached { mode, fallback: None, replaced: true });
        assert!(!cable.passes(&clear()));
        expect(&steering, &[(Reason::ClearTo, 1)]);
    }
}

#[test]
fn an_orderly_stop_leaves_a_successor_alone() {
    let cable = Cable::new();
    let mut first = steering();
    first.attach(0, "near", Wanted::Driver).unwrap();
    let mut second = steering();
    assert!(second.attach(0, "near", Wanted::Driver).unwrap().replaced);
    first.detach().unwrap();
    assert!(!cable.passes(&clear()));
    expect(&second, &[(Reason::ClearTo, 1)]);
    // A device that is gone needs no detaching.
    ip("link del near");
    second.detach().unwrap();
}

#[test]
fn a_strangers_program_is_left_alone() {
    let cable = Cable::new();
    // The same program under another name is a stranger too.
    let mut object = std::fs::read("../ebpf/portcullis.bpf.o").unwrap();
    let name = object.windows(12).position(|bytes| bytes == b"\0portcullis\0").unwrap();
    object[name + 1..name + 11].copy_from_slice(b"drawbridge");
    let mut other = EbpfLoader::new().load(&object).unwrap();
    let program: &mut Xdp = other.program_mut("drawbridge").unwrap().try_into().unwrap();
    program.load().unwrap();
    program.attach("near", XdpMode::default()).unwrap();
    for wanted in [Wanted::Auto, Wanted::Driver, Wanted::Generic] {
        let error = steering().attach(0, "near", wanted).unwrap_err();
        let SteeringError::Occupied { interface, program, .. } = &error else { panic!("{error}") };
        assert_eq!((interface.as_str(), program.as_str()), ("near", "drawbridge"));
        assert!(error.to_string().contains("ip link set dev near xdp off"));
    }
    assert!(cable.passes(&clear()));
}

#[test]
fn a_device_without_driver_mode_falls_back_and_says_why() {
    netns::enter();
    let attached = steering().attach(0, "lo", Wanted::Auto).unwrap();
    assert_eq!((attached.mode, attached.replaced), (Mode::Generic, false));
    assert!(attached.fallback.as_ref().unwrap().contains("native"), "{attached:?}");

    netns::enter();
    let error = steering().attach(0, "lo", Wanted::Driver).unwrap_err();
    let SteeringError::Unsupported { interface, mode, .. } = &error else { panic!("{error}") };
    assert_eq!((interface.as_str(), *mode), ("lo", Mode::Driver));
    assert!(error.to_string().contains("xdp_mode"), "{error}");
}

#[test]
fn devices_and_ports_that_are_not_there() {
    let _cable = Cable::new();
    let mut steering = steering();
    for interface in ["", "nowhere", "a-name-longer-than-a-device-can-have"] {
        let error = steering.attach(0, interface, Wanted::Auto).unwrap_err();
        assert!(matches!(&error, SteeringError::NoInterface { interface: i } if i == interface), "{error}");
    }
    steering.attach(0, "near", Wanted::Auto).unwrap();
    for (port, interface) in [(0, "far"), (1, "near"), (16, "far")] {
        let error = steering.attach(port, interface, Wanted::Auto).unwrap_err();
        assert!(matches!(error, SteeringError::Port { port: p, .. } if p == port), "{error}");
    }
    steering.detach().unwrap();
    steering.attach(0, "far", Wanted::Auto).unwrap();
}

/// Makes this thread, and no other, an ordinary user's.
fn give_up_root() {
    const NOBODY: u32 = 65_534;
    // SAFETY: the bare system call concerns this thread and no memory.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
    assert_eq!(done, 0);
}

#[test]
fn who_may_not_is_told_what_to_be() {
    let _cable = Cable::new();
    let mut loaded = steering();
    give_up_root();
    let error = Steering::load(1).err().unwrap();
    assert!(matches!(error, SteeringError::LoadPermission), "{error}");
    let error = loaded.attach(0, "near", Wanted::Auto).unwrap_err();
    assert!(
        matches!(&error, SteeringError::AttachPermission { interface } if interface == "near"),
        "{error}"
    );
    assert!(error.to_string().contains("CAP_NET_ADMIN"));
}

#[test]
fn a_confined_thread_goes_on_steering_and_detaches() {
    let cable = Cable::new();
    let mut steering = steering();
    steering.attach(0, "near", Wanted::Auto).unwrap();
    let confined = std::thread::spawn(move || {
        steering.counters().unwrap();
        portcullis_datapath::confine::mirror().unwrap();
        let prefix = Prefix { addr: HERE4.into(), len: 24 };
        steering.protect(prefix, Owner::Worker(0)).unwrap();
        steering.set_protected(&[(prefix, Owner::Kernel)].into()).unwrap();
        steering.unprotect(prefix).unwrap();
        steering.counters().unwrap();
        steering.detach().unwrap();
    });
    confined.join().unwrap();
    assert!(cable.passes(&clear()));
}
