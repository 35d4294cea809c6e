"""Writes the vectors and their list (README.md): `python tests/vectors/make.py` for what is missing, `--all` for all.

Keys lie in keys/ and are made once. What openssl, keytool or ML-DSA writes differs each time; everything else is the
same octets again. Verdicts are written down here by hand, never computed.
"""

from __future__ import annotations

import base64
import io
import ipaddress
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, mldsa, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HERE = Path(__file__).resolve().parent
KEYS = HERE / "keys"
sys.path.insert(0, str(HERE))
import weak  # noqa: E402 - stands beside this script

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
PASSPHRASE = "correct-horse-7"


@dataclass
class Vector:
    """A file, its story, and the verdict: error codes, warnings, notes and repairs, each complete."""

    name: str
    story: str
    make: Callable[[], bytes]
    errors: str = ""
    warnings: str = ""
    notes: str = ""
    repaired: str = ""
    options: str = ""
    more: dict[str, str] = field(default_factory=dict)


VECTORS: list[Vector] = []


def vector(name: str, story: str, make: Callable[[], bytes] | bytes, errors: str = "", **more: str) -> None:
    maker = make if callable(make) else (lambda: make)
    VECTORS.append(Vector(name, story, maker, errors, **more))  # type: ignore[arg-type]


# --- keys --------------------------------------------------------------------------------------------------------


@cache
def key(name: str, kind: str = "ec"):
    """A key kept in keys/, so that the same certificates come out again."""
    path = KEYS / f"{name}.pem"
    if not path.exists():
        KEYS.mkdir(exist_ok=True)
        made = {
            "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
            "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
            "k1": lambda: ec.generate_private_key(ec.SECP256K1()),
            "rsa": lambda: rsa.generate_private_key(65537, 2048),
            "ed25519": ed25519.Ed25519PrivateKey.generate,
            "mldsa": mldsa.MLDSA65PrivateKey.generate,
            "dsa": lambda: dsa.generate_private_key(2048),
        }[kind]()
        path.write_bytes(pkcs8(made))
    return serialization.load_pem_private_key(path.read_bytes(), None)


def pkcs8(private, passphrase: str | None = None) -> bytes:
    protection = (
        serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    )
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


def old_form(private, passphrase: str | None = None) -> bytes:
    protection = (
        serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    )
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, protection)


# --- certificates ------------------------------------------------------------------------------------------------


def name(common: str | None) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])


CA_USAGE = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
BOTH = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


def build(subject, public, issuer, signer, extensions, *, begins=AT - timedelta(days=10), days=90, serial=1) -> bytes:
    builder = (
        x509.CertificateBuilder(name(issuer), name(subject), public, serial)
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=days) - timedelta(seconds=1))
    )
    for extension in extensions:
        # Java reads no certificate without a subject unless its names are critical (RFC 5280 4.2.1.6).
        names_alone = isinstance(extension, x509.SubjectAlternativeName) and not subject
        builder = builder.add_extension(extension, names_alone or isinstance(extension, x509.BasicConstraints))
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey | mldsa.MLDSA65PrivateKey) else hashes.SHA256()
    deterministic = True if isinstance(signer, ec.EllipticCurvePrivateKey) else None
    made = builder.sign(signer, algorithm, ecdsa_deterministic=deterministic)
    return made.public_bytes(serialization.Encoding.DER)


def ca(subject, own, issuer, signer, *, more=(), length=None, **times) -> bytes:
    times = {"begins": AT - timedelta(days=400), "days": 3650} | times
    extensions = [
        x509.BasicConstraints(True, length),
        CA_USAGE,
        x509.SubjectKeyIdentifier.from_public_key(own.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
        *more,
    ]
    return build(subject, own.public_key(), issuer, signer, extensions, **times)


@cache
def root() -> bytes:
    return ca("Vector Root", key("root", "rsa"), "Vector Root", key("root", "rsa"), serial=10)


@cache
def issuing() -> bytes:
    return ca("Vector Issuing CA", key("issuing", "rsa"), "Vector Root", key("root", "rsa"), serial=11)


def leaf(
    *names: str, public=None, subject: str | None = None, eku=(ExtendedKeyUsageOID.SERVER_AUTH,), issuer=None,
    signer=None, more=(), san: bool = True, **times,
) -> bytes:  # fmt: skip
    signer = signer or key("issuing", "rsa")
    names = names or ("www.example.com",)
    general = [
        x509.IPAddress(ipaddress.ip_address(n)) if n.replace(".", "").isdigit() else x509.DNSName(n) for n in names
    ]
    extensions = [x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), *more]
    if san:
        extensions.append(x509.SubjectAlternativeName(general))
    if eku:
        extensions.append(x509.ExtendedKeyUsage(eku))
    public = public or key("leaf").public_key()
    return build(subject, public, issuer or "Vector Issuing CA", signer, extensions, **({"serial": 20} | times))


def self_signed(own, *extensions, subject="www.example.com", **times) -> bytes:
    return build(subject, own.public_key(), subject, own, extensions, **times)


def pem(*ders: bytes, label: str = "CERTIFICATE") -> bytes:
    out = b""
    for der in ders:
        text = base64.b64encode(der)
        lines = [text[i : i + 64] for i in range(0, len(text), 64)]
        out += b"-----BEGIN %s-----\n" % label.encode() + b"\n".join(lines) + b"\n-----END %s-----\n" % label.encode()
    return out


