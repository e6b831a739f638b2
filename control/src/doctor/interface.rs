//! What `portcullis doctor` finds out about an interface.

use super::{Finding, fail, ok, read, unknown, warn};
use crate::daemon::beside;
use portcullis_machine::{Datapath, Port, XdpMode};
use std::{fs, process::Command};

/// In front of each packet in a chunk: XDP's headroom.
const HEADROOM: u32 = 256;
/// An Ethernet header with two VLAN tags.
const LINK_HEADER: u32 = 22;

pub(super) fn examine(port: &Port, datapath: &Datapath, is_running: bool) -> Vec<Finding> {
    let name = &port.interface;
    let check = |what: &str| format!("interface {name}, {what}");
    let directory = format!("/sys/class/net/{name}");
    let Some(number) = read(&format!("{directory}/mtu")).and_then(|m| m.parse::<u32>().ok()) else {
        let there = fs::read_dir("/sys/class/net").into_iter().flatten().filter_map(Result::ok);
        let mut there: Vec<_> = there.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        there.sort();
        return vec![fail(
            format!("interface {name}"),
            format!("not in this network namespace; there are {}", there.join(", ")),
            "correct [[port]] interface in portcullis.toml",
        )];
    };
    let mut findings =
        vec![state(check("state"), name, &directory), mtu(check("MTU"), number, datapath.frame_size)];
    let queues = fs::read_dir(format!("{directory}/queues")).into_iter().flatten().filter_map(Result::ok);
    let queues = queues.filter(|e| e.file_name().to_string_lossy().starts_with("rx-")).count() as u32;
    let available = std::thread::available_parallelism().map_or(1, |n| n.get());
    let workers = datapath.worker_cores(available).len() as u32;
    findings.push(self::queues(check("queues"), port, queues, workers));
    findings.push(match is_running {
        true => ok(check("XDP"), "in use by the datapath; `portcullis status` shows how"),
        false => probe(check("XDP"), name, datapath.xdp_mode),
    });
    findings.push(offloads(check("offloads"), name));
    findings
}

fn state(check: String, name: &str, directory: &str) -> Finding {
    let is_up = read(&format!("{directory}/flags"))
        .and_then(|f| u32::from_str_radix(f.trim_start_matches("0x"), 16).ok())
        .is_some_and(|flags| flags & 1 != 0);
    match (is_up, read(&format!("{directory}/operstate")).as_deref()) {
        (false, _) => fail(check, "down", format!("ip link set {name} up")),
        (true, Some("up" | "unknown")) => ok(check, "up"),
        (true, state) => warn(
            check,
            format!("up, but without a link ({})", state.unwrap_or("?")),
            "see the cable, or its other end",
        ),
    }
}

fn mtu(check: String, mtu: u32, frame_size: u32) -> Finding {
    let most = frame_size - HEADROOM - LINK_HEADER;
    match mtu <= most {
        true => ok(check, format!("{mtu}: a frame fits a chunk of {frame_size}")),
        false => warn(
            check,
            format!("{mtu}: a frame takes several chunks of {frame_size}, which is slower"),
            match frame_size {
                2048 => format!("frame_size = 4096 in portcullis.toml, or ip link set mtu {most}"),
                _ => format!("ip link set mtu {most}, unless jumbo frames are needed"),
            },
        ),
    }
}

fn queues(check: String, port: &Port, there: u32, workers: u32) -> Finding {
    let name = &port.interface;
    let used = port.queues.map_or(there, |q| q.get());
    if used > there {
        return fail(
            check,
            format!("{used} configured, {there} there"),
            format!("lower [[port]] queues in portcullis.toml, or ethtool -L {name} combined {used}"),
        );
    }
    if used < there {
        return fail(
            check,
            format!("{used} of {there} used: what arrives on the others does not reach the datapath"),
            format!("leave out [[port]] queues in portcullis.toml, or ethtool -L {name} combined {used}"),
        );
    }
    match used < workers {
        true => warn(
            check,
            format!("{used} for {workers} workers: some only get what others hand to them"),
            format!("ethtool -L {name} combined {workers}, if the device can"),
        ),
        false => ok(check, used.to_string()),
    }
}

/// What the datapath's own program finds out by trying.
fn probe(check: String, name: &str, mode: XdpMode) -> Finding {
    let Some(program) = beside("portcullis-datapath") else {
        return unknown(
            check,
            "portcullis-datapath is not here to try",
            "install all three programs in one directory",
        );
    };
    match Command::new(program).args(["--probe", name]).output() {
        Ok(out) => {
            let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            probed(check, String::from_utf8_lossy(&out.stdout).trim(), &said, mode)
        }
        Err(e) => unknown(check, format!("portcullis-datapath could not be started: {e}"), "see the error"),
    }
}

