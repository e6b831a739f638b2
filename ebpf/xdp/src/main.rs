//! The XDP program: asks [`portcullis_ebpf::steer`] where a frame goes, counts why, and sends it there.
#![no_std]
#![no_main]

use core::ptr;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;
use portcullis_ebpf::{
    FRAGMENTS_ENTRIES, Family, FragmentKey, MAX_PORTS, PROTECTED_ENTRIES, Packet, Reason, TO_KERNEL,
    TO_NOBODY, Tables, UDP_PORT_WORDS, UNPROTECTED, XSKMAP_ENTRIES, steer, udp_port, xsk_key,
};

// The names are those of `portcullis_ebpf::maps`, by which the loader finds them.
#[map]
static XSKMAP: XskMap = XskMap::with_max_entries(XSKMAP_ENTRIES, 0);
#[map]
static PORTS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_PORTS, 0);
#[map]
static PROTECTED_V4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(PROTECTED_ENTRIES, 0);
#[map]
static PROTECTED_V6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(PROTECTED_ENTRIES, 0);
#[map]
static CONFIG: Array<u32> = Array::with_max_entries(1, 0);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::ALL.len() as u32, 0);
#[map]
static UDP_PORTS: Array<u64> = Array::with_max_entries(UDP_PORT_WORDS, 0);
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, u32> = LruHashMap::with_max_entries(FRAGMENTS_ENTRIES, 0);

#[xdp(frags)]
fn portcullis(ctx: XdpContext) -> u32 {
    let ifindex = ctx.ingress_ifindex() as u32;
    // SAFETY: entries are four bytes, written whole by the loader.
    let Some(&port) = (unsafe { PORTS.get(ifindex) }) else {
        count(Reason::ForeignPort);
        return XDP_PASS;
    };
    // It is there. A number that the verifier knows would be none that it can forget.
    let Some(&workers) = CONFIG.get(0) else {
        return XDP_DROP;
    };
    let frame = Frame { start: ctx.data(), end: ctx.data_end() };
    let decision = steer(&frame, workers, &Maps);
    count(decision.reason);
    if decision.worker == TO_KERNEL {
        return XDP_PASS;
    }
    if decision.worker == TO_NOBODY {
        return XDP_DROP;
    }
    // Without a socket the frame is dropped: the kernel would forward it in clear.
    let key = xsk_key(port, ctx.rx_queue_index(), decision.worker);
    match XSKMAP.redirect(key, XDP_DROP as u64) {
        Ok(_) => XDP_REDIRECT,
        Err(_) => {
            count(Reason::NoSocket);
            XDP_DROP
        }
    }
}

#[inline(always)]
fn count(reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: the counter is this CPU's, and a program is not preempted by another on its CPU.
        unsafe { *counter += 1 }
    }
}

/// The first buffer of a frame, which holds its headers.
struct Frame {
    start: usize,
    end: usize,
}

/// Farther in than any header; the verifier wants to see that an offset has a bound.
const MAX_OFFSET: usize = 0x3fff;

impl Packet for Frame {
    #[inline(always)]
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        const { assert!(N >= 2) };
        if at > MAX_OFFSET {
            return None;
        }
        let at = self.start + at;
        if at + N > self.end {
            return None;
        }
        // SAFETY: the frame's N bytes from `at` on end before `data_end`; the verifier checks it too.
        Some(unsafe { ptr::read_unaligned(at as *const [u8; N]) })
    }
}

struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn protected(&self, family: Family, address: &[u8; 16]) -> u32 {
        let found = match family {
            Family::V4 => {
                let [.., a, b, c, d] = *address;
                PROTECTED_V4.get(Key::new(32, [a, b, c, d]))
            }
            Family::V6 => PROTECTED_V6.get(Key::new(128, *address)),
        };
        found.copied().unwrap_or(UNPROTECTED)
    }

    #[inline(always)]
    fn is_esp_port(&self, port: u16) -> bool {
        let (word, bit) = udp_port(port);
        UDP_PORTS.get(word).is_some_and(|ports| ports & bit != 0)
    }

    #[inline(always)]
    fn remember(&self, fragment: &FragmentKey) {
        // Without room its later fragments go by their addresses.
        let _ = FRAGMENTS.insert(fragment, 1, 0);
    }

    #[inline(always)]
    fn remembers(&self, fragment: &FragmentKey) -> bool {
        FRAGMENTS.get_ptr(fragment).is_some()
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"MIT\0";