def good() -> bytes:
    return pem(leaf(), issuing())


def good_text() -> str:
    return good().decode()


def with_issuing(der: bytes) -> bytes:
    return pem(der, issuing())


def resigned(der: bytes, old_hash: str, signer: rsa.RSAPrivateKey) -> bytes:
    """The same certificate signed with MD5 or SHA-1, which no library makes any more: the OIDs differ in one octet."""
    oid, last = bytes.fromhex("2a864886f70d0101"), {"md5": b"\x04", "sha1": b"\x05"}[old_hash]
    algorithm = {"md5": hashes.MD5(), "sha1": hashes.SHA1()}[old_hash]
    cert = x509.load_der_x509_certificate(der)
    tbs = cert.tbs_certificate_bytes.replace(oid + b"\x0b", oid + last)
    signature = signer.sign(tbs, padding.PKCS1v15(), algorithm)
    return (
        der.replace(cert.tbs_certificate_bytes, tbs)
        .replace(oid + b"\x0b", oid + last)
        .replace(cert.signature, signature)
    )


def tlv(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 128:
        return bytes((tag, len(body))) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + body


def indefinite(tag: int, *parts: bytes) -> bytes:
    return bytes((tag, 0x80)) + b"".join(parts) + b"\0\0"


def p7b(*ders: bytes, wrap: Callable[..., bytes] = tlv) -> bytes:
    data = tlv(0x30, bytes.fromhex("06092a864886f70d010701"))
    signed = wrap(0x30, tlv(2, b"\1"), tlv(0x31), data, wrap(0xA0, *ders), tlv(0x31))
    return wrap(0x30, bytes.fromhex("06092a864886f70d010702"), wrap(0xA0, signed))


# --- other programs ----------------------------------------------------------------------------------------------


def run(command: list[str], files: dict[str, bytes], out: str) -> bytes:
    """What a program writes to `out`, given these files in an empty directory."""
    with tempfile.TemporaryDirectory() as place:
        for file, content in files.items():
            (Path(place) / file).write_bytes(content)
        done = subprocess.run(command, cwd=place, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode()}{done.stdout.decode()}")
        return (Path(place) / out).read_bytes()


def material() -> dict[str, bytes]:
    return {"c.pem": pem(leaf()), "i.pem": pem(issuing()), "k.pem": pkcs8(key("leaf"))}


def openssl_pfx(*options: str, passphrase: str = PASSPHRASE) -> bytes:
    command = ["openssl", "pkcs12", "-export", "-in", "c.pem", "-inkey", "k.pem", "-certfile", "i.pem"]
    return run([*command, "-out", "o", "-passout", f"pass:{passphrase}", *options], material(), "o")


def keytool(store_type: str) -> bytes:
    command = [
        "keytool", "-importkeystore", "-noprompt", "-srckeystore", "s.p12", "-srcstoretype", "PKCS12", "-srcstorepass",
        PASSPHRASE, "-srcalias", "1", "-destalias", "tomcat", "-destkeystore", "o", "-deststoretype", store_type,
        "-deststorepass", PASSPHRASE, "-destkeypass", PASSPHRASE,
    ]  # fmt: skip
    return run(command, {"s.p12": openssl_pfx()}, "o")


def openssl_key(*command: str, source: bytes | None = None) -> bytes:
    return run(["openssl", *command], {"k.pem": source or pkcs8(key("leaf"))}, "o")


# --- the vectors -------------------------------------------------------------------------------------------------

K = "--key keys/leaf.pem"
P = "--passphrase-file passphrase.txt"

# text
vector("good.pem", "What a CA sends: the certificate, then its intermediate", good, options=K)
vector(
    "combined.pem", "HAProxy and lighttpd keep key and certificates in one file", lambda: pkcs8(key("leaf")) + good()
)
vector("no-final-newline.pem", "Pasted without the last line end", lambda: good().rstrip())
vector(
    "bom.pem",
    "Saved by Windows Notepad as UTF-8 with a byte order mark",
    lambda: b"\xef\xbb\xbf" + good(),
    repaired="bom",
)
vector(
    "utf16.pem",
    "Written by PowerShell 5's > (UTF-16, little endian, marked)",
    lambda: b"\xff\xfe" + good_text().replace("\n", "\r\n").encode("utf-16-le"),
    repaired="utf16 crlf",
)
vector(
    "utf16-be-unmarked.pem",
    "UTF-16 big endian whose mark a tool cut off",
    lambda: good_text().encode("utf-16-be"),
    repaired="utf16",
)
vector("crlf.pem", "Downloaded on Windows", lambda: good().replace(b"\n", b"\r\n"), repaired="crlf")
vector("cr.pem", "Line ends of classic Mac OS", lambda: good().replace(b"\n", b"\r"), repaired="crlf")
vector(
    "blank-lines.pem",
    "A mail program doubled every line end",
    lambda: good().replace(b"\n", b"\n\n"),
    repaired="blank_lines",
)
vector(
    "trailing-spaces.pem",
    "Copied out of a terminal",
    lambda: good().replace(b"\n", b"  \n"),
    repaired="trailing_spaces",
)
vector(
    "width-76.pem", "Wrapped at 76 columns, as MIME and Java's encoder do", lambda: wrapped(76), repaired="line_width"
)
vector(
    "one-line.pem",
    "Base64 without line ends, as some cloud consoles export",
    lambda: wrapped(10**6),
    repaired="one_line",
)
vector(
    "spaces-for-newlines.txt",
    "Pasted through an environment variable: every line end became a space",
    lambda: good_text().replace("\n", " ").encode(),
    repaired="one_line",
)
vector(
    "literal-newlines.json",
    r"A JSON file of a cloud console: \n instead of line ends",
    lambda: json.dumps({"certificate": good_text()}).encode(),
    repaired="literal_newlines text_around",
)
vector(
    "smart-dashes.txt",
    "Pasted through a word processor, which made dashes of hyphens",
    lambda: good_text().replace("-----", "\u2014\u2013-").encode(),
    repaired="dashes",
)
vector(
    "dashes-cp1252.txt",
    "The same, saved in Windows-1252",
    lambda: good_text().replace("-----", "\u2013\u2013\u2013").encode("cp1252"),
    repaired="dashes",
)
vector(
    "four-dashes.pem",
    "One dash lost on each side while copying",
    lambda: good().replace(b"-----", b"----"),
    repaired="dashes",
)
vector(
    "indented.yaml",
    "Out of a YAML file's block",
    lambda: b"tls:\n  cert: |\n" + b"".join(b"    " + line + b"\n" for line in good().splitlines()),
    repaired="indentation text_around",
)
vector(
    "quoted-mail.txt",
    "Out of an answered mail",
    lambda: b"".join(b"> " + line + b"\n" for line in good().splitlines()),
    repaired="indentation text_around",
)
vector(
    "glued.pem",
    "cat of files without a final line end",
    lambda: pem(leaf()).rstrip() + pem(issuing()),
    repaired="glued_blocks",
)
vector(
    "bag-attributes.pem",
    "openssl pkcs12 -nodes writes attributes before each block",
    lambda: (
        b"Bag Attributes\n    friendlyName: www\nsubject=CN = x\n"
        + pem(leaf())
        + b"Bag Attributes: <No Attributes>\n"
        + pem(issuing())
    ),
    repaired="text_around",
)
vector(
    "no-break-spaces.txt",
    "Copied from a web page with no-break and zero-width spaces",
    lambda: good_text().replace("BEGIN ", "BEGIN\u00a0").replace("\n", "\u200b\n").encode(),
    repaired="invisible_characters",
)
vector(
    "trusted.pem",
    "openssl x509 -trustout",
    lambda: (
        run(["openssl", "x509", "-in", "c.pem", "-trustout", "-addtrust", "serverAuth", "-out", "o"], material(), "o")
        + pem(issuing())
    ),
    repaired="trusted_certificate",
)
vector(
    "x509-label.pem",
    "The label of SSLeay and Netscape",
    lambda: pem(leaf(), issuing(), label="X509 CERTIFICATE"),
    repaired="label",
)
vector(
    "kubernetes-secret.txt",
    "The value of tls.crt in a Kubernetes secret: base64 of PEM",
    lambda: base64.b64encode(good()),
    repaired="base64_wrapped",
)
vector(
    "bare-base64.txt",
    "A certificate's base64 without BEGIN and END, as in SAML metadata",
    lambda: base64.encodebytes(leaf()),
    repaired="base64_wrapped container",
    warnings="chain_missing",
)
vector(
    "missing-end.pem",
    "The last line wasn't copied",
    lambda: b"\n".join(pem(leaf()).splitlines()[:-1]) + b"\n",
    "not_pem",
)
vector(
    "missing-begin.pem",
    "The first line wasn't copied",
    lambda: b"\n".join(pem(leaf()).splitlines()[1:]) + b"\n",
    "not_pem",
)
vector("bad-character.pem", "A character was changed on line 5", lambda: changed_line(5), "bad_base64")
vector(
    "lost-character.pem",
    "A character was lost on the last line but one",
    lambda: pem(leaf())[:-40] + pem(leaf())[-39:],
    "bad_base64",
)
vector(
    "lost-line.pem",
    "A whole line was lost: the base64 is good, what it holds is not",
    lambda: b"".join(line + b"\n" for n, line in enumerate(pem(leaf()).splitlines()) if n != 6),
    "bad_der",
)
vector("empty.pem", "An empty file", b"", "empty")
vector("blank.pem", "Nothing but line ends", b"\r\n\r\n", "empty")
vector("path.txt", "The file's name instead of its content", b"/etc/ssl/certs/www.example.com.pem\n", "not_pem")
vector(
    "web-page.html",
    "The download page instead of the file",
    b"<!DOCTYPE html><html><body>Download your certificate</body></html>",
    "not_pem",
)
vector(
    "printed.txt",
    "openssl x509 -text without the block",
    b"Certificate:\n    Data:\n        Version: 3 (0x2)\n        Serial Number: 20 (0x14)\n",
    "not_pem",
)
vector(
    "ssh.pub",
    "An SSH public key",
    b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0m0m0m0m0m0m0m0m0m0m0m0m0m0m0m0m0m0m0m0m0m me@host\n",
    "not_pem",
)
# containers
vector("good.der", "A binary certificate, .cer of Windows", leaf, repaired="container", warnings="chain_missing")
vector(
    "trailing.der",
    "A binary certificate to which a shell added a line end",
    lambda: leaf() + b"\n",
    repaired="container trailing_bytes",
    warnings="chain_missing",
)
vector("cut.der", "A download that was broken off", lambda: leaf()[:300], "bad_der")
vector("good.p7b", "What Windows CAs hand out: PKCS#7 in binary", lambda: p7b(leaf(), issuing()), repaired="container")
vector(
    "p7b-reversed.p7b",
    "PKCS#7 is a set: the order inside means nothing",
    lambda: p7b(issuing(), leaf()),
    repaired="container",
)
vector(
    "p7b-indefinite.p7b",
    "PKCS#7 in BER with indefinite lengths, as Java writes it",
    lambda: p7b(leaf(), issuing(), wrap=indefinite),
    repaired="container",
)
vector("pkcs7.pem", "PKCS#7 as PEM", lambda: pem(p7b(leaf(), issuing()), label="PKCS7"))
vector(
    "pkcs7-as-certificate.pem",
    "PKCS#7 under the label of a certificate, as some CA mails have it",
    lambda: pem(p7b(leaf(), issuing())),
    repaired="label",
)
vector("openssl3.pfx", "openssl 3 pkcs12 -export: AES-256 and SHA-256", openssl_pfx, options=P, repaired="container")
vector(
    "openssl1.pfx",
    "OpenSSL 1.0's defaults: RC2-40 for certificates, triple DES for the key, SHA-1",
    lambda: openssl_pfx("-legacy"),
    options=P,
    repaired="container",
)
vector(
    "windows.pfx",
    "Windows with TripleDES-SHA1",
    lambda: openssl_pfx("-legacy", "-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES"),
    options=P,
    repaired="container",
)
vector("no-mac.pfx", "Without a MAC", lambda: openssl_pfx("-nomac"), options=P, repaired="container")
vector(
    "empty-passphrase.pfx",
    "Exported with an empty passphrase, as Azure Key Vault does",
    lambda: openssl_pfx(passphrase=""),
    repaired="container",
)
vector("locked.pfx", "A PFX whose passphrase isn't given", openssl_pfx, "key_encrypted", repaired="container")
vector(
    "locked-wrong.pfx",
    "A PFX with the wrong passphrase",
    openssl_pfx,
    "wrong_passphrase",
    options="--passphrase-file wrong-passphrase.txt",
    repaired="container",
)
vector(
    "keytool.p12",
    "keytool of Java 17: what it calls a key store is PKCS#12",
    lambda: keytool("PKCS12"),
    options=P,
    repaired="container",
)
vector("keytool.jks", "keytool -storetype JKS", lambda: keytool("JKS"), options=P, repaired="container")
vector(
    "locked.jks",
    "A JKS whose passphrase isn't given: certificates are readable, the key isn't",
    lambda: keytool("JKS"),
    "key_encrypted",
    repaired="container",
)
vector(
    "locked-wrong.jks",
    "A JKS with the wrong passphrase",
    lambda: keytool("JKS"),
    "wrong_passphrase",
    options="--passphrase-file wrong-passphrase.txt",
)
vector("keytool.jceks", "keytool -storetype JCEKS", lambda: keytool("JCEKS"), "key_format", options=P)
vector("archive.zip", "The zip the CA sent, not unpacked", lambda: zipped(good()), "not_pem")
vector(
    "strict.der", "Strict mode takes PEM only", leaf, "not_pem chain_missing", options="--strict", repaired="container"
)
# what stands where
vector("request.pem", "The request instead of the certificate", lambda: request(), "wrong_block")
vector("key-only.pem", "The key instead of the certificate", lambda: pkcs8(key("leaf")), "wrong_block")
vector(
    "public-key.pem",
    "A public key instead of the certificate",
    lambda: (
        key("leaf")
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    ),
    "wrong_block",
)
vector("crl.pem", "A revocation list instead of the certificate", lambda: revocation_list(), "wrong_block")
vector(
    "strict-combined.pem",
    "Strict mode wants the key in its own field",
    lambda: pkcs8(key("leaf")) + good(),
    "wrong_block",
    options="--strict",
)
# keys, each with good.pem
vector("pkcs1.key", "PKCS#1, RSA's old form", lambda: old_form(key("rsa-leaf", "rsa")), options="of rsa.pem")
vector("sec1.key", "SEC1 alone", lambda: old_form(key("leaf")), options="of good.pem")
vector(
    "sec1-parameters.key",
    "openssl ecparam -genkey: EC PARAMETERS before the key",
    lambda: pem(bytes.fromhex("06082a8648ce3d030107"), label="EC PARAMETERS") + old_form(key("leaf")),
    options="of good.pem",
)
vector(
    "pkcs8-aes.key",
    "openssl 3's encrypted PKCS#8",
    lambda: openssl_key(
        "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", "k.pem", "-out", "o", "-passout", f"pass:{PASSPHRASE}"
    ),
    options=f"of good.pem {P}",
)
vector(
    "pkcs8-3des.key",
    "Encrypted PKCS#8 of OpenSSL before 1.1 (PKCS#12's triple DES)",
    lambda: openssl_key(
        "pkcs8", "-topk8", "-v1", "PBE-SHA1-3DES", "-in", "k.pem", "-out", "o", "-passout", f"pass:{PASSPHRASE}"
    ),
    options=f"of good.pem {P}",
)
vector(
    "pkcs8-scrypt.key",
    "Encrypted PKCS#8 with scrypt",
    lambda: openssl_key("pkcs8", "-topk8", "-scrypt", "-in", "k.pem", "-out", "o", "-passout", f"pass:{PASSPHRASE}"),
    options=f"of good.pem {P}",
)
vector(
    "proc-type.key",
    "Proc-Type: 4,ENCRYPTED, as ssh-keygen and OpenSSL 1.0 wrote",
    lambda: old_form(key("leaf"), PASSPHRASE),
    options=f"of good.pem {P}",
)
vector(
    "locked.key",
    "An encrypted key whose passphrase isn't given",
    lambda: pkcs8(key("leaf"), PASSPHRASE),
    "key_encrypted",
    options="of good.pem",
)
vector(
    "locked-wrong.key",
    "An encrypted key with the wrong passphrase",
    lambda: pkcs8(key("leaf"), PASSPHRASE),
    "wrong_passphrase",
    options="of good.pem --passphrase-file wrong-passphrase.txt",
)
vector(
    "strict-locked.key",
    "Strict mode takes no encrypted key even with its passphrase",
    lambda: pkcs8(key("leaf"), PASSPHRASE),
    "key_encrypted",
    options=f"of good.pem --strict {P}",
)
vector(
    "slow.key",
    "2,147,483,647 rounds of key derivation: an attack or a mistake",
    lambda: slow_key(),
    "key_format",
    options=f"of good.pem {P}",
)
vector(
    "parameters-only.key",
    "Only the block EC PARAMETERS was copied",
    lambda: pem(bytes.fromhex("06082a8648ce3d030107"), label="EC PARAMETERS"),
    "ec_parameters_only",
    options="of good.pem",
)
vector(
    "openssh.key",
    "An OpenSSH private key",
    lambda: key("leaf").private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    ),
    "key_format",
    options="of good.pem",
)
vector("dsa.key", "A DSA key", lambda: pkcs8(key("dsa", "dsa")), "key_format", options="of good.pem")
vector("damaged.key", "A key with a changed octet inside", lambda: damaged_key(), "key_format", options="of rsa.pem")
vector(
    "other.key", "The key of another certificate", lambda: pkcs8(key("other")), "key_mismatch", options="of good.pem"
)
vector(
    "certificate.key", "The certificate in the key's field", lambda: pem(leaf()), "wrong_block", options="of good.pem"
)
vector("empty.key", "An empty key file", b"\n", "key_missing", options="of good.pem")
vector(
    "crlf-indented.key",
    "A key with Windows line ends out of a YAML block",
    lambda: b"".join(b"  " + line + b"\r\n" for line in pkcs8(key("leaf")).splitlines()),
    options="of good.pem",
    repaired="crlf indentation",
)
vector(
    "rsa.pem",
    "RSA 2048",
    lambda: with_issuing(leaf(public=key("rsa-leaf", "rsa").public_key())),
    options="--key keys/rsa-leaf.pem",
)
# chains
vector("leaf-only.pem", "The intermediate is missing", lambda: pem(leaf()), warnings="chain_missing")
vector("leaf-only-strict.pem", "The same in strict mode", lambda: pem(leaf()), "chain_missing", options="--strict")
vector(
    "leaf-only-pool.pem",
    "The same where the intermediate is known",
    lambda: pem(leaf()),
    options="--pool issuing.crt",
    repaired="chain_missing",
)
vector(
    "issuing.crt",
    "The intermediate alone, and root with it: certificates of CAs are judged as such",
    lambda: pem(issuing(), root()),
)
vector(
    "reversed.pem",
    "Root first, as some CA bundles are",
    lambda: pem(root(), issuing(), leaf()),
    repaired="chain_order root_included",
)
vector("root-included.pem", "With the root", lambda: pem(leaf(), issuing(), root()), repaired="root_included")
vector("twice.pem", "The intermediate twice", lambda: pem(leaf(), issuing(), issuing()), repaired="duplicate_block")
vector(
    "broken.pem",
    "An intermediate of the right name and another key: that of the CA's last generation",
    lambda: pem(leaf(), ca("Vector Issuing CA", key("old-issuing", "rsa"), "Vector Root", key("root", "rsa"))),
    "chain_broken",
)
vector(
    "broken-no-ids.pem",
    "The same without key identifiers: only the signature tells",
    lambda: pem(no_ids_leaf(), no_ids_ca()),
    "chain_broken",
)
vector(
    "stranger.pem",
    "An intermediate of another CA beside the right one",
    lambda: pem(leaf(), issuing(), ca("Elsewhere CA", key("other-ca", "rsa"), "Elsewhere Root", key("root", "rsa"))),
    warnings="chain_stranger",
)
vector(
    "cross-signed.pem",
    "A root that an older root has cross-signed, as Let's Encrypt's long chain was",
    lambda: pem(leaf(), issuing(), ca("Vector Root", key("root", "rsa"), "Old Root", key("old-root", "rsa"))),
)
vector(
    "cross-signed-and-root.pem",
    "The same with the self-signed root, too",
    lambda: pem(leaf(), issuing(), root(), ca("Vector Root", key("root", "rsa"), "Old Root", key("old-root", "rsa"))),
    repaired="root_included",
)
vector("constrained.pem", "A name-constrained CA and a name it may certify", lambda: constrained("www.example.com"))
vector(
    "constrained-outside.pem",
    "A name-constrained CA and a name it may not certify",
    lambda: constrained("www.example.net"),
    "name_constraint",
)
vector("path-length.pem", "A CA below one with path length 0", lambda: too_deep(), "path_too_long")
vector("issuer-no-ca.pem", "Issued by somebody's server certificate", lambda: issued_by_leaf(), "not_a_ca", warnings="")
vector(
    "expired-intermediate.pem",
    "The intermediate is over",
    lambda: pem(leaf(), ca("Vector Issuing CA", key("issuing", "rsa"), "Vector Root", key("root", "rsa"), days=100)),
    "expired",
)
vector(
    "not-ca.pem", "A server's certificate as client CA", lambda: pem(leaf()), "not_a_ca", options="--purpose client-ca"
)
# time
vector("expired.pem", "Over since yesterday", lambda: with_issuing(leaf(begins=AT - timedelta(days=91))), "expired")
vector(
    "future.pem", "Begins tomorrow", lambda: with_issuing(leaf(begins=AT + timedelta(days=1))), warnings="not_yet_valid"
)
# strength
for bits in (512, 1024):
    vector(
        f"rsa-{bits}.pem",
        f"RSA {bits}, long factored or nearly so",
        lambda bits=bits: with_issuing(leaf(public=weak.small_modulus(bits).public_key())),
        "weak_key",
    )
