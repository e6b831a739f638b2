//! What leaves by the general path: policy, SA, size, sequence number, encapsulate, seal; and again, where SAs are nested
//! (RFC 4301 §5.1, §8).

use super::{
    Env, From, General, OUTGOING, To, aggfrag, ah,
    association::Association,
    esp,
    fragment::fragments,
    gre, header,
    header::Inner,
    icmp::Problem,
    mss,
    packet::Packet,
    tfc::{Sending, Tfc},
};
use crate::{
    drop::DropReason,
    fib::Resolution,
    nexthop::Via,
    policy::Decision,
    sa::Found,
    wire::{self, Addr, FlowKey, IPV6, Ip, UDP, protocol},
};
use portcullis_sadb::{Action, DfBit, Direction, Mode, Protocol};
use std::net::IpAddr;

/// SAs that a packet is put into, one in the other, at most.
const LAYERS: usize = 8;

/// The smallest MTU of IPv6 (RFC 8200 §5).
const SMALLEST_V6: usize = 1280;

/// What TFC padding fills, if it may (RFC 4303 §2.7).
const AS_FAR_AS_THE_PATH_ALLOWS: u16 = u16::MAX;

/// A packet that does not fit into its SA's packets.
struct TooLong {
    /// What would fit.
    inner_mtu: usize,
}

impl General {
    /// A packet, which `ip` is the header of, to where the policies say.
    ///
    /// # Errors
    /// Why it goes no further.
    pub(super) fn outbound(&mut self, env: &mut Env<'_>, ip: Ip) -> Result<(), DropReason> {
        let decision = match self.from {
            From::Opened => env.onward(&ip),
            From::Clear | From::Sealed => env.clear(&ip),
        };
        let policy = match decision {
            Decision::Protect { policy, .. } => policy,
            // What is sealed needs no policy to leave.
            Decision::Bypass { .. } | Decision::Drop(DropReason::NoPolicy) if self.from == From::Sealed => {
                return self.route(env, ip.dst());
            }
            Decision::Bypass { .. } => return self.forward(env, &ip),
            Decision::Drop(reason) => return Err(self.refuse(env, reason, &ip)),
            Decision::LetIn { .. } | Decision::LetOn { .. } => return Err(DropReason::NoPolicy),
        };
        let Some(slot) = env.reader.sa_for(policy, ip.dscp(), env.sas.worker()) else {
            return Err(self.ask_for_sa(env, policy, &ip));
        };
        match env.sas.find(slot, env.reader, env.runtime) {
            Found::Here(i) | Found::General(i) if env.sas.get(i).direction == Direction::Outbound => {
                let with = env.sas.associate(i, env.reader).ok_or(DropReason::NoSa)?;
                // RFC 4303 §3.3.4: a bump in the wire puts together what a host has cut, and cuts it behind ESP.
                let is_cut = with.is_between_hosts() && ip.place != wire::Place::Whole;
                let ip = match is_cut.then(|| self.put_together(env)).transpose()? {
                    None => ip,
                    Some(Some(whole)) => whole,
                    Some(None) => return Ok(()),
                };
                // RFC 4301 §5.1.2.1: what is forwarded.
                if self.from != From::Sealed {
                    self.decrement_ttl(env, &ip)?;
                }
                self.protect(env, i, &ip)
            }
            Found::At(owner) => {
                let to = match self.from {
                    From::Opened => To::Onward { owner },
                    from => To::Worker { owner, is_sealed: from == From::Sealed },
                };
                self.put(env, to)
            }
            Found::Here(_) | Found::General(_) | Found::Nowhere => Err(DropReason::NoSa),
        }
    }

