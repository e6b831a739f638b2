#!/usr/bin/python3
"""Packets of every algorithm, made by OpenSSL (python3-cryptography): `suites.py > suites.rsp`.

What a packet has where is written anew from the RFCs here, so that one mistake does not make both halves agree.
"""
import hashlib
import hmac
import itertools
import struct

from cryptography.hazmat.decrepit.ciphers.algorithms import Camellia, TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.cmac import CMAC

SPI = 0x51A7E5EE


def octets(seed, n):
    """Some octets, always the same."""
    return hashlib.shake_256(seed.encode()).digest(n)


def ecb(key, block):
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def xcbc(key, data):
    """RFC 3566 §4."""
    k1, k2, k3 = (ecb(key, bytes([n]) * 16) for n in (1, 2, 3))
    blocks = [data[i : i + 16] for i in range(0, len(data), 16)] or [b""]
    e = bytes(16)
    for block in blocks[:-1]:
        e = ecb(k1, xor(block, e))
    last = blocks[-1]
    last = xor(last, k2) if len(last) == 16 else xor((last + b"\x80").ljust(16, b"\0"), k3)
    return ecb(k1, xor(last, e))


def cmac(key, data):
    mac = CMAC(algorithms.AES(key))
    mac.update(data)
    return mac.finalize()


# Name: octets of key and ICV, and the whole MAC.
MACS = {
    "hmac-sha1-96": (20, 12, lambda k, d: hmac.digest(k, d, "sha1")),
    "hmac-sha2-256-128": (32, 16, lambda k, d: hmac.digest(k, d, "sha256")),
    "hmac-sha2-384-192": (48, 24, lambda k, d: hmac.digest(k, d, "sha384")),
    "hmac-sha2-512-256": (64, 32, lambda k, d: hmac.digest(k, d, "sha512")),
    "aes-xcbc-96": (16, 12, xcbc),
    "aes-cmac-96": (16, 12, cmac),
}


def tell(name, key, seq, esn, **values):
    print(f"Algorithm = {name}\nKey = {key.hex()}\nSeq = {struct.pack('>Q', seq).hex()}\nESN = {int(esn):02x}")
    for of, value in values.items():
        print(f"{of} = {value.hex()}")
    print()


def aead(name, key_len, salt_len, seal, esn, implicit_iv=False):
    """RFC 4106 §5, RFC 4309 §5, RFC 7634 §2.1, RFC 8750 §4."""
    seq = 0x0000_0003_8000_0001 if esn else 0x8000_0001
    key, salt, text = octets(f"{name} key", key_len), octets(f"{name} salt", salt_len), octets(f"{name} text", 100)
    head, iv = struct.pack(">II", SPI, seq & 0xFFFF_FFFF), struct.pack(">Q", seq)
    aad = struct.pack(">IQ", SPI, seq) if esn else head
    sealed = seal(key, salt + iv, text, aad)
    tell(name, key + salt, seq, esn, Text=text, Packet=head + (b"" if implicit_iv else iv) + sealed)


def gmac(name, key_len, esn):
    """RFC 4543 §3."""
    seq = 0x0000_0003_8000_0001 if esn else 0x8000_0001
    key, salt, text = octets(f"{name} key", key_len), octets(f"{name} salt", 4), octets(f"{name} text", 100)
    head, iv = struct.pack(">II", SPI, seq & 0xFFFF_FFFF), struct.pack(">Q", seq)
    aad = struct.pack(">IQ", SPI, seq) if esn else head
    tag = AESGCM(key).encrypt(salt + iv, b"", aad + iv + text)
    tell(name, key + salt, seq, esn, Text=text, Packet=head + iv + text + tag)


