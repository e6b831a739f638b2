"""Two of our gateways, what is sent between them, and when."""

import os, re, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "prove.d"))
from lab import BIN, H2, Gateway, Lab, wait_for
from swan import IDS, connection
import certificates, wire

MACHINE = "\n[ike]\nretransmit_timeout_ms = 500\nretransmit_base = 2\nretransmit_tries = 2\n"
SILENT_SECONDS = 2


# A user proves who it is by a password, and the second gateway by a certificate.
EAP = {
    1: ("eap-mschapv2", "eap_id = carol", "pubkey", ""),
    2: ("pubkey", "", "eap-mschapv2", "eap_id = %any"),
}
# The same in IKEv1, with an address for the user.
XAUTH = {
    1: ("vips = 0.0.0.0\n local-2 { auth = xauth\n xauth_id = carol }\n", dict(local_ts="dynamic")),
    2: ("pools = v4\n remote-2 { auth = xauth }\n", dict(remote_ts="dynamic")),
}
PASSWORD = 'eap-carol { id = carol\n secret = "a password of this lab" }'


class Run:
    """The first gateway begins all, and writes its keys. `steps` are the seconds of the clock that each was between."""

    def __init__(self, eap=False, xauth=False, **options):
        self.eap, self.xauth, self.options, self.steps = eap, xauth, options, {}

    def __enter__(self):
        self.lab = Lab("up", "--tap").__enter__()
        try:
            self.lab.conf()
            self.gateways = [self.gateway(n) for n in (1, 2)]
            self.capture = self.lab.dir + "/wire.pcap"
            self.tcpdump = self.lab.start("w", "tcpdump", "-Z", "root", "--immediate-mode", "-U", "-i", "g1", "-w", self.capture,
                                          "udp port 500 or udp port 4500 or esp")
            wait_for("tcpdump listens", lambda: os.path.exists(self.capture))
        except BaseException:
            self.lab.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.lab.__exit__()

    @property
    def keys(self):
        """The folder of Wireshark's tables."""
        return self.lab.dir + "/keys"

    def gateway(self, n):
        gateway = Gateway(self.lab, n)
        os.remove(gateway.dir + "/connections.toml")
        self.write(gateway.dir, n)
        with open(gateway.dir + "/portcullis.toml", "a") as f:
            f.write(MACHINE)
        options = ["--keylog", self.keys] if n == 1 else []
        gateway.iked = self.lab.start(gateway.node, BIN + "/portcullis-iked", "--config", gateway.dir, *options,
                                      log="%s/iked.log" % gateway.dir)
        wait_for("iked answers", lambda: (gateway.status()["iked"] or {}).get("pid") == gateway.iked.pid)
        gateway.start_datapath()
        gateway.wait_ready()
        return gateway

    def write(self, directory, n, more=""):
        """Its swanctl.conf."""
        with open(directory + "/swanctl.conf", "w") as f:
            os.chmod(f.fileno(), 0o600)
            options = dict(self.options, more=self.options.get("more", "") + more)
            if self.eap:
                ours, of_us, theirs, of_them = EAP[n]
                options.update(auth="%s", more_secrets=PASSWORD)
                f.write(re.sub("{ auth = %s", "{ %s\n auth = %s", connection(n, **options)) % (of_us, ours, of_them, theirs))
                certificates.write(directory, IDS[2], has_key=n == 2)
            elif self.xauth:
                # There are pools behind the secrets.
                secrets = PASSWORD.replace("eap", "xauth") + "} pools { v4 { addrs = 10.3.0.0/24 }"
                second, of = XAUTH[n]
                f.write(connection(n, **dict(options, **of, more_secrets=secrets)).replace("children {", second + "children {"))
            else:
                f.write(connection(n, **options))

    def sas(self, n=1):
        return self.gateways[n - 1].status()["ike"]["sas"]

    def children(self, n=1):
        return [child for sa in self.sas(n) for child in sa["children"]]

    def step(self, name, *command, until):
        """Does something by `portcullis`, and waits until what comes of it is over."""
        start = time.time()
        if command:
            self.gateways[0].portcullis(*command)
        wait_for("%s is over" % name, until, 20)
        time.sleep(0.3)
        self.steps[name] = (start, time.time())

    def is_up(self):
        return all(len(self.children(n)) == 1 for n in (1, 2))

    def is_down(self):
        return not any(self.sas(n) for n in (1, 2))

    def up(self):
        self.step("begin", "up", "net", until=self.is_up)

    def begin(self):
        self.up()
        self.step("packets", until=lambda: self.lab.is_reachable("h1", H2[4]))

    def all(self):
        """From the first packet to the last; then the IKE SA is replaced; then the peer lives, and dies."""
        self.begin()
        old = self.children()[0]["spi_in"]
        self.step("rekey child", "rekey", "net", until=lambda: self.is_up() and self.children()[0]["spi_in"] != old)
        self.step("end", "down", "peer", until=self.is_down)
        self.step("again", "up", "net", until=self.is_up)
        old = self.sas()[0]["id"]
        is_new = lambda: self.is_up() and any(sa["children"] and sa["id"] != old for sa in self.sas())
        self.step("rekey ike", "rekey", "peer", until=is_new)
        self.step("end again", "down", "peer", until=self.is_down)
        # Nobody asks whether the other is there, before this.
        self.write(self.gateways[0].dir, 1, "\ndpd_delay = %ds" % SILENT_SECONDS)
        self.gateways[0].portcullis("reload")
        self.step("once more", "up", "net", until=self.is_up)
        silent = time.monotonic() + SILENT_SECONDS
        self.step("alive", until=lambda: time.monotonic() > silent)
        os.kill(self.gateways[1].iked.pid, 9)
        self.step("silence", until=lambda: not self.sas())

    def packets(self):
        """What has been captured, by steps."""
        self.tcpdump.terminate()
        self.tcpdump.wait()
        packets = wire.read(self.capture, self.keys)
        of = lambda start, end: [packet for packet in packets if start <= packet.epoch <= end]
        return packets, {name: of(*times) for name, times in self.steps.items()}
