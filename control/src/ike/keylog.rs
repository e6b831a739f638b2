//! The keys of all SAs, in tables of Wireshark. Whoever may read them may read all that the SAs carry: nothing is
//! written unless somebody asks for it, and the log says so each time.
//!
//! ```text
//! WIRESHARK_CONFIG_DIR=DIR wireshark -o esp.enable_encryption_decode:TRUE
//! ```
//!
//! Wireshark decrypts AES-CBC and AES-GCM, and of ESP AES-CTR, 3DES and NULL; of others there is no row. Of an IKE SA that
//! changes its keys before IKE_AUTH (RFC 9370) it takes the last row of the SPIs. Of AH, which it does not check, there are rows like
//! those of ESP in `ah_sa`, for other tools.

use portcullis_ike::{
    crypto::{
        Secret,
        key_log::{KeyLog as Keys, SealKeys},
        transform,
    },
    message::IkeSpi,
    v2::child::Install,
};
use portcullis_sadb::{Algorithm, Encryption, Integrity, Key, Protocol};
use rustix::{fs::OFlags, io::Errno, process::geteuid};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Wireshark's names of its tables, and that of AH's.
const TABLES: [&str; 4] = ["ikev1_decryption_table", "ikev2_decryption_table", "esp_sa", "ah_sa"];

/// Where keys are written.
#[derive(Debug)]
pub struct KeyLog {
    directory: PathBuf,
    isakmp: File,
    ike: File,
    esp: File,
    ah: File,
}

impl KeyLog {
    /// Appends to the tables in a directory, which only their owner may read.
    ///
    /// # Errors
    /// They cannot be made, or others may read what is there.
    pub fn open(directory: &Path) -> io::Result<KeyLog> {
        fs::create_dir_all(directory)?;
        let [isakmp, ike, esp, ah] = TABLES.map(|name| table(&directory.join(name)));
        let log = KeyLog { directory: directory.to_owned(), isakmp: isakmp?, ike: ike?, esp: esp?, ah: ah? };
        log.warn("all keys of this gateway's SAs are written");
        Ok(log)
    }

    /// An IKE SA or an ISAKMP SA has keys.
    pub fn ike_sa(&mut self, keys: &Keys) {
        let (written, of) = match keys {
            Keys::V2(keys) => {
                let row = ike_row(keys);
                (row.map_or(Ok(()), |row| writeln!(self.ike, "{row}")), keys.spis.initiator)
            }
            Keys::V1 { initiator, cipher } => {
                (writeln!(self.isakmp, "{}", isakmp_row(*initiator, cipher)), *initiator)
            }
        };
        self.told(written, &format!("the keys of the IKE SA of {of} are written"));
    }

    /// A child SA has keys.
    pub fn child_sa(&mut self, install: &Install) {
        let Install { sa, algorithm, key_in, key_out, .. } = install;
        let own = (*algorithm, [(sa.spi_in, key_in), (sa.spi_out, key_out)]);
        let around = sa.around.as_deref().zip(install.around.as_deref()).map(|(around, keyed)| {
            (keyed.algorithm, [(around.spi_in, &keyed.key_in), (around.spi_out, &keyed.key_out)])
        });
        let written = [Some(own), around].into_iter().flatten().try_for_each(|(algorithm, [one, other])| {
            let (local, peer) = (install.local.ip(), install.peer.ip());
            let rows = [row(algorithm, (peer, local), one), row(algorithm, (local, peer), other)];
            let table = if algorithm.is_for(Protocol::Ah) { &mut self.ah } else { &mut self.esp };
            rows.iter().flatten().try_for_each(|row| writeln!(table, "{row}"))
        });
        self.told(written, &format!("the keys of child SA '{}' are written", install.sa.config.name));
    }

    fn told(&self, written: io::Result<()>, what: &str) {
        match written {
            Ok(()) => self.warn(what),
            Err(error) => tracing::error!("{}: {error}", self.directory.display()),
        }
    }

    fn warn(&self, what: &str) {
        tracing::warn!(
            "KEYLOG: {what} to {}: whoever reads that reads all traffic",
            self.directory.display()
        );
    }
}

/// A table that is ours alone: what is there may be another's, or a way to somewhere else.
fn table(path: &Path) -> io::Result<File> {
    let refuse = |why: &str| io::Error::other(format!("{}: {why}", path.display()));
    let follows_no_link = OFlags::NOFOLLOW.bits() as i32;
    let mut options = OpenOptions::new();
    let options = options.append(true).create(true).mode(0o600).custom_flags(follows_no_link);
    let file = options.open(path).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::LOOP) => refuse("it is a symbolic link"),
        _ => refuse(&error.to_string()),
    })?;
    let is = file.metadata()?;
    match (is.is_file(), is.uid() == geteuid().as_raw(), is.mode() & 0o077) {
        (false, ..) => Err(refuse("it is no file")),
        (_, false, _) => Err(refuse("it is another user's; take it away")),
        (.., 0) => Ok(file),
        _ => Err(refuse("others may read or write it; run `chmod go= FILE`, or take it away")),
    }
}

