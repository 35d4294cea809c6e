"""Pure decisions about CAs: what one may be like, in which state it is, what may be done with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from certwright.kernel.problems import Invalid, Problem, Refused
from certwright.rooms.authorities.words import CaRequest, CaState, KeyStore
from certwright.x509.crl import REASONS
from certwright.x509.issue import DAY, ISSUING, ROOT, IssuerFacts, Profile
from certwright.x509.keys import CaKeyAlgorithm, ExperimentalAlgorithm, KeyAlgorithm, ca_key_algorithm
from certwright.x509.profiles import read_extended_usages

SHORTEST_WAIT: Final = 7
LONGEST_WAIT: Final = 30
MAX_CA_DAYS: Final = 9131  # 25 years
_DEFAULT_ROOT_DAYS: Final = 7305
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{1,100}")


@dataclass(frozen=True, slots=True)
class CaFacts:
    """What decides about a CA. `children` counts the CAs below it that aren't expired, revoked or gone."""

    name: str
    root: bool
    builtin: bool
    has_certificate: bool
    not_after: datetime | None
    disabled: bool
    revoked: bool
    delete_at: datetime | None
    children: int = 0


class CaOperation(StrEnum):
    ISSUE = "issue"
    INSTALL = "install"
    DISABLE = "disable"
    ENABLE = "enable"
    REVOKE = "revoke"
    DELETE = "delete"
    RESTORE = "restore"
    UPDATE = "update"
    RENEW = "renew"


def state_of(facts: CaFacts, now: datetime) -> CaState:
    if facts.delete_at is not None:
        return CaState.DELETED
    if not facts.has_certificate:
        return CaState.PENDING
    if facts.revoked:
        return CaState.REVOKED
    if facts.not_after is not None and facts.not_after <= now:
        return CaState.EXPIRED
    return CaState.DISABLED if facts.disabled else CaState.ACTIVE


_FROM: Final[dict[CaOperation, frozenset[CaState]]] = {
    CaOperation.ISSUE: frozenset({CaState.ACTIVE}),
    CaOperation.INSTALL: frozenset({CaState.PENDING, CaState.ACTIVE, CaState.EXPIRED}),
    CaOperation.DISABLE: frozenset({CaState.ACTIVE}),
    CaOperation.ENABLE: frozenset({CaState.DISABLED}),
    CaOperation.REVOKE: frozenset({CaState.ACTIVE, CaState.DISABLED}),
    CaOperation.DELETE: frozenset({CaState.PENDING, CaState.DISABLED, CaState.EXPIRED, CaState.REVOKED}),
    CaOperation.RESTORE: frozenset({CaState.DELETED}),
    CaOperation.UPDATE: frozenset({CaState.PENDING, CaState.ACTIVE, CaState.DISABLED, CaState.REVOKED}),
    CaOperation.RENEW: frozenset({CaState.ACTIVE, CaState.EXPIRED}),
}
_HOW: Final[dict[CaOperation, str]] = {
    CaOperation.ISSUE: "Choose an active CA.",
    CaOperation.INSTALL: "Enable or restore it first; one that is revoked takes no certificate any more.",
    CaOperation.DISABLE: "Only an active CA can be disabled.",
    CaOperation.ENABLE: "Only a disabled CA can be enabled.",
    CaOperation.REVOKE: "Only a CA that is active or disabled can be revoked.",
    CaOperation.DELETE: "Disable it first; then it can be deleted, after a time of waiting.",
    CaOperation.RESTORE: "Only a CA that waits to be deleted can be restored.",
    CaOperation.UPDATE: "Restore it first, or make another CA.",
    CaOperation.RENEW: "Enable or restore it first; one that is revoked, or waits for its first certificate, can't be.",
}


