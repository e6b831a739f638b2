//! The datapath's part of `portcullis.toml`.

use serde::Deserialize;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The file, in the configuration directory.
pub const FILE: &str = "portcullis.toml";

/// `portcullis.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The shared memory.
    #[serde(default)]
    pub regions: Regions,
    /// The packet path.
    #[serde(default)]
    pub datapath: Datapath,
    /// The interfaces.
    #[serde(rename = "port", default)]
    pub ports: Vec<Port>,
}

/// `[regions]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Regions {
    /// Where the regions are.
    pub directory: PathBuf,
    /// SAs; the regions' own size counts.
    pub max_sas: u32,
    /// Policies; the regions' own size counts.
    pub max_policies: u32,
}

/// `[datapath]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Datapath {
    /// Workers; one per core if not given.
    pub workers: Option<u32>,
    /// Their cores; the first ones if not given.
    pub cores: Option<Vec<usize>>,
    /// Chunks of the umem.
    pub frames: u32,
    /// Octets of a chunk.
    pub frame_size: u16,
    /// Driver or generic mode.
    pub xdp_mode: XdpMode,
    /// Huge pages for the umem.
    pub huge_pages: HugePages,
}

/// `[datapath] xdp_mode`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Driver mode, or generic where the driver refuses.
    Auto,
    /// Driver mode only.
    Driver,
    /// Generic mode only.
    Generic,
}

/// `[datapath] huge_pages`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HugePages {
    /// If there are enough.
    Auto,
    /// Or fail.
    Require,
    /// No.
    Off,
}

/// `[[port]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The interface.
    pub interface: String,
    /// Its queues, from 0 on; all if not given.
    pub queues: Option<u32>,
}

impl Default for Regions {
    fn default() -> Regions {
        Regions { directory: "/run/portcullis".into(), max_sas: 65_536, max_policies: 16_384 }
    }
}

impl Default for Datapath {
    fn default() -> Datapath {
        Datapath {
            workers: None,
            cores: None,
            frames: 16_384,
            frame_size: 4096,
            xdp_mode: XdpMode::Auto,
            huge_pages: HugePages::Auto,
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: toml::de::Error,
    },
    /// A value that cannot be.
    #[error("{path}: {key} {why}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong and what to do.
        why: String,
    },
}

impl Config {
    /// Reads the file in a configuration directory.
    ///
    /// # Errors
    /// [`ConfigError`] names file, line and key.
    pub fn load(directory: &Path) -> Result<Config, ConfigError> {
        let path = directory.join(FILE);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        let config: Config =
            toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.clone(), source })?;
        let wrong = |key, why: String| Err(ConfigError::Value { path: path.clone(), key, why });
        if config.ports.is_empty() {
            return wrong("[[port]]", "is missing: name at least one interface".into());
        }
        let d = &config.datapath;
        if d.workers.is_some_and(|w| !(1..=64).contains(&w)) {
            return wrong("[datapath] workers", "is from 1 to 64".into());
        }
        if let Some(cores) = &d.cores
            && cores.len() != config.workers() as usize
        {
            return wrong(
                "[datapath] cores",
                format!("names {} cores for {} workers", cores.len(), config.workers()),
            );
        }
        Ok(config)
    }

    /// Workers.
    pub fn workers(&self) -> u32 {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let named = self.datapath.cores.as_ref().map(|c| c.len() as u32);
        self.datapath.workers.or(named).unwrap_or(cores.min(64))
    }

    /// The core of a worker.
    pub fn core(&self, worker: u32) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        match &self.datapath.cores {
            Some(named) => named[worker as usize],
            None => worker as usize % cores,
        }
    }
}
