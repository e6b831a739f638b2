"""A capture as tshark prints it, decrypted; what is another number in each run has a name in its place."""

import os, re, subprocess

SHARK = ["tshark", "-n", "-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"]
# RFC 7296 §3.2, RFC 2409 §3.2
SHORT = {
    "Security Association": "SA", "Key Exchange": "KE", "Nonce": "N", "Identification - Initiator": "IDi",
    "Identification - Responder": "IDr", "Authentication": "AUTH", "Traffic Selector - Initiator": "TSi",
    "Traffic Selector - Responder": "TSr", "Delete": "D", "Notify": "N", "Notification": "N", "Vendor ID": "VID",
    "NAT-D": "NAT-D", "Identification": "ID", "Hash": "HASH", "Certificate": "CERT", "Certificate Request": "CERTREQ",
    "Signature": "SIG", "Attributes": "ATTR", "Extensible Authentication": "EAP",
}
PARTS = "Proposal", "Transform", "Encrypted and Authenticated"


class Packet:
    """A frame: tshark's line of it, and below it what -V says of ISAKMP, ESP and what is inside."""

    def __init__(self, summary, detail, epoch):
        self.summary, self.lines, self.epoch = summary, detail, epoch
        found = re.search(r"Src: ([\d.]+), Dst: ([\d.]+)", "\n".join(detail))
        self.src, self.dst = found.groups()
        ports = re.search(r"Src Port: (\d+), Dst Port: (\d+)", "\n".join(detail))
        self.port = int(ports[2]) if ports else None
        self.octets = int(re.search(r"(\d+) bytes on wire", detail[0])[1]) - 14

    @property
    def is_ike(self):
        return any(line.startswith("Internet Security Association") for line in self.lines)

    def value(self, name):
        """What stands behind `name:`."""
        found = re.search(r"^ *%s: ?(.*)" % re.escape(name), "\n".join(self.lines), re.M)
        return found and found[1]

    @property
    def exchange(self):
        if not self.is_ike:
            return None
        name = self.value("Exchange type").rsplit(" (", 1)[0]
        names = {"Identity Protection (Main Mode)": "Main mode", "Aggressive": "Aggressive mode", "Quick Mode": "Quick mode",
                 "Transaction (Config Mode)": "Transaction"}
        return names.get(name, name)

    @property
    def is_response(self):
        """Of IKEv2."""
        return "Response)" in self.value("Flags")

    def payloads(self):
        """Payloads by their short names, and whether each is encrypted."""
        found, sealed = [], None
        for at, line in enumerate(self.lines):
            indent = len(line) - len(line.lstrip())
            if line.strip().startswith(("Encrypted Data", "Decrypted Data")):
                sealed = indent
            payload = re.match(r" *Payload: ([\w -]+?)(?: \(RFC \d+\))? \(\d+\)(?: # \d+)?(?: [-:] (.*))?$", line)
            if payload and payload[1] not in PARTS:
                found.append((self.name(payload[1], payload[2], at), sealed is not None and indent > sealed))
        return found

    def name(self, kind, more, at):
        short = SHORT[kind]
        if kind == "Notification":
            more = next(line.split(": ")[1].split(" (")[0] for line in self.lines[at:] if "Notify Message Type" in line)
        if kind == "Vendor ID":
            more = re.sub(r"\\n|RFC 3947 .*", lambda of: "NAT-T, RFC 3947" if of[0][0] == "R" else "", more)
            more = more.replace("draft-ietf-ipsec-nat-t-ike", "NAT-T draft").replace("RFC 3706 DPD (Dead Peer Detection)", "DPD, RFC 3706")
        if kind == "Delete":
            of = next(line.split(": ")[1].split(" (")[0] for line in self.lines[at:] if "Protocol ID" in line)
            more = {"ISAKMP": "ISAKMP SA", "IKE": "IKE SA"}.get(of) or "ESP " + self.spi(at, "Delete SPI")
        if more == "REKEY_SA":
            more += " " + self.spi(at, "SPI")
        if kind == "Attributes":
            said = [re.match(r" *(?:Type: ISAKMP_CFG_|Config Attribute .*?: )(\w+)", line) for line in self.lines[at:]]
            more = ", ".join(found[1] for found in said if found)
        if kind == "Extensible Authentication":
            following = self.lines[at + 1:]
            end = next((n for n, line in enumerate(following) if line.strip().startswith("Payload: ")), None)
            said = dict(line.strip().split(" (")[0].split(": ", 1) for line in following[:end] if ": " in line)
            of = said.get("EAP-MS-CHAP-v2 OpCode")
            more = ", ".join(filter(None, (said["Code"], "MS-CHAP-v2 " + of if of else said.get("Type"))))
        return "%s(%s)" % (short, more) if more else short


    def spi(self, at, name):
        """Of the payload at this line."""
        return next(line.split(": ")[1] for line in self.lines[at:] if line.strip().startswith(name + ": "))


