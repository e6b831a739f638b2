//! Keys and certificates: of files in the directories that strongSwan has beside `swanctl.conf`, of VICI, and of sections
//! `authorities`.
//!
//! | directory | of |
//! |---|---|
//! | `x509` | ends, with what their authorities have between themselves and them behind each |
//! | `x509ca` | authorities: those that sign themselves are trusted; others may be left out by peers, and are not by us |
//! | `x509crl` | lists of what authorities have revoked |
//! | `x509ocsp` | answers of OCSP responders |
//! | `pubkey` | public keys, which connections name |
//! | `private`, `rsa`, `ecdsa`, `pkcs8` | private keys, which only their owner may read |

use crate::swanctl::{
    authentication::{Auth, Hash, KeyType, LocalAuth, Method, RemoteAuth, Revocation, Scheme},
    authority::Authority,
    value::{self, Uri},
};
use portcullis_ike::{
    connection as ike,
    crypto::signature::{
        self, PrivateKey,
        demand::{Demand, Demands},
    },
    identity::IdPattern,
    pki::{
        certificate::Certificate,
        chain::Trust,
        credential::Credential,
        crl::Crl,
        ocsp::OcspResponse,
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

/// What is there of keys and certificates.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    directory: PathBuf,
    files: Store,
    loaded: Store,
    /// The octets of those of VICI.
    loaded_crls: Vec<Vec<u8>>,
    /// Each with its section's name.
    authorities: Vec<(String, Store)>,
}

/// What of a side's section cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unfit {
    /// The key in the section.
    pub key: &'static str,
    /// What is wrong with it.
    pub why: String,
}

/// What is wrong with a key.
fn of_key<E: ToString>(key: &'static str) -> impl Fn(E) -> Unfit {
    move |why| Unfit { key, why: why.to_string() }
}

/// Keys and certificates of one origin.
#[derive(Clone, Debug, Default)]
struct Store {
    keys: Vec<Key>,
    /// An end's certificate, and those of authorities behind it.
    ends: Vec<Vec<Certificate>>,
    authorities: Vec<Certificate>,
    said: Vec<Said>,
}

/// A private key. What is signed with is read from it for each credential.
#[derive(Clone)]
struct Key {
    /// Where it is from.
    origin: String,
    octets: Zeroizing<Vec<u8>>,
    public: signature::PublicKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({}, (hidden))", self.origin)
    }
}

impl Key {
    fn read(origin: String, octets: &[u8]) -> Result<Key, String> {
        let public = private_key(octets).map_err(|e| format!("{origin}: {e}"))?.public_key();
        Ok(Key { origin, octets: Zeroizing::new(octets.to_vec()), public })
    }
}

/// What VICI loads a certificate for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// An end.
    End,
    /// An authority.
    Authority,
    /// A list of what an authority has revoked.
    Crl,
}

