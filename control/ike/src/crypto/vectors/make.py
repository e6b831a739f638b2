#!/usr/bin/env python3
"""Makes the vectors beside it with other people's code: Python's hmac, and OpenSSL by the package `cryptography`.

Formulas are written down here once more, from the RFCs. Run it in its own folder; signatures and keys come out anew
each time, all else is the same.
"""
import hashlib, hmac
from cryptography.hazmat.primitives import hashes, serialization as ser
from cryptography.hazmat.primitives.asymmetric import dh, ec, ed448, ed25519, padding, rsa, utils, x448, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES

NOTE = "# Made by make.py, which says how.\n"
PRFS = {"prfsha1": "sha1", "prfsha256": "sha256", "prfsha384": "sha384", "prfsha512": "sha512"}


def known(label, length):
    """Octets that look random."""
    return hashlib.shake_256(label.encode()).digest(length)


def write(name, records):
    with open(name, "w") as file:
        file.write(NOTE)
        for record in records:
            file.write("\n")
            for key, value in record.items():
                file.write(f"{key} = {value.hex() if isinstance(value, bytes) else value}\n")


def prf(name, key, data):
    return hmac.new(key, data, PRFS[name]).digest()


def prf_plus(name, key, seed, length):  # RFC 7296 §2.13
    out, block, number = b"", b"", 1
    while len(out) < length:
        block = prf(name, key, block + seed + bytes([number]))
        out, number = out + block, number + 1
    return out[:length]


def hmacs():
    cases = [  # RFC 4231 §4.2 to §4.8, without the truncated one, and RFC 2202 §3, whose cases 1, 2 are like them
        (b"\x0b" * 20, b"Hi There"),
        (b"Jefe", b"what do ya want for nothing?"),
        (b"\xaa" * 20, b"\xdd" * 50),
        (bytes(range(1, 26)), b"\xcd" * 50),
        (b"\xaa" * 131, b"Test Using Larger Than Block-Size Key - Hash Key First"),
        (b"\xaa" * 131, b"This is a test using a larger than block-size key and a larger than block-size data. "
         b"The key needs to be hashed before being used by the HMAC algorithm."),
    ]
    assert prf("prfsha256", *cases[0]).hex().startswith("b0344c61d8db38535ca8afceaf0bf12b")  # as RFC 4231 prints it
    assert prf("prfsha1", *cases[0]).hex() == "b617318655057264e28bc0b6fb378c8ef146be00"  # as RFC 2202 prints it
    write("hmac.txt", [dict(prf=name, key=k, data=d, out=prf(name, k, d)) for name in PRFS for k, d in cases])


ECP = [  # §8.1, §8.2, §8.3: i, r, and girx
    ("ecp256", ec.SECP256R1(),
     "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433",
     "C6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53",
     "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE"),
    ("ecp384", ec.SECP384R1(),
     "099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655E35B538041E649EE3FAEF896783AB194",
     "41CB0779B4BDB85D47846725FBEC3C9430FAB46CC8DC5060855CC9BDA0AA2942E0308312916B8ED2960E4BD55A7448FC",
     "11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4D603135569B9E9D09CF5D4A270F59746"),
    ("ecp521", ec.SECP521R1(),
     "0037ADE9319A89F4DABDB3EF411AACCCA5123C61ACAB57B5393DCE47608172A095AA85A30FE1C2952C6771D937BA9777F595"
     "7B2639BAB072462F68C27A57382D4A52",
     "0145BA99A847AF43793FDD0E872E7CDFA16BE30FDC780F97BCCC3F078380201E9C677D600B343757A3BDBF2A3163E4C2F869"
     "CCA7458AA4A4EFFC311F5CB151685EB9",
     "01144C7D79AE6956BC8EDB8E7C787C4521CB086FA64407F97894E5E6B2D79B04D1427E73CA4BAA240A34786859810C06B3C7"
     "15A3A8CC3151F2BEE417996D19F3DDEA"),
]
X25519 = [  # §6.1: both private keys, and K
    "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
    "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
    "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
]


