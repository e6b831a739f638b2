//! What a device leaves to do to who gets its frames, and how it is told not to: `ethtool` by generic netlink.

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use std::io;

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_NAME` and `CTRL_ATTR_FAMILY_ID` of linux/genetlink.h.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_NAME: u16 = 2;
const FAMILY_ID: u16 = 1;
/// `ETHTOOL_MSG_FEATURES_SET` and its attributes, of linux/ethtool_netlink.h.
const FEATURES_SET: u8 = 12;
const HEADER: u16 = 1;
const WANTED: u16 = 3;
const HEADER_DEVICE: u16 = 2;
const HEADER_FLAGS: u16 = 3;
const OMIT_REPLY: u32 = 2;
const BITS: u16 = 3;
const BIT: u16 = 1;
const BIT_NAME: u16 = 2;
/// NLA_F_NESTED of linux/netlink.h: an attribute of attributes.
const NESTED: u16 = 0x8000;

/// The kernel's names of what is switched off.
const FEATURES: [&[u8]; 6] = [
    b"tx-checksum-ip-generic\0",
    b"tx-checksum-sctp\0",
    b"tx-tcp-segmentation\0",
    b"tx-tcp-ecn-segmentation\0",
    b"tx-tcp-mangleid-segmentation\0",
    b"tx-tcp6-segmentation\0",
];

/// Sizes of a netlink header, and of that with a generic one behind it.
const NETLINK: usize = 16;
const GENERIC: usize = 20;

/// Has the kernel complete the checksums of what it sends by a device, and cut it to size, as who takes frames from the
/// other end of a veth by AF_XDP wants: `ethtool -K INTERFACE tx off tso off`.
///
/// # Errors
/// What the system says.
pub fn complete_checksums(interface: &str) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    let name = attribute(FAMILY_NAME, b"ethtool\0");
    let answer = ask(&mut socket, CONTROL, [GET_FAMILY, 2], &name)?;
    let id =
        find(answer.get(GENERIC..).unwrap_or_default(), FAMILY_ID).and_then(|id| id.first_chunk().copied());
    let family = u16::from_ne_bytes(id.ok_or(io::ErrorKind::Unsupported)?);
    let device = [interface.as_bytes(), b"\0"].concat();
    let header =
        [attribute(HEADER_DEVICE, &device), attribute(HEADER_FLAGS, &OMIT_REPLY.to_ne_bytes())].concat();
    // A bit that is named and has no value is to be off.
    let mut switch_off = |names: &[&[u8]]| {
        let bits: Vec<u8> =
            names.iter().flat_map(|name| attribute(BIT | NESTED, &attribute(BIT_NAME, name))).collect();
        let wanted = attribute(WANTED | NESTED, &attribute(BITS | NESTED, &bits));
        let body = [attribute(HEADER | NESTED, &header), wanted].concat();
        ask(&mut socket, family, [FEATURES_SET, 1], &body).map(|_| ())
    };
    switch_off(&FEATURES)?;
    // Kernels that do not know it do not have it on.
    let _ = switch_off(&[b"tx-tcp-accecn-segmentation\0"]);
    Ok(())
}

/// The first message of the answer, once the kernel has acknowledged all.
fn ask(socket: &mut Socket, kind: u16, [command, version]: [u8; 2], body: &[u8]) -> io::Result<Vec<u8>> {
    const REQUEST_AND_ACK: u16 = 5;
    const ERROR: u16 = 2;
    let mut message = Vec::with_capacity(GENERIC + body.len());
    message.extend(((GENERIC + body.len()) as u32).to_ne_bytes());
    message.extend([kind.to_ne_bytes(), REQUEST_AND_ACK.to_ne_bytes()].concat());
    message.extend([0; 8]); // a number and a port are for who asks more than once
    message.extend([command, version, 0, 0]);
    message.extend(body);
    socket.send_to(&message, &SocketAddr::new(0, 0), 0)?;
    let mut answer = vec![];
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while let Some((header, _)) = rest.split_first_chunk::<NETLINK>() {
            let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let (Some(one), true) = (rest.get(..len), len >= NETLINK) else { break };
            rest = &rest[len.next_multiple_of(4).min(rest.len())..];
            if u16::from_ne_bytes([header[4], header[5]]) != ERROR {
                answer = one.to_vec();
                continue;
            }
            let code = one.get(NETLINK..).and_then(|body| body.first_chunk().copied());
            return match i32::from_ne_bytes(code.ok_or(io::ErrorKind::InvalidData)?) {
                0 => Ok(answer),
                code => Err(io::Error::from_raw_os_error(-code)),
            };
        }
    }
}

/// An attribute, whose length is told without the padding behind it.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = 4 + value.len();
    let mut out = [(len as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
    out.extend(value);
    out.resize(len.next_multiple_of(4), 0);
    out
}

/// The value of the first attribute of this kind.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    while let Some((&[a, b, c, d], _)) = attributes.split_first_chunk() {
        let len = u16::from_ne_bytes([a, b]) as usize;
        let value = attributes.get(4..len)?;
        if u16::from_ne_bytes([c, d]) == kind {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_whatever_their_lengths_say() {
        let two = [attribute(7, b"seven"), attribute(1, &[3, 4])].concat();
        assert_eq!(
            (find(&two, 7), find(&two, 1), find(&two, 2)),
            (Some(&b"seven"[..]), Some(&[3, 4][..]), None)
        );
        for len in [0u16, 3, 9, u16::MAX] {
            assert_eq!(find(&[&len.to_ne_bytes()[..], &[7, 0, 1, 2]].concat(), 7), None);
        }
    }
}
