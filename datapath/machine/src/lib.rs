//! The machine's set-up as `portcullis.toml` gives it. All three programs read this one file, hence this one crate.
//!
//! ```toml
//! [regions]
//! directory = "/run/portcullis"  # on a tmpfs: what was there before a boot is refused
//! max_sas = 65536
//! max_policies = 16384
//!
//! [datapath]
//! workers = 1               # default: as many as cores, or one per core of the machine
//! cores = [0]               # default: the first `workers` cores
//! frames = 16384            # chunks in the umem
//! frame_size = 4096         # 2048 or 4096
//! ring = 2048               # packets that wait for a worker at each queue, or to be sent, at most; a power of two
//! xdp_mode = "auto"         # auto | driver | generic
//! huge_pages = "auto"       # auto | require (reserved ones) | off
//! udp_encap_ports = [4500]  # where ESP in UDP comes in, and connections' own udp_ports are: up to 8
//! crypto = "auto"           # auto | vaes-avx512 | vaes-avx2 | aes-ni | portable: what seals and opens packets
//! icmp_prohibited = []      # e.g. ["10.1.0.0/16"]: hosts there are told by ICMP of packets that policies forbid, or that
//!                           # no SA can be had for
//!
//! [ike]
//! threads = 2               # that do key exchange and signatures; default: as many as cores of the machine
//! half_open = 10000         # peers that have begun and not proven who they are, at most
//! half_open_per_host = 10   # of one address of IPv4, or /64 of IPv6
//! ike_sas = 100000          # IKE SAs besides those, at most: from so many on, peers begin none
//! cookies_from = 30         # from so many on, peers must first show that they are where they say
//! init_per_second = 1000    # first messages that do not show it, of a /24 of IPv4 or /48 of IPv6; 0 is no limit
//! vip_interface = "vip0"     # the device that addresses go on which peers give us, made if it is not there; its other end, vip0-path, is
//!                           # a port. Default: none, they are on no device
//! retransmit_timeout_ms = 4000  # a request that is not answered is sent again after so long
//! retransmit_base = 1.8     # and then each time after so many times as long
//! retransmit_tries = 5      # so often; then its peer is given up, by these numbers after 165 s
//! retransmit_limit_ms = 0   # no time between is longer; 0 is no limit
//! retransmit_jitter = 0     # up to so many hundredths of each time are taken off at random: 0 to 20
//!
//! [[port]]
//! interface = "eth0"
//! queues = 1                # default: all of the interface's
//! ```
//!
//! The file says what is wished for. Whether this machine can do it is seen where it is done: no interface is looked
//! up here.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod strict;

use std::{
    net::IpAddr,
    num::NonZeroU32,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};
use strict::{ConfigError, Document, Table};

/// Where the programs look without `--config`.
pub const DIRECTORY: &str = "/etc/portcullis";
/// The file of this set-up in the configuration directory.
pub const FILE: &str = "portcullis.toml";
/// Workers, at most: the workers' part of a socket's key has six bits.
pub const MAX_WORKERS: u32 = 64;
/// Ports, at most: the ports' part of a socket's key has four bits.
pub const MAX_PORTS: usize = 16;
/// Queues per port, at most: the queues' part of a socket's key has six bits.
pub const MAX_QUEUES: u32 = 64;
/// UDP ports of ESP in UDP, at most.
pub const MAX_UDP_ENCAP_PORTS: usize = 8;
/// The UDP port of ESP in UDP, if the file says no others (RFC 3948 §2).
const NAT_T_PORT: u16 = 4500;
/// The UDP port of IKE (RFC 7296 §2.23), at which there is no ESP.
const IKE_PORT: u16 = 500;
/// What the name of the datapath's end of a veth pair has behind that of the other.
pub const VETH_PATH: &str = "-path";
/// Octets of the other's name, at most, so that there is room for that (IFNAMSIZ).
pub const VETH_NAME_ROOM: usize = 15 - VETH_PATH.len();
/// SAs, at most.
pub const MAX_SAS: u32 = 1 << 20;
/// Policies, at most.
pub const MAX_POLICIES: u32 = 1 << 17;

