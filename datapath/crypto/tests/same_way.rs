//! With different keys, texts and ICVs, each kernel goes the same way, instruction by instruction, with the same
//! addresses: no branch and no address depends on secrets. It is seen on this CPU, with whatever vectors it has; for
//! what memcheck sees of all ways at once, and of AES-NI alone, see `scripts/prove.d/speed/constant-time`.
//!
//! Children with different secrets in the same memory are stepped through. Of each step are compared where it is, and
//! all general registers, of which addresses are made: the kernels keep secrets in vectors. Where a key is expanded,
//! its words are in general registers; there only the way is compared.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use arrayvec::ArrayVec;
use portcullis_crypto::{Aead, AeadKey, HEAD, ICV, IcvVerified, Job, aad};
use std::{
    arch::asm,
    hash::{DefaultHasher, Hash, Hasher},
    mem, ptr,
};

/// On all ways through the kernels; two of each, so that they go in pairs.
const LENGTHS: [usize; 5] = [0, 33, 100, 129, 600];

/// What a child works on: in the same place in all children.
struct Memory {
    octets: [u8; 32],
    key: Option<AeadKey>,
    packets: Vec<Vec<u8>>,
    verified: ArrayVec<Option<IcvVerified>, 32>,
}

impl Memory {
    fn new() -> Memory {
        let packets = LENGTHS.iter().flat_map(|len| vec![vec![0; HEAD + len + ICV]; 2]).collect();
        Memory { octets: [0; 32], key: None, packets, verified: ArrayVec::new() }
    }

    /// Secrets that no register knows of.
    fn fill(&mut self) {
        for secret in
            [&mut self.octets[..]].into_iter().chain(self.packets.iter_mut().map(|p| &mut p[HEAD..]))
        {
            // SAFETY: as many octets as there are to be written.
            unsafe { libc::getrandom(secret.as_mut_ptr().cast(), secret.len(), 0) };
        }
    }

    fn work(&mut self, aead: Aead) {
        stop();
        self.key = aead.key(&self.octets, [4; 4]);
        stop();
        let mut jobs: ArrayVec<Job<'_>, 32> = ArrayVec::new();
        let key = self.key.as_ref().unwrap();
        for packet in &mut self.packets {
            jobs.push(Job::new(key, [6; 8], aad(1, 2, true), 16, packet).unwrap());
        }
        aead.seal(&mut jobs);
        aead.open(&mut jobs, &mut self.verified);
        stop();
    }
}

/// Stops with a signal that the tracer takes; it leaves nothing of before in these registers.
#[inline(never)]
fn stop() {
    // SAFETY: the tracer goes on behind it.
    unsafe {
        asm!("ud2", out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _,
            out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _);
    }
}

fn wait(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is there to be written.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    status
}

fn trace<T>(request: libc::c_uint, child: i32, data: *mut T) {
    // SAFETY: a traced child that has stopped; `data` is what the request asks for.
    assert_eq!(unsafe { libc::ptrace(request, child, ptr::null_mut::<u8>(), data) }, 0);
}

fn registers(child: i32) -> libc::user_regs_struct {
    // SAFETY: they are numbers.
    let mut registers = unsafe { mem::zeroed() };
    trace(libc::PTRACE_GETREGS, child, &mut registers);
    registers
}

/// Steps from one [`stop`] to the next: a hash of the way, and how many steps it has.
fn way(child: i32, with_registers: bool) -> (u64, usize) {
    let stopped = registers(child);
    // SAFETY: they are numbers.
    let nothing: libc::user_regs_struct = unsafe { mem::zeroed() };
    trace(
        libc::PTRACE_SETREGS,
        child,
        &mut libc::user_regs_struct {
            rip: stopped.rip + 2, // UD2
            rsp: stopped.rsp,
            rbp: stopped.rbp,
            rbx: stopped.rbx,
            orig_rax: u64::MAX, // no system call
            eflags: stopped.eflags,
            cs: stopped.cs,
            ss: stopped.ss,
            fs_base: stopped.fs_base,
            gs_base: stopped.gs_base,
            ..nothing
        },
    );
    let (mut hash, mut steps) = (DefaultHasher::new(), 0);
    loop {
        let r = registers(child);
        r.rip.hash(&mut hash);
        if with_registers {
            let low = [r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp];
            (low, [r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15]).hash(&mut hash);
        }
        steps += 1;
        trace(libc::PTRACE_SINGLESTEP, child, ptr::null_mut::<u8>());
        let status = wait(child);
        assert!(libc::WIFSTOPPED(status), "the child ended: {status:#x}");
        match libc::WSTOPSIG(status) {
            libc::SIGTRAP => {}
            libc::SIGILL => return (hash.finish(), steps),
            signal => panic!("the child got signal {signal}"),
        }
    }
}

/// The ways of a child: of the key's expansion, and of its use.
fn ways(memory: &mut Memory, aead: Aead) -> [(u64, usize); 2] {
    // SAFETY: the child asks for no lock and no memory, and ends without running anything of the parent's.
    let child = unsafe { libc::fork() };
    if child == 0 {
        memory.fill();
        // SAFETY: it asks to be traced by its parent; and it ends.
        unsafe {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            memory.work(aead);
            libc::_exit(0);
        }
    }
    assert!(libc::WIFSTOPPED(wait(child)));
    let ways = [way(child, false), way(child, true)];
    // SAFETY: this child alone is ended.
    unsafe { libc::kill(child, libc::SIGKILL) };
    assert!(libc::WIFSIGNALED(wait(child)));
    ways
}

#[test]
#[allow(clippy::print_stdout)]
fn with_whatever_secrets() {
    let mut memory = Memory::new();
    // RustCrypto has texts in general registers, too; memcheck sees it.
    for aead in Aead::ALL.into_iter().filter(|a| *a != Aead::Portable) {
        if !aead.is_available() {
            println!("{aead}: NOT TESTED, this CPU cannot");
            continue;
        }
        let first = ways(&mut memory, aead);
        assert!(first[1].1 > 2000, "{first:?}");
        assert_eq!(ways(&mut memory, aead), first, "{aead}");
        println!("{aead}: {} and {} instructions, the same ways", first[0].1, first[1].1);
    }
}
