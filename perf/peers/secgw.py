#!/usr/bin/python3
"""Compares Portcullis with DPDK's ipsec-secgw: ESP in tunnel mode, AES-GCM-128, IPv4, one SA, one core.

  perf/peers/secgw.py [--way encap|decap] [--size OCTETS] [--rounds N] [--seconds S] [--core N]

Both get the same packets from a pcap file that each holds in memory and repeats, and let go of what comes out. They
take turns on the same core. Neither checks for replays, since the input repeats, and neither has huge pages. The
peer runs in the fastest of its variants, found anew for each case. Rates are per second that a process had the core:
where nobody else wants the core, that is each second. Needs Debian 12 and root; installs what it needs.
"""
import argparse, json, os, re, shutil, signal, statistics, struct, subprocess, sys, tempfile, threading, time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
TARGET = os.environ.get("CARGO_TARGET_DIR", TOP + "/target")
BIN = os.environ.get("PORTCULLIS_BIN") or TARGET + "/release"
WAYS, SIZES, ROUNDS, SECONDS = ("encap", "decap"), (64, 1400), 7, 2.0

SPI = 0x1000
KEY = bytes(range(1, 17)) + b"salt"
SRC, DST = "172.16.1.5", "172.16.2.5"
PACKETS, FLOWS = 2048, 256
ETHERNET, FCS = 14, 4

# The peer's crypto device, options, and how its SAs are processed.
VARIANTS = {
    "aesni_mb": ("crypto_aesni_mb", [], ""),
    "aesni_gcm": ("crypto_aesni_gcm", [], ""),
    "aesni_mb, librte_ipsec": ("crypto_aesni_mb", ["-l"], ""),
    "aesni_gcm, librte_ipsec": ("crypto_aesni_gcm", ["-l"], ""),
    "aesni_mb, cpu-crypto": ("crypto_aesni_mb", ["-l"], " type cpu-crypto"),
    "aesni_gcm, cpu-crypto": ("crypto_aesni_gcm", ["-l"], " type cpu-crypto"),
}


class Failed(Exception):
    """A program did not do what the comparison needs."""


