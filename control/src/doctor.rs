//! What `portcullis doctor` looks at, and what to do about it.

use portcullis_machine::Machine;
use serde::Serialize;
use std::{fmt::Write, fs, path::Path, process::Command};

/// How a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but less well.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do, unless it is as it should be.
    pub remedy: Option<String>,
}

/// The oldest kernel that has what AF_XDP here needs (multi-buffer packets).
const KERNEL: (u32, u32) = (6, 6);
/// Capabilities by number and name.
const CAPABILITIES: [(u32, &str); 4] =
    [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (14, "CAP_IPC_LOCK"), (39, "CAP_BPF")];

/// Looks at everything.
pub fn examine(config: &Path) -> Vec<Finding> {
    let mut findings = vec![kernel(), capabilities(), huge_pages(), locked_memory(), programs()];
    match Machine::load(config) {
        Ok(machine) => {
            for port in &machine.ports {
                findings.extend(interface(&port.interface));
            }
        }
        Err(e) => {
            findings.push(fail("configuration", e.to_string(), "write the file; README.md has an example"))
        }
    }
    findings
}

/// The findings for people.
pub fn print(findings: &[Finding]) -> String {
    let mut out = String::new();
    for f in findings {
        let verdict = match f.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        let _ = writeln!(out, "{verdict}  {}: {}", f.check, f.found);
        if let Some(remedy) = &f.remedy {
            let _ = writeln!(out, "      -> {remedy}");
        }
    }
    out
}

fn ok(check: impl Into<String>, found: impl Into<String>) -> Finding {
    Finding { check: check.into(), verdict: Verdict::Ok, found: found.into(), remedy: None }
}

fn warn(check: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Warn, remedy: Some(remedy.into()), ..ok(check, found) }
}

fn fail(check: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Fail, ..warn(check, found, remedy) }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|s| s.trim().to_owned())
}

fn kernel() -> Finding {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let remedy = format!("boot Linux {}.{} or newer", KERNEL.0, KERNEL.1);
    match version >= KERNEL {
        true => ok("kernel", release),
        false if version >= (5, 19) => warn("kernel", format!("{release}: no jumbo frames"), remedy),
        false => fail("kernel", release, remedy),
    }
}

