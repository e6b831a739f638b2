//! Attaching to network devices by routing messages (`IFLA_XDP`).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::programs::{ProgramFd, loaded_programs};
use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NlaBuffer, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use portcullis_ebpf::PROGRAM;

use super::error::with_causes;
use super::{Attached, SteeringError, Wanted};

// linux/if_link.h
const XDP_FLAGS_UPDATE_IF_NOEXIST: u32 = 1 << 0;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const XDP_FLAGS_REPLACE: u32 = 1 << 4;
// linux/netlink.h
const NLMSGERR_ATTR_MSG: u16 = 1;
const IFNAMSIZ: usize = 16;

/// Where the program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Mode {
    /// In the driver, before the kernel makes a packet of the frame.
    Driver,
    /// In the kernel's stack: works with every device, and is slower.
    Generic,
}

impl Mode {
    fn flag(self) -> u32 {
        match self {
            Mode::Driver => XDP_FLAGS_DRV_MODE,
            Mode::Generic => XDP_FLAGS_SKB_MODE,
        }
    }

    pub(super) fn remedy(self) -> &'static str {
        match self {
            Mode::Driver => "lower its MTU if that is the cause, or set xdp_mode to \"auto\" or \"generic\"",
            Mode::Generic => "use another interface as port",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Driver => "driver",
            Mode::Generic => "generic",
        })
    }
}

/// A device, and the program that a datapath that is gone left on it.
pub(super) struct Device {
    pub interface: String,
    pub ifindex: u32,
    predecessor: Option<(Mode, ProgramFd)>,
}

/// What the kernel says when it does not do as it was told.
struct Refusal {
    errno: i32,
    reason: String,
}

impl Refusal {
    /// Whether the device cannot, as opposed to a caller who may not or a state that is another.
    fn is_unsupported(&self) -> bool {
        !matches!(self.errno, libc::EPERM | libc::EACCES | libc::ENODEV | libc::EBUSY | libc::EEXIST)
    }

    fn error(self, interface: &str, mode: Mode) -> SteeringError {
        let interface = interface.to_owned();
        match self.errno {
            libc::EPERM | libc::EACCES => SteeringError::AttachPermission { interface },
            libc::ENODEV => SteeringError::NoInterface { interface },
            libc::EBUSY | libc::EEXIST => SteeringError::Device { interface, reason: self.reason },
            _ => SteeringError::Unsupported { interface, mode, reason: self.reason },
        }
    }
}

/// A socket for routing messages.
pub(super) struct Devices {
    socket: Socket,
}

