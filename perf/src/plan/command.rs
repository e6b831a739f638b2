//! `portcullis plan`.

use super::{
    answer::answer,
    profile::{HOW, Profile, ProfileError},
    question::{Question, QuestionError},
    report::{self, Style},
    what_if::{Vary, WhatIf},
};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use thiserror::Error;

/// The exit code of what cannot be answered as it is asked.
pub const WRONG: u8 = 2;
/// The exit code of an answer: that there are not enough boxes.
pub const TOO_FEW: u8 = 3;

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The question.
    #[error(transparent)]
    Question(#[from] QuestionError),
    /// What is to be varied.
    #[error("{0}")]
    Vary(String),
    /// The profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// None was named.
    #[error("--profile FILE is missing: a plan is made from what a host was measured to cost; {HOW}")]
    NoProfile,
}

impl PlanError {
    /// The exit code that says so.
    pub fn code(&self) -> u8 {
        match self {
            PlanError::Profile(_) => 1,
            PlanError::Question(_) | PlanError::Vary(_) | PlanError::NoProfile => WRONG,
        }
    }
}

/// What is asked of the planner.
#[derive(Args, Debug)]
#[command(
    after_help = "Each answer is for the upper end of what a fit to measurements predicts, at 95 %. Limits that are not \
                  given limit nothing.\n\nExit codes: 0 there is a plan, 1 the profile cannot be used, 2 a wrong \
                  question, 3 --boxes are too few.\n\nExamples:\n  \
                  portcullis plan --profile host.json --rate 40Gbit/s --sizes imix --tunnels 1000\n  \
                  portcullis plan --profile host.json --rate 12Mpps --algorithm aes-gcm-256 --cores 16 --headroom n+1\n  \
                  portcullis plan --profile host.json --rate 10Gbit/s --vary 'sizes=64 imix 1400' \
                  --vary 'tunnels=1 1000 100000'"
)]
pub struct Options {
    /// What a host was measured to cost, a file of `portcullis bench calibrate`.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Traffic each way: 40Gbit/s, 500Mbit/s, 12Mpps.
    #[arg(long, value_name = "RATE", allow_hyphen_values = true)]
    rate: Option<String>,
    /// Whose bits the rate counts: of inner IP packets, or of outer ones [default: inner].
    #[arg(long, value_name = "inner|outer")]
    of: Option<String>,
    /// Octets of inner IP packets: a number, imix, or a list with weights as 64:7,570:4,1518:1 [default: 1400].
    #[arg(long, value_name = "SIZES", allow_hyphen_values = true)]
    sizes: Option<String>,
    /// The algorithm, or a list with weights as aes-gcm-128:3,aes-gcm-256:1 [default: aes-gcm-128].
    #[arg(long, value_name = "NAME")]
    algorithm: Option<String>,
    /// The outer header [default: ipv4].
    #[arg(long, value_name = "ipv4|ipv6")]
    outer: Option<String>,
    /// Whether ESP is in UDP, as behind a NAT [default: no].
    #[arg(long, value_name = "yes|no")]
    udp: Option<String>,
    /// Which ways there is traffic; both: as much each way [default: both].
    #[arg(long, value_name = "encap|decap|both")]
    direction: Option<String>,
    /// Tunnels: pairs of SAs, each with as much traffic as the others [default: 1].
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    tunnels: Option<String>,
    /// Tunnels that are set up each second [default: 0].
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    new_tunnels: Option<String>,
    /// After how long child SAs are rekeyed: 1h, 30m, 3600s [default: never].
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    rekey: Option<String>,
    /// The key exchange of IKE [default: curve25519].
    #[arg(long, value_name = "NAME")]
    key_exchange: Option<String>,
    /// How ends prove who they are [default: psk].
    #[arg(long, value_name = "NAME")]
    authentication: Option<String>,
    /// For failures: n+1, so that a box may fail, or a factor as 1.5 [default: 1].
    #[arg(long, value_name = "n+1|FACTOR", allow_hyphen_values = true)]
    headroom: Option<String>,
    /// The largest part of anything that may be in use [default: 80%].
    #[arg(long, value_name = "PERCENT", allow_hyphen_values = true)]
    utilisation: Option<String>,
    /// The kind of ports: nic, veth, memory [default: the first of these that the profile has in each direction].
    #[arg(long, value_name = "KIND")]
    port: Option<String>,
    /// The speed of a NIC's port: 100Gbit/s.
    #[arg(long, value_name = "RATE", allow_hyphen_values = true)]
    port_speed: Option<String>,
    /// Ports of a box on each side, the clear one and ESP's.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    ports: Option<String>,
    /// PCIe of all NICs of a box, generation and lanes: 4x16.
    #[arg(long, value_name = "GxLANES")]
    pcie: Option<String>,
    /// What a box's memory can move: 40GB/s.
    #[arg(long, value_name = "RATE", allow_hyphen_values = true)]
    memory_bandwidth: Option<String>,
    /// Memory of a box: 64GiB.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<String>,
    /// Cores of a box.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    cores: Option<String>,
    /// Cores of a box that are not for workers, at least [default: 1].
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    other_cores: Option<String>,
    /// Boxes that there are; without it, as many as it takes.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    boxes: Option<String>,
    /// What if an option says this, and this: 'tunnels=1 1000 100000'. Twice for a table of two options.
    #[arg(long, value_name = "OPTION=VALUES")]
    vary: Vec<String>,
    /// As JSON, with stable keys.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// As Markdown.
    #[arg(long)]
    markdown: bool,
}

