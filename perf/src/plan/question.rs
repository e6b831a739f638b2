//! What is to be planned, as it is asked on the command line: option by option, each with what it may say.

use super::{
    packet::{Lengths, Tunnel},
    profile::{self, IkeCost, Profile, Way},
    shares::{Shares, Sizes},
    units,
};
use portcullis_sadb::{Algorithm, MAX_SAS};
use thiserror::Error;

/// Whose bits a rate counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layer {
    /// Of inner IP packets.
    Inner,
    /// Of outer IP packets.
    Outer,
}

/// How much traffic there is, each way.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Rate {
    /// Bits per second.
    Bits(f64),
    /// Packets per second.
    Packets(f64),
}

/// What is kept for failures.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Headroom {
    /// So many boxes may fail, and the others carry all.
    Boxes(u32),
    /// All boxes together carry so many times what is asked.
    Factor(f64),
}

/// The slots of a box's NICs, together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pcie {
    /// The generation, from 1 to 6.
    pub generation: u8,
    /// Lanes.
    pub lanes: u32,
}

/// What is asked. Limits of a box that are not given do not limit anything.
#[derive(Clone, PartialEq, Debug)]
pub struct Question {
    /// Traffic, each way.
    pub rate: Rate,
    /// Whose bits.
    pub of: Layer,
    /// Inner packets.
    pub sizes: Sizes,
    /// Algorithms of packets.
    pub algorithms: Shares<Algorithm>,
    /// What is around packets.
    pub tunnel: Tunnel,
    /// Which ways there is traffic.
    pub ways: Vec<Way>,
    /// Tunnels: pairs of SAs.
    pub tunnels: u32,
    /// Tunnels that are set up, per second.
    pub new_tunnels: f64,
    /// Seconds after which a child SA is rekeyed; none: never.
    pub rekey_secs: Option<f64>,
    /// The key exchange of IKE.
    pub key_exchange: String,
    /// How ends prove who they are.
    pub authentication: String,
    /// What is kept for failures.
    pub headroom: Headroom,
    /// The largest part of a resource that may be in use.
    pub utilisation: f64,
    /// The kind of ports; none: the best that the profile has.
    pub port: Option<String>,
    /// Bits per second of a NIC's port.
    pub port_speed: Option<f64>,
    /// Ports of a box on each side, the clear one and ESP's.
    pub ports: Option<u32>,
    /// PCIe of all NICs of a box.
    pub pcie: Option<Pcie>,
    /// Octets per second to and from the memory of a box.
    pub memory_bandwidth: Option<f64>,
    /// Octets of memory of a box.
    pub memory: Option<f64>,
    /// Cores of a box.
    pub cores: Option<u32>,
    /// Cores that are not for workers: for iked, the kernel and all else.
    pub other_cores: u32,
    /// How many boxes there are; none: as many as it takes.
    pub boxes: Option<u32>,
}

/// What cannot be answered, and what can.
#[derive(Clone, PartialEq, Debug, Error)]
pub enum QuestionError {
    /// The option does not take such a value.
    #[error("--{option} '{value}': {why}; {say}")]
    Value {
        /// The option.
        option: &'static str,
        /// What it says.
        value: String,
        /// What is wrong.
        why: String,
        /// What to say.
        say: &'static str,
    },
    /// There has to be such an option.
    #[error("--{option} is missing; {say}")]
    Missing {
        /// The option.
        option: &'static str,
        /// What to say.
        say: &'static str,
    },
    /// There is no such option.
    #[error("'{option}' cannot be varied; what can: {}", OPTIONS.join(", "))]
    NoOption {
        /// What was asked for.
        option: String,
    },
    /// The profile was not measured with it.
    #[error("--{option} '{value}': not in the profile, which has {}; {say}",
        if .known.is_empty() { "none".to_owned() } else { .known.join(", ") })]
    NotMeasured {
        /// The option.
        option: &'static str,
        /// What it says.
        value: String,
        /// What the profile knows.
        known: Vec<String>,
        /// What to do.
        say: &'static str,
    },
    /// However many boxes there are, one of them cannot do its part.
    #[error(
        "no number of boxes can do this: {resource} of a box that has the least to do would be {percent:.0} % \
             used; {say}"
    )]
    Impossible {
        /// What is full.
        resource: &'static str,
        /// How full.
        percent: f64,
        /// What to change.
        say: &'static str,
    },
}

