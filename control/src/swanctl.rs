//! `swanctl.conf`: connections, secrets, pools and authorities in the format that IKE's users have them in.
//!
//! Keys, defaults and meanings are those of swanctl.conf(5) of strongSwan 5.9. What is written as a value of a key, but
//! means nothing here, is refused with what to write instead. Values that would change nothing are taken. Beside the four
//! sections there may be others that these have something from (`syntax.rs`). What differs:
//!
//! | key | here |
//! |---|---|
//! | unknown keys and sections | are errors, with the line and a near one |
//! | `local`, `remote` | have their own keys each; those of the other side are unknown |
//! | a time | may have `w` for weeks behind it, and is at most 136 years |
//! | numbers | do not wrap around, have no sign, and no `0` in front that makes them octal |
//! | `version` | 0 and 2 are IKEv2 alone; 1 is IKEv1, which is historic (RFC 9395): shared keys or certificates on both sides, or a certificate and a user, AES-CBC, no group below 14, one pair of selectors in a child |
//! | `aggressive` | with shared keys there must be `aggressive_psk_can_be_guessed_offline = yes`, too: whoever names a peer gets a hash to try guesses of the key on |
//! | `auth = xauth` | with IKEv1, as the second round of one side, behind `psk` or RSA certificates on both, or as all that one side has where the other has an RSA certificate (hybrid); the password of the user is of `secrets.eap*` or `secrets.xauth*`; `id` of a `remote` with it is whom the connection is for; no other backend than `generic` |
//! | `pull` | as strongSwan has it; with IKEv1 who asks for an address, or has a user, begins the next ISAKMP SA in the place of one |
//! | `local_port`, `remote_port` | are not 0 |
//! | `*_addrs` | are not what cannot be a name of the DNS, such as 10.0.0.256; names are looked up when they are loaded, when we begin, and each minute; we begin between the first of the written addresses that there is a way between |
//! | `mobike` | addresses change to those that `local_addrs` and `remote_addrs` have, and to that of a better route unless ours is written by itself; without it, an address that is gone has another IKE SA begun, the old one ends behind it |
//! | `vips` | what we are given is put on the device `[ike] vip_interface` of portcullis.toml, and on none without it; servers of names are told by `list` and events, and nothing is asked of them |
//! | `charon.retransmit_*` of strongswan.conf | are `retransmit_*` in `[ike]` of portcullis.toml |
//! | proposals | have algorithms that are there for their protocol, and what they cannot do without |
//! | `*_ts` | have no ports without a protocol |
//! | `pools` of a connection | are in `pools`, or it is an error: there are no others |
//! | `auth` | constraints have known algorithms, but not SHA-1; there is no BLISS; `ed25519` and `ed448` may come first; `rsa` is RSASSA-PSS, too |
//! | several `local` or `remote` | three of each at most; with EAP on one side, one on the other, and not by EAP; without a PPK |
//! | `pubkeys` | are SubjectPublicKeyInfo in PEM or DER; where there are some, no authority counts, nor are there `ca_id` and `cert_policy`; with several, `id` of `remote` has no wildcards |
//! | `cert_policy` | policies that are mapped to others do not count |
//! | `groups` | nobody says who is of one: there are no attribute certificates, and no RADIUS |
//! | `fragmentation` | `force` is `yes` with IKEv2 |
//! | `auth = eap-...` | `eap-mschapv2` and `eap-tls`, and no other; who answers signs, or both have `eap-tls` |
//! | `auth = null` | is our own (RFC 7619): the side proves nothing, in one round, with IKEv2; of a `remote` with it there is no `id`, and it is nobody's other IKE SA for `unique` |
//! | `eap_id` of `remote` | is asked of the peer, whoever it is; without it, it is who it is in IKE, or anybody if `id` is `%any` |
//! | `pools` | their addresses stay as they are while peers have some |
//! | `if_id_*`, `mark_*`, `reqid` | are 0: what they tell apart is told by `interface`, or by names |
//! | `interface` | cannot be used yet: write `connections.toml` for a device whose routes say what is protected |
//! | `mediation*`, `mediated_by` | there is no mediation |
//! | `ah_and_esp` of a child | is ours, with `version = 1`: `yes` has packets in ESP and that in AH, by the first of `esp_proposals` and of `ah_proposals` that both sides have, with one group in both; not through a NAT |
//! | `updown` | there are no scripts, and `hostaccess` has nobody to tell it to |
//! | `policies` | yes |
//! | `policies_fwd_out` | either: what is forwarded has the same policies |
//! | `mode` | not `beet` or `transport_proxy`; `pass` and `drop` are laid by `start_action = trap` and not `start`; a connection that has only such children is nobody's |
//! | `ipcomp`, `sha256_96`, `label` | no, and nothing |
//! | `hw_offload` | `no`, or `auto`, which is `no` |
//! | `replay_window` | is 1024 by default, and a multiple of 64, upwards |
//! | `tfc_padding` | is at most 65535 |
//! | `crl_uris`, `ocsp_uris` | are of files: nothing is fetched; there is a directory `x509ocsp`, too |
//! | `cert_uri_base` | certificates are sent themselves |
//! | `handle`, `slot`, `module`, `secrets.token` | keys are in files |
//! | `private`, `rsa`, `ecdsa`, `pkcs8`, `pkcs12` of `secrets` | are for swanctl, which decrypts keys and loads them: iked reads files that are not encrypted |
//! | a secret | is not empty; hexadecimal digits are even in number; one of `ntlm` has 16 octets |
//! | `""` | is no value, as nothing behind `=` is |

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