vector(
    "rsa-e3.pem", "Public exponent 3", lambda: with_issuing(leaf(public=weak.small_exponent().public_key())), "weak_key"
)
vector(
    "fermat.pem",
    "Primes next to each other (CVE-2022-26320)",
    lambda: with_issuing(leaf(public=weak.close_primes().public_key())),
    "weak_key",
)
vector(
    "roca.pem",
    "Made as Infineon's chips made keys (CVE-2017-15361)",
    lambda: with_issuing(leaf(public=weak.roca().public_key())),
    "weak_key",
)
vector(
    "shared-prime.pem",
    "Shares a prime with shared-prime-other.pem: a router without randomness at first boot",
    lambda: with_issuing(leaf(public=weak.shared_prime("a").public_key())),
    "weak_key",
    options="--against shared-prime-other.pem",
)
vector(
    "shared-prime-other.pem",
    "The other one, unsuspicious by itself",
    lambda: with_issuing(leaf(public=weak.shared_prime("b").public_key())),
)
vector(
    "debian.pem",
    "A key of Debian's OpenSSL of 2006 to 2008 (CVE-2008-0166), told by a blocklist",
    lambda: with_issuing(leaf(public=rsa.RSAPublicNumbers(65537, weak.DEBIAN_MODULUS).public_key())),
    "weak_key",
    options="--blocklist blocklist.dat",
)
vector(
    "debian-unlisted.pem",
    "The same without a list: by itself such a key looks like any other",
    lambda: with_issuing(leaf(public=rsa.RSAPublicNumbers(65537, weak.DEBIAN_MODULUS).public_key())),
)
vector(
    "md5.pem", "Signed with MD5", lambda: with_issuing(resigned(leaf(), "md5", key("issuing", "rsa"))), "weak_signature"
)
vector(
    "sha1.pem",
    "Signed with SHA-1",
    lambda: with_issuing(resigned(leaf(), "sha1", key("issuing", "rsa"))),
    "weak_signature",
)
vector(
    "sha1-intermediate.pem",
    "An intermediate signed with SHA-1",
    lambda: pem(leaf(), resigned(issuing(), "sha1", key("root", "rsa"))),
    "weak_signature",
)
vector(
    "sha1-root.pem",
    "A root signed with SHA-1: nobody relies on a root's own signature",
    lambda: pem(leaf(), issuing(), resigned(root(), "sha1", key("root", "rsa"))),
    repaired="root_included",
)
vector("p384.pem", "P-384", lambda: with_issuing(leaf(public=key("p384", "p384").public_key())))
vector(
    "secp256k1.pem",
    "The curve of Bitcoin",
    lambda: with_issuing(leaf(public=key("k1", "k1").public_key())),
    "unsupported_curve",
)
vector(
    "ed25519.pem",
    "Ed25519, which public CAs may not certify",
    lambda: with_issuing(leaf(public=key("ed25519", "ed25519").public_key())),
    "unsupported_curve",
)
vector(
    "ed25519-private.pem",
    "Ed25519 in a private PKI",
    lambda: with_issuing(leaf(public=key("ed25519", "ed25519").public_key())),
    options="--private",
)
vector(
    "mldsa65.pem",
    "ML-DSA-65 (RFC 9881): readable, but no server here can use it",
    lambda: mldsa_leaf(),
    "unsupported_curve",
    notes="self_signed",
    warnings="",
)
# names and purpose
vector(
    "no-san.pem", "CN only, as before 2017", lambda: with_issuing(leaf(subject="www.example.com", san=False)), "no_san"
)
vector(
    "no-san-private.pem",
    "The same in a private PKI",
    lambda: with_issuing(leaf(subject="www.example.com", san=False)),
    options="--private",
)
vector(
    "cn-not-in-san.pem",
    "The CN isn't among the names",
    lambda: with_issuing(leaf(subject="other.example.com")),
    warnings="cn_not_in_san",
)
vector("cn-in-san.pem", "The CN is", lambda: with_issuing(leaf(subject="WWW.example.com")))
for file, wrong in (
    ("wildcard-partial", "w*.example.com"),
    ("wildcard-inner", "www.*.example.com"),
    ("wildcard-double", "*.*.example.com"),
    ("wildcard-tld", "*.com"),
    ("wildcard-suffix", "*.co.uk"),
):
    vector(f"{file}.pem", f"A name {wrong}", lambda wrong=wrong: with_issuing(leaf(wrong)), "bad_wildcard")
