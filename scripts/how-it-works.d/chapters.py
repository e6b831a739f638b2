"""Which packets of which run are shown where in docs/how-it-works.md, and what of each."""

import re

from lab import Failed
from picture import Layout, Sequence
from wire import shown

# Of IKEv1 what old peers have.
V1 = dict(version=1, ike="aes256-sha256-modp2048", esp="aes256-sha256-modp2048")
RUNS = {
    "v2": (dict(), "all"),
    "v1": (V1, "all"),
    "udp": (dict(more="encap = yes"), "begin"),
    "eap": (dict(eap=True), "begin"),
    "xauth": (dict(V1, xauth=True), "up"),
    "aggressive": (dict(V1, more="aggressive = yes\n aggressive_psk_can_be_guessed_offline = yes"), "begin"),
}
ENDS = ("initiator", "10.99.0.1"), ("responder", "10.99.0.2")

# What is shown of -V.
PAYLOAD = r"Payload: (?!Proposal|Transform|Encrypted and)"
# Without what each peer says anyway.
PART = r"Payload: (?!Proposal|Transform|Vendor|NAT-D)"
CHOSEN = r"Transform ID|Transform Attribute.*Key Length|(IKE|IPsec) Attribute(?!.*Life-Type)"
DATA = r"Key Exchange Data|Nonce DATA|Authentication Data|Authentication Method: Shared"
WHO = r"ID_FQDN|Identification Data:\d|(Starting|Ending) Addr"
SPI = r"SPI: |Delete SPI"
OF = r"(Initiator|Responder) SPI"
SEALED = r"Encrypted Data"
TOLD = r"Notify Message Type"
ESP = r"Internet Protocol|ESP (SPI|Sequence|IV|Enc|ICV|Pad)|Next header"
NOTHING = r"(?!)"


def any_of(*patterns):
    return "|".join(patterns)


ALL = any_of(PAYLOAD, CHOSEN, DATA, WHO, SPI, SEALED)
SHORT = any_of(PAYLOAD, SEALED)


def is_about_life(packet):
    """One end asks whether the other lives, or is answered."""
    names = " ".join(name for name, _ in packet.payloads()) if packet.is_ike else ""
    return "R-U-THERE" in names or packet.exchange == "INFORMATIONAL" and "D(" not in names and "DETECTION" in names


def of(told, run, step, exchange=None, count=None):
    """The packets of a step, of an exchange, of which there must be so many."""
    found = [p for p in told.steps[run][step] if (step in ("alive", "silence")) == is_about_life(p)]
    found = [p for p in found if exchange is None or p.exchange == exchange]
    # It may be asked more than once.
    found = {"alive": found[:2], "silence": found[-3:]}.get(step, found)
    if count is not None and len(found) != count:
        raise Failed("%s, %s: %d packets, and there should be %d:\n%s" % (
            run, step, len(found), count, "\n".join(p.summary for p in found)))
    return found


def texts(told, run, packets, *keeps):
    return [line for packet, keep in zip(packets, keeps, strict=True) for line in shown(packet, told.names[run], keep)]


def echoes(told, run):
    """A ping that was answered."""
    packets = [p for p in told.steps[run]["packets"] if "Echo (ping)" in p.summary]
    return [next(p for p in packets if what in p.summary) for what in ("request", "reply")]


def block(run, step, exchange, *keeps):
    """Of a run's step so many messages, of each some of it."""
    return lambda told: texts(told, run, of(told, run, step, exchange, len(keeps)), *keeps)