fn capabilities() -> Finding {
    let status = read("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let bits = effective.and_then(|h| u64::from_str_radix(h.trim(), 16).ok()).unwrap_or(0);
    let missing: Vec<_> =
        CAPABILITIES.iter().filter(|(n, _)| bits >> n & 1 == 0).map(|(_, name)| *name).collect();
    match missing.is_empty() {
        true => ok("capabilities", "all there"),
        false => fail(
            "capabilities",
            format!("missing: {}", missing.join(", ")),
            "run as root, or give them to the programs with setcap",
        ),
    }
}

fn huge_pages() -> Finding {
    let free = read("/proc/meminfo").unwrap_or_default();
    let free = free.lines().find_map(|l| l.strip_prefix("HugePages_Free:")?.trim().parse::<u64>().ok());
    match free {
        Some(n) if n >= 32 => ok("huge pages", format!("{n} of 2 MiB free")),
        n => warn(
            "huge pages",
            format!("{} free", n.unwrap_or(0)),
            "sysctl vm.nr_hugepages=64 gives the default umem of 64 MiB 32 pages and some to spare",
        ),
    }
}

fn locked_memory() -> Finding {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    match limit {
        None => ok("locked memory", "not limited"),
        Some(n) if rustix::process::geteuid().is_root() => {
            ok("locked memory", format!("{n} octets, which does not bind root"))
        }
        Some(n) => warn(
            "locked memory",
            format!("{n} octets"),
            "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit",
        ),
    }
}

fn programs() -> Finding {
    let own = std::env::current_exe().ok().and_then(|p| p.parent().map(Path::to_owned)).unwrap_or_default();
    let missing: Vec<_> =
        ["portcullis-iked", "portcullis-datapath"].into_iter().filter(|p| !own.join(p).exists()).collect();
    match missing.is_empty() {
        true => ok("programs", format!("all in {}", own.display())),
        false => fail(
            "programs",
            format!("not in {}: {}", own.display(), missing.join(", ")),
            "install all three programs in one directory",
        ),
    }
}

fn interface(name: &str) -> Vec<Finding> {
    let dir = format!("/sys/class/net/{name}");
    let Some(mtu) = read(format!("{dir}/mtu")).and_then(|m| m.parse::<u32>().ok()) else {
        let there = fs::read_dir("/sys/class/net").into_iter().flatten().filter_map(Result::ok);
        let there: Vec<_> = there.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        let found = format!("not in this network namespace; there are {}", there.join(", "));
        return vec![fail(
            format!("interface {name}"),
            found,
            "correct [[port]] interface in portcullis.toml",
        )];
    };
    let check = |what: &str| format!("interface {name}, {what}");
    let mut findings = vec![match read(format!("{dir}/operstate")).as_deref() {
        Some("up" | "unknown") => ok(check("state"), "up"),
        state => fail(check("state"), state.unwrap_or("?"), format!("ip link set {name} up")),
    }];
    findings.push(match mtu {
        ..=3498 => ok(check("MTU"), mtu.to_string()),
        _ => warn(
            check("MTU"),
            format!("{mtu}: frames take several chunks, which are copied for the crypto"),
            "an MTU up to 3498 fits one chunk of 4096",
        ),
    });
    let queues = fs::read_dir(format!("{dir}/queues")).into_iter().flatten().filter_map(Result::ok);
    let queues = queues.filter(|e| e.file_name().to_string_lossy().starts_with("rx-")).count();
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    findings.push(match queues {
        n if n >= cores => ok(check("queues"), n.to_string()),
        n => warn(
            check("queues"),
            format!("{n} for {cores} cores: one worker feeds the others"),
            format!("ethtool -L {name} combined {cores}, if the device can"),
        ),
    });
    findings.push(probe(name));
    if let Ok(out) = Command::new("ethtool").args(["-k", name]).output() {
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let driver = Command::new("ethtool").args(["-i", name]).output();
        let veth = driver.is_ok_and(|d| String::from_utf8_lossy(&d.stdout).contains("driver: veth"));
        if veth && text.contains("tx-checksumming: on") {
            findings.push(warn(
                check("checksums"),
                "a veth that leaves checksums to its peer",
                "ethtool -K PEER tx off tso off gso off at the other end",
            ));
        }
    }
    if read("/proc/sys/net/ipv4/ip_forward").as_deref() == Some("1") {
        findings.push(warn(
            "forwarding",
            "the kernel forwards what is not protected",
            "sysctl net.ipv4.ip_forward=0, unless it is meant to",
        ));
    }
    findings
}

/// What the datapath's own program finds out about an interface.
fn probe(name: &str) -> Finding {
    let check = format!("interface {name}, XDP");
    let own = std::env::current_exe().ok().and_then(|p| Some(p.parent()?.join("portcullis-datapath")));
    let Some(program) = own.filter(|p| p.exists()) else {
        return warn(
            check,
            "not known: portcullis-datapath is not beside this program",
            "install all three programs in one directory",
        );
    };
    match Command::new(program).args(["--probe", name]).output() {
        Ok(out) => {
            let found = String::from_utf8_lossy(&out.stdout).trim().to_owned();
            let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            match found.as_str() {
                "driver zero-copy" => ok(check, "driver mode, zero-copy"),
                "driver copy" => warn(
                    check,
                    "driver mode, but the kernel copies each packet",
                    "a NIC whose driver has AF_XDP zero-copy is faster",
                ),
                "generic copy" => {
                    warn(check, "generic mode: slow", "a NIC whose driver has XDP is much faster")
                }
                _ => fail(check, said, "see the error"),
            }
        }
        Err(e) => fail(check, e.to_string(), "see the error"),
    }
}
