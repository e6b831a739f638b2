//! Notations that are kept as they are written, because IKE reads them: proposals and traffic selectors. Here is only
//! seen that they look like one.

use super::value::{Value, range};
use std::net::IpAddr;

/// Algorithms with dashes between them, or `default`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProposalText(pub String);

impl Value for ProposalText {
    const IS: &'static str = "default, or algorithms with dashes between them, such as aes128gcm16-x25519";

    fn parse(text: &str) -> Option<ProposalText> {
        let is_algorithm = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_lowercase())
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        text.split('-').all(is_algorithm).then(|| ProposalText(text.to_owned()))
    }
}

/// Addresses, with a protocol and ports in brackets behind them if it is not for all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SelectorText(pub String);

impl Value for SelectorText {
    const IS: &'static str = "dynamic, or an address, subnet or range, and behind it [PROTOCOL/PORT] if it is for one, such as 10.1.0.0/16[tcp/80]";

    fn parse(text: &str) -> Option<SelectorText> {
        let (addresses, next_layer) = match text.split_once('[') {
            Some((addresses, rest)) => (addresses, Some(rest.strip_suffix(']')?)),
            None => (text, None),
        };
        let is_right = is_addresses(addresses.trim()) && next_layer.is_none_or(is_next_layer);
        is_right.then(|| SelectorText(text.to_owned()))
    }
}

fn is_addresses(text: &str) -> bool {
    let is_prefix = |address: &str, length: &str| {
        let most = match address.parse() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        length.parse::<u8>().is_ok_and(|length| length <= most)
    };
    match text.split_once('/') {
        Some((address, length)) => is_prefix(address, length),
        None => text == "dynamic" || text.parse::<IpAddr>().is_ok() || range(text).is_some(),
    }
}

/// A protocol, or a protocol and ports, each a name or a number.
fn is_next_layer(text: &str) -> bool {
    let is_word = |word: &str| {
        let word = word.trim();
        !word.is_empty()
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+'))
    };
    match text.split_once('/') {
        // Ports without a protocol are for all that have some.
        Some((protocol, ports)) => (protocol.trim().is_empty() || is_word(protocol)) && is_word(ports),
        None => is_word(text),
    }
}
