//! What AES-128-GCM takes at least on this core, by how fast that does AES rounds and carry-less multiplications, and
//! what ours takes.
#![allow(clippy::print_stdout)]

#[cfg(target_arch = "x86_64")]
fn main() {
    x86_64::main();
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("only the instructions of x86-64 are measured here");
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use arrayvec::ArrayVec;
    use portcullis_datapath::crypto::{self, Aead, HEAD, ICV, Job};
    use portcullis_perf::clock;
    use std::{arch::asm, arch::is_x86_feature_detected as has};

    /// Octets of text: those of clear packets of 64 to 1400 octets with their trailers.
    const LENGTHS: [usize; 6] = [68, 132, 260, 580, 1028, 1404];
    /// Packets that are sealed together.
    const PACKETS: usize = 32;
    /// How often each is measured. The least counts: what else runs only adds to it.
    const ROUNDS: usize = 3000;
    /// Vectors beside each other, so that none waits for itself, and how often one after the other.
    const BESIDE: usize = 8;
    const REPEATED: usize = 20;

    fn least(mut work: impl FnMut()) -> f64 {
        let overhead = clock::overhead();
        let once = |_| {
            let start = clock::now();
            work();
            (clock::now() - start).saturating_sub(overhead)
        };
        (0..ROUNDS).map(once).min().unwrap_or(0) as f64
    }

    /// Clocks of some instructions for each of [`BESIDE`] vectors.
    macro_rules! clocks {
        ($($line:expr),+) => {
            least(|| {
                for _ in 0..REPEATED {
                    // SAFETY:
                    // - the CPU has the instructions: whoever asks for their clocks has looked;
                    // - they change vector registers only, all of which are given up.
                    unsafe { asm!($($line),+, clobber_abi("C"), options(nomem, nostack)) };
                }
            }) / (REPEATED * BESIDE) as f64
        };
    }

    /// Measures vectors of so many blocks, in the registers named `$r`. Clocks of a block of GCM, at least.
    macro_rules! width {
        ($r:literal, $blocks:literal, $xor:literal) => {{
            let aes = clocks!(
                ".rept 10",
                ".irp n, 0,1,2,3,4,5,6,7",
                concat!("vaesenc ", $r, "\\n, ", $r, "\\n, ", $r, "15"),
                ".endr",
                ".endr"
            );
            let products =
                clocks!(".rept 24", concat!("vpclmulqdq ", $r, "8, ", $r, "14, ", $r, "15, 0"), ".endr");
            // Ten rounds, three products and eight additions for each vector, mixed.
            let both = clocks!(
                ".rept 10",
                ".irp n, 0,1,2,3,4,5,6,7",
                concat!("vaesenc ", $r, "\\n, ", $r, "\\n, ", $r, "15"),
                ".endr",
                ".rept 2",
                concat!("vpclmulqdq ", $r, "8, ", $r, "14, ", $r, "15, 0"),
                ".rept 3",
                concat!($xor, " ", $r, "9, ", $r, "14, ", $r, "15"),
                ".endr",
                ".endr",
                ".endr",
                ".rept 4",
                concat!("vpclmulqdq ", $r, "8, ", $r, "14, ", $r, "15, 0"),
                concat!($xor, " ", $r, "9, ", $r, "14, ", $r, "15"),
                ".endr"
            );
            let block = both / $blocks as f64;
            println!("{:4} bits  {aes:10.1}  {products:14.1}  {both:14.1}  {block:14.2}", 128 * $blocks);
            block
        }};
    }

    pub fn main() {
        if !has!("aes") || !has!("pclmulqdq") || !has!("avx") {
            return println!("this CPU has neither AES-NI nor PCLMULQDQ");
        }
        println!("clocks of the TSC, at least, for each vector");
        println!("           ten rounds  three products  both and eight xors, and by block");
        let mut block = width!("xmm", 1, "vpxor");
        if has!("vaes") && has!("vpclmulqdq") && has!("avx2") {
            block = block.min(width!("ymm", 2, "vpxor"));
            if has!("avx512f") {
                block = block.min(width!("zmm", 4, "vpxorq"));
            }
        }
        let aead = Aead::best();
        println!("\nAES-128-GCM by {}, {PACKETS} packets with one key, in the nearest caches", aead.name());
        println!("octets  bound  sealed  times");
        let Some(key) = aead.key(&[7; 16], [1; 4]) else { return };
        for len in LENGTHS {
            let mut packets = vec![vec![0; HEAD + len + ICV]; PACKETS];
            let clocks = least(|| {
                let mut jobs = ArrayVec::<Job<'_>, PACKETS>::new();
                for (packet, n) in packets.iter_mut().zip(0u64..) {
                    jobs.extend(Job::new(&key, n.to_be_bytes(), crypto::aad(1, n, true), 16, packet));
                }
                aead.seal(&mut jobs);
            }) / PACKETS as f64;
            // The text, the block that makes the ICV, and that of the lengths instead of the additional data.
            let bound = block * (1 + len.div_ceil(16)) as f64;
            println!("{len:6} {bound:6.0} {clocks:7.0} {:6.2}", clocks / bound);
        }
    }
}