def checksum(header):
    total = sum(struct.unpack(">%dH" % (len(header) // 2), header))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff


def clear(size, n):
    """A UDP packet whose Ethernet frame has `size` octets with its FCS, which no capture has."""
    length = size - ETHERNET - FCS
    flow = n % FLOWS
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, length, n, 0, 64, 17, 0, bytes([10, 1, 0, 1]), bytes([10, 2, 0, flow]))
    ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
    udp = struct.pack(">HHHH", 10000 + flow, 9, length - 20, 0)
    payload = bytes((n + i) & 0xff for i in range(length - 28))
    return bytes([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]) + ip + udp + payload


def write_capture(path, frames):
    with open(path, "wb") as f:
        f.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
        for n, frame in enumerate(frames):
            f.write(struct.pack("<IIII", 0, n, len(frame), len(frame)) + frame)


def read_capture(path):
    """The IP packets of a capture without what a router changes: time to live and checksum."""
    with open(path, "rb") as f:
        data = f.read()
    at, packets = 24, []
    while at < len(data):
        length = struct.unpack_from("<I", data, at + 8)[0]
        ip = data[at + 16 + ETHERNET:at + 16 + length]
        packets.append(ip[:8] + ip[9:10] + ip[12:])
        at += 16 + length
    return packets


class Rate:
    """Packets, and the seconds that a process had the core for them, of those that passed."""

    def __init__(self, packets, on_core, seconds):
        if on_core <= 0:
            raise Failed("the kernel does not tell how long a process had its core")
        self.pps, self.share = packets / on_core, on_core / seconds


class Comparison:
    """The captures, the peer, and where they are; to be used in `with`."""

    def __init__(self, core=None):
        self.core = max(os.sched_getaffinity(0)) if core is None else core
        self.children = 0

    def __enter__(self):
        # Nothing is left running or lying about by whoever ends us.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        out = subprocess.run([TOP + "/perf/peers/install-secgw"], stdout=subprocess.PIPE, text=True)
        if out.returncode:
            raise Failed("no ipsec-secgw")
        self.secgw = out.stdout.splitlines()[-1]
        self.dir = tempfile.mkdtemp(prefix="portcullis-secgw-")
        for variant in {v[2] for v in VARIANTS.values()}:
            self.configure(variant)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir)

    def file(self, name):
        return os.path.join(self.dir, name)

    def configuration(self, kind):
        return self.file("secgw%s.cfg" % kind.replace(" ", "-"))

    def configure(self, kind):
        lines = ["rt ipv4 dst 172.16.2.0/24 port 1", "rt ipv4 dst 10.2.0.0/16 port 0",
                 "neigh port 0 02:00:00:00:02:00", "neigh port 1 02:00:00:00:02:01"]
        for way in ("in", "out"):
            lines += ["sp ipv4 %s esp protect %d pri 1 dst 10.2.0.0/16 sport 0:65535 dport 0:65535" % (way, SPI),
                      "sa %s %d aead_algo aes-128-gcm aead_key %s mode ipv4-tunnel src %s dst %s%s" % (
                          way, SPI, KEY.hex(":"), SRC, DST, kind)]
        with open(self.configuration(kind), "w") as f:
            f.write("\n".join(sorted(lines, key=lambda l: ("sp", "sa", "rt", "neigh").index(l.split()[0]))) + "\n")

    # Portcullis.

    def perf(self, way, capture, *args):
        command = [BIN + "/portcullis-perf", "path", "--core", str(self.core), "--capture", capture, "--spi", str(SPI),
                   "--key", KEY.hex(), "--src", SRC, "--dst", DST, *args] + ["--decap"] * (way == "decap")
        r = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
        if r.returncode:
            raise Failed(r.stdout)
        report = json.loads(r.stdout)
        if report["drops"] or report["sent"] != report["received"] or not report["sent"]:
            raise Failed("portcullis-perf dropped packets: %s" % r.stdout)
        return report

    def ours(self, way, size, seconds):
        report = self.perf(way, self.capture(way, size), "--seconds", str(seconds))
        return Rate(report["sent"], report["core_seconds"], report["seconds"])

    # The peer.

    def theirs(self, way, size, seconds, variant):
        """The peer's rate between the first of its reports, one a second, and the first after `seconds` more."""
        samples = []

        def enough(sample):
            samples.append(sample)
            return sample[0] - samples[0][0] >= seconds - 0.1

        self.run_secgw(way, self.capture(way, size) + ",infinite_rx=1", "net_null%d,no-rx=1", variant, enough)
        (t0, on_core0, sent0, _), (t1, on_core1, sent1, dropped) = samples[0], samples[-1]
        if dropped or sent1 == sent0:
            raise Failed("ipsec-secgw (%s): %d sent, %d dropped" % (variant, sent1 - sent0, dropped))
        return Rate(sent1 - sent0, on_core1 - on_core0, t1 - t0)

    def run_secgw(self, way, capture, out, variant, enough):
        """Runs it until a report (time, time on the core, packets sent, packets dropped) is enough."""
        device, options, kind = VARIANTS[variant]
        self.children += 1
        prefix = "portcullis-%d-%d" % (os.getpid(), self.children)
        # Port 0 is inside, port 1 outside; they are numbered in this order.
        rx = 0 if way == "encap" else 1
        ports = {rx: "net_pcap%d,rx_pcap=%s" % (rx, capture), 1 - rx: out % (1 - rx)}
        command = ["stdbuf", "-oL", self.secgw, "--no-huge", "--no-pci", "--no-telemetry", "-m", "512", "-l", str(self.core),
                   "--file-prefix", prefix, "--vdev", ports[0], "--vdev", ports[1], "--vdev", device, "--",
                   "-p", "0x3", "-P", "-u", "0x2", "--config", "(0,0,%d),(1,0,%d)" % (self.core, self.core),
                   "-s", "16384", "-f", self.configuration(kind), "-t", "1"] + options
        p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        watch = threading.Timer(60, p.kill)
        watch.start()
        said, sent, is_enough = [], None, False
        try:
            for line in p.stdout:
                said.append(line)
                if line.startswith("Total packets sent:"):
                    with open("/proc/%d/schedstat" % p.pid) as f:
                        sent = (time.monotonic(), int(f.read().split()[0]) / 1e9, int(line.split(":")[1]))
                elif line.startswith("Total packets dropped:") and not is_enough and enough(sent + (int(line.split(":")[1]),)):
                    is_enough = True
                    p.send_signal(signal.SIGINT)
        finally:
            watch.cancel()
            p.kill()
            p.wait()
            p.stdout.close()
            shutil.rmtree("/var/run/dpdk/" + prefix, ignore_errors=True)
        if not is_enough:
            raise Failed("ipsec-secgw (%s) ended:\n%s" % (variant, "".join(said)[-1500:]))

    # The captures.

    def capture(self, way, size):
        """The input of a case: clear packets, or what we make of them. Each reads what the other wrote, first."""
        inputs = {"encap": self.file("clear-%d.pcap" % size), "decap": self.file("esp-%d.pcap" % size)}
        if not os.path.exists(inputs["decap"]):
            write_capture(inputs["encap"], [clear(size, n) for n in range(PACKETS)])
            self.perf("encap", inputs["encap"], "--write", inputs["decap"])
            self.agree(size, inputs)
        return inputs[way]

    def agree(self, size, inputs):
        expected = read_capture(inputs["encap"])
        esp, back = self.file("secgw-esp"), self.file("back")
        all_sent = lambda sample: sample[2] >= PACKETS or sample[3] > 0
        first = next(iter(VARIANTS))
        self.run_secgw("decap", inputs["decap"], "net_pcap%d,tx_pcap=" + back, first, all_sent)
        if read_capture(back) != expected:
            raise Failed("ipsec-secgw does not read what Portcullis writes, at %d octets" % size)
        self.run_secgw("encap", inputs["encap"], "net_pcap%d,tx_pcap=" + esp, first, all_sent)
        self.perf("decap", esp, "--write", back)
        if read_capture(back) != expected:
            raise Failed("Portcullis does not read what ipsec-secgw writes, at %d octets" % size)

    # The comparison.

    def fastest(self, way, size):
        rates = {}
        for variant in VARIANTS:
            try:
                rates[variant] = self.theirs(way, size, 1.0, variant).pps
            except Failed as x:
                print("not compared with: %s" % x, file=sys.stderr)
        if not rates:
            raise Failed("no variant of ipsec-secgw runs")
        return max(rates, key=rates.get)

    def compare(self, way, size, rounds=ROUNDS, seconds=SECONDS):
        """The median of the rounds' ratios, and the figure to show."""
        variant = self.fastest(way, size)
        theirs, ours = [], []
        for _ in range(rounds):
            theirs.append(self.theirs(way, size, seconds, variant))
            ours.append(self.ours(way, size, seconds))
        ratios = [o.pps / t.pps for o, t in zip(ours, theirs)]
        ratio = statistics.median(ratios)
        return ratio, "ratio %.2f (%.2f to %.2f): Portcullis %s, ipsec-secgw (%s) %s" % (
            ratio, min(ratios), max(ratios), spread(ours), variant, spread(theirs))

    def conditions(self):
        """What was measured, and on what."""
        with open("/proc/cpuinfo") as f:
            info = dict(re.findall(r"^(.*?)\s*: (.*)$", f.read(), re.M))
        # The kernel takes the bogomips of x86 from the TSC: two per MHz.
        return ("pcap file in memory in, nothing out, both; %d packets of %d flows, AES-GCM-128 tunnel over IPv4, no ESN, "
                "no replay window\ncore %d of %d, %s, TSC %.0f MHz, Linux %s; %s" % (
                    PACKETS, FLOWS, self.core, os.cpu_count(), info["model name"], float(info["bogomips"]) / 2,
                    os.uname().release, os.path.basename(os.path.dirname(self.secgw))))


def spread(rates):
    pps = [r.pps / 1e6 for r in rates]
    return "%.3f Mpps (%.3f to %.3f, had %.0f%% of the core)" % (
        statistics.median(pps), min(pps), max(pps), 100 * statistics.median(r.share for r in rates))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=WAYS, action="append")
    parser.add_argument("--size", type=int, action="append", help="octets of a clear frame, FCS included")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each in a round")
    parser.add_argument("--core", type=int)
    options = parser.parse_args()
    try:
        with Comparison(options.core) as comparison:
            print(comparison.conditions(), flush=True)
            for way in options.way or WAYS:
                for size in options.size or SIZES:
                    figure = comparison.compare(way, size, options.rounds, options.seconds)[1]
                    print("%s %d octets: %s" % (way, size, figure), flush=True)
    except Failed as x:
        sys.exit("secgw: %s" % x)


if __name__ == "__main__":
    main()
