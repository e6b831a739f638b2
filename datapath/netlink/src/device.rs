//! Devices: what link messages say of them, and pairs of them that are made.

use crate::{Requests, Topic};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
};
use std::io;

/// A device as the kernel has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Whether its frames are Ethernet's.
    pub is_ethernet: bool,
    /// Its Ethernet address; zeros if it has none.
    pub mac: [u8; 6],
    /// The largest packet without the link's header.
    pub mtu: u16,
    /// Administratively up, and with a carrier.
    pub is_up: bool,
    /// Administratively up.
    pub is_set_up: bool,
    /// Whether neighbours are asked for their addresses.
    pub asks_neighbours: bool,
    /// Whether it is one end of a veth pair.
    pub is_veth: bool,
    /// Of one that is: the index of the other, if it is in this network namespace too.
    pub peer: Option<u32>,
}

impl Requests {
    /// The devices of this network namespace.
    ///
    /// # Errors
    /// What the system says.
    pub fn devices(&mut self) -> io::Result<Vec<Device>> {
        let mut devices = vec![];
        self.dump(Topic::Links, |message| {
            if let RouteNetlinkMessage::NewLink(message) = message {
                devices.extend(Device::of(&message));
            }
        })?;
        Ok(devices)
    }
}

impl Device {
    /// What a link message says.
    pub fn of(message: &LinkMessage) -> Option<Device> {
        let (mut name, mut mac, mut mtu) = (None, [0; 6], 0);
        let (mut is_veth, mut peer, mut is_elsewhere) = (false, None, false);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(n) => name = Some(n.clone()),
                LinkAttribute::Address(bytes) => mac = bytes.as_slice().try_into().unwrap_or_default(),
                LinkAttribute::Mtu(n) => mtu = u16::try_from(*n).unwrap_or(u16::MAX),
                LinkAttribute::LinkInfo(info) => is_veth = info.contains(&LinkInfo::Kind(InfoKind::Veth)),
                LinkAttribute::Link(index) => peer = Some(*index),
                LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
                _ => {}
            }
        }
        let header = &message.header;
        Some(Device {
            name: name?,
            index: header.index,
            is_ethernet: header.link_layer_type == LinkLayerType::Ether,
            mac,
            mtu,
            is_up: header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            is_set_up: header.flags.contains(LinkFlags::Up),
            asks_neighbours: !header.flags.contains(LinkFlags::Noarp),
            is_veth,
            peer: peer.filter(|_| is_veth && !is_elsewhere),
        })
    }
}

impl Requests {
    /// Makes a veth pair of these names and MTUs.
    ///
    /// # Errors
    /// What the system says.
    pub fn make_veth(&mut self, one: (&str, u16), other: (&str, u16)) -> io::Result<()> {
        let end = |(name, mtu): (&str, u16)| {
            let mut message = LinkMessage::default();
            message.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::Mtu(mtu.into())];
            message
        };
        let mut message = end(one);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end(other)))),
        ]));
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Sets a device up.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.set_flag(index, LinkFlags::Up)
    }

    /// Has no neighbours asked for their addresses on a device (`arp off`).
    ///
    /// # Errors
    /// What the system says.
    pub fn ask_no_neighbours(&mut self, index: u32) -> io::Result<()> {
        self.set_flag(index, LinkFlags::Noarp)
    }

    fn set_flag(&mut self, index: u32, flag: LinkFlags) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        (message.header.flags, message.header.change_mask) = (flag, flag);
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }
}
