//! Keys and certificates in files, in the directories that strongSwan has beside `swanctl.conf`.
//!
//! | directory | of |
//! |---|---|
//! | `x509` | ends, with what their authorities have between themselves and them behind each |
//! | `x509ca` | authorities: those that sign themselves are trusted, others may be left out by peers |
//! | `x509crl` | lists of what authorities have revoked |
//! | `private`, `rsa`, `ecdsa`, `pkcs8` | private keys, which only their owner may read |

use crate::swanctl::{
    authentication::{Auth, Hash, KeyType, LocalAuth, Method, RemoteAuth, Revocation, Scheme},
    value,
};
use portcullis_ike::{
    connection as ike,
    crypto::signature::{
        self, PrivateKey,
        demand::{Demand, Demands},
    },
    pki::{
        certificate::Certificate,
        chain::Trust,
        credential::Credential,
        crl::Crl,
        revocation::{self, Said},
    },
};
use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::Zeroizing;

/// Where private keys are.
const PRIVATE: [&str; 4] = ["private", "rsa", "ecdsa", "pkcs8"];

/// What is in the files beside a `swanctl.conf`.
#[derive(Debug, Default)]
pub struct Credentials {
    directory: PathBuf,
    keys: Vec<(PathBuf, Zeroizing<Vec<u8>>)>,
    ends: Vec<(PathBuf, Vec<Certificate>)>,
    authorities: Vec<Certificate>,
    said: Vec<Said>,
}

impl Credentials {
    /// Reads what is in the directories of a directory.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn read(directory: &Path) -> Result<Credentials, String> {
        let mut all = Credentials { directory: directory.to_owned(), ..Credentials::default() };
        let private = PRIVATE.iter().map(|name| files(&directory.join(name)));
        for (file, octets) in private.collect::<Result<Vec<_>, _>>()?.concat() {
            let mode = fs::metadata(&file).map_err(|e| bad(&file, e))?.permissions().mode() & 0o7777;
            if mode & 0o007 != 0 {
                return Err(bad(
                    &file,
                    format!("everybody may read it (mode {mode:04o}); run chmod o= on it"),
                ));
            }
            all.keys.push((file, Zeroizing::new(octets)));
        }
        for (file, octets) in files(&directory.join("x509"))? {
            all.ends.push((file.clone(), certificates(&file, &octets)?));
        }
        for (file, octets) in files(&directory.join("x509ca"))? {
            all.authorities.extend(certificates(&file, &octets)?);
        }
        for (file, octets) in files(&directory.join("x509crl"))? {
            all.said.extend(Crl::from_file(&octets).map_err(|e| bad(&file, e))?.into_iter().map(Said::Crl));
        }
        Ok(all)
    }

    /// How we prove who we are.
    ///
    /// # Errors
    /// Why we cannot.
    pub fn local(&self, auth: &LocalAuth) -> Result<ike::LocalAuth, String> {
        if auth.auth.method == Method::Psk {
            return Ok(ike::LocalAuth::SharedKey);
        }
        let named = self.named(&auth.certs, "x509")?;
        let candidates: Vec<_> = match named.is_empty() {
            true => self.ends.iter().map(|(_, certificates)| certificates.clone()).collect(),
            false => named,
        };
        let (of_chain, of_ike) = demands(&auth.auth)?;
        let mut is_weak = false;
        for certificates in &candidates {
            for (file, octets) in &self.keys {
                let key = private_key(octets).map_err(|e| bad(file, e))?;
                let public = key.public_key();
                let Ok(credential) = Credential::new(key, certificates.clone()) else { continue };
                if of_chain.take_key(&public) && public.schemes().iter().any(|s| of_ike.take(&public, *s)) {
                    return Ok(ike::LocalAuth::PublicKey(credential.demanding(of_ike)));
                }
                is_weak = true;
            }
        }
        if is_weak {
            return Err("none of our keys is what local.auth demands".to_owned());
        }
        let of = candidates.first().and_then(|c| c.first()).map(|c| c.subject().to_string());
        Err(match of {
            Some(subject) => {
                format!("there is no private key for the certificate of {subject}; put it into private")
            }
            None => "there is no certificate; put it into x509, and its key into private".to_owned(),
        })
    }

    /// How a peer must prove who it is.
    ///
    /// # Errors
    /// Why nobody could.
    pub fn remote(&self, auth: &RemoteAuth) -> Result<ike::RemoteAuth, String> {
        if auth.auth.method == Method::Psk {
            return Ok(ike::RemoteAuth::SharedKey);
        }
        let named = self.named(&auth.cacerts, "x509ca")?.concat();
        let is_anchor = |certificate: &Certificate| certificate.subject().is(certificate.issuer());
        let (anchors, intermediates): (Vec<_>, Vec<_>) =
            self.authorities.iter().cloned().partition(is_anchor);
        let pinned: Vec<_> = self
            .named(&auth.certs, "x509")?
            .into_iter()
            .filter_map(|mut c| (!c.is_empty()).then(|| c.remove(0)))
            .collect();
        let anchors = if named.is_empty() { anchors } else { named };
        if anchors.is_empty() && pinned.is_empty() {
            return Err("nobody is trusted; put certificates of authorities into x509ca".to_owned());
        }
        let revocation = match auth.revocation {
            Revocation::Relaxed => revocation::Revocation::Relaxed,
            Revocation::IfUri => revocation::Revocation::IfUri,
            Revocation::Strict => revocation::Revocation::Strict,
        };
        let said = self.said.clone();
        let (demands, ike_demands) = demands(&auth.auth)?;
        let trust = Trust { anchors, pinned, intermediates, said, revocation, demands, ike_demands };
        Ok(ike::RemoteAuth::PublicKey(Arc::new(trust)))
    }

    /// The certificates that a key of the configuration names, file by file.
    fn named(&self, of: &value::Credentials, kind: &str) -> Result<Vec<Vec<Certificate>>, String> {
        let read = |credential: &value::Credential| match credential {
            value::Credential::Octets(octets) => certificates(Path::new("a certificate"), octets),
            value::Credential::File(file) => {
                let file = self.directory.join(kind).join(file);
                certificates(&file, &fs::read(&file).map_err(|e| bad(&file, e))?)
            }
        };
        of.0.iter().map(read).collect()
    }
}

