//! One transform of each type: IKEv1 has no alternatives within what is chosen.

use super::{Agreement, Proposals, TYPES, Transform};
use crate::message::TransformType;

/// Choices, at most: IKEv1 numbers them with an octet.
const MOST: usize = 255;

impl Proposals {
    /// All that can be chosen of these, the best first. What has additional key exchanges, which IKEv1 has not, is left out.
    pub fn singles(&self) -> Vec<Agreement> {
        let Some(plain) = self.without_additional_key_exchanges() else { return vec![] };
        let mut all = vec![];
        for (number, proposal) in (1..=u8::MAX).zip(&plain.0) {
            let mut choices: Vec<Vec<Transform>> = vec![vec![]];
            for kind in TYPES.into_iter().filter(|kind| proposal.has(*kind)) {
                let with = |choice: &Vec<Transform>| {
                    let of = proposal.of(kind).filter(|t| !t.is_none()).map(Some);
                    let none = proposal.of(kind).any(|t| t.is_none()).then_some(None);
                    let choice = choice.clone();
                    of.chain(none)
                        .map(move |t| choice.iter().copied().chain(t).collect())
                        .collect::<Vec<Vec<_>>>()
                };
                choices = choices.iter().flat_map(with).take(MOST).collect();
            }
            let agreement =
                |transforms| Agreement { number, protocol: proposal.protocol, spi: vec![], transforms };
            all.extend(choices.into_iter().map(agreement));
        }
        all.truncate(MOST);
        all
    }
}

impl Agreement {
    /// The number of what was chosen of a type, and the bits of its key where they are told.
    pub(crate) fn chosen(&self, kind: TransformType) -> Option<(u16, Option<u16>)> {
        self.of(kind).map(|t| (t.id, t.key_bits))
    }

    /// It is of the peer's SPI.
    pub(crate) fn with_spi(self, spi: &[u8]) -> Agreement {
        Agreement { spi: spi.to_vec(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_choice_is_there_once_the_best_first() {
        let names = |p: &Proposals| p.singles().iter().map(ToString::to_string).collect::<Vec<_>>();
        let ike = Proposals::ike(["aes256-aes128-sha256-modp3072-ecp256"]).unwrap();
        assert_eq!(
            names(&ike),
            [
                "aes256-sha256-prfsha256-modp3072",
                "aes256-sha256-prfsha256-ecp256",
                "aes128-sha256-prfsha256-modp3072",
                "aes128-sha256-prfsha256-ecp256"
            ]
        );
        let esp = Proposals::esp(["aes128gcm16-ecp256-none-noesn", "aes128-sha256-noesn"]).unwrap();
        assert_eq!(names(&esp), ["aes128gcm16-noesn-ecp256", "aes128gcm16-noesn", "aes128-sha256-noesn"]);
        let hybrid = Proposals::ike(["aes256-sha256-x25519-ke1_mlkem768"]).unwrap();
        assert!(hybrid.singles().is_empty());
        assert_eq!(Proposals::ike(["default"; 3]).unwrap().singles().len(), 189);
        let many = "aes128-aes192-aes256-sha1-sha256-sha384-sha512-prfsha1-prfsha256-prfsha384-prfsha512-modp2048-\
                    modp3072-modp4096-ecp256-ecp384-ecp521";
        assert_eq!(Proposals::ike([many]).unwrap().singles().len(), 255);
    }
}