def pi(bits):
    """Machin's formula, in units of 2^-bits."""
    scale = 1 << bits + 64

    def arctan(x):
        term = total = scale // x
        n, sign = 3, -1
        while term:
            term //= x * x
            total, n, sign = total + sign * (term // n), n + 2, -sign
        return total
    return 4 * (4 * arctan(5) - arctan(239)) >> 64

X448 = [  # §6.2, the same
    "9a8f4925d1519f5775cf46b04b5800d4ee9ee8bae8bc5565d498c28dd9c9baf574a9419744897391006382a6f127ab1d9ac2d8c0a598726b",
    "1c306a7ac2a0e2e0990b294470cba339e6453772b075811d8fad0d1d6927c120bb5ee8972b0d3e21374c9c921b09d1b0366f10b65173992d",
    "07fff4181ac6cc95ec1c16a94a0f74d12da232ce40a77552281d282bb60c0b56fd2464c335543936521c24403085d59a449a5037514a879d",
]


def exchanges():
    records = []
    for name, bits, factor, exponent in (("modp2048", 2048, 124476, 40), ("modp3072", 3072, 1690314, 56),
                                         ("modp4096", 4096, 240904, 64)):
        # RFC 3526 §3 to §5 give the primes by this formula, too.
        p = 2**bits - 2**(bits - 64) - 1 + 2**64 * (pi(bits - 130) + factor)
        params = dh.DHParameterNumbers(p, 2)
        sides = []
        for side in "ir":
            x = int.from_bytes(known(name + side, exponent), 'big')
            y = pow(2, x, p)
            sides.append((x, y, dh.DHPrivateNumbers(x, dh.DHPublicNumbers(y, params)).private_key()))
        (x, y, key), (_, theirs, their_key) = sides
        size = bits // 8
        records.append(dict(method=name, private=x.to_bytes(exponent, 'big'), public=y.to_bytes(size, 'big'),
                            theirs=theirs.to_bytes(size, 'big'), secret=key.exchange(their_key.public_key())))
    for name, curve, i, r, secret in ECP:
        i, r, secret = bytes.fromhex(i), bytes.fromhex(r), bytes.fromhex(secret)
        keys = [ec.derive_private_key(int.from_bytes(k, 'big'), curve) for k in (i, r)]
        points = [k.public_key().public_bytes(ser.Encoding.X962, ser.PublicFormat.UncompressedPoint)[1:] for k in keys]
        assert keys[0].exchange(ec.ECDH(), keys[1].public_key()) == secret
        records.append(dict(method=name, private=i, public=points[0], theirs=points[1], secret=secret))
    for name, values, private in (("x25519", X25519, x25519.X25519PrivateKey), ("x448", X448, x448.X448PrivateKey)):
        i, r, secret = map(bytes.fromhex, values)
        keys = [private.from_private_bytes(k) for k in (i, r)]
        assert keys[0].exchange(keys[1].public_key()) == secret
        publics = [k.public_key().public_bytes_raw() for k in keys]
        records.append(dict(method=name, private=i, public=publics[0], theirs=publics[1], secret=secret))
    write("exchange.txt", records)


def keys():
    records = []
    for name, encryption, e, integrity, a in (("prfsha256", "aes128gcm16", 20, "", 0),
                                              ("prfsha384", "aes256", 32, "sha384", 48),
                                              ("prfsha512", "chacha20poly1305", 36, "", 0),
                                              ("prfsha1", "aes192", 24, "sha1", 20)):
        size = len(prf(name, b"", b""))
        ni, nr, spis = known(name + "ni", 32), known(name + "nr", 24), known(name + "spis", 16)
        secret, more, most = (known(name + s, n) for s, n in (("secret", 256), ("more", 32), ("most", 66)))
        lengths = [size, a, a, e, e, size, size]

        def expand(skeyseed, prf_name=name):
            stream, out = prf_plus(prf_name, skeyseed, ni + nr + spis, sum(lengths)), []
            for length in lengths:
                out.append(stream[:length])
                stream = stream[length:]
            return out
        # RFC 7296 §2.14
        first = expand(prf(name, ni + nr, secret))
        # RFC 9370 §2.2.2
        updated = expand(prf(name, first[0], more + ni + nr))
        # RFC 7296 §2.18, RFC 9370 §2.2.4
        rekeyed = expand(prf(name, first[0], secret + ni + nr + more + most))
        # RFC 8784 §3
        ppk = known(name + "ppk", 40)
        mixed = [prf_plus(name, ppk, first[n], size) for n in (0, 5, 6)]
        # RFC 7296 §2.17
        child = prf_plus(name, first[0], ni + nr, 128)
        child_pfs = prf_plus(name, first[0], secret + ni + nr, 128)
        child_many = prf_plus(name, first[0], secret + ni + nr + more + most, 128)
        # RFC 7296 §2.15, RFC 9242 §3.3.2
        header, clear, payloads = known("header", 28), known("clear", 12), known("payloads", 77)
        adjusted = header[:24] + (28 + 12 + 4 + 77).to_bytes(4, 'big') + clear + b"\x21\x00" + (4 + 77).to_bytes(2, 'big') + payloads
        int_auth = [prf(name, first[n], adjusted) for n in (5, 6)]
        int_auth_2 = [prf(name, updated[n], int_auth[n - 5] + adjusted) for n in (5, 6)]
        intermediate = int_auth_2[0] + int_auth_2[1] + (3).to_bytes(4, 'big')
        signed = known("message", 300) + nr + prf(name, first[5], known("id", 12)) + intermediate
        auth = prf(name, prf(name, b"a shared key", b"Key Pad for IKEv2"), signed)
        records.append(dict(prf=name, encryption=encryption, integrity=integrity, ni=ni, nr=nr, spis=spis,
                            secret=secret, more=more, most=most, keys=b"".join(first), updated=b"".join(updated),
                            rekeyed=b"".join(rekeyed), ppk=ppk, mixed=b"".join(mixed), child=child,
                            child_pfs=child_pfs, child_many=child_many, header=header, clear=clear,
                            payloads=payloads, message=known("message", 300), id=known("id", 12),
                            int_auth=intermediate, signed=signed, auth=auth))
    write("keys.txt", records)


def sealed():
    records = [  # RFC 7634 §B: printed there in full
        dict(encryption="chacha20poly1305", integrity="", e=bytes(range(0x80, 0xa0)) + bytes.fromhex("a0a1a2a3"), a=b"",
             headers=bytes(range(0xc0, 0xc8)) + bytes(range(0xd0, 0xd8)) + bytes.fromhex("2e202500000000090000004529000029"),
             payloads=bytes.fromhex("0000000c000040010000000a"),
             body=bytes.fromhex("1011121314151617610394701f8d017f7c129248896b71bfe25236efd7cdc67066906315b2")),
    ]
    headers, payloads = known("headers", 32), known("inner", 100)
    ciphers = []
    for bits in (128, 192, 256):
        for icv in (8, 12, 16):
            e, iv = known(f"e{bits}", bits // 8 + 4), known("iv", 8)
            # RFC 5282 §3: no padding needed, but its length is there.
            out = AESGCM(e[:-4]).encrypt(e[-4:] + iv, payloads + b"\0", headers)
            records.append(dict(encryption=f"aes{bits}gcm{icv}", integrity="", e=e, a=b"", headers=headers,
                                payloads=payloads, body=iv + out[:len(out) - 16 + icv]))
        ciphers.append((f"aes{bits}", known(f"e{bits}", bits // 8), algorithms.AES, 16))
    ciphers.append(("3des", known("e192", 24), TripleDES, 8))
    for encryption, e, cipher, block in ciphers:
        for name, size, icv in (("sha1", 20, 12), ("sha256", 32, 16), ("sha384", 48, 24), ("sha512", 64, 32)):
            a, iv = known("a" + name, size), known("iv", block)
            for extra in (0, 2):  # blocks of padding that are not needed
                padding_len = block * extra + -(len(payloads) + 1) % block
                text = payloads + known("pad", padding_len) + bytes([padding_len])
                cbc = Cipher(cipher(e), modes.CBC(iv)).encryptor()
                body = iv + cbc.update(text) + cbc.finalize()
                mac = hmac.new(a, headers + body, name).digest()[:icv]
                records.append(dict(encryption=encryption, integrity=name, e=e, a=a, headers=headers,
                                    payloads=payloads, body=body + mac))
    write("sealed.txt", records)


HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
PEM, DER = ser.Encoding.PEM, ser.Encoding.DER


def signatures():
    records, message, plain = [], b"InitiatorSignedOctets", ser.NoEncryption()
    keys = [("rsa2048", rsa.generate_private_key(65537, 2048)), ("ecp256", ec.generate_private_key(ec.SECP256R1())),
            ("ecp384", ec.generate_private_key(ec.SECP384R1())), ("ecp521", ec.generate_private_key(ec.SECP521R1())),
            ("ed25519", ed25519.Ed25519PrivateKey.generate()), ("ed448", ed448.Ed448PrivateKey.generate())]
    for name, key in keys:
        forms = {"pkcs8": ser.PrivateFormat.PKCS8}
        if not name.startswith("ed"):
            forms["traditional"] = ser.PrivateFormat.TraditionalOpenSSL
        for form, encoding in forms.items():
            with open(f"{name}-{form}.pem", "wb") as file:
                file.write(key.private_bytes(PEM, encoding, plain))
        spki = key.public_key().public_bytes(DER, ser.PublicFormat.SubjectPublicKeyInfo)
        signed = {}
        for hash_name, hash_fn in HASHES.items():
            if name == "rsa2048":
                signed["rsa", hash_name] = key.sign(message, padding.PKCS1v15(), hash_fn)
                if hash_name != "sha1":
                    pss = padding.PSS(padding.MGF1(hash_fn), hash_fn.digest_size)
                    signed["pss", hash_name] = key.sign(message, pss, hash_fn)
            elif not name.startswith("ed") and hash_name != "sha1":
                der = signed["ecdsa", hash_name] = key.sign(message, ec.ECDSA(hash_fn))
                if (name, hash_name) in (("ecp256", "sha256"), ("ecp384", "sha384"), ("ecp521", "sha512")):
                    size = (key.curve.key_size + 7) // 8
                    signed["concatenated", hash_name] = b"".join(n.to_bytes(size, 'big') for n in utils.decode_dss_signature(der))
        if name.startswith("ed"):
            signed[name, ""] = key.sign(message)
        for (scheme, hash_name), signature in signed.items():
            records.append(dict(key=name, scheme=scheme, hash=hash_name, spki=spki, message=message, signature=signature))
    write("signature.txt", records)
    with open("ecp256-encrypted.pem", "wb") as file:
        file.write(keys[1][1].private_bytes(PEM, ser.PrivateFormat.PKCS8, ser.BestAvailableEncryption(b"password")))
    with open("rsa1024.pem", "wb") as file:
        file.write(rsa.generate_private_key(65537, 1024).private_bytes(PEM, ser.PrivateFormat.PKCS8, plain))


hmacs()
exchanges()
keys()
sealed()
signatures()
