//! Sections `local` and `remote`: how either side proves who it is. There may be several of each, for more than one
//! round (RFC 4739); `local` and what is behind it is a name without a meaning.

use super::{
    key::{Key, Kind, Naming, Objection, Part, SettingError, key, read},
    tree::Branch,
    value::{AbsolutePath, Credential, Credentials, Oid, Value, words},
};

words! {
    /// What a certificate of which nothing is known of its revocation is worth.
    Revocation {
        /// It counts as good.
        Relaxed = "relaxed",
        /// It does, unless it says where to ask.
        IfUri = "ifuri",
        /// Nothing.
        Strict = "strict",
    }
}

/// How somebody proves who he is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Auth {
    /// By what.
    pub method: Method,
    /// What signatures in IKE must be like, the best first; any, if it is empty and `chain` is, too.
    pub ike: Vec<Scheme>,
    /// What keys and signatures of certificates must be like; those in IKE too, if `ike` is empty.
    pub chain: Vec<Scheme>,
}

/// By what somebody proves who he is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Method {
    /// A signature.
    #[default]
    PublicKey,
    /// A secret that both know.
    Psk,
    /// Nothing (RFC 7619). Our own word.
    Null,
    /// EAP, by this method if it is said.
    Eap(Option<String>),
    /// XAuth of IKEv1, by this backend if it is said.
    Xauth(Option<String>),
}

/// What a signature must be like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scheme {
    /// The key.
    pub key: KeyType,
    /// Its size at least.
    pub bits: Option<u32>,
    /// Hashes that it may be made with, the best first; all if there are none.
    pub hashes: Vec<Hash>,
}

words! {
    /// A kind of keys.
    KeyType {
        /// Any.
        Any = "pubkey",
        /// RSA.
        Rsa = "rsa",
        /// RSA with RSASSA-PSS.
        RsaPss = "rsa/pss",
        /// ECDSA.
        Ecdsa = "ecdsa",
        /// Ed25519.
        Ed25519 = "ed25519",
        /// Ed448.
        Ed448 = "ed448",
    }
}

words! {
    /// A hash of signatures.
    Hash {
        /// SHA-256.
        Sha256 = "sha256",
        /// SHA-384.
        Sha384 = "sha384",
        /// SHA-512.
        Sha512 = "sha512",
        /// SHA-1.
        Sha1 = "sha1",
        /// Identity, with signatures that hash by themselves (RFC 8420).
        Identity = "identity",
    }
}

impl Value for Auth {
    const IS: &'static str = "pubkey, psk, null, eap-METHOD, xauth, or what a signature must be like, such as rsa-2048-sha256 or ike:ecdsa-384-sha384";

    fn parse(text: &str) -> Option<Auth> {
        let text = text.to_ascii_lowercase();
        let of = |method| Some(Auth { method, ..Auth::default() });
        if text == "psk" {
            return of(Method::Psk);
        }
        if text == "null" {
            return of(Method::Null);
        }
        if let Some(backend) = behind(&text, "xauth") {
            return of(Method::Xauth(backend?));
        }
        let (eap, constraints) = text.split_once(':').map_or((&text[..], None), |(m, c)| (m, Some(c)));
        if let Some(method) = behind(eap, "eap") {
            let chain = constraints.map_or(Some((vec![], vec![])), schemes)?;
            return Some(Auth { method: Method::Eap(method?), ike: chain.0, chain: chain.1 });
        }
        let (ike, chain) = schemes(&text)?;
        // `pubkey` alone asks for nothing.
        let (ike, chain) = (asks(ike), asks(chain));
        Some(Auth { method: Method::PublicKey, ike, chain })
    }
}

fn asks(schemes: Vec<Scheme>) -> Vec<Scheme> {
    match &schemes[..] {
        [Scheme { key: KeyType::Any, bits: None, hashes }] if hashes.is_empty() => vec![],
        _ => schemes,
    }
}

/// What is behind `word-`; nothing behind the word alone; `Some(None)` if it is wrong.
fn behind(text: &str, word: &str) -> Option<Option<Option<String>>> {
    let rest = text.strip_prefix(word)?;
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match rest.strip_prefix('-') {
        None if rest.is_empty() => Some(Some(None)),
        Some(name) if is_name(name) => Some(Some(Some(name.to_owned()))),
        _ => Some(None),
    }
}

/// Words with dashes: a kind of keys, its size and hashes, and again. From `ike:` on they are about signatures in IKE,
/// before it about those of certificates.
fn schemes(text: &str) -> Option<(Vec<Scheme>, Vec<Scheme>)> {
    let (mut ike, mut chain) = (vec![], vec![]);
    let mut is_ike = false;
    for word in text.split('-') {
        let word = match word.strip_prefix("ike:") {
            Some(word) => {
                is_ike = true;
                word
            }
            None => word,
        };
        let of: &mut Vec<Scheme> = if is_ike { &mut ike } else { &mut chain };
        if let Some(key) = KeyType::parse(word) {
            of.push(Scheme { key, bits: None, hashes: vec![] });
        } else if let Some(hash) = Hash::parse(word) {
            of.last_mut()?.hashes.push(hash);
        } else {
            let scheme = of.last_mut()?;
            let is_sized = matches!(scheme.key, KeyType::Rsa | KeyType::RsaPss | KeyType::Ecdsa);
            if !is_sized || scheme.bits.is_some() || !scheme.hashes.is_empty() {
                return None;
            }
            scheme.bits = Some(u32::parse(word)?);
        }
    }
    Some((ike, chain))
}

