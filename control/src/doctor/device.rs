//! What `portcullis doctor` finds out about the interface of a route-based connection.

use super::{Finding, fail, ok, warn};
use crate::interface::path_of;
use portcullis_machine::Port;

/// IFF_UP and IFF_NOARP of linux/if.h.
const UP: u32 = 1;
const NOARP: u32 = 0x80;

/// Looks at an interface and its other end; `read` reads files of /sys and /proc.
pub(super) fn examine(name: &str, ports: &[Port], read: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let path = path_of(name);
    let check = |what: &str| format!("interface {name}, {what}");
    let of = |device: &str, file: &str| read(&format!("/sys/class/net/{device}/{file}"));
    let mut findings = vec![match ports.iter().any(|port| port.interface == path) {
        true => ok(check("port"), format!("{path} is one")),
        false => fail(
            check("port"),
            format!("{path} is no port: what is routed to {name} goes nowhere"),
            format!("[[port]] interface = \"{path}\" in portcullis.toml, and start the datapath again"),
        ),
    }];
    let Some(flags) =
        of(name, "flags").and_then(|f| u32::from_str_radix(f.trim_start_matches("0x"), 16).ok())
    else {
        let remedy = "portcullis up: portcullis-iked makes it";
        findings.push(fail(check("device"), "not in this network namespace", remedy));
        return findings;
    };
    findings.push(match (of(name, "iflink"), of(&path, "ifindex")) {
        (Some(link), Some(index)) if link == index => ok(check("device"), format!("a veth pair with {path}")),
        _ => fail(
            check("device"),
            format!("no veth pair with {path}"),
            format!("ip link del {name}, and start portcullis-iked again: it makes the pair"),
        ),
    });
    findings.push(match flags & UP != 0 {
        true => ok(check("state"), "up"),
        false => fail(check("state"), "down: it has no routes", format!("ip link set {name} up")),
    });
    findings.push(match flags & NOARP != 0 {
        true => ok(check("ARP"), "off"),
        false => fail(
            check("ARP"),
            "on, and nobody answers there: the gateway's own packets wait for neighbours",
            format!("ip link set {name} arp off"),
        ),
    });
    let filter = ["all", name].map(|of| read(&format!("/proc/sys/net/ipv4/conf/{of}/rp_filter")));
    // The kernel takes the larger one.
    findings.push(match filter.iter().flatten().filter_map(|n| n.parse::<u8>().ok()).max() {
        Some(1) => warn(
            check("rp_filter"),
            "strict: packets to the gateway from where no route leads back by this interface are dropped unseen",
            format!("sysctl net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{name}.rp_filter=2"),
        ),
        _ => ok(check("rp_filter"), "not strict"),
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    /// The verdicts on a device that is as it must be but for these files.
    fn verdicts(ports: &[&str], changed: &[(&str, Option<&str>)]) -> Vec<Verdict> {
        let good = [
            ("/sys/class/net/ipsec0/flags", "0x1083"),
            ("/sys/class/net/ipsec0/iflink", "8"),
            ("/sys/class/net/ipsec0-path/ifindex", "8"),
            ("/proc/sys/net/ipv4/conf/all/rp_filter", "0"),
            ("/proc/sys/net/ipv4/conf/ipsec0/rp_filter", "0"),
        ];
        let read = |file: &str| match changed.iter().find(|(f, _)| *f == file) {
            Some((_, text)) => text.map(str::to_owned),
            None => good.iter().find(|(f, _)| *f == file).map(|(_, text)| (*text).to_owned()),
        };
        let ports: Vec<_> = ports.iter().map(|p| Port { interface: (*p).into(), queues: None }).collect();
        examine("ipsec0", &ports, read).iter().map(|f| f.verdict).collect()
    }

    #[test]
    fn what_is_wrong_is_told() {
        use Verdict::{Fail, Ok, Warn};
        let ports = ["wan0", "ipsec0-path"];
        assert_eq!(verdicts(&ports, &[]), [Ok; 5]);
        assert_eq!(verdicts(&ports[..1], &[]), [Fail, Ok, Ok, Ok, Ok]);
        let flags = "/sys/class/net/ipsec0/flags";
        assert_eq!(verdicts(&ports, &[(flags, None)]), [Ok, Fail]);
        assert_eq!(verdicts(&ports, &[(flags, Some("0x1002"))]), [Ok, Ok, Fail, Fail, Ok]);
        for index in [None, Some("9")] {
            assert_eq!(
                verdicts(&ports, &[("/sys/class/net/ipsec0-path/ifindex", index)]),
                [Ok, Fail, Ok, Ok, Ok]
            );
        }
        for of in ["all", "ipsec0"] {
            let file = format!("/proc/sys/net/ipv4/conf/{of}/rp_filter");
            assert_eq!(verdicts(&ports, &[(&file, Some("1"))]), [Ok, Ok, Ok, Ok, Warn]);
        }
        // Loose is more than strict.
        let both = [
            ("/proc/sys/net/ipv4/conf/all/rp_filter", Some("1")),
            ("/proc/sys/net/ipv4/conf/ipsec0/rp_filter", Some("2")),
        ];
        assert_eq!(verdicts(&ports, &both), [Ok; 5]);
    }
}
