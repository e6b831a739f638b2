"""Many tunnels: the load generator at one end of a wire, and a responder at the other."""

import json, os, re, subprocess

from lab import BIN, PEERS, Failed, output, wait_for

GENERATOR, RESPONDER = "10.99.0.1", "10.99.0.2"
INSIDE = "10.99.2.0/24"
# All come from one address.
WITHOUT_LIMITS = "[ike]\nhalf_open_per_host = 1000000\ncookies_from = 1000000\ninit_per_second = 0"
MACHINE = """
[regions]
directory = "%(dir)s/run"
max_sas = 65536
max_policies = 65536
%(limits)s
[[port]]
interface = "wire0"
"""
SIGNERS = """
charon {
  load = random nonce drbg openssl aes sha1 sha2 hmac kdf gcm curve25519 pem pkcs1 pkcs8 x509 pubkey vici load-tester kernel-netlink socket-default counters
  threads = 20
  port = 0
  port_nat_t = 0
  reuse_ikesa = no
  install_routes = no
  ikesa_table_size = 4096
  ikesa_table_segments = 16
  retransmit_timeout = 2.0
  retransmit_tries = 4
  dos_protection = no
  plugins {
    vici { socket = unix:///run/charon.vici }
    load-tester {
      enable = yes
      fake_kernel = yes
      version = 2
      initiators = 0
      initiator = 10.99.0.1
      responder = 10.99.0.2
      proposal = aes128-sha256-prfsha256-x25519
      esp = aes128gcm16
      initiator_auth = pubkey
      responder_auth = pubkey
      initiator_id = a.test
      responder_id = b.test
      request_virtual_ip = no
      shutdown_when_complete = no
      ike_rekey = 0
      child_rekey = 0
      initiator_tsr = 10.99.2.0/24
      socket = unix:///run/charon.ldt
    }
  }
}
"""
# What the generator has for itself, and an ESP that installs nothing.
RESPONDER_SWAN = """
charon {
  load = random nonce drbg openssl aes sha1 sha2 hmac kdf gcm curve25519 pem pkcs1 pkcs8 x509 pubkey vici load-tester kernel-netlink socket-default counters
  install_routes = no
  ikesa_table_size = 4096
  ikesa_table_segments = 16
  dos_protection = no
  plugins {
    load-tester {
      enable = yes
      fake_kernel = yes
      initiators = 0
      preshared_key = "test psk 0123456789"
      socket = unix:///run/charon.ldt
    }
  }
}
"""
CONNECTION = """
connections {
  gw {
    version = 2
    local_addrs = 10.99.0.2
    proposals = aes128-sha256-x25519
    rekey_time = 4h
    unique = never
    %(vips)s
    local { auth = %(auth)s
      id = b.test }
    remote { auth = %(auth)s
      id = %%any }
    children {
      net {
        local_ts = 10.99.2.0/24
        remote_ts = dynamic
        esp_proposals = aes128gcm16
        rekey_time = 1h
      }
    }
  }
}
%(pools)s
secrets { ike-1 { secret = "test psk 0123456789" } }
"""


def connection(auth, vips=False):
    """swanctl.conf of a responder for any number of peers."""
    pools = "pools { vips { addrs = 10.64.0.0/12 } }" if vips else ""
    return CONNECTION % dict(auth=auth, vips="pools = vips" if vips else "", pools=pools)


TUNNELS_OF = """
  %(name)s {
    version = 2
    local_addrs = %(local)s
    remote_addrs = %(remote)s
    proposals = %(ike)s
    unique = never
    %(more)s
    local { auth = %(auth)s
      id = %(me)s }
    remote { auth = %(auth)s
      id = %(you)s }
    children { net {
        local_ts = %(local_ts)s
        remote_ts = %(remote_ts)s
        esp_proposals = %(esp)s } }
  }"""