vector("wildcard.pem", "A proper wildcard", lambda: with_issuing(leaf("*.example.com", "example.com")))
vector("idn.pem", "bücher.example.com as Punycode", lambda: with_issuing(leaf("xn--bcher-kva.example.com")))
vector("idn-bad.pem", "Punycode that is none", lambda: with_issuing(leaf("xn--a.example.com")), warnings="bad_name")
vector(
    "idn-raw.pem",
    "An umlaut in the bytes of a name, where only ASCII may stand",
    lambda: with_issuing(leaf("b_cher.example.com").replace(b"b_cher", b"b\xfccher")),
    "bad_der",
)
vector(
    "underscore.pem", "An underscore in a name", lambda: with_issuing(leaf("my_host.example.com")), warnings="bad_name"
)
vector(
    "internal.pem",
    "A name and an address no public CA may certify",
    lambda: with_issuing(leaf("intranet.local", "10.0.0.1")),
    warnings="internal_name",
)
vector(
    "internal-private.pem",
    "The same in a private PKI",
    lambda: with_issuing(leaf("intranet.local", "10.0.0.1")),
    options="--private",
)
vector(
    "client-only.pem",
    "A client's certificate",
    lambda: with_issuing(leaf(eku=[ExtendedKeyUsageOID.CLIENT_AUTH])),
    "no_server_auth",
    warnings="client_auth_public",
)
vector(
    "client-too.pem",
    "For servers and clients, as public CAs issued until 2026",
    lambda: with_issuing(leaf(eku=BOTH)),
    warnings="client_auth_public",
)
vector("no-eku.pem", "Without extended key usage", lambda: with_issuing(leaf(eku=())), warnings="no_server_auth")
vector(
    "too-long.pem",
    "398 days, issued when 200 was the limit",
    lambda: with_issuing(leaf(days=398)),
    warnings="too_long_lived",
)
vector(
    "too-long-second.pem", "200 days and a second", lambda: with_issuing(one_second_more()), warnings="too_long_lived"
)
vector("long-enough.pem", "200 days to the second", lambda: with_issuing(leaf(days=200)))
vector(
    "long-before.pem",
    "398 days, issued when that was the limit",
    lambda: with_issuing(leaf(begins=datetime(2026, 3, 14, tzinfo=UTC), days=398)),
)
vector("too-long-private.pem", "Two years in a private PKI", lambda: with_issuing(leaf(days=730)), options="--private")
vector(
    "precertificate.pem",
    "A precertificate out of a CT log",
    lambda: with_issuing(poisoned()),
    "unknown_critical_extension",
)
vector(
    "self-signed.pem",
    "openssl req -x509 -addext: signed by itself",
    lambda: pem(
        self_signed(
            key("leaf"),
            x509.BasicConstraints(False, None),
            x509.SubjectAlternativeName([x509.DNSName("www.example.com")]),
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        )
    ),
    notes="self_signed",
    options=K,
)
# this account
vector("duplicate.pem", "The very certificate that is there", good, "duplicate", options="--against good.pem")
vector(
    "key-reused.pem",
    "A renewed certificate on the old key",
    lambda: with_issuing(leaf(serial=21)),
    options="--against good.pem",
    warnings="key_reused",
)
vector("revoked.pem", "Revoked by its CA", lambda: with_issuing(leaf(serial=66)), "revoked", options="--crl crl.pem")
# hostile
vector("deep.der", "20,000 SEQUENCEs inside each other", lambda: deep(20_000), "bad_der")
vector("deep-indefinite.der", "5,000 open SEQUENCEs of indefinite length", lambda: b"\x30\x80" * 5000, "bad_der")
vector(
    "huge-length.der", "An element that claims four gigabytes", bytes.fromhex("3084ffffffff") + b"A" * 300, "bad_der"
)
vector("bomb.zip", "A zip of 8 MB of zeros", lambda: zipped(bytes(8_000_000)), "not_pem")
vector(
    "escape.pem",
    "A CN with terminal control characters and a line end",
    lambda: with_issuing(leaf(subject="\x1b[31mred\nERROR")),
    warnings="cn_not_in_san",
)


