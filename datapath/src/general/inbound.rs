//! What comes for an SA on the general path: SA, replay check, open, commit, decapsulate, policy check; and again, where
//! there is ESP or AH inside (RFC 4301 §5.2, RFC 4302 §3.4, RFC 4303 §3.4).

use super::{
    Env, From, General,
    aggfrag::{self, Receiver},
    ah,
    association::Association,
    esp, gre, header,
    packet::Packet,
};
use crate::{
    crypto::IcvVerified,
    drop::DropReason,
    esp::decapsulated_ecn,
    policy::Decision,
    sa::{Found, SaTable, resync},
    wire::{self, Ip, Place, UdpPorts, protocol},
};
use portcullis_sadb::{Mode, Protocol, SaCounters, Spi};

/// SAs that a packet may be in, one in the other.
const LAYERS: usize = 8;

/// An ESP or AH header in a packet.
pub(super) struct Header {
    protocol: Protocol,
    at: usize,
    udp: bool,
    spi: u32,
    seq_lo: u32,
}

/// The ESP or AH header of a whole packet that has one, where these are our UDP ports.
pub(super) fn header_of(packet: &[u8], ip: &Ip, ports: &UdpPorts) -> Option<Header> {
    if ip.place != Place::Whole {
        return None;
    }
    let at = ip.payload();
    match ip.protocol() {
        protocol::ESP => esp_at(packet, at, false),
        protocol::UDP if ports.has_some(ip.dst_port()) => {
            esp_at(packet, at + wire::UDP, true).filter(|esp| esp.spi != 0)
        }
        protocol::AH => {
            let (spi, seq_lo) = ah::fields(packet.get(at..)?)?;
            Some(Header { protocol: Protocol::Ah, at, udp: false, spi, seq_lo })
        }
        _ => None,
    }
}

fn esp_at(packet: &[u8], at: usize, udp: bool) -> Option<Header> {
    let head = packet.get(at..at + wire::ESP)?;
    let (spi, seq_lo) = (wire::be32(head, 0), wire::be32(head, 4));
    Some(Header { protocol: Protocol::Esp, at, udp, spi, seq_lo })
}

impl General {
    /// Takes a packet out of its SA, and those in it.
    ///
    /// # Errors
    /// Why it goes no further.
    pub(super) fn inbound(&mut self, env: &mut Env<'_>) -> Result<Opened, DropReason> {
        let (mut is_own, mut around) = (false, None);
        for layer in self.layers..LAYERS {
            let ip = self.parse()?;
            let Some(head) = header_of(self.packet.bytes(), &ip, env.sas.udp_ports()) else {
                return if layer == 0 { Err(DropReason::Malformed) } else { Ok(Opened::Packet(ip, is_own)) };
            };
            let found =
                env.reader.find(Spi(head.spi)).map(|slot| env.sas.find(slot, env.reader, env.runtime));
            match found {
                Some(Found::Here(i) | Found::General(i)) => {
                    let with = env.sas.associate(i, env.reader).ok_or(DropReason::UnknownSpi)?;
                    is_own = with.is_between_hosts();
                    // RFC 2401 §5.2.1: what is not in the SA around it has not been through the whole bundle.
                    if with.sa.around.is_some_and(|outer| Some(outer.slot) != around) {
                        return Err(DropReason::SaMismatch);
                    }
                    around = Some(env.sas.get(i).slot);
                    if self.open(env, i, &ip, &head)?.is_none() {
                        return Ok(Opened::Gone);
                    }
                }
                Some(Found::At(owner)) => return Ok(Opened::At(owner)),
                // What goes through to somebody else is a packet as all others.
                Some(Found::Nowhere) | None if layer > 0 => return Ok(Opened::Packet(ip, is_own)),
                Some(Found::Nowhere) | None => return Err(DropReason::UnknownSpi),
            }
        }
        Err(DropReason::BadInner)
    }

