//! Sections in `secrets`: what two sides both know, and what private keys are encrypted with.

use super::{
    authentication::TOKENS,
    key::{Key, Kind, Naming, Objection, Part, SettingError, key, read},
    tree::{Branch, Entry, Node},
    value::{Refused, Setting, Value, words},
};
use crate::secret::Secret;
use base64ct::{Base64, Encoding};
use std::path::PathBuf;
use zeroize::Zeroizing;

words! {
    /// What a shared secret is for.
    Purpose {
        /// Preshared keys of IKE.
        Ike = "ike",
        /// EAP and XAuth.
        Eap = "eap" | "xauth",
        /// EAP-MSCHAPv2: the secret is the NT hash of the password.
        Ntlm = "ntlm",
        /// Postquantum preshared keys (RFC 8784).
        Ppk = "ppk",
    }
}

words! {
    /// In which directory a file is that is encrypted.
    Folder {
        /// Private keys of any kind.
        Private = "private",
        /// RSA keys.
        Rsa = "rsa",
        /// ECDSA keys.
        Ecdsa = "ecdsa",
        /// Keys in PKCS#8.
        Pkcs8 = "pkcs8",
        /// Certificates with their keys in PKCS#12.
        Pkcs12 = "pkcs12",
    }
}

/// All secrets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Secrets {
    /// What two sides know.
    pub shared: Vec<Shared>,
    /// What files are encrypted with.
    pub passphrases: Vec<Passphrase>,
}

/// What two sides know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shared {
    /// Its section's name, or its `id` in VICI.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// The octets.
    pub secret: Secret,
    /// Whose it is; anybody's, if there are none.
    pub owners: Vec<String>,
}

/// What a file is encrypted with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Passphrase {
    /// Its section's name.
    pub name: String,
    /// Where the file is.
    pub folder: Folder,
    /// Its name.
    pub file: PathBuf,
    /// The octets.
    pub secret: Secret,
}

/// Text; or octets, as hexadecimal digits behind `0x` or in Base64 behind `0s`.
impl Setting for Option<Secret> {
    const ALLOWED: &'static str =
        "text, 0x and an even number of hexadecimal digits, or 0s and Base64; not empty";

    fn set(&mut self, _: &str, node: &Node<'_>) -> Result<(), Refused> {
        let Node::Value(octets) = node else { return Err(Refused::default()) };
        let secret = decoded(octets).filter(|secret| !secret.bytes().is_empty());
        *self = Some(secret.ok_or(Refused::default())?);
        Ok(())
    }
}

fn decoded(octets: &[u8]) -> Option<Secret> {
    let Ok(text) = str::from_utf8(octets) else { return Some(Secret::copy_of(octets)) };
    if text.starts_with("0x") {
        return Secret::from_hex(text);
    }
    match text.strip_prefix("0s") {
        Some(text) => {
            let mut room = Zeroizing::new(vec![0; text.len()]);
            Base64::decode(text, &mut room).ok().map(Secret::copy_of)
        }
        None => Some(Secret::copy_of(octets)),
    }
}

/// `id` and whatever is behind it.
#[derive(Default)]
struct Owners(Vec<String>);

impl Setting for Owners {
    const ALLOWED: &'static str = String::IS;

    fn set(&mut self, _: &str, node: &Node<'_>) -> Result<(), Refused> {
        let mut id = String::new();
        id.set("", node)?;
        self.0.push(id);
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct SharedSection {
    secret: Option<Secret>,
    owners: Owners,
}

impl Kind for SharedSection {
    const KEYS: &'static [Key<SharedSection>] =
        &[key!(SharedSection.secret = ""), key!(SharedSection.owners named "id", Naming::Prefix, "")];
}

#[derive(Default)]
pub(super) struct PassphraseSection {
    file: Option<PathBuf>,
    secret: Option<Secret>,
}

impl Kind for PassphraseSection {
    const KEYS: &'static [Key<PassphraseSection>] =
        &[key!(PassphraseSection.file = ""), key!(PassphraseSection.secret = "")];
}

/// A section: its full name, its entry, and what is in it.
type Named<'a> = (&'a str, &'a Entry<'a>, &'a Branch<'a>);

impl Secrets {
    fn take_shared(
        &mut self,
        purpose: Purpose,
        (full, entry, branch): Named<'_>,
    ) -> Result<(), SettingError> {
        let section: SharedSection = read(full, branch)?;
        let missing =
            || Objection::missing(full, "secret", "secret = 0sFpZAZqEN6Ti9sqt4ZP5EWcqx").at(branch.place);
        let secret = section.secret.ok_or_else(missing)?;
        let shared = Shared { name: entry.name.to_owned(), purpose, secret, owners: section.owners.0 };
        shared.check(full).map_err(|objection| objection.at(branch.place))?;
        self.shared.push(shared);
        Ok(())
    }

