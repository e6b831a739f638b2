//! Looks for Intel's ipsec-mb (Debian: libipsec-mb-dev). Without it, the others are measured.

use std::path::Path;

const HEADER: &str = "/usr/include/intel-ipsec-mb.h";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(ipsec_mb)");
    println!("cargo::rerun-if-changed=ipsec_mb.c");
    println!("cargo::rerun-if-changed=suites.c");
    println!("cargo::rerun-if-changed={HEADER}");
    if Path::new(HEADER).exists() {
        cc::Build::new().files(["ipsec_mb.c", "suites.c"]).opt_level(3).compile("field_ipsec_mb");
        println!("cargo::rustc-link-lib=IPSec_MB");
        println!("cargo::rustc-cfg=ipsec_mb");
    }
}
