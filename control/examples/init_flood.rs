//! Floods an IKE responder with first messages from addresses that nobody has.
//!
//! ```text
//! init_flood RESPONDER PER-SECOND SECONDS
//! ```
//! It needs CAP_NET_RAW, and prints how many it has sent. Sources are all over 10.128.0.0/9 and 172.16.0.0/12.
#![allow(clippy::print_stdout, reason = "its figure")]

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, connect, send, socket,
};
use portcullis_ike::{
    crypto::{exchange::Initiator, transform::KeyExchange as Method},
    message::{ExchangeType, Flags, Header, IkeSpi, KeyExchange, Message, Payload, Payloads, Version},
    proposal::Proposals,
};
use rand_core::{Rng, UnwrapErr};
use std::{
    env,
    error::Error,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

/// Octets of the headers in front of a message.
const IP: usize = 20;
const UDP: usize = 8;

const SLICE: Duration = Duration::from_millis(1);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [responder, per_second, seconds] = &arguments[..] else {
        return Err("init_flood RESPONDER PER-SECOND SECONDS".into());
    };
    let responder: Ipv4Addr = responder.parse()?;
    let (per_second, seconds): (u64, u64) = (per_second.parse()?, seconds.parse()?);
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), Some(SockProtocol::Raw))?;
    connect(raw.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(responder, 0)))?;
    let mut rng = UnwrapErr(getrandom::SysRng);
    let mut packet = packet(responder, &mut rng)?;
    let (start, length) = (Instant::now(), Duration::from_secs(seconds));
    let (mut sent, mut random) = (0u64, rng.next_u64());
    while start.elapsed() < length {
        let due = start.elapsed().as_micros() as u64 * per_second / 1_000_000;
        while sent < due {
            // xorshift: nobody is to be surprised.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let (source, port) = (source(random as u32), (random >> 40) as u16 | 1024);
            packet[12..16].copy_from_slice(&source.octets());
            packet[IP..IP + 2].copy_from_slice(&port.to_be_bytes());
            packet[IP + UDP..IP + UDP + 8].copy_from_slice(&random.to_be_bytes());
            send(raw.as_raw_fd(), &packet, MsgFlags::empty())?;
            sent += 1;
        }
        thread::sleep(SLICE);
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{sent} sent in {seconds:.1} s, {:.0}/s", sent as f64 / seconds);
    Ok(())
}

/// 10.128.0.0/9, or of eight ones 172.16.0.0/12.
fn source(random: u32) -> Ipv4Addr {
    match random >> 29 {
        0 => (0xac10_0000 | random & 0xf_ffff).into(),
        _ => (0x0a80_0000 | random & 0x7f_ffff).into(),
    }
}

/// A first message in UDP and IP, without checksums: the kernel makes that of the header.
fn packet(responder: Ipv4Addr, rng: &mut impl rand_core::CryptoRng) -> Result<Vec<u8>, Box<dyn Error>> {
    let (_, public) = Initiator::new(Method::X25519, rng);
    let mut nonce = vec![0; 32];
    rng.fill_bytes(&mut nonce);
    let header = Header {
        initiator_spi: IkeSpi::from([1; 8]),
        responder_spi: IkeSpi::NONE,
        version: Version::V2,
        exchange: ExchangeType::IKE_SA_INIT,
        flags: Flags::INITIATOR,
        message_id: 0,
    };
    let proposals = Proposals::ike(["aes128-sha256-x25519"])?;
    let payloads = vec![
        Payload::SecurityAssociation(proposals.offer(&[])),
        Payload::KeyExchange(KeyExchange { method: Method::X25519.id(), data: public }),
        Payload::Nonce(nonce),
    ];
    let message = Message { header, payloads: Payloads(payloads), sealed: None }.emit()?;
    let (udp, all) = ((UDP + message.len()) as u16, (IP + UDP + message.len()) as u16);
    let mut packet = vec![0x45, 0];
    packet.extend(all.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0]);
    packet.extend(responder.octets());
    packet.extend([0, 0]);
    packet.extend(500u16.to_be_bytes());
    packet.extend(udp.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(message);
    Ok(packet)
}
