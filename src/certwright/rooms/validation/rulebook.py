"""Which rules an account goes by: those shipped with this release, or the ones its administrator put in their place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import sqlalchemy as sa
import yaml
from pydantic import ValidationError

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Invalid, InvalidFields, Problem, Refused
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.platform.typed_yaml import TooDeep, tokens
from certwright.rooms import access, audit
from certwright.rooms.validation.rulepack import RulePack, parse, rule_pack, shipped_text
from certwright.rooms.validation.tables import rule_packs

MAX_BYTES = 64 * 1024
_R = rule_packs.c


@dataclass(frozen=True, slots=True)
class Rulebook:
    """The rules in force as text; `id` None: the shipped ones."""

    id: str | None
    text: str
    sha256: str
    uploaded_at: datetime | None
    uploaded_by: str | None


async def rules_of(tx: Tx, account_id: str) -> RulePack:
    """The rules an account goes by."""
    text = await tx.scalar(sa.select(_R.text).where(_in_force(account_id)))
    return rule_pack() if text is None else _parsed(text)


@lru_cache(maxsize=64)
def _parsed(text: str) -> RulePack:
    return parse(text)


def _in_force(account_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(_R.account_id == account_id, _R.replaced_at.is_(None))


async def get_rules(services: Services, actor: Actor) -> Rulebook:
    access.require(actor, "scm:rules:get")
    async with services.db.read() as tx:
        return await _current(tx, actor.account_id)


async def _current(tx: Tx, account_id: str) -> Rulebook:
    row = (await tx.execute(sa.select(rule_packs).where(_in_force(account_id)))).one_or_none()
    if row is None:
        text = shipped_text()
        return Rulebook(None, text, _digest(text), None, None)
    return Rulebook(row.id, row.text, row.sha256, row.uploaded_at, row.uploaded_by)


async def replace_rules(services: Services, actor: Actor, text: str) -> Rulebook:
    """Put these rules in force for the account. Raises Invalid or InvalidFields, which say the line and the field."""
    access.require(actor, "scm:rules:update")
    checked(text)
    now = services.clock.now()
    async with services.db.begin() as tx:
        before = await _lock(tx, actor.account_id)
        digest = _digest(text)
        if before.id is not None and before.sha256 == digest:
            return before
        await _retire(tx, actor.account_id, now)
        made = Rulebook(new_id("rul", now), text, digest, now, actor.name)
        await tx.execute(
            sa.insert(rule_packs).values(
                id=made.id, account_id=actor.account_id, text=text, sha256=digest, uploaded_at=now,
                uploaded_by=actor.name,
            )
        )  # fmt: skip
        await _tell(tx, services, actor, before, made)
    return made


async def revert_rules(services: Services, actor: Actor) -> Rulebook:
    """Back to the rules shipped with this release. Raises Refused `rules_are_shipped`."""
    access.require(actor, "scm:rules:update")
    now = services.clock.now()
    async with services.db.begin() as tx:
        before = await _lock(tx, actor.account_id)
        if not await _retire(tx, actor.account_id, now):
            raise Refused(
                "rules_are_shipped", "The rules in force are the shipped ones already.", fix="Nothing needs doing."
            )
        after = await _current(tx, actor.account_id)
        await _tell(tx, services, actor, before, after)
    return after


async def _lock(tx: Tx, account_id: str) -> Rulebook:
    """What is in force; nobody else replaces it before the transaction ends."""
    await tx.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"rules:{account_id}", 0))))
    return await _current(tx, account_id)


async def _retire(tx: Tx, account_id: str, now: datetime) -> bool:
    result = await tx.execute(sa.update(rule_packs).where(_in_force(account_id)).values(replaced_at=now))
    return bool(result.rowcount)


async def _tell(tx: Tx, services: Services, actor: Actor, before: Rulebook, after: Rulebook) -> None:
    await audit.record(
        tx, services, actor, "scm:rules:update", "rules", after.id or "shipped",
        before={"id": before.id, "sha256": before.sha256}, after={"id": after.id, "sha256": after.sha256},
    )  # fmt: skip
    await services.events.publish(
        tx, "validation.rules_replaced", account_id=actor.account_id, object_id=after.id or "shipped",
        payload={"sha256": after.sha256},
    )  # fmt: skip


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# --- reading what was uploaded ---------------------------------------------------------------------------------------


def checked(text: str) -> RulePack:
    """Read rules strictly: no unknown, missing or repeated field, no aliases. Raises Invalid `rules_unreadable` or
    InvalidFields with one `rules_invalid` per wrong field; both name the line, counted from 1."""
    if len(text.encode()) > MAX_BYTES:
        raise Invalid(
            "rules_too_large", f"The rules are larger than {MAX_BYTES // 1024} KiB.", field="text",
            fix="Start from the shipped file, which is far smaller.",
        )  # fmt: skip
    try:
        for token in tokens(text):
            if isinstance(token, (yaml.AnchorToken, yaml.AliasToken, yaml.TagToken)):
                raise _unreadable("Anchors, aliases and tags are not taken", token.start_mark.line + 1)
        node = yaml.compose(text, yaml.SafeLoader)
        lines = dict(_lines(node, ())) if node is not None else {}
        return parse(text)
    except TooDeep as error:
        raise _unreadable("It is nested too deeply", error.line) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _unreadable(f"It is no YAML: {error.problem or error.context}", mark.line + 1 if mark else 1) from error
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, ValidationError):
            raise InvalidFields([_said(one, lines) for one in error.errors()[:50]]) from error
        # A date such as 2026-02-30 fails while YAML builds it, without a mark.
        raise _unreadable(f"It holds a value that can't be read: {error}", 1) from error


def _lines(node: yaml.Node, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], int]]:
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise _unreadable(f"{'.'.join(map(str, (*path, name)))} is given twice", key.start_mark.line + 1)
            seen.add(name)
            yield from _lines(value, (*path, name))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _lines(value, (*path, number))


def _said(error: object, lines: dict[tuple[str | int, ...], int]) -> Problem:
    assert isinstance(error, dict)
    path = tuple(error["loc"])
    known = path
    while known and known not in lines:
        known = known[:-1]
    line, field = lines.get(known, 1), ".".join(map(str, path)) or "text"
    said = {"missing": "is missing", "extra_forbidden": "is no field of the rules"}.get(
        error["type"], str(error["msg"]).removeprefix("Value error, ").rstrip(".")
    )
    return Invalid(
        "rules_invalid", f"Line {line}: {field}: {said}.", field=field, extra={"line": line},
        fix="Correct it; the shipped file shows every field.",
    )  # fmt: skip


def _unreadable(what: str, line: int) -> Invalid:
    return Invalid(
        "rules_unreadable", f"Line {line}: {what}.", field="text", extra={"line": line},
        fix="Correct that line; the shipped file shows how it is written.",
    )  # fmt: skip
