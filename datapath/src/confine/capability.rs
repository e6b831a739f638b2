//! The capabilities of a thread.

use std::io;

/// CAP_NET_ADMIN of `linux/capability.h`.
pub(super) const NET_ADMIN: u32 = 12;

/// _LINUX_CAPABILITY_VERSION_3 of `linux/capability.h`: two words of 32 capabilities each.
const VERSION_3: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    /// 0 is the calling thread.
    pid: i32,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Drops all capabilities of the calling thread but those of `kept` that it has, and what an `execve` would give
/// it beyond them.
pub(super) fn keep_only(kept: &[u32]) -> io::Result<()> {
    // SAFETY: these `prctl`s take numbers only.
    unsafe {
        // Kernels before 4.3 have no ambient capabilities.
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        // Up to the last capability that the kernel knows. Refused without CAP_SETPCAP, and then not needed: with
        // no new privileges an `execve` gives nothing that the thread does not have.
        let mut capability = 0;
        while libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) == 0 {
            capability += 1;
        }
    }
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: the kernel reads the header and fills two `Data`, as version 3 says.
    if unsafe { libc::syscall(libc::SYS_capget, &mut header, data.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for (word, data) in data.iter_mut().enumerate() {
        let kept = kept.iter().filter(|c| **c as usize / 32 == word).fold(0, |bits, c| bits | 1 << (c % 32));
        let permitted = data.permitted & kept;
        *data = Data { effective: permitted, permitted, inheritable: 0 };
    }
    // SAFETY: the kernel reads the header and two `Data`, as version 3 says.
    if unsafe { libc::syscall(libc::SYS_capset, &mut header, data.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
