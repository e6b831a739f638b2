//! ESP of many SAs, sealed while it is sent by the gateway's own crypto.

use arrayvec::ArrayVec;
use portcullis_datapath::{
    batch::BATCH,
    crypto::{self, Aead, AeadKey, Job},
    esp::{self, OuterHeader},
    fib::Mac,
    frame::Frame,
    wire::{ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ip},
};
use portcullis_sadb::{Algorithm, Sa, Spi};
use thiserror::Error;

/// Why packets cannot be sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SealerError {
    /// No SA.
    #[error("no SA to seal with")]
    None,
    /// An algorithm that is not AES-GCM, or a key that is not its own.
    #[error("SA {:#010x}: {algorithm:?} is not sealed here: it is AES-GCM, with a key as long as it says", .spi.0)]
    Algorithm {
        /// Which SA.
        spi: Spi,
        /// Its algorithm.
        algorithm: Algorithm,
    },
}

/// What changes with each packet of an SA.
struct Numbers {
    spi: u32,
    esn: bool,
    last: u64,
}

/// Outbound SAs in tunnel mode. Flows have them in turn: flow n has SA n modulo their number.
pub struct Sealer {
    aead: Aead,
    outers: Vec<OuterHeader>,
    keys: Vec<AeadKey>,
    numbers: Vec<Numbers>,
    ethernet: [u8; ETHERNET],
}

impl Sealer {
    /// All these SAs, whose addresses are of one version, from nothing sent on. Sealed frames go to the next hop.
    ///
    /// # Errors
    /// [`SealerError`].
    pub fn new(sas: &[Sa], (src_mac, dst_mac): (Mac, Mac), aead: Aead) -> Result<Sealer, SealerError> {
        let first = sas.first().ok_or(SealerError::None)?;
        let ethertype = if first.dst.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        let mut ethernet = [0; ETHERNET];
        ethernet[..6].copy_from_slice(&dst_mac.0);
        ethernet[6..12].copy_from_slice(&src_mac.0);
        ethernet[12..].copy_from_slice(&ethertype.to_be_bytes());
        let mut sealer = Sealer { aead, outers: vec![], keys: vec![], numbers: vec![], ethernet };
        sas.iter().try_for_each(|sa| sealer.add(sa))?;
        Ok(sealer)
    }

    /// Another SA, whose addresses are of the same version.
    ///
    /// # Errors
    /// [`SealerError::Algorithm`].
    pub fn add(&mut self, sa: &Sa) -> Result<(), SealerError> {
        let key = esp::is_supported(sa.algorithm).then(|| self.aead.sa_key(sa.algorithm, sa.key.bytes()));
        let key = key.flatten().ok_or(SealerError::Algorithm { spi: sa.spi, algorithm: sa.algorithm })?;
        self.outers.push(OuterHeader::new(sa));
        self.keys.push(key);
        self.numbers.push(Numbers { spi: sa.spi.0, esn: sa.esn, last: 0 });
        Ok(())
    }

    /// Seals packets in their Ethernet frames, each of a flow, with numbers that were not used before. They are IP
    /// packets in one chunk, with room around them.
    ///
    /// # Panics
    /// Where they are not.
    pub fn seal(&mut self, frames: &mut [Frame], flows: &[u32]) {
        let sas = self.outers.len();
        let mut jobs = ArrayVec::<Job<'_>, BATCH>::new();
        for (frame, flow) in frames.iter_mut().zip(flows) {
            let sa = *flow as usize % sas;
            let numbers = &mut self.numbers[sa];
            numbers.last += 1;
            frame.pull(ETHERNET);
            let inner = Ip::parse(frame.bytes()).expect("an IP packet, as it was written");
            let packet = self.outers[sa].encap(frame, &inner, numbers.spi, numbers.last);
            let packet = packet.expect("room around the packet");
            let (iv, aad) = (numbers.last.to_be_bytes(), crypto::aad(numbers.spi, numbers.last, numbers.esn));
            let job = Job::new(&self.keys[sa], iv, aad, crypto::ICV as u8, packet);
            jobs.push(job.expect("as long as a packet"));
        }
        self.aead.seal(&mut jobs);
        drop(jobs);
        for (frame, flow) in frames.iter_mut().zip(flows) {
            self.outers[*flow as usize % sas].sealed(frame);
            assert!(frame.push(ETHERNET), "room around the packet");
            frame.bytes_mut()[..ETHERNET].copy_from_slice(&self.ethernet);
        }
    }

    /// Packets that were sealed with each SA.
    pub fn sealed(&self) -> impl Iterator<Item = u64> {
        self.numbers.iter().map(|numbers| numbers.last)
    }
}