/// The checked contents of `portcullis.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The shared memory.
    pub regions: Regions,
    /// The packet path.
    pub datapath: Datapath,
    /// What IKE may take.
    pub ike: Ike,
    /// The interfaces that the datapath takes, one at least, in the order of the file.
    pub ports: Vec<Port>,
}

/// Where the shared memory is, and how much fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regions {
    /// The directory of the regions, pid files, logs and the control socket.
    pub directory: PathBuf,
    /// Slots for SAs.
    pub max_sas: u32,
    /// Slots for policies.
    pub max_policies: u32,
}

/// How the packet path is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datapath {
    /// Workers, if the file says how many.
    pub workers: Option<NonZeroU32>,
    /// The cores they are pinned to, one for each, if the file says which.
    pub cores: Option<Vec<u32>>,
    /// Chunks in the umem.
    pub frames: u32,
    /// Bytes of a chunk: 2048 or 4096.
    pub frame_size: u32,
    /// Entries of each ring of a queue: packets that wait there at most.
    pub ring: u32,
    /// How the XDP program is attached.
    pub xdp_mode: XdpMode,
    /// Whether the umem is to be made of huge pages.
    pub huge_pages: HugePages,
    /// Our UDP ports of ESP in UDP (RFC 3948 §2), one at least.
    pub udp_encap_ports: Vec<u16>,
    /// What seals and opens packets.
    pub crypto: Crypto,
    /// Networks, as an address and how many bits of it count, whose hosts are told by ICMP of packets that policies forbid (RFC 4301
    /// §5.1.1).
    pub icmp_prohibited: Vec<(IpAddr, u8)>,
}

/// What IKE may take of the machine, and anybody of IKE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ike {
    /// Threads that do key exchange and signatures, if the file says how many.
    pub threads: Option<NonZeroU32>,
    /// IKE SAs that peers have begun and that are not authenticated, at most.
    pub half_open: usize,
    /// The same, of an address of IPv4, or of a /64 of IPv6.
    pub half_open_per_host: usize,
    /// IKE SAs besides those, at most.
    pub ike_sas: usize,
    /// From so many on, peers must send a cookie back (RFC 7296 §2.6).
    pub cookies_from: usize,
    /// First messages without a cookie that are answered, of a /24 of IPv4 or a /48 of IPv6 in a second; 0 is no limit.
    pub init_per_second: u32,
    /// The device for addresses that peers give us, if the file says which.
    pub vip_interface: Option<String>,
    /// How long a request is waited for before it is sent again (RFC 7296 §2.4).
    pub retransmit_timeout_ms: u32,
    /// Each time is so many thousandths of the one before.
    pub retransmit_base: u32,
    /// How often it is sent again.
    pub retransmit_tries: u32,
    /// No time is longer; 0 is no limit.
    pub retransmit_limit_ms: u32,
    /// Up to so many hundredths of a time are taken off at random.
    pub retransmit_jitter: u8,
}

/// Octets of a huge page.
pub const HUGE_PAGE: usize = 2 << 20;

/// Octets from the end of a chunk to the next one, in a umem of huge pages.
pub const CHUNKS_APART: usize = 64;

impl Datapath {
    /// Huge pages that the umem takes. No chunk crosses one.
    pub fn umem_huge_pages(&self) -> u32 {
        self.frames.div_ceil((HUGE_PAGE / (self.frame_size as usize + CHUNKS_APART)) as u32)
    }
}

/// What seals and opens packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crypto {
    /// The fastest that the CPU can do.
    Auto,
    /// VAES with AVX-512, or not at all.
    VaesAvx512,
    /// VAES with AVX2, or not at all.
    VaesAvx2,
    /// AES-NI, or not at all.
    AesNi,
    /// What any CPU can do.
    Portable,
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// By the driver if it can, else by the kernel's generic hook, and it is told.
    Auto,
    /// By the driver, or not at all.
    Driver,
    /// By the kernel's generic hook.
    Generic,
}

