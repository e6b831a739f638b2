"""An authority, and a certificate of it: always as long, so that messages with it are."""

import datetime, os

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)
AUTHORITY = Ed25519PrivateKey.generate()


def issue(name, key, number, is_authority):
    """By the authority."""
    subject = lambda of: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, of)])
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    made = x509.CertificateBuilder(subject("an authority"), subject(name), key.public_key(), number, now - DAY, now + 30 * DAY)
    made = made.add_extension(x509.BasicConstraints(is_authority, None), True)
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False) if not is_authority else made
    return made.sign(AUTHORITY, None).public_bytes(Encoding.PEM)


def write(directory, name, has_key):
    """For a gateway: the authority's certificate, and one for a name if it has that key."""
    files = {"x509ca/authority.pem": issue("an authority", AUTHORITY, 1, True)}
    if has_key:
        key = Ed25519PrivateKey.generate()
        files["x509/gateway.pem"] = issue(name, key, 2, False)
        files["private/gateway.pem"] = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for path, octets in files.items():
        os.makedirs(os.path.dirname("%s/%s" % (directory, path)), exist_ok=True)
        with open("%s/%s" % (directory, path), "wb") as f:
            os.chmod(f.fileno(), 0o600)
            f.write(octets)