BLOCKS = {
    "ikev2-sa-init": block("v2", "begin", "IKE_SA_INIT", any_of(OF, ALL), r"Responder SPI"),
    "ikev2-auth": block("v2", "begin", "IKE_AUTH", ALL, any_of(SEALED, "ID_FQDN", SPI)),
    "ikev2-eap": block("eap", "begin", "IKE_AUTH", *[NOTHING] * 10),
    "esp": lambda told: texts(told, "v2", echoes(told, "v2"), ESP, r"ESP (SPI|Sequence)"),
    "ikev2-rekey-child": block("v2", "rekey child", None, any_of(SHORT, CHOSEN, SPI), *[SPI] * 3),
    "ikev2-rekey-ike": block("v2", "rekey ike", None, any_of(OF, PAYLOAD, SPI), SPI, any_of(PAYLOAD, r"Protocol ID"), NOTHING),
    "ikev2-alive": block("v2", "alive", None, SHORT, NOTHING),
    "ikev2-end": block("v2", "end", None, any_of(SHORT, r"Protocol ID"), SEALED),
    "ikev2-silence": lambda told: [re.sub(r"MID=\d+", "MID=<number>", line) for line in block("v2", "silence", None, *[NOTHING] * 3)(told)],
    "ikev1-main": block("v1", "begin", "Main mode", any_of(OF, ALL), r"Responder SPI", any_of(PAYLOAD, DATA), NOTHING,
                        any_of(SHORT, DATA, WHO, TOLD), any_of(SHORT, WHO)),
    "ikev1-aggressive": block("aggressive", "begin", "Aggressive mode", *[any_of(PART, DATA, WHO, "Hash DATA", SEALED)] * 3),
    "ikev1-xauth": block("xauth", "begin", "Transaction", *["Type: ISAKMP_CFG|Config Attribute"] * 6),
    "ikev1-quick": block("v1", "begin", "Quick mode", ALL, SPI, PAYLOAD),
    "ikev1-rekey-child": block("v1", "rekey child", None, *[SPI] * 2, NOTHING, any_of(PAYLOAD, SPI)),
    "ikev1-rekey-ike": block("v1", "rekey ike", None, *[OF] * 2, *[NOTHING] * 4),
    "ikev1-alive": block("v1", "alive", None, *[any_of(TOLD, "DPD")] * 2),
    "ikev1-end": block("v1", "end", None, *[any_of(PAYLOAD, SPI)] * 2),
    "udp": lambda told: texts(told, "udp", echoes(told, "udp")[:1], r"Internet Protocol|User Datagram|UDP Encap|ESP (SPI|Seq)"),
}


class Story:
    """A picture in the making."""

    def __init__(self, told, run, title, legend="the header of IKE, in front of all, is in clear"):
        self.told, self.run = told, run
        self.sequence = Sequence(title, ENDS, legend)

    def exchange(self, packets):
        """Messages of an exchange; their payloads have the names of the RFCs."""
        begins = packets[0].src
        for number, packet in enumerate(packets, 1):
            self.sequence.packet(packet.src == "10.99.0.1", *self.words(packet, number), self.chips(packet, number, begins))
        return self

    def words(self, packet, number):
        name = packet.exchange
        if not packet.value("Version").startswith("1"):
            name += " response" if packet.is_response else " request"
        elif "mode" in name:
            name += ", %d" % number
        return name, "UDP port %d, %d octets of IP" % (packet.port, packet.octets)

    def chips(self, packet, number, begins):
        is_v1, side = packet.value("Version").startswith("1"), "i" if packet.src == begins else "r"
        role, ids = ("I", "R")[side == "r"], iter(("IDci", "IDcr") if packet.exchange == "Quick mode" else ("IDi" + side,) * 2)
        def name(chip):
            if chip == "N":
                return "N" + side
            if chip == "ID":
                return next(ids)
            if chip == "HASH":
                return {"Quick mode": "HASH(%d)" % number, "Informational": "HASH(1)", "Transaction": "HASH"}.get(packet.exchange, "HASH_" + role)
            return chip
        mask = self.told.names[self.run].mask
        chips = [(mask(name(chip) if is_v1 or chip == "N" else chip), sealed) for chip, sealed in packet.payloads()]
        return chips or [("nothing", True)]

    def note(self, *texts):
        self.sequence.note(*texts)
        return self

    def esp(self, packet):
        """A packet by ESP."""
        names = self.told.names[self.run]
        inner = packet.summary.split(" ICMP ")[1].split(" ", 1)[1].split("  ")[0]
        chips = [("SPI " + names.mask("0x" + packet.value("ESP SPI")[2:]), False), ("number " + packet.value("ESP Sequence"), False),
                 ("IP " + packet.summary.split(" ICMP")[0], True), ("ICMP " + inner, True)]
        self.sequence.packet(packet.src == "10.99.0.1", "ESP", "IP protocol 50, %d octets of IP" % packet.octets, chips)
        return self

    def draw(self):
        return self.sequence.draw()