def refusal(operation: CaOperation, facts: CaFacts, now: datetime) -> Problem | None:
    """Why this can't be done with the CA now; None if it can."""
    state = state_of(facts, now)
    if state not in _FROM[operation]:
        return Refused(
            "ca_not_active" if operation is CaOperation.ISSUE else f"ca_{operation}_refused",
            f"The CA {facts.name!r} is {state}; {_NOUN[operation]} isn't possible.",
            fix=_HOW[operation], extra={"state": state.value},
        )  # fmt: skip
    if operation is CaOperation.REVOKE and facts.root:
        return Refused(
            "ca_root_revoke", "A root can't be revoked: nobody above it could say so.",
            fix="Disable it, remove it from the trust stores of the clients, and delete it.",
        )  # fmt: skip
    if operation is CaOperation.DELETE and facts.builtin:
        return Refused(
            "ca_is_builtin", "The built-in CA can't be deleted: the product issues its own certificates from it.",
            fix="Disable it, so that nothing more is issued from it.",
        )  # fmt: skip
    if operation is CaOperation.DELETE and facts.children:
        return Refused(
            "ca_has_children", f"{facts.children} CA(s) below this one are still in use.",
            fix="Revoke or delete the CAs below it first.",
        )  # fmt: skip
    return None


_NOUN: Final[dict[CaOperation, str]] = {
    CaOperation.ISSUE: "issuing",
    CaOperation.INSTALL: "installing a certificate",
    CaOperation.DISABLE: "disabling",
    CaOperation.ENABLE: "enabling",
    CaOperation.REVOKE: "revoking",
    CaOperation.DELETE: "deleting",
    CaOperation.RESTORE: "restoring",
    CaOperation.UPDATE: "changing it",
    CaOperation.RENEW: "renewing",
}


def judge_name(name: str) -> None:
    if not _NAME.fullmatch(name) or not name.strip():
        raise Invalid("ca_name_invalid", "A CA's name has 1 to 100 printable characters.", field="name",
                      fix="Choose a name such as Shop issuing CA 2026.")  # fmt: skip


def judge_reason(reason: str) -> None:
    if reason not in REASONS:
        raise Invalid(
            "revocation_reason_unknown", f"{reason[:40]!r} isn't a revocation reason.", field="reason",
            fix=f"Use one of: {', '.join(sorted(REASONS))}.",
        )  # fmt: skip


def judge_wait(days: int) -> timedelta:
    if not SHORTEST_WAIT <= days <= LONGEST_WAIT:
        raise Invalid(
            "ca_wait_out_of_range", f"A CA waits {SHORTEST_WAIT} to {LONGEST_WAIT} days before it is deleted.",
            field="days", fix="Choose a number of days from 7 to 30.",
        )  # fmt: skip
    return timedelta(days=days)


def judge_order(until: datetime, children_until: datetime | None) -> None:
    """A CA that waits to be deleted can be restored to the last; so the one above it isn't gone before that."""
    if children_until is not None and until < children_until:
        raise Refused(
            "ca_child_waits_longer",
            f"A CA below this one can be restored until {children_until:%Y-%m-%d %H:%M} UTC; this one would be gone.",
            field="days", fix=f"Have it wait longer; {LONGEST_WAIT} days are enough.",
        )  # fmt: skip


def judge_restore(name: str, parent: CaFacts) -> None:
    """`parent` as it is; erased or not, it is deleted as long as it has a time for that."""
    if parent.delete_at is not None:
        raise Refused(
            "ca_parent_deleted", f"The CA above {name!r}, {parent.name!r}, is deleted or waits for it.",
            fix="Restore that one first; when it is gone, make another CA.",
        )  # fmt: skip


def judge_above(name: str, above: Sequence[CaFacts]) -> None:
    """Below a CA that is revoked nothing is issued that anybody would believe."""
    revoked = next((ca for ca in above if ca.revoked), None)
    if revoked is not None:
        raise Refused(
            "ca_above_revoked", f"The CA {revoked.name!r} above {name!r} is revoked: no client would believe it.",
            fix="Make a CA below one that is good, and have it take over.",
        )  # fmt: skip


