"""Download archives: the right files for one kind of server, and a note that names these very files."""

from __future__ import annotations

import base64
import io
import re
import stat
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from urllib.parse import urljoin

from certwright.kernel.problems import Invalid
from certwright.x509._notes import note as _note_text
from certwright.x509.certificates import to_pem
from certwright.x509.crl import to_pem as crl_to_pem
from certwright.x509.keys import PrivateKey, to_pkcs8_der, to_pkcs8_pem
from certwright.x509.workshop import jks, pkcs7, pkcs12

# Names Windows can't have, with or without an extension.
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))})
_FIRST_ZIP_YEAR = 1980
_LAST_ZIP_YEAR = 2107


def safe_file_name(name: str) -> str:
    """A file name without path, wildcard or surprise from any text, at most 100 characters: `*.a.de` -> `_.a.de`."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "_", name.replace("*", "_")).lstrip(".-")[:100].rstrip(". ")
    if not cleaned or cleaned.partition(".")[0].lower() in _RESERVED:
        cleaned = ("certificate_" + cleaned).rstrip("_")
    return cleaned


class Server(StrEnum):
    """What an archive is made for; the last four are formats rather than servers."""

    NGINX = "nginx"
    APACHE = "apache"
    TOMCAT = "tomcat"
    IIS = "iis"
    WEBLOGIC = "weblogic"
    RESIN = "resin"
    HAPROXY = "haproxy"
    KUBERNETES = "kubernetes"
    PEM = "pem"
    DER = "der"
    P7B = "p7b"
    CHAIN = "chain"


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into an archive: `chain` is DER, the leaf first, without the root; `root` only for `chain` archives."""

    name: str
    chain: Sequence[bytes]
    key: PrivateKey | None = field(default=None, repr=False)
    root: bytes | None = None


def archive(
    server: Server, contents: Contents, *, at: datetime, random: Callable[[int], bytes], legacy: bool = False
) -> bytes:
    """The zip for one kind of server: its files, a passphrase file where a store needs one, README.txt.

    `at` dates the files; `random(n)` gives n random octets, used for the passphrase and the key store's salts. `legacy`
    writes PFX for programs of before 2019. Files with secrets ask to be unpacked with mode 0600. Raises Invalid
    `bundle_key_needed` where the server's format can't do without the key.
    """
    base = safe_file_name(contents.name)
    if contents.key is None and server in _NEED_KEY:
        raise Invalid(
            "bundle_key_needed", f"An archive for {server.value} holds the private key, and there is none.",
            fix="Give the key, too, or take the formats without one: pem, p7b.", field="key",
        )  # fmt: skip
    files = _files(server, base, contents, _Secrets(at, random, legacy))
    note = _note(server, base, files)
    return _zip([*files, ("README.txt", note.encode(), 0o644)], at)


def install_note(server: Server, name: str, *, has_key: bool, has_chain: bool, has_root: bool = False) -> str:
    """The README.txt that `archive` would put beside the files, without making them."""
    base = safe_file_name(name)
    files = {f"{base}_chain.crt"} if has_chain and server in _CHAIN_APART else set()
    if has_key and server in _KEY_APART:
        files.add(f"{base}.key.der" if server is Server.DER else f"{base}.key")
    if has_root and server is Server.CHAIN:
        files.add(f"{base}_root.crt")
    return _note_text(server.value, base, secret_name(base), files)


_CHAIN_APART = frozenset({Server.APACHE, Server.CHAIN})
_KEY_APART = frozenset({Server.NGINX, Server.RESIN, Server.APACHE, Server.PEM, Server.DER})
_NEED_KEY = frozenset({Server.TOMCAT, Server.IIS, Server.WEBLOGIC, Server.HAPROXY, Server.KUBERNETES})
_File = tuple[str, bytes, int]


class _Secrets:
    """What a store needs beyond its contents; the passphrase is drawn once and is the same in all stores."""

    def __init__(self, at: datetime, random: Callable[[int], bytes], legacy: bool) -> None:
        self.at = at
        self.random = random
        self.legacy = legacy
        # 120 bits in letters and digits, which no shell, XML or YAML takes amiss.
        self.passphrase = base64.b32encode(random(15)).lower()


