//! A status as people read it.

use super::{BytesPerSaStatus, ConnectionStatus, DatapathStatus, PairStatus, Status, Told, WorkerBytesTold};
use crate::{
    report::{InterfaceReport, StockReport},
    table::Table,
    vici::socket::SOCKET_FILE,
};
use std::fmt::{self, Write};

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_processes(f)?;
        if let Some(r) = &self.regions {
            let of = |n: Option<String>| n.map(|n| n + " of ").unwrap_or_default();
            let (sas, policies) =
                self.iked.as_ref().map(|i| (i.sas.to_string(), i.policies.to_string())).unzip();
            writeln!(
                f,
                "regions   {}: {}{} SAs, {}{} policies",
                r.directory.display(),
                of(sas),
                r.max_sas,
                of(policies),
                r.max_policies
            )?;
            self.write_memory(f, &r.bytes_per_sa)?;
            if self.ike.is_some() {
                writeln!(f, "vici      unix://{}", r.directory.join(SOCKET_FILE).display())?;
            }
        }
        if let Some(told) = self.datapath.as_ref().and_then(|d| d.told.as_ref()) {
            write_ports(f, told)?;
        }
        if let Some(connections) = &self.connections {
            write_connections(f, connections)?;
        }
        if let Some(ike) = &self.ike {
            write!(f, "\n{ike}")?;
        }
        match &self.datapath {
            Some(d) if !d.workers.is_empty() => write_workers(f, d),
            _ => Ok(()),
        }
    }
}

impl Status {
    fn write_processes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.iked, &self.iked_error) {
            (Some(iked), _) => {
                let keys = if iked.keys_locked { "locked in memory" } else { "NOT locked in memory" };
                writeln!(f, "iked      process {}; keys {keys}", iked.pid)?;
            }
            (None, why) => writeln!(f, "iked      {}", why.as_deref().unwrap_or("does not run"))?,
        }
        match (&self.datapath, &self.datapath_error) {
            (Some(DatapathStatus { alive: true, ready: true, told: Some(told), workers, .. }), _) => {
                let cores: Vec<_> = told.cores.iter().map(u32::to_string).collect();
                let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
                writeln!(
                    f,
                    "datapath  process {}; {} on {} {}; crypto {}; {}",
                    told.pid,
                    plural(workers.len(), "worker"),
                    if cores.len() == 1 { "core" } else { "cores" },
                    cores.join(", "),
                    told.crypto,
                    if told.huge_pages { "huge pages" } else { "small pages" }
                )
            }
            (Some(DatapathStatus { alive: true, ready, .. }), _) => {
                writeln!(f, "datapath  {}", if *ready { "runs" } else { "starts" })
            }
            (Some(_), _) => writeln!(f, "datapath  does not run; start it: portcullis up"),
            (None, why) => writeln!(f, "datapath  {}", why.as_deref().unwrap_or("does not run")),
        }
    }
}

impl Status {
    fn write_memory(&self, f: &mut fmt::Formatter<'_>, b: &BytesPerSaStatus) -> fmt::Result {
        write!(
            f,
            "memory    bytes per SA: regions {} (slot {}, index {}, runtime {}) and {} for policies",
            b.total, b.slot, b.index, b.runtime, b.policies
        )?;
        let told = self.datapath.as_ref().and_then(|d| d.told.as_ref());
        if let Some(WorkerBytesTold { state, index }) = told.and_then(|t| t.bytes_per_sa) {
            write!(f, "; datapath {state} in its worker and {index} in each")?;
        }
        if let Some(bytes) = self.iked.as_ref().and_then(|i| i.bytes_per_sa) {
            write!(f, "; iked {bytes}")?;
        }
        writeln!(f)
    }
}

fn write_ports(f: &mut fmt::Formatter<'_>, told: &Told) -> fmt::Result {
    let mut table = Table::new(&["port", "mode", "copies", "need wakeup", "queues", "MTU"]);
    let yes = |b: bool| (if b { "yes" } else { "no" }).to_owned();
    for p in &told.ports {
        let copies = if p.zero_copy { "zero-copy" } else { "copy" }.to_owned();
        let (queues, mtu) = (p.queues.to_string(), p.mtu.to_string());
        table.row([p.interface.clone(), p.mode.clone(), copies, yes(p.need_wakeup), queues, mtu]);
    }
    write!(f, "\n{table}")?;
    let fallbacks = [&told.huge_pages_fallback, &told.copy_reason, &told.keys_not_locked];
    for why in fallbacks.into_iter().flatten() {
        writeln!(f, "note: {why}")?;
    }
    for (p, why) in told.ports.iter().filter_map(|p| Some((p, p.mode_fallback.as_ref()?))) {
        writeln!(f, "note: {}: {why}", p.interface)?;
    }
    Ok(())
}

