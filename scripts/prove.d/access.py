"""Remote access with strongSwan: one end has pools, and the other asks for addresses of them. What claims of both versions share."""

import os, re, subprocess

from lab import H1, H2, PEERS, WIRE, Failed, Gateway, Lab, Scene, output, wait_for

US, THEM = 1, 2
IDS = {US: "one.example.org", THEM: "two.example.org"}
NETS = {US: "10.99.1.0/24, fd99:1::/64", THEM: "10.99.2.0/24, fd99:2::/64"}
HOSTS = {US: H1, THEM: H2}
POOLS = {4: "10.3.0.0/24", 6: "fd03::/120"}
DNS = {4: "10.99.7.53", 6: "fd99:7::53"}
PASSWORD = "a password of this lab"


def install(plugin):
    """strongSwan, with a plugin."""
    output(PEERS + "/install.sh", "peer", timeout=600)
    if not os.path.exists("/usr/lib/ipsec/plugins/libstrongswan-%s.so" % plugin):
        raise Failed("strongSwan has no %s: run scripts/setup" % plugin)


class Access(Scene):
    """The lab, with us at its first gateway and strongSwan at its second. One of them is the server, with pools; the other is a
    client, which asks for addresses of them. Both have a connection `access` with a child `net`, of the templates of the server and
    the client, and certificates by keys of a kind."""

    def __init__(self, server, templates, key="ecdsa", **options):
        self.lab, self.server, self.client, self.templates, self.key = Lab(), server, 3 - server, templates, key
        of = dict(server=IDS[self.server], client=IDS[self.client], nets=NETS[server], pools="v4, v6", v4=POOLS[4], v6=POOLS[6],
                  dns4=DNS[4], dns6=DNS[6], vips="0.0.0.0, ::", password=PASSWORD)
        self.options = dict(of, **options)

    def text(self, n):
        options = dict(self.options, local=WIRE[n][4], remote=WIRE[3 - n][4])
        return self.templates[n != self.server] % options

    def set_up(self):
        lab = self.lab
        lab.conf("--udp-encap")
        self.gateway = Gateway(lab, US)
        os.remove(self.gateway.dir + "/connections.toml")
        self.dir, self.node = lab.dir + "/swan", lab.name + "-g2"
        self.env = dict(os.environ, PEERS_RUN=lab.dir + "/peers", PEERS_NS=lab.name)
        os.makedirs(self.dir)
        made = lab.dir + "/pki"
        output(PEERS + "/strongswan/mkpki.sh", made, IDS[US], IDS[THEM], env=dict(os.environ, KEY=self.key))
        for n, to in ((US, self.gateway.dir), (THEM, self.dir)):
            output("cp", "-r", *("%s/%s/%s" % (made, IDS[n], of) for of in ("x509", "x509ca", "private")), to)
            with open(to + "/swanctl.conf", "w") as f:
                os.chmod(f.fileno(), 0o600)
                f.write(self.text(n))
        for host, gateway in (("h1", 1), ("h2", 2)):
            lab.run(host, "ip", "route", "add", POOLS[4], "via", "10.99.%d.1" % gateway)
            lab.run(host, "ip", "-6", "route", "add", POOLS[6], "via", "fd99:%d::1" % gateway)
        lab.run("g2", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        lab.ends.callback(self.ask, "down")
        self.ask("up", self.dir)
        self.gateway.up()

    def __exit__(self, *error):
        if error[0] and os.environ.get("PROVE_VERBOSE"):
            print(self.ask("log")[-6000:])
            log = self.gateway.dir + "/run/iked.log"
            print(open(log).read() if os.path.exists(log) else "no log of iked")
        super().__exit__(*error)

    def ask(self, command, *more, **kw):
        return output(PEERS + "/strongswan/peer.sh", command, self.node, *more, env=self.env, **kw)

    def try_begin(self):
        """Has the client begin; what it says of it."""
        if self.client == US:
            return self.gateway.portcullis("up", "net")
        command = [PEERS + "/strongswan/peer.sh", "initiate", self.node, "net", "8"]
        return subprocess.run(command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout

    def sas(self):
        return self.gateway.status()["ike"]["sas"]

    def theirs(self):
        return self.ask("swanctl", "--list-sas")

    def begin(self):
        """The addresses of the client, as our end tells them; strongSwan must tell the same."""
        self.try_begin()
        key = "local_vips" if self.client == US else "remote_vips"
        sa = wait_for("a child SA", lambda: next((sa for sa in self.sas() if sa["children"]), None))
        vips = sa[key]
        wait_for("the same at strongSwan", lambda: all(vip in self.theirs() for vip in vips))
        return vips

    def carry(self, vips):
        """Packets go from the client's addresses to the host behind the server, and back."""
        node, host = ("h1", HOSTS[THEM]) if self.client == US else ("g2", HOSTS[US])
        for vip in vips:
            family = 6 if ":" in vip else 4
            if self.client == US:
                length = {4: "/32", 6: "/128"}[family]
                self.lab.run("h1", "ip", "addr", "replace", vip + length, "dev", "eth0", *(["nodad"] if family == 6 else []))
                self.lab.run("g1", "ip", "-%d" % family, "route", "replace", vip + length, "dev", "lan0")
            wait_for("packets from " + vip, lambda: self.lab.is_reachable(node, host[family], "-I", vip))
            told = self.lab.run(node, "ping", "-n", "-q", "-c5", "-i0.05", "-W2", "-I", vip, host[family])
            if " 0% packet loss" not in told:
                raise Failed(told)

    def rekey(self, by=US):
        """Another IKE SA takes the place of the one that there is, by an end."""
        before = self.sas()[0]["initiator_spi"]
        if by == US:
            self.gateway.portcullis("rekey", "access")
        else:
            self.ask("swanctl", "--rekey", "--reauth", "--ike", "access")
        wait_for("another IKE SA", lambda: [sa["initiator_spi"] for sa in self.sas()] not in ([before], []) and len(self.sas()) == 1, 30)

    def end(self):
        if self.client == US:
            self.gateway.portcullis("down", "access")
        else:
            self.ask("terminate", "access")
        wait_for("no SA here", lambda: not self.sas())
        wait_for("no SA there", lambda: not self.theirs().strip())

    def ask_server(self, *arguments):
        """What Debian's swanctl says of the server."""
        if self.server == THEM:
            return self.ask("swanctl", *arguments)
        return output("swanctl", *arguments, "--uri", "unix://%s/run/charon.vici" % self.gateway.dir)

    def leases(self):
        """How many addresses of each pool peers have."""
        told = self.ask_server("--list-pools")
        return {name: int(n) for name, n in re.findall(r"^(\S+)\s+\S+\s+(\d+) / \d+ / \d+", told, re.M)}