    /// A packet of this SA.
    ///
    /// # Errors
    /// Why it goes no further.
    pub(super) fn protect(&mut self, env: &mut Env<'_>, i: u32, ip: &Ip) -> Result<(), DropReason> {
        let dst = env.sas.associate(i, env.reader).ok_or(DropReason::NoSa)?.sa.dst;
        let path = env.path_mtu(i, dst);
        self.clamp(env, i, ip, path)?;
        let with = env.sas.association(i).ok_or(DropReason::NoSa)?;
        let Some(TooLong { inner_mtu }) = too_long(with, &self.packet, ip, path) else {
            return self.send(env, i, ip, path, false);
        };
        // What it was told of ages; what its next hop takes is to be seen before it is sealed the next time.
        let known = env.sas.get(i).mtu;
        if known == 0 || path < known as usize {
            env.sas.learn_mtu(i, path.min(u16::MAX as usize) as u16, env.now_ms);
        }
        let with = env.sas.association(i).ok_or(DropReason::NoSa)?;
        let is_tunnel = with.sa.mode == Mode::Tunnel || with.sa.handling.gre;
        // RFC 4301 §8.1: what may be cut is cut before, where there is a tunnel around it.
        // Pieces do not show their ports: policies that look at these want whole packets inside (RFC 4301 §7).
        if is_tunnel && ip.is_v4() && !ip.df && !env.flows.select_ports() {
            return self.send_in_pieces(env, i, inner_mtu, path);
        }
        let may_cut_outer = match (is_tunnel, ip.is_v4()) {
            // What we seal is our own, and IPv6 has no DF: it is cut where what is inside might be.
            (true, _) if !with.sa.dst.is_ipv4() && !header::is_df(&with.sa, ip.df) => true,
            (true, true) => !header::is_df(&with.sa, ip.df),
            (false, true) => !ip.df,
            (_, false) => with.sa.dst.is_ipv4() && with.sa.handling.df == DfBit::Clear,
        };
        // RFC 8200 §5: whatever the path, IPv6 has 1280 octets. What came in pieces goes on in pieces.
        let must_cut_outer =
            self.was_cut || !ip.is_v4() && inner_mtu < SMALLEST_V6 && ip.len() <= SMALLEST_V6;
        // An AGGFRAG payload has its size, whatever may be cut outside.
        if (may_cut_outer || must_cut_outer) && with.tfc.sending.is_none() {
            return self.send(env, i, ip, path, true);
        }
        self.tell_too_big(env, ip, inner_mtu)
    }

    /// Segments of TCP are to fit the SA's packets, if it asks for that (RFC 4301 has none of this; RFC 9293 §3.7.1).
    fn clamp(&mut self, env: &Env<'_>, i: u32, ip: &Ip, path: usize) -> Result<(), DropReason> {
        let with = env.sas.association(i).ok_or(DropReason::NoSa)?;
        let most = match with.sa.handling.mss {
            0 => return Ok(()),
            AS_FAR_AS_THE_PATH_ALLOWS => mss::of_mtu(inner_mtu(with, ip, path) as u16, ip.is_v4()),
            octets => octets,
        };
        mss::clamp(self.packet.bytes_mut(), most).map(|_| ())
    }

    /// The same in fragments of at most `inner_mtu` octets.
    fn send_in_pieces(
        &mut self,
        env: &mut Env<'_>,
        i: u32,
        inner_mtu: usize,
        path: usize,
    ) -> Result<(), DropReason> {
        let mut whole = self.spare.pop().ok_or(DropReason::TooBig)?;
        std::mem::swap(&mut self.packet, &mut whole);
        let result = fragments(whole.bytes(), inner_mtu, 0).and_then(|mut pieces| {
            pieces.try_for_each(|piece| {
                self.packet.fill(|to| piece.emit(to));
                let ip = self.parse()?;
                self.send(env, i, &ip, path, false)
            })
        });
        self.spare.push(whole);
        result
    }

    /// Seals a packet, and has it leave, or wait for a payload of its SA: in pieces, if it is too long and `is_cut` says that
    /// it may.
    fn send(
        &mut self,
        env: &mut Env<'_>,
        i: u32,
        ip: &Ip,
        path: usize,
        is_cut: bool,
    ) -> Result<(), DropReason> {
        let with = env.sas.association_mut(i).ok_or(DropReason::NoSa)?;
        if with.tfc.sending.is_some() {
            return self.aggregate(env, i);
        }
        if let Some(dummies) = &mut with.tfc.dummies {
            dummies.pace.restart(env.now_ms);
        }
        self.seal(env, i, ip.len(), |packet, with, number| seal(packet, with, ip, number, path, is_cut))
    }

