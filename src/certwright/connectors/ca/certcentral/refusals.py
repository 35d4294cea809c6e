"""What such a CA says no with, as problems a person can act on.

The class says whether asking again helps: Unavailable is asked again (after `extra["retry_after"]` seconds, if it is
there), Refused is not. `extra["ca_code"]` holds the CA's own code. Its words are shown shortened.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from certwright.connectors.ca.certcentral.objects import Fault
from certwright.kernel.problems import NotFound, Problem, Refused, Unavailable

LONGEST_WORDS: Final = 300
_MOST_FAULTS = 5
# The limit is a window of three minutes (dev.digicert.com, rate limits); half of it is enough to be let in again.
_USUAL_PATIENCE = timedelta(seconds=90)


def unreachable(problem: Problem) -> Unavailable:
    """The guarded client couldn't get an answer. `extra["asked"]` says whether the CA may have heard the question."""
    return Unavailable(
        "ca_unreachable", f"The CA can't be reached: {problem.message}", fix=problem.fix,
        extra={"cause": problem.code, "asked": problem.code not in _NOT_ASKED},
    )  # fmt: skip


# Known before anything was sent.
_NOT_ASKED = frozenset(("egress_bad_url", "egress_denied", "egress_dns", "egress_tls"))


def unreadable(what: str, why: str) -> Unavailable:
    """The answer isn't of the published shape; a CA under repair mends that by itself."""
    return Unavailable(
        "ca_answer_unreadable", f"The CA's answer to {what} can't be used: {why[:200]}.",
        fix="It is asked again; if it lasts, check that the CA's address is that of its ordering API.",
        extra={"asked": True},
    )  # fmt: skip


def words_of(faults: Sequence[Fault], limit: int = LONGEST_WORDS) -> str:
    said = "; ".join(fault.message or fault.code for fault in faults[:_MOST_FAULTS])
    return said if len(said) <= limit else said[: limit - 1] + "…"


def refusal(faults: Sequence[Fault], status: int, wait: timedelta | None, what: str) -> Problem:
    """The problem for an answer of 400 or more to `what` (such as "the order")."""
    code = faults[0].code[:100] if faults else ""
    extra: dict[str, Any] = {"ca_code": code, "status": status, "asked": status >= 500}
    words = words_of(faults) or f"status {status}"
    kind = code.partition("|")[0]
    if status == 429 or kind == "request_limit_exceeded":
        extra["retry_after"] = max(1, int((wait or _USUAL_PATIENCE).total_seconds()))
        return Unavailable(
            "ca_rate_limited", f"The CA asks for patience: {words}",
            fix="It goes on by itself; spread large replacements over more hours.", extra=extra,
        )  # fmt: skip
    if wait is not None:
        extra["retry_after"] = max(1, int(wait.total_seconds()))
    if status >= 500:
        return Unavailable(
            "ca_busy", f"The CA can't do it now: {words}", fix="It is asked again; see the CA's status page.",
            extra=extra,
        )  # fmt: skip
    if status == 401:
        return Refused(
            "ca_key_refused", f"The CA doesn't take the API key: {words}",
            fix="Make a new key in the CA's console and enter it with this CA.", extra=extra,
        )  # fmt: skip
    if status == 403 or kind == "access_denied":
        return Refused(
            "ca_not_permitted", f"The CA doesn't permit {what}: {words}",
            fix="Give the key's user the right to order, and to manage organizations for OV and EV.", extra=extra,
        )  # fmt: skip
    if kind == "not_found" and code != "not_found|product":
        return NotFound("ca_not_found", f"The CA doesn't know what {what} is about: {words}",
                        fix="Check the CA's address, and whether its API key was replaced by one of another account.",
                        extra=extra)  # fmt: skip
    if kind.startswith("caa_"):
        return Refused(
            "ca_caa_forbids", f"The CAA records of a name don't let this CA issue: {words}",
            fix="Add the CA to the domain's CAA records, then apply again.", extra=extra,
        )  # fmt: skip
    if kind.startswith(("csr_", "invalid_csr")):
        return Refused(
            "ca_csr_refused", f"The CA doesn't take the signing request: {words}",
            fix="Apply again with another key algorithm, such as EC_P256 or RSA_2048.", extra=extra,
        )  # fmt: skip
    if code in ("not_found|product", "ambiguous_product") or kind.startswith("product_"):
        return Refused(
            "ca_product_refused", f"The CA doesn't sell this account the product: {words}",
            fix="Test the CA to see what it sells, and edit its products.", extra=extra,
        )  # fmt: skip
    if "balance" in kind or "funds" in kind or kind.startswith("payment_"):
        return Refused(
            "ca_not_paid", f"The CA wants to be paid first: {words}",
            fix="Top up the account at the CA, or edit how this CA is paid.", extra=extra,
        )  # fmt: skip
    if kind in ("invalid_dns_name", "invalid_domain", "domain_blocked", "unauthorized_domain"):
        return Refused(
            "ca_name_refused", f"The CA doesn't certify a name: {words}",
            fix="Leave that name out, or choose another CA.", extra=extra,
        )  # fmt: skip
    return Refused(
        "ca_refused", f"The CA refused {what}: {words}",
        fix="See what it says; if it is nothing of yours, ask the CA.", extra=extra,
    )  # fmt: skip


# --- what somebody must wait for or do --------------------------------------------------------------------------------


def settling(seconds: int) -> Unavailable:
    return Unavailable(
        "ca_order_settling", "The CA's answer to the order was lost; it is looked up again before anything is ordered "
        "twice.", fix="It goes on by itself.", extra={"retry_after": max(1, seconds)},
    )  # fmt: skip


def domains_open(names: Sequence[str], said: str = "") -> Refused:
    return Refused(
        "ca_domains_open",
        f"The CA has not seen what it wants for {', '.join(names)[:200]}. {said[:LONGEST_WORDS]}".strip(),
        fix="Leave what was published in place; the CA looks again by itself.", extra={"names": list(names[:50])},
    )  # fmt: skip


def mail_unanswered(names: Sequence[str]) -> Refused:
    return Refused(
        "ca_mail_unanswered", f"The CA wrote to the mailboxes of {', '.join(names)[:200]} and waits for an answer.",
        fix="Have whoever reads admin@, hostmaster@ or webmaster@ there follow the link of the CA's mail.",
        extra={"names": list(names[:50])},
    )  # fmt: skip


def organisation_pending(name: str, open_parts: Sequence[str]) -> Refused:
    missing = f": {', '.join(open_parts)[:200]}" if open_parts else ""
    return Refused(
        "ca_organisation_pending", f"The CA is verifying the organization {name[:100]}{missing}.",
        fix="Answer the CA's calls and mails; it says in its console what is missing.",
        extra={"open": list(open_parts)},
    )  # fmt: skip


def approval_pending() -> Refused:
    return Refused(
        "ca_approval_pending", "The request waits for an administrator of the account at the CA.",
        fix="Approve it in the CA's console, or let this CA's key skip approvals.",
    )  # fmt: skip


def revocation_pending() -> Unavailable:
    return Unavailable(
        "ca_revocation_pending", "The CA has the revocation; an administrator of the account there must approve it.",
        fix="Approve it in the CA's console.", extra={"retry_after": 3600},
    )  # fmt: skip
