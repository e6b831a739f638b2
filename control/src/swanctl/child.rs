//! Sections in `children`: what a Child SA is for, and what it is like.

use super::{
    key::{EITHER, Key, Kind, OFF, ON, Objection, key},
    notation::{AhProposal, EspProposal, Selector},
    value::{Octets, Value, words},
};
use std::time::Duration;

words! {
    /// How a child's packets are carried.
    Mode {
        /// In packets of the gateways.
        Tunnel = "tunnel",
        /// As they are, between the two ends alone.
        Transport = "transport",
        /// In clear: not a Child SA but a policy.
        Pass = "pass",
        /// Not at all: likewise.
        Drop = "drop",
    }
}

words! {
    /// Which DSCP is copied between inner and outer header.
    CopyDscp {
        /// To the outer one.
        Out = "out",
        /// Back to the inner one.
        In = "in",
        /// Both.
        Both = "yes",
        /// None.
        Neither = "no",
    }
}

words! {
    /// Whether there is a Child SA for each worker, too (RFC 9611).
    PerCpu {
        /// There is not.
        No = "no",
        /// There is.
        Yes = "yes",
        /// There is, and each has a UDP port of its own.
        Encap = "encap",
    }
}

impl Mode {
    /// Whether there is never an SA.
    pub fn is_shunt(self) -> bool {
        matches!(self, Mode::Pass | Mode::Drop)
    }
}

/// What is done about a child at some moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Action {
    /// It waits for packets, which then start it.
    pub trap: bool,
    /// It is started.
    pub start: bool,
}

/// Words with `|` between them.
impl Value for Action {
    const IS: &'static str = "none, trap, start or trap|start";

    fn parse(text: &str) -> Option<Action> {
        let mut action = Action::default();
        for word in text.split('|') {
            let is = |words: &[&str]| words.iter().any(|w| word.trim().eq_ignore_ascii_case(w));
            match word {
                _ if is(&["none", "clear"]) => {}
                _ if is(&["trap", "route"]) => action.trap = true,
                _ if is(&["start", "restart"]) => action.start = true,
                _ => return None,
            }
        }
        Some(action)
    }
}

/// To what length payloads are padded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TfcPadding {
    /// At least so many octets; 0 is no padding.
    Octets(u32),
    /// As much as fits in a packet.
    Mtu,
}

impl Default for TfcPadding {
    fn default() -> TfcPadding {
        TfcPadding::Octets(0)
    }
}

impl Value for TfcPadding {
    const IS: &'static str = "a number of octets, at most 65535, or mtu";

    fn parse(text: &str) -> Option<TfcPadding> {
        match text {
            "mtu" => Some(TfcPadding::Mtu),
            number => u32::parse(number).filter(|n| *n <= 65_535).map(TfcPadding::Octets),
        }
    }
}

/// How many packets a replay window covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReplayWindow(pub u32);

/// The datapath's windows are multiples of 64; smaller ones are what others have for a lack of memory.
impl Value for ReplayWindow {
    const IS: &'static str = "0, which is no protection, or a number of packets, at most 65536";

    fn parse(text: &str) -> Option<ReplayWindow> {
        let packets = u32::parse(text).filter(|packets| *packets <= 65_536)?;
        Some(ReplayWindow(packets.next_multiple_of(64)))
    }
}

/// The name of a network device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Device(pub String);

impl Value for Device {
    const IS: &'static str = "the name of a network device, at most 15 letters";

    fn parse(text: &str) -> Option<Device> {
        let is_right =
            text.len() < 16 && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        (is_right && text != "." && text != "..").then(|| Device(text.to_owned()))
    }
}