fn write_connections(f: &mut fmt::Formatter<'_>, connections: &[ConnectionStatus]) -> fmt::Result {
    if connections.is_empty() {
        return writeln!(f, "\nno connections");
    }
    let mut table =
        Table::new(&["connection", "state", "local", "remote", "SAs", "algorithm", "key", "protects"]);
    let mut sas = Table::new(&[
        "SA",
        "",
        "SPI",
        "packets",
        "bytes",
        "last sequence",
        "replays",
        "too old",
        "bad ICVs",
        "refused",
    ]);
    for c in connections {
        let state = if c.up { "up" } else { "down" }.to_owned();
        let mut protects = match &c.interface {
            Some(InterfaceReport { name, routes, .. }) => {
                format!("what is routed to {name}: {routes} prefixes")
            }
            None => format!("{} <-> {}", c.local_ts.join(", "), c.remote_ts.join(", ")),
        };
        if !["", "any"].contains(&&*c.next_layer) {
            write!(protects, ", {}", c.next_layer)?;
        }
        let moved = c.outbound.as_ref().and_then(|sa| sa.sa.peer.clone());
        let (local, remote) = (c.local.clone(), moved.unwrap_or_else(|| c.remote.clone()));
        let kind = format!("{} {}", c.protocol, c.mode);
        let (algorithm, key) = (c.algorithm.clone(), c.key.clone());
        table.row([c.name.clone(), state, local, remote, kind, algorithm, key, protects]);
        let of_others = if c.pairs.iter().any(|p| !p.dscp.is_empty()) { ", other DSCPs" } else { "" };
        let first =
            [("inbound", of_others.to_owned(), &c.inbound), ("outbound", of_others.to_owned(), &c.outbound)];
        let others = c
            .pairs
            .iter()
            .flat_map(|p| [("inbound", p.what(), &p.inbound), ("outbound", p.what(), &p.outbound)]);
        for (way, what, sa) in first.into_iter().chain(others) {
            let Some(s) = sa else { continue };
            let sequence = if way == "inbound" { s.highest_seen } else { s.reserved_seq };
            let numbers = [
                s.packets,
                s.bytes,
                sequence,
                s.replay_duplicates,
                s.replay_too_old,
                s.icv_failures,
                s.refused,
            ];
            let head = [c.name.clone(), format!("{way}{what}"), s.sa.spi.clone()];
            sas.row(head.into_iter().chain(numbers.iter().map(u64::to_string)));
        }
    }
    write!(f, "\n{table}")?;
    for InterfaceReport { name, problem, .. } in connections.iter().filter_map(|c| c.interface.as_ref()) {
        if let Some(problem) = problem {
            writeln!(f, "note: {name}: {problem}")?;
        }
    }
    write!(f, "\n{sas}")?;
    writeln!(f, "(outbound sequence numbers are reserved in blocks: the last of the block is shown)")?;
    for (c, stock) in connections.iter().filter_map(|c| Some((c, c.stock?))) {
        let StockReport { pairs, taken, refused } = stock;
        write!(f, "note: connection '{}': {taken} of {pairs} pairs of its stock are used", c.name)?;
        match refused {
            0 => writeln!(f)?,
            n => writeln!(f, "; packets asked {n} times for more: add [[connection.sas]] and reload")?,
        }
    }
    Ok(())
}

impl PairStatus {
    /// What it is for, behind its way.
    fn what(&self) -> String {
        match (&self.dscp[..], &self.selector) {
            ([], None) => ", not in use".to_owned(),
            ([], Some(selector)) => format!(", {selector}"),
            (dscps, _) => {
                let dscps: Vec<_> = dscps.iter().map(u8::to_string).collect();
                format!(", DSCP {}", dscps.join(" "))
            }
        }
    }
}

fn write_workers(f: &mut fmt::Formatter<'_>, d: &DatapathStatus) -> fmt::Result {
    let mut table =
        Table::new(&["worker", "busy ms", "rx packets", "rx bytes", "tx packets", "tx bytes", "dropped"]);
    for w in &d.workers {
        let packets = [w.rx_packets, w.rx_bytes, w.tx_packets, w.tx_bytes, w.dropped];
        let numbers = [w.worker as u64, w.busy_us / 1000].into_iter().chain(packets);
        table.row(numbers.map(|n| n.to_string()));
    }
    write!(f, "\n{table}")?;
    let mut drops = String::new();
    for (reason, n) in d.drops.iter().filter(|(_, n)| **n != 0) {
        write!(drops, " {reason} {n}")?;
    }
    let mut before = String::new();
    for w in &d.workers {
        for (what, n) in [
            ("rx_ring_full", w.rx_ring_full),
            ("rx_no_chunk", w.rx_no_chunk),
            ("rx_dropped", w.rx_dropped),
            ("invalid_descriptors", w.invalid_descriptors),
        ] {
            if n != 0 {
                write!(before, " {what} {n} (worker {})", w.worker)?;
            }
        }
    }
    if !before.is_empty() {
        writeln!(f, "dropped before the workers:{before}")?;
    }
    let mut steered = String::new();
    for (reason, n) in d.steering.iter().filter(|(_, n)| **n != 0) {
        write!(steered, " {reason} {n}")?;
    }
    if !steered.is_empty() {
        writeln!(f, "steered:{steered}")?;
    }
    writeln!(f, "drops:{}", if drops.is_empty() { " none" } else { &drops })?;
    let lost: u64 = d.workers.iter().map(|w| w.events_lost).sum();
    if lost > 0 {
        writeln!(f, "note: {lost} events were lost, as iked was too slow or away")?;
    }
    let untold: u64 = d.workers.iter().map(|w| w.acquires_untold).sum();
    if untold > 0 {
        writeln!(
            f,
            "note: {untold} packets asked for SAs of which iked was not told, as there were too many"
        )?;
    }
    Ok(())
}