# --- makers of single vectors ------------------------------------------------------------------------------------


def wrapped(width: int) -> bytes:
    out = b""
    for der in (leaf(), issuing()):
        text = base64.b64encode(der)
        lines = b"\n".join(text[i : i + width] for i in range(0, len(text), width))
        out += b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n"
    return out


def changed_line(number: int) -> bytes:
    lines = pem(leaf()).splitlines()
    lines[number - 1] = lines[number - 1][:20] + b"!" + lines[number - 1][21:]
    return b"\n".join(lines) + b"\n"


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("www.example.com.crt"), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def request() -> bytes:
    builder = x509.CertificateSigningRequestBuilder(name("www.example.com"))
    made = builder.sign(key("leaf"), hashes.SHA256(), ecdsa_deterministic=True)
    return made.public_bytes(serialization.Encoding.PEM)


def revocation_list() -> bytes:
    entry = x509.RevokedCertificateBuilder(66, AT - timedelta(days=1)).add_extension(
        x509.CRLReason(x509.ReasonFlags.key_compromise), False
    )
    made = (
        x509.CertificateRevocationListBuilder(
            name("Vector Issuing CA"), AT - timedelta(hours=1), AT + timedelta(days=4)
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key("issuing", "rsa").public_key()), False)
        .add_extension(x509.CRLNumber(7), False)
        .add_revoked_certificate(entry.build())
    )
    return made.sign(key("issuing", "rsa"), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def slow_key() -> bytes:
    rounds = tlv(2, (2**31 - 1).to_bytes(4, "big"))
    derivation = tlv(0x30, bytes.fromhex("06092a864886f70d01050c"), tlv(0x30, tlv(4, b"saltsalt"), rounds))
    cipher = tlv(0x30, bytes.fromhex("060960864801650304012a"), tlv(4, bytes(16)))
    scheme = tlv(0x30, bytes.fromhex("06092a864886f70d01050d"), tlv(0x30, derivation, cipher))
    return pem(tlv(0x30, scheme, tlv(4, bytes(64))), label="ENCRYPTED PRIVATE KEY")


def damaged_key() -> bytes:
    der = bytearray(base64.b64decode(b"".join(pkcs8(key("rsa-leaf", "rsa")).splitlines()[1:-1])))
    der[700] ^= 1
    return pem(bytes(der), label="PRIVATE KEY")


def no_ids_leaf() -> bytes:
    names = x509.SubjectAlternativeName([x509.DNSName("www.example.com")])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return build(None, key("leaf").public_key(), "Vector Issuing CA", key("issuing", "rsa"), [names, usage])


def no_ids_ca() -> bytes:
    own = key("old-issuing", "rsa").public_key()
    return build(
        "Vector Issuing CA", own, "Vector Root", key("root", "rsa"), [x509.BasicConstraints(True, None), CA_USAGE]
    )


def constrained(host: str) -> bytes:
    limits = x509.NameConstraints([x509.DNSName("example.com")], None)
    own = key("constrained", "rsa")
    above = ca("Constrained CA", own, "Vector Root", key("root", "rsa"), more=[limits])
    return pem(leaf(host, issuer="Constrained CA", signer=own), above)


def too_deep() -> bytes:
    top, below = key("constrained", "rsa"), key("other-ca", "rsa")
    first = ca("Last CA", top, "Vector Root", key("root", "rsa"), length=0)
    second = ca("One too many", below, "Last CA", top)
    return pem(leaf(issuer="One too many", signer=below), second, first)


def issued_by_leaf() -> bytes:
    own = key("other-ca", "rsa")
    middle = leaf("ca.example.com", public=own.public_key(), subject="Not a CA", serial=30)
    return pem(leaf(issuer="Not a CA", signer=own), middle, issuing())


def mldsa_leaf() -> bytes:
    own = key("mldsa65", "mldsa")
    names = x509.SubjectAlternativeName([x509.DNSName("www.example.com")])
    return pem(self_signed(own, names, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])))


