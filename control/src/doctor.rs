//! What `portcullis doctor` looks at, and what to do about it.

mod device;
mod interface;

use crate::{
    config::{Connections, ConnectionsError},
    daemon::beside,
    gateway,
};
use portcullis_machine::{HUGE_PAGE, HugePages, Machine, strict::ConfigError};
use rustix::{
    net::{AddressFamily, SocketType, socket},
    process::{Resource, geteuid, getrlimit},
};
use serde::Serialize;
use std::{fmt::Write, fs, io, path::Path};

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
    /// It could not be found out.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
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

/// The oldest kernel that has what the datapath asks of AF_XDP.
const KERNEL: (u32, u32) = (5, 15);
/// The oldest kernel whose AF_XDP takes frames in several chunks.
const JUMBO_KERNEL: (u32, u32) = (6, 6);
/// Capabilities by number, name, and what needs them.
const CAPABILITIES: [(u32, &str, &str); 4] = [
    (12, "CAP_NET_ADMIN", "attach the XDP program"),
    (13, "CAP_NET_RAW", "open AF_XDP sockets"),
    (14, "CAP_IPC_LOCK", "lock keys and frames in memory"),
    (39, "CAP_BPF", "load the XDP program"),
];

/// Looks at everything, for the configuration in a directory.
pub fn examine(config: &Path) -> Vec<Finding> {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut findings = vec![
        kernel(&release),
        af_xdp(),
        capabilities(&read("/proc/self/status").unwrap_or_default()),
        programs(),
        locked_memory(),
    ];
    let loaded = Connections::load(config);
    let tunnels: Vec<_> = loaded.iter().flat_map(|c| c.interfaces()).cloned().collect();
    let machine = match Machine::load(config) {
        Ok(machine) => machine,
        Err(e) => {
            findings.push(connections(loaded));
            findings.push(configuration(&e));
            return findings;
        }
    };
    let ports = &machine.datapath.udp_encap_ports;
    findings.push(connections(loaded.and_then(|c| c.check_udp_ports(ports).map(|()| c))));
    findings.push(ok("portcullis.toml", format!("{} ports", machine.ports.len())));
    findings.push(regions(&machine));
    findings.push(huge_pages(&machine, &read("/proc/meminfo").unwrap_or_default()));
    findings.push(workers(&machine, std::thread::available_parallelism().map_or(1, |n| n.get())));
    findings.push(forwarding(read));
    let is_running = gateway::is_running(&machine.regions.directory);
    for port in &machine.ports {
        findings.extend(interface::examine(port, &machine.datapath, is_running));
    }
    for name in &tunnels {
        findings.extend(device::examine(name, &machine.ports, read));
    }
    findings.push(irqbalance(&machine));
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
            Verdict::Unknown => "?   ",
        };
        let _ = writeln!(out, "{verdict}  {}: {}", f.check, f.found);
        if let Some(remedy) = &f.remedy {
            let _ = writeln!(out, "      -> {remedy}");
        }
    }
    let count = |v| findings.iter().filter(|f| f.verdict == v).count();
    let (fails, warns) = (count(Verdict::Fail), count(Verdict::Warn));
    let _ = writeln!(out, "{} checks: {fails} fail, {warns} warn", findings.len());
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

fn unknown(check: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Unknown, ..warn(check, found, remedy) }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|s| s.trim().to_owned())
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let boot = |(major, minor)| format!("boot Linux {major}.{minor} or newer");
    if version < KERNEL {
        return fail("kernel", release, boot(KERNEL));
    }
    match version < JUMBO_KERNEL {
        true => warn("kernel", format!("{release}: AF_XDP without jumbo frames"), boot(JUMBO_KERNEL)),
        false => ok("kernel", release),
    }
}

fn af_xdp() -> Finding {
    use rustix::io::Errno;
    match socket(AddressFamily::XDP, SocketType::RAW, None) {
        Ok(_) => ok("AF_XDP", "a socket can be made"),
        Err(Errno::PERM | Errno::ACCESS) => {
            fail("AF_XDP", "no permission to make a socket", "run as root, or give CAP_NET_RAW")
        }
        Err(Errno::AFNOSUPPORT) => fail(
            "AF_XDP",
            "not in this kernel",
            "use a kernel with CONFIG_XDP_SOCKETS=y (that of Debian has it)",
        ),
        Err(e) => fail("AF_XDP", io::Error::from(e).to_string(), "see the error"),
    }
}

fn capabilities(status: &str) -> Finding {
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let bits = effective.and_then(|h| u64::from_str_radix(h.trim(), 16).ok()).unwrap_or(0);
    let missing: Vec<_> = CAPABILITIES
        .iter()
        .filter(|(n, ..)| bits >> n & 1 == 0)
        .map(|(_, name, need)| format!("{name} (to {need})"))
        .collect();
    match missing.is_empty() {
        true => ok("capabilities", "all there"),
        false => fail(
            "capabilities",
            format!("missing: {}", missing.join(", ")),
            "run as root, or give them to the service (AmbientCapabilities=) or the programs (setcap)",
        ),
    }
}

fn programs() -> Finding {
    let missing: Vec<_> =
        ["portcullis-iked", "portcullis-datapath"].into_iter().filter(|p| beside(p).is_none()).collect();
    match missing.is_empty() {
        true => ok("programs", "both daemons are beside this program"),
        false => fail(
            "programs",
            format!("not beside this program: {}", missing.join(", ")),
            "install all three programs in one directory",
        ),
    }
}