def _files(server: Server, base: str, contents: Contents, secrets: _Secrets) -> list[_File]:
    whole = _pem(contents.chain)
    key = [(f"{base}.key", to_pkcs8_pem(contents.key), 0o600)] if contents.key is not None else []
    match server:
        case Server.NGINX | Server.RESIN:
            return [(f"{base}.crt", whole, 0o644), *key]
        case Server.APACHE:
            chain = [(f"{base}_chain.crt", _pem(contents.chain[1:]), 0o644)] if len(contents.chain) > 1 else []
            return [(f"{base}.crt", _pem(contents.chain[:1]), 0o644), *chain, *key]
        case Server.HAPROXY:
            return [(f"{base}.pem", whole + key[0][1], 0o600)]
        case Server.KUBERNETES:
            return [(f"{base}.yaml", _secret_yaml(base, whole, key[0][1]), 0o600)]
        case Server.TOMCAT:
            return [_pfx(base, contents, secrets), _jks(base, contents, secrets), _password(base, secrets)]
        case Server.IIS:
            return [_pfx(base, contents, secrets), _password(base, secrets)]
        case Server.WEBLOGIC:
            return [_jks(base, contents, secrets), _password(base, secrets)]
        case Server.PEM:
            return [(f"{base}.pem", whole, 0o644), *key]
        case Server.DER:
            ders = [
                (f"{base}.cer" if n == 0 else f"{base}_chain{n}.cer", der, 0o644)
                for n, der in enumerate(contents.chain)
            ]
            if contents.key is not None:
                ders.append((f"{base}.key.der", to_pkcs8_der(contents.key), 0o600))
            return ders
        case Server.P7B:
            return [(f"{base}.p7b", pkcs7.write(contents.chain), 0o644)]
        case Server.CHAIN:
            files = [(f"{base}_chain.crt", _pem(contents.chain[1:]), 0o644)] if len(contents.chain) > 1 else []
            return files + ([(f"{base}_root.crt", _pem([contents.root]), 0o644)] if contents.root else [])


def _pem(ders: Sequence[bytes]) -> bytes:
    return "".join(to_pem(der) for der in ders).encode()


def _pfx(base: str, contents: Contents, secrets: _Secrets) -> _File:
    store = pkcs12.write(
        name=base, key=contents.key, leaf=contents.chain[0], chain=contents.chain[1:], passphrase=secrets.passphrase,
        legacy=secrets.legacy,
    )  # fmt: skip
    return f"{base}.pfx", store, 0o600


def _jks(base: str, contents: Contents, secrets: _Secrets) -> _File:
    assert contents.key is not None
    entry = jks.Entry(base.lower(), True, tuple(contents.chain), to_pkcs8_der(contents.key))
    return f"{base}.jks", jks.write([entry], secrets.passphrase, at=secrets.at, salts=[secrets.random(20)]), 0o600


def _password(base: str, secrets: _Secrets) -> _File:
    return f"{base}.password.txt", secrets.passphrase + b"\n", 0o600


def _secret_yaml(base: str, whole: bytes, key: bytes) -> bytes:
    return f"""apiVersion: v1
kind: Secret
metadata:
  name: {secret_name(base)}
type: kubernetes.io/tls
data:
  tls.crt: {base64.b64encode(whole).decode()}
  tls.key: {base64.b64encode(key).decode()}
""".encode()


def secret_name(base: str) -> str:
    """A name Kubernetes takes (RFC 1123 subdomain, at most 253 characters)."""
    name = re.sub(r"[^a-z0-9.-]+", "-", base.lower())
    name = re.sub(r"[.-]*\.[.-]*", ".", name).strip(".-")
    return f"{name[:240].strip('.-') or 'certificate'}-tls"