def judge_lists(*, crl_days: int, crl_shards: int) -> None:
    if not 1 <= crl_days <= 30:
        raise Invalid("crl_days_out_of_range", "A revocation list is good for 1 to 30 days.", field="crl_days",
                      fix="Choose 1 to 30; 7 suits most.")  # fmt: skip
    if not 1 <= crl_shards <= 1000:
        raise Invalid("crl_shards_out_of_range", "A CA spreads its revocations over 1 to 1,000 lists.",
                      field="crl_shards", fix="One list per 50,000 certificates is plenty.")  # fmt: skip


def judge_request(request: CaRequest, parent: IssuerFacts | None) -> tuple[Profile, CaKeyAlgorithm]:
    """The profile of the CA certificate and the kind of its key. `parent` is None for a root and for a parent outside.

    Raises Invalid `ca_name_invalid`, `ca_subject_missing`, `unsupported_key`, `ca_days_out_of_range`,
    `path_len_out_of_range`, Refused `path_len_exhausted`, and what `judge_lists` raises.
    """
    judge_name(request.name)
    if not request.subject.common_name:
        raise Invalid("ca_subject_missing", "A CA needs a common name: certificates say who issued them by it.",
                      field="subject.common_name", fix="Give a common name.")  # fmt: skip
    algorithm = judge_ca_algorithm(request.key_algorithm)
    if judge_store(request.key_store) is KeyStore.HSM and not isinstance(algorithm, KeyAlgorithm):
        raise not_in_the_hsm(algorithm)
    judge_lists(crl_days=request.crl_days, crl_shards=request.crl_shards)
    path_len = request.path_len
    if path_len is not None and not 0 <= path_len <= 10:
        raise Invalid("path_len_out_of_range", "A CA has 0 to 10 levels of CAs below it, or any number.",
                      field="path_len", fix="Choose 0 for a CA that issues to servers and clients only.")  # fmt: skip
    root = parent is None and not request.outside
    levels = None if parent is None else parent.levels
    if levels is not None:
        if levels < 1:
            raise Refused("path_len_exhausted", "The parent may issue to servers and clients only, not to CAs.",
                          fix="Choose a parent whose path length is 1 or more.")  # fmt: skip
        path_len = levels - 1 if path_len is None else path_len
        if path_len >= levels:
            raise Invalid(
                "path_len_out_of_range", f"Below this parent the path length is at most {levels - 1}.",
                field="path_len", fix="Choose a smaller path length.",
            )  # fmt: skip
    days = (_DEFAULT_ROOT_DAYS if root else 1826) if request.days is None else request.days
    _judge_days(days)
    purposes = read_extended_usages(list(request.purposes))
    base = ROOT if root else ISSUING
    return replace(base, path_len=path_len, max_seconds=days * DAY, eku=purposes), algorithm


def _judge_days(days: int) -> None:
    if not 1 <= days <= MAX_CA_DAYS:
        raise Invalid("ca_days_out_of_range", f"A CA lives 1 to {MAX_CA_DAYS} days (25 years).", field="days",
                      fix="Twenty years suit a root, five an issuing CA.")  # fmt: skip


def judge_renewed_days(days: int | None, before: IssuerFacts) -> int:
    """How many seconds the next certificate lives: as asked, or as long as the one before. Raises Invalid
    `ca_days_out_of_range`."""
    if days is None:
        usual = int((before.not_after - before.not_before).total_seconds()) + 1
        return min(usual, MAX_CA_DAYS * DAY)
    _judge_days(days)
    return days * DAY