/// By the initiator's cookie, the key alone: algorithms are in clear in the messages.
fn isakmp_row(initiator: IkeSpi, cipher: &Secret) -> String {
    format!("{},{}", hex(&initiator.octets()), hex(cipher.bytes()))
}

/// Of Wireshark's names for these, the bits and octets are in the middle.
fn ike_row(keys: &SealKeys) -> Option<String> {
    use transform::{Encryption as E, Integrity as I};
    let encryption = match keys.encryption {
        E::AesCbc128 => "AES-CBC-128 [RFC3602]",
        E::AesCbc192 => "AES-CBC-192 [RFC3602]",
        E::AesCbc256 => "AES-CBC-256 [RFC3602]",
        gcm => &format!(
            "AES-GCM-{} with {} octet ICV [RFC5282]",
            gcm.key_bits().filter(|_| gcm.name().contains("gcm"))?,
            gcm.icv_len()
        ),
    };
    let integrity = match keys.integrity {
        None => "NONE [RFC4306]",
        Some(I::HmacSha1) => "HMAC_SHA1_96 [RFC2404]",
        Some(I::HmacSha256) => "HMAC_SHA2_256_128 [RFC4868]",
        Some(I::HmacSha384) => "HMAC_SHA2_384_192 [RFC4868]",
        Some(I::HmacSha512) => "HMAC_SHA2_512_256 [RFC4868]",
    };
    let [ei, er] = keys.e.each_ref().map(|key| hex(key.bytes()));
    let [ai, ar] = keys.a.each_ref().map(|key: &Secret| hex(key.bytes()));
    let [spi_i, spi_r] = [keys.spis.initiator, keys.spis.responder].map(|spi| hex(&spi.octets()));
    Some(format!(r#"{spi_i},{spi_r},{ei},{er},"{encryption}",{ai},{ar},"{integrity}""#))
}

fn row(algorithm: Algorithm, (from, to): (IpAddr, IpAddr), (spi, key): (u32, &Key)) -> Option<String> {
    let (encryption, integrity) = esp_names(algorithm)?;
    // Keys of the cipher and of the MAC, and the cipher's salt, which Wireshark has behind its key.
    let (cipher, rest) = key.bytes().split_at(algorithm.cipher_key_len());
    let (mac, salt) = rest.split_at(algorithm.key_len() - algorithm.cipher_key_len());
    let family = if from.is_ipv4() { "IPv4" } else { "IPv6" };
    let number = |octets: &[u8]| if octets.is_empty() { String::new() } else { format!("0x{}", hex(octets)) };
    let (cipher, mac) = (number(&[cipher, salt].concat()), number(mac));
    Some(format!(
        r#""{family}","{from}","{to}","0x{spi:08x}","{encryption}","{cipher}","{integrity}","{mac}""#
    ))
}

fn esp_names(algorithm: Algorithm) -> Option<(&'static str, &'static str)> {
    use Encryption as E;
    let encryption = match algorithm.encryption() {
        E::AesGcm128 | E::AesGcm192 | E::AesGcm256 => "AES-GCM with 16 octet ICV [RFC4106]",
        E::AesGcm128Icv12 | E::AesGcm192Icv12 | E::AesGcm256Icv12 => "AES-GCM with 12 octet ICV [RFC4106]",
        E::AesGcm128Icv8 | E::AesGcm192Icv8 | E::AesGcm256Icv8 => "AES-GCM with 8 octet ICV [RFC4106]",
        E::AesCbc128 | E::AesCbc192 | E::AesCbc256 => "AES-CBC [RFC3602]",
        E::AesCtr128 | E::AesCtr192 | E::AesCtr256 => "AES-CTR [RFC3686]",
        E::TripleDesCbc => "TripleDES-CBC [RFC2451]",
        E::Null | E::None => "NULL",
        _ => return None,
    };
    let integrity = match algorithm.integrity() {
        Integrity::None => "NULL",
        Integrity::HmacSha1 => "HMAC-SHA-1-96 [RFC2404]",
        Integrity::HmacSha256 => "HMAC-SHA-256-128 [RFC4868]",
        Integrity::HmacSha384 => "HMAC-SHA-384-192 [RFC4868]",
        Integrity::HmacSha512 => "HMAC-SHA-512-256 [RFC4868]",
        _ => return None,
    };
    Some((encryption, integrity))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        process,
    };

    #[test]
    fn keys_are_written_to_files_that_are_ours_alone() {
        let directory = std::env::temp_dir().join(format!("portcullis-keylog-{}", process::id()));
        KeyLog::open(&directory).unwrap();
        KeyLog::open(&directory).expect("they are ours");
        let esp = directory.join("esp_sa");
        assert_eq!(fs::metadata(&esp).unwrap().mode() & 0o777, 0o600);
        let why = || KeyLog::open(&directory).unwrap_err().to_string();
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&esp, fs::Permissions::from_mode(mode)).unwrap();
            assert!(why().starts_with(&format!("{}: others may", esp.display())), "{}", why());
        }
        fs::rename(&esp, directory.join("other")).unwrap();
        symlink("other", &esp).unwrap();
        assert!(why().ends_with("esp_sa: it is a symbolic link"), "{}", why());
        fs::remove_dir_all(directory).unwrap();
    }
}