def one_second_more() -> bytes:
    signer = key("issuing", "rsa")
    builder = x509.CertificateBuilder(name("Vector Issuing CA"), name(None), key("leaf").public_key(), 22)
    builder = builder.not_valid_before(AT - timedelta(days=10)).not_valid_after(AT + timedelta(days=190))
    for extension in (
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
        x509.SubjectAlternativeName([x509.DNSName("www.example.com")]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
    ):
        builder = builder.add_extension(extension, False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def poisoned() -> bytes:
    signer = key("issuing", "rsa")
    builder = x509.CertificateBuilder(name("Vector Issuing CA"), name(None), key("leaf").public_key(), 23)
    builder = builder.not_valid_before(AT - timedelta(days=1)).not_valid_after(AT + timedelta(days=30))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("www.example.com")]), False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
    builder = builder.add_extension(x509.PrecertPoison(), True)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def deep(levels: int) -> bytes:
    der = b""
    for _ in range(levels):
        der = tlv(0x30, der)
    return der


def blocklist() -> bytes:
    """A list in the badkeys format: the one Debian key among made-up records, sorted."""
    import hashlib

    wanted = hashlib.sha256(weak.DEBIAN_MODULUS.to_bytes(256, "big")).digest()[:15] + b"\x01"
    others = [hashlib.sha256(b"other %d" % n).digest()[:15] + b"\x02" for n in range(15)]
    return b"".join(sorted([wanted, *others]))