/// A child of a connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Child {
    /// Its section's name.
    pub name: String,
    /// Proposals for AH.
    pub ah_proposals: Vec<AhProposal>,
    /// Those for AH and those for ESP are for SAs that are used together.
    pub ah_and_esp: bool,
    /// Proposals for ESP, which count if there are none for AH, or if they are written: [`Child::esp`].
    pub esp_proposals: Vec<EspProposal>,
    /// What it is for, on this side.
    pub local_ts: Vec<Selector>,
    /// On the other side.
    pub remote_ts: Vec<Selector>,
    /// Age at which another takes its place; 0 is never.
    pub rekey_time: Duration,
    /// Age at which it ends; a tenth above `rekey_time` if it is not said: [`Child::life`].
    pub life_time: Option<Duration>,
    /// How much earlier it may be, at random; what is between the two if it is not said: [`Child::rand`].
    pub rand_time: Option<Duration>,
    /// As with time.
    pub rekey_bytes: Octets,
    /// As with time.
    pub life_bytes: Option<Octets>,
    /// As with time.
    pub rand_bytes: Option<Octets>,
    /// As with time.
    pub rekey_packets: u64,
    /// As with time.
    pub life_packets: Option<u64>,
    /// As with time.
    pub rand_packets: Option<u64>,
    /// How packets are carried.
    pub mode: Mode,
    /// What is done when the peer is found dead.
    pub dpd_action: Action,
    /// Without a packet for so long, it ends; 0 is never.
    pub inactivity: Duration,
    /// The priority of its policies; 0 is one made of their selectors.
    pub priority: u32,
    /// The device whose traffic it is for.
    pub interface: Option<Device>,
    /// Padding.
    pub tfc_padding: TfcPadding,
    /// The replay window.
    pub replay_window: ReplayWindow,
    /// Whether outer packets have DF as inner ones have.
    pub copy_df: bool,
    /// Whether ECN is copied, both ways.
    pub copy_ecn: bool,
    /// Whether DSCP is copied.
    pub copy_dscp: CopyDscp,
    /// Whether there is one for each worker, too.
    pub per_cpu_sas: PerCpu,
    /// What is done once it is loaded.
    pub start_action: Action,
    /// What is done once the peer has ended it.
    pub close_action: Action,
}

const ICV: &str = "HMAC-SHA2-256 has an ICV of 128 bits (RFC 4868 §2.3)";
const SCRIPTS: &str = "there are no scripts; events of VICI tell when a child comes up or goes down";
const POLICIES: &str = "an SA has its policies from its child; leave the child out";
const FORWARDED: &str = "what is forwarded has the same policies here; write yes or no, or leave it out";
const COMPRESSION: &str = "there is no compression here; what is worth it is compressed above IP";
const REQIDS: &str = "there are no reqids here; a child is known by its name";
const LABELS: &str = "there are no security labels here; leave it out";
const OFFLOAD: &str = "packets do not come to the kernel, which is what offloads; write auto or no";
const MARKS: &str =
    "there are no marks here; local_ts and remote_ts, or an interface, say what a child is for";
const IF_IDS: &str = "there are no XFRM interfaces here; name the device in the child's 'interface'";
/// Marks that nothing has, and everything matches.
const NO_MARK: &[&str] = &["0", "0/0", "0/0x0", "0/0x00000000"];