    fn take_passphrase(
        &mut self,
        folder: Folder,
        (full, entry, branch): Named<'_>,
    ) -> Result<(), SettingError> {
        let section: PassphraseSection = read(full, branch)?;
        let missing = |key, example| move || Objection::missing(full, key, example).at(branch.place);
        let file = section.file.ok_or_else(missing("file", "file = gateway.pem"))?;
        let secret = section.secret.ok_or_else(missing("secret", "secret = \"the file's passphrase\""))?;
        self.passphrases.push(Passphrase { name: entry.name.to_owned(), folder, file, secret });
        Ok(())
    }
}

impl Shared {
    fn check(&self, section: &str) -> Result<(), Objection> {
        if self.purpose == Purpose::Ntlm && self.secret.bytes().len() != 16 {
            let why = "the secret must be an NT hash, which has 16 octets: write it with 0x or 0s".to_owned();
            return Err(Objection::Contradiction { section: section.to_owned(), why });
        }
        Ok(())
    }
}

/// The row of a purpose, or of a folder.
macro_rules! part {
    ($name:literal, $take:ident, $kind:expr) => {
        Part {
            name: $name,
            naming: Naming::Prefix,
            read: |of, full, entry, branch| of.$take($kind, (full, entry, branch)),
        }
    };
}

impl Kind for Secrets {
    const KEYS: &'static [Key<Secrets>] = &[];
    const PARTS: &'static [Part<Secrets>] = &[
        part!("ike", take_shared, Purpose::Ike),
        part!("eap", take_shared, Purpose::Eap),
        part!("xauth", take_shared, Purpose::Eap),
        part!("ntlm", take_shared, Purpose::Ntlm),
        part!("ppk", take_shared, Purpose::Ppk),
        part!("private", take_passphrase, Folder::Private),
        part!("rsa", take_passphrase, Folder::Rsa),
        part!("ecdsa", take_passphrase, Folder::Ecdsa),
        part!("pkcs8", take_passphrase, Folder::Pkcs8),
        part!("pkcs12", take_passphrase, Folder::Pkcs12),
        Part {
            name: "token",
            naming: Naming::Prefix,
            read: |_, full, entry, _| {
                let (key, shown) = (full.to_owned(), String::new());
                Err(Objection::Unsupported { key, shown, instead: TOKENS }.at(entry.place))
            },
        },
    ];
}

/// The message of VICI's command `load-shared`, whose octets are the secret itself.
#[derive(Default)]
struct SharedMessage {
    id: String,
    purpose: Option<Purpose>,
    data: Raw,
    owners: Vec<String>,
}

#[derive(Default)]
struct Raw(Option<Secret>);

impl Setting for Raw {
    const ALLOWED: &'static str = "octets, at least one";

    fn set(&mut self, _: &str, node: &Node<'_>) -> Result<(), Refused> {
        let Node::Value(octets) = node else { return Err(Refused::default()) };
        self.0 = Some(Secret::copy_of(octets));
        Ok(())
    }
}

impl Kind for SharedMessage {
    const KEYS: &'static [Key<SharedMessage>] = &[
        key!(SharedMessage.id = ""),
        key!(SharedMessage.purpose named "type", Naming::Exact, ""),
        key!(SharedMessage.data = ""),
        key!(SharedMessage.owners = ""),
    ];
}

/// Reads the message of VICI's command `load-shared`.
///
/// # Errors
/// [`SettingError`] of what is missing or wrong.
pub fn load_shared(message: &Branch<'_>) -> Result<Shared, SettingError> {
    let section = "load-shared";
    let of: SharedMessage = read(section, message)?;
    let missing = |key, example| move || Objection::missing(section, key, example).at(None);
    let purpose = of.purpose.ok_or_else(missing("type", "type = IKE"))?;
    let secret = of.data.0.ok_or_else(missing("data", "data = the octets"))?;
    let shared = Shared { name: of.id, purpose, secret, owners: of.owners };
    shared.check(section).map_err(|objection| objection.at(None))?;
    Ok(shared)
}