# --- writing -----------------------------------------------------------------------------------------------------

HEAD = """# Vectors

Inputs as people bring them, made by `make.py`; the verdicts are its author's. Judged at 2026-11-21T12:00:00Z; *given
with* says what else `certwright x509 check` is given. `of x.pem`: the file is the key for that certificate. Codes are
complete: what isn't listed must not be found.

| file | where its oddity comes from | given with | errors | warnings | notes | repaired |
|---|---|---|---|---|---|---|
"""


def listing() -> str:
    rows = []
    for v in VECTORS:
        story = v.story.replace("|", "\\|")
        cells = [
            v.name,
            story,
            *(" ".join(c.split()) or "–" for c in (v.options, v.errors, v.warnings, v.notes, v.repaired)),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return HEAD + "\n".join(rows) + "\n"


def main() -> None:
    for v in VECTORS:
        path = HERE / v.name
        if not path.exists() or "--all" in sys.argv:
            path.write_bytes(v.make())
    (HERE / "passphrase.txt").write_text(PASSPHRASE + "\n")
    (HERE / "wrong-passphrase.txt").write_text("incorrect horse\n")
    (HERE / "blocklist.dat").write_bytes(blocklist())
    (HERE / "README.md").write_text(listing())
    print(f"{len(VECTORS)} vectors")


if __name__ == "__main__":
    main()