impl Kind for Child {
    const KEYS: &'static [Key<Child>] = &[
        key!(Child.ah_proposals = ""),
        key!(Child.esp_proposals = ""),
        key!(Child.ah_and_esp = "no"),
        key!(Child "sha256_96" ignores OFF, ICV),
        key!(Child.local_ts = "dynamic"),
        key!(Child.remote_ts = "dynamic"),
        key!(Child.rekey_time = "1h"),
        key!(Child.life_time = ""),
        key!(Child.rand_time = ""),
        key!(Child.rekey_bytes = "0"),
        key!(Child.life_bytes = ""),
        key!(Child.rand_bytes = ""),
        key!(Child.rekey_packets = "0"),
        key!(Child.life_packets = ""),
        key!(Child.rand_packets = ""),
        key!(Child "updown" ignores &[], SCRIPTS),
        key!(Child "hostaccess" ignores EITHER, SCRIPTS),
        key!(Child.mode = "tunnel"),
        key!(Child "policies" ignores ON, POLICIES),
        key!(Child "policies_fwd_out" ignores EITHER, FORWARDED),
        key!(Child.dpd_action = "none"),
        key!(Child "ipcomp" ignores OFF, COMPRESSION),
        key!(Child.inactivity = "0"),
        key!(Child "reqid" ignores &["0"], REQIDS),
        key!(Child.priority = "0"),
        key!(Child.interface = ""),
        key!(Child "mark_in" ignores NO_MARK, MARKS),
        key!(Child "mark_in_sa" ignores OFF, MARKS),
        key!(Child "mark_out" ignores NO_MARK, MARKS),
        key!(Child "set_mark_in" ignores NO_MARK, MARKS),
        key!(Child "set_mark_out" ignores NO_MARK, MARKS),
        key!(Child "if_id_in" ignores &["0"], IF_IDS),
        key!(Child "if_id_out" ignores &["0"], IF_IDS),
        key!(Child "label" ignores &[], LABELS),
        key!(Child "label_mode" ignores &["system", "simple"], LABELS),
        key!(Child.tfc_padding = "0"),
        key!(Child.replay_window = "1024"),
        key!(Child "hw_offload" ignores &["no", "auto"], OFFLOAD),
        key!(Child.copy_df = "yes"),
        key!(Child.copy_ecn = "yes"),
        key!(Child.copy_dscp = "out"),
        key!(Child.per_cpu_sas = "no"),
        key!(Child.start_action = "none"),
        key!(Child.close_action = "none"),
    ];

    fn check(&self, section: &str) -> Result<(), Objection> {
        let has_both = !self.ah_proposals.is_empty() && !self.esp_proposals.is_empty();
        let why = if self.start_action.start && self.mode.is_shunt() {
            "a policy without an SA cannot be started; write start_action = trap"
        } else if self.ah_and_esp && self.mode.is_shunt() {
            "a policy without an SA has neither AH nor ESP; leave out ah_and_esp"
        } else if self.ah_and_esp && !has_both {
            "with ah_and_esp there must be both ah_proposals and esp_proposals"
        } else {
            return Ok(());
        };
        Err(Objection::Contradiction { section: section.to_owned(), why: why.to_owned() })
    }
}

/// A tenth more.
fn and_a_tenth(n: u64) -> u64 {
    n.saturating_add(n / 10)
}

impl Child {
    /// Proposals for ESP: the default, if none are written and none for AH.
    pub fn esp(&self) -> Vec<EspProposal> {
        match self.esp_proposals.is_empty() && self.ah_proposals.is_empty() {
            true => vec![EspProposal("default".to_owned())],
            false => self.esp_proposals.clone(),
        }
    }

    /// Age at which it ends; 0 is never.
    pub fn life(&self) -> Duration {
        self.life_time
            .unwrap_or_else(|| Duration::from_millis(and_a_tenth(self.rekey_time.as_millis() as u64)))
    }

    /// How much earlier than `rekey_time` another takes its place, at most.
    pub fn rand(&self) -> Duration {
        self.rand_time.unwrap_or_else(|| self.life().saturating_sub(self.rekey_time))
    }

    /// Octets after which it ends, and how many earlier another takes its place, at most.
    pub fn life_and_rand_bytes(&self) -> (u64, u64) {
        let rekey = self.rekey_bytes.0;
        let life = self.life_bytes.map_or_else(|| and_a_tenth(rekey), |octets| octets.0);
        (life, self.rand_bytes.map_or_else(|| life.saturating_sub(rekey), |octets| octets.0))
    }

    /// The same of packets.
    pub fn life_and_rand_packets(&self) -> (u64, u64) {
        let rekey = self.rekey_packets;
        let life = self.life_packets.unwrap_or_else(|| and_a_tenth(rekey));
        (life, self.rand_packets.unwrap_or_else(|| life.saturating_sub(rekey)))
    }
}