/// All that [`Question::set`] knows.
pub const OPTIONS: [&str; 23] = [
    "rate",
    "of",
    "sizes",
    "algorithm",
    "outer",
    "udp",
    "direction",
    "tunnels",
    "new-tunnels",
    "rekey",
    "key-exchange",
    "authentication",
    "headroom",
    "utilisation",
    "port",
    "port-speed",
    "ports",
    "pcie",
    "memory-bandwidth",
    "memory",
    "cores",
    "other-cores",
    "boxes",
];

const SAY_SIZES: &str =
    "say octets of inner packets: 1400, imix, or a list with weights as 64:7,570:4,1518:1";
const SAY_MEASURE: &str = "ask for one of these, or measure it, too, with `portcullis bench calibrate`";

impl Default for Question {
    fn default() -> Question {
        Question {
            rate: Rate::Bits(0.0),
            of: Layer::Inner,
            sizes: Sizes::only(1400),
            algorithms: Shares::only(Algorithm::AES_GCM_128),
            tunnel: Tunnel { v6: false, udp: false },
            ways: vec![Way::Encap, Way::Decap],
            tunnels: 1,
            new_tunnels: 0.0,
            rekey_secs: None,
            key_exchange: "curve25519".to_owned(),
            authentication: "psk".to_owned(),
            headroom: Headroom::Factor(1.0),
            utilisation: 0.8,
            port: None,
            port_speed: None,
            ports: None,
            pcie: None,
            memory_bandwidth: None,
            memory: None,
            cores: None,
            other_cores: 1,
            boxes: None,
        }
    }
}

impl Question {
    /// The question that options ask, by their names.
    ///
    /// # Errors
    /// [`QuestionError`], of the first option that is wrong; without a rate, too.
    pub fn new<'a, 'b>(
        options: impl IntoIterator<Item = (&'a str, &'b str)>,
    ) -> Result<Question, QuestionError> {
        let mut question = Question::default();
        options.into_iter().try_for_each(|(option, value)| question.set(option, value))?;
        if let Rate::Bits(rate) = question.rate
            && rate <= 0.0
        {
            return Err(QuestionError::Missing { option: "rate", say: units::SAY_RATE });
        }
        question.check_cores()?;
        Ok(question)
    }

    fn check_cores(&self) -> Result<(), QuestionError> {
        match self.cores {
            Some(cores) if cores <= self.other_cores => {
                let say = "say fewer than the box has: at least one is a worker's";
                let (value, why) = (self.other_cores.to_string(), format!("a box has {cores}"));
                Err(units::wrong("other-cores", &value, &why, say))
            }
            _ => Ok(()),
        }
    }

