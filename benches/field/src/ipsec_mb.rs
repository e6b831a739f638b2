//! Intel's ipsec-mb: each of its APIs by each of its archs that this CPU has. `ipsec_mb.c` calls it.

use crate::{
    burst::{Burst, PACKETS},
    ciphers::{Cipher, Entrant, Keys, SALT},
};
use std::{
    ffi::{CStr, c_char, c_int, c_void},
    ptr::NonNull,
    rc::Rc,
};

unsafe extern "C" {
    fn field_mb_version() -> *const c_char;
    fn field_mb_new(
        arch: c_int,
        keys: *const u8,
        count: usize,
        key_len: usize,
        salt: *const u8,
    ) -> Option<NonNull<c_void>>;
    fn field_mb_free(manager: NonNull<c_void>);
    fn field_mb_run(
        manager: NonNull<c_void>,
        api: c_int,
        open: c_int,
        base: *mut u8,
        stride: usize,
        lens: *const u32,
        count: usize,
    ) -> c_int;
}

/// `IMB_ARCH` of its header.
const ARCHS: [(c_int, &str); 4] = [(2, "sse"), (3, "avx"), (4, "avx2"), (5, "avx512")];
/// `enum api` of the shim.
const APIS: [(c_int, &str); 3] = [(0, "direct"), (1, "job"), (2, "burst")];

/// Its version.
pub fn version() -> String {
    // SAFETY: a string constant of the library.
    unsafe { CStr::from_ptr(field_mb_version()) }.to_string_lossy().into_owned()
}

/// All that this CPU can do.
pub fn entrants(keys: &Keys) -> Vec<Entrant> {
    let mut all = vec![];
    for (arch, arch_name) in ARCHS {
        let Some(manager) = MultiBuffer::new(arch, keys) else { continue };
        let manager = Rc::new(manager);
        for (api, api_name) in APIS {
            let cipher = Box::new(IpsecMb { manager: manager.clone(), api });
            all.push(Entrant { by: "ipsec-mb", name: format!("ipsec-mb {arch_name} {api_name}"), cipher });
        }
    }
    all
}

/// A manager with its expanded keys. Not `Send`: its jobs and buffers are one thread's.
struct MultiBuffer(NonNull<c_void>);

impl MultiBuffer {
    fn new(arch: c_int, keys: &Keys) -> Option<MultiBuffer> {
        let count = keys.count();
        // SAFETY: `count` keys of `len` octets each, and a salt of 4, are there; all are copied.
        unsafe { field_mb_new(arch, keys.octets.as_ptr(), count, keys.len, SALT.as_ptr()) }.map(MultiBuffer)
    }
}

impl Drop for MultiBuffer {
    fn drop(&mut self) {
        // SAFETY: made by `field_mb_new`, and given back once.
        unsafe { field_mb_free(self.0) }
    }
}

struct IpsecMb {
    manager: Rc<MultiBuffer>,
    api: c_int,
}

impl IpsecMb {
    fn run(&mut self, open: bool, burst: &mut Burst) -> bool {
        let lens = burst.lens().as_ptr();
        let (base, stride) = burst.raw();
        // SAFETY: each of the PACKETS packets lies in the burst's memory, `stride` behind the one before, with 16
        // octets in front of its text and 16 behind; nobody else has them while the burst is borrowed, and no other
        // thread has the manager.
        unsafe { field_mb_run(self.manager.0, self.api, open.into(), base, stride, lens, PACKETS) == 1 }
    }
}

impl Cipher for IpsecMb {
    fn seal(&mut self, burst: &mut Burst) {
        assert!(self.run(false, burst), "ipsec-mb takes all packets");
    }

    fn open(&mut self, burst: &mut Burst) -> bool {
        self.run(true, burst)
    }
}