def shark(capture, keys, *options):
    env = dict(os.environ, WIRESHARK_CONFIG_DIR=keys)
    return subprocess.run([*SHARK, "-r", capture, *options], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          check=True, timeout=120).stdout


def read(capture, keys):
    """All packets, in order."""
    fields = ("frame.time_epoch", "_ws.col.Source", "_ws.col.Destination", "_ws.col.Protocol", "frame.len", "_ws.col.Info")
    heads = shark(capture, keys, "-T", "fields", "-E", "separator=\t", *(part for field in fields for part in ("-e", field)))
    details = shark(capture, keys, "-V", "-O", "isakmp,esp,icmp,eap").split("\n\nFrame ")
    # Of what is inside there are bytes, which are no frames.
    packets = []
    for head, detail in zip(heads.splitlines(), details):
        epoch, src, dst, protocol, octets, info = head.split("\t")
        lines = ("" if detail.startswith("Frame") else "Frame ") + detail
        packets.append(Packet("%s → %s %s %s %s" % (src, dst, protocol, octets, info), lines.splitlines(), float(epoch)))
    if len(packets) != len(heads.splitlines()):
        raise ValueError("tshark prints %d packets, and %d at length" % (len(heads.splitlines()), len(packets)))
    return packets


class Names:
    """Of SPIs: `i1` and `r1` are of the first IKE SA, `a1` is by what the first gateway receives ESP, `b1` the second."""

    def __init__(self, packets, first):
        self.names, self.counts = {}, {}
        for packet in packets:
            for side in ("Initiator", "Responder"):
                self.add(packet.value(side + " SPI"), side[0].lower())
            offers = re.findall(r"^ *SPI: ([0-9a-f]{8,16})$", "\n".join(packet.lines), re.M)
            of = packet.src == first
            for spi in offers:
                # That of an IKE SA in its own place is of its header from then on.
                self.add(spi, ("a" if of else "b") if len(spi) == 8 else "i" if of else "r")

    def add(self, spi, kind):
        if spi and spi.strip("0") and spi not in self.names:
            self.counts[kind] = self.counts.get(kind, 0) + 1
            self.names[spi] = "<%s%d>" % (kind, self.counts[kind])

    def mask(self, text):
        def data(found):
            word = found[0]
            if word in self.names:
                return self.names[word]
            if word[:16] in self.names and word[16:] in self.names:
                return self.names[word[:16]] + self.names[word[16:]]
            # IVs count.
            if word.strip("0") in ("", "1", "2") or len(word) < 16:
                return word
            return "<%d octets>" % (len(word) // 2) if word.isalnum() else "<...>"
        text = re.sub(r"\b0x([0-9a-f]{8}) \(\d+\)", lambda found: self.names.get(found[1], found[0]), text)
        text = re.sub(r"\b[0-9a-f]{8,}\b…?", data, text)
        text = re.sub(r"sequence: \d+", "sequence: <number>", text)
        text = re.sub(r" +\(request in \d+\)| +\(reply in \d+\)", "", text)
        return re.sub(r"id=0x[0-9a-f]+", "id=<id>", text)


def shown(packet, names, keep):
    """Lines for the document: the one of the list, and those of all that `keep` finds."""
    found, above = [names.mask(re.sub(r"  +", " ", packet.summary))], []
    for line in packet.lines[1:]:
        text = line.strip()
        if keep and re.match(keep, text):
            indent = len(line) - len(line.lstrip())
            above = [i for i in above if i < indent] + [indent]
            found.append("  " * len(above) + names.mask(text).replace("\\n", ""))
    return found