    /// Queues a packet for the payloads of an SA (RFC 9347 §2.2). Those that are full leave, if they have no times.
    fn aggregate(&mut self, env: &mut Env<'_>, i: u32) -> Result<(), DropReason> {
        let with = env.sas.association_mut(i).ok_or(DropReason::NoSa)?;
        let sending = with.sending().ok_or(DropReason::NoSa)?;
        sending.sender.push(self.packet.bytes())?;
        if sending.pace.is_some() {
            return Ok(());
        }
        if !sending.is_listed && self.unsent.len() < self.unsent.capacity() {
            sending.is_listed = true;
            self.unsent.push(i);
        }
        let least = if sending.is_listed { sending.room() } else { 1 };
        self.send_payloads(env, i, least);
        Ok(())
    }

    /// The rest of what came in this turn leaves, in payloads that are not full.
    pub(super) fn send_rest(&mut self, env: &mut Env<'_>) {
        while let Some(i) = self.unsent.pop() {
            if let Some(sending) = env.sas.association_mut(i).and_then(Association::sending) {
                sending.is_listed = false;
            }
            self.send_payloads(env, i, 1);
        }
    }

    /// Sends while at least so many octets wait.
    fn send_payloads(&mut self, env: &mut Env<'_>, i: u32, least: usize) {
        let waits = |env: &mut Env<'_>| {
            let sending = env.sas.association_mut(i).and_then(Association::sending);
            sending.is_some_and(|sending| sending.sender.queued() >= least)
        };
        while waits(env) {
            self.send_payload(env, i);
        }
    }

    /// Fills a payload with what waits, or with padding, and has it leave.
    fn send_payload(&mut self, env: &mut Env<'_>, i: u32) {
        let Some(sending) = env.sas.association_mut(i).and_then(Association::sending) else { return };
        let mut filled = aggfrag::Filled::default();
        self.packet.fill(|room| {
            filled = sending.sender.payload(None, &mut room[..sending.octets]);
            sending.octets
        });
        self.count(DropReason::TooBig, filled.too_big as u64);
        let sent = self.seal(env, i, filled.octets, |packet, with, number| {
            enclose(packet, with, aggfrag::NEXT_HEADER, number)
        });
        if let Err(reason) = sent {
            self.count(reason, 1);
        }
    }

    /// A dummy packet (RFC 4303 §2.6).
    fn send_dummy(&mut self, env: &mut Env<'_>, i: u32) {
        let Some(dst) = env.sas.association(i).map(|with| with.sa.dst) else { return };
        let path = env.path_mtu(i, dst);
        self.packet.fill(|_| 0);
        let sent = self.seal(env, i, 0, |packet, with, number| {
            let front = header::outer_len(&with.sa) + if with.sa.udp.is_some() { UDP } else { 0 };
            let most = esp::text_for(with.sa.algorithm, path.saturating_sub(front));
            let octets = match (with.sa.handling.tfc_pad, &with.tfc.dummies) {
                (0, Some(dummies)) => dummies.octets(number.0, most),
                (tfc_pad, _) => padded_to(tfc_pad, most),
            };
            packet.extend(octets)?;
            enclose(packet, with, protocol::NONE, number)
        });
        if let Err(reason) = sent {
            self.count(reason, 1);
        }
    }

    /// A NAT-keepalive (RFC 3948 §2.3), which has no sequence number.
    pub(super) fn send_keepalive(&mut self, env: &mut Env<'_>, i: u32) {
        let keepalive = env.sas.get(i).outer.keepalive();
        self.packet.fill(|room| {
            room[..keepalive.len()].copy_from_slice(&keepalive);
            keepalive.len()
        });
        if let Err(reason) = self.go_on(env, i) {
            self.count(reason, 1);
        }
    }

    /// Sends what an SA has to send by itself now, and says when it next has.
    pub(super) fn send_due(&mut self, env: &mut Env<'_>, i: u32) -> u64 {
        let mut next_ms = u64::MAX;
        while let Some(with) = env.sas.association_mut(i) {
            let (pace, is_dummy) = match &mut with.tfc {
                Tfc { sending: Some(Sending { pace: Some(pace), .. }), .. } => (pace, false),
                Tfc { dummies: Some(dummies), .. } => (&mut dummies.pace, true),
                _ => break,
            };
            let is_due = pace.due(env.now_ms) > 0;
            next_ms = pace.next_ms(env.now_ms);
            if !is_due || self.outgoing.len() == OUTGOING {
                break;
            }
            pace.take();
            // RFC 9347 §2.4.1: at a constant rate, with or without anything to send.
            if is_dummy { self.send_dummy(env, i) } else { self.send_payload(env, i) }
        }
        next_ms
    }

    /// Gives a packet its number, has it sealed, and has it leave. `octets` of inner packets are counted.
    fn seal(
        &mut self,
        env: &mut Env<'_>,
        i: u32,
        octets: usize,
        seal: impl FnOnce(&mut Packet, &Association, (u64, u16)) -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        // RFC 4303 §3.3.3. A number that is assigned is used up, whatever becomes of the packet.
        env.sas.reserve(i, octets, (env.reader, env.runtime, env.iked), env.now_secs)?;
        let seq = env.sas.get_mut(i).next_seq();
        let with = env.sas.association(i).ok_or(DropReason::NoSa)?;
        seal(&mut self.packet, with, (seq, self.ids.next_v4()))?;
        if env.sas.get_mut(i).count(1, octets) {
            env.sas.note(i, env.reader, env.runtime);
        }
        self.go_on(env, i)
    }

    /// Has what an SA sends leave: by the SA around it (RFC 2401 §4.3); by the outbound policies again, if it is in another
    /// (RFC 4301 §E).
    fn go_on(&mut self, env: &mut Env<'_>, i: u32) -> Result<(), DropReason> {
        let ip = self.parse()?;
        let with = env.sas.association(i).map(|with| &with.sa);
        let is_nested = with.is_some_and(|sa| sa.handling.nested);
        let is_bundled = with.is_some_and(|sa| sa.around.is_some());
        let from = std::mem::replace(&mut self.from, From::Sealed);
        self.layers += 1;
        let result = match env.around(i) {
            Some(outer) => self.protect(env, outer, &ip),
            None if is_bundled => Err(DropReason::NoSa),
            None if is_nested && self.layers < LAYERS => self.outbound(env, ip),
            None => self.route(env, ip.dst()),
        };
        self.layers -= 1;
        self.from = from;
        result
    }

    /// A packet that goes on in clear; to the kernel, if it came out of an SA and is for the gateway itself.
    ///
    /// # Errors
    /// Why it does not.
    fn forward(&mut self, env: &mut Env<'_>, ip: &Ip) -> Result<(), DropReason> {
        if self.from == From::Opened && env.is_own(ip.dst()) {
            return self.deliver_locally(env, ip);
        }
        self.decrement_ttl(env, ip)?;
        self.route(env, ip.dst())
    }

    fn decrement_ttl(&mut self, env: &mut Env<'_>, ip: &Ip) -> Result<(), DropReason> {
        let Err(reason) = wire::decrement_ttl(self.packet.bytes_mut()) else { return Ok(()) };
        // The last hop of what the kernel sends is where it is for.
        if self.from == From::Clear && env.is_own(ip.src()) {
            return Ok(());
        }
        self.tell(env, Problem::HopLimit, ip);
        Err(reason)
    }

    /// To the next hop, cut if it must be and may be.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn route(&mut self, env: &mut Env<'_>, dst: Addr) -> Result<(), DropReason> {
        let mtu = env.mtu_to(dst);
        self.put_cut(env, To::Route(dst), mtu)
    }

    /// Has the packet leave, cut if it is longer than this and may be.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn put_cut(&mut self, env: &mut Env<'_>, to: To, mtu: usize) -> Result<(), DropReason> {
        if self.packet.len() <= mtu {
            return self.put(env, to);
        }
        let ip = self.parse()?;
        // Only the source may cut an IPv6 packet (RFC 8200 §5): of what we have sealed that is us, of what we have put
        // together we stand for it.
        let is_own = self.from == From::Sealed || self.was_cut;
        if ip.is_v4() && ip.df && !self.was_cut || !ip.is_v4() && !is_own {
            return self.tell_too_big(env, &ip, mtu);
        }
        let id = self.ids.next_v6();
        let whole = self.spare.pop().ok_or(DropReason::TooBig)?;
        let whole = std::mem::replace(&mut self.packet, whole);
        let result = fragments(whole.bytes(), mtu, id).and_then(|mut pieces| {
            pieces.try_for_each(|piece| {
                let frame = super::packet::frame(&[&piece.head, piece.body], env.cache)?;
                self.leave(env, frame, to)
            })
        });
        self.spare.push(std::mem::replace(&mut self.packet, whole));
        result
    }
}

