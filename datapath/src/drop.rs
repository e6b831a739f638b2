//! Why a packet was not forwarded: a reason is a counter is a metric name.

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident => $metric:literal,)+) => {
        /// Why a packet was dropped. The discriminant is the index of its counter.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant,)+ }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            /// The name of its metric, in snake case.
            pub const fn metric(self) -> &'static str {
                match self { $(DropReason::$variant => $metric,)+ }
            }
        }
    };
}

drop_reasons! {
    /// Not a frame that this gateway understands, or cut short.
    Malformed => "malformed",
    /// An IPv4 header whose checksum is wrong (RFC 1812 §5.2.2).
    BadChecksum => "bad_checksum",
    /// A fragment of a protected packet; it must be reassembled first.
    Fragment => "fragment",
    /// A fragment that overlaps another, or contradicts it on where the datagram ends (RFC 5722 §4).
    FragmentOverlap => "fragment_overlap",
    /// A fragment that is held already (RFC 8200 §4.5).
    FragmentDuplicate => "fragment_duplicate",
    /// The rest of its datagram did not come in time (RFC 8200 §4.5).
    FragmentTimeout => "fragment_timeout",
    /// It was held longest when there was no room for another.
    FragmentEvicted => "fragment_evicted",
    /// A first fragment without the upper protocol's header (RFC 7112 §5, RFC 1858 §3).
    FragmentTooSmall => "fragment_too_small",
    /// One of a datagram in more fragments than are held.
    FragmentTooMany => "fragment_too_many",
    /// Reassembled it would be over 65,535 octets (RFC 8200 §4.5).
    ReassemblyTooLong => "reassembly_too_long",
    /// No inbound SA has this SPI (RFC 4303 §3.4.2).
    UnknownSpi => "unknown_spi",
    /// An inbound SA has this SPI, but for other outer addresses, protocol or encapsulation.
    SaMismatch => "sa_mismatch",
    /// The sequence number was already received (RFC 4303 §3.4.3).
    ReplayDuplicate => "replay_duplicate",
    /// The sequence number is left of the replay window (RFC 4303 §3.4.3).
    ReplayTooOld => "replay_too_old",
    /// The ICV does not verify (RFC 4303 §3.4.4).
    IcvMismatch => "icv_mismatch",
    /// The padding of a decrypted packet is wrong (RFC 4303 §2.4).
    BadPadding => "bad_padding",
    /// A dummy packet, next header 59 (RFC 4303 §2.6).
    Dummy => "dummy",
    /// The inner packet is not an IP packet of the length it says.
    BadInner => "bad_inner",
    /// An inner packet of which a part was lost (RFC 9347 §2.5).
    AggfragIncomplete => "aggfrag_incomplete",
    /// A payload that the reorder window has passed by (RFC 9347 §2.2.3).
    AggfragLate => "aggfrag_late",
    /// The queue of packets to be aggregated is full.
    AggfragQueueFull => "aggfrag_queue_full",
    /// What was decapsulated is not what the SA's policy lets in (RFC 4301 §5.2).
    SelectorMismatch => "selector_mismatch",
    /// A clear packet that a policy wants protected (RFC 4301 §5.2).
    Unprotected => "unprotected",
    /// No policy matches (RFC 4301 §5.1).
    NoPolicy => "no_policy",
    /// The policy says Discard.
    PolicyDiscard => "policy_discard",
    /// The policy says Protect, and there is no SA for it now.
    NoSa => "no_sa",
    /// The outbound sequence number is used up (RFC 4303 §3.3.3).
    SeqExhausted => "seq_exhausted",
    /// The SA is over its hard limit (RFC 4301 §4.4.2.1).
    SaExpired => "sa_expired",
    /// No room in front of the packet for the headers.
    NoHeadroom => "no_headroom",
    /// No room behind the packet for padding and ICV.
    NoTailroom => "no_tailroom",
    /// TTL or hop limit exceeded (RFC 1812 §5.3.1).
    TtlExceeded => "ttl_exceeded",
    /// Outer ECN says congestion was experienced, inner is not ECN-capable (RFC 6040 §4.2).
    EcnDrop => "ecn_drop",
    /// Larger than the MTU on its way.
    TooBig => "too_big",
    /// No route to the destination.
    NoRoute => "no_route",
    /// The destination is the gateway itself.
    LocalDelivery => "local_delivery",
    /// The link-layer address of the next hop did not become known in time.
    NeighbourUnresolved => "neighbour_unresolved",
    /// The worker that owns the SA has no room for more.
    HandoffFull => "handoff_full",
    /// The port's transmit ring has no room.
    TxFull => "tx_full",
    /// The pool has no frame to hold the packet.
    NoFrame => "no_frame",
    /// A NAT-keepalive (RFC 3948 §2.3).
    Keepalive => "keepalive",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discriminants_index_the_counters() {
        for (i, r) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*r as usize, i);
        }
        assert!(DropReason::ALL.len() <= 64, "the runtime region holds 64 drop counters per worker");
    }
}
