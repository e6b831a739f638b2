#!/usr/bin/env python3
"""A stream of numbered UDP packets at a rate, and who counts which of them came.

As a program: `stream.py send ADDRESS PORT RATE SECONDS OCTETS` or `stream.py receive ADDRESS PORT`; either tells what it
knows, in JSON, at its end or on SIGTERM.
"""

import array, ctypes, json, os, re, signal, socket, sys, time

BUFFER = 256 << 20
LATE_SECONDS = 0.5


AT_ONCE = 64
# How long either end rests between packets: so many go through at a time that the stream takes little of the cores that the
# gateways are to have.
REST_SECONDS = 0.0005


class IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class MsgHdr(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("name_len", ctypes.c_uint), ("iov", ctypes.POINTER(IoVec)), ("iov_len", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("control_len", ctypes.c_size_t), ("flags", ctypes.c_int)]


class MMsgHdr(ctypes.Structure):
    _fields_ = [("header", MsgHdr), ("len", ctypes.c_uint)]


class Messages:
    """Room for packets that go to the system, or come from it, in one call. Each begins with its number."""

    def __init__(self, octets):
        self.room = ctypes.create_string_buffer(AT_ONCE * octets)
        self.numbers = memoryview(self.room).cast("B").cast("Q")[::octets // 8]
        at = ctypes.addressof(self.room)
        self.parts = (IoVec * AT_ONCE)(*(IoVec(at + n * octets, octets) for n in range(AT_ONCE)))
        self.headers = (MMsgHdr * AT_ONCE)()
        for header, part in zip(self.headers, self.parts):
            header.header.iov, header.header.iov_len = ctypes.pointer(part), 1


libc = ctypes.CDLL(None, use_errno=True)


class Stopped:
    """Whether there was a SIGTERM. What is being sent or received is counted before anybody looks."""

    def __init__(self):
        self.is_so = False
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_):
        self.is_so = True


def send(to, rate, seconds, octets, stopped):
    s = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    s.connect(to)
    number, messages, fd = 0, Messages(octets), s.fileno()
    start, late, begun = time.monotonic(), 0.0, time.time()
    while (now := time.monotonic() - start) < seconds and not stopped.is_so:
        due = int(now * rate)
        if number + rate * LATE_SECONDS < due:  # it had no time to run: the stream has a gap and not a flood
            late += now - number / rate
            start += now - number / rate
            continue
        while number < due:
            n = min(AT_ONCE, due - number)
            messages.numbers[:n] = memoryview(array.array("Q", range(number, number + n)))
            number += max(libc.sendmmsg(fd, messages.headers, n, 0), 0)
        time.sleep(REST_SECONDS)
    return {"sent": number, "seconds": time.monotonic() - start, "late": late, "begun": begun}


def receive(at, stopped):
    s = socket.socket(socket.AF_INET6 if ":" in at[0] else socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, 33, BUFFER)  # SO_RCVBUFFORCE
    s.bind(at)
    seen, messages, fd = bytearray(1 << 20), Messages(2048), s.fileno()
    packets, behind, highest = 0, 0, -1
    print("ready", flush=True)
    while not stopped.is_so:
        n = libc.recvmmsg(fd, messages.headers, AT_ONCE, 0x10000, None)  # MSG_WAITFORONE
        if n < 0:
            continue
        packets += n
        numbers = messages.numbers[:n].tolist()
        if max(numbers) >= len(seen):
            seen.extend(bytes(max(numbers) + (1 << 20) - len(seen)))
        if numbers == list(range(highest + 1, highest + 1 + n)):
            seen[highest + 1:highest + 1 + n] = b"\1" * n
            highest += n
        else:
            for number in numbers:
                behind += number <= highest
                highest = max(highest, number)
                seen[number] += 1
        if n < AT_ONCE:
            time.sleep(REST_SECONDS)
    of = bytes(memoryview(seen)[:highest + 1])
    once = len(of) - of.count(0)
    gaps = [[gap.start(), gap.end() - gap.start()] for gap in re.finditer(b"\0+", of)]
    longest = max([length for _, length in gaps], default=0)
    # The eighth column of /proc/net/udp is what the socket has dropped.
    with open("/proc/net/udp6" if s.family == socket.AF_INET6 else "/proc/net/udp") as f:
        drops = sum(int(line.split()[12]) for line in f.read().splitlines()[1:] if int(line.split()[1].split(":")[1], 16) == s.getsockname()[1])
    return {"received": once, "repeated": packets - once, "behind": behind, "highest": highest, "gaps": gaps[:100], "longest": longest,
            "dropped": drops}


class Stream:
    """From a node of a lab to an address of another."""

    def __init__(self, lab, source, sink, address, rate, seconds=600, octets=64, port=7000):
        self.lab, self.files = lab, {kind: "%s/stream-%s-%d" % (lab.dir, kind, time.monotonic_ns()) for kind in ("send", "receive")}
        me = os.path.realpath(__file__)
        self.receiver = lab.start(sink, sys.executable, me, "receive", address, str(port), log=self.files["receive"])
        end = time.monotonic() + 10
        while "ready" not in open(self.files["receive"]).read():
            if time.monotonic() > end or self.receiver.poll() is not None:
                raise RuntimeError(open(self.files["receive"]).read())
            time.sleep(0.01)
        command = ("send", address, str(port), str(rate), str(seconds), str(octets))
        self.sender = lab.start(source, sys.executable, me, *command, log=self.files["send"])

    def stop(self):
        """Ends it; what both ends know."""
        told = {}
        if self.sender.poll() is None:
            self.sender.terminate()
        for kind, process in (("send", self.sender), ("receive", self.receiver)):
            if kind == "receive":
                time.sleep(1)
                process.terminate()
            process.wait(60)
            with open(self.files[kind]) as f:
                told.update(json.loads(f.read().split("\n", kind == "receive")[-1 if kind == "receive" else 0]))
        told["lost"] = told["sent"] - told["received"]
        # What was sent behind the last that came is a gap, too.
        told["longest"] = max(told["longest"], told["sent"] - 1 - told["highest"])
        return told


def main():
    stopped = Stopped()
    if sys.argv[1] == "send":
        told = send((sys.argv[2], int(sys.argv[3])), float(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6]), stopped)
    else:
        told = receive((sys.argv[2], int(sys.argv[3])), stopped)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