def ikev2_begin(told):
    story = Story(told, "v2", "IKEv2: IKE_SA_INIT and IKE_AUTH")
    story.exchange(of(told, "v2", "begin", "IKE_SA_INIT", 2))
    story.note("Both compute the same secret of the two KE payloads, and from it, Ni, Nr and the SPIs all keys.",
               "Neither knows yet who the other one is.")
    story.exchange(of(told, "v2", "begin", "IKE_AUTH", 2))
    story.note("Both have proven who they are. The IKE SA is established, and the first child SA is there.")
    return story.draw()


def ikev2_eap(told):
    packets = of(told, "eap", "begin", "IKE_AUTH", 10)
    story = Story(told, "eap", "IKEv2: IKE_AUTH with EAP")
    story.exchange(packets[:2]).note("The responder has proven who it is. The initiator has only said so.")
    story.exchange(packets[2:8]).note("Both have the key that EAP has made.")
    story.exchange(packets[8:]).note("Both have proven that they have it. The IKE SA is established.")
    return story.draw()


def esp(told):
    story = Story(told, "v2", "Packets in ESP", "the two parts in clear are authenticated, too")
    for packet in echoes(told, "v2"):
        story.esp(packet)
    return story.draw()


def ikev2_rekeys(told):
    packets = of(told, "v2", "rekey child", None, 4)
    story = Story(told, "v2", "IKEv2: a child SA is rekeyed, and an IKE SA")
    story.exchange(packets[:2]).note("Another child SA for the same, of another Diffie-Hellman. Packets go by it from now on.")
    story.exchange(packets[2:]).note("The old one is gone.")
    packets = of(told, "v2", "rekey ike", None, 4)
    story.exchange(packets[:2]).note("Another IKE SA, of another Diffie-Hellman. It has the child SAs of the old one.")
    story.exchange(packets[2:]).note("The old one is gone.")
    return story.draw()


def ikev2_end(told):
    story = Story(told, "v2", "IKEv2: liveness, and the end")
    story.exchange(of(told, "v2", "alive", None, 2)).note("The peer is there.")
    story.exchange(of(told, "v2", "end", None, 2)).note("The IKE SA and all its child SAs are gone, at both ends.")
    return story.draw()


def ikev1_main(told):
    packets = of(told, "v1", "begin", "Main mode", 6)
    story = Story(told, "v1", "IKEv1: main mode")
    sequence = lambda at: [story.sequence.packet(p.src == "10.99.0.1", *story.words(p, n), story.chips(p, n, "10.99.0.1"))
                           for n, p in list(enumerate(packets, 1))[at:at + 2]]
    sequence(0)
    story.note("Agreed: AES-CBC, SHA2-256, group 14, a shared key.")
    sequence(2)
    story.note("Both compute g^xy, and SKEYID_d, SKEYID_a and SKEYID_e, with the shared key and Ni and Nr in them.")
    sequence(4)
    story.note("Both have proven who they are. The ISAKMP SA is established; there is no child SA yet.")
    return story.draw()


