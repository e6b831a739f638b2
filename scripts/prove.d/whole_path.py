"""Runs of portcullis-path for the claims about it: what it measured, cell by cell, and on which CPU."""

import json, subprocess, sys, tempfile

from lab import BIN, Failed

SIZES = ("64", "576", "1400", "IMIX")
WAYS = ("encap", "decap")
# What is by the clock on the wall, of what is by clocks without interrupted turns.
QUIET = 0.9


class Run:
    """One run: all that it measured was measured in turns."""

    def __init__(self, sas, rounds, *options, sizes=SIZES):
        command = [BIN + "/portcullis-path", "--no-hops", "--sizes", ",".join(sizes).lower(), "--rounds", str(rounds),
                   "--sas", ",".join(map(str, sas)), *options]
        sys.stdout.flush()
        with tempfile.NamedTemporaryFile() as out:
            # Its progress is for who waits; packets that are lost are an error of its own.
            if subprocess.run([*command, "--json", out.name], stdout=subprocess.DEVNULL).returncode:
                raise Failed("%s: failed, see above" % " ".join(command))
            self.results = json.load(out)
        self.clocks, self.rates = {}, {}
        for c in self.results["cells"]:
            self.clocks[c["direction"], c["size"], c["sas"]] = c["clocks_per_packet"]
        for c in self.results["throughput"]:
            self.rates[c["direction"], c["size"], c["sas"], c["workers"]] = c["packets_per_second"]

    def conditions(self):
        r = self.results
        return "in memory on %s (%s), TSC %.3f GHz, %s by %s, medians of %d rounds in turns" % (
            r["cpu"], core(), r["tsc_hz"] / 1e9, r["algorithm"], r["crypto"], r["rounds"])

    def rate(self, way, size, sas, workers):
        """Packets per second. One worker's must be what its clocks say: else the machine did other things, and what is
        compared with them would look better than it is."""
        rate = self.rates[way, size, sas, workers]
        if workers == 1:
            by_clocks = self.results["tsc_hz"] / self.clocks[way, size, sas]
            if rate < QUIET * by_clocks:
                raise Failed("not quiet here: one worker does %.2f Mpps, and %.2f by its clocks" % (
                    rate / 1e6, by_clocks / 1e6))
        return rate


def core():
    """What the CPU's cores are, as far as the claims speak of it."""
    cpu = {}
    with open("/proc/cpuinfo") as f:
        for line in f:
            name, _, value = line.partition(":")
            cpu.setdefault(name.strip(), value.strip())
    family, model = int(cpu.get("cpu family", 0)), int(cpu.get("model", 0))
    told = "%s family %d model %d" % (cpu.get("vendor_id", "unknown vendor"), family, model)
    if cpu.get("vendor_id") != "AuthenticAMD" or family != 25:
        return told
    zen3 = model < 0x10 or 0x20 <= model < 0x60
    return told + (": Zen 3" if zen3 else ": Zen 4")


def sas_of(n):
    return "1 SA" if n == 1 else "{:,} SAs".format(n)
