"""strongSwan in one gateway's place and ours in the other's: what claims of IKE share."""

import os, re, socket, struct, subprocess, time

from lab import BIN, H1, H2, PEERS, WIRE, Failed, Gateway, Lab, Scene, output, wait_for

CONNECTION = """
connections {
  peer {
    version = %(version)s
    local_addrs = %(local)s
    remote_addrs = %(remote)s
    proposals = %(ike)s
    rekey_time = %(ike_rekey)s
    over_time = 60s
    rand_time = 0s
    %(more)s
    local { auth = %(auth)s
      id = %(local_id)s }
    remote { auth = %(auth)s
      id = %(remote_id)s }
    children {
      net {
        local_ts = %(local_ts)s
        remote_ts = %(remote_ts)s
        esp_proposals = %(esp)s
        rekey_time = %(rekey)s
        rand_time = 0s
        %(more_of_child)s
      }
    }
  }
}
secrets { ike-1 { secret = "%(secret)s" } %(more_secrets)s }
"""
NETS = {1: "10.99.1.0/24", 2: "10.99.2.0/24"}
IDS = {1: "one.example.org", 2: "two.example.org"}


def connection(n, **options):
    """swanctl.conf of one end: the connection `peer` with the child `net`."""
    other = 3 - n
    return CONNECTION % dict(
        dict(version=2, local=WIRE[n][4], remote=WIRE[other][4], local_id=IDS[n], remote_id=IDS[other], local_ts=NETS[n],
             remote_ts=NETS[other], ike="aes128gcm16-prfsha256-x25519", esp="aes128gcm16-x25519", rekey="0", ike_rekey="0",
             auth="psk", more="", more_of_child="", secret="a key of this lab alone", more_secrets=""), **options)


class Vici:
    """What VICI needs of a client, at either end."""

    def __init__(self, path, timeout=60):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)

    def ask(self, command, event=None, **values):
        """The answer to a command, which must succeed; with an event, all that came by it before the answer."""
        if event:
            self.send(3, event)
            self.receive()
        self.send(0, command, values)
        streamed = []
        while True:
            kind, name, message = self.receive()
            if kind != 7:
                break
            streamed.append(message)
        if event:
            self.send(4, event)
            while self.receive()[0] != 5:
                pass
        if kind != 1 or message.get("success") == "no":
            raise Failed("%s %s: %s" % (command, values, message.get("errmsg", "not known")))
        return streamed if event else message

    def sas(self, **of):
        """IKE SAs: the name of each, and what is said of it."""
        return [item for message in self.ask("list-sas", "list-sa", **of) for item in message.items()]

    def send(self, kind, name, values={}):
        packet = bytes([kind, len(name)]) + name.encode()
        for key, value in values.items():
            if isinstance(value, list):
                packet += bytes([4, len(key)]) + key.encode()
                packet += b"".join(b"\x05" + struct.pack(">H", len(item)) + item.encode() for item in value) + b"\x06"
            else:
                packet += bytes([3, len(key)]) + key.encode() + struct.pack(">H", len(str(value))) + str(value).encode()
        self.socket.sendall(struct.pack(">I", len(packet)) + packet)

    def receive(self):
        packet = self.octets(struct.unpack(">I", self.octets(4))[0])
        kind, name, at = packet[0], None, 1
        if kind == 7:
            at = 2 + packet[1]
            name = packet[2:at].decode()
        return kind, name, self.section(packet, at)[0]

    def octets(self, n):
        read = b""
        while len(read) < n:
            more = self.socket.recv(n - len(read))
            if not more:
                raise Failed("the daemon has closed its VICI socket")
            read += more
        return read

    def section(self, packet, at):
        found = {}
        while at < len(packet) and packet[at] != 2:
            kind, end = packet[at], at + 2 + packet[at + 1]
            key, at = packet[at + 2:end].decode(), end
            if kind == 1:
                found[key], at = self.section(packet, at)
            elif kind == 3:
                found[key], at = self.value(packet, at)
            else:
                found[key] = []
                while packet[at] == 5:
                    item, at = self.value(packet, at + 1)
                    found[key].append(item)
                at += 1
        return found, at + 1

    @staticmethod
    def value(packet, at):
        end = at + 2 + struct.unpack_from(">H", packet, at)[0]
        return packet[at + 2:end].decode(errors="replace"), end


class Swan:
    """strongSwan in the place of gateway N, with its ESP in user space, in UDP."""

    def __init__(self, lab, text, settings="", n=2, directory="swan"):
        self.lab, self.node, self.dir = lab, "%s-g%d" % (lab.name, n), "%s/%s" % (lab.dir, directory)
        self.env = dict(os.environ, PEERS_RUN=lab.dir + "/peers", PEERS_NS=lab.name)
        os.makedirs(self.dir + "/strongswan.conf.d", exist_ok=True)
        if settings:
            with open(self.dir + "/strongswan.conf.d/claim.conf", "w") as f:
                f.write(settings)
        self.write(text)

    def write(self, text):
        with open(self.dir + "/swanctl.conf", "w") as f:
            f.write(text)

    def ask(self, *command, **kw):
        return output(PEERS + "/strongswan/peer.sh", command[0], self.node, *command[1:], env=self.env, **kw)

    @property
    def state(self):
        """Where it runs."""
        return "%s/peers/strongswan/%s" % (self.lab.dir, self.node)

    def vici(self):
        return Vici(self.state + "/run/charon.vici")

    def log(self):
        with open(self.state + "/run/charon.log", errors="replace") as f:
            return f.read()

    def kill(self):
        """Without a word to anybody. What watches over it ends with it."""
        with open(self.state + "/pid") as f:
            parent = f.read().split()[0]
        pids = subprocess.run(["pgrep", "-P", parent], stdout=subprocess.PIPE, text=True).stdout.split()
        for pid in pids:
            os.kill(int(pid), 9)

    def __enter__(self):
        output(PEERS + "/install.sh", "peer", timeout=600)
        self.ask("up", self.dir)
        return self

    def __exit__(self, *error):
        if error and error[0] and os.environ.get("PROVE_VERBOSE"):
            print(self.ask("log"))
        self.ask("down")

    def sas(self):
        """What swanctl lists, without what it says of settings that there are none of."""
        said = self.ask("swanctl", "--list-sas").splitlines(keepends=True)
        return "".join(line for line in said if not line.startswith("no files found matching"))