def bench_conf(is_gateway, connections, between=(RESPONDER, GENERATOR), behind=INSIDE):
    """swanctl.conf of the gateway or of the initiators of `portcullis bench tunnels`, by the addresses of the two and by what is behind
    the gateway. A connection is a name, how both ends prove who they are, and what the IKE SA and the child SA are made of.
    Identities tell connections apart, and with certificates are those of their kind of key, which the name begins with."""
    text = ""
    for name, auth, ike, esp in connections:
        of = (lambda end: "%s.%s.test" % (end, name.split("-")[0])) if auth == "pubkey" else (lambda end: "%s.%s.test" % (end, name))
        me, you = ("b", "a") if is_gateway else ("a", "b")
        gateway, client = between
        text += TUNNELS_OF % dict(
            name=name, auth=auth, ike=ike, esp=esp, me=of(me), you=of(you),
            local=gateway if is_gateway else client, remote=client if is_gateway else gateway,
            more="pools = vips" if is_gateway else "vips = 0.0.0.0",
            local_ts=behind if is_gateway else "dynamic", remote_ts="dynamic" if is_gateway else behind)
    pools = "pools { vips { addrs = 10.64.0.0/12 } }" if is_gateway else ""
    return "connections {%s\n}\n%s\nsecrets { ike-1 { secret = \"a key of this lab alone\" } }\n" % (text, pools)


# What openssl makes keys of.
KEYS = {"ecdsa": ("EC", "ec_paramgen_curve:P-256"), "rsa": ("RSA", "rsa_keygen_bits:2048")}


def bench_certificates(kind, made, gateway, client):
    """Certificates of one authority for both of these directories, by keys of that kind, named as `bench_conf` does."""
    os.makedirs(made, exist_ok=True)
    write(made + "/openssl.cnf", "[req]\ndistinguished_name = dn\n[dn]\n")

    def certificate(name, signed, *extensions):
        algorithm, option = KEYS[kind]
        key, file = "%s/%s.key" % (made, name), "%s/%s.pem" % (made, name)
        output("openssl", "genpkey", "-algorithm", algorithm, "-pkeyopt", option, "-out", key)
        output("openssl", "req", "-x509", "-new", "-config", made + "/openssl.cnf", "-key", key, "-subj", "/CN=" + name, "-days", "30",
               *signed, *(word for extension in extensions for word in ("-addext", extension)), "-out", file)
        return key, file

    ca_key, ca = certificate(kind + "-ca", (), "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
    for end, directory in (("a", client), ("b", gateway)):
        name = "%s.%s.test" % (end, kind)
        key, file = certificate(name, ("-CA", ca, "-CAkey", ca_key), "subjectAltName=DNS:" + name)
        for of, what in (("private", key), ("x509", file), ("x509ca", ca)):
            os.makedirs("%s/%s" % (directory, of), mode=0o700, exist_ok=True)
            output("cp", what, "%s/%s/%s" % (directory, of, os.path.basename(what)))


def keys(directory, *names):
    """Certificates of one authority, ECDSA by P-256: a swanctl directory for each name."""
    output(PEERS + "/strongswan/mkpki.sh", directory, *names, env=dict(os.environ, KEY="ecdsa"))


class Process:
    """What a process has used."""

    def __init__(self, pid):
        self.pid = pid

    def seconds(self):
        """User and system time of all its threads."""
        with open("/proc/%d/stat" % self.pid) as f:
            fields = f.read().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """Octets of its own memory: not of what it shares, as the regions are."""
        with open("/proc/%d/status" % self.pid) as f:
            return int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1)) * 1024


class Ours:
    """portcullis-iked as responder, without a datapath."""

    name = "portcullis"

    def __init__(self, lab, directory, conf, limits=WITHOUT_LIMITS):
        self.lab, self.dir = lab, directory
        os.makedirs(directory, exist_ok=True)
        with open(directory + "/portcullis.toml", "w") as f:
            f.write(MACHINE % dict(dir=directory, limits=limits))
        write(directory + "/swanctl.conf", conf)

    def __enter__(self):
        env = dict(os.environ, RUST_LOG="warn")
        log = open(self.dir + "/iked.log", "ab")
        self.child = self.lab.start("b", BIN + "/portcullis-iked", "--config", self.dir, env=env, stdout=log)
        wait_for("iked listens", lambda: os.path.exists(self.dir + "/run/charon.vici"))
        wait_for("it keeps IKE SAs for its next start", lambda: os.path.exists(self.dir + "/run/iked.state"))
        self.process = Process(self.child.pid)
        return self

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait()

    def stats(self):
        return output("swanctl", "--stats", "--uri", "unix://%s/run/charon.vici" % self.dir)

    def established(self):
        return established(self.stats())

    def half_open(self):
        return int(re.search(r"(\d+) half-open", self.stats()).group(1))

    def refused(self):
        """Messages that nothing came of, by why."""
        told = self.lab.run("b", BIN + "/portcullis", "list", "--json", "--config", self.dir)
        return json.loads(told)["refused"]


