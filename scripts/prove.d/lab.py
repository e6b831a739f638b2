"""The lab of a claim: network namespaces by scripts/lab, the gateways in them, and the count of what holds."""

import contextlib, json, os, re, shutil, signal, subprocess, sys, tempfile, time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
RELEASE = os.path.join(os.environ.get("CARGO_TARGET_DIR", TOP + "/target"), "release")
BIN = os.environ.get("PORTCULLIS_BIN") or RELEASE
PEERS = os.environ.get("PORTCULLIS_PEERS", TOP + "/../shared/peers")
H1, H2 = {4: "10.99.1.2", 6: "fd99:1::2"}, {4: "10.99.2.2", 6: "fd99:2::2"}
# What `portcullis` exits with where neither of a gateway's processes runs.
NOT_RUNNING = 3
WIRE = {1: {4: "10.99.0.1", 6: "fd99::1"}, 2: {4: "10.99.0.2", 6: "fd99::2"}}


class Failed(Exception):
    """What was to be shown does not hold, or a command that must succeed did not."""


def output(*command, timeout=120, accepts=(0,), **kw):
    """The output of a command that must succeed, by these exit codes."""
    r = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, **kw)
    if r.returncode not in accepts:
        raise Failed("%s: exit %d\n%s" % (" ".join(command), r.returncode, r.stdout[-2000:]))
    return r.stdout


def wait_for(what, check, seconds=10.0):
    """The first true value that `check` gives."""
    end = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed("%s: not within %g s" % (what, seconds))
        time.sleep(0.02)


class Cases:
    """Counts what holds and what does not."""

    def __init__(self):
        self.passed = self.failed = 0

    def run(self, name, case, *args, quiet=False, counts=True):
        """Runs one case, which raises where it does not hold, and tells its figure. A quiet one tells only what does not
        hold; one that does not count is no case of its own where it holds."""
        try:
            figure = case(*args)
        except (Failed, subprocess.TimeoutExpired) as x:
            self.failed += 1
            print("FAIL %s: %s" % (name, x), flush=True)
            return False
        self.passed += counts
        if not quiet:
            print("ok   %s%s" % (name, ": %s" % figure if figure else ""), flush=True)
        return True

    def exit(self, figure):
        """Prints the claim's figure and exits as the cases came out."""
        print("%d of %d: %s" % (self.passed, self.passed + self.failed, figure))
        sys.exit(1 if self.failed or not self.passed else 0)


class Lab:
    """Namespaces that are gone when the block is left. What `ends` is told ends before, the last first, whatever of it fails."""

    def __init__(self, kind="up", *options):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.name = "prove%d" % os.getpid()
        self.kind, self.options, self.children, self.gateways = kind, options, [], []

    def __enter__(self):
        with contextlib.ExitStack() as ends:
            # A tmpfs, as /run is: elsewhere iked keeps no IKE SAs for its next start.
            self.dir = tempfile.mkdtemp(prefix="portcullis-prove.", dir="/dev/shm")
            ends.callback(shutil.rmtree, self.dir, ignore_errors=True)
            ends.callback(output, TOP + "/scripts/lab", "down", self.name)
            output(TOP + "/scripts/lab", self.kind, self.name, *self.options)
            ends.callback(self.kill)
            self.ends = ends.pop_all()
        return self

    def __exit__(self, *_):
        of = sys.exc_info()
        try:
            self.ends.__exit__(*of)
        except (Failed, subprocess.TimeoutExpired) as x:
            if not of[0]:
                raise
            print(x)  # why it has failed is told by whoever sees that

    def kill(self):
        """What was started and still runs."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()

    def inside(self, node, *command):
        return ["ip", "netns", "exec", "%s-%s" % (self.name, node), *command]

    def run(self, node, *command, **kw):
        """The output of a command in a namespace, which must succeed."""
        return output(*self.inside(node, *command), **kw)

    def start(self, node, *command, log=None, **kw):
        """A process in a namespace; it is killed at the end if it still runs."""
        out = open(log, "ab") if log else subprocess.DEVNULL
        child = subprocess.Popen(self.inside(node, *command), stdin=subprocess.DEVNULL,
                                 **{"stdout": out, "stderr": subprocess.STDOUT, **kw})
        self.children.append(child)
        return child

    def conf(self, *options):
        """Writes the gateways' configurations; the MTU inside the tunnel."""
        return int(output(TOP + "/scripts/lab", "conf", self.name, self.dir, *options).split()[-1])

    def ping(self, node, address, count=5, size=56, interval=0.05, dont_fragment=False):
        """Pings without one loss."""
        # One more: for the last answer, ping waits no longer than for those before, which may be too short.
        command = ["ping", "-n", "-c%d" % (count + 1), "-i%g" % interval, "-W2", "-s%d" % size, address]
        if dont_fragment:
            command[1:1] = ["-Mdo"]
        told = self.run(node, *command)
        missing = set(range(1, count + 1)) - set(map(int, re.findall(r"bytes from .*icmp_seq=(\d+)", told)))
        if missing:  # ping itself is content with one answer
            raise Failed("%s: no answer to %s of %d" % (" ".join(command), sorted(missing), count))

    def mac(self, node, device):
        return re.search(r"link/ether (\S+)", self.run(node, "ip", "link", "show", device)).group(1)

    def wait_for_listener(self, node, port):
        """Waits till somebody listens on a TCP port."""
        wait_for("port %d" % port, lambda: self.run(node, "ss", "-Hltn", "sport", "= :%d" % port))

    def is_reachable(self, node, address, *options):
        command = self.inside(node, "ping", "-n", "-q", "-c1", "-W0.2", *options, address)
        return subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0

    def counted(self, node):
        """Packets that nftables has counted, by the comments of rules."""
        found = {}
        for item in json.loads(self.run(node, "nft", "-j", "list", "ruleset"))["nftables"]:
            rule = item.get("rule", {})
            for part in rule.get("expr", []):
                if "counter" in part:
                    found[rule["comment"]] = found.get(rule["comment"], 0) + part["counter"]["packets"]
        return found