impl Credentials {
    /// Reads what is in the directories of a directory. All else is as before.
    ///
    /// # Errors
    /// Which file cannot be used, and why; then all is as before.
    pub fn read(&mut self, directory: &Path) -> Result<(), String> {
        let mut store = Store::default();
        let private = PRIVATE.iter().map(|name| files(&directory.join(name)));
        for (file, octets) in private.collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
            let mode = fs::metadata(&file).map_err(|e| bad(&file, e))?.permissions().mode() & 0o7777;
            if mode & 0o007 != 0 {
                return Err(bad(
                    &file,
                    format!("everybody may read it (mode {mode:04o}); run chmod o= on it"),
                ));
            }
            store.keys.push(Key::read(file.display().to_string(), &octets)?);
        }
        for (file, octets) in files(&directory.join("x509"))? {
            store.ends.push(certificates(&file, &octets)?);
        }
        for (file, octets) in files(&directory.join("x509ca"))? {
            store.authorities.extend(certificates(&file, &octets)?);
        }
        for (file, octets) in files(&directory.join("x509crl"))? {
            store.said.extend(crls(&file, &octets)?);
        }
        for (file, octets) in files(&directory.join("x509ocsp"))? {
            store.said.push(answer(&file, &octets)?);
        }
        (self.directory, self.files) = (directory.to_owned(), store);
        Ok(())
    }

    /// Takes an authority in, in the place of one of the same name.
    ///
    /// # Errors
    /// What of it cannot be used; then all is as before.
    pub fn load_authority(&mut self, authority: &Authority) -> Result<(), String> {
        let store = authority_of(&self.directory, authority)?;
        self.unload_authority(&authority.name);
        self.authorities.push((authority.name.clone(), store));
        Ok(())
    }

    /// Forgets an authority.
    pub fn unload_authority(&mut self, name: &str) {
        self.authorities.retain(|(of, _)| of != name);
    }

    /// Takes a certificate or a CRL in, of DER or PEM, if it is not there yet.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn load_certificate(&mut self, of: Use, octets: &[u8]) -> Result<(), String> {
        let from = Path::new("data");
        match of {
            Use::End => {
                let end = certificates(from, octets)?;
                if !self.stores().any(|store| store.ends.contains(&end)) {
                    self.loaded.ends.push(end);
                }
            }
            Use::Authority => {
                let mut read = certificates(from, octets)?;
                read.retain(|c| !self.stores().any(|store| store.authorities.contains(c)));
                self.loaded.authorities.extend(read);
            }
            Use::Crl if self.loaded_crls.iter().any(|crl| crl == octets) => {}
            Use::Crl => {
                self.loaded.said.extend(crls(from, octets)?);
                self.loaded_crls.push(octets.to_vec());
            }
        }
        Ok(())
    }

    /// Takes a private key in, of DER or PEM; its name.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn load_key(&mut self, octets: &[u8]) -> Result<String, String> {
        let key = Key::read("data".to_owned(), octets)?;
        let name = key.name();
        if !self.loaded.keys.iter().any(|other| other.public == key.public) {
            self.loaded.keys.push(key);
        }
        Ok(name)
    }

    /// Forgets a private key that VICI has loaded. False if there is none.
    pub fn unload_key(&mut self, name: &str) -> bool {
        let before = self.loaded.keys.len();
        self.loaded.keys.retain(|key| key.name() != name);
        self.loaded.keys.len() < before
    }

    /// The names of the private keys that VICI has loaded.
    pub fn loaded_keys(&self) -> impl Iterator<Item = String> {
        self.loaded.keys.iter().map(Key::name)
    }

    /// Forgets what VICI has loaded.
    pub fn clear(&mut self) {
        (self.loaded, self.loaded_crls) = (Store::default(), vec![]);
    }

    /// All certificates, each with what it is for, and whether its private key is there.
    pub fn certificates(&self) -> impl Iterator<Item = (Use, &Certificate, bool)> {
        let has_key = |certificate: &Certificate| {
            self.stores().any(|store| store.keys.iter().any(|key| key.public == *certificate.key()))
        };
        self.stores().flat_map(move |store| {
            let ends = store.ends.iter().flatten().map(|c| (Use::End, c));
            let all = ends.chain(store.authorities.iter().map(|c| (Use::Authority, c)));
            all.map(move |(of, c)| (of, c, has_key(c)))
        })
    }

    fn stores(&self) -> impl Iterator<Item = &Store> + Clone {
        [&self.files, &self.loaded].into_iter().chain(self.authorities.iter().map(|(_, store)| store))
    }

    /// How we prove who we are.
    ///
    /// # Errors
    /// Why we cannot.
    pub fn local(&self, auth: &LocalAuth) -> Result<ike::LocalAuth, Unfit> {
        match auth.auth.method {
            Method::Psk => return Ok(ike::LocalAuth::SharedKey),
            Method::Null => return Ok(ike::LocalAuth::Null),
            _ => {}
        }
        if !auth.pubkeys.0.is_empty() {
            return self.local_key(auth);
        }
        let named = self.named(&auth.certs, "x509").map_err(of_key("certs"))?;
        let mut candidates: Vec<_> = match named.is_empty() {
            true => self.stores().flat_map(|store| &store.ends).cloned().collect(),
            false => named,
        };
        // As strongSwan: first those that say who we are.
        let id = auth.id.as_ref().and_then(|id| id.parse::<IdPattern>().ok()?.identity());
        let proves = |c: &Certificate| id.as_ref().is_some_and(|id| c.proves(id));
        candidates.sort_by_key(|certificates| !certificates.first().is_some_and(proves));
        let (of_chain, of_ike) = demands(&auth.auth).map_err(of_key("auth"))?;
        let mut is_weak = false;
        for certificates in &candidates {
            let is_of = |key: &&Key| certificates.first().is_some_and(|c| *c.key() == key.public);
            let Some(key) = self.stores().flat_map(|store| &store.keys).find(is_of) else { continue };
            let public = &key.public;
            if !of_chain.take_key(public) || !public.schemes().iter().any(|s| of_ike.take(public, *s)) {
                is_weak = true;
                continue;
            }
            let private = key.private().map_err(of_key("certs"))?;
            if let Ok(credential) = Credential::new(private, certificates.clone()) {
                let authorities = self.stores().flat_map(|store| &store.authorities);
                let credential = credential.with_issuers(authorities);
                return Ok(ike::LocalAuth::PublicKey(credential.demanding(of_ike)));
            }
        }
        if is_weak {
            return Err(of_key("auth")("none of our keys is what it demands"));
        }
        let of = candidates.first().and_then(|c| c.first()).map(|c| c.subject().to_string());
        Err(of_key("certs")(match of {
            Some(subject) => {
                format!("there is no private key for the certificate of {subject}; put it into private")
            }
            None => "there is no certificate; put it into x509, and its key into private".to_owned(),
        }))
    }

    /// How we do so by a key that has no certificate.
    fn local_key(&self, auth: &LocalAuth) -> Result<ike::LocalAuth, Unfit> {
        let publics = self.public_keys(&auth.pubkeys).map_err(of_key("pubkeys"))?;
        let (_, of_ike) = demands(&auth.auth).map_err(of_key("auth"))?;
        // As strongSwan: the first counts.
        let is_it = |key: &&Key| publics.first() == Some(&key.public);
        let key = self.stores().flat_map(|store| &store.keys).find(is_it);
        let missing = "there is no private key for the public one; put it into private";
        let private = key.ok_or(missing.to_owned()).and_then(Key::private).map_err(of_key("pubkeys"))?;
        Ok(ike::LocalAuth::PublicKey(Credential::raw(private).demanding(of_ike)))
    }

    /// The public keys that a key of the configuration names.
    fn public_keys(&self, of: &value::Credentials) -> Result<Vec<signature::PublicKey>, String> {
        let read = |credential: &value::Credential| {
            let (file, octets) = match credential {
                value::Credential::Octets(octets) => (PathBuf::from("a public key"), octets.clone()),
                value::Credential::File(file) => {
                    let file = self.directory.join("pubkey").join(file);
                    let octets = fs::read(&file).map_err(|e| bad(&file, e))?;
                    (file, octets)
                }
            };
            signature::PublicKey::from_file(&octets).map_err(|e| bad(&file, e))
        };
        of.0.iter().map(read).collect()
    }

    /// How a peer must prove who it is.
    ///
    /// # Errors
    /// Why nobody could.
    pub fn remote(&self, auth: &RemoteAuth) -> Result<ike::RemoteAuth, Unfit> {
        match auth.auth.method {
            Method::Psk => return Ok(ike::RemoteAuth::SharedKey),
            Method::Null => return Ok(ike::RemoteAuth::Null),
            _ => {}
        }
        let named = self.named(&auth.cacerts, "x509ca").map_err(of_key("cacerts"))?.concat();
        let is_anchor = |certificate: &Certificate| certificate.subject().is(certificate.issuer());
        let authorities = self.stores().flat_map(|store| &store.authorities).cloned();
        let (anchors, intermediates): (Vec<_>, Vec<_>) = authorities.partition(is_anchor);
        let pinned: Vec<_> = self
            .named(&auth.certs, "x509")
            .map_err(of_key("certs"))?
            .into_iter()
            .filter_map(|mut c| (!c.is_empty()).then(|| c.remove(0)))
            .collect();
        // As strongSwan: ends that are named are all that counts, under authorities if some are asked for, too.
        let needs_none = !pinned.is_empty() && auth.ca_id.is_none();
        let anchors = match named.is_empty() {
            true if needs_none => vec![],
            true => anchors,
            false => named,
        };
        let keys = self.public_keys(&auth.pubkeys).map_err(of_key("pubkeys"))?;
        check_keys(&keys, auth)?;
        // Keys that are named are all that counts.
        let anchors = if keys.is_empty() { anchors } else { vec![] };
        if anchors.is_empty() && pinned.is_empty() && keys.is_empty() {
            return Err(of_key("cacerts")("nobody is trusted; put certificates of authorities into x509ca"));
        }
        let revocation = match auth.revocation {
            Revocation::Relaxed => revocation::Revocation::Relaxed,
            Revocation::IfUri => revocation::Revocation::IfUri,
            Revocation::Strict => revocation::Revocation::Strict,
        };
        let said = self.stores().flat_map(|store| &store.said).cloned().collect();
        let (demands, ike_demands) = demands(&auth.auth).map_err(of_key("auth"))?;
        let authority = auth.ca_id.as_deref().map(|id| id.parse::<IdPattern>().map_err(of_key("ca_id")));
        let policies = auth.cert_policy.iter().map(|oid| oid.0.parse().map_err(of_key("cert_policy")));
        let trust = Trust {
            anchors,
            pinned,
            keys,
            authority: authority.transpose()?,
            policies: policies.collect::<Result<_, _>>()?,
            intermediates,
            said,
            revocation,
            demands,
            ike_demands,
        };
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

/// Whether all that is asked of a peer can be seen by the keys that it may have: they have no certificates.
///
/// # Errors
/// What cannot.
fn check_keys(keys: &[signature::PublicKey], auth: &RemoteAuth) -> Result<(), Unfit> {
    if keys.is_empty() {
        return Ok(());
    }
    let why = "what is in pubkeys has no certificate; write certs";
    if auth.ca_id.is_some() {
        return Err(of_key("ca_id")(why));
    }
    if !auth.cert_policy.is_empty() {
        return Err(of_key("cert_policy")(why));
    }
    // Which key is whose is not said.
    let is_one = auth.id.parse::<IdPattern>().is_ok_and(|id| id.identity().is_some());
    match keys.len() > 1 && !is_one {
        true => Err(of_key("pubkeys")(format!(
            "whoever has one of several keys may say to be any of '{}'; write one in id, or a connection for each",
            auth.id
        ))),
        false => Ok(()),
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

impl Key {
    /// What is signed with.
    fn private(&self) -> Result<PrivateKey, String> {
        private_key(&self.octets).map_err(|e| format!("{}: {e}", self.origin))
    }

    /// By which VICI knows it.
    fn name(&self) -> String {
        self.public.id().iter().map(|octet| format!("{octet:02x}")).collect()
    }
}

/// What is there of a section of authorities.
fn authority_of(directory: &Path, authority: &Authority) -> Result<Store, String> {
    let name = &authority.name;
    let octets_of = |path: &Path| {
        let file = directory.join("x509ca").join(path);
        fs::read(&file).map(|octets| (file.clone(), octets)).map_err(|e| bad(&file, e))
    };
    let (file, octets) = match (&authority.cacert, &authority.file) {
        (Some(value::Credential::Octets(octets)), _) => (PathBuf::from("cacert"), octets.clone()),
        (Some(value::Credential::File(path)), _) => octets_of(path)?,
        (None, Some(path)) => octets_of(&path.0)?,
        (None, None) => return Err(format!("authority '{name}' has no cacert")),
    };
    if let Some(base) = &authority.cert_uri_base {
        return Err(format!(
            "authority '{name}': cert_uri_base: {}: certificates are sent themselves",
            base.0
        ));
    }
    let mut store = Store { authorities: certificates(&file, &octets)?, ..Store::default() };
    for uri in &authority.crl_uris {
        let file = path_of(name, "crl_uris", uri)?;
        store.said.extend(crls(&file, &fs::read(&file).map_err(|e| bad(&file, e))?)?);
    }
    for uri in &authority.ocsp_uris {
        let file = path_of(name, "ocsp_uris", uri)?;
        store.said.push(answer(&file, &fs::read(&file).map_err(|e| bad(&file, e))?)?);
    }
    Ok(store)
}

/// The file of a URI. Nothing is fetched: who waits for a server can be made to wait.
fn path_of(authority: &str, key: &str, uri: &Uri) -> Result<PathBuf, String> {
    let path = uri.0.strip_prefix("file://").map(Path::new).filter(|path| path.is_absolute());
    path.map(Path::to_owned).ok_or_else(|| {
        format!(
            "authority '{authority}': {key}: {}: only file:///... is read; have it fetched into a file now and then, and reload",
            uri.0
        )
    })
}

fn crls(file: &Path, octets: &[u8]) -> Result<Vec<Said>, String> {
    Ok(Crl::from_file(octets).map_err(|e| bad(file, e))?.into_iter().map(Said::Crl).collect())
}

fn answer(file: &Path, octets: &[u8]) -> Result<Said, String> {
    OcspResponse::from_der(octets).map(Said::Ocsp).map_err(|e| bad(file, e))
}

fn bad(file: &Path, why: impl std::fmt::Display) -> String {
    format!("{}: {why}", file.display())
}

/// A file, and what is in it, which may be a private key.
type File = (PathBuf, Zeroizing<Vec<u8>>);

/// All files in a directory, by name; none if there is no directory.
fn files(directory: &Path) -> Result<Vec<File>, String> {
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.map_err(|e| bad(directory, e))?,
    };
    let mut files = vec![];
    for entry in entries {
        let file = entry.map_err(|e| bad(directory, e))?.path();
        if file.is_file() {
            let octets = fs::read(&file).map(Zeroizing::new).map_err(|e| bad(&file, e))?;
            files.push((file, octets));
        }
    }
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
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
    key.map_err(|e| match e {
        signature::SignatureError::Encrypted => {
            format!("{e}; swanctl --load-creds decrypts it, and loads it by VICI")
        }
        e => e.to_string(),
    })
}