def separate(cipher, mac, esn):
    """RFC 2451 §2, RFC 3602 §3, RFC 3686 §4, RFC 4303 §2.2.1, §3.3.2.1, RFC 4312 §3. The text of a cipher is the same with all MACs."""
    seq = 0x0000_0003_8000_0001 if esn else 0x8000_0001
    mode, _, bits = cipher.rpartition("-")
    bits = 192 if cipher == "3des-cbc" else int(bits or 0) if mode else 0
    key, text = octets(f"{cipher} key", bits // 8), octets(f"{cipher} text", 96)
    head, counter, salt, iv = struct.pack(">II", SPI, seq & 0xFFFF_FFFF), struct.pack(">Q", seq), b"", b""
    sealed = text
    if mode == "aes-cbc":
        iv = octets(f"{cipher} iv", 16)
        sealed = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor().update(text)
    elif mode == "camellia-cbc":
        iv = octets(f"{cipher} iv", 16)
        sealed = Cipher(Camellia(key), modes.CBC(iv)).encryptor().update(text)
    elif cipher == "3des-cbc":
        iv = octets(f"{cipher} iv", 8)
        sealed = Cipher(TripleDES(key), modes.CBC(iv)).encryptor().update(text)
    elif mode == "aes-ctr":
        salt, iv = octets(f"{cipher} salt", 4), counter
        first = salt + iv + struct.pack(">I", 1)
        sealed = Cipher(algorithms.AES(key), modes.CTR(first)).encryptor().update(text)
    mac_len, icv_len, whole = MACS[mac]
    mac_key = octets(f"{mac} key", mac_len)
    packet = head + iv + sealed
    icv = whole(mac_key, packet + (struct.pack(">I", seq >> 32) if esn else b""))[:icv_len]
    tell(f"{cipher}+{mac}", key + mac_key + salt, seq, esn, Text=text, Packet=packet + icv)


def ah(name, esn):
    """RFC 4302 §3.3.3.2.2, RFC 4543 §4."""
    seq = 0x0000_0003_8000_0001 if esn else 0x8000_0001
    packet = octets(f"{name} packet", 125)
    covered = packet + (struct.pack(">I", seq >> 32) if esn else b"")
    if name in MACS:
        key_len, icv_len, whole = MACS[name]
        key = octets(f"{name} key", key_len)
        icv = whole(key, covered)[:icv_len]
    else:
        key, salt = octets(f"{name} key", int(name[-3:]) // 8), octets(f"{name} salt", 4)
        icv = AESGCM(key).encrypt(salt + struct.pack(">Q", seq), b"", covered)
        key += salt
    tell(name, key, seq, esn, AH=packet, ICV=icv)


def main():
    print("# By suites.py and OpenSSL. Packet is all of ESP; AH is what an ICV covers, less the half of the number that")
    print("# is not sent.\n")
    gcm = lambda icv: lambda k, n, t, a: AESGCM(k).encrypt(n, t, a)[: len(t) + icv]
    ccm = lambda icv: lambda k, n, t, a: AESCCM(k, tag_length=icv).encrypt(n, t, a)
    chacha = lambda k, n, t, a: ChaCha20Poly1305(k).encrypt(n, t, a)
    for esn in (False, True):
        for bits, (icv, suffix) in itertools.product((128, 192, 256), ((16, ""), (12, "-icv12"), (8, "-icv8"))):
            aead(f"aes-gcm-{bits}{suffix}", bits // 8, 4, gcm(icv), esn)
            aead(f"aes-ccm-{bits}{suffix}", bits // 8, 3, ccm(icv), esn)
        for bits in (128, 192, 256):
            aead(f"aes-gcm-{bits}-iiv", bits // 8, 4, gcm(16), esn, implicit_iv=True)
            aead(f"aes-ccm-{bits}-icv8-iiv", bits // 8, 3, ccm(8), esn, implicit_iv=True)
            gmac(f"aes-gmac-{bits}", bits // 8, esn)
        aead("chacha20-poly1305", 32, 4, chacha, esn)
        aead("chacha20-poly1305-iiv", 32, 4, chacha, esn, implicit_iv=True)
        ciphers = [f"{mode}-{bits}" for mode in ("aes-cbc", "aes-ctr") for bits in (128, 192, 256)] + ["null"]
        for cipher, mac in itertools.product(ciphers, MACS):
            separate(cipher, mac, esn)
        older = [f"camellia-cbc-{bits}" for bits in (128, 192, 256)] + ["3des-cbc"]
        for cipher, mac in itertools.product(older, MACS):
            separate(cipher, mac, esn)
        for name in [*MACS, "aes-gmac-128", "aes-gmac-192", "aes-gmac-256"]:
            ah(name, esn)


main()
