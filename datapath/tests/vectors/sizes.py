#!/usr/bin/env python3
"""Prints sizes.rsp: packets that scapy, another implementation, has cut, answered and changed.

    pip install scapy==2.8.0 && ./sizes.py >sizes.rsp
"""

from scapy.all import ICMP, IP, IPv6, TCP, UDP, Raw, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    fragment6,
)
from scapy.layers.ipsec import AH, ESP


def octets(n):
    return bytes((i * 7 + i // 256 * 3) % 256 for i in range(n))


def record(kind, **fields):
    print(f"Kind = {kind}")
    for name, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            print(f"{name} = {value if isinstance(value, (int, str)) else bytes(value).hex()}")
    print()


V4 = IP(src="192.0.2.9", dst="198.51.100.7", id=0x1234, ttl=61, tos=0xB8)
V6 = IPv6(src="2001:db8::9", dst="2001:db8:1::7", hlim=61, tc=0xB8, fl=0x12345)
ESP_PACKET = ESP(spi=0xCAFE0001, seq=7, data=octets(700))


def fragments():
    udp = UDP(sport=1, dport=2) / Raw(octets(1700))
    for packet, mtu in [(V4 / udp, 1500), (V4 / ESP_PACKET, 576), (V4 / Raw(octets(300)), 68)]:
        packet = IP(bytes(packet))
        size = (mtu - 20) // 8 * 8
        record("fragments", MTU=mtu, ID=0, Packet=packet, Part=fragment(packet, fragsize=size))
    options = [PadN(optdata=b"\0" * 4)]
    hop = IPv6ExtHdrHopByHop(options=options)
    routing = IPv6ExtHdrRouting(addresses=["2001:db8:2::1"], segleft=0)
    last = IPv6ExtHdrDestOpt(options=options) / udp
    for front, rest, mtu in [(V6, udp, 1500), (V6 / hop, udp, 1280), (V6 / hop / routing, last, 1280)]:
        marked = IPv6(bytes(front / IPv6ExtHdrFragment(id=0x01020304) / rest))
        record("fragments", MTU=mtu, ID=0x01020304, Packet=front / rest, Part=fragment6(marked, mtu))


def errors():
    v4 = bytes(V4 / UDP(sport=1, dport=2) / Raw(octets(600)))
    v6 = bytes(V6 / UDP(sport=1, dport=2) / Raw(octets(1250)))
    from4 = IP(src="203.0.113.1", dst=V4.src, tos=0xC0, id=0, flags="DF", ttl=64)
    from6 = IPv6(src="2001:db8:ffff::1", dst=V6.src, hlim=64)
    for problem, of4, of6 in [
        ("TooBig", ICMP(type=3, code=4, nexthopmtu=1400), ICMPv6PacketTooBig(mtu=1400)),
        ("HopLimit", ICMP(type=11, code=0), ICMPv6TimeExceeded(code=0)),
        ("ReassemblyTime", ICMP(type=11, code=1), ICMPv6TimeExceeded(code=1)),
        ("Prohibited", ICMP(type=3, code=13), ICMPv6DestUnreach(code=1)),
    ]:
        record("error", Problem=problem, From="203.0.113.1", Packet=v4, Error=from4 / of4 / Raw(v4[: 576 - 28]))
        record("error", Problem=problem, From="2001:db8:ffff::1", Packet=v6, Error=from6 / of6 / Raw(v6[: 1280 - 48]))


def too_big():
    ah = AH(spi=0xCAFE0002, seq=1, icv=b"\0" * 12)
    router4 = IP(src="203.0.113.1", dst=V4.src, ttl=250)
    router6 = IPv6(src="2001:db8:ffff::1", dst=V6.src)
    for carried, packet, shown in [
        ("esp cafe0001", ESP_PACKET, 8),
        ("esp cafe0001", ESP_PACKET, 200),
        ("ah cafe0002", ah / Raw(octets(99)), 8),
        ("udp 4500 4501", UDP(sport=4500, dport=4501) / Raw(bytes(ESP_PACKET)), 8),
        ("udp 4500 4501 cafe0001", UDP(sport=4500, dport=4501) / Raw(bytes(ESP_PACKET)), 100),
    ]:
        about = bytes(V4 / packet)[: 20 + shown]
        record("too big", Carried=carried, MTU=1300, Error=router4 / ICMP(type=3, code=4, nexthopmtu=1300) / Raw(about))
        about = bytes(V6 / packet)[: 40 + shown]
        record("too big", Carried=carried, MTU=1300, Error=router6 / ICMPv6PacketTooBig(mtu=1300) / Raw(about))


def sizes():
    hop = IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)])
    stamps = ("Timestamp", (0x01020304, 0))
    for options in [[("MSS", 1460)], [("NOP", None), ("MSS", 1460), stamps], [("WScale", 7), ("MSS", 8960), ("SAckOK", b"")]]:
        for head in [V4, V6, V6 / hop]:
            for flags in ["S", "SA"]:
                lowered = [("MSS", 1360) if name == "MSS" else (name, value) for name, value in options]
                tcp = dict(sport=40000, dport=443, seq=0x01020304, flags=flags, window=64240)
                record("size", Size=1360, Packet=head / TCP(options=options, **tcp), Lowered=head / TCP(options=lowered, **tcp))


print("# Made by sizes.py with scapy 2.8.0.\n")
fragments()
errors()
too_big()
sizes()
