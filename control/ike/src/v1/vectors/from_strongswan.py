#!/usr/bin/env python3
"""Makes strongswan.txt of a log of strongSwan as responder (level 4), in which main mode and one quick mode have been.

    from_strongswan.py charon.log "the shared key" > strongswan.txt
"""
import re, sys

NAMES = {
    "shared Diffie Hellman secret": "g^xy",
    "SKEYID": "skeyid",
    "SKEYID_d": "skeyid_d",
    "SKEYID_a": "skeyid_a",
    "SKEYID_e": "skeyid_e",
    "encryption key Ka": "ka",
    "initial IV": "iv",
    "HASH_I": "hash_i",
    "HASH_R": "hash_r",
    "DH secret": "qm_g^xy",
    "encryption initiator key": "encryption_i",
    "encryption responder key": "encryption_r",
    "integrity initiator key": "integrity_i",
    "integrity responder key": "integrity_r",
}
found, packets, octets, left = {}, [], None, 0
for line in open(sys.argv[1], errors="replace"):
    text = re.sub(r"^.{15}(\.\d+)? \d+\[(\w+)\] ?", r"\2 ", line.rstrip("\n"))
    head = re.match(r"(\w+) +(.*?) => (\d+) bytes", text)
    rest = re.match(r"\w+ +\d+: ((?:[0-9A-F]{2} )*[0-9A-F]{2})", text)
    if head:
        group, name, left = head[1], head[2], int(head[3])
        octets = []
        if name in ("received packet", "generated data of this generator"):
            packets.append(octets)
        elif name in NAMES and group in ("IKE", "CHD"):
            found.setdefault(NAMES[name], octets)
    elif rest and octets is not None and left > 0:
        line = rest[1].split()[:left]
        octets += line
        left -= len(line)
print("# Main mode and quick mode of strongSwan, as from_strongswan.py has them of its log.")
print("psk = %s" % sys.argv[2].encode().hex())
for name, value in found.items():
    print("%s = %s" % (name, "".join(value).lower()))
messages = ["".join(packet).lower() for packet in packets]
messages = [m[8:] if m.startswith("00000000") else m for m in messages]
# What it has generated has no length yet.
of_all = [m[:48] + "%08x" % (len(m) // 2) + m[56:] for m in messages if m.startswith(messages[0][:16])]
for n, message in enumerate(of_all[:9]):
    print("message_%d = %s" % (n + 1, message))
