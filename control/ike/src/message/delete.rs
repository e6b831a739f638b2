//! D (RFC 7296 §3.11).

use super::{
    Malformed, Protocol,
    octets::{Reader, Writer},
};

/// SAs that the sender has deleted: the IKE SA of the message, or its inbound SAs by their SPIs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delete {
    protocol: Protocol,
    spi_size: u8,
    count: u16,
    spis: Vec<u8>,
}

/// Octets of an SPI of ESP or AH.
const SPI: u8 = 4;

/// Whether SAs of the protocol have SPIs of these many octets.
fn has_spis(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::AH | Protocol::ESP)
}

impl Delete {
    /// Of the IKE SA and all that it made.
    pub const IKE_SA: Delete = Delete { protocol: Protocol::IKE, spi_size: 0, count: 0, spis: vec![] };

    /// Of SAs of ESP or AH; `None` of other protocols, or if they are more than one payload can name.
    pub fn child_sas(protocol: Protocol, spis: &[u32]) -> Option<Delete> {
        if !has_spis(protocol) {
            return None;
        }
        let count = spis.len().try_into().ok()?;
        let spis = spis.iter().flat_map(|spi| spi.to_be_bytes()).collect();
        Some(Delete { protocol, spi_size: SPI, count, spis })
    }

    /// The protocol of the SAs.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The SPIs of SAs of ESP or AH; nothing of other protocols.
    pub fn spis(&self) -> impl Iterator<Item = u32> {
        let spis: &[u8] = if has_spis(self.protocol) { &self.spis } else { &[] };
        spis.as_chunks().0.iter().map(|spi| u32::from_be_bytes(*spi))
    }

    pub(super) fn parse(mut r: Reader<'_>) -> Result<Delete, Malformed> {
        let protocol = Protocol(r.u8("Protocol ID")?);
        let malformed = r.malformed("SPI Size");
        let spi_size = r.u8("SPI Size")?;
        // RFC 7296 §3.11
        match protocol {
            Protocol::IKE if spi_size != 0 => return Err(malformed),
            _ if has_spis(protocol) && spi_size != SPI => return Err(malformed),
            _ => {}
        }
        let malformed = r.malformed("Num of SPIs");
        let count = r.u16("Num of SPIs")?;
        let spis = r.rest().to_vec();
        if spis.len() != usize::from(count) * usize::from(spi_size) {
            return Err(malformed);
        }
        Ok(Delete { protocol, spi_size, count, spis })
    }

    pub(super) fn emit(&self, w: &mut Writer) {
        w.u8(self.protocol.0);
        w.u8(self.spi_size);
        w.u16(self.count);
        w.octets(&self.spis);
    }
}
