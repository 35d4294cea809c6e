"""The JSON of RFC 8555 section 7.1, made of rows. Pure: addresses come from `Places`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from certwright.rooms.acme_server import rules
from certwright.rooms.acme_server.words import AuthorizationState, ChallengeState, OrderState, Served


@dataclass(frozen=True, slots=True)
class Places:
    """The addresses of one directory; `base` ends with its slug."""

    base: str

    def at(self, *parts: str) -> str:
        return "/".join((self.base, *parts))


def when(at: datetime) -> str:
    """RFC 3339, whole seconds, as every client reads it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def directory(served: Served, places: Places) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "externalAccountRequired": served.eab_required,
        "profiles": {name: rules.profile_words(name) for name in served.profiles},
    }
    if served.terms_url:
        meta["termsOfService"] = served.terms_url
    if served.website:
        meta["website"] = served.website
    return {
        "newNonce": places.at("new-nonce"),
        "newAccount": places.at("new-account"),
        "newOrder": places.at("new-order"),
        "revokeCert": places.at("revoke-cert"),
        "keyChange": places.at("key-change"),
        "renewalInfo": places.at("renewal-info"),
        "meta": meta,
    }


def account(row: Any, places: Places) -> dict[str, Any]:
    status = "valid" if row.deactivated_at is None else "revoked" if row.revoked else "deactivated"
    said: dict[str, Any] = {
        "status": status,
        "contact": list(row.contacts),
        "orders": places.at("account", row.id, "orders"),
    }
    if row.terms_agreed_at is not None:
        said["termsOfServiceAgreed"] = True
    return said


def order(row: Any, state: OrderState, places: Places, error: dict[str, Any] | None = None) -> dict[str, Any]:
    said: dict[str, Any] = {
        "status": state.value,
        "expires": when(row.expires_at),
        "identifiers": [_identifier(name) for name in row.names],
        "authorizations": [places.at("authz", one) for one in row.authorization_ids],
        "finalize": places.at("order", row.id, "finalize"),
    }
    if row.profile_asked:
        said["profile"] = row.profile
    if row.replaces is not None:
        said["replaces"] = row.replaces
    if state is OrderState.VALID:
        said["certificate"] = places.at("cert", row.id)
    if state is OrderState.INVALID:
        said["error"] = row.error or error or {
            "type": "urn:ietf:params:acme:error:malformed", "detail": "The order ran out before it was finalized.",
        }  # fmt: skip
    return said


def _identifier(name: str) -> dict[str, str]:
    identifier = rules.identifier_of(name)
    return {"type": identifier.type, "value": identifier.value}


def authorization(row: Any, offered: Sequence[str], now: datetime, places: Places) -> dict[str, Any]:
    facts = rules.AuthorizationFacts(row.status, row.expires_at, row.challenge)
    state = rules.authorization_state(facts, now)
    kinds = rules.challenges_for(("*." if row.wildcard else "") + row.value, offered)
    if row.challenge is not None and (state is not AuthorizationState.PENDING or row.challenge not in kinds):
        kinds = (row.challenge,)
    said: dict[str, Any] = {
        "identifier": {"type": row.type, "value": row.value},
        "status": state.value,
        "expires": when(row.expires_at),
        "challenges": [challenge(row, kind, now, places) for kind in kinds],
    }
    if row.wildcard:
        said["wildcard"] = True
    return said


def challenge(row: Any, kind: str, now: datetime, places: Places) -> dict[str, Any]:
    facts = rules.AuthorizationFacts(row.status, row.expires_at, row.challenge)
    state = rules.challenge_state(facts, kind, now)
    said: dict[str, Any] = {
        "type": kind,
        "url": places.at("challenge", row.id, kind),
        "status": state.value,
        "token": row.token,
    }
    if state is ChallengeState.VALID and row.validated_at is not None:
        said["validated"] = when(row.validated_at)
    if row.error is not None and row.challenge == kind:
        said["error"] = row.error
    return said
