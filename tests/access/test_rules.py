"""Decisions, patterns, covering, and what a policy document may say."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.kernel.actor import Grant, Statement
from certwright.kernel.problems import Invalid, InvalidFields, Problem
from certwright.rooms import access
from certwright.rooms.access.rules import (
    action_is_known,
    checked_document,
    covers,
    decide,
    matches,
    narrowed,
    overlap,
    statements_of,
)
from certwright.rooms.access.system import SYSTEM_POLICIES
from certwright.rooms.access.words import RESOURCES


def _allow(*actions: str, resources: tuple[str, ...] = ("*",), project: str | None = None) -> Grant:
    return Grant("allow", (Statement("Allow", actions, resources),), project)


def _deny(*actions: str, resources: tuple[str, ...] = ("*",), project: str | None = None) -> Grant:
    return Grant("deny", (Statement("Deny", actions, resources),), project)


CERT = "certificate:cert_1"


@pytest.mark.parametrize(
    ("grants", "action", "resource", "project", "allowed"),
    [
        ((), "scm:cert:get", CERT, "p1", False),
        ((_allow("scm:cert:get"),), "scm:cert:get", CERT, "p1", True),
        ((_allow("scm:cert:get"),), "scm:cert:list", CERT, "p1", False),
        ((_allow("scm:cert:*"),), "scm:cert:get", CERT, "p1", True),
        ((_allow("scm:cert:*"),), "scm:certificates:get", CERT, "p1", False),
        ((_allow("*"),), "ccm:ca:delete", None, None, True),
        ((_allow("*"), _deny("scm:cert:delete")), "scm:cert:delete", CERT, "p1", False),
        ((_deny("scm:cert:delete"), _allow("*")), "scm:cert:delete", CERT, "p1", False),
        ((_deny("scm:cert:delete"), _allow("*")), "scm:cert:get", CERT, "p1", True),
        ((_allow("*", project="p1"),), "scm:cert:get", CERT, "p1", True),
        ((_allow("*", project="p1"),), "scm:cert:get", CERT, "p2", False),
        ((_allow("*", project="p1"),), "iam:user:list", None, None, False),
        ((_allow("*"), _deny("*", project="p1")), "scm:cert:get", CERT, "p1", False),
        ((_allow("*"), _deny("*", project="p1")), "scm:cert:get", CERT, "p2", True),
        ((_allow("*", resources=(CERT,)),), "scm:cert:get", CERT, "p1", True),
        ((_allow("*", resources=(CERT,)),), "scm:cert:get", CERT + "2", "p1", False),
        ((_allow("*", resources=(CERT,)),), "scm:cert:apply", None, "p1", False),
        ((_allow("*", resources=("certificate:*",)),), "scm:cert:apply", None, "p1", True),
        ((_allow("*", resources=("target:*",)),), "scm:cert:get", CERT, "p1", False),
        ((_allow("*"), _deny("*", resources=(CERT,))), "scm:cert:apply", None, "p1", True),
        ((_allow("*"), _deny("*", resources=(CERT,))), "scm:cert:get", CERT, "p1", False),
    ],
    ids=[
        "nothing-matches", "exact", "other-action", "wildcard", "wildcard-keeps-colons", "everything", "deny-after",
        "deny-before", "deny-of-other-action", "own-project", "other-project", "account-wide-needs-account-grant",
        "deny-in-project", "deny-in-other-project", "own-resource", "other-resource", "single-resource-cannot-create",
        "kind-can-create", "other-kind", "deny-of-one-does-not-block-creating", "deny-of-one",
    ],
)  # fmt: skip
def test_deny_wins_and_what_nothing_matches_is_denied(
    grants: tuple[Grant, ...], action: str, resource: str | None, project: str | None, allowed: bool
) -> None:
    decision = decide(grants, action, resource, project)
    assert decision.allowed is allowed
    assert decision.reason


def test_a_decision_names_the_statement_it_rests_on() -> None:
    grant = Grant("mixed", (Statement("Allow", ("dns:*",)), Statement("Allow", ("scm:*",))))
    decision = decide((grant,), "scm:cert:get", None, None)
    assert (decision.policy, decision.statement) == ("mixed", 1)
    decision = decide((grant, _deny("scm:cert:get")), "scm:cert:get", None, None)
    assert (decision.policy, decision.statement) == ("deny", 0)


_glob = st.text("ab:*", max_size=8)
_plain = st.text("ab:", max_size=8)


def _as_regex(pattern: str) -> str:
    return "".join(".*" if c == "*" else re.escape(c) for c in pattern)


@given(_glob, _plain)
def test_matching_agrees_with_a_regular_expression(pattern: str, text: str) -> None:
    assert matches(pattern, text) == (re.fullmatch(_as_regex(pattern), text) is not None)


@given(_glob, _glob, _plain)
def test_patterns_that_share_a_text_overlap(a: str, b: str, text: str) -> None:
    if matches(a, text) and matches(b, text):
        assert overlap(a, b)


@given(_plain, _glob)
def test_overlap_with_a_plain_text_is_matching(text: str, pattern: str) -> None:
    assert overlap(text, pattern) == overlap(pattern, text) == matches(pattern, text)


def test_a_pattern_of_many_stars_is_matched_in_linear_time() -> None:
    assert not matches("*a" * 120, "a" * 119 + "b" * 5000)


_statement = st.builds(
    Statement,
    st.sampled_from(["Allow", "Deny"]),
    st.tuples(st.sampled_from(["*", "scm:*", "scm:cert:*", "scm:cert:get", "dns:*", "*:*:get"])),
    st.tuples(st.sampled_from(["*", "certificate:*", CERT])),
)
_grant = st.builds(Grant, st.just("g"), st.tuples(_statement, _statement), st.sampled_from([None, "p1"]))


@given(
    st.lists(_grant, max_size=3),
    st.lists(_grant, max_size=3),
    st.sampled_from(["scm:cert:get", "scm:cert:delete", "dns:connection:get"]),
    st.sampled_from([None, CERT, "certificate:cert_2", "target:tgt_1"]),
    st.sampled_from([None, "p1", "p2"]),
)
def test_what_is_covered_allows_nothing_more(
    held: list[Grant], wanted: list[Grant], action: str, resource: str | None, project: str | None
) -> None:
    if covers(held, wanted) and decide(wanted, action, resource, project).allowed:
        assert decide(held, action, resource, project).allowed


@given(
    st.lists(_grant, max_size=3),
    st.lists(_grant, max_size=3),
    st.sampled_from(["scm:cert:get", "scm:cert:delete", "dns:connection:get"]),
    st.sampled_from([None, CERT, "target:tgt_1"]),
    st.sampled_from([None, "p1", "p2"]),
)
def test_a_narrowed_token_never_may_more_than_its_user(
    user: list[Grant], wanted: list[Grant], action: str, resource: str | None, project: str | None
) -> None:
    if decide(narrowed(user, wanted), action, resource, project).allowed:
        assert decide(user, action, resource, project).allowed


@pytest.mark.parametrize(
    ("held", "wanted", "covered"),
    [
        ((_allow("*"),), (_allow("scm:*"),), True),
        ((_allow("scm:*"),), (_allow("*"),), False),
        ((_allow("scm:*"),), (_allow("scm:cert:list", "scm:target:*"),), True),
        ((_allow("scm:*", project="p1"),), (_allow("scm:*"),), False),
        ((_allow("scm:*", project="p1"),), (_allow("scm:*", project="p1"),), True),
        ((_allow("scm:*"),), (_allow("scm:*", project="p1"),), True),
        ((_allow("scm:*"), _deny("scm:cert:export_key")), (_allow("scm:*"),), False),
        ((_allow("scm:*"), _deny("scm:cert:export_key")), (_allow("scm:cert:list"),), True),
        ((_allow("scm:*"), _deny("*", project="p2")), (_allow("scm:*"),), False),
        ((_allow("scm:*"), _deny("*", project="p2")), (_allow("scm:*", project="p1"),), True),
        ((_allow("scm:*", resources=(CERT,)),), (_allow("scm:*"),), False),
        ((_allow("*", resources=("certificate:*",)),), (_allow("scm:cert:get", resources=(CERT,)),), True),
        ((), (_deny("*"),), True),
    ],
    ids=[
        "all", "less", "listed", "wider-project", "same-project", "narrower-project", "denied-inside",
        "denied-elsewhere", "denied-in-a-project", "denied-in-another-project", "wider-resource", "narrower-resource",
        "denying-gives-nothing",
    ],
)  # fmt: skip
def test_nobody_covers_more_than_they_hold(held: Any, wanted: Any, covered: bool) -> None:
    assert covers(held, wanted) is covered


# --- documents -------------------------------------------------------------------------------------------------------


def _document(**statement: Any) -> dict[str, Any]:
    return {"Version": "1.1", "Statement": [{"Effect": "Allow", "Action": ["scm:cert:list"]} | statement]}


def test_a_document_is_kept_in_one_spelling() -> None:
    document = {"Version": "1.1", "Statement": {"Effect": "Deny", "Action": "scm:cert:*", "Resource": "certificate:*"}}
    checked = checked_document(document)
    assert checked == {
        "Version": "1.1",
        "Statement": [{"Effect": "Deny", "Action": ["scm:cert:*"], "Resource": ["certificate:*"]}],
    }
    assert statements_of(checked) == (Statement("Deny", ("scm:cert:*",), ("certificate:*",)),)
    assert checked_document(checked) == checked


@pytest.mark.parametrize(
    ("document", "code", "field"),
    [
        ([], "policy_shape", "document"),
        ({"Statement": []}, "policy_version", "document.Version"),
        ({"Version": "2012-10-17", "Statement": [{}]}, "policy_version", "document.Version"),
        ({"Version": "1.1"}, "policy_shape", "document.Statement"),
        ({"Version": "1.1", "Statement": []}, "policy_shape", "document.Statement"),
        ({"Version": "1.1", "Statement": ["x"]}, "policy_shape", "document.Statement.0"),
        ({**_document(), "Id": "x"}, "policy_shape", "document.Id"),
        (_document(Effect="allow"), "policy_effect", "document.Statement.0.Effect"),
        (_document(Action=[]), "policy_shape", "document.Statement.0.Action"),
        (_document(Action=[7]), "policy_shape", "document.Statement.0.Action"),
        (_document(Action=["scm:cert:lst"]), "policy_action_unknown", "document.Statement.0.Action.0"),
        (_document(Action=["scm:cert:list", "xyz:*"]), "policy_action_unknown", "document.Statement.0.Action.1"),
        (_document(Resource=["cert_1"]), "policy_resource", "document.Statement.0.Resource.0"),
        (_document(Resource=["certifcate:*"]), "policy_resource", "document.Statement.0.Resource.0"),
        (_document(Resource=["*x:cert_1"]), "policy_resource", "document.Statement.0.Resource.0"),
        (_document(Resource=["certificate:"]), "policy_resource", "document.Statement.0.Resource.0"),
        (_document(Resource=["certificate:cert 1"]), "policy_resource", "document.Statement.0.Resource.0"),
        (_document(Resource=[]), "policy_shape", "document.Statement.0.Resource"),
        (_document(Condition={"IpAddress": "192.0.2.1"}), "policy_condition", "document.Statement.0.Condition"),
        (_document(Actions="x"), "policy_shape", "document.Statement.0.Actions"),
        (_document(Resource=["certificate:" + "x" * 300]), "policy_shape", "document.Statement.0.Resource"),
        (_document(Resource=["certificate:" + "x" * 200] * 60), "policy_too_large", "document"),
        ({"Version": "1.1", "Statement": [{}] * 51}, "policy_shape", "document.Statement"),
    ],
)
def test_a_wrong_document_is_refused_by_field(document: Any, code: str, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        checked_document(document)
    problems = caught.value.problems if isinstance(caught.value, InvalidFields) else (caught.value,)
    assert (code, field) in [(p.code, p.field) for p in problems]
    assert all(p.message and p.fix for p in problems)


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [("scm:cert:lst", "scm:cert:list"), ("iam:usr:create", "iam:user:create"), ("SCM:CERT:GET", None)],
)
def test_an_unknown_action_names_the_nearest(typed: str, nearest: str | None) -> None:
    with pytest.raises(InvalidFields) as caught:
        checked_document(_document(Action=typed))
    (problem,) = caught.value.problems
    assert problem.extra["nearest"] == nearest
    if nearest is not None:
        assert nearest in problem.fix


@pytest.mark.parametrize("kind", sorted(RESOURCES))
def test_every_kind_can_be_named(kind: str) -> None:
    for resource in (f"{kind}:*", f"{kind}:some_1", f"*:{kind}_1"):
        assert checked_document(_document(Resource=[resource]))["Statement"][0]["Resource"] == [resource]


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(InvalidFields) as caught:
        checked_document(_document(Resource="dns_connection:dns_1"))
    (problem,) = caught.value.problems
    assert problem.extra["nearest"] == "dns-connection"
    assert problem.fix is not None
    assert "dns-connection:*" in problem.fix


_keys = st.sampled_from(["Version", "Statement", "Effect", "Action", "Resource", "x"])
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4),
)


@given(_json)
def test_any_json_is_checked_or_refused_by_field(document: Any) -> None:
    refused: tuple[Problem, ...] = ()
    checked: dict[str, Any] | None = None
    try:
        checked = checked_document(document)
    except InvalidFields as problem:
        refused = problem.problems
    except Invalid as problem:
        refused = (problem,)
    assert (checked is not None) != bool(refused)
    assert all(problem.field and problem.fix for problem in refused)


@pytest.mark.parametrize("policy", SYSTEM_POLICIES.values(), ids=lambda p: p.name)
def test_system_policies_are_themselves_good_documents(policy: access.Policy) -> None:
    assert checked_document(policy.document)["Version"] == "1.1"


@pytest.mark.parametrize("action", ["*", "scm:*", "bss:*", "scm:cert:*", "*:*:list", "scm:cert:get"])
def test_patterns_that_mean_something_are_known(action: str) -> None:
    assert action_is_known(action)


@pytest.mark.parametrize(
    ("policy", "may", "may_not"),
    [
        ("security_auditor", ["scm:cert:get", "iam:audit:list", "ccm:ca:list", "iam:user:list"],
         ["scm:cert:export_key", "scm:cert:apply", "iam:user:update"]),
        ("scm_read_only_access", ["scm:cert:list", "scm:rollout:get"],
         ["scm:cert:download", "scm:cert:export_key", "scm:cert:delete", "iam:audit:list"]),
        ("scm_full_access", ["scm:cert:export_key", "scm:target:create"], ["iam:user:create", "ccm:ca:delete"]),
        ("scm_administrator", ["ccm:ca:create", "alarm:alarm:ack", "dns:connection:create"],
         ["iam:user:create", "iam:policy:update"]),
        ("dns_administrator", ["dns:connection:delete", "scm:validation:check"], ["scm:cert:apply"]),
        ("pca_full_access", ["ccm:ca:delete", "ccm:cert:issue"], ["scm:cert:get"]),
        ("bss_administrator", [], ["scm:cert:get", "iam:user:list"]),
        ("tenant_administrator", ["iam:policy:update", "scm:cert:export_key"], []),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)  # fmt: skip
def test_system_policies_give_what_their_names_say(policy: str, may: list[str], may_not: list[str]) -> None:
    grants = (Grant(policy, statements_of(SYSTEM_POLICIES[policy].document)),)
    assert [a for a in may if not decide(grants, a, None, None).allowed] == []
    assert [a for a in may_not if decide(grants, a, None, None).allowed] == []
