//! N (RFC 7296 §3.10).

use super::{
    Malformed, Protocol,
    octets::{Reader, Writer},
    registry::registry,
};

registry! {
    /// What a notification says. Numbers below 16384 are errors, others a status (RFC 7296 §3.10.1).
    NotifyType(u16) {
        UNSUPPORTED_CRITICAL_PAYLOAD = 1,
        INVALID_IKE_SPI = 4,
        INVALID_MAJOR_VERSION = 5,
        INVALID_SYNTAX = 7,
        INVALID_MESSAGE_ID = 9,
        INVALID_SPI = 11,
        NO_PROPOSAL_CHOSEN = 14,
        INVALID_KE_PAYLOAD = 17,
        AUTHENTICATION_FAILED = 24,
        SINGLE_PAIR_REQUIRED = 34,
        NO_ADDITIONAL_SAS = 35,
        INTERNAL_ADDRESS_FAILURE = 36,
        FAILED_CP_REQUIRED = 37,
        TS_UNACCEPTABLE = 38,
        INVALID_SELECTORS = 39,
        UNACCEPTABLE_ADDRESSES = 40, // RFC 4555
        UNEXPECTED_NAT_DETECTED = 41,
        USE_ASSIGNED_HOA = 42, // RFC 5026
        TEMPORARY_FAILURE = 43,
        CHILD_SA_NOT_FOUND = 44,
        STATE_NOT_FOUND = 47, // RFC 9370
        TS_MAX_QUEUE = 48, // RFC 9611

        INITIAL_CONTACT = 16384,
        SET_WINDOW_SIZE = 16385,
        ADDITIONAL_TS_POSSIBLE = 16386,
        IPCOMP_SUPPORTED = 16387,
        NAT_DETECTION_SOURCE_IP = 16388,
        NAT_DETECTION_DESTINATION_IP = 16389,
        COOKIE = 16390,
        USE_TRANSPORT_MODE = 16391,
        HTTP_CERT_LOOKUP_SUPPORTED = 16392,
        REKEY_SA = 16393,
        ESP_TFC_PADDING_NOT_SUPPORTED = 16394,
        NON_FIRST_FRAGMENTS_ALSO = 16395,
        MOBIKE_SUPPORTED = 16396, // RFC 4555
        ADDITIONAL_IP4_ADDRESS = 16397,
        ADDITIONAL_IP6_ADDRESS = 16398,
        NO_ADDITIONAL_ADDRESSES = 16399,
        UPDATE_SA_ADDRESSES = 16400,
        COOKIE2 = 16401,
        NO_NATS_ALLOWED = 16402,
        AUTH_LIFETIME = 16403, // RFC 4478
        MULTIPLE_AUTH_SUPPORTED = 16404, // RFC 4739
        ANOTHER_AUTH_FOLLOWS = 16405,
        REDIRECT_SUPPORTED = 16406, // RFC 5685
        REDIRECT = 16407,
        REDIRECTED_FROM = 16408,
        TICKET_LT_OPAQUE = 16409, // RFC 5723
        TICKET_REQUEST = 16410,
        TICKET_ACK = 16411,
        TICKET_NACK = 16412,
        TICKET_OPAQUE = 16413,
        LINK_ID = 16414, // RFC 5739
        USE_WESP_MODE = 16415, // RFC 5840
        ROHC_SUPPORTED = 16416, // RFC 5857
        EAP_ONLY_AUTHENTICATION = 16417, // RFC 5998
        CHILDLESS_IKEV2_SUPPORTED = 16418, // RFC 6023
        QUICK_CRASH_DETECTION = 16419, // RFC 6290
        IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420, // RFC 6311
        IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED = 16421,
        IKEV2_MESSAGE_ID_SYNC = 16422,
        IPSEC_REPLAY_COUNTER_SYNC = 16423,
        SECURE_PASSWORD_METHODS = 16424, // RFC 6467
        PSK_PERSIST = 16425, // RFC 6631
        PSK_CONFIRM = 16426,
        ERX_SUPPORTED = 16427, // RFC 6867
        IKEV2_FRAGMENTATION_SUPPORTED = 16430, // RFC 7383
        SIGNATURE_HASH_ALGORITHMS = 16431, // RFC 7427
        CLONE_IKE_SA_SUPPORTED = 16432, // RFC 7791
        CLONE_IKE_SA = 16433,
        PUZZLE = 16434, // RFC 8019
        USE_PPK = 16435, // RFC 8784
        PPK_IDENTITY = 16436,
        NO_PPK_AUTH = 16437,
        INTERMEDIATE_EXCHANGE_SUPPORTED = 16438, // RFC 9242
        IP4_ALLOWED = 16439, // RFC 8983
        IP6_ALLOWED = 16440,
        ADDITIONAL_KEY_EXCHANGE = 16441, // RFC 9370
        USE_AGGFRAG = 16442, // RFC 9347
        SUPPORTED_AUTH_METHODS = 16443, // RFC 9593
        SA_RESOURCE_INFO = 16444, // RFC 9611
    }
}

impl NotifyType {
    /// Whether it reports an error, known or not (RFC 7296 §3.10.1).
    pub const fn is_error(self) -> bool {
        self.0 < NotifyType::INITIAL_CONTACT.0
    }
}

/// A notification, of IKEv2 or, with its types and a DOI in front, of IKEv1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notify<K = NotifyType> {
    /// The protocol of the SA that the SPI names; 0 and ignored without an SPI.
    pub protocol: Protocol,
    /// The SPI of the SA that this is about, or nothing. At most 255 octets.
    pub spi: Vec<u8>,
    /// What it says.
    pub kind: K,
    /// The Notification Data.
    pub data: Vec<u8>,
}

impl Notify {
    /// A notification that is about no SA, or about the IKE SA of the message.
    pub fn new(kind: NotifyType, data: &[u8]) -> Notify {
        // RFC 7296 §3.10: without an SPI the protocol MUST be sent as zero.
        Notify { protocol: Protocol::NONE, spi: vec![], kind, data: data.to_vec() }
    }
}

impl<K: From<u16> + Into<u16> + Copy> Notify<K> {
    pub(super) fn parse(mut r: Reader<'_>) -> Result<Notify<K>, Malformed> {
        let protocol = Protocol(r.u8("Protocol ID")?);
        let spi_size = r.u8("SPI Size")?;
        let kind = r.u16("Notify Message Type")?.into();
        let spi = r.take(spi_size.into(), "Security Parameter Index (SPI)")?.to_vec();
        Ok(Notify { protocol, spi, kind, data: r.rest().to_vec() })
    }

    pub(super) fn emit(&self, w: &mut Writer) {
        w.u8(self.protocol.0);
        w.len8(self.spi.len(), "SPI Size");
        w.u16(self.kind.into());
        w.octets(&self.spi);
        w.octets(&self.data);
    }
}