fn probed(check: String, found: &str, said: &str, mode: XdpMode) -> Finding {
    match (found, mode) {
        ("driver zero-copy", _) => ok(check, "driver mode, zero-copy"),
        ("driver copy", _) => warn(
            check,
            "driver mode, but the kernel copies each packet",
            "a NIC whose driver has AF_XDP zero-copy is faster; on veth there is none",
        ),
        ("generic copy", XdpMode::Driver) => fail(
            check,
            "generic mode only, and xdp_mode = \"driver\"",
            "xdp_mode = \"auto\" in portcullis.toml, or a NIC whose driver has XDP",
        ),
        ("generic copy", _) => warn(
            check,
            "generic mode: each packet takes the slow way",
            "a NIC whose driver has XDP is much faster",
        ),
        _ => fail(check, if said.is_empty() { "nothing was told" } else { said }, "see the error"),
    }
}

/// Frames as large as a socket writes them, or without checksums, that only a NIC would complete: AF_XDP sees them before.
fn offloads(check: String, name: &str) -> Finding {
    let ethtool = |option: &str| {
        let out = Command::new("ethtool").args([option, name]).output().ok()?;
        Some(String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let (Some(driver), Some(features)) = (ethtool("-i"), ethtool("-k")) else {
        return unknown(check, "not known: there is no ethtool", "apt-get install ethtool");
    };
    judge_offloads(check, name, &driver, &features)
}

fn judge_offloads(check: String, name: &str, driver: &str, features: &str) -> Finding {
    let is_on = |feature: &str| {
        features.lines().any(|l| l.trim().strip_prefix(feature).is_some_and(|v| v.starts_with(": on")))
    };
    if driver.lines().any(|l| l == "driver: veth") {
        return match is_on("tx-checksumming") || is_on("tcp-segmentation-offload") {
            true => warn(
                check,
                "a veth with offloads: most likely its other end has them too, and sends frames without checksums",
                "ethtool -K PEER tx off sg off tso off gso off at its other end",
            ),
            false => ok(check, "off"),
        };
    }
    match is_on("large-receive-offload") {
        true => warn(
            check,
            "large-receive-offload on: frames larger than the MTU arrive",
            format!("ethtool -K {name} lro off"),
        ),
        false => ok(check, "none that changes what arrives"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;
    use std::num::NonZeroU32;

    fn check() -> String {
        "x".to_owned()
    }

    #[test]
    fn frames_fit_chunks() {
        for (mtu, size, verdict) in [
            (1500, 2048, Verdict::Ok),
            (1770, 2048, Verdict::Ok),
            (1771, 2048, Verdict::Warn),
            (3818, 4096, Verdict::Ok),
            (9000, 4096, Verdict::Warn),
        ] {
            assert_eq!(super::mtu(check(), mtu, size).verdict, verdict, "{mtu} {size}");
        }
    }

    #[test]
    fn all_queues_are_needed() {
        let port = |queues| Port { interface: "eth0".into(), queues: NonZeroU32::new(queues) };
        for (configured, there, workers, verdict) in [
            (0, 4, 4, Verdict::Ok),
            (0, 4, 8, Verdict::Warn),
            (4, 4, 2, Verdict::Ok),
            (5, 4, 2, Verdict::Fail),
            (2, 4, 2, Verdict::Fail),
        ] {
            assert_eq!(queues(check(), &port(configured), there, workers).verdict, verdict);
        }
    }

    #[test]
    fn what_the_probe_says_is_judged() {
        for (found, mode, verdict) in [
            ("driver zero-copy", XdpMode::Auto, Verdict::Ok),
            ("driver copy", XdpMode::Driver, Verdict::Warn),
            ("generic copy", XdpMode::Auto, Verdict::Warn),
            ("generic copy", XdpMode::Driver, Verdict::Fail),
            ("", XdpMode::Auto, Verdict::Fail),
        ] {
            assert_eq!(probed(check(), found, "busy", mode).verdict, verdict, "{found}");
        }
        assert_eq!(probed(check(), "", "busy", XdpMode::Auto).found, "busy");
    }

    #[test]
    fn offloads_are_judged() {
        let judge = |driver: &str, features: &str| judge_offloads(check(), "e", driver, features).verdict;
        assert_eq!(judge("driver: veth\n", "tx-checksumming: on\n"), Verdict::Warn);
        assert_eq!(
            judge("driver: veth\n", "tx-checksumming: off\n\ttx-checksum-ip-generic: off\n"),
            Verdict::Ok
        );
        assert_eq!(
            judge("driver: ice\n", "tx-checksumming: on\nlarge-receive-offload: off [fixed]\n"),
            Verdict::Ok
        );
        assert_eq!(judge("driver: ice\n", "large-receive-offload: on\n"), Verdict::Warn);
    }

    #[test]
    fn an_interface_that_is_not_there_fails() {
        let machine = portcullis_machine::Machine::parse(&portcullis_machine::strict::Document::from_text(
            "portcullis.toml",
            "[[port]]\ninterface = \"not-there-0\"\n",
        ))
        .unwrap();
        let findings = examine(&machine.ports[0], &machine.datapath, false);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].verdict, Verdict::Fail);
        assert!(findings[0].found.contains("lo"), "{:?}", findings[0]);
    }
}