    /// One layer. `None`: what was inside has gone on by itself.
    fn open(&mut self, env: &mut Env<'_>, i: u32, ip: &Ip, head: &Header) -> Result<Option<()>, DropReason> {
        let Env { sas, reader, runtime, .. } = env;
        // 1. RFC 4303 §3.4.2: the SA, by SPI and protocol, and the way that its packets come.
        let with = sas.association(i).ok_or(DropReason::UnknownSpi)?;
        let (sa, ring) = sas.inbound(i).ok_or(DropReason::UnknownSpi)?;
        if with.sa.protocol != head.protocol || !sa.is_way_of(ip.dst(), head.udp) {
            return Err(DropReason::SaMismatch);
        }
        if sas.is_expired(i) {
            return Err(DropReason::SaExpired);
        }
        // 2. RFC 4303 §3.4.3, RFC 4302 §3.4.3.
        let seq = match sa.check(head.seq_lo, ring, runtime) {
            Ok(seq) => seq,
            Err(reason) => return Err(env.refused(i, reason)),
        };
        // 3. RFC 4303 §3.4.4, RFC 4302 §3.4.4.
        let is_tried = sas.is_suspect(i);
        let Some((seq, proof)) = self.verify(sas, i, head, seq) else {
            let counters = SaCounters { icv_failures: 1, ..SaCounters::default() };
            runtime.sa(sas.get(i).slot).count(&counters);
            sas.note_wrong(i, is_tried);
            return Err(DropReason::IcvMismatch);
        };
        if let Err(reason) = sas.commit(i, seq, proof, (reader, runtime)) {
            return Err(env.refused(i, reason));
        }
        if head.udp {
            sas.follow(i, seq, ip, proof);
        }
        // 4. What is inside, and whether its policy wants it from this SA (RFC 4301 §5.2).
        match self.inside(env, i, ip, head, (seq, proof)) {
            Ok(Some(ip)) if self.is_bundled(env, i, &ip) => {
                env.sas.count_inbound(i, ip.len(), env.reader, env.runtime);
                Ok(Some(()))
            }
            Ok(Some(ip)) => env.admit(i, &ip).map(Some),
            Ok(None) => Ok(None),
            Err(reason) => Err(env.refused_inside(i, reason)),
        }
    }

    /// Whether what an SA has brought is for one that it is around: the policies are for what is in that.
    fn is_bundled(&self, env: &mut Env<'_>, i: u32, ip: &Ip) -> bool {
        let head = header_of(self.packet.bytes(), ip, env.sas.udp_ports());
        let inner = head.and_then(|head| env.reader.find(Spi(head.spi)));
        match inner.map(|slot| env.sas.find(slot, env.reader, env.runtime)) {
            Some(Found::General(inner)) => {
                let around = env.sas.association(inner).and_then(|with| with.sa.around);
                around.is_some_and(|around| around.slot == env.sas.get(i).slot)
            }
            _ => false,
        }
    }

    /// Opens the packet by the number that it seems to have; of an SA that has perhaps lost so much, by those of the next high
    /// halves too (RFC 4303 §A3). The number by which its ICV is right, if there is one.
    fn verify(&mut self, sas: &SaTable, i: u32, head: &Header, seq: u64) -> Option<(u64, IcvVerified)> {
        let with = sas.association(i)?;
        if !sas.is_suspect(i) {
            return open_as(&mut self.packet, with, head, seq).map(|proof| (seq, proof));
        }
        let mut copy = self.spare.pop()?;
        let opened = (0..=resync::AHEAD).find_map(|n| {
            let seq = seq.checked_add(n << 32)?;
            copy.fill(|to| {
                let packet = self.packet.bytes();
                to[..packet.len()].copy_from_slice(packet);
                packet.len()
            });
            open_as(&mut copy, with, head, seq).map(|proof| (seq, proof))
        });
        if opened.is_some() {
            std::mem::swap(&mut self.packet, &mut copy);
        }
        self.spare.push(copy);
        opened
    }