fn locked_memory() -> Finding {
    match getrlimit(Resource::Memlock).current {
        None => ok("locked memory", "no limit"),
        Some(_) if geteuid().is_root() => ok("locked memory", "no limit for root"),
        Some(n) => warn(
            "locked memory",
            format!("limited to {n} bytes"),
            "LimitMEMLOCK=infinity in the service, or CAP_IPC_LOCK",
        ),
    }
}

fn connections(loaded: Result<Connections, ConnectionsError>) -> Finding {
    match loaded {
        Ok(c) => ok("connections.toml", format!("{} connections", c.connections.len())),
        Err(e) => fail("connections.toml", e.to_string(), "correct the file; README.md has an example"),
    }
}

fn configuration(e: &ConfigError) -> Finding {
    fail("portcullis.toml", e.to_string(), "correct the file, and run this again: the rest depends on it")
}

fn regions(machine: &Machine) -> Finding {
    let directory = &machine.regions.directory;
    let (check, shown) = ("regions", directory.display());
    // The nearest directory there is: iked makes those below it.
    let there = directory.ancestors().find(|d| d.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statfs(there) {
        Err(e) => unknown(check, format!("{shown}: {}", io::Error::from(e)), "see the error"),
        Ok(stat) if stat.f_type != TMPFS => warn(
            check,
            format!("{shown} is not in memory: keys would be written to a disk"),
            "choose a [regions] directory in /run",
        ),
        Ok(_) => ok(check, format!("{shown} is in memory")),
    }
}

/// TMPFS_MAGIC of linux/magic.h.
const TMPFS: i64 = 0x0102_1994;

fn huge_pages(machine: &Machine, meminfo: &str) -> Finding {
    let datapath = &machine.datapath;
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|l| l.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    if datapath.huge_pages == HugePages::Off {
        return ok("huge pages", "not wanted");
    }
    let needed = u64::from(datapath.umem_huge_pages());
    let free = field("HugePages_Free:").unwrap_or(0);
    let all = field("HugePages_Total:").unwrap_or(0);
    let found = format!("{free} of {all} are free, the umem takes {needed}");
    let remedy =
        format!("sysctl vm.nr_hugepages={}, and the same in /etc/sysctl.d", all - free.min(all) + needed);
    match (field("Hugepagesize:") == Some(HUGE_PAGE as u64 / 1024) && free >= needed, datapath.huge_pages) {
        (true, _) => ok("huge pages", found),
        (false, HugePages::Require) => fail("huge pages", found, remedy),
        (false, _) => warn(
            "huge pages",
            format!("{found}: it will be of transparent ones, if the system can make them, or small ones"),
            remedy,
        ),
    }
}

fn workers(machine: &Machine, available: usize) -> Finding {
    let mut cores = machine.datapath.worker_cores(available);
    let workers = cores.len();
    if let Some(core) = cores.iter().find(|c| !Path::new(&format!("/sys/devices/system/cpu/cpu{c}")).exists())
    {
        return fail(
            "workers",
            format!("there is no core {core}"),
            "correct [datapath] cores in portcullis.toml",
        );
    }
    cores.sort_unstable();
    cores.dedup();
    match cores.len() < workers {
        true => warn(
            "workers",
            format!("{workers} workers share {} cores", cores.len()),
            "workers that share a core wait for each other: lower [datapath] workers",
        ),
        false => ok("workers", format!("{workers}, each on a core of its own")),
    }
}

/// With the datapath down in good order, its XDP program is off, and the kernel would forward in clear.
fn forwarding(read: impl Fn(&str) -> Option<String>) -> Finding {
    let on: Vec<_> = [
        ("net.ipv4.ip_forward", "ipv4/ip_forward"),
        ("net.ipv6.conf.all.forwarding", "ipv6/conf/all/forwarding"),
    ]
    .into_iter()
    .filter(|(_, path)| read(&format!("/proc/sys/net/{path}")).as_deref() == Some("1"))
    .map(|(name, _)| name)
    .collect();
    match on.is_empty() {
        true => ok("kernel forwarding", "off: nothing leaves in clear behind the gateway's back"),
        false => warn(
            "kernel forwarding",
            format!(
                "{} on: what reaches the kernel leaves in clear, all of it while the gateway is down",
                on.join(" and ")
            ),
            format!("sysctl {}", on.iter().map(|n| format!("{n}=0")).collect::<Vec<_>>().join(" ")),
        ),
    }
}

fn irqbalance(machine: &Machine) -> Finding {
    let runs = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok).any(|entry| {
        let name = entry.file_name();
        let is_pid = name.to_string_lossy().bytes().all(|b| b.is_ascii_digit());
        is_pid && read(&format!("/proc/{}/comm", name.to_string_lossy())).as_deref() == Some("irqbalance")
    });
    let ports: Vec<_> = machine.ports.iter().map(|p| p.interface.as_str()).collect();
    match runs {
        false => ok("irqbalance", "does not run"),
        true => warn(
            "irqbalance",
            "runs, and moves the queues' interrupts between cores",
            format!("ban the interrupts of {} (IRQBALANCE_ARGS=--banirq=...), or stop it", ports.join(", ")),
        ),
    }
}

#[cfg(test)]
mod tests;