    /// Has one option say something else.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub fn set(&mut self, option: &str, value: &str) -> Result<(), QuestionError> {
        let value = value.trim();
        match option {
            "rate" => self.rate = units::rate(value)?,
            "of" => {
                self.of = match value {
                    "inner" => Layer::Inner,
                    "outer" => Layer::Outer,
                    _ => {
                        return Err(units::wrong(
                            "of",
                            value,
                            "it is neither",
                            "say inner or outer: whose bits the rate counts",
                        ));
                    }
                }
            }
            "sizes" => {
                self.sizes =
                    Sizes::parse(value).map_err(|why| units::wrong("sizes", value, &why, SAY_SIZES))?
            }
            "algorithm" => self.algorithms = units::algorithms(value)?,
            "outer" => {
                self.tunnel.v6 = match value {
                    "4" | "ipv4" => false,
                    "6" | "ipv6" => true,
                    _ => return Err(units::wrong("outer", value, "no version of IP", "say ipv4 or ipv6")),
                }
            }
            "udp" => {
                self.tunnel.udp = match value {
                    "yes" | "true" => true,
                    "no" | "false" => false,
                    _ => {
                        return Err(units::wrong(
                            "udp",
                            value,
                            "it is neither",
                            "say yes if ESP is in UDP, or no",
                        ));
                    }
                }
            }
            "direction" => {
                self.ways = match value {
                    "encap" => vec![Way::Encap],
                    "decap" => vec![Way::Decap],
                    "both" => vec![Way::Encap, Way::Decap],
                    _ => {
                        return Err(units::wrong(
                            "direction",
                            value,
                            "no direction",
                            "say encap, decap or both",
                        ));
                    }
                }
            }
            // As many SAs as a region has room for, of which a tunnel takes two.
            "tunnels" => {
                self.tunnels = units::count("tunnels", value, (1, 1000 * MAX_SAS), "say a number from 1 on")?
            }
            "new-tunnels" => {
                self.new_tunnels =
                    units::number("new-tunnels", value, (0.0, 1e9), "say how many are set up per second")?
            }
            "rekey" => self.rekey_secs = units::rekey(value)?,
            "key-exchange" => self.key_exchange = value.to_owned(),
            "authentication" => self.authentication = value.to_owned(),
            "headroom" => self.headroom = units::headroom(value)?,
            "utilisation" => self.utilisation = units::utilisation(value)?,
            "port" => self.port = Some(value.to_owned()),
            "port-speed" => {
                self.port_speed = Some(units::bits("port-speed", value, "say for example 100Gbit/s")?)
            }
            "ports" => {
                self.ports =
                    Some(units::count("ports", value, (1, 1024), "say how many a box has on each side")?)
            }
            "pcie" => self.pcie = Some(units::pcie(value)?),
            "memory-bandwidth" => {
                self.memory_bandwidth = Some(units::octets(
                    "memory-bandwidth",
                    value.strip_suffix("/s").unwrap_or(value),
                    value,
                    "say for example 40GB/s",
                )?)
            }
            "memory" => self.memory = Some(units::octets("memory", value, value, "say for example 64GiB")?),
            "cores" => {
                self.cores =
                    Some(units::count("cores", value, (2, 65_536), "say how many a box has, at least 2")?)
            }
            "other-cores" => {
                self.other_cores = units::count(
                    "other-cores",
                    value,
                    (1, 65_536),
                    "say how many are not for workers, at least 1",
                )?
            }
            "boxes" => {
                self.boxes = Some(units::count("boxes", value, (1, 1_000_000), "say how many there are")?)
            }
            _ => return Err(QuestionError::NoOption { option: option.to_owned() }),
        }
        Ok(())
    }

    /// Octets of its packets.
    pub fn lengths(&self) -> Lengths {
        Lengths::of(&self.sizes, &self.algorithms, self.tunnel)
    }

    /// Packets per second, each way.
    pub fn packets_per_sec(&self) -> f64 {
        let lengths = self.lengths();
        match (self.rate, self.of) {
            (Rate::Packets(rate), _) => rate,
            (Rate::Bits(rate), Layer::Inner) => rate / 8.0 / lengths.inner,
            (Rate::Bits(rate), Layer::Outer) => rate / 8.0 / lengths.outer,
        }
    }

    /// The kind of ports that it is about.
    ///
    /// # Errors
    /// [`QuestionError::NotMeasured`].
    pub fn port<'a>(&'a self, profile: &'a Profile) -> Result<&'a str, QuestionError> {
        let known = profile.port_kinds(&self.ways);
        let Some(port) = &self.port else { return Ok(known.first().copied().unwrap_or(profile::MEMORY)) };
        for way in &self.ways {
            if !profile.port_kinds(&[*way]).contains(&port.as_str()) {
                return Err(not_measured("port", port, *way, known));
            }
        }
        Ok(port)
    }

    /// What tunnels cost iked.
    ///
    /// # Errors
    /// [`QuestionError::NotMeasured`].
    pub fn ike<'a>(&self, profile: &'a Profile) -> Result<&'a IkeCost, QuestionError> {
        let known = &profile.host.ike;
        let is_asked = |cost: &&IkeCost| {
            cost.key_exchange == self.key_exchange && cost.authentication == self.authentication
        };
        known.iter().find(is_asked).ok_or_else(|| QuestionError::NotMeasured {
            option: "key-exchange",
            value: format!("{} with --authentication {}", self.key_exchange, self.authentication),
            known: known.iter().map(|c| format!("{} with {}", c.key_exchange, c.authentication)).collect(),
            say: "ask for one of these, or for neither new tunnels nor rekeying",
        })
    }

    /// Whether the profile can answer it.
    ///
    /// # Errors
    /// [`QuestionError::NotMeasured`]; options that cannot be together, since each may have been [`set`](Self::set) alone.
    pub fn check(&self, profile: &Profile) -> Result<(), QuestionError> {
        self.check_cores()?;
        let port = self.port(profile)?;
        for (algorithm, _) in self.algorithms.iter() {
            for way in &self.ways {
                if profile.predict((algorithm.name(), *way), &self.sizes, (1, 1), port).is_none() {
                    let known = profile.algorithms(&self.ways);
                    return Err(not_measured("algorithm", algorithm.name(), *way, known));
                }
            }
        }
        Ok(())
    }
}

fn not_measured(option: &'static str, name: &str, way: Way, known: Vec<&str>) -> QuestionError {
    let known = known.into_iter().map(str::to_owned).collect();
    QuestionError::NotMeasured { option, value: format!("{name} for {way}"), known, say: SAY_MEASURE }
}