impl Devices {
    pub fn open() -> Result<Devices, SteeringError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // An error then says in words what the driver does not like.
            socket.set_cap_ack(true)?;
            socket.set_ext_ack(true)?;
            Ok(Devices { socket })
        };
        open().map_err(|source| SteeringError::Netlink { source })
    }

    /// The device of this name. That it has a foreign program is an error.
    pub fn find(&mut self, interface: &str) -> Result<Device, SteeringError> {
        let no_interface = || SteeringError::NoInterface { interface: interface.into() };
        if interface.is_empty() || interface.len() >= IFNAMSIZ {
            return Err(no_interface());
        }
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(interface.into()));
        let link = match self.request(RouteNetlinkMessage::GetLink(request), 0) {
            Ok(Some(link)) => link,
            Ok(None) => return Err(no_interface()),
            Err(refusal) => return Err(refusal.error(interface, Mode::Driver)),
        };
        let predecessor = attached_programs(&link).map(|(mode, id)| own(interface, mode, id));
        Ok(Device {
            interface: interface.into(),
            ifindex: link.header.index,
            predecessor: predecessor.transpose()?.flatten(),
        })
    }

    pub fn attach(
        &mut self,
        device: &Device,
        program: BorrowedFd<'_>,
        wanted: Wanted,
    ) -> Result<Attached, SteeringError> {
        let left = device.predecessor.as_ref().map(|(mode, _)| *mode);
        let replaced = left.is_some();
        match (wanted, left) {
            (Wanted::Auto, Some(Mode::Generic)) => {
                // A device has one mode at a time. To change it now would open the gate in between.
                self.replace(device, program, Mode::Generic)?;
                let fallback = Some("the predecessor that was killed had it in generic mode".into());
                Ok(Attached { mode: Mode::Generic, fallback, replaced })
            }
            (Wanted::Driver | Wanted::Auto, _) => match self.set(device, program, Mode::Driver) {
                Ok(()) => Ok(Attached { mode: Mode::Driver, fallback: None, replaced }),
                Err(refusal) if wanted == Wanted::Auto && refusal.is_unsupported() => {
                    self.replace(device, program, Mode::Generic)?;
                    Ok(Attached { mode: Mode::Generic, fallback: Some(refusal.reason), replaced })
                }
                Err(refusal) => Err(refusal.error(&device.interface, Mode::Driver)),
            },
            (Wanted::Generic, _) => {
                self.replace(device, program, Mode::Generic)?;
                Ok(Attached { mode: Mode::Generic, fallback: None, replaced })
            }
        }
    }

    /// Takes the program off, unless it is no longer there.
    pub fn detach(
        &mut self,
        interface: &str,
        ifindex: u32,
        mode: Mode,
        program: BorrowedFd<'_>,
    ) -> Result<(), SteeringError> {
        match self.change(ifindex, None, mode, Some(program)) {
            Ok(()) => Ok(()),
            // Another took its place, or the device went.
            Err(Refusal { errno: libc::EEXIST | libc::ENOENT | libc::ENODEV, .. }) => Ok(()),
            Err(refusal) => Err(refusal.error(interface, mode)),
        }
    }

    fn replace(&mut self, device: &Device, program: BorrowedFd<'_>, mode: Mode) -> Result<(), SteeringError> {
        self.set(device, program, mode).map_err(|refusal| refusal.error(&device.interface, mode))
    }

    /// Puts the program on the device, in the place of a predecessor's.
    fn set(&mut self, device: &Device, program: BorrowedFd<'_>, mode: Mode) -> Result<(), Refusal> {
        match &device.predecessor {
            Some((left, old)) if *left == mode => {
                self.change(device.ifindex, Some(program), mode, Some(old.as_fd()))
            }
            Some((left, old)) => {
                self.change(device.ifindex, None, *left, Some(old.as_fd()))?;
                self.change(device.ifindex, Some(program), mode, None)
            }
            None => self.change(device.ifindex, Some(program), mode, None),
        }
    }

    /// Changes the program of a device from `old` to `new`, if it is `old`.
    fn change(
        &mut self,
        ifindex: u32,
        new: Option<BorrowedFd<'_>>,
        mode: Mode,
        old: Option<BorrowedFd<'_>>,
    ) -> Result<(), Refusal> {
        let mut xdp = vec![LinkXdp::Fd(new.map_or(-1, |fd| fd.as_raw_fd()))];
        match old {
            Some(old) => {
                xdp.push(LinkXdp::Flags(mode.flag() | XDP_FLAGS_REPLACE));
                xdp.push(LinkXdp::ExpectedFd(old.as_raw_fd() as u32));
            }
            None => xdp.push(LinkXdp::Flags(mode.flag() | XDP_FLAGS_UPDATE_IF_NOEXIST)),
        }
        let mut request = LinkMessage::default();
        request.header.index = ifindex;
        request.attributes.push(LinkAttribute::Xdp(xdp));
        self.request(RouteNetlinkMessage::SetLink(request), NLM_F_ACK).map(drop)
    }

    /// Sends a request, and waits for the device that it asked for, or that it was done.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<Option<LinkMessage>, Refusal> {
        let io = |error: io::Error| Refusal {
            errno: error.raw_os_error().unwrap_or(libc::EIO),
            reason: error.to_string(),
        };
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(io)?;
        let (answer, _) = self.socket.recv_from_full().map_err(io)?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
            .map_err(|error| Refusal { errno: libc::EPROTO, reason: with_causes(&error).to_string() })?;
        match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(Some(link)),
            NetlinkPayload::Error(error) if error.code.is_some() => Err(refusal(&error)),
            _ => Ok(None),
        }
    }
}

/// The mode and id of the program on a device.
fn attached_programs(link: &LinkMessage) -> Option<(Mode, u32)> {
    let xdp = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    })?;
    let mode = xdp.iter().find_map(|xdp| match xdp {
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(Mode::Generic),
        LinkXdp::Attached(XdpAttached::None) => None,
        LinkXdp::Attached(_) => Some(Mode::Driver),
        _ => None,
    })?;
    let id = xdp.iter().find_map(|xdp| match xdp {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
            Some(*id)
        }
        _ => None,
    })?;
    Some((mode, id))
}

/// The program with this id, if it is one of ours. `None` if it is gone by now.
fn own(interface: &str, mode: Mode, id: u32) -> Result<Option<(Mode, ProgramFd)>, SteeringError> {
    let Some(info) = loaded_programs().filter_map(Result::ok).find(|info| info.id() == id) else {
        return Ok(None);
    };
    let program = String::from_utf8_lossy(info.name()).into_owned();
    if program != PROGRAM {
        return Err(SteeringError::Occupied { interface: interface.into(), program, id });
    }
    Ok(info.fd().ok().map(|fd| (mode, fd)))
}

/// Reads the kernel's own words, which follow the header that the error answers.
fn refusal(error: &ErrorMessage) -> Refusal {
    const HEADER: usize = 16;
    let words = NlasIterator::new(error.header.get(HEADER..).unwrap_or_default())
        .filter_map(Result::ok)
        .find(|attribute: &NlaBuffer<&[u8]>| attribute.kind() == NLMSGERR_ATTR_MSG)
        .map(|attribute| String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned());
    let errno = error.raw_code().abs();
    let system = io::Error::from_raw_os_error(errno);
    let reason = words.map_or_else(|| system.to_string(), |words| format!("{words} ({system})"));
    Refusal { errno, reason }
}