impl Env<'_> {
    /// Whether the policies want a flow protected.
    pub(super) fn protects(&mut self, key: FlowKey) -> bool {
        let homes = self.flows.homes(&key);
        matches!(self.flows.clear(self.reader, homes, key).1, Decision::Protect { .. })
    }

    /// Whether the policies let a packet in only if it is in an SA.
    pub(super) fn is_to_be_esp(&mut self, ip: &Ip) -> bool {
        self.clear(ip) == Decision::Drop(DropReason::Unprotected)
    }

    /// What the policies say of a packet that came out of an SA, and goes on.
    fn onward(&self, ip: &Ip) -> Decision {
        let hit = self.reader.lookup(Direction::Outbound, &ip.flow());
        match hit.map(|hit| (hit.action, hit.index)) {
            Some((Action::Protect, policy)) => Decision::Protect { policy, state: u32::MAX },
            Some((Action::Discard, _)) => Decision::Drop(DropReason::PolicyDiscard),
            Some((Action::Bypass, _)) | None => Decision::Bypass { via: Via::NONE },
        }
    }

    /// What the policies say of a packet in clear.
    fn clear(&mut self, ip: &Ip) -> Decision {
        let homes = self.flows.homes(&ip.key());
        self.flows.clear(self.reader, homes, ip.key()).1
    }

    /// Octets of a packet that the next hop to an address takes.
    pub(super) fn mtu_to(&self, dst: Addr) -> usize {
        match self.fib.resolve(dst.into()) {
            Resolution::Send { mtu, .. } => mtu as usize,
            Resolution::Unresolved { port, .. } => {
                self.fib.ports().get(port as usize).map_or(u16::MAX as usize, |port| port.mtu as usize)
            }
            Resolution::Local | Resolution::NoRoute => u16::MAX as usize,
        }
    }

    /// Octets of an SA's packet, at most, to this outer address: of one in another SA, without what that puts in front.
    fn path_mtu(&mut self, i: u32, dst: IpAddr) -> usize {
        let mtu = self.mtu_to(dst.into());
        let Some(outer) = self.around(i) else { return self.known_mtu(i, mtu) };
        let ah = self.sas.association(outer).map_or(0, |with| ah::len(with, dst.is_ipv4()));
        self.known_mtu(i, self.known_mtu(outer, mtu).saturating_sub(ah))
    }

    /// The same, where its next hop takes so much.
    fn known_mtu(&self, i: u32, mtu: usize) -> usize {
        match self.sas.get(i).mtu {
            0 => mtu,
            known => mtu.min(known as usize),
        }
    }

    /// The SA that is around an outbound one, if there is such and it is there.
    fn around(&mut self, i: u32) -> Option<u32> {
        let around = self.sas.association(i)?.sa.around?;
        let (Found::Here(outer) | Found::General(outer)) =
            self.sas.find(around.slot, self.reader, self.runtime)
        else {
            return None;
        };
        let state = self.sas.get(outer);
        let is_it = (state.direction, state.spi) == (Direction::Outbound, around.spi.0);
        is_it.then_some(outer)
    }
}

