"""Gateway 1 on core 0, a source on core 1 that sends as fast as it can, and what comes of it."""

import json, time

from lab import BIN, H1, H2, Failed, wait_for

PERF = BIN + "/portcullis-perf"
# Octets of a frame around an IP packet, FCS included.
ETHERNET = 14 + 4


class Tool:
    """A tool of portcullis-perf that runs until it is told to stop, and then prints its result."""

    def __init__(self, lab, node, *args):
        self.log = "%s/%s-%d" % (lab.dir, args[0], len(lab.children))
        # In a session of its own, as the gateway is: the kernel shares cores out by session.
        self.process = lab.start(node, "setsid", PERF, *args, log=self.log)
        wait_for(args[0], lambda: "ready" in self.read())

    def read(self):
        with open(self.log) as f:
            return f.read()

    def stop(self):
        self.process.terminate()
        if self.process.wait(20):
            raise Failed(self.read())
        return json.loads(self.read().splitlines()[-1])


def send(lab, size, seconds):
    """Sends frames of this size from host 1 as fast as it can; how many packets per second went, and arrived at gateway 2."""
    sink = Tool(lab, "g2", "sink", "--interface", "wan0", "--core", "1")
    sent = json.loads(lab.run("h1", PERF, "send", "--interface", "eth0", "--core", "1", "--dst-mac",
                              lab.mac("g1", "lan0"), "--src", H1[4], "--dst", H2[4], "--size", str(size),
                              "--seconds", str(seconds)).splitlines()[-1])
    return sent["pps"], sink.stop()["received"] / seconds


def worker(gateway):
    """Its worker's seconds of work, and the packets that it has sent."""
    one, = gateway.status()["datapath"]["workers"]
    return one["busy_us"] / 1e6, one["tx_packets"]


def settled(gateway):
    """The same, once nothing more comes."""
    def same():
        before = worker(gateway)
        time.sleep(0.1)
        return before == worker(gateway) and before
    return wait_for("the worker has done all", same)


def seconds_of_packet(lab, gateway, size, seconds):
    """Seconds of the worker's core for each packet that it seals and sends, the kernel's part of it included."""
    busy, packets = settled(gateway)
    send(lab, size, seconds)
    now = settled(gateway)
    return (now[0] - busy) / (now[1] - packets)