/// A section `cert` or `cacert`: a certificate that iked reads by itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Certificate {
    file: Option<AbsolutePath>,
}

pub(super) const TOKENS: &str =
    "keys and certificates on tokens cannot be used; put the certificate in a file, and its key in private";

impl Kind for Certificate {
    const KEYS: &'static [Key<Certificate>] = &[
        key!(Certificate.file = ""),
        key!(Certificate "handle" ignores &[], TOKENS),
        key!(Certificate "slot" ignores &[], TOKENS),
        key!(Certificate "module" ignores &[], TOKENS),
    ];
}

fn certificate(into: &mut Credentials, name: &str, branch: &Branch<'_>) -> Result<(), SettingError> {
    let certificate: Certificate = read(name, branch)?;
    match certificate.file {
        Some(file) => into.0.push(Credential::File(file.0)),
        None => {
            let example = "file = /etc/swanctl/x509/gateway.pem";
            return Err(Objection::missing(name, "file", example).at(branch.place));
        }
    }
    Ok(())
}

/// How we prove who we are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LocalAuth {
    /// Rounds are in this order, and those with the same number as they are written.
    pub round: u32,
    /// Certificates that may be ours, with those of sections `cert`.
    pub certs: Credentials,
    /// Public keys that may be ours, without certificates.
    pub pubkeys: Credentials,
    /// By what.
    pub auth: Auth,
    /// Who we are.
    pub id: Option<String>,
    /// Who we are in EAP; `id` if it is not said.
    pub eap_id: Option<String>,
    /// Who the server is in EAP; the remote `id` if it is not said.
    pub aaa_id: Option<String>,
    /// Who we are in XAuth; `id` if it is not said.
    pub xauth_id: Option<String>,
}

impl Kind for LocalAuth {
    const KEYS: &'static [Key<LocalAuth>] = &[
        key!(LocalAuth.round = "0"),
        key!(LocalAuth.certs = ""),
        key!(LocalAuth.pubkeys = ""),
        key!(LocalAuth.auth = "pubkey"),
        key!(LocalAuth.id = ""),
        key!(LocalAuth.eap_id = ""),
        key!(LocalAuth.aaa_id = ""),
        key!(LocalAuth.xauth_id = ""),
    ];
    const PARTS: &'static [Part<LocalAuth>] = &[Part {
        name: "cert",
        naming: Naming::Prefix,
        read: |of, name, _, branch| certificate(&mut of.certs, name, branch),
    }];
}

/// How the peer has to prove who it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RemoteAuth {
    /// As of [`LocalAuth`].
    pub round: u32,
    /// Who it is: an identity with wildcards, or `%any`.
    pub id: String,
    /// Who it is in EAP; `id` if it is not said, `%any` asks.
    pub eap_id: Option<String>,
    /// Groups that it must be of one of.
    pub groups: Vec<String>,
    /// Policies of which its certificate must have all.
    pub cert_policy: Vec<Oid>,
    /// Certificates that it may have, with those of sections `cert`.
    pub certs: Credentials,
    /// CAs of which one must be in its chain, with those of sections `cacert`.
    pub cacerts: Credentials,
    /// The identity of a CA that must be in its chain.
    pub ca_id: Option<String>,
    /// Public keys that it may have, without certificates.
    pub pubkeys: Credentials,
    /// What is asked of certificates.
    pub revocation: Revocation,
    /// By what.
    pub auth: Auth,
}

impl Kind for RemoteAuth {
    const KEYS: &'static [Key<RemoteAuth>] = &[
        key!(RemoteAuth.round = "0"),
        key!(RemoteAuth.id = "%any"),
        key!(RemoteAuth.eap_id = ""),
        key!(RemoteAuth.groups = ""),
        key!(RemoteAuth.cert_policy = ""),
        key!(RemoteAuth.certs = ""),
        key!(RemoteAuth.cacerts = ""),
        key!(RemoteAuth.ca_id = ""),
        key!(RemoteAuth.pubkeys = ""),
        key!(RemoteAuth.revocation = "relaxed"),
        key!(RemoteAuth.auth = "pubkey"),
    ];
    const PARTS: &'static [Part<RemoteAuth>] = &[
        Part {
            name: "cert",
            naming: Naming::Prefix,
            read: |of, name, _, branch| certificate(&mut of.certs, name, branch),
        },
        Part {
            name: "cacert",
            naming: Naming::Prefix,
            read: |of, name, _, branch| certificate(&mut of.cacerts, name, branch),
        },
    ];
}