/// Octets in front of what an SA's ESP or AH has inside, without that header.
fn front(with: &Association) -> usize {
    let sa = &with.sa;
    let udp = if sa.udp.is_some() { UDP } else { 0 };
    match sa.mode {
        Mode::Tunnel => header::outer_len(sa) + udp,
        Mode::Transport if sa.handling.gre => header::outer_len(sa) + udp + gre::GRE,
        Mode::Transport => udp,
    }
}

/// The longest packet that fits.
fn inner_mtu(with: &Association, ip: &Ip, path: usize) -> usize {
    let gre = if with.sa.handling.gre { gre::GRE } else { 0 };
    let is_tunnel = with.sa.mode == Mode::Tunnel || with.sa.handling.gre;
    // RFC 9347 §2.2.7: what may be cut there has no limit, and others that of a payload.
    if let Some(sending) = &with.tfc.sending {
        return if sending.may_fragment { u16::MAX as usize } else { sending.room() };
    }
    let front = front(with);
    match with.sa.protocol {
        Protocol::Ah => {
            let v4 = if is_tunnel { with.sa.dst.is_ipv4() } else { ip.is_v4() };
            path.saturating_sub(front + ah::len(with, v4))
        }
        Protocol::Esp => {
            let inside = if is_tunnel { 0 } else { ip.payload() };
            let room = path.saturating_sub(inside + front - gre);
            (esp::text_for(with.sa.algorithm, room) + inside).saturating_sub(gre)
        }
    }
}

