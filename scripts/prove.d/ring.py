"""Two gateways in a ring with one host, which measures from one of its interfaces to the other through both."""

import contextlib, json, os, re

from lab import BIN, H1, H2, Failed, Gateway
from swan import connection

PERF = BIN + "/portcullis-perf"


class Ring:
    """One host, two gateways, and what is measured from one interface of the host to the other."""

    def __init__(self, lab, conf=connection, cores=(0, 0)):
        """`conf` makes swanctl.conf of gateway N, with the child `net`, which is begun. The generator has core 1: where a gateway
        shares it, packets are seen late."""
        self.lab, self.gateways = lab, [Gateway(lab, n) for n in (1, 2)]
        lab.conf("--ring", "8192", "--frames", "32768")
        for n, gateway in enumerate(self.gateways, 1):
            os.remove(gateway.dir + "/connections.toml")
            path = gateway.dir + "/portcullis.toml"
            with open(path) as f:
                text = f.read()
            with open(path, "w") as f:
                text = re.sub(r"^cores = .*$", "cores = [%d]" % cores[n - 1], text, flags=re.M)
                f.write(text.replace("max_sas = 1024", "max_sas = 8192").replace("max_policies = 1024", "max_policies = 8192"))
            with open(os.open(gateway.dir + "/swanctl.conf", os.O_CREAT | os.O_WRONLY, 0o600), "w") as f:
                f.write(conf(n))

    def __enter__(self):
        for gateway in self.gateways:
            gateway.up()
        self.gateways[0].portcullis("up", "net")
        self.ends = ["--out", "eth1", "--in", "eth2", "--dst-mac", self.lab.mac("g1", "lan0"), "--src", H1[4], "--dst", H2[4]]
        return self

    def __exit__(self, *_):
        with contextlib.ExitStack() as ends:
            for gateway in self.gateways:
                ends.callback(gateway.down)

    def bench(self, *words, ends=None):
        """The report of a measurement."""
        told = self.lab.run("h1", PERF, "--core", "1", "bench", *words, *(ends or self.ends), "--json", timeout=600)
        report = json.loads(told[told.index("{\n"):])
        if report["taken"] != "over veth" or report["data"]["where"] != "over veth":
            raise Failed("it says that it was taken %s" % report["taken"])
        return report

    def goes_through(self):
        """Whether packets go from one end to the other."""
        return self.bench("soak", "--rate", "1000", "--trials", "1", "--seconds", "0.1")["data"]["lost"] < 50
