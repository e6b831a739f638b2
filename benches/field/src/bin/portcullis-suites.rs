//! Our suites beside others, packet by packet: ChaCha20-Poly1305 and ring's alone, AES-128-CBC with HMAC-SHA2-256-128 and
//! Intel's ipsec-mb, to which one job at a time is given. In memory, on one core, in turns.

use anyhow::{Result, ensure};
use clap::Parser;
use portcullis_datapath::crypto::{Aead, Suite};
use portcullis_perf::{clock, clock::Machine, traffic::Random};
use portcullis_sadb::{Algorithm, Encryption, Integrity};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use std::sync::atomic::{Ordering, fence};

/// Compares suites with others, in nanoseconds per packet.
#[derive(Parser)]
#[command(name = "portcullis-suites")]
struct Options {
    /// Octets of the texts.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 128, 576, 1400])]
    lengths: Vec<usize>,
    /// How often each is measured, in turn with all others.
    #[arg(long, default_value_t = 101, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The core.
    #[arg(long, default_value_t = 0)]
    core: usize,
}

/// Octets in front of the text: SPI, sequence number and IV.
const HEAD: usize = 8;
const ICV: usize = 16;
/// Packets in a sample, after as many that are not counted.
const PACKETS: usize = 64;

/// Seals a packet under a number.
type Seal = Box<dyn Fn(&mut [u8], u64)>;

/// Opens it; whether its ICV is right.
type Open = Box<dyn Fn(&mut [u8], u64) -> bool>;

/// What seals and opens whole packets in place. Where another seals, the IV is there.
struct Entrant {
    name: &'static str,
    seal: Seal,
    open: Open,
}

/// Those that do the same. Ours is the first.
struct Contest {
    name: &'static str,
    iv: usize,
    block: usize,
    entrants: Vec<Entrant>,
}

fn ours(encryption: Encryption, integrity: Integrity, key: &[u8]) -> (Entrant, &'static str) {
    let algorithm = Algorithm::new(encryption, integrity).expect("they go together");
    let suite = || Suite::new(algorithm, key, Aead::best()).expect("a key of its length");
    let (sealing, opening) = (suite(), suite());
    let entrant = Entrant {
        name: "ours",
        seal: Box::new(move |esp, seq| sealing.seal(esp, seq, false)),
        open: Box::new(move |esp, seq| opening.open(esp, seq, false).is_some()),
    };
    (entrant, algorithm.name())
}

fn chacha20() -> Contest {
    let key: Vec<u8> = (1..=36).collect();
    let (ours, name) = ours(Encryption::ChaCha20Poly1305, Integrity::None, &key);
    let expanded = || LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key[..32]).expect("32 octets"));
    let (sealing, opening, salt) = (expanded(), expanded(), [33, 34, 35, 36]);
    let parts = move |esp: &[u8]| {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&salt);
        nonce[4..].copy_from_slice(&esp[HEAD..16]);
        let head: [u8; 8] = *esp.first_chunk().expect("a head");
        (Nonce::assume_unique_for_key(nonce), Aad::from(head))
    };
    let ring = Entrant {
        name: "ring",
        seal: Box::new(move |esp, seq| {
            esp[HEAD..16].copy_from_slice(&seq.to_be_bytes());
            let (nonce, aad) = parts(esp);
            let (text, icv) = esp[16..].split_last_chunk_mut::<ICV>().expect("an ICV");
            let tag = sealing.seal_in_place_separate_tag(nonce, aad, text).expect("a text");
            icv.copy_from_slice(tag.as_ref());
        }),
        open: Box::new(move |esp, _| {
            let (nonce, aad) = parts(esp);
            opening.open_in_place(nonce, aad, &mut esp[16..]).is_ok()
        }),
    };
    Contest { name, iv: 8, block: 4, entrants: vec![ours, ring] }
}

fn cbc() -> Contest {
    let key: Vec<u8> = (1..=48).collect();
    let (ours, name) = ours(Encryption::AesCbc128, Integrity::HmacSha256, &key);
    #[allow(unused_mut)]
    let mut entrants = vec![ours];
    #[cfg(ipsec_mb)]
    entrants.extend(ipsec_mb::entrants(&key));
    Contest { name, iv: 16, block: 16, entrants }
}

#[cfg(ipsec_mb)]
mod ipsec_mb {
    use super::Entrant;
    use std::{
        ffi::{c_int, c_void},
        ptr::NonNull,
        rc::Rc,
    };

    unsafe extern "C" {
        fn field_cbc_new(arch: c_int, key: *const u8, mac_key: *const u8) -> Option<NonNull<c_void>>;
        fn field_cbc_free(cbc: NonNull<c_void>);
        fn field_cbc_run(cbc: NonNull<c_void>, open: c_int, packet: *mut u8, len: usize) -> c_int;
    }

    /// `IMB_ARCH` of its header.
    const ARCHS: [(c_int, &str); 4] =
        [(2, "ipsec-mb sse"), (3, "ipsec-mb avx"), (4, "ipsec-mb avx2"), (5, "ipsec-mb avx512")];

    struct Cbc(NonNull<c_void>);

    impl Drop for Cbc {
        fn drop(&mut self) {
            // SAFETY: made by `field_cbc_new`, and given back once.
            unsafe { field_cbc_free(self.0) }
        }
    }