/// Whether the umem is to be made of huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// Of those that are reserved, or that the system makes; else of small pages, and it is told.
    Auto,
    /// Of those that are reserved (`vm.nr_hugepages`), or not at all.
    Require,
    /// Of small pages.
    Off,
}

/// An interface that the datapath takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub interface: String,
    /// How many of its queues, from the first; `None` for all.
    pub queues: Option<NonZeroU32>,
}

impl Machine {
    /// Reads `portcullis.toml` in the configuration directory.
    pub fn load(directory: &Path) -> Result<Machine, ConfigError> {
        Machine::parse(&Document::read(directory.join(FILE))?)
    }

    /// Takes `document` for a `portcullis.toml`.
    pub fn parse(document: &Document) -> Result<Machine, ConfigError> {
        let mut top = document.parse()?;
        let regions = regions(top.table("regions")?)?;
        let datapath = datapath(top.table("datapath")?)?;
        let ike = ike(top.table("ike")?)?;
        let mut ports: Vec<Port> = Vec::new();
        for table in top.tables("port")? {
            let place = table.place();
            let port = port(table)?;
            if ports.iter().any(|p| p.interface == port.interface) {
                let why =
                    format!("interface '{}' has a [[port]] already; a port is listed once", port.interface);
                return Err(ConfigError::Contradiction { place, why });
            }
            if ports.len() == MAX_PORTS {
                let why = format!("{MAX_PORTS} ports are the most; take this one out");
                return Err(ConfigError::Contradiction { place, why });
            }
            ports.push(port);
        }
        if ports.is_empty() {
            return Err(top.missing("[[port]]", "[[port]] with interface = \"eth0\""));
        }
        if let Some(name) = &ike.vip_interface {
            let path = format!("{name}{VETH_PATH}");
            if !ports.iter().any(|port| port.interface == path) {
                return Err(top.missing(
                    "[[port]]",
                    &format!("[[port]] with interface = \"{path}\", for [ike] vip_interface"),
                ));
            }
        }
        top.finish()?;
        Ok(Machine { regions, datapath, ike, ports })
    }
}

fn regions(mut table: Table<'_>) -> Result<Regions, ConfigError> {
    let directory = match table.optional("directory")? {
        None => PathBuf::from("/run/portcullis"),
        Some(value) => {
            let path = PathBuf::from(value.text()?);
            if !path.is_absolute() {
                return Err(value.wrong("an absolute path, such as \"/run/portcullis\""));
            }
            path
        }
    };
    let count = |value: Option<strict::Value<'_>>, default, most| match value {
        None => Ok(default),
        Some(value) => value.number_in(1..=u64::from(most)).map(|n| n as u32),
    };
    let max_sas = count(table.optional("max_sas")?, 65536, MAX_SAS)?;
    let max_policies = count(table.optional("max_policies")?, 16384, MAX_POLICIES)?;
    table.finish()?;
    Ok(Regions { directory, max_sas, max_policies })
}