/// Whether a packet is too long for the SA's packets to have at most `path` octets.
fn too_long(with: &Association, packet: &Packet, ip: &Ip, path: usize) -> Option<TooLong> {
    let inner_mtu = inner_mtu(with, ip, path);
    (packet.len() > inner_mtu).then_some(TooLong { inner_mtu })
}

/// Puts a packet into an SA's.
fn seal(
    packet: &mut Packet,
    with: &Association,
    ip: &Ip,
    (seq, id): (u64, u16),
    path: usize,
    is_cut: bool,
) -> Result<(), DropReason> {
    let sa = &with.sa;
    let mut inner = Inner::of(packet.bytes(), ip);
    inner.may_be_cut = is_cut;
    let next = if ip.is_v4() { protocol::IPV4 } else { protocol::IPV6 };
    let (place, next) = match sa.mode {
        Mode::Tunnel => {
            pad(packet, with, path)?;
            (header::outer(packet, sa, inner, id)?, next)
        }
        Mode::Transport if sa.handling.gre => {
            gre::push(packet)?;
            (header::outer(packet, sa, inner, id)?, protocol::GRE)
        }
        Mode::Transport => {
            // RFC 4303 §3.1.1: whole datagrams only.
            if ip.place != wire::Place::Whole {
                return Err(DropReason::Fragment);
            }
            let place = header::transport_place(packet.bytes(), ip)?;
            (place, packet.bytes()[place.1])
        }
    };
    match sa.protocol {
        Protocol::Ah => ah::seal(packet, place, next, with, seq),
        Protocol::Esp => {
            esp::seal(packet, place.0, next, with, seq)?;
            header::enclose(packet, place, sa, protocol::ESP)
        }
    }
}

/// Padding for traffic flow confidentiality behind an inner packet, whose length tells where it ends (RFC 4303 §2.7).
fn pad(packet: &mut Packet, with: &Association, path: usize) -> Result<(), DropReason> {
    if with.sa.handling.tfc_pad == 0 || with.sa.protocol != Protocol::Esp {
        return Ok(());
    }
    let most = esp::text_for(with.sa.algorithm, path.saturating_sub(front(with)));
    packet.extend(padded_to(with.sa.handling.tfc_pad, most).saturating_sub(packet.len()))
}

/// Octets that payloads are padded to, where there is room for `most`.
fn padded_to(tfc_pad: u16, most: usize) -> usize {
    match tfc_pad {
        AS_FAR_AS_THE_PATH_ALLOWS => most,
        octets => most.min(octets as usize),
    }
}

/// Seals a payload that is no packet, between the ends of an SA. Nothing of the outer header is from inside.
fn enclose(
    packet: &mut Packet,
    with: &Association,
    next: u8,
    (seq, id): (u64, u16),
) -> Result<(), DropReason> {
    let place = header::outer(packet, &with.sa, Inner::NONE, id)?;
    esp::seal(packet, place.0, next, with, seq)?;
    header::enclose(packet, place, &with.sa, protocol::ESP)
}

const _: () = assert!(IPV6 < SMALLEST_V6);
