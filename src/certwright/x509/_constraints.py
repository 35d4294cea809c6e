"""Name constraints (RFC 5280 section 4.2.1.10): which names a CA may certify. Shared by reading and by issuing."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from cryptography import x509

from certwright.kernel.names import looks_like_ip

# Names times constraints; above it the check itself would be the attack (1 MiB of each makes 10^8 comparisons).
MAX_COMPARISONS = 250_000

_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([A-Za-z0-9._-]+)(?::[0-9]*)?(?:[/?#].*)?", re.DOTALL)
# A common name that clients without a better one take for a host's.
_HOST: Final = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+")

Name = tuple[type[x509.GeneralName], Any]
"""A name's kind and value, also of values that aren't written as that kind has to be."""


class TooComplexError(ValueError):
    """More comparisons than are made for one certificate."""


def first_violation(constraints: x509.NameConstraints, names: Iterable[Name]) -> str | None:
    """The first of `names` that the constraints don't allow, in words; None if all are allowed.

    Where it can't be said whether a name lies in a subtree of its kind (other names, a URI without a host), it counts
    as a violation. Raises TooComplexError.
    """
    permitted = list(constraints.permitted_subtrees or ())
    excluded = list(constraints.excluded_subtrees or ())
    comparisons = 0
    for kind, value in names:
        comparisons += len(permitted) + len(excluded)
        if comparisons > MAX_COMPARISONS:
            raise TooComplexError("too many name constraints")
        if any(_reaches(kind, value, tree.value) for tree in excluded if type(tree) is kind):
            return _words(value)
        allowed = [_within(kind, value, tree.value) for tree in permitted if type(tree) is kind]
        if allowed and True not in allowed:
            return _words(value)
    return None


def names_of(cert: x509.Certificate) -> list[Name]:
    """The names constraints speak of: the subject (unless empty) and every subject alternative name; e-mail addresses
    in the subject; and the common name of a certificate without host names, where it reads like one (as OpenSSL, which
    takes it for one, has it)."""
    names: list[Name] = []
    ca = False
    with contextlib.suppress(x509.ExtensionNotFound):
        ca = cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with contextlib.suppress(x509.ExtensionNotFound):
        san = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [(type(name), name.value) for name in san]
    if len(cert.subject.rdns):
        if not ca and not any(kind is x509.DNSName for kind, _ in names):
            commons = cert.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
            names += [(x509.DNSName, text) for c in commons if _HOST.fullmatch(text := str(c.value))]
        mailboxes = cert.subject.get_attributes_for_oid(x509.NameOID.EMAIL_ADDRESS)
        names += [(x509.RFC822Name, str(mailbox.value)) for mailbox in mailboxes]
        names.insert(0, (x509.DirectoryName, cert.subject))
    return names


def _within(kind: type[x509.GeneralName], name: Any, tree: Any) -> bool | None:
    """Whether all that `name` stands for lies in the subtree; None if that can't be said."""
    judge = _JUDGES.get(kind)
    return None if judge is None else judge(name, tree)


def _reaches(kind: type[x509.GeneralName], name: Any, tree: Any) -> bool:
    """Whether anything that `name` stands for lies in the subtree, or may do so."""
    if kind is x509.DNSName and name.startswith("*."):
        # One of the names one label below lies in it if all do, or if it is that very name's.
        return _dns_within(name, tree) or tree.lower().partition(".")[2] == name[2:].lower()
    return _within(kind, name, tree) is not False


def _dns_within(name: str, tree: str) -> bool:
    """Here and below: all hosts that end in `tree`; with a leading dot, as OpenSSL and Go read it, those below it."""
    name, tree = name.lower(), tree.lower()
    if tree.startswith("."):
        return name.endswith(tree)
    # "*.example.com" stands for names one label below, all of which lie in example.com's subtree.
    base = name.removeprefix("*.")
    return not tree or base == tree or base.endswith("." + tree)


def _host_within(host: str, tree: str) -> bool:
    """Of mailboxes and URIs: that host alone; with a leading dot those below it."""
    host, tree = host.lower(), tree.lower()
    return host.endswith(tree) if tree.startswith(".") else not tree or host == tree


def _mailbox_within(name: str, tree: str) -> bool | None:
    box, at, host = name.rpartition("@")
    if not at or not box or not host:
        return None
    wanted, at, tree_host = tree.rpartition("@")
    if not _host_within(host, tree_host):
        return False
    if not at or box == wanted:
        return True
    # Capitals may tell mailboxes of one host apart (RFC 5321 section 2.4), and mostly don't.
    return None if box.lower() == wanted.lower() else False


def _uri_within(name: str, tree: str) -> bool | None:
    """Only hosts with a name count, and a URI without one "MUST" be rejected."""
    found = _URI.fullmatch(name)
    if found is None or looks_like_ip(found[1]):
        return None
    return _host_within(found[1], tree)


def _ip_within(address: Any, network: Any) -> bool | None:
    if not isinstance(network, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return None
    if not isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address):
        return None
    return address.version == network.version and address in network


def _directory_within(name: x509.Name, tree: x509.Name) -> bool:
    outer, inner = tree.rdns, name.rdns
    return [_told(rdn) for rdn in inner[: len(outer)]] == [_told(rdn) for rdn in outer]


def _told(rdn: x509.RelativeDistinguishedName) -> frozenset[tuple[str, str | bytes]]:
    """What names are compared by: neither capitals nor spaces count (RFC 5280 section 7.1)."""
    return frozenset((a.oid.dotted_string, _plain(a.value)) for a in rdn)


def _plain(value: str | bytes) -> str | bytes:
    if isinstance(value, bytes):
        return value
    return " ".join(unicodedata.normalize("NFKC", value).casefold().split())


_JUDGES: Final[Mapping[type[x509.GeneralName], Callable[[Any, Any], bool | None]]] = {
    x509.DNSName: _dns_within,
    x509.RFC822Name: _mailbox_within,
    x509.UniformResourceIdentifier: _uri_within,
    x509.IPAddress: _ip_within,
    x509.DirectoryName: _directory_within,
}


def _words(value: object) -> str:
    return value.rfc4514_string() if isinstance(value, x509.Name) else str(value)
