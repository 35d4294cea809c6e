"""Pure rules of access: may they, because of which statement; is a policy document well-formed; does one set of
grants cover another.

A pattern's `*` stands for any number of any characters. Deny wins over Allow; what nothing matches is denied.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from certwright.kernel.actor import Grant, Statement
from certwright.kernel.problems import Invalid, InvalidFields, Problem
from certwright.rooms.access.words import ACTIONS, RESOURCES, SERVICES, Decision

MAX_DOCUMENT_BYTES = 10 * 1024
MAX_STATEMENTS = 50
MAX_ITEMS = 100
MAX_PATTERN = 256


@lru_cache(maxsize=65536)
def matches(pattern: str, text: str) -> bool:
    """Whether `text` is what `pattern` means; case counts. Takes time linear in both, whatever the pattern."""
    if pattern == "*" or pattern == text:
        return True
    first, *rest = pattern.split("*")
    if not rest or not text.startswith(first):
        return False
    *middle, last = rest
    at = len(first)
    for part in middle:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(text) - at >= len(last) and text.endswith(last)


def _any_matches(patterns: Iterable[str], text: str) -> bool:
    return any(matches(pattern, text) for pattern in patterns)


def _is_broad(pattern: str) -> bool:
    """Whether a resource pattern means all objects of a kind: `*` or `certificate:*`."""
    return pattern == "*" or pattern.endswith(":*")


def _speaks_of(statement: Statement, action: str, resource: str | None) -> bool:
    if not _any_matches(statement.actions, action):
        return False
    if resource is None:
        return any(_is_broad(pattern) for pattern in statement.resources)
    return _any_matches(statement.resources, resource)


def decide(grants: Sequence[Grant], action: str, resource: str | None, project_id: str | None) -> Decision:
    """May whoever holds `grants` do `action` on `resource` (`certificate:cert_…`) of this project?

    `resource` None asks about no object in particular (creating one, say); statements that name single objects don't
    count then. `project_id` None asks about something that belongs to the whole account; grants narrowed to a project
    don't count then.
    """
    allowed: Decision | None = None
    for grant in grants:
        if grant.project_id is not None and grant.project_id != project_id:
            continue
        for number, statement in enumerate(grant.statements):
            if statement.effect == "Allow" and allowed is not None:
                continue
            if not _speaks_of(statement, action, resource):
                continue
            if statement.effect == "Deny":
                return Decision(
                    False, f"Statement {number} of the policy {grant.policy!r} denies it.", grant.policy, number
                )
            allowed = Decision(
                True, f"Statement {number} of the policy {grant.policy!r} allows it.", grant.policy, number
            )
    return allowed or Decision(False, "No policy allows it.")


def allowed_somewhere(grants: Sequence[Grant], action: str) -> bool:
    """Whether there may be any object on which they could do `action`: the coarse check in front of a route."""
    somewhere = False
    for grant in grants:
        for statement in grant.statements:
            if not _any_matches(statement.actions, action):
                continue
            if statement.effect == "Allow":
                somewhere = True
            elif grant.project_id is None and "*" in statement.resources:
                return False
    return somewhere


def covers(grants: Sequence[Grant], wanted: Iterable[Grant]) -> bool:
    """Whether `grants` already give everything that `wanted` would give: who grants must hold it themselves.

    Errs towards no: a pattern is covered only by a pattern containing it, not by several that together do.
    """
    return all(
        _holds(grants, action, resource, grant.project_id)
        for grant in wanted
        for statement in grant.statements
        if statement.effect == "Allow"
        for action in statement.actions
        for resource in statement.resources
    )


def _holds(grants: Sequence[Grant], action: str, resource: str, project_id: str | None) -> bool:
    # A `*` inside the wanted pattern is matched, as a character, only by a `*` of the holder's pattern, which then
    # also matches whatever that `*` may stand for.
    held = False
    for grant in grants:
        narrower = grant.project_id is not None and grant.project_id != project_id
        for statement in grant.statements:
            if statement.effect == "Deny":
                apart = project_id is not None and narrower
                if (
                    not apart
                    and _overlap_any(statement.actions, action)
                    and _overlap_any(statement.resources, resource)
                ):
                    return False
            elif (
                not narrower and _any_matches(statement.actions, action) and _any_matches(statement.resources, resource)
            ):
                held = True
    return held


def _overlap_any(patterns: Iterable[str], other: str) -> bool:
    return any(overlap(pattern, other) for pattern in patterns)


@lru_cache(maxsize=65536)
def overlap(a: str, b: str) -> bool:
    """Whether some text matches both patterns."""
    # row[j]: whether the part of `a` read so far and b[:j] have a text in common.
    row = [True] + [False] * len(b)
    for j, char in enumerate(b, 1):
        row[j] = row[j - 1] and char == "*"
    for char in a:
        previous, row = row, [row[0] and char == "*"] + [False] * len(b)
        for j, other in enumerate(b, 1):
            if char == "*" or other == "*":
                row[j] = previous[j] or row[j - 1]
            else:
                row[j] = previous[j - 1] and char == other
    return row[-1]


def narrowed(user: Sequence[Grant], wanted: Sequence[Grant]) -> tuple[Grant, ...]:
    """What a token narrowed to `wanted` may do: those grants its user covers today, and every Deny of the user."""
    kept = [grant for grant in wanted if covers(user, [grant])]
    denied = [
        Grant(grant.policy, denies, grant.project_id)
        for grant in user
        if (denies := tuple(s for s in grant.statements if s.effect == "Deny"))
    ]
    return (*kept, *denied)


def statements_of(document: Mapping[str, Any]) -> tuple[Statement, ...]:
    """The statements of a document that was checked when it was saved."""
    return tuple(
        Statement(s["Effect"], tuple(_listed(s["Action"])), tuple(_listed(s.get("Resource", "*"))))
        for s in document["Statement"]
    )


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def checked_document(document: Any) -> dict[str, Any]:
    """The document in its one spelling (lists, Resource always there). Raises InvalidFields with every mistake.

    Codes: policy_shape, policy_too_large, policy_version, policy_effect, policy_action_unknown, policy_resource,
    policy_condition.
    """
    field = "document"
    if not isinstance(document, dict):
        raise _shape(field, "The policy must be a JSON object.")
    if len(json.dumps(document)) > MAX_DOCUMENT_BYTES:
        raise Invalid(
            "policy_too_large", f"The policy is larger than {MAX_DOCUMENT_BYTES // 1024} KiB.", field=field,
            fix="Split it into several policies.",
        )  # fmt: skip
    problems = _unknown_keys(document, ("Version", "Statement"), field)
    if document.get("Version") != "1.1":
        problems.append(
            Invalid(
                "policy_version",
                "The version of a policy must be 1.1.",
                field=f"{field}.Version",
                fix='Write "Version": "1.1".',
            )
        )
    statements = document.get("Statement")
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not 1 <= len(statements) <= MAX_STATEMENTS:
        problems.append(_shape(f"{field}.Statement", f"Statement must be a list of 1 to {MAX_STATEMENTS} objects."))
        raise InvalidFields(problems)
    checked = [_statement(s, f"{field}.Statement.{number}", problems) for number, s in enumerate(statements)]
    if problems:
        raise InvalidFields(problems)
    return {"Version": "1.1", "Statement": checked}


def _shape(field: str, sentence: str) -> Invalid:
    return Invalid(
        "policy_shape", sentence, field=field,
        fix='Write {"Version": "1.1", "Statement": [{"Effect": "Allow", "Action": ["scm:cert:list"]}]}.',
    )  # fmt: skip


def _unknown_keys(value: Mapping[str, Any], known: Sequence[str], field: str) -> list[Problem]:
    problems: list[Problem] = []
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1, 0.5)
            hint = f" Did you mean {near[0]}?" if near else ""
            problems.append(_shape(f"{field}.{str(key)[:60]}", f"A policy has no {str(key)[:60]!r} here.{hint}"))
    return problems


def _statement(value: Any, field: str, problems: list[Problem]) -> dict[str, Any]:
    if not isinstance(value, dict):
        problems.append(_shape(field, "A statement must be a JSON object."))
        return {}
    if "Condition" in value:
        problems.append(
            Invalid(
                "policy_condition",
                "Conditions aren't supported; ignoring one would grant too much.",
                field=f"{field}.Condition",
                fix="Leave the condition out, and narrow Action or Resource instead.",
            )
        )
    known = ("Effect", "Action", "Resource")
    problems += _unknown_keys({k: v for k, v in value.items() if k != "Condition"}, known, field)
    effect = value.get("Effect")
    if effect not in ("Allow", "Deny"):
        problems.append(
            Invalid(
                "policy_effect", "Effect must be Allow or Deny.", field=f"{field}.Effect", fix="Write Allow or Deny."
            )
        )
    actions = _patterns(value.get("Action"), f"{field}.Action", problems)
    for number, action in enumerate(actions):
        if not action_is_known(action):
            problems.append(_unknown_action(action, f"{field}.Action.{number}"))
    resources = _patterns(value.get("Resource", "*"), f"{field}.Resource", problems)
    for number, resource in enumerate(resources):
        if not resource_is_known(resource):
            problems.append(_unknown_resource(resource, f"{field}.Resource.{number}"))
    return {"Effect": effect, "Action": actions, "Resource": resources}


def _patterns(value: Any, field: str, problems: list[Problem]) -> list[str]:
    listed = [value] if isinstance(value, str) else value
    if (
        not isinstance(listed, list)
        or not 1 <= len(listed) <= MAX_ITEMS
        or not all(isinstance(item, str) and 1 <= len(item) <= MAX_PATTERN for item in listed)
    ):
        problems.append(
            _shape(field, f"This must be a text or a list of 1 to {MAX_ITEMS} texts of up to {MAX_PATTERN} characters.")
        )
        return []
    return listed


def action_is_known(pattern: str) -> bool:
    """Whether it names an action of the catalogue, matches one, or is all of a known service."""
    if pattern in ACTIONS or pattern in {f"{service}:*" for service in SERVICES}:
        return True
    return "*" in pattern and any(matches(pattern, action) for action in ACTIONS)


def resource_is_known(pattern: str) -> bool:
    """Whether it is `*`, or a kind of object (or a pattern of kinds) and an id: one that speaks of nothing would be a
    Deny that denies nothing."""
    kind, colon, object_id = pattern.partition(":")
    if pattern == "*" or not colon:
        return pattern == "*"
    return bool(re.fullmatch(r"[\x21-\x7e]+", object_id)) and any(matches(kind, known) for known in RESOURCES)


def _unknown_resource(resource: str, field: str) -> Problem:
    near = difflib.get_close_matches(resource.partition(":")[0], RESOURCES, 1, 0.5)
    return Invalid(
        "policy_resource", f"{resource[:80]!r} is not a resource.", field=field,
        fix=f"Write * or a kind and an id, such as {near[0] if near else 'certificate'}:*. "
        f"Kinds are {', '.join(sorted(RESOURCES))}.",
        extra={"nearest": near[0] if near else None},
    )  # fmt: skip


def _unknown_action(action: str, field: str) -> Problem:
    near = difflib.get_close_matches(action, ACTIONS, 1, 0.4)
    return Invalid(
        "policy_action_unknown", f"There is no action {action[:80]!r}.", field=field,
        fix=f"Did you mean {near[0]}?" if near else "List the actions to find its name.",
        extra={"nearest": near[0] if near else None},
    )  # fmt: skip
