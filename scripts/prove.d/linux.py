"""Ours and strongSwan with Linux's own ESP and AH, in a VM: what the claims of both versions of IKE show with them.

h1 -- g1 (ours) -- wire -- VM (Linux): the addresses behind the VM are on its loopback device. The wire counts what goes by.

In transport mode an SA is between the gateway itself and the VM. The gateway's own packets come to the datapath by a device
that a rule of the kernel's routing leads to; what comes out of the SA is not given to the kernel, since the datapath does not
know of that rule and must not let an answer out in clear. So both ends' counters say there what went through."""
import itertools, os, re, sys

from lab import H1, H2, PEERS, WIRE, Cases, Failed, Gateway, Lab, Scene, output, wait_for
from swan import IDS, NETS, Vici, connection

NETS6 = {1: "fd99:1::/64", 2: "fd99:2::/64"}
WAYS = {"us": "we begin", "them": "strongSwan begins"}
IKE = {1: "aes128-sha256-x25519", 2: "aes128gcm16-prfsha256-x25519"}
RULES = """
table bridge t {
  chain forward { type filter hook forward priority 0; policy accept;
    ether type ip ip protocol esp counter comment "esp"
    ether type ip6 ip6 nexthdr esp counter comment "esp"
    ether type ip ip protocol ah counter comment "ah"
    ether type ip6 ip6 nexthdr ah counter comment "ah"
    udp dport 4500 @th,64,32 != 0 counter comment "in UDP"
    icmp type { echo-request, echo-reply } counter comment "clear"
    icmpv6 type { echo-request, echo-reply } counter comment "clear"
  }
}
"""
PINGS = 20


class Swan:
    """strongSwan in a VM, in the place of the second gateway and of the host behind it. Each of its tools takes seconds there, so
    its VICI socket is led out, by a network that the gateway is not in."""

    CONTROL = {1: "10.97.0.1", 2: "10.97.0.2"}
    RELAY = """
use IO::Socket::INET; use IO::Socket::UNIX; use IO::Select;
my $at = IO::Socket::INET->new(LocalAddr => "%s", LocalPort => 4502, Listen => 4, ReuseAddr => 1) or die;
while (my $one = $at->accept) {
  next if fork;
  my $other = IO::Socket::UNIX->new("/run/charon.vici") or die;
  my $both = IO::Select->new($one, $other);
  while (1) { for my $from ($both->can_read) {
    sysread($from, my $octets, 65536) or exit;
    my $to = $from == $one ? $other : $one;
    syswrite($to, $octets);
  } }
}""" % CONTROL[2]

    def __init__(self, lab, text):
        self.lab, self.dir = lab, lab.dir + "/swan"
        addresses = " ".join("%s/%d" % (a, 24 if f == 4 else 64) for f, a in WIRE[2].items())
        self.env = dict(os.environ, VM_NAME=lab.name, VM_NETNS=lab.name + "-w", VM_BRIDGE="br0", VM_TTL="1800", INNER=H2[4],
                        INNER6=H2[6], GW=WIRE[1][4], GW6=WIRE[1][6], VM_ADDR=addresses + " %s/24" % self.CONTROL[2])
        os.makedirs(self.dir)
        with open(self.dir + "/swanctl.conf", "w") as f:
            f.write(text)

    def ask(self, *arguments, **kw):
        return output(PEERS + "/kernel-vm/swan.sh", *arguments, env=self.env, **kw)

    def run(self, command):
        return self.ask("run", command)

    def up(self):
        output(PEERS + "/install.sh", "vm", timeout=600)
        self.lab.ends.callback(self.ask, "down")
        print(self.ask("up", self.dir, timeout=900).strip().splitlines()[0], flush=True)
        self.run("cat >/run/relay.pl <<'EOF'\n%s\nEOF\nsetsid perl /run/relay.pl </dev/null >/dev/null 2>&1 &" % self.RELAY)
        self.lab.run("w", "ip", "addr", "add", self.CONTROL[1] + "/24", "dev", "br0")
        self.path = self.lab.dir + "/vm.vici"
        self.lab.start("w", "socat", "UNIX-LISTEN:%s,fork" % self.path, "TCP:%s:4502" % self.CONTROL[2])
        wait_for("the socket is there", lambda: os.path.exists(self.path))

    def vici(self):
        """A client of the daemon, once the relay in the VM leads to it."""
        def answered():
            try:
                vici = Vici(self.path)
                vici.ask("version")
                return vici
            except (Failed, OSError):
                return None
        return wait_for("the VM's daemon answers", answered)