class Scene:
    """What stands in a lab of its own, `lab`, and is gone when the block is left, or where not all of it comes up."""

    def __enter__(self):
        with contextlib.ExitStack() as ends:
            ends.enter_context(self.lab)
            self.set_up()
            ends.pop_all()
        return self

    def __exit__(self, *error):
        self.lab.__exit__(*error)


class Ping:
    """Pings from a node all the time."""

    def __init__(self, lab, address, interval=0.01, node="h1"):
        self.file = "%s/ping-%s-%d" % (lab.dir, node, time.monotonic_ns())
        self.ping = lab.start(node, "ping", "-n", "-D", "-i%g" % interval, address, log=self.file)

    def times(self):
        """When answers came."""
        with open(self.file) as f:
            return [float(t) for t in re.findall(r"^\[([\d.]+)\] \d+ bytes from", f.read(), re.M)]

    def wait_answered(self):
        """Seconds until the next answer."""
        start, before = time.time(), len(self.times())
        wait_for("an answer", lambda: len(self.times()) > before, 5)
        return time.time() - start

    def wait_silent(self):
        """Seconds until the last answer."""
        start = time.time()
        wait_for("silence", lambda: (self.times() or [0])[-1] < time.time() - 0.5, 5)
        return max(0, self.times()[-1] - start)

    def stop(self):
        self.ping.terminate()
        self.ping.wait()

    def gap(self):
        """Stops, and returns the longest time without an answer. One that lasts till the end counts."""
        end = time.time()
        self.stop()
        times = self.times() + [end]
        return max(b - a for a, b in zip(times, times[1:]))


class Gateway:
    """Gateway N of a lab: both processes by `portcullis`, or each on its own so that a test can kill it."""

    def __init__(self, lab, n):
        self.lab, self.node, self.dir = lab, "g%d" % n, "%s/g%d" % (lab.dir, n)
        self.iked = self.datapath = None

    def portcullis(self, *args):
        return self.lab.run(self.node, BIN + "/portcullis", *args, "--config", self.dir)

    def up(self):
        """Starts both, and waits till the datapath forwards."""
        if self not in self.lab.gateways:
            self.lab.gateways.append(self)
            self.lab.ends.callback(lambda: self.down())
        self.portcullis("up")

    def down(self):
        """Ends both, or what of them still runs."""
        self.lab.run(self.node, BIN + "/portcullis", "down", "--config", self.dir, accepts=(0, NOT_RUNNING))

    def status(self):
        """What `portcullis status` knows; parts are null while a process is away."""
        command = self.lab.inside(self.node, BIN + "/portcullis", "status", "--json", "--config", self.dir)
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, timeout=10).stdout)

    def start(self, program):
        return self.lab.start(self.node, BIN + "/" + program, "--config", self.dir, log="%s/%s.log" % (self.dir, program))

    def start_iked(self):
        """Starts iked, and waits till it answers."""
        self.iked = self.start("portcullis-iked")
        wait_for("iked answers", lambda: (self.status()["iked"] or {}).get("pid") == self.iked.pid)

    def start_datapath(self):
        self.datapath = self.start("portcullis-datapath")

    def wait_ready(self):
        wait_for("the datapath is ready", lambda: (self.status()["datapath"] or {}).get("pid") == self.datapath.pid)

    def restart_datapath(self):
        """Kills it without a chance to tidy up, and starts it again at once."""
        self.datapath.kill()
        self.datapath.wait()
        self.start_datapath()

    def drops(self):
        """Drops by reason."""
        return self.status()["datapath"]["drops"]

    def sas(self):
        """SPI, slot and generation of each SA."""
        return sorted((c[d]["spi"], c[d]["slot"], c[d]["generation"])
                      for c in self.status()["connections"] for d in ("inbound", "outbound"))
