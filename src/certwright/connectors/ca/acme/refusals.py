"""What an ACME server says no with (RFC 8555 section 6.7, RFC 9773, profiles draft), as problems a person can act on.

The class says whether asking again helps: Unavailable is asked again (after `extra["retry_after"]` seconds, if it is
there), Invalid and Refused are not. `extra["acme"]` holds the server's own kind of error.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from certwright.acme.objects import ProblemDocument
from certwright.kernel.problems import Problem, Refused, Unavailable

_LONGEST_WORDS = 300


def unreachable(problem: Problem) -> Unavailable:
    """The guarded client couldn't get an answer."""
    fix = problem.fix
    if problem.code == "egress_tls":
        fix = "If the CA's web server has a root of its own, give that with this CA (--root); else check the address."
    return Unavailable(
        "ca_unreachable", f"The CA can't be reached: {problem.message}", fix=fix, extra={"cause": problem.code}
    )


def unreadable(what: str, why: str) -> Unavailable:
    """The answer breaks RFC 8555; a CA under repair mends that by itself."""
    return Unavailable(
        "ca_answer_unreadable", f"The CA's answer to {what} can't be used: {why[:200]}.",
        fix="It is asked again; if it lasts, check that the directory's address is that of an ACME server.",
    )  # fmt: skip


def refusal(said: ProblemDocument, status: int, wait: timedelta | None, what: str) -> Problem:
    """The problem for an answer of 400 or more to `what` (such as "the new order")."""
    extra: dict[str, Any] = {"acme": said.kind, "status": status}
    if wait is not None:
        extra["retry_after"] = max(1, int(wait.total_seconds()))
    words = said.words(_LONGEST_WORDS) or f"status {status}"
    match said.kind:
        case "rateLimited":
            return Unavailable(
                "ca_rate_limited", f"The CA asks for patience: {words}",
                fix="It goes on by itself; edit this CA's limits so that it doesn't come to this.", extra=extra,
            )  # fmt: skip
        case "badNonce" | "serverInternal":
            return _busy(words, extra)
        case "externalAccountRequired":
            return Refused(
                "ca_eab_needed", f"The CA takes only accounts it knows of: {words}",
                fix="Get a key id and a key for ACME from the CA's website and enter both with this CA.", extra=extra,
            )  # fmt: skip
        case "userActionRequired":
            if said.instance:
                extra["url"] = said.instance[:500]
            return Refused(
                "ca_user_action", f"The CA waits for you: {words}",
                fix=f"Open {said.instance[:200]} in a browser and agree, then test the CA."
                if said.instance
                else "See the CA's website, then test the CA.",
                extra=extra,
            )  # fmt: skip
        case "accountDoesNotExist":
            return Refused(
                "ca_account_unknown", f"The CA doesn't know the account: {words}",
                fix="Test the CA: that registers the account again.", extra=extra,
            )  # fmt: skip
        case "invalidContact" | "unsupportedContact":
            return Refused(
                "ca_contact_refused", f"The CA doesn't take the contacts: {words}",
                fix="Edit this CA's contacts: plain e-mail addresses that exist.", extra=extra,
            )  # fmt: skip
        case "rejectedIdentifier" | "unsupportedIdentifier":
            return Refused(
                "ca_name_refused", f"The CA doesn't certify a name: {words}",
                fix="Leave that name out, or choose another CA.", extra=extra,
            )  # fmt: skip
        case "caa":
            return Refused(
                "ca_caa_forbids", f"The CAA records of a name don't let this CA issue: {words}",
                fix="Add the CA to the domain's CAA records, then apply again.", extra=extra,
            )  # fmt: skip
        case "invalidProfile":
            return Refused(
                "ca_profile_refused", f"The CA doesn't take the profile: {words}",
                fix="Edit this CA's profile; testing it shows which ones there are.", extra=extra,
            )  # fmt: skip
        case "badPublicKey" | "badCSR":
            return Refused(
                "ca_csr_refused", f"The CA doesn't take the signing request: {words}",
                fix="Apply again with another key algorithm, such as EC_P256 or RSA_2048.", extra=extra,
            )  # fmt: skip
        case "alreadyReplaced":
            return Refused(
                "ca_already_replaced", f"The certificate to be replaced was replaced already: {words}",
                fix="Order without naming it.", extra=extra,
            )  # fmt: skip
        case "alreadyRevoked":
            return Refused("ca_already_revoked", f"The certificate is revoked already: {words}", extra=extra)
        case "badRevocationReason":
            return Refused(
                "ca_reason_refused", f"The CA doesn't take this reason of revocation: {words}",
                fix="Revoke with another reason, such as unspecified.", extra=extra,
            )  # fmt: skip
        case "badSignatureAlgorithm":
            return Refused(
                "ca_algorithm_refused", f"The CA doesn't take signatures of the account's key: {words}",
                fix="Add this CA anew: new accounts have EC P-256 keys.", extra=extra,
            )  # fmt: skip
        case "orderNotReady":
            return Unavailable("ca_order_not_ready", f"The CA isn't ready for this yet: {words}", extra=extra)
        case "unauthorized" | "incorrectResponse" | "connection" | "dns" | "tls":
            return Refused(
                "ca_not_permitted", f"The CA doesn't permit {what}: {words}",
                fix="Test the CA; if the account is in order, apply again.", extra=extra,
            )  # fmt: skip
    if status == 429 or status >= 500:
        return _busy(words, extra)
    return Refused(
        "ca_refused", f"The CA refused {what}: {words}",
        fix="See what it says; if it is nothing of yours, ask the CA.", extra=extra,
    )  # fmt: skip


def _busy(words: str, extra: dict[str, Any]) -> Unavailable:
    return Unavailable(
        "ca_busy", f"The CA can't do it now: {words}", fix="It is asked again; see the CA's status page.", extra=extra
    )