class Machines(Scene):
    """The lab, our gateway and the VM, with all connections at both ends: of a version of IKE, and for each mode what is proposed,
    and how both ends describe it."""

    def __init__(self, version, modes):
        self.version, self.modes, self.lab = version, modes, Lab("peer")

    def set_up(self):
        self.lab.conf()
        self.gateway = Gateway(self.lab, 1)
        os.remove(self.gateway.dir + "/connections.toml")
        with open(self.gateway.dir + "/swanctl.conf", "w") as f:
            os.chmod(f.fileno(), 0o600)
            f.write(self.conf(1))
        self.own_device()
        self.swan = Swan(self.lab, self.conf(2))
        self.swan.up()
        self.gateway.up()
        for family in (4, 6):
            self.lab.ping("g1", WIRE[2][family], count=1)
        self.know_neighbours()
        self.ends = {"us": Vici(self.gateway.dir + "/run/charon.vici"), "them": self.swan.vici()}

    def __exit__(self, *error):
        if os.environ.get("PROVE_VERBOSE"):
            print(self.swan.ask("log"))
        super().__exit__(*error)

    def own_device(self):
        """By which the gateway's own echo requests to the peer come to the datapath, once a rule leads there."""
        run = lambda *words: self.lab.run("g1", *words)
        run("ip", "link", "add", "own0", "mtu", "1400", "type", "veth", "peer", "name", "own0-path")
        for device in ("own0", "own0-path"):
            run("ethtool", "-K", device, "tx", "off", "tso", "off", "gso", "off", "gro", "off")
            run("ip", "link", "set", device, "arp", "off", "up")
        for family in (4, 6):
            run("ip", "-%d" % family, "route", "add", WIRE[2][family], "dev", "own0", "src", WIRE[1][family], "table", "77")
        with open(self.gateway.dir + "/portcullis.toml", "a") as f:
            f.write('\n[[port]]\ninterface = "own0-path"\n')

    def lead_own(self, what, family):
        self.lab.run("g1", "ip", "-%d" % family, "rule", what, "pref", "77", "to", WIRE[2][family],
                     "ipproto", "icmp" if family == 4 else "ipv6-icmp", "lookup", "77")

    def know_neighbours(self):
        """In transport mode, what asks for neighbours of IPv6 would have to be protected, too."""
        mac = lambda text: re.search(r"link/ether ([\da-f:]+)", text)[1]
        theirs, ours = mac(self.swan.run("ip link show eth0")), mac(self.lab.run("g1", "ip", "link", "show", "wan0"))
        self.lab.run("g1", "ip", "neigh", "replace", WIRE[2][6], "lladdr", theirs, "dev", "wan0", "nud", "permanent")
        self.swan.run("ip neigh replace %s lladdr %s dev eth0 nud permanent" % (WIRE[1][6], ours))

    def conf(self, n):
        """swanctl.conf of one end."""
        connections, secrets = "", ""
        for mode, all_of in self.modes.items():
            for (protocol, words, _), outer in itertools.product(all_of, (4, 6)):
                name = name_of(mode, protocol, words, outer)
                nets = lambda of: ", ".join((NETS[of], NETS6[of])[f == 6] for f in self.inner(outer))
                ts = {of: nets(of) if mode == "tunnel" else "dynamic" for of in (1, 2)}
                local_id, remote_id = ("%s.%s" % (name, IDS[of]) for of in (n, 3 - n))
                text = connection(n, version=self.version, local=WIRE[n][outer], remote=WIRE[3 - n][outer], local_id=local_id,
                                  remote_id=remote_id, ike=IKE[self.version], esp=words, local_ts=ts[n], remote_ts=ts[3 - n],
                                  more_of_child="mode = " + mode)
                for word, other in ((" peer {", " %s {" % name), (" net {", " %s {" % name), ("esp_prop", protocol + "_prop")):
                    text = text.replace(word, other)
                one, secrets = text.split("secrets {")
                connections += one
        return connections + "secrets {" + secrets

    def inner(self, outer):
        """The families that a tunnel takes: a child SA of IKEv1 is between two networks."""
        return (4, 6) if self.version == 2 else (outer,)

    def settled(self, name):
        """IKE SA and child SA as both ends describe them, ours first, once they have the same."""
        def same():
            found = []
            for vici in self.ends.values():
                sas = [sa for _, sa in vici.sas(ike=name)]
                children = [child for sa in sas for child in sa["child-sas"].values() if child["state"] == "INSTALLED"]
                if len(sas) != 1 or len(children) != 1 or len(sas[0]["child-sas"]) != 1:
                    return None
                found.append((sas[0], children[0]))
            (us, our), (them, their) = found
            is_same = us["initiator-spi"] == them["initiator-spi"] and (our["spi-in"], our["spi-out"]) == (their["spi-out"], their["spi-in"])
            return found if is_same else None
        return wait_for("both ends have the same SAs", same, 20)

    def rekeyed(self, name):
        """Either SA by either end."""
        for vici in self.ends.values():
            for what, at, key in (("child", 1, "spi-in"), ("ike", 0, "initiator-spi")):
                spi = lambda: self.settled(name)[0][at][key]
                before = spi()
                again = {"reauth": "yes"} if what == "ike" and self.version == 1 else {}
                vici.ask("rekey", **{what: name}, **again)
                wait_for("another %s SA" % what, lambda: spi() != before, 20)

    def deleted(self, name, by):
        self.ends[by].ask("terminate", ike=name, timeout=10000)
        for who, vici in self.ends.items():
            wait_for("no IKE SA: %s" % who, lambda: not vici.sas())
        left = self.swan.run("ip xfrm state")
        if left:
            raise Failed("there are SAs left: %s" % left)
        # What the peer deletes takes for a while what was on its way.
        wait_for("no SA of ours", lambda: self.gateway.status()["iked"]["sas"] == 0)

    def check_wire(self, protocol, fewest):
        """What was on the wire by the comments of rules."""
        found = self.lab.counted("w")
        if found[protocol] < fewest or any(found[of] for of in found if of != protocol):
            raise Failed("on the wire were %s" % found)
        return "%d packets of %s on the wire, none in UDP or in clear" % (found[protocol], protocol.upper())


