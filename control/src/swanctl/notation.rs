//! Notations that IKE reads: proposals and traffic selectors. They are kept as they are written, once IKE can read them.

use super::value::Value;
use portcullis_ike::{proposal::Proposals, traffic_selector::ConfiguredSelectors};

/// A text that IKE can read, and what IKE says of others.
macro_rules! notation {
    ($(#[doc = $doc:literal])+ $name:ident, $read:path, $is:literal) => {
        $(#[doc = $doc])+
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct $name(pub String);

        impl Value for $name {
            const IS: &'static str = $is;

            fn parse(text: &str) -> Option<$name> {
                $read([text]).is_ok().then(|| $name(text.to_owned()))
            }

            fn objection(text: &str) -> Option<String> {
                $read([text]).err().map(|error| error.to_string())
            }
        }
    };
}

notation! {
    /// A proposal for an IKE SA.
    IkeProposal, Proposals::ike, "default, or algorithms of IKE with dashes between them"
}

notation! {
    /// A proposal for ESP.
    EspProposal, Proposals::esp, "default, or algorithms of ESP with dashes between them"
}

notation! {
    /// A proposal for AH.
    AhProposal, Proposals::ah, "default, or algorithms of AH with dashes between them"
}

notation! {
    /// Addresses, with a protocol and ports in brackets behind them if it is not for all.
    Selector, ConfiguredSelectors::parse, "dynamic, or addresses, with a protocol and ports in brackets"
}