impl Options {
    fn asked(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let asked = [
            ("rate", &self.rate),
            ("of", &self.of),
            ("sizes", &self.sizes),
            ("algorithm", &self.algorithm),
            ("outer", &self.outer),
            ("udp", &self.udp),
            ("direction", &self.direction),
            ("tunnels", &self.tunnels),
            ("new-tunnels", &self.new_tunnels),
            ("rekey", &self.rekey),
            ("key-exchange", &self.key_exchange),
            ("authentication", &self.authentication),
            ("headroom", &self.headroom),
            ("utilisation", &self.utilisation),
            ("port", &self.port),
            ("port-speed", &self.port_speed),
            ("ports", &self.ports),
            ("pcie", &self.pcie),
            ("memory-bandwidth", &self.memory_bandwidth),
            ("memory", &self.memory),
            ("cores", &self.cores),
            ("other-cores", &self.other_cores),
            ("boxes", &self.boxes),
        ];
        asked.into_iter().filter_map(|(option, value)| Some((option, value.as_deref()?)))
    }

    /// What is to be printed, and the exit code.
    ///
    /// # Errors
    /// [`PlanError`]. The question is looked at first, so that it need not wait for a profile to be made.
    pub fn run(&self) -> Result<(String, u8), PlanError> {
        let question = Question::new(self.asked())?;
        let vary = self.vary.iter().map(|text| Vary::parse(text)).collect::<Result<Vec<_>, _>>();
        let vary = vary.map_err(PlanError::Vary)?;
        if vary.len() > 2 {
            return Err(PlanError::Vary(
                "--vary: at most two options can be varied; leave one out".to_owned(),
            ));
        }
        let profile = Profile::load(self.profile.as_deref().ok_or(PlanError::NoProfile)?)?;
        let answer = answer(&question, &profile)?;
        let what_if = match vary.is_empty() {
            true => None,
            false => Some(WhatIf::new(&question, vary, &profile)?),
        };
        let style = if self.markdown { Style::Markdown } else { Style::Text };
        let text = match self.json {
            true => format!("{:#}\n", json!({ "answer": answer, "what_if": what_if })),
            false => {
                let cases = what_if.as_ref().map(|w| report::what_if(style, w));
                report::answer(style, &answer) + &cases.unwrap_or_default()
            }
        };
        Ok((text, if answer.fits { 0 } else { TOO_FEW }))
    }
}
