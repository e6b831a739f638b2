"""iked of gateway 1 is killed under traffic and started again, with strongSwan and with our own gateway at the other end: what
claims of both versions of IKE share. A `kind` makes the pair."""

import os, random, re, time

from lab import H1, H2, Failed, Gateway, Lab, Ping, Scene, wait_for
from swan import Pair, by_them, by_us, connection, lost_of

AWAY_SECONDS = 1.5


class Ours:
    """An IKE gateway of ours, whose iked can be killed."""

    def __init__(self, lab, n, **options):
        self.n, self.gateway = n, Gateway(lab, n)
        self.file = self.gateway.dir + "/swanctl.conf"
        if os.path.exists(self.gateway.dir + "/connections.toml"):
            os.remove(self.gateway.dir + "/connections.toml")
        self.write(connection(n, **options))

    def write(self, text):
        with open(self.file, "w") as f:
            os.chmod(f.fileno(), 0o600)
            f.write(text)

    def kill(self):
        os.kill(self.gateway.status()["iked"]["pid"], 9)
        wait_for("iked is dead", lambda: not self.gateway.status()["iked"])

    def start(self):
        self.gateway.up()

    def restart(self, away=AWAY_SECONDS):
        self.kill()
        time.sleep(away)
        self.start()

    def sas(self):
        return self.gateway.status()["ike"]["sas"]

    def children(self):
        return [child for sa in self.sas() for child in sa["children"]]

    def spis(self):
        return [(sa["initiator_spi"], sa["responder_spi"], sorted((c["spi_in"], c["spi_out"], c["id"]) for c in sa["children"]))
                for sa in self.sas()]

    def log(self):
        return open(self.gateway.dir + "/run/iked.log").read()


class WithSwan(Pair):
    """strongSwan at the other end."""

    def set_up(self):
        super().set_up()
        self.us = Ours(self.lab, 1, **self.ours)

    def seen(self):
        """What strongSwan has: the SPIs, and for how many seconds."""
        raw = self.swan.ask("swanctl", "--list-sas", "--raw")
        value = lambda key: re.findall(r"(?<![\w-])%s=([^ {}\[\]]*)" % key, raw)
        return value("initiator-spi"), value("responder-spi"), value("spi-in"), value("spi-out"), value("established")

    def rekey(self, by, what):
        name = "net" if what == "child" else "peer"
        if by == "us":
            self.gateway.portcullis("rekey", name)
        else:
            # There is no other way in IKEv1.
            anew = ["--reauth"] if what == "ike" and self.theirs.get("version") == 1 else []
            self.swan.ask("swanctl", "--rekey", *anew, "--" + what, name)

    def begin(self, by):
        (by_us if by == "us" else by_them)(self)

    def end(self, by):
        if by == "us":
            self.gateway.portcullis("down", "peer")
        else:
            self.swan.ask("terminate", "peer")


class WithOurs(Scene):
    """Our own gateway at the other end, with the options of `connection` for each, and what is added to both portcullis.toml."""

    def __init__(self, ours={}, theirs={}, machine=""):
        self.lab, self.options, self.machine = Lab(), (ours, theirs), machine

    def set_up(self):
        self.lab.conf("--udp-encap")
        self.us, self.them = [Ours(self.lab, n, **options) for n, options in zip((1, 2), self.options)]
        self.gateway = self.us.gateway
        for end in (self.us, self.them):
            with open(end.gateway.dir + "/portcullis.toml", "a") as f:
                f.write(self.machine)
            end.gateway.up()

    def __exit__(self, *error):
        if error[0] and os.environ.get("PROVE_VERBOSE"):
            print(self.us.log(), self.them.log())
        super().__exit__(*error)

    def seen(self):
        sas = self.them.sas()
        children = [child for sa in sas for child in sa["children"]]
        return ([sa["initiator_spi"] for sa in sas], [sa["responder_spi"] for sa in sas], [c["spi_in"] for c in children],
                [c["spi_out"] for c in children], [sa["established_secs"] for sa in sas])

    def rekey(self, by, what):
        end = self.us if by == "us" else self.them
        end.gateway.portcullis("rekey", "net" if what == "child" else "peer")

    def begin(self, by):
        (self.us if by == "us" else self.them).gateway.portcullis("up", "net")
        wait_for("packets go through", lambda: self.lab.is_reachable("h1", H2[4]))
        self.lab.ping("h2", H1[4])

    def end(self, by):
        (self.us if by == "us" else self.them).gateway.portcullis("down", "peer")