fn datapath(mut table: Table<'_>) -> Result<Datapath, ConfigError> {
    let workers = match table.optional("workers")? {
        None => None,
        Some(value) => NonZeroU32::new(value.number_in(1..=u64::from(MAX_WORKERS))? as u32),
    };
    let cores = match table.optional("cores")? {
        None => None,
        Some(value) => {
            let cores = value
                .list()?
                .iter()
                .map(|v| v.number_in(0..=4095).map(|n| n as u32))
                .collect::<Result<Vec<_>, _>>()?;
            let wanted = workers.map(|w| w.get() as usize);
            if wanted.is_some_and(|w| w != cores.len()) || !(1..=MAX_WORKERS as usize).contains(&cores.len())
            {
                return Err(value.wrong(match wanted {
                    Some(w) => {
                        format!("a list of {w} cores, one for each worker; this one has {}", cores.len())
                    }
                    None => format!("a list of 1 to {MAX_WORKERS} cores, one for each worker"),
                }));
            }
            Some(cores)
        }
    };
    let frames = match table.optional("frames")? {
        None => 16384,
        // The rings and the magazines of the workers' pool need some hundreds.
        Some(value) => value.number_in(1024..=1 << 22)? as u32,
    };
    let frame_size = match table.optional("frame_size")? {
        None => 4096,
        Some(value) => match value.number_in(0..=u64::MAX)? {
            size @ (2048 | 4096) => size as u32,
            _ => return Err(value.wrong("2048 or 4096")),
        },
    };
    let ring = match table.optional("ring")? {
        None => 2048,
        Some(value) => match value.number_in(0..=u64::MAX)? {
            size if (256..=65536).contains(&size) && size.is_power_of_two() => size as u32,
            _ => return Err(value.wrong("a power of two from 256 to 65536")),
        },
    };
    let xdp_mode = match table.optional("xdp_mode")? {
        None => XdpMode::Auto,
        Some(value) => value.one_of(&[
            ("auto", XdpMode::Auto),
            ("driver", XdpMode::Driver),
            ("generic", XdpMode::Generic),
        ])?,
    };
    let huge_pages = match table.optional("huge_pages")? {
        None => HugePages::Auto,
        Some(value) => value.one_of(&[
            ("auto", HugePages::Auto),
            ("require", HugePages::Require),
            ("off", HugePages::Off),
        ])?,
    };
    let udp_encap_ports = match table.optional("udp_encap_ports")? {
        None => vec![NAT_T_PORT],
        Some(value) => udp_encap_ports(&value)?,
    };
    let crypto = match table.optional("crypto")? {
        None => Crypto::Auto,
        Some(value) => value.one_of(&[
            ("auto", Crypto::Auto),
            ("vaes-avx512", Crypto::VaesAvx512),
            ("vaes-avx2", Crypto::VaesAvx2),
            ("aes-ni", Crypto::AesNi),
            ("portable", Crypto::Portable),
        ])?,
    };
    let icmp_prohibited = match table.optional("icmp_prohibited")? {
        None => vec![],
        Some(value) => value.list()?.iter().map(network).collect::<Result<_, _>>()?,
    };
    table.finish()?;
    Ok(Datapath {
        workers,
        cores,
        frames,
        frame_size,
        ring,
        xdp_mode,
        huge_pages,
        udp_encap_ports,
        crypto,
        icmp_prohibited,
    })
}

fn ike(mut table: Table<'_>) -> Result<Ike, ConfigError> {
    let threads = match table.optional("threads")? {
        None => None,
        Some(value) => NonZeroU32::new(value.number_in(1..=256)? as u32),
    };
    let mut count = |key, default| match table.optional(key)? {
        None => Ok(default),
        Some(value) => value.number_in(1..=1 << 20).map(|n| n as usize),
    };
    let (half_open, half_open_per_host) = (count("half_open", 10_000)?, count("half_open_per_host", 10)?);
    let (ike_sas, cookies_from) = (count("ike_sas", 100_000)?, count("cookies_from", 30)?);
    let init_per_second = match table.optional("init_per_second")? {
        None => 1000,
        Some(value) => value.number_in(0..=1_000_000)? as u32,
    };
    let vip_interface = match table.optional("vip_interface")? {
        None => None,
        Some(value) => Some(interface_name(&value, VETH_NAME_ROOM)?),
    };
    let mut times = |key, range: RangeInclusive<u64>, default| match table.optional(key)? {
        None => Ok(default),
        Some(value) => value.number_in(range).map(|n| n as u32),
    };
    let retransmit_timeout_ms = times("retransmit_timeout_ms", 100..=60_000, 4000)?;
    let retransmit_tries = times("retransmit_tries", 0..=30, 5)?;
    let retransmit_limit_ms = times("retransmit_limit_ms", 0..=3_600_000, 0)?;
    let retransmit_jitter = times("retransmit_jitter", 0..=20, 0)? as u8;
    let retransmit_base = match table.optional("retransmit_base")? {
        None => 1800,
        Some(value) => value.thousandths_in(1000..=10_000)? as u32,
    };
    table.finish()?;
    Ok(Ike {
        threads,
        half_open,
        half_open_per_host,
        ike_sas,
        cookies_from,
        init_per_second,
        vip_interface,
        retransmit_timeout_ms,
        retransmit_base,
        retransmit_tries,
        retransmit_limit_ms,
        retransmit_jitter,
    })
}