/// What `auth` demands of keys and signatures of certificates, and of signatures in IKE.
///
/// # Errors
/// What cannot be demanded.
pub(super) fn demands(auth: &Auth) -> Result<(Demands, Demands), String> {
    let all = |schemes: &[Scheme]| schemes.iter().map(demand).collect::<Result<_, _>>().map(Demands);
    let chain = all(&auth.chain)?;
    let ike = if auth.ike.is_empty() { chain.clone() } else { all(&auth.ike)? };
    Ok((chain, ike))
}

fn demand(scheme: &Scheme) -> Result<Demand, String> {
    use signature::{Hash as Of, Kind};
    let hash = |hash: &Hash| match hash {
        Hash::Sha256 => Some(Ok(Of::Sha256)),
        Hash::Sha384 => Some(Ok(Of::Sha384)),
        Hash::Sha512 => Some(Ok(Of::Sha512)),
        Hash::Identity => None,
        Hash::Sha1 => Some(Err("sha1 is too weak to be demanded".to_owned())),
    };
    Ok(Demand {
        kind: match scheme.key {
            KeyType::Any => None,
            KeyType::Rsa | KeyType::RsaPss => Some(Kind::Rsa),
            KeyType::Ecdsa => Some(Kind::Ecdsa),
            KeyType::Ed25519 => Some(Kind::Ed25519),
            KeyType::Ed448 => Some(Kind::Ed448),
        },
        is_pss: scheme.key == KeyType::RsaPss,
        least_bits: scheme.bits.unwrap_or_default() as usize,
        hashes: scheme.hashes.iter().filter_map(hash).collect::<Result<_, _>>()?,
    })
}

fn bad(file: &Path, why: impl std::fmt::Display) -> String {
    format!("{}: {why}", file.display())
}

/// All files in a directory, by name; none if there is no directory.
fn files(directory: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, String> {
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.map_err(|e| bad(directory, e))?,
    };
    let mut files = vec![];
    for entry in entries {
        let file = entry.map_err(|e| bad(directory, e))?.path();
        if file.is_file() {
            let octets = fs::read(&file).map_err(|e| bad(&file, e))?;
            files.push((file, octets));
        }
    }
    files.sort();
    Ok(files)
}

fn certificates(file: &Path, octets: &[u8]) -> Result<Vec<Certificate>, String> {
    Certificate::from_file(octets).map_err(|e| bad(file, e))
}

fn private_key(octets: &[u8]) -> Result<PrivateKey, String> {
    let key = match str::from_utf8(octets) {
        Ok(text) if text.contains("-----BEGIN ") => PrivateKey::from_pem(text),
        _ => PrivateKey::from_der(octets),
    };
    key.map_err(|e| e.to_string())
}
