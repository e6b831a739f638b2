//! Why a frame was steered where it was: a reason is a counter is a metric name.

/// Where frames with a reason end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Fate {
    /// At a worker's socket.
    Worker,
    /// In the kernel's own stack.
    Kernel,
    /// Nowhere.
    Dropped,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident => $fate:ident, $metric:literal;)+) => {
        /// Why a frame went where it went. The discriminant is the index of its counter.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[doc = $doc])+ $variant,)+ }

        impl Reason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)+];

            /// The name of its metric, in snake case.
            pub const fn metric(self) -> &'static str {
                match self { $(Reason::$variant => $metric,)+ }
            }

            /// Where frames with this reason end.
            pub const fn fate(self) -> Fate {
                match self { $(Reason::$variant => Fate::$fate,)+ }
            }
        }
    };
}

reasons! {
    /// ESP, by SPI.
    Esp => Worker, "esp";
    /// AH, by SPI.
    Ah => Worker, "ah";
    /// ESP in UDP, by SPI (RFC 3948 §2.1).
    EspInUdp => Worker, "esp_in_udp";
    /// A fragment of ESP, AH or ESP in UDP, by its addresses.
    Fragment => Worker, "fragment";
    /// That a packet of ours was too big for a router on its way, by the SPI that it had (RFC 4301 §8.2).
    TooBig => Worker, "too_big";
    /// Clear, to a protected prefix.
    ClearTo => Worker, "clear_to";
    /// Clear, from a protected prefix.
    ClearFrom => Worker, "clear_from";

    /// To the gateway itself, or to a prefix that a policy bypasses.
    Local => Kernel, "local";
    /// Neither to nor from a protected prefix.
    Unprotected => Kernel, "unprotected";
    /// Multicast, broadcast, or IPv6 of link-local scope.
    LinkScope => Kernel, "link_scope";
    /// IKE on port 500.
    Ike => Kernel, "ike";
    /// IKE behind the non-ESP marker on a port of ESP in UDP (RFC 3948 §2.2).
    IkeNatT => Kernel, "ike_nat_t";
    /// ARP and all else that is not IP.
    NotIp => Kernel, "not_ip";
    /// More than two VLAN tags.
    TooManyTags => Kernel, "too_many_tags";
    /// IPv6 with more extension headers than the program follows.
    TooManyExtensions => Kernel, "too_many_extensions";
    /// An IP header whose version or length cannot be.
    BadIp => Kernel, "bad_ip";
    /// Ends in the Ethernet header.
    TruncatedEthernet => Kernel, "truncated_ethernet";
    /// Ends in a VLAN tag.
    TruncatedVlan => Kernel, "truncated_vlan";
    /// Ends in the IPv4 header.
    TruncatedIpv4 => Kernel, "truncated_ipv4";
    /// Ends in the IPv6 header.
    TruncatedIpv6 => Kernel, "truncated_ipv6";
    /// Ends in an IPv6 extension header.
    TruncatedExtension => Kernel, "truncated_extension";
    /// Ends in the ESP header.
    TruncatedEsp => Kernel, "truncated_esp";
    /// Ends in the AH header.
    TruncatedAh => Kernel, "truncated_ah";
    /// Ends in the UDP header, or in what tells IKE from ESP behind it.
    TruncatedUdp => Kernel, "truncated_udp";
    /// Came in by an interface that is not a port of the datapath.
    ForeignPort => Kernel, "foreign_port";

    /// NAT-keepalive to the gateway, which ignores it (RFC 3948 §2.3).
    Keepalive => Dropped, "keepalive";
    /// For a worker that has no socket on this queue, as when the datapath does not run.
    NoSocket => Dropped, "no_socket";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discriminants_index_the_counters() {
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
        }
    }

    #[test]
    fn metrics_are_distinct() {
        for (i, a) in Reason::ALL.iter().enumerate() {
            assert!(Reason::ALL[i + 1..].iter().all(|b| a.metric() != b.metric()), "{a:?}");
        }
    }
}