def no_loss(ping):
    ping.wait_answered()
    lost = lost_of(ping)
    if lost:
        raise Failed("%d packets are lost" % lost)


def rekeys_all(pair):
    """Both SAs, by either end."""
    for by in ("us", "them"):
        for what in ("child", "ike"):
            key = lambda: pair.us.spis()[0][2] if what == "child" else pair.us.spis()[0][:2]
            old = key()
            pair.rekey(by, what)
            wait_for("%s replaces the %s SA" % (by, what),
                     lambda: len(pair.us.sas()) == 1 == len(pair.us.children()) and key() != old, 40)
    wait_for("there is one of each at the other end", lambda: [len(of) for of in pair.seen()[:4]] == [1] * 4, 40)


def goes_on(kind, begin, both=False, then=None):
    """Behind all that, something may come besides."""
    with kind() as pair:
        pair.begin(begin)
        ping = Ping(pair.lab, H2[4])
        ping.wait_answered()
        time.sleep(1.1)
        before, seen = pair.us.spis(), pair.seen()
        age = pair.us.sas()[0]["established_secs"]
        for _ in range(3):
            pair.us.restart()
            if both:
                pair.them.restart()
            if pair.us.spis() != before:
                raise Failed("other SAs: %s, %s" % (before, pair.us.spis()))
        now = pair.seen()
        if now[:4] != seen[:4] or int(now[4][0]) < int(seen[4][0]) + 3 * AWAY_SECONDS - 1:
            raise Failed("the other end sees others: %s, %s" % (seen, now))
        if pair.us.sas()[0]["established_secs"] < age + 3 * AWAY_SECONDS - 1:
            raise Failed("it is young")
        rekeys_all(pair)
        no_loss(ping)
        # Silence, in which both ask whether the other is there.
        spis = pair.us.spis()
        time.sleep(3)
        pair.us.restart()
        time.sleep(3)
        if pair.us.spis() != spis or not pair.lab.is_reachable("h1", H2[4]):
            raise Failed("they do not go on: %s, %s" % (spis, pair.us.spis()))
        said = then(pair) if then else ""
        return "4 times, nothing lost" + said


def killed_while_it_rekeys(kind):
    rng = random.Random(7)
    with kind() as pair:
        pair.begin("us")
        ping = Ping(pair.lab, H2[4])
        ping.wait_answered()
        rounds = 12
        for n in range(rounds):
            pair.rekey(("us", "them")[n % 2], ("child", "ike")[n // 2 % 2])
            time.sleep(rng.random() * 0.02)
            pair.us.restart(away=0.1)
            wait_for("one of each", lambda: len(pair.us.sas()) == 1 == len(pair.us.children()), 60)
            wait_for("one of each at the other end", lambda: [len(of) for of in pair.seen()[:4]] == [1] * 4, 60)
        rekeys_all(pair)
        no_loss(ping)
        return "%d times, nothing lost" % rounds


def configuration_changed(kind):
    with kind() as pair:
        pair.begin("us")
        ping = Ping(pair.lab, H2[4])
        ping.wait_answered()
        spis, text = pair.us.spis(), open(pair.us.file).read()
        for change in (text.replace("over_time = 60s", "over_time = 60s\n dpd_delay = 5s"), text.split("secrets {")[0].replace(
                "10.99.2.0/24", "10.99.77.0/24") + "secrets {" + text.split("secrets {")[1], ""):
            pair.us.kill()
            pair.us.write(change)
            pair.us.start()
            if pair.us.spis() != spis:
                raise Failed("other SAs: %s, %s" % (spis, pair.us.spis()))
        ping.wait_answered()
        # They are of what they were configured as.
        pair.rekey("them", "child")
        wait_for("another child SA", lambda: len(pair.us.children()) == 1 and pair.us.spis()[0][2] != spis[0][2])
        no_loss(ping)
        return "changed, of other traffic, and gone: nothing lost"


def damaged(kind, at=(-20, os.SEEK_END), octets=b"!", says="is damaged"):
    with kind() as pair:
        pair.begin("us")
        spis = pair.us.spis()
        pair.us.kill()
        with open(pair.us.gateway.dir + "/run/iked.state", "r+b") as f:
            f.seek(*at)
            f.write(octets)
        pair.us.start()
        if pair.us.sas() or pair.us.gateway.status()["iked"]["sas"] or says not in pair.us.log():
            raise Failed("%s: %s" % (pair.us.spis(), pair.us.log()[-1000:]))
        pair.begin("us")
        if pair.us.spis()[0][:2] == spis[0][:2]:
            raise Failed("the same IKE SA")
        return "refused, and begun anew"
