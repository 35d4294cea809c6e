"""One operation on many certificates: first a preview that says of each what will be done or why not, then the doing.

Both take the rules of the single operation; each certificate is changed in a transaction of its own, so that one that
refuses keeps no other from being changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from certwright.kernel.actor import Actor
from certwright.kernel.problems import Forbidden, Invalid, NotFound, Problem, Refused, Stale, TooMany, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access
from certwright.rooms.certificates import actions, rules, store
from certwright.rooms.certificates.tables import certificates
from certwright.rooms.certificates.words import CertificateFacts, Operation, RevocationReason

MOST_AT_ONCE = 200


class BulkAction(StrEnum):
    AUTO_RENEW_ON = "auto_renew_on"
    AUTO_RENEW_OFF = "auto_renew_off"
    NOTIFY_ON = "notify_on"
    NOTIFY_OFF = "notify_off"
    TAG = "tag"
    UNTAG = "untag"
    MOVE = "move"
    VERIFY_DOMAINS = "verify_domains"
    WITHDRAW = "withdraw"
    REISSUE = "reissue"
    WITHDRAW_PRIVACY = "withdraw_privacy"
    REVOKE = "revoke"
    DELETE = "delete"


_NEEDS: Mapping[BulkAction, tuple[str, Operation]] = {
    BulkAction.AUTO_RENEW_ON: ("scm:cert:update", Operation.SET_AUTO_RENEW),
    BulkAction.AUTO_RENEW_OFF: ("scm:cert:update", Operation.SET_AUTO_RENEW),
    BulkAction.NOTIFY_ON: ("scm:cert:update", Operation.UPDATE),
    BulkAction.NOTIFY_OFF: ("scm:cert:update", Operation.UPDATE),
    BulkAction.TAG: ("scm:cert:update", Operation.UPDATE),
    BulkAction.UNTAG: ("scm:cert:update", Operation.UPDATE),
    BulkAction.MOVE: ("scm:cert:update", Operation.UPDATE),
    BulkAction.VERIFY_DOMAINS: ("scm:validation:check", Operation.VERIFY_DOMAINS),
    BulkAction.WITHDRAW: ("scm:cert:withdraw", Operation.WITHDRAW),
    BulkAction.REISSUE: ("scm:cert:renew", Operation.REISSUE),
    BulkAction.WITHDRAW_PRIVACY: ("scm:cert:withdraw_privacy", Operation.WITHDRAW_PRIVACY),
    BulkAction.REVOKE: ("scm:cert:revoke", Operation.REVOKE),
    BulkAction.DELETE: ("scm:cert:delete", Operation.DELETE),
}
"""The permission and the operation of the table that each is."""

_MET = (Refused, Invalid, Forbidden, NotFound, Stale, TooMany)


@dataclass(frozen=True, slots=True)
class Bulk:
    """What is to be done. `tags` for tag and untag (values don't matter then), `project_id` for move, `reason` for
    revoke; `by_hand`: asked for on a page (see `rules.why_only_by_program`)."""

    action: BulkAction
    tags: Mapping[str, str] | None = None
    project_id: str | None = None
    reason: RevocationReason | None = None
    by_hand: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One certificate of many: `problem` says why it is, or was, left alone. `name` is empty where it isn't seen."""

    id: str
    name: str
    primary_name: str
    problem: Problem | None

    @property
    def fine(self) -> bool:
        return self.problem is None


def judge(bulk: Bulk, ids: Sequence[str]) -> None:
    """Whether all that the action needs is there. Raises Invalid."""
    if not ids:
        raise Invalid("nothing_chosen", "No certificate is chosen.", field="ids", fix="Choose at least one.")
    if len(ids) > MOST_AT_ONCE:
        raise Invalid(
            "too_many_chosen", f"{len(ids)} certificates are chosen; {MOST_AT_ONCE} fit into one call.", field="ids",
            fix="Do it in several calls.",
        )  # fmt: skip
    if bulk.action in (BulkAction.TAG, BulkAction.UNTAG) and not bulk.tags:
        raise Invalid("tags_missing", "No tag is given.", field="tags", fix="Say which, like team=shop.")
    if bulk.action is BulkAction.MOVE and not bulk.project_id:
        raise Invalid("project_missing", "No project is given.", field="project_id", fix="Say which project.")
    if bulk.action is BulkAction.REVOKE and bulk.reason is None:
        raise Invalid("reason_missing", "No reason is given.", field="reason", fix="Say why they are revoked.")


async def preview(services: Services, actor: Actor, bulk: Bulk, ids: Sequence[str]) -> list[Line]:
    """What would become of each, in the order given and each once. Raises as `judge`."""
    chosen = list(dict.fromkeys(ids))
    judge(bulk, chosen)
    lines = []
    async with services.db.begin() as tx:
        for certificate_id in chosen:
            row = await store.certificate(
                tx, certificate_id, access.visible(certificates, actor, "scm:cert:get")
            )  # fmt: skip
            if row is None:
                lines.append(Line(certificate_id, "", "", not_found("certificate", certificate_id)))
                continue
            lines.append(Line(row.id, row.name, row.primary_name, await _why_not(tx, services, actor, bulk, row)))
    return lines


async def perform(services: Services, actor: Actor, bulk: Bulk, ids: Sequence[str]) -> list[Line]:
    """Do it, and say of each what became of it. What a preview would leave alone is left alone. Raises as `judge`."""
    done = []
    for line in await preview(services, actor, bulk, ids):
        problem = line.problem
        if problem is None:
            try:
                await _do(services, actor, bulk, line.id)
            except _MET as met:
                problem = met
        done.append(Line(line.id, line.name, line.primary_name, problem))
    return done


async def _why_not(tx: Tx, services: Services, actor: Actor, bulk: Bulk, row: Any) -> Problem | None:
    action, operation = _NEEDS[bulk.action]
    try:
        access.require(actor, action, project_id=row.project_id, resource=f"certificate:{row.id}")
        if bulk.action is BulkAction.MOVE:
            assert bulk.project_id is not None, "judged"
            project = await access.project_for(tx, actor, "scm:cert:update", bulk.project_id)
            if project != row.project_id:
                await actions.may_move(tx, actor, row, project)
    except (Forbidden, NotFound, Invalid) as met:
        return met
    facts = await actions.facts_of(tx, services, row)
    refused: Problem | None
    if bulk.action is BulkAction.REVOKE:
        assert bulk.reason is not None, "judged"
        refused = await actions.why_not_revoke(tx, services, row, facts, None, bulk.reason)
    else:
        refused = rules.judge_operation(operation, facts)
    if refused is None and bulk.action is BulkAction.DELETE and bulk.by_hand:
        refused = rules.why_only_by_program(facts)
    return refused or _nothing_to_do(bulk, row, facts)


def _nothing_to_do(bulk: Bulk, row: Any, facts: CertificateFacts) -> Problem | None:
    tags = bulk.tags or {}
    match bulk.action:
        case BulkAction.AUTO_RENEW_ON | BulkAction.AUTO_RENEW_OFF:
            so_already = row.auto_renew == (bulk.action is BulkAction.AUTO_RENEW_ON)
        case BulkAction.NOTIFY_ON | BulkAction.NOTIFY_OFF:
            so_already = row.notify == (bulk.action is BulkAction.NOTIFY_ON)
        case BulkAction.TAG:
            so_already = all(row.tags.get(key) == value for key, value in tags.items())
        case BulkAction.UNTAG:
            so_already = not any(key in row.tags for key in tags)
        case BulkAction.MOVE:
            so_already = row.project_id == bulk.project_id
        case _:
            so_already = False
    if not so_already:
        return None
    return Refused("nothing_to_do", f"{row.name} is so already.", fix="Nothing needs doing.")


async def _do(services: Services, actor: Actor, bulk: Bulk, certificate_id: str) -> None:
    work: Mapping[BulkAction, Any] = {
        BulkAction.VERIFY_DOMAINS: actions.check_domains,
        BulkAction.WITHDRAW: actions.withdraw,
        BulkAction.REISSUE: actions.reissue,
        BulkAction.WITHDRAW_PRIVACY: actions.withdraw_privacy,
        BulkAction.DELETE: actions.delete_certificate,
    }
    if bulk.action is BulkAction.REVOKE:
        assert bulk.reason is not None, "judged"
        await actions.revoke(services, actor, certificate_id, bulk.reason)
    elif bulk.action in work:
        step: Awaitable[object] = work[bulk.action](services, actor, certificate_id)
        await step
    else:
        await _update(services, actor, bulk, certificate_id)


async def _update(services: Services, actor: Actor, bulk: Bulk, certificate_id: str) -> None:
    found = (await actions.get_certificate(services, actor, certificate_id)).summary
    changes: dict[str, Any] = {}
    match bulk.action:
        case BulkAction.AUTO_RENEW_ON | BulkAction.AUTO_RENEW_OFF:
            changes["auto_renew"] = bulk.action is BulkAction.AUTO_RENEW_ON
        case BulkAction.NOTIFY_ON | BulkAction.NOTIFY_OFF:
            changes["notify"] = bulk.action is BulkAction.NOTIFY_ON
        case BulkAction.TAG:
            changes["tags"] = {**found.tags, **(bulk.tags or {})}
        case BulkAction.UNTAG:
            changes["tags"] = {key: value for key, value in found.tags.items() if key not in (bulk.tags or {})}
        case BulkAction.MOVE:
            changes["project_id"] = bulk.project_id
    await actions.update_certificate(services, actor, certificate_id, revision=found.revision, **changes)
