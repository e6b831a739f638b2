//! Fragments, ICMP errors and segment sizes as another implementation has them (`vectors/sizes.py`).

use portcullis_datapath::{
    general::{
        From,
        fragment::fragments,
        icmp::{self, Carried, Problem, TooBig},
        mss,
        reassembly::{LARGEST, Limits, Outcome, Reassembly},
    },
    wire::Ip,
};
use std::net::IpAddr;

/// The fields of a record, by name.
struct Record(Vec<(&'static str, &'static str)>);

impl Record {
    fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(n, _)| *n == name).map(|(_, value)| *value).collect()
    }

    fn text(&self, name: &str) -> &str {
        self.all(name)[0]
    }

    fn number(&self, name: &str) -> u32 {
        self.text(name).parse().unwrap()
    }

    fn octets(&self, name: &str) -> Vec<u8> {
        hex(self.text(name))
    }
}

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

fn records(kind: &str) -> Vec<Record> {
    let field = |line: &'static str| line.split_once(" = ").unwrap_or_else(|| panic!("{line}"));
    let records: Vec<_> = include_str!("vectors/sizes.rsp")
        .split("\n\n")
        .filter(|paragraph| !paragraph.starts_with('#'))
        .map(|paragraph| Record(paragraph.lines().map(field).collect()))
        .filter(|record| !record.0.is_empty() && record.text("Kind") == kind)
        .collect();
    assert!(!records.is_empty(), "{kind}");
    records
}

#[test]
fn packets_are_cut_and_put_together_as_by_another() {
    for record in records("fragments") {
        let packet = record.octets("Packet");
        let parts: Vec<_> = record.all("Part").into_iter().map(hex).collect();
        let ours = fragments(&packet, record.number("MTU") as usize, record.number("ID")).unwrap();
        let ours: Vec<_> = ours.map(|f| [&f.head[..], f.body].concat()).collect();
        assert_eq!(ours, parts, "RFC 791 §3.2, RFC 8200 §4.5");

        let mut reassembly = Reassembly::new(Limits::default());
        let mut out = vec![0; LARGEST];
        let (first, others) = parts.split_first().unwrap();
        for part in others.iter().rev() {
            assert_eq!(reassembly.insert(From::Clear, 0, part, &mut out), Outcome::Held);
        }
        assert_eq!(reassembly.insert(From::Clear, 0, first, &mut out), Outcome::Done(packet.len()));
        assert_eq!(out[..packet.len()], packet);
    }
}

#[test]
fn errors_are_octet_by_octet_those_of_another() {
    for record in records("error") {
        let problem = match record.text("Problem") {
            "TooBig" => Problem::TooBig { mtu: 1400 },
            "HopLimit" => Problem::HopLimit,
            "ReassemblyTime" => Problem::ReassemblyTime,
            "Prohibited" => Problem::Prohibited,
            other => panic!("{other}"),
        };
        let from: IpAddr = record.text("From").parse().unwrap();
        let mut out = [0xee; icmp::MOST_V6];
        let len = icmp::emit(problem, from.into(), &record.octets("Packet"), &mut out).unwrap();
        assert_eq!(out[..len], record.octets("Error"), "{problem:?}"); // RFC 792, RFC 4443
    }
}

#[test]
fn what_routers_say_of_our_packets_is_read() {
    for record in records("too big") {
        let error = record.octets("Error");
        let to = Ip::parse(&error).unwrap().dst();
        let words: Vec<_> = record.text("Carried").split(' ').collect();
        let spi = |word: &str| u32::from_str_radix(word, 16).unwrap();
        let carried = match words[..] {
            ["esp", word] => Carried::Esp { spi: spi(word) },
            ["ah", word] => Carried::Ah { spi: spi(word) },
            ["udp", src, dst, ref rest @ ..] => Carried::Udp {
                src_port: src.parse().unwrap(),
                dst_port: dst.parse().unwrap(),
                spi: rest.first().map(|word| spi(word)),
            },
            ref other => panic!("{other:?}"),
        };
        let read = TooBig::parse(&error).unwrap(); // RFC 4301 §8.2.1
        assert_eq!((read.src, read.carried, read.mtu as u32), (to, carried, record.number("MTU")));
    }
}

#[test]
fn lowered_segment_sizes_have_the_checksums_of_another() {
    for record in records("size") {
        let mut packet = record.octets("Packet");
        assert_eq!(mss::clamp(&mut packet, record.number("Size") as u16), Ok(true));
        assert_eq!(packet, record.octets("Lowered")); // RFC 1624 §3
    }
}
