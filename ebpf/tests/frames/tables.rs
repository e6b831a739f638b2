//! The tables of steering on the host, simple enough to be right.

use std::cell::RefCell;
use std::collections::HashSet;

use portcullis_ebpf::{BY_FLOW, Family, FragmentKey, TO_KERNEL, Tables, UNPROTECTED};

/// A prefix of the family, and its value.
pub type Entry = (Family, [u8; 16], u8, u32);

#[derive(Default)]
pub struct HostTables {
    pub entries: Vec<Entry>,
    pub remembered: RefCell<HashSet<FragmentKey>>,
}

impl Tables for HostTables {
    fn protected(&self, family: Family, address: &[u8; 16]) -> u32 {
        let holds = |&&(of, prefix, len, _): &&Entry| {
            let shift = 128 - u32::from(len);
            let differ = u128::from_be_bytes(prefix) ^ u128::from_be_bytes(*address);
            of == family && differ.checked_shr(shift).unwrap_or(0) == 0
        };
        self.entries.iter().filter(holds).max_by_key(|entry| entry.2).map_or(UNPROTECTED, |entry| entry.3)
    }

    fn is_esp_port(&self, port: u16) -> bool {
        ESP_PORTS.contains(&port)
    }

    fn remember(&self, fragment: &FragmentKey) {
        self.remembered.borrow_mut().insert(*fragment);
    }

    fn remembers(&self, fragment: &FragmentKey) -> bool {
        self.remembered.borrow().contains(fragment)
    }
}

/// An IPv4 address as the tables have it.
pub fn mapped(address: [u8; 4]) -> [u8; 16] {
    std::net::Ipv4Addr::from(address).to_ipv6_mapped().octets()
}

pub fn v4(prefix: [u8; 4], len: u8, value: u32) -> Entry {
    (Family::V4, mapped(prefix), 96 + len, value)
}

pub fn v6(prefix: [u8; 16], len: u8, value: u32) -> Entry {
    (Family::V6, prefix, len, value)
}

/// Our UDP ports of ESP in UDP.
pub const ESP_PORTS: [u16; 2] = [4500, 4510];

/// 192.0.2.1, the gateway's own address, and its IPv6 twin.
pub const OWN4: [u8; 4] = [192, 0, 2, 1];
pub const OWN6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// A peer that is in no protected prefix.
pub const PEER4: [u8; 4] = [192, 0, 2, 2];
pub const PEER6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// A host of worker 2, and one of worker 3.
pub const HERE4: [u8; 4] = [10, 1, 0, 5];
pub const HERE6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
pub const THERE4: [u8; 4] = [10, 2, 0, 5];
pub const THERE6: [u8; 16] = [0xfd, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
/// A host of all workers.
pub const ALL4: [u8; 4] = [10, 3, 0, 5];
pub const ALL6: [u8; 16] = [0xfd, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
/// A bypass within worker 3's prefix.
pub const BYPASS4: [u8; 4] = [10, 2, 9, 9];
pub const BYPASS6: [u8; 16] = [0xfd, 0, 0, 2, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

/// Tables for four workers, in which each of the addresses above has its place.
pub fn entries() -> Vec<Entry> {
    let prefix = |mut address: [u8; 16], bytes: usize| {
        address[bytes..].fill(0);
        address
    };
    vec![
        v4(OWN4, 32, TO_KERNEL),
        v6(OWN6, 128, TO_KERNEL),
        v4([10, 1, 0, 0], 16, 2),
        v6(prefix(HERE6, 4), 32, 2),
        v4([10, 2, 0, 0], 16, 3),
        v6(prefix(THERE6, 4), 32, 3),
        v4([10, 3, 0, 0], 16, BY_FLOW),
        v6(prefix(ALL6, 4), 32, BY_FLOW),
        v4([10, 2, 9, 0], 24, TO_KERNEL),
        v6(prefix(BYPASS6, 6), 48, TO_KERNEL),
    ]
}

pub fn tables() -> HostTables {
    HostTables { entries: entries(), remembered: RefCell::default() }
}
