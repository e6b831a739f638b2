#![doc = include_str!("../../docs/swanctl.md")]

pub mod authentication;
pub mod authority;
pub mod child;
pub mod connection;
pub mod diff;
pub mod key;
pub mod notation;
pub mod pool;
pub mod secret;
pub mod source;
pub mod syntax;
pub mod tree;
pub mod value;

use authority::Authority;
use connection::Connection;
use key::{Key, Kind, Naming, Objection, Part, SettingError, named, read};
use pool::Pool;
use portcullis_machine::strict::{ConfigError, nearest};
use secret::Secrets;
use source::Source;
use std::{collections::HashSet, path::Path};
use syntax::Section;
use thiserror::Error;
use tree::Branch;

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum SwanctlError {
    /// A file cannot be read, or is not in this syntax.
    #[error(transparent)]
    Syntax(#[from] ConfigError),
    /// A key or value.
    #[error(transparent)]
    Setting(#[from] SettingError),
}

/// What is in `swanctl.conf`, in the order of the file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Configuration {
    /// With whom.
    pub connections: Vec<Connection>,
    /// What both sides know.
    pub secrets: Secrets,
    /// Addresses for peers.
    pub pools: Vec<Pool>,
    /// Certification authorities.
    pub authorities: Vec<Authority>,
}

impl Kind for Configuration {
    const KEYS: &'static [Key<Configuration>] = &[];
    const PARTS: &'static [Part<Configuration>] = &[
        Part {
            name: "connections",
            naming: Naming::Exact,
            read: |of, _, _, branch| {
                of.connections = connections(branch)?;
                Ok(())
            },
        },
        Part {
            name: "secrets",
            naming: Naming::Exact,
            read: |of, name, _, branch| {
                of.secrets = read(name, branch)?;
                Ok(())
            },
        },
        Part {
            name: "pools",
            naming: Naming::Exact,
            read: |of, _, _, branch| {
                of.pools = pools(branch)?;
                Ok(())
            },
        },
        Part {
            name: "authorities",
            naming: Naming::Exact,
            read: |of, _, _, branch| {
                of.authorities = authorities(branch)?;
                Ok(())
            },
        },
    ];
}

/// Connections by name: the section `connections`, or the message of VICI's `load-conn`.
///
/// # Errors
/// [`SettingError`] of the first key that cannot be used.
pub fn connections(branch: &Branch<'_>) -> Result<Vec<Connection>, SettingError> {
    named("connections", branch, |full, entry, branch| {
        let connection: Connection = read(full, branch)?;
        let source = Source::of(entry.name, branch);
        Ok(Connection { name: entry.name.to_owned(), source, ..connection })
    })
}

/// Pools by name: the section `pools`, or the message of VICI's `load-pool`.
///
/// # Errors
/// As of [`connections`].
pub fn pools(branch: &Branch<'_>) -> Result<Vec<Pool>, SettingError> {
    named("pools", branch, |full, entry, branch| {
        let pool: Pool = read(full, branch)?;
        Ok(Pool { name: entry.name.to_owned(), ..pool })
    })
}

/// Authorities by name: the section `authorities`, or the message of VICI's `load-authority`.
///
/// # Errors
/// As of [`connections`].
pub fn authorities(branch: &Branch<'_>) -> Result<Vec<Authority>, SettingError> {
    named("authorities", branch, |full, entry, branch| {
        let authority: Authority = read(full, branch)?;
        Ok(Authority { name: entry.name.to_owned(), ..authority })
    })
}

impl Configuration {
    /// Reads a file, and those that it includes.
    ///
    /// # Errors
    /// [`SwanctlError`] with file and line.
    pub fn read(file: &Path) -> Result<Configuration, SwanctlError> {
        Configuration::of(&Section::read(file)?)
    }

    /// The same of a text that is not in a file. What it includes is looked for beside `file`.
    ///
    /// # Errors
    /// As of [`Configuration::read`].
    pub fn parse(file: &Path, text: &str) -> Result<Configuration, SwanctlError> {
        Configuration::of(&Section::parse(file, text)?)
    }

    fn of(top: &Section) -> Result<Configuration, SwanctlError> {
        let mut branch = Branch::from(top);
        let is_known = |name: &str| Configuration::PARTS.iter().any(|part| part.name == name);
        branch.entries.retain(|entry| is_known(entry.name) || !top.is_template(entry.name));
        let configuration: Configuration = read("", &branch)?;
        configuration.check_pools(&branch)?;
        Ok(configuration)
    }

    fn check_pools(&self, branch: &Branch<'_>) -> Result<(), SettingError> {
        let pools: HashSet<&str> = self.pools.iter().map(|pool| pool.name.as_str()).collect();
        for connection in &self.connections {
            let Some(pool) = connection.pools.iter().find(|pool| !pools.contains(pool.as_str())) else {
                continue;
            };
            let known: Vec<_> = pools.iter().copied().collect();
            let hint = match nearest(pool, &known) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("write it into pools: {pool} {{ addrs = 10.3.0.0/24 }}"),
            };
            let section = format!("connections.{}", connection.name);
            let place =
                branch.find(&["connections", &connection.name, "pools"]).and_then(|entry| entry.place);
            let why = format!("there is no pool '{pool}'; {hint}");
            return Err(Objection::Contradiction { section, why }.at(place));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