def ikev1_aggressive(told):
    packets = of(told, "aggressive", "begin", "Aggressive mode", 3)
    story = Story(told, "aggressive", "IKEv1: aggressive mode")
    begin = lambda at, end: [story.sequence.packet(p.src == "10.99.0.1", *story.words(p, n), story.chips(p, n, "10.99.0.1"))
                             for n, p in list(enumerate(packets, 1))[at:end]]
    begin(0, 2)
    story.note("HASH_R is made of the shared key, and of what is in clear here:", "whoever reads it can try keys until one makes the same.")
    begin(2, 3)
    story.note("Both have proven who they are. The ISAKMP SA is established.")
    return story.draw()


def ikev1_xauth(told):
    packets = of(told, "xauth", "begin", "Transaction", 6)
    story = Story(told, "xauth", "IKEv1: XAuth and mode config")
    for at, note in ((0, ""), (2, "The user has proven who it is."), (4, "The user has an address. Quick mode is for that.")):
        story.exchange(packets[at:at + 2])
        if note:
            story.note(note)
    return story.draw()


def ikev1_quick(told):
    story = Story(told, "v1", "IKEv1: quick mode")
    story.exchange(of(told, "v1", "begin", "Quick mode", 3))
    story.note("The child SA is there: keys from SKEYID_d, a Diffie-Hellman of its own, Ni, Nr and the SPIs.")
    return story.draw()


def ikev1_end(told):
    story = Story(told, "v1", "IKEv1: DPD, and the end")
    story.exchange(of(told, "v1", "alive", None, 2)).note("The peer is there.")
    story.exchange(of(told, "v1", "end", None, 2)).note("Both SAs are gone here. Nobody answers: whether they are there is not known.")
    return story.draw()


def layout(told):
    """By a ping's sizes."""
    plain, udp = echoes(told, "v2")[0], echoes(told, "udp")[0]
    whole = int(plain.value("ESP Contained Data").rsplit("(", 1)[1].split()[0])
    padded = int(plain.value("ESP Decrypted Data").rsplit("(", 1)[1].split()[0])
    iv, icv = (int(plain.value("ESP " + what).split("(")[1].split()[0]) for what in ("IV", "ICV"))
    if plain.octets != 20 + 8 + iv + padded + icv or udp.octets != plain.octets + 8:
        raise Failed("ESP's parts are not as long as the packet")
    picture = Layout("Packets in ESP, field by field")
    picture.row("The packet", "%d octets of IP" % whole, [("IP", "20", 90, "clear"), ("ICMP", str(whole - 20), 170, "clear")])
    body = [("SPI", "4", 52, "clear"), ("number", "4", 66, "clear"), ("IV", str(iv), 50, "clear")]
    tail = [("padding", "%d + 1" % (padded - whole - 2), 80, "sealed"), ("next", "1", 50, "sealed"), ("ICV", str(icv), 70, "clear")]
    inner = [("IP", "20", 80, "sealed"), ("ICMP", str(whole - 20), 150, "sealed")]
    ip, wrap = ("outer IP", "20", 90, "clear"), ("UDP 4500", "8", 80, "clear")
    picture.row("In tunnel mode", "%d octets of IP" % plain.octets, [ip, *body, *inner, *tail],
                [("encrypted", 4, 8), ("authenticated: the ICV is over all of this", 1, 8)])
    picture.row("In tunnel mode, in UDP through a NAT", "%d octets of IP" % udp.octets, [ip, wrap, *body, *inner, *tail])
    picture.row("In transport mode", "the IP header is the packet's own: %d octets of IP" % (plain.octets - 20),
                [("IP", "20", 80, "clear"), *body, inner[1], *tail], [("encrypted", 4, 7), ("authenticated", 1, 7)])
    return picture.draw()


PICTURES = {
    "ikev2-begin": ikev2_begin, "ikev2-eap": ikev2_eap, "esp": esp, "esp-packet": layout, "ikev2-rekey": ikev2_rekeys, "ikev2-end": ikev2_end,
    "ikev1-main": ikev1_main, "ikev1-aggressive": ikev1_aggressive,
    "ikev1-xauth": ikev1_xauth, "ikev1-quick": ikev1_quick, "ikev1-end": ikev1_end,
}