fn udp_encap_ports(value: &strict::Value<'_>) -> Result<Vec<u16>, ConfigError> {
    let wrong = || {
        value.wrong(format!("a list of 1 to {MAX_UDP_ENCAP_PORTS} UDP ports other than 500, such as [4500]"))
    };
    let port = |v: &strict::Value<'_>| match v.number_in(1..=u16::MAX.into())? as u16 {
        IKE_PORT => Err(wrong()),
        port => Ok(port),
    };
    let ports = value.list()?.iter().map(port).collect::<Result<Vec<_>, _>>()?;
    let fits = (1..=MAX_UDP_ENCAP_PORTS).contains(&ports.len());
    if fits { Ok(ports) } else { Err(wrong()) }
}

/// An address and how many bits of it are the network's, with or without a `/`.
fn network(value: &strict::Value<'_>) -> Result<(IpAddr, u8), ConfigError> {
    let (addr, len) = value.text()?.split_once('/').map_or((value.text()?, None), |(a, l)| (a, Some(l)));
    let network = || {
        let addr: IpAddr = addr.parse().ok()?;
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        let len = len.map_or(Some(bits), |len| len.parse().ok())?;
        (len <= bits).then_some((addr, len))
    };
    network().ok_or_else(|| value.wrong("networks, such as \"10.1.0.0/16\" or \"fd00:1::/32\""))
}

fn port(mut table: Table<'_>) -> Result<Port, ConfigError> {
    let interface = table.required("interface", "\"eth0\"")?;
    let interface = interface_name(&interface, 15)?;
    let queues = match table.optional("queues")? {
        None => None,
        Some(value) => NonZeroU32::new(value.number_in(1..=u64::from(MAX_QUEUES))? as u32),
    };
    table.finish()?;
    Ok(Port { interface, queues })
}

/// What the kernel takes for a name: IFNAMSIZ is 16 with the closing zero.
fn interface_name(value: &strict::Value<'_>, most: usize) -> Result<String, ConfigError> {
    let name = value.text()?;
    let is_name = (1..=most).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    let wrong =
        || value.wrong(format!("the name of an interface, of at most {most} bytes, as `ip link` shows it"));
    if is_name { Ok(name.to_owned()) } else { Err(wrong()) }
}

impl Datapath {
    /// The core of each worker on a machine with this many cores. Without `cores` they are the first ones, and
    /// more workers than cores share them.
    pub fn worker_cores(&self, available: usize) -> Vec<u32> {
        let available = available.max(1) as u32;
        match (&self.cores, self.workers) {
            (Some(cores), _) => cores.clone(),
            (None, Some(workers)) => (0..workers.get()).map(|w| w % available).collect(),
            (None, None) => (0..available.min(MAX_WORKERS)).collect(),
        }
    }
}

/// An error with its causes, for people: causes that a message repeats are said once.
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let more = e.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = e.source();
    }
    text
}

impl XdpMode {
    /// As the file names it.
    pub fn name(self) -> &'static str {
        match self {
            XdpMode::Auto => "auto",
            XdpMode::Driver => "driver",
            XdpMode::Generic => "generic",
        }
    }
}

impl HugePages {
    /// As the file names it.
    pub fn name(self) -> &'static str {
        match self {
            HugePages::Auto => "auto",
            HugePages::Require => "require",
            HugePages::Off => "off",
        }
    }
}

#[cfg(test)]
mod tests;