class Hosts:
    """A Pair whose gateway of ours has an /etc/hosts of its own: what a namespace's process mounts, no other has."""

    def write(self, text):
        super().write(text)
        self.gateway.portcullis = self.portcullis
        self.write_hosts()

    def write_hosts(self, *lines):
        with open(self.gateway.dir + "/hosts", "w") as f:
            f.writelines(line + "\n" for line in ("127.0.0.1 localhost", *lines))

    def portcullis(self, *args):
        command = 'mount --bind "$0" /etc/hosts && exec "$@"'
        gateway = self.gateway
        return self.lab.run(gateway.node, "sh", "-c", command, gateway.dir + "/hosts", BIN + "/portcullis", *args, "--config", gateway.dir)


class Pair(Scene):
    """The lab with us at one gateway, the first unless it is said, and strongSwan at the other: each with what `connection`
    makes of some options, or with a swanctl.conf of its own, its `text`. With a `key` there are certificates by keys of that
    kind. `settings` are of strongswan.conf, `machine` of our
    portcullis.toml, and `conf` of the lab."""

    def __init__(self, ours={}, theirs={}, lab=None, settings="", at=1, machine="", **conf):
        self.n, self.swan_n = at, 3 - at
        self.lab, self.ours, self.theirs, self.settings = lab or Lab(), dict(ours), dict(theirs), settings
        self.key = self.ours.pop("key", None) or self.theirs.pop("key", None)
        self.theirs.pop("key", None)
        self.machine, self.conf = machine, conf

    def set_up(self):
        self.lab.conf("--udp-encap", *(part for k, v in self.conf.items() for part in ("--" + k.replace("_", "-"), str(v))))
        self.gateway = Gateway(self.lab, self.n)
        with open(self.gateway.dir + "/portcullis.toml", "a") as f:
            f.write(self.machine)
        self.make_certificates()
        os.remove(self.gateway.dir + "/connections.toml")
        self.write(self.text(self.n, self.ours))
        swan = Swan(self.lab, self.text(self.swan_n, self.theirs), self.settings, self.swan_n)
        self.swan = self.lab.ends.enter_context(swan)
        self.lab.run("g%d" % self.swan_n, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        self.gateway.up()

    def text(self, n, options):
        return options["text"] if "text" in options else connection(n, **options)

    def write(self, text):
        """Our swanctl.conf."""
        with open(self.gateway.dir + "/swanctl.conf", "w") as f:
            os.chmod(f.fileno(), 0o600)
            f.write(text)

    def __exit__(self, *error):
        if error and error[0] and os.environ.get("PROVE_VERBOSE"):
            print(self.log() or self.gateway.portcullis("status"))
        super().__exit__(*error)

    def log(self):
        """What our iked has said."""
        path = self.gateway.dir + "/run/iked.log"
        if not os.path.exists(path):
            return ""
        with open(path, errors="replace") as f:
            return f.read()

    def vici(self):
        return Vici(self.gateway.dir + "/run/charon.vici")

    def make_certificates(self):
        """Of one authority, for both."""
        if self.key:
            made = self.lab.dir + "/pki"
            output(PEERS + "/strongswan/mkpki.sh", made, IDS[1], IDS[2], env=dict(os.environ, KEY=self.key))
            os.makedirs(self.lab.dir + "/swan")
            for n, to in ((self.n, self.gateway.dir), (self.swan_n, self.lab.dir + "/swan")):
                output("cp", "-r", *("%s/%s/%s" % (made, IDS[n], of) for of in ("x509", "x509ca", "private")), to)

    def sas(self):
        return self.gateway.status()["ike"]["sas"]

    def children(self):
        return [child for sa in self.sas() for child in sa["children"]]

    def wait_up(self):
        wait_for("a child SA", lambda: len(self.children()) == 1)
        wait_for("packets go through", lambda: self.lab.is_reachable("h1", H2[4]))
        self.lab.ping("h1", H2[4])
        self.lab.ping("h2", H1[4])


def by_us(pair):
    pair.gateway.portcullis("up", "net")
    pair.wait_up()


def by_them(pair):
    pair.swan.ask("initiate", "net")
    pair.wait_up()


def lost_of(ping):
    """Of what was sent until the last answer, how many have none."""
    time.sleep(0.3)
    ping.stop()
    with open(ping.file) as f:
        seen = [int(n) for n in re.findall(r"icmp_seq=(\d+)", f.read())]
    return max(seen) - len(set(seen))