def judge_gain(
    name: str, before: IssuerFacts, end: datetime, parent_name: str | None, parent: IssuerFacts | None
) -> None:
    """A renewal makes a CA end later, and by more than whoever asks twice would gain. `end` is the new one's."""
    least = min(timedelta(days=1), (before.not_after - before.not_before) / 10)
    if end - before.not_after >= least:
        return
    if parent is not None and end >= parent.not_after:
        raise Refused(
            "ca_renewal_gains_nothing",
            f"The CA {parent_name!r} above it ends on {parent.not_after:%Y-%m-%d}, so {name!r} can't end later.",
            fix="Renew the CA above it first.",
        )  # fmt: skip
    raise Refused(
        "ca_renewal_gains_nothing",
        f"{name!r} ends on {before.not_after:%Y-%m-%d} already; renewed, it would end on {end:%Y-%m-%d}.",
        fix="Renew it nearer to its end, or for more days.",
    )  # fmt: skip


def judge_replacement(name: str, before: IssuerFacts, after: IssuerFacts, *, parent_is_here: bool) -> None:
    """A certificate that an outside parent signed for a CA that has one: what was issued must stay good."""
    if parent_is_here:
        raise Refused(
            "ca_install_refused", f"{name!r} has its certificate from here; one from elsewhere isn't taken.",
            fix="Renew it instead.",
        )  # fmt: skip
    if after.der == before.der:
        raise Refused("ca_certificate_installed", "The CA has this very certificate already.",
                      fix="Have its parent sign a new one for the same key.")  # fmt: skip
    if after.spki_sha256 != before.spki_sha256:
        raise Invalid(
            "ca_certificate_other_key", "This certificate is for another key than this CA's.",
            field="certificate", fix="Install the certificate that was signed for this CA's key.",
        )  # fmt: skip
    if after.subject_der != before.subject_der:
        raise Invalid(
            "ca_certificate_other_subject",
            "This certificate gives the CA another subject than what it issued names, or writes it otherwise.",
            field="certificate", fix="Have the parent sign exactly the subject of the certificate before.",
        )  # fmt: skip
    if after.ski != before.ski:
        raise Invalid(
            "ca_certificate_other_identifier",
            "This certificate gives the key another identifier (SKI) than what the CA issued names it by.",
            field="certificate", fix="Have the parent sign the subject key identifier of the certificate before.",
        )  # fmt: skip


def judge_store(word: str) -> KeyStore:
    try:
        return KeyStore(word)
    except ValueError:
        raise Invalid("key_store_unknown", f"CA keys aren't kept in {word[:40]!r}.", field="key_store",
                      fix="Use software or hsm.") from None  # fmt: skip


def judge_import(key_store: str) -> None:
    if judge_store(key_store) is KeyStore.HSM:
        raise Refused(
            "hsm_no_import", "Only keys made in the HSM are kept there: a key that was outside may have been copied.",
            field="key_store",
            fix="Keep this key in software; or make a CA in the HSM and have it take over.",
        )  # fmt: skip


def not_in_the_hsm(algorithm: CaKeyAlgorithm) -> Invalid:
    return Invalid(
        "hsm_algorithm", f"Keys of kind {algorithm} are made in software only.", field="key_algorithm",
        fix="Choose EC or RSA for the HSM, or keep this key in software.",
    )  # fmt: skip


def judge_ca_algorithm(word: str) -> CaKeyAlgorithm:
    try:
        return ca_key_algorithm(word)
    except ValueError:
        raise _no_algorithm(word, [*KeyAlgorithm, *ExperimentalAlgorithm]) from None


def judge_algorithm(word: str) -> KeyAlgorithm:
    """Of a key made here for a certificate that isn't a CA's."""
    try:
        return KeyAlgorithm(word)
    except ValueError:
        raise _no_algorithm(word, list(KeyAlgorithm)) from None


def _no_algorithm(word: str, there_are: Sequence[str]) -> Invalid:
    return Invalid(
        "unsupported_key", f"Keys can't be made with the algorithm {word[:40]!r}.", field="key_algorithm",
        fix=f"Use one of: {', '.join(there_are)}.",
    )  # fmt: skip
