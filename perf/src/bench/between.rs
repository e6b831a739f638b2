//! Interfaces that gateways to be measured stand between.

use crate::{
    generator::{
        flows::{Addresses, Choice, Flows, Ports},
        writer::Stream,
    },
    interface::{cores, mac, place, queues},
    report::Table,
    traffic::Mix,
    wire::Wire,
};
use clap::Args;
use portcullis_datapath::fib::Mac;
use serde_json::{Value, json};
use std::{error::Error, fs, net::IpAddr, process, time::SystemTime};

/// As IMIX, but for what has no room in a tunnel over Ethernet.
pub const FITTING: &str = "64:28,570:16,1400:4";

/// Two of this host's interfaces. Without `--out`, gateways are in memory.
#[derive(Args, Clone, Debug)]
#[command(
    next_help_heading = "Gateways between two interfaces, over veth or NICs, in place of those in memory"
)]
pub struct Between {
    /// The interface to send by.
    #[arg(long = "out", value_name = "INTERFACE", requires_all = ["back", "dst_mac", "src", "dst"])]
    out: Option<String>,
    /// The one where packets come out. Neither may be used by another program.
    #[arg(long = "in", id = "back", value_name = "INTERFACE", requires = "out")]
    back: Option<String>,
    /// MAC address of the gateway that packets are sent to.
    #[arg(long, value_name = "MAC", value_parser = mac, requires = "out")]
    dst_mac: Option<Mac>,
    /// Source address of packets.
    #[arg(long, value_name = "ADDRESS", requires = "out")]
    src: Option<IpAddr>,
    /// Destination address of packets: the first, where there are several (--sas).
    #[arg(long, value_name = "ADDRESS", requires = "out")]
    dst: Option<IpAddr>,
    /// Flows to each destination address, by source port [default: one of each sender].
    #[arg(long, value_name = "N", requires = "out", value_parser = clap::value_parser!(u16).range(1..))]
    flows: Option<u16>,
    /// Cores that send, the first of them --core, which receives as well. Each has flows of its own.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "out", value_parser = clap::value_parser!(u16).range(1..=64))]
    senders: u16,
}

impl Between {
    /// Both, if there are any.
    fn ends(&self) -> Option<[&str; 2]> {
        Some([self.out.as_deref()?, self.back.as_deref()?])
    }

    /// Whether gateways are between interfaces.
    pub fn is_used(&self) -> bool {
        self.out.is_some()
    }

    /// Where it is measured.
    pub fn place(&self) -> Option<String> {
        self.out.as_deref().map(place)
    }

    /// Flows to each destination address.
    fn flows(&self) -> u16 {
        self.flows.unwrap_or(self.senders)
    }

    /// Whether packets of these sizes can be sent.
    ///
    /// # Errors
    /// Fewer flows than senders, or fewer cores; packets that are too long for the interface.
    pub fn check(&self, sizes: &Mix) -> Result<(), String> {
        let Some([out, _]) = self.ends() else { return Ok(()) };
        let (flows, senders, cores) = (self.flows(), self.senders, cores());
        if flows < senders {
            return Err(format!("--flows {flows}: each of {senders} senders has one of its own at least"));
        }
        if usize::from(senders) > cores {
            return Err(format!("--senders {senders}: there are {cores} cores, and each has one"));
        }
        // That there is no such interface is told where it is opened.
        let (longest, mtu) = (sizes.longest(), mtu(out));
        if mtu.parse().is_ok_and(|mtu: u32| u32::from(longest) > mtu) {
            let of = format!("packets of {longest} octets, and {out}'s MTU is {mtu}");
            return Err(format!(
                "--sizes: {of}: say others, such as {FITTING} for what a tunnel has room for"
            ));
        }
        Ok(())
    }

    /// Opens them, for packets of these sizes to so many destination addresses.
    ///
    /// # Errors
    /// As [`Between::check`] and [`Wire::open`].
    pub fn open(
        &self,
        sizes: &Mix,
        destinations: u32,
        seed: u64,
        core: Option<usize>,
    ) -> Result<Option<Wire>, Box<dyn Error>> {
        let (Some(ends), Some(dst_mac), Some(src), Some(dst)) =
            (self.ends(), self.dst_mac, self.src, self.dst)
        else {
            return Ok(None);
        };
        self.check(sizes)?;
        let (flows, senders) = (self.flows(), self.senders);
        let one = Flows::one(src, dst);
        let (mut first, mut first_flow) = (one.src_ports.first, 0);
        let streams = (0..senders).map(|n| {
            let count = flows / senders + u16::from(n < flows % senders);
            let flows = Flows {
                dst: Addresses { first: dst, count: destinations },
                src_ports: Ports { first, count },
                count: destinations.saturating_mul(count.into()),
                packets: Choice::Random,
                seed: seed + u64::from(n),
                ..one.clone()
            };
            let (src_mac, mix) = (Mac([0; 6]), sizes.clone());
            let stream = Stream { dst_mac, src_mac, mix, stamped: true, first_flow, run: 0, flows };
            // Too many of either are refused where flows are made of them.
            (first, first_flow) =
                (first.saturating_add(count), first_flow.saturating_add(stream.flows.count));
            stream
        });
        // Of another run than those of other programs here, and those before.
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let run = (time.as_nanos() as u64) << 20 | u64::from(process::id());
        Wire::open(ends, streams.collect(), run, core).map(Some)
    }

    /// What they are, in a few words.
    pub fn line(&self) -> Option<String> {
        let [out, back] = self.ends()?;
        Some(format!("{out} to {back}, {} flows to each destination", self.flows()))
    }

    /// The same, with stable keys.
    pub fn json(&self) -> Value {
        match self.ends() {
            Some(ends) => json!({
                "out": ends[0], "in": ends[1], "src": self.src, "dst": self.dst, "flows": self.flows(), "senders": self.senders,
                "interfaces": ends.map(|name| json!({ "name": name, "place": place(name), "mtu": mtu(name), "queues": queues(name) })),
            }),
            None => Value::Null,
        }
    }

    /// What is known of the interfaces, for people.
    pub fn table(&self) -> Option<Table> {
        let mut table = Table::new(&["Interface", "What it is", "MTU", "Receive queues"]);
        let row = |name: &str| vec![name.to_owned(), place(name), mtu(name), queues(name).to_string()];
        table.rows = self.ends()?.iter().map(|name| row(name)).collect();
        Some(table)
    }
}

fn mtu(interface: &str) -> String {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).unwrap_or_default();
    text.trim().to_owned()
}