def name_of(mode, protocol, words, outer):
    return "-".join((mode, protocol, words.split("-")[0], str(outer)))


def begin(m, name, by, mode, proposals):
    protocol, _, (algorithm, esn) = proposals
    m.lab.run("w", "nft", "-f", "-", input="flush ruleset\n" + RULES)
    m.ends[by].ask("initiate", child=name, ike=name, timeout=20000)
    wanted = {"mode": mode.upper(), "protocol": protocol.upper(), "encr-alg" if protocol == "esp" else "integ-alg": algorithm,
              "esn": "1" if esn else None, "encap": None}
    for who, (_, child) in zip(m.ends, m.settled(name)):
        wrong = {key: child.get(key) for key, value in wanted.items() if child.get(key) != value}
        if wrong:
            raise Failed("%s: %s" % (who, wrong))


def tunnel(m, name, outer, proposals, by):
    begin(m, name, by, "tunnel", proposals)
    inner = m.inner(outer)
    wait_for("packets go through", lambda: m.lab.is_reachable("h1", H2[inner[0]]))
    traffic(m, inner)
    m.rekeyed(name)
    traffic(m, inner)
    told = m.check_wire(proposals[0], 2 * 2 * len(inner) * 2 * PINGS)
    m.deleted(name, by)
    return told


def traffic(m, families):
    """Both ways, without one loss."""
    for family in families:
        m.lab.ping("h1", H2[family], count=PINGS)
    told = m.swan.run("; ".join("ping -n -q -c%d -i0.05 -W2 %s" % (PINGS, H1[family]) for family in families))
    if told.count(" 0% packet loss") != len(families):
        raise Failed("from the VM: " + told)


def transport(m, name, outer, proposals, by):
    begin(m, name, by, "transport", proposals)
    m.lead_own("add", outer)
    try:
        through(m, name, outer)
        m.rekeyed(name)
        through(m, name, outer)
    finally:
        m.lead_own("del", outer)
    told = m.check_wire(proposals[0], 2 * 2 * PINGS)
    m.deleted(name, by)
    return told


def through(m, name, outer):
    """The gateway's echo requests, and the VM's answers, by the counters of both ends."""
    counts = lambda: [int(child["packets-" + way]) for _, child in m.settled(name) for way in ("in", "out")]
    before = counts()
    m.lab.run("g1", "sh", "-c", "ping -n -q -c%d -i0.05 -W0.2 %s; true" % (PINGS, WIRE[2][outer]))
    try:
        wait_for("%d packets in and out at both ends" % PINGS, lambda: counts() == [n + PINGS for n in before])
    except Failed as x:
        raise Failed("%s: before %s, now %s" % (x, before, counts()))


def show(version, modes):
    """Shows all of it, and ends the program."""
    if not os.path.exists(PEERS + "/kernel-vm/swan.sh"):
        sys.exit("kernel-vm: no kit of the kernel VM at %s; PORTCULLIS_PEERS says where it is" % PEERS)
    cases = Cases()
    with Machines(version, modes) as m:
        for (by, who), (mode, all_of) in itertools.product(WAYS.items(), modes.items()):
            for proposals, outer in itertools.product(all_of, (4, 6)):
                name = name_of(mode, *proposals[:2], outer)
                title = "%s: %s, %s %s, IPv%d" % (who, mode, proposals[0].upper(), proposals[1], outer)
                cases.run(title, tunnel if mode == "tunnel" else transport, m, name, outer, proposals, by)
    cases.exit("SAs with Linux's ESP and AH by strongSwan's IKEv%d, rekeyed and deleted by each end" % version)