class Swan:
    """strongSwan as responder, built as the generator is: its SAs are installed nowhere."""

    name = "strongSwan"

    def __init__(self, lab, directory, conf):
        self.lab, self.dir, self.node = lab, directory, lab.name + "-b"
        self.env = dict(os.environ, PEERS_RUN=lab.dir + "/peers", PEERS_NS=lab.name, PEER_LOGLEVEL="0", PEER_CHARON=generator() + "charon")
        os.makedirs(directory + "/strongswan.conf.d", exist_ok=True)
        write(directory + "/strongswan.conf.d/load.conf", RESPONDER_SWAN)
        write(directory + "/swanctl.conf", conf)

    def ask(self, command, *args):
        return output(PEERS + "/strongswan/peer.sh", command, self.node, *args, env=self.env)

    def __enter__(self):
        self.ask("up", self.dir)
        with open("%s/peers/strongswan/%s/pid" % (self.lab.dir, self.node)) as f:
            pid = f.read().split()[0]
        with open("/proc/%s/task/%s/children" % (pid, pid)) as f:
            self.process = Process(int(f.read()))
        return self

    def __exit__(self, *_):
        self.ask("down")

    def established(self):
        return established(self.ask("swanctl", "--stats"))


def established(stats):
    total, half_open = map(int, re.search(r"IKE_SAs: (\d+) total, (\d+) half-open", stats).groups())
    return total - half_open


def write(path, text):
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as f:
        f.write(text)


def generator():
    """Where the generator's programs are; built where they are not yet."""
    output(PEERS + "/load/build.sh")
    return output(PEERS + "/load/build.sh", "path").strip() + "/libexec/ipsec/"


def load(lab, count, limit=32, hold=0, **more):
    """Starts the generator for so many tunnels by a shared key: a process whose output ends with its figure."""
    env = dict(os.environ, SOURCE=GENERATOR, LIMIT=str(limit), HOLD=str(hold), TSR=INSIDE, REMOTE_ID="b.test", **more)
    generator()
    command = [PEERS + "/load/load.sh", lab.name + "-a", RESPONDER, str(count)]
    child = subprocess.Popen(command, env=env, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lab.children.append(child)
    return child


class Signers:
    """The generator's program with a certificate, which its script does not know of."""

    def __init__(self, lab, keys):
        self.lab, self.keys, self.dir = lab, keys, lab.dir + "/generator"
        self.programs = generator()

    def __enter__(self):
        os.makedirs(self.dir, exist_ok=True)
        write(self.dir + "/strongswan.conf", SIGNERS)
        script = 'mount --bind "$1" /run && export STRONGSWAN_CONF=/run/strongswan.conf && exec setpriv --pdeathsig KILL "$2"'
        self.charon = self.lab.start("a", "unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh",
                                     self.dir, self.programs + "charon")
        wait_for("the generator listens", lambda: os.path.exists(self.dir + "/charon.ldt"))
        write(self.keys + "/swanctl.conf", "")
        output("swanctl", "--load-creds", "--uri", "unix://%s/charon.vici" % self.dir, env=dict(os.environ, SWANCTL_DIR=self.keys))
        return self

    def __exit__(self, *_):
        self.charon.kill()
        self.charon.wait()

    def load(self, count, apart_ms):
        """Begins so many tunnels, so far apart."""
        inside = ["nsenter", "-t", str(self.charon.pid), "-m", "env", "STRONGSWAN_CONF=/run/strongswan.conf"]
        command = inside + [self.programs + "load-tester", "initiate", str(count), str(apart_ms)]
        child = subprocess.Popen(command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.lab.children.append(child)
        return child