    /// Takes the headers off a packet that was opened.
    fn inside(
        &mut self,
        env: &mut Env<'_>,
        i: u32,
        outer: &Ip,
        head: &Header,
        (seq, proof): (u64, IcvVerified),
    ) -> Result<Option<Ip>, DropReason> {
        let with = env.sas.association(i).ok_or(DropReason::UnknownSpi)?;
        let packet = &mut self.packet;
        let named_at = header::named_at(packet.bytes(), outer, outer.payload())?;
        let next = match head.protocol {
            Protocol::Esp => esp::unwrap(packet, head.at, with, proof)?,
            Protocol::Ah => ah::unwrap(packet, head.at, proof)?,
        };
        if head.udp {
            packet.remove(outer.payload(), wire::UDP);
        }
        let at = outer.payload();
        let is_aggregated = next == aggfrag::NEXT_HEADER;
        if with.tfc.receiving.is_some() {
            self.disaggregate(env, i, seq, is_aggregated.then_some(at))?;
            if is_aggregated {
                return Ok(None);
            }
        } else if is_aggregated {
            return Err(DropReason::BadInner);
        }
        let with = env.sas.association(i).ok_or(DropReason::UnknownSpi)?;
        let packet = &mut self.packet;
        if with.sa.mode == Mode::Transport && !(with.sa.handling.gre && next == protocol::GRE) {
            header::settle(packet, named_at, next)?;
            let ip = self.parse()?;
            if head.udp {
                header::mend_checksum(self.packet.bytes_mut(), &ip);
            }
            return Ok(Some(ip));
        }
        match (with.sa.mode, next) {
            (Mode::Transport, _) => gre::pull(packet, at)?,
            (Mode::Tunnel, protocol::IPV4 | protocol::IPV6) => packet.pull(at),
            _ => return Err(DropReason::BadInner),
        }
        self.decapsulate(with, outer.tos, next).map(Some)
    }

    /// Takes the AGGFRAG payload at a place in the packet, of this number; the inner packets that are whole then go on. A
    /// number without one is as good as padding: only senders must not mix (RFC 9347 §2.3).
    fn disaggregate(
        &mut self,
        env: &mut Env<'_>,
        i: u32,
        seq: u64,
        at: Option<usize>,
    ) -> Result<(), DropReason> {
        const PADDING: &[u8] = &[0; aggfrag::HEADER];
        let inner = self.spare.pop().ok_or(DropReason::BadInner)?;
        let outer = std::mem::replace(&mut self.packet, inner);
        let payload = at.map_or(Some(PADDING), |at| outer.bytes().get(at..)).unwrap_or_default();
        let result = self.reassemble(env, i, |receiver, each| receiver.accept(seq, payload, each));
        self.spare.push(std::mem::replace(&mut self.packet, outer));
        result
    }

    /// Gives up a payload that does not come, if it is time to. Says when it will be.
    pub(super) fn give_up(&mut self, env: &mut Env<'_>, i: u32) -> u64 {
        let due_ms = |env: &Env<'_>| {
            let with = env.sas.association(i);
            with.and_then(|with| with.tfc.receiving.as_ref()).map_or(u64::MAX, |r| r.give_up_ms())
        };
        if due_ms(env) <= env.now_ms {
            // It has gone on with what is there, whatever that is.
            let _ = self.reassemble(env, i, |receiver, each| {
                receiver.give_up(each);
                Ok(())
            });
        }
        due_ms(env)
    }

    /// Takes what comes of an SA's stream: each inner packet goes on.
    fn reassemble(
        &mut self,
        env: &mut Env<'_>,
        i: u32,
        take: impl FnOnce(&mut Receiver, &mut dyn FnMut(&[u8])) -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        // It is away while its packets go on: none of them is in the SA that it came by.
        let with = env.sas.association_mut(i).ok_or(DropReason::UnknownSpi)?;
        let mut receiving = with.tfc.receiving.take().ok_or(DropReason::BadInner)?;
        let result = take(&mut receiving.receiver, &mut |inner| {
            if let Err(reason) = self.deliver(env, i, inner) {
                self.count(reason, 1);
            }
        });
        receiving.receiver.drain_drops(|reason, n| self.count(reason, n));
        self.next_ms = self.next_ms.min(receiving.settle(env.now_ms));
        if let Some(with) = env.sas.association_mut(i) {
            with.tfc.receiving = Some(receiving);
        }
        result
    }

    /// An inner packet that an SA has brought. ECN and DSCP of outer packets are not theirs (RFC 9347 §2.2.5).
    fn deliver(&mut self, env: &mut Env<'_>, i: u32, inner: &[u8]) -> Result<(), DropReason> {
        self.packet.fill(|room| {
            room[..inner.len()].copy_from_slice(inner);
            inner.len()
        });
        self.was_cut = false;
        let ip = self.parse().map_err(|_| env.refused_inside(i, DropReason::BadInner))?;
        env.admit(i, &ip)?;
        if header_of(self.packet.bytes(), &ip, env.sas.udp_ports()).is_none() {
            let from = std::mem::replace(&mut self.from, From::Opened);
            let result = self.outbound(env, ip);
            self.from = from;
            return result;
        }
        self.layers += 1;
        let result = self.receive(env);
        self.layers -= 1;
        result
    }

    /// The inner packet of a tunnel, whose outer header had this type of service. What follows it is padding (RFC 4303
    /// §2.7).
    fn decapsulate(&mut self, with: &Association, outer_tos: u8, next: u8) -> Result<Ip, DropReason> {
        let ip = self.parse().map_err(|_| DropReason::BadInner)?;
        if next != protocol::GRE && ip.is_v4() != (next == protocol::IPV4) {
            return Err(DropReason::BadInner);
        }
        let (handling, mut tos) = (&with.sa.handling, ip.tos);
        if handling.ecn {
            let ecn = decapsulated_ecn(ip.tos & 3, outer_tos & 3).ok_or(DropReason::EcnDrop)?;
            tos = tos & !3 | ecn;
        }
        if handling.decap_dscp {
            tos = tos & 3 | outer_tos & !3;
        }
        if tos != ip.tos {
            wire::set_tos(self.packet.bytes_mut(), tos);
        }
        Ok(ip)
    }
}

