//! Our UDP ports of ESP in UDP.

use super::NAT_T_PORT;

/// The UDP ports at which ESP in UDP comes (RFC 3948 §2): one at least, [`UdpPorts::MOST`] at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpPorts {
    /// The lowest, and how far above it the highest is: most packets are told apart by these.
    first: u16,
    span: u16,
    all: [u16; UdpPorts::MOST],
}

impl Default for UdpPorts {
    fn default() -> UdpPorts {
        UdpPorts { first: NAT_T_PORT, span: 0, all: [NAT_T_PORT; UdpPorts::MOST] }
    }
}

impl UdpPorts {
    /// Ports, at most.
    pub const MOST: usize = 8;

    /// These ports. `None` if there are none, or too many.
    pub fn new(ports: &[u16]) -> Option<UdpPorts> {
        let (first, last) = (*ports.iter().min()?, *ports.iter().max()?);
        let mut all = [first; UdpPorts::MOST];
        all.get_mut(..ports.len())?.copy_from_slice(ports);
        Some(UdpPorts { first, span: last - first, all })
    }

    /// Whether a port is one of them.
    #[inline(always)]
    pub fn has(&self, port: u16) -> bool {
        port.wrapping_sub(self.first) <= self.span && self.all.contains(&port)
    }

    /// Whether a packet shows that it is to one of them.
    #[inline(always)]
    pub(crate) fn has_some(&self, port: Option<u16>) -> bool {
        port.is_some_and(|port| self.has(port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_these_ports_and_no_others() {
        for ports in [&[4500][..], &[1, 65_535], &[4510, 4500, 4505, 4500], &[7; UdpPorts::MOST]] {
            let set = UdpPorts::new(ports).expect("so many fit");
            assert!((0..=u16::MAX).all(|port| set.has(port) == ports.contains(&port)), "{ports:?}");
        }
        assert_eq!(UdpPorts::new(&[4500]), Some(UdpPorts::default()));
        assert_eq!(UdpPorts::new(&[]), None);
        assert_eq!(UdpPorts::new(&[1; UdpPorts::MOST + 1]), None);
    }
}
