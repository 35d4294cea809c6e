"""Name constraints (RFC 5280 section 4.2.1.10): which names a CA may certify. Shared by reading and by issuing."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable

from cryptography import x509

# Names times constraints; above it the check itself would be the attack (1 MiB of each makes 10^8 comparisons).
MAX_COMPARISONS = 250_000


class TooComplexError(ValueError):
    """More comparisons than are made for one certificate."""


def first_violation(constraints: x509.NameConstraints, names: Iterable[x509.GeneralName]) -> str | None:
    """The first of `names` that the constraints don't allow, in words; None if all are allowed.

    A kind of name that has constraints we can't evaluate (e-mail, URI) counts as a violation where such a name occurs.
    Raises TooComplexError.
    """
    permitted = list(constraints.permitted_subtrees or ())
    excluded = list(constraints.excluded_subtrees or ())
    comparisons = 0
    for name in names:
        comparisons += len(permitted) + len(excluded)
        if comparisons > MAX_COMPARISONS:
            raise TooComplexError("too many name constraints")
        if any(_within(name, tree) is not False for tree in excluded if type(tree) is type(name)):
            return _words(name)
        allowed = [_within(name, tree) for tree in permitted if type(tree) is type(name)]
        if allowed and True not in allowed:
            return _words(name)
    return None


def names_of(cert: x509.Certificate) -> list[x509.GeneralName]:
    """The names constraints speak of: the subject (unless empty) and every subject alternative name."""
    names: list[x509.GeneralName] = []
    if len(cert.subject.rdns):
        names.append(x509.DirectoryName(cert.subject))
    with contextlib.suppress(x509.ExtensionNotFound):
        names.extend(cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    return names


def _within(name: x509.GeneralName, tree: x509.GeneralName) -> bool | None:
    """Whether `name` lies in the subtree; None if this kind can't be evaluated."""
    if isinstance(name, x509.DNSName) and isinstance(tree, x509.DNSName):
        return _dns_within(name.value.lower(), tree.value.lower())
    if isinstance(name, x509.IPAddress) and isinstance(tree, x509.IPAddress):
        address, network = name.value, tree.value
        if not isinstance(network, ipaddress.IPv4Network | ipaddress.IPv6Network):
            return None
        if not isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address):
            return None
        return address.version == network.version and address in network
    if isinstance(name, x509.DirectoryName) and isinstance(tree, x509.DirectoryName):
        outer, inner = tree.value.rdns, name.value.rdns
        return list(inner[: len(outer)]) == list(outer)
    return None


def _dns_within(name: str, tree: str) -> bool:
    tree = tree.removeprefix(".")
    # "*.example.com" stands for names one label below, all of which lie in example.com's subtree.
    base = name.removeprefix("*.")
    return not tree or base == tree or base.endswith("." + tree)


def _words(name: x509.GeneralName) -> str:
    value = name.value
    return value.rfc4514_string() if isinstance(value, x509.Name) else str(value)
