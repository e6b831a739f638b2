//! No branch and no address depends on keys, texts or ICVs, as valgrind's memcheck sees it.
//!
//! Secrets are made *undefined*: memcheck follows what is made of them through registers and memory, and complains
//! of each branch and address that depends on it. That an ICV is right is told, at one place, and defined there.
//! `scripts/prove.d/speed/constant-time` runs these tests by valgrind; elsewhere they only see that nothing breaks.
//!
//! Valgrind knows no VAES and no AVX-512: it sees AES-NI alone of the kernels, which are one source for all widths.

use super::*;
use std::{arch::asm, hint::black_box};

/// A request to valgrind; 0 where there is none.
fn request(request: [usize; 6]) -> usize {
    let mut result = 0;
    // SAFETY: valgrind.h's instructions, which elsewhere do nothing: rotated by 128 bits in all, RDI is as before.
    unsafe {
        asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") request.as_ptr(), inout("rdx") result,
        );
    }
    result
}

/// valgrind.h: whether it is there; how many errors it has told.
const RUNNING: usize = 0x1001;
const ERRORS: usize = 0x1201;

/// memcheck.h: octets are made undefined, or defined.
const UNDEFINED: usize = (b'M' as usize) << 24 | (b'C' as usize) << 16 | 1;
const DEFINED: usize = UNDEFINED + 1;

fn errors() -> usize {
    request([ERRORS, 0, 0, 0, 0, 0])
}

fn poison(octets: &mut [u8]) {
    request([UNDEFINED, octets.as_mut_ptr() as usize, octets.len(), 0, 0, 0]);
}

/// What depends on secrets is told on purpose.
pub(super) fn publish<T>(values: &mut [T]) {
    request([DEFINED, values.as_mut_ptr() as usize, size_of_val(values), 0, 0, 0]);
}

/// Lengths on all ways through the kernels.
const LENGTHS: [usize; 16] = [0, 1, 15, 16, 33, 64, 100, 113, 127, 129, 200, 257, 300, 500, 1400, 4200];

fn jobs<'a>(key: &'a AeadKey, icv: u8, packets: &'a mut [Vec<u8>]) -> Vec<Job<'a>> {
    packets.iter_mut().map(|packet| Job::new(key, [6; 8], aad(1, 2, true), icv, packet).unwrap()).collect()
}

#[test]
#[allow(clippy::print_stdout)]
fn no_branch_and_no_address_depends_on_secrets() {
    let is_there = request([RUNNING, 0, 0, 0, 0, 0]) != 0;
    let mut packets: Vec<_> = LENGTHS.iter().flat_map(|len| vec![vec![7; HEAD + len + ICV]; 2]).collect();
    for aead in Aead::ALL {
        if !aead.is_available() {
            println!("{aead}: not seen, since this CPU or valgrind cannot");
            continue;
        }
        let before = errors();
        for (key_len, icv) in [(16, 16), (24, 12), (32, 8), (32, 16)] {
            let mut octets = [3; 32];
            poison(&mut octets);
            let key = aead.key(&octets[..key_len], [4; 4]).unwrap();
            packets.iter_mut().for_each(|p| poison(&mut p[HEAD..]));
            aead.seal(&mut jobs(&key, icv, &mut packets));
            assert_eq!(errors(), before, "{aead} seals, key of {key_len}");
            // One of each pair is forged.
            packets.iter_mut().step_by(2).for_each(|p| *p.iter_mut().nth_back(15).unwrap() ^= 1);
            packets.iter_mut().for_each(|p| poison(&mut p[HEAD..]));
            let mut verified = ArrayVec::<_, 32>::new();
            aead.open(&mut jobs(&key, icv, &mut packets), &mut verified);
            assert_eq!(errors(), before, "{aead} opens, key of {key_len}");
            assert!(verified.iter().step_by(2).all(Option::is_none));
            assert!(verified.iter().skip(1).step_by(2).all(Option::is_some));
        }
        for len in LENGTHS {
            let key = {
                let mut octets = [3; 16];
                poison(&mut octets);
                aead.key(&octets, [4; 4]).unwrap()
            };
            let mut packet = vec![7; HEAD + len + ICV];
            poison(&mut packet[HEAD..]);
            let mut segments: Vec<_> = packet.chunks_mut(333).collect();
            aead.seal(&mut [Job::scattered(&key, [6; 8], aad(1, 2, true), 16, &mut segments).unwrap()]);
            poison(&mut packet[HEAD..]);
            let mut segments: Vec<_> = packet.chunks_mut(777).collect();
            let mut verified = ArrayVec::<_, 1>::new();
            let job = Job::scattered(&key, [6; 8], aad(1, 2, true), 16, &mut segments).unwrap();
            aead.open(&mut [job], &mut verified);
            assert!(verified[0].is_some());
            assert_eq!(errors(), before, "{aead}, {len} octets in segments");
        }
        println!("{aead}: {} branches or addresses of secrets, memcheck {is_there}", errors() - before);
    }
}

/// That there is a witness: it sees a secret looked up in a table, and one branched upon.
#[test]
fn memcheck_would_see_it() {
    if request([RUNNING, 0, 0, 0, 0, 0]) == 0 {
        return;
    }
    let table = black_box([7u8; 256]);
    let mut secret = [3u8; 2];
    poison(&mut secret);
    let before = errors();
    let looked_up = table[black_box(secret[0]) as usize];
    let after = errors();
    assert!(after > before);
    if black_box(secret[1]) > 100 {
        black_box(looked_up);
    }
    assert!(errors() > after);
}
