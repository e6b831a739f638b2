"""IKE's messages in fragments, with strongSwan: what the claims of both versions show of it.

Each end has an end's certificate and those of five authorities below a root, and the other end has that root alone. The
wire between them counts what goes by: fragments of IKE's messages, what IP has cut, and what is longer than IKE's packets
may be."""
import os, ssl, subprocess, tempfile, time

from lab import WIRE, Cases, Failed, Lab, wait_for
from swan import IDS, Pair

CHAIN_OCTETS = 16_000
AUTHORITIES, NAMES = 5, 40
# What either end makes of its own of a packet of IKE, at most: strongSwan's default, too.
PACKET = 1280
# The first payload of each version's fragments.
FIRST = {1: 132, 2: 53}
IKE = {1: "aes128-sha256-x25519", 2: "aes128gcm16-prfsha256-x25519"}
# The octets of UDP: behind the non-ESP marker and the SPIs is the first payload; that all of it is IKE, of port 4500, the marker
# says.
RULES = """
table bridge t {
  chain forward { type filter hook forward priority 0; policy accept;
    ether type ip ip frag-off & 0x3fff != 0 counter comment "cut"
    ether type ip6 exthdr frag exists counter comment "cut"
    udp dport != { 500, 4500 } accept
    udp dport 4500 @th,64,32 != 0 accept
    ether type ip ip length > %(packet)d counter comment "long"
    ether type ip6 ip6 length > %(payload)d counter comment "long"
    iifname g1 udp dport 4500 @th,224,8 %(first)d counter comment "by us"
    iifname g2 udp dport 4500 @th,224,8 %(first)d counter comment "by strongSwan"
    %(lose)s
  }
}
"""
# strongSwan takes no message longer than 10,000 octets unless it is told to.
SETTINGS = "charon {\n max_packet = 30000\n retransmit_tries = 12\n retransmit_timeout = 1.0\n retransmit_base = 1.2\n}\n"
MACHINE = "\n[ike]\nretransmit_timeout_ms = 1000\nretransmit_base = 1.2\nretransmit_tries = 12\n"
# Of so many packets one is lost. A message of IKEv1 has 15 parts here: of five packets it would be the same parts each time.
PERIOD = {1: 7, 2: 5}
LOSE = "numgen inc mod %d == 4 counter drop comment \"lost\""


def pki(*arguments):
    return subprocess.run(["pki", *arguments, "--outform", "pem"], stdout=subprocess.PIPE, text=True, check=True, stderr=subprocess.DEVNULL).stdout


def put(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        os.chmod(f.fileno(), 0o600)
        f.write(text)


def der_octets(path):
    with open(path) as f:
        return len(ssl.PEM_cert_to_DER_cert(f.read()))


class Chain:
    """A root, authorities one below the other, and an end, all with many names."""

    def __init__(self, directory, name):
        self.dir, self.octets = directory, 0
        subject = "C=XX, O=test, CN=root of %s" % name
        put(directory + "/root.key", pki("--gen", "--type", "rsa", "--size", "2048"))
        put(directory + "/root.pem", pki("--self", "--ca", "--in", directory + "/root.key", "--type", "rsa", "--dn", subject))
        above = "root"
        for n in range(AUTHORITIES):
            self.issue(above, "authority%d" % n, "C=XX, O=test, CN=authority %d of %s" % (n, name), "--ca")
            above = "authority%d" % n
        self.issue(above, "end", "C=XX, O=test, CN=" + name, "--san", name, "--flag", "serverAuth")

    def issue(self, above, name, subject, *more):
        path = "%s/%s" % (self.dir, name)
        put(path + ".key", pki("--gen", "--type", "rsa", "--size", "2048"))
        for n in range(NAMES):
            more += ("--san", "name-%d-of-%s.of-many-names.example.org" % (n, name))
        put(path + ".pem", pki("--issue", "--cacert", "%s/%s.pem" % (self.dir, above), "--cakey", "%s/%s.key" % (self.dir, above),
                               "--in", path + ".key", "--type", "rsa", "--dn", subject, *more))
        self.octets += der_octets(path + ".pem")


class Chained(Pair):
    """Each end with its own chain."""

    def __init__(self, version, chains, outer, mtu):
        self.chains = chains
        ends = [dict(version=version, ike=IKE[version], local=WIRE[n][outer], remote=WIRE[3 - n][outer], auth="pubkey") for n in (1, 2)]
        super().__init__(*ends, Lab("up", "--tap", "--wire-mtu", str(mtu)), SETTINGS, machine=MACHINE)

    def make_certificates(self):
        for n, to in ((1, self.gateway.dir), (2, self.lab.dir + "/swan")):
            mine, other = self.chains[n], self.chains[3 - n]
            for path, source in [("x509/end.pem", mine.dir + "/end.pem"), ("private/end.pem", mine.dir + "/end.key"),
                                 ("x509ca/root.pem", other.dir + "/root.pem")] \
                    + [("x509ca/authority%d.pem" % k, "%s/authority%d.pem" % (mine.dir, k)) for k in range(AUTHORITIES)]:
                with open(source) as f:
                    put("%s/%s" % (to, path), f.read())


def begin(pair, by):
    if by == "us":
        pair.gateway.portcullis("up", "net")
    else:
        pair.swan.ask("initiate", "net", "50")
    # Both ask again after 1, 1.2, 1.4 and more seconds, 12 times.
    wait_for("a child SA", lambda: pair.children(), 60)
    pair.wait_up()


def case(version, chains, by, outer, mtu, loses):
    with Chained(version, chains, outer, mtu) as pair:
        rules = RULES % dict(packet=PACKET, payload=PACKET - 40, first=FIRST[version], lose=LOSE % PERIOD[version] if loses else "")
        pair.lab.run("w", "nft", "-f", "-", input=rules)
        start = time.monotonic()
        begin(pair, by)
        seconds, counts = time.monotonic() - start, pair.lab.counted("w")
        fewest = CHAIN_OCTETS // PACKET
        if min(counts["by us"], counts["by strongSwan"]) < fewest or counts["cut"] or counts["long"] or loses and not counts["lost"]:
            raise Failed("%s" % counts)
        return "%d fragments by us and %d by strongSwan, %s0 cut by IP, %.1f s" % (
            counts["by us"], counts["by strongSwan"], "%d lost, " % counts["lost"] if loses else "", seconds)


def show(version):
    """Shows all of it, and ends the program."""
    cases = Cases()
    with tempfile.TemporaryDirectory(prefix="portcullis-prove.") as directory:
        chains = {n: Chain("%s/%d" % (directory, n), IDS[n]) for n in (1, 2)}
        octets = [chain.octets for chain in chains.values()]
        if min(octets) < CHAIN_OCTETS:
            raise SystemExit("FAIL the chains have %d and %d octets" % tuple(octets))
        for outer in (4, 6):
            for by, who in (("us", "we begin"), ("them", "strongSwan begins")):
                for mtu, loses in ((1500, False), (1280, False), (1280, True)):
                    name = "%s, IPv%d, a link of %d octets%s" % (who, outer, mtu, ", one of %d packets lost" % PERIOD[version] if loses else "")
                    cases.run(name, case, version, chains, by, outer, mtu, loses)
    cases.exit("chains of %d and %d octets in fragments of IKEv%d, both ways, with strongSwan" % (*octets, version))