/// What became of a packet for an SA.
pub(super) enum Opened {
    /// What was inside is the packet now. True if it came by an SA between hosts
    /// ([`Association::is_between_hosts`]).
    Packet(Ip, bool),
    /// What is the packet now is for an SA of another worker.
    At(u32),
    /// What was inside has gone on.
    Gone,
}

impl Env<'_> {
    fn refused(&self, i: u32, reason: DropReason) -> DropReason {
        let counters = match reason {
            DropReason::ReplayDuplicate => SaCounters { replay_duplicates: 1, ..SaCounters::default() },
            DropReason::ReplayTooOld => SaCounters { replay_too_old: 1, ..SaCounters::default() },
            _ => return reason,
        };
        self.runtime.sa(self.sas.get(i).slot).count(&counters);
        reason
    }

    /// Counts a packet that came by this SA, if the policies let it in.
    fn admit(&mut self, i: u32, ip: &Ip) -> Result<(), DropReason> {
        self.let_in(i, ip).map_err(|reason| self.refused_inside(i, reason))?;
        self.sas.count_inbound(i, ip.len(), self.reader, self.runtime);
        Ok(())
    }

    fn refused_inside(&self, i: u32, reason: DropReason) -> DropReason {
        let refused = u64::from(reason != DropReason::Dummy);
        self.runtime.sa(self.sas.get(i).slot).count(&SaCounters { refused, ..SaCounters::default() });
        reason
    }

    /// RFC 4301 §5.2: whether the policies let a packet in that came by this SA.
    fn let_in(&mut self, i: u32, ip: &Ip) -> Result<(), DropReason> {
        let key = ip.key().inner();
        let homes = self.flows.homes(&key);
        let (_, decision) = self.flows.inner(self.reader, homes, key);
        let reqid = self.sas.inbound(i).map(|(sa, _)| sa.reqid);
        match decision {
            Decision::LetIn { reqid: wanted, .. } | Decision::LetOn { reqid: wanted }
                if Some(wanted) == reqid =>
            {
                Ok(())
            }
            _ => Err(DropReason::SelectorMismatch),
        }
    }
}

/// Opens a packet by a number.
fn open_as(packet: &mut Packet, with: &Association, head: &Header, seq: u64) -> Option<IcvVerified> {
    match head.protocol {
        Protocol::Esp => esp::open(packet, head.at, with, seq),
        Protocol::Ah => ah::open(packet, head.at, with, seq),
    }
}
