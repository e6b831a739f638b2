#!/usr/bin/env python3
"""Makes the certificates beside it, and what is said of them, with OpenSSL's code by the package `cryptography`.

Run it in its own folder; keys and signatures come out anew each time, all else is the same.
"""
import datetime
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.x509 import ocsp
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.fromtimestamp(1_800_000_000, datetime.timezone.utc)  # as the tests have it
DAY = datetime.timedelta(days=1)
records = []


def keep(name, of):
    records.append((name, of.public_bytes(ser.Encoding.DER)))
    return of


def name(*parts):
    return x509.Name([x509.NameAttribute(oid, value, _type) for oid, value, _type in parts])


def end_name(common):
    return name(
        (NameOID.COUNTRY_NAME, "DE", _ASN1Type.PrintableString),
        (NameOID.ORGANIZATION_NAME, "Beispiel \u00e4", _ASN1Type.BMPString),
        (NameOID.COMMON_NAME, common, _ASN1Type.T61String),
    )


def issue(subject, key, issuer, issuer_key, serial, extensions, hash=hashes.SHA256(), pss=None):
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), serial, NOW - 100 * DAY, NOW + 100 * DAY)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = builder.add_extension(authority, False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hash, rsa_padding=pss)


def authority(path_length):
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    return [(x509.BasicConstraints(True, path_length), True), (usage, True)]


root_key = ser.load_pem_private_key(open("../../crypto/vectors/rsa2048-pkcs8.pem", "rb").read(), None)
middle_key, responder_key, other_key = (ec.generate_private_key(c()) for c in (ec.SECP384R1, ec.SECP256R1, ec.SECP521R1))
end_key = ed25519.Ed25519PrivateKey.generate()
root_name = name((NameOID.COMMON_NAME, "Wurzel", _ASN1Type.UTF8String))
middle_name = name(
    (NameOID.DOMAIN_COMPONENT, "org", _ASN1Type.IA5String), (NameOID.COMMON_NAME, "Mitte", _ASN1Type.PrintableString)
)
pss = padding.PSS(padding.MGF1(hashes.SHA384()), hashes.SHA384.digest_size)
root = keep("root", issue(root_name, root_key, root_name, root_key, 1, authority(None), hashes.SHA384(), pss))
middle = keep("middle", issue(middle_name, middle_key, root_name, root_key, 2, authority(0), hashes.SHA384(), pss))
end_extensions = [
    (x509.SubjectAlternativeName([x509.DNSName("gw.example.org")]), False),
    (x509.CRLDistributionPoints([x509.DistributionPoint([x509.UniformResourceIdentifier("http://a/crl")], None, None, None)]), False),
    (x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier("http://a/ocsp"))]), False),
    (x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.3.6.1.4.1.32473.2"), None)]), True),
]
end = keep("end", issue(end_name("gw"), end_key, middle_name, middle_key, 0x8123, end_extensions, hashes.SHA512()))
signing = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False)
responder = issue(end_name("ocsp"), responder_key, middle_name, middle_key, 4, [signing])
other = issue(end_name("other"), other_key, middle_name, middle_key, 5, [])
stranger = issue(end_name("stranger"), responder_key, middle_name, other_key, 6, [signing])


def said(label, status, by, key, hash, this=NOW - DAY, next=NOW + DAY, reason=None):
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=end,
        issuer=middle,
        algorithm=hash,
        cert_status=status,
        this_update=this,
        next_update=next,
        revocation_time=NOW - 2 * DAY if status == ocsp.OCSPCertStatus.REVOKED else None,
        revocation_reason=reason,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, by).certificates([by])
    keep(label, builder.sign(key, hashes.SHA256()))


GOOD, REVOKED, UNKNOWN = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED, ocsp.OCSPCertStatus.UNKNOWN
said("ocsp good", GOOD, middle, middle_key, hashes.SHA1())
said("ocsp good of another", GOOD, responder, responder_key, hashes.SHA256())
said("ocsp good of one who may not", GOOD, other, other_key, hashes.SHA256())
said("ocsp good of a stranger", GOOD, stranger, responder_key, hashes.SHA256())
said("ocsp old", GOOD, middle, middle_key, hashes.SHA1(), NOW - 3 * DAY, NOW - DAY)
said("ocsp without an end", GOOD, middle, middle_key, hashes.SHA1(), next=None)
said("ocsp to come", GOOD, middle, middle_key, hashes.SHA1(), NOW + DAY, NOW + 2 * DAY)
said("ocsp unknown", UNKNOWN, middle, middle_key, hashes.SHA1())
said("ocsp revoked", REVOKED, responder, responder_key, hashes.SHA1())
said("ocsp revoked for a reason", REVOKED, middle, middle_key, hashes.SHA1(), reason=x509.ReasonFlags.superseded)
keep("ocsp no answer", ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER))


def crl(label, revoked, *extensions):
    builder = x509.CertificateRevocationListBuilder(middle_name, NOW - DAY, NOW + DAY)
    for serial, reason in revoked:
        entry = x509.RevokedCertificateBuilder(serial, NOW - 2 * DAY)
        builder = builder.add_revoked_certificate(entry.add_extension(x509.CRLReason(reason), False).build())
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    keep(label, builder.sign(middle_key, hashes.SHA384()))


Reason = x509.ReasonFlags
number = (x509.CRLNumber(7), False)
crl("crl good", [(0x8124, Reason.superseded)], number)
crl("crl revoked", [(0x8124, Reason.superseded), (0x8123, Reason.cessation_of_operation)], number)
crl("crl delta", [], number, (x509.DeltaCRLIndicator(6), True))
crl("crl indirect", [], number, (x509.IssuingDistributionPoint(None, None, False, False, None, True, False), True))
some = frozenset([Reason.key_compromise])
crl("crl of a reason", [], number, (x509.IssuingDistributionPoint(None, None, False, False, some, False, False), True))

with open("paper.txt", "w") as file:
    file.write("# Made by make.py, which says how.\n")
    for label, octets in records:
        file.write(f"\nname = {label}\nder = {octets.hex()}\n")