    impl Cbc {
        fn run(&self, open: bool, packet: &mut [u8]) -> bool {
            assert!(packet.len() >= 8 + 16 + 16);
            // SAFETY: the packet has so many octets, at least those of head, IV and ICV, and is borrowed for the call;
            // no other thread has the manager, since `Rc` cannot leave this one.
            unsafe { field_cbc_run(self.0, open.into(), packet.as_mut_ptr(), packet.len()) == 1 }
        }
    }

    /// All that this CPU can do.
    pub fn entrants(key: &[u8]) -> impl Iterator<Item = Entrant> {
        let (key, mac_key) = key.split_at(16);
        assert_eq!(mac_key.len(), 32);
        ARCHS.into_iter().filter_map(move |(arch, name)| {
            // SAFETY: both keys have the octets that are read of them, and are copied.
            let cbc = Rc::new(unsafe { field_cbc_new(arch, key.as_ptr(), mac_key.as_ptr()) }.map(Cbc)?);
            let sealing = cbc.clone();
            let seal =
                move |esp: &mut [u8], _| assert!(sealing.run(false, esp), "ipsec-mb takes all packets");
            let open = move |esp: &mut [u8], _| cbc.run(true, esp);
            Some(Entrant { name, seal: Box::new(seal), open: Box::new(open) })
        })
    }
}

/// Packets of one length.
struct Packets {
    clear: Vec<u8>,
    sealed: Vec<u8>,
}

impl Contest {
    /// Sealed by ours; all others make the same of the same IV, open it, and refuse what was changed.
    fn agreed(&self, len: usize) -> Result<Packets> {
        let len = len.next_multiple_of(self.block);
        let mut clear = vec![7; HEAD + self.iv + len + ICV];
        clear[..HEAD].copy_from_slice(&[0, 0, 1, 1, 0, 0, 0, 9]);
        let mut sealed = clear.clone();
        (self.entrants[0].seal)(&mut sealed, 9);
        clear[HEAD..HEAD + self.iv].copy_from_slice(&sealed[HEAD..HEAD + self.iv]);
        for Entrant { name, seal, open } in &self.entrants {
            let mut esp = clear.clone();
            seal(&mut esp, 9);
            ensure!(esp == sealed, "{name} seals otherwise than ours");
            ensure!(open(&mut esp, 9), "{name} does not open what was sealed");
            ensure!(esp[..clear.len() - ICV] == clear[..clear.len() - ICV], "{name} opens to something else");
            for octet in [0, HEAD, HEAD + self.iv, clear.len() - 1] {
                let mut esp = sealed.clone();
                esp[octet] ^= 1;
                ensure!(!open(&mut esp, 9), "{name} opens a packet with octet {octet} changed");
            }
        }
        Ok(Packets { clear, sealed })
    }
}

/// Clocks per packet.
fn sample(entrant: &Entrant, packets: &Packets, seal: bool, memory: &mut [Vec<u8>], overhead: u64) -> f64 {
    let from = if seal { &packets.clear } else { &packets.sealed };
    let mut clocks = 0;
    for _ in 0..2 {
        memory.iter_mut().for_each(|packet| packet.clone_from(from));
        // No store is under way when the clock starts.
        fence(Ordering::SeqCst);
        let start = clock::now();
        for packet in memory.iter_mut() {
            match seal {
                true => (entrant.seal)(packet, 9),
                false => assert!((entrant.open)(packet, 9), "{} opens", entrant.name),
            }
        }
        clocks = clock::now() - start;
    }
    clocks.saturating_sub(overhead) as f64 / memory.len() as f64
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn main() -> Result<()> {
    let options = Options::parse();
    let core = core_affinity::CoreId { id: options.core };
    ensure!(core_affinity::set_for_current(core), "no core {}", options.core);
    let (machine, overhead, mut random) = (Machine::this(), clock::overhead(), Random::new(1));
    println!(
        "in memory; {}; one core; one packet at a time; medians of {} rounds",
        machine.cpu, options.rounds
    );
    let mut memory = vec![vec![]; PACKETS];
    for contest in [chacha20(), cbc()] {
        println!("\n{}: nanoseconds per packet, and ours over the other's", contest.name);
        for len in &options.lengths {
            let packets = contest.agreed(*len)?;
            for seal in [true, false] {
                let mut samples = vec![vec![]; contest.entrants.len()];
                for _ in 0..options.rounds {
                    let mut order: Vec<usize> = (0..contest.entrants.len()).collect();
                    random.shuffle(&mut order);
                    for i in order {
                        samples[i].push(sample(&contest.entrants[i], &packets, seal, &mut memory, overhead));
                    }
                }
                let ns: Vec<f64> =
                    samples.iter_mut().map(|samples| median(samples) / machine.hz * 1e9).collect();
                print!("{len:>5} {} ours {:7.1}", if seal { "seal" } else { "open" }, ns[0]);
                for (entrant, other) in contest.entrants.iter().zip(&ns).skip(1) {
                    print!("; {} {other:.1} ({:.2})", entrant.name, ns[0] / other);
                }
                println!();
            }
        }
    }
    Ok(())
}
