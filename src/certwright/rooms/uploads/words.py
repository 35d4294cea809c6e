"""The vocabulary of uploads: what is given and wished for, what was found, and what an account admits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from certwright.kernel.problems import Invalid
from certwright.rooms.certificates import Detail, Purpose
from certwright.x509.certificates import CertificateFacts, to_pem
from certwright.x509.workshop.toolbox import Judged
from certwright.x509.workshop.toolbox import Upload as Given
from certwright.x509.workshop.upload import summary
from certwright.x509.workshop.words import REPAIRS, Finding, Place, Severity

__all__ = ["Finding", "Given", "Place", "Purpose", "Severity"]


@dataclass(frozen=True, slots=True)
class Wishes:
    """How to judge. `strict`: PEM only, key without passphrase, chain complete, as the large clouds have it.

    `private`: leave out what only public CAs must keep to. `allow_duplicate`: the very certificate may be there
    already. `allow_fewer_names`: a replacement may lack names of the version before. `online`: ask outside for missing
    issuers and for revocation.
    """

    purpose: Purpose = Purpose.SERVER
    strict: bool = False
    private: bool = False
    allow_duplicate: bool = False
    allow_fewer_names: bool = False
    online: bool = True


class Source(StrEnum):
    """Where a certificate of the chain came from."""

    GIVEN = "given"
    KNOWN = "known"
    FETCHED = "fetched"


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One certificate of the completed chain, the leaf first."""

    subject: str
    issuer: str
    sha256: str
    not_after: datetime
    source: Source


@dataclass(frozen=True, slots=True)
class Repaired:
    """Something that was put right: what, in words that follow "repaired:", and where it was seen first."""

    code: str
    message: str
    where: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A certificate of the account."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of an upload. `leaf` is the certificate's facts as documents hold them, None where there is none.

    `links` is the chain as it would be stored, without the root; `chain_complete`: the issuer that signed the leaf is
    there, or known here as a root. `successor_of`: hosted certificates with the same names that it could replace.
    """

    ok: bool
    repaired: tuple[Repaired, ...]
    findings: tuple[Finding, ...]
    leaf: Mapping[str, Any] | None
    links: tuple[ChainLink, ...]
    chain_complete: bool
    certificate_pem: str
    chain_pem: str
    has_key: bool
    successor_of: tuple[Reference, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        return self._of(Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return self._of(Severity.WARNING)

    @property
    def notes(self) -> tuple[Finding, ...]:
        return self._of(Severity.NOTE)

    def _of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity is severity)

    def as_dict(self) -> dict[str, Any]:
        """The document the API answers with. The certificates are public; nothing of a key is in it."""
        return {
            "ok": self.ok,
            "repaired": list(dict.fromkeys(repair.code for repair in self.repaired)),
            "repairs": list(self.repaired),
            "findings": [finding.as_dict() for finding in self.findings],
            "leaf": self.leaf,
            "links": list(self.links),
            "chain_complete": self.chain_complete,
            "certificate": self.certificate_pem,
            "chain": self.chain_pem,
            "has_key": self.has_key,
            "successor_of": list(self.successor_of),
        }


def judgement(
    judged: Judged,
    *,
    more: Sequence[Finding] = (),
    fetched: Sequence[str] = (),
    successor_of: Sequence[Reference] = (),
) -> Judgement:
    """`more` are findings beyond the workshop's; `fetched` the fingerprints (SHA-256) of what came from outside."""
    findings = (*judged.findings, *more)
    path = (judged.leaf, *judged.chain) if judged.leaf is not None else ()
    added = set(judged.added)
    return Judgement(
        ok=all(finding.severity is not Severity.ERROR for finding in findings),
        repaired=tuple(
            Repaired(code, REPAIRS.get(code, code), where)
            for code, where in {repair.code: str(repair.where) for repair in reversed(judged.repaired)}.items()
        )[::-1],
        findings=findings,
        leaf=summary(judged.leaf) if judged.leaf is not None else None,
        links=tuple(_link(facts, added, set(fetched)) for facts in path),
        chain_complete=judged.leaf is not None and not judged.missing,
        certificate_pem=to_pem(judged.leaf.der) if judged.leaf is not None else "",
        chain_pem="".join(to_pem(facts.der) for facts in judged.chain),
        has_key=judged.key is not None,
        successor_of=tuple(successor_of),
    )


def _link(facts: CertificateFacts, added: set[str], fetched: set[str]) -> ChainLink:
    source = Source.GIVEN
    if facts.sha256 in added:
        source = Source.FETCHED if facts.sha256 in fetched else Source.KNOWN
    return ChainLink(facts.subject, facts.issuer, facts.sha256, facts.not_after, source)


class UploadRefused(Invalid):
    """Something in the upload is an error. Code, sentence, fix and field are the first one's; `extra` holds all of them
    under `errors`, and the whole document of the judgement under `report`."""

    title = "The upload has errors"

    def __init__(self, judgement: Judgement) -> None:
        self.judgement = judgement
        first = judgement.errors[0]
        super().__init__(
            first.code, first.message, fix=first.fix, field=first.where.input,
            extra={
                "errors": [finding.as_dict() | {"field": finding.where.input} for finding in judgement.errors],
                "report": judgement.as_dict(),
            },
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The certificate as it is now, the number of the version that was stored, and what was found."""

    certificate: Detail
    version: int
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class Record:
    """What was found when a version was uploaded; `findings` are documents as the API has them."""

    version_id: str
    version: int
    at: datetime
    by: str
    strict: bool
    repaired: tuple[str, ...]
    findings: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Quota:
    """How many uploaded certificates of one purpose the account holds, and how many it may."""

    purpose: Purpose
    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class UploadPolicy:
    """`legacy_rsa`: RSA keys of 1024 to 2047 bits are admitted for devices that can't do more, with a warning that
    stays. `updated_at` None: it was never changed."""

    legacy_rsa: bool = False
    revision: int = 0
    updated_at: datetime | None = None
