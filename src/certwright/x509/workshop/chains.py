"""Chains out of what was given and what is known: ordered, completed from a pool, without the root."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509

from certwright.kernel.problems import Problem
from certwright.x509.certificates import (
    MAX_CHAIN,
    Budget,
    CertificateFacts,
    check_as_issuer,
    key_ids_differ,
    load_with_facts,
    signed_by,
)
from certwright.x509.workshop.words import Finding, Place, from_problem

# One check costs up to 5 ms for the largest exponents.
_MAX_CHECKS: Final = 60


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A certificate, what it says, and where it was; `place` is None for one of the pool."""

    cert: x509.Certificate = field(repr=False)
    facts: CertificateFacts
    place: Place | None


class Pool:
    """Known intermediates and roots, by subject. Reading them once serves any number of checks."""

    def __init__(self, certificates: Iterable[bytes] = ()) -> None:
        """`certificates` as DER; those that can't be read are passed over."""
        self._by_subject: dict[str, list[Link]] = {}
        for der in dict.fromkeys(certificates):
            try:
                cert, facts = load_with_facts(der)
            except Problem:
                continue
            if facts.is_ca or facts.self_signed:
                self._by_subject.setdefault(facts.subject, []).append(Link(cert, facts, None))

    def named(self, subject: str) -> list[Link]:
        return self._by_subject.get(subject, [])


@dataclass(frozen=True, slots=True)
class Chain:
    """`path`: the leaf, then each the issuer of the one before, without the root; `root`: it, if it was there or known.

    `added`: those of the path that came from the pool. `strangers`: given but fitting nowhere. `namesake`: given, named
    like the issuer that is missing, but not the one that signed. `is_missing`: the leaf's issuer was not found.
    """

    path: tuple[Link, ...]
    root: Link | None
    added: tuple[Link, ...]
    strangers: tuple[Link, ...]
    namesake: Link | None

    @property
    def is_missing(self) -> bool:
        return len(self.path) == 1 and self.root is None and not self.path[0].facts.self_signed


def build(leaf: Link, given: Sequence[Link], pool: Pool) -> Chain:
    """Puts the chain of `leaf` together. Raises Invalid `chain_too_complex`."""
    budget = Budget(_MAX_CHECKS)
    rest = [link for link in given if link.facts.der != leaf.facts.der]
    path: list[Link] = [leaf]
    root: Link | None = None
    namesake: Link | None = None
    while root is None and len(path) < MAX_CHAIN and not path[-1].facts.self_signed:
        child = path[-1]
        # What was sent comes first, cross-signed before self-signed: the sender chose that path. Of the pool the
        # root comes first: the shortest chain does.
        named = [link for link in rest if link.facts.subject == child.facts.issuer]
        named.sort(key=lambda link: link.facts.self_signed)
        known = sorted(pool.named(child.facts.issuer), key=lambda link: not link.facts.self_signed)
        found = _issuer(child, [link for link in (*named, *known) if link not in path], budget)
        if found is None:
            namesake = named[0] if named else None
            break
        if found.place is not None:
            rest.remove(found)
        if found.facts.self_signed:
            root = found
        else:
            path.append(found)
    members = {(link.facts.subject, link.facts.spki_sha256) for link in (*path, *([root] if root else []))}
    return Chain(
        tuple(path),
        root,
        tuple(link for link in path if link.place is None),
        # Another certificate of a CA on the path (cross-signed, renewed) is no stranger: it is only not needed.
        tuple(link for link in rest if (link.facts.subject, link.facts.spki_sha256) not in members),
        namesake,
    )


def _issuer(child: Link, candidates: Sequence[Link], budget: Budget) -> Link | None:
    for candidate in candidates:
        if key_ids_differ(child.cert, candidate.cert):
            continue
        budget.spend()
        if signed_by(child.cert, candidate.cert) is not False:
            return candidate
    return None


def path_findings(chain: Chain, fallback: Place) -> list[Finding]:
    """What is wrong with each issuer on the path: not a CA, too deep, names or purposes it may not certify."""
    found = []
    below = [chain.path[0].cert]
    for link in (*chain.path[1:], *([chain.root] if chain.root else [])):
        try:
            check_as_issuer(link.cert, below)
        except Problem as problem:
            found.append(from_problem(problem, link.place or fallback))
        below.append(link.cert)
    return found