def _zip(files: list[_File], at: datetime) -> bytes:
    moment = at.astimezone(UTC)
    year = min(max(moment.year, _FIRST_ZIP_YEAR), _LAST_ZIP_YEAR)
    dated = (year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file_name, content, mode in files:
            entry = zipfile.ZipInfo(file_name, dated)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever this runs: the mode below is read as such
            entry.external_attr = (stat.S_IFREG | mode) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def _note(server: Server, base: str, files: Sequence[_File]) -> str:
    return _note_text(server.value, base, secret_name(base), {name for name, _, _ in files})


# --- mutual TLS --------------------------------------------------------------------------------------------------

_KIT_NOTE = """Mutual TLS: what a listener and a client need.

For the listener: ca.pem (who may issue clients) and crl.pem (who is refused).
{missing}For the client: {base}.pfx with the passphrase of {base}.password.txt
(browsers, Windows, macOS, telephones), or {base}.crt with {base}.key.

nginx:
    ssl_client_certificate /etc/nginx/certs/ca.pem;
    ssl_crl /etc/nginx/certs/crl.pem;
    ssl_verify_client on;
    ssl_verify_depth 3;

HAProxy:
    bind :443 ssl crt /etc/haproxy/certs/server.pem ca-file /etc/haproxy/certs/ca.pem crl-file /etc/haproxy/certs/crl.pem verify required

Try it:
    curl --cert {base}.crt --key {base}.key https://<server>/

A revoked client is refused once the listener has the new lists, and everybody once those it has ran out: {life} after
they were made. Fetch them, and reload the listener, after each revocation and {often} in any case{root}:
    curl --fail --fail-early --silent --show-error{trust} \\
{lists} \\
        > crl.new && mv crl.new crl.pem
"""  # noqa: E501 - a configuration line is one line


# The lists of CAs that are led elsewhere.
_MISSING_NOTE = """
crl.pem isn't whole yet: nginx and HAProxy refuse every client unless they have a list of each CA in ca.pem, and these
are led elsewhere. Fetch their lists, append them to crl.pem as PEM (openssl crl -inform DER -in FILE), and do so again
whenever crl.pem is fetched anew:
{lists}

"""


def _as_pem(url: str) -> str:
    """Listeners read lists as PEM; every list is at both addresses."""
    return f"{url.removesuffix('.crl')}.pem"


@dataclass(frozen=True, slots=True)
class ClientKit:
    """`client` is the client's certificate, chain and key; `authorities` the CAs (DER) from the issuing one to its
    root, `crls` their lists (DER) with their addresses; `missing` the subjects of those whose lists aren't here, with
    where these are said to be."""

    client: Contents
    authorities: Sequence[bytes]
    crls: Sequence[tuple[bytes, str]]
    crl_days: int
    missing: Sequence[tuple[str, Sequence[str]]] = ()


def client_kit(kit: ClientKit, *, at: datetime, random: Callable[[int], bytes], legacy: bool = False) -> bytes:
    """The zip for a listener that asks clients for certificates, and for one client. As in `archive`."""
    base = safe_file_name(kit.client.name)
    secrets = _Secrets(at, random, legacy)
    assert kit.client.key is not None
    lists = b"".join(crl_to_pem(der).encode() for der, _ in kit.crls)
    missing = "\n".join(f"    {name}: {' '.join(urls) or 'ask whoever leads it'}" for name, urls in kit.missing)
    secure = next((url for _, url in kit.crls if url.startswith("https:")), None)
    note = _KIT_NOTE.format(
        missing=_MISSING_NOTE.format(lists=missing) if missing else "",
        trust=" --cacert root.pem" if secure else "",
        root=f"\n(root.pem is the root of the server that has them: see {urljoin(secure, '/ca')})" if secure else "",
        base=base, life=f"{kit.crl_days} days" if kit.crl_days > 1 else "a day",
        often="once a day" if kit.crl_days > 1 else "every six hours",
        lists=" \\\n".join(f"        {_as_pem(url)}" for _, url in kit.crls),
    )  # fmt: skip
    return _zip(
        [
            ("ca.pem", _pem(kit.authorities), 0o644),
            ("crl.pem", lists, 0o644),
            (f"{base}.crt", _pem(kit.client.chain), 0o644),
            (f"{base}.key", to_pkcs8_pem(kit.client.key), 0o600),
            _pfx(base, kit.client, secrets),
            _password(base, secrets),
            ("README.txt", note.encode(), 0o644),
        ],
        at,
    )
