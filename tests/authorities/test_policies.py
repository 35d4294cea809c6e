"""Policies of what private CAs issue: their notation, their judgement, and that nothing passes them by."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from certwright.connectors.ca.builtin import BuiltinCa
from certwright.kernel.actor import system_actor
from certwright.kernel.problems import Forbidden, Invalid, NotFound, Problem, Refused, Stale
from certwright.rooms import authorities, certificates
from certwright.rooms.access import people
from certwright.rooms.audit.tables import audit_events
from certwright.rooms.authorities import PolicyLimits, name_rules, policy_rules
from certwright.rooms.authorities.tables import ca_policies, issued_certificates
from certwright.rooms.authorities.words import CaPolicy, IssueRequest, LeafRequest
from certwright.rooms.certificates import Applicant, Application, CertificateOrder
from certwright.x509.csr import make_csr
from certwright.x509.issue import DAY
from certwright.x509.keys import KeyAlgorithm, generate
from tests.authorities.test_hierarchy import BELOW, make
from tests.conftest import START, World

# --- the notation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "allows", "bars"),
    [
        ("www.example.internal", ["www.example.internal", "WWW.example.internal"],
         ["example.internal", "a.www.example.internal", "*.example.internal", "*.www.example.internal"]),
        ("*.example.internal", ["a.example.internal", "*.example.internal"],
         ["example.internal", "a.b.example.internal", "*.a.example.internal", "example.internal.evil"]),
        (".example.internal",
         ["a.example.internal", "a.b.example.internal", "*.example.internal", "*.a.example.internal"],
         ["example.internal", "aexample.internal", "a.example.internal.evil"]),
        (".", ["a", "a.example", "*.example"], ["10.0.0.1", "ann@example.com", "https://example.com"]),
        ("Bücher.example", ["xn--bcher-kva.example"], ["bcher.example"]),
        ("10.0.0.0/8", ["10.255.0.1"], ["11.0.0.1", "::ffff:10.0.0.1", "ten.example"]),
        ("10.0.0.7", ["10.0.0.7"], ["10.0.0.8"]),
        ("2001:db8::/32", ["2001:db8:1::1"], ["2001:db9::1", "10.0.0.1"]),
        ("ann@example.com", ["ann@example.com", "Ann@Example.com"], ["bob@example.com", "ann@a.example.com"]),
        ("@example.com", ["ann@example.com"],
         ["ann@a.example.com", "example.com", '"x@evil.com"@example.com', "ann@evil.com,b@example.com"]),
        ("@.example.com", ["ann@a.b.example.com"], ["ann@example.com"]),
        ("spiffe://prod.example", ["spiffe://prod.example/web", "SPIFFE://prod.example"],
         ["https://prod.example/", "spiffe://a.prod.example", "spiffe://prod.example@evil.example/",
          "spiffe://evil.example\\@prod.example/", "spiffe://[::1", "spiffe://prod.example.evil/"]),
        ("*://.example.com", ["https://a.example.com:8443/x?y#z", "ftp://b.a.example.com"], ["https://example.com/"]),
    ],
)  # fmt: skip
def test_a_rule_allows_just_what_it_says(rule: str, allows: list[str], bars: list[str]) -> None:
    for name in allows:
        assert name_rules.which_allows([rule], name) is not None, name
    for name in bars:
        assert name_rules.which_allows([rule], name) is None, name


@pytest.mark.parametrize(
    ("rule", "name", "met"),
    [
        ("www.example.internal", "*.example.internal", True),
        ("www.example.internal", "*.internal", False),
        ("a.www.example.internal", "*.example.internal", False),
        ("*.example.internal", "*.example.internal", True),
        (".secret.example.internal", "*.example.internal", False),
        (".secret.example.internal", "*.secret.example.internal", True),
        ("10.0.0.0/8", "::ffff:10.0.0.1", True),
        ("@example.com", "ann@other.example", False),
        ("@example.com", '"x y"@other.example', True),
        ("https://example.com", "https://user@other.example/", True),
        ("https://example.com", "https://other.example/", False),
    ],
)
def test_a_rule_refuses_whatever_a_name_could_be_used_for(rule: str, name: str, met: bool) -> None:
    assert (name_rules.which_refuses([rule], name) is not None) is met


_label = st.sampled_from(["a", "b", "c"])
_host = st.lists(_label, min_size=1, max_size=4).map(".".join)
_rule = st.builds(lambda front, host: front + host, st.sampled_from(["", "*.", "."]), _host)


@given(rules=st.lists(_rule, max_size=4), base=_host, labels=st.lists(_label, min_size=1, max_size=3))
def test_a_wildcard_is_judged_as_the_names_it_stands_for(rules: list[str], base: str, labels: list[str]) -> None:
    wildcard, inside = f"*.{base}", [f"{label}.{base}" for label in labels]
    if name_rules.which_allows(rules, wildcard):
        assert all(name_rules.which_allows(rules, name) for name in inside)
    if any(name_rules.which_refuses(rules, name) for name in inside):
        assert name_rules.which_refuses(rules, wildcard)


@given(rule=_rule, name=_host)
def test_rules_of_hosts_are_what_they_say(rule: str, name: str) -> None:
    wanted = {
        "*": name.partition(".")[2] == rule[2:],
        ".": name.endswith(rule),
    }.get(rule[0], name == rule)  # fmt: skip
    assert (name_rules.which_allows([rule], name) is not None) is wanted


_any_rule = (
    _rule
    | st.builds(lambda host: f"@{host}", _rule)
    | st.builds(lambda box, host: f"{box}@{host}", _label, _rule)
    | st.builds(lambda scheme, host: f"{scheme}://{host}", st.sampled_from(["https", "*"]), _rule)
    | st.sampled_from([".", "@.", "*://.", "10.0.0.0/8", "10.1.0.0/16", "10.1.0.1", "::/0"])
)
_any_name = (
    _host
    | st.builds(lambda host: f"*.{host}", _host)
    | st.builds(lambda box, host: f"{box}@{host}", _label, _host)
    | st.builds(lambda host: f"https://{host}/x", _host)
    | st.sampled_from(["10.1.0.1", "10.2.0.1", "::1", "::ffff:10.1.0.1", '"a"@a', "https://a@b/"])
)


@given(rules=st.lists(_any_rule, max_size=6), name=_any_name)
def test_a_list_says_what_its_first_rule_that_matches_says(rules: list[str], name: str) -> None:
    for which in (name_rules.which_allows, name_rules.which_refuses):
        assert which(rules, name) == next((rule for rule in rules if which([rule], name)), None)


@given(address=st.ip_addresses(), bits=st.integers(0, 32))
def test_a_network_allows_its_addresses(address: Any, bits: int) -> None:
    network = ipaddress.ip_network((address, bits), strict=False)
    assert name_rules.which_allows([str(network)], str(address)) is not None
    outside = network.broadcast_address + 1 if int(network.broadcast_address) + 1 < 2**network.max_prefixlen else None
    if outside is not None:
        assert name_rules.which_allows([str(network)], str(outside)) is None


@given(text=st.text(max_size=40) | _rule | st.from_regex(r"[*.a-c@:/0-9-]{1,20}", fullmatch=True))
def test_reading_a_rule_gives_its_final_form_or_a_refusal(text: str) -> None:
    try:
        rule = name_rules.read_rule(text)
    except Invalid:
        return
    assert name_rules.read_rule(rule.text) == rule


@given(name=st.text(max_size=40) | st.from_regex(r"[*.a-c@:/\[\]\\0-9-]{1,30}", fullmatch=True))
def test_no_name_breaks_the_judgement(name: str) -> None:
    rules = [".", "@.", "*://.", "0.0.0.0/0", "::/0"]
    allowed, refused = name_rules.which_allows(rules, name), name_rules.which_refuses(rules, name)
    assert refused is not None or allowed is None


@pytest.mark.parametrize(
    "text", ["", "a b", "10.0.0.1/8", "*", "*.*.example", "https://x/y", "1https://x", "a@b@c d", "x/y", "@", "a..b"]
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        name_rules.read_rules([text], "allowed")
    assert caught.value.field == "allowed[0]"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("db.shop.internal", "db.shop.internal"), ("10.0.0.1", "10.0.0.1"), ("ann@example.com", "ann@example.com"),
        ("https://x", "https://x"), ("Bücher.example", "xn--bcher-kva.example"), ("*.shop.internal", "*.shop.internal"),
        ("Ann Example", None), ("printer", None), ("Ann B. Example", None), ("", None), (None, None),
        ("in.names", None),
    ],
)  # fmt: skip
def test_a_common_name_that_reads_like_a_name_is_one(text: str | None, named: str | None) -> None:
    assert name_rules.name_in_common_name(text, ["in.names"]) == named


# --- the judgement ---------------------------------------------------------------------------------------------------


def policy(name: str = "Shop", **limits: Any) -> CaPolicy:
    return CaPolicy("cpl_1", name, None, None, PolicyLimits(**limits), START, START, 1)


ASKED = policy_rules.Asked("Web", "Shop CA", "server", ("a.shop.internal",))


@pytest.mark.parametrize(
    ("policies", "changes", "code"),
    [
        pytest.param([], {}, None, id="without any policy everything is allowed"),
        pytest.param([policy()], {}, None, id="a policy that limits nothing"),
        pytest.param([policy(allowed=(".shop.internal",))], {}, None, id="an allowed name"),
        pytest.param([policy(allowed=(".shop.internal",))], {"names": ("a.shop.internal", "10.0.0.1")},
                     "name_not_allowed", id="allowing hosts bars addresses"),
        pytest.param([policy(allowed=(".shop.internal",), refused=("a.shop.internal",))], {}, "name_not_allowed",
                     id="refusing wins over allowing"),
        pytest.param([policy(allowed=(".",)), policy(allowed=("b.shop.internal",))], {}, "name_not_allowed",
                     id="no policy widens another"),
        pytest.param([policy(wildcards=False)], {"names": ("*.shop.internal",)}, "name_not_allowed", id="a wildcard"),
        pytest.param([policy(allowed=(".shop.internal",))], {"common_name": "bank.example"}, "name_not_allowed",
                     id="a host in the common name alone"),
        pytest.param([policy(allowed=(".shop.internal",))], {"common_name": "Ann Example"}, None, id="a person"),
        pytest.param([policy(profiles=("client",))], {}, "profile_not_allowed", id="another kind"),
        pytest.param([policy(profiles=("client", "server"))], {}, None, id="one of the kinds"),
        pytest.param([policy(max_days=30)], {"seconds": 30 * DAY}, None, id="just as long as it may"),
        pytest.param([policy(max_days=90), policy(max_days=30)], {"seconds": 30 * DAY + 1}, "life_not_allowed",
                     id="longer than the shorter of two limits"),
        pytest.param([policy(max_days=30)], {}, None, id="no life asked for"),
    ],
)  # fmt: skip
def test_a_request_is_judged(policies: list[CaPolicy], changes: dict[str, Any], code: str | None) -> None:
    problem = policy_rules.refusal(policies, replace(ASKED, **changes))
    assert (problem.code if problem else None) == code
    if problem is not None:
        assert "Web" in problem.message
        assert "Shop CA" in problem.message
        assert "ccm:policy:update" in problem.fix


def test_a_refusal_names_the_name_the_policy_and_every_other_name() -> None:
    found = policy_rules.refusal(
        [policy("Names of the shop", refused=(".db.internal",))],
        replace(ASKED, names=("x.db.internal", "y.db.internal")),
    )
    assert found is not None
    assert found.message == (
        "The project 'Web' may not have 'x.db.internal' certified by 'Shop CA' (and 1 more of its names): the policy "
        "'Names of the shop' refuses .db.internal."
    )
    assert found.extra["names"] == ["x.db.internal", "y.db.internal"]


def test_the_narrowest_limits_count() -> None:
    found = [policy(max_days=30, quota=5), policy("B", max_days=10, quota=0), policy("C")]
    assert policy_rules.longest_seconds(found) == 10 * DAY
    narrowest = policy_rules.narrowest_quota(found)
    assert narrowest is not None
    assert narrowest.name == "B"
    assert policy_rules.longest_seconds([policy()]) is None
    assert policy_rules.narrowest_quota([policy()]) is None


@pytest.mark.parametrize(
    ("name", "limits", "field"),
    [
        ("", {}, "name"), ("x" * 101, {}, "name"), ("a\nb", {}, "name"),
        ("P", {"allowed": ("",)}, "allowed[0]"), ("P", {"refused": ("ok", "a b")}, "refused[1]"),
        ("P", {"allowed": ("a",) * 201}, "allowed"), ("P", {"max_days": 0}, "max_days"), ("P", {"quota": -1}, "quota"),
        ("P", {"max_days": 100_000}, "max_days"), ("P", {"quota": 10_000_000}, "quota"),
    ],
)  # fmt: skip
def test_a_policy_that_makes_no_sense_is_refused(name: str, limits: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        policy_rules.judge_policy(name, PolicyLimits(**limits))
    assert caught.value.field == field


# --- every way of issuing --------------------------------------------------------------------------------------------


@pytest.fixture
def low(world: World) -> authorities.Authority:
    return make(world, BELOW, parent_id=make(world).id)


def limit(world: World, name: str = "Shop", **given: Any) -> CaPolicy:
    where = {key: given.pop(key) for key in ("project_id", "authority_id") if key in given}
    return world.run(
        authorities.create_policy(world.services, world.actor, name, PolicyLimits(**given), **where)
    )  # fmt: skip


def ask(world: World, ca_id: str, *names: str, project_id: str | None = None, **changes: Any) -> Any:
    """The leaf, or its problem."""
    request = replace(LeafRequest("server", names), **changes)
    (made,) = world.run(authorities.issue_leaves(world.services, world.actor, ca_id, [request], project_id=project_id))
    return made


def code(found: Any) -> str | None:
    return found.code if isinstance(found, Problem) else None


def test_policies_bind_their_project_and_ca_and_no_other(world: World, low: authorities.Authority) -> None:
    shop = world.run(people.create_project(world.services, world.actor, name="shop"))
    other = make(world, BELOW, name="Other", parent_id=low.parent_id)
    limit(world, "one project", project_id=shop.id, allowed=(".shop.internal",))
    limit(world, "one CA", authority_id=other.id, profiles=("client",))
    assert code(ask(world, low.id, "a.example.com")) is None
    assert code(ask(world, low.id, "a.example.com", project_id=shop.id)) == "name_not_allowed"
    assert code(ask(world, low.id, "a.shop.internal", project_id=shop.id)) is None
    assert code(ask(world, other.id, "a.shop.internal")) == "profile_not_allowed"
    limit(world, "everybody", max_days=20)
    assert code(ask(world, low.id, "a.example.com", days=21)) == "life_not_allowed"
    unasked = ask(world, low.id, "a.example.com")
    # Both ends of a life count.
    assert unasked.not_after - unasked.not_before == timedelta(days=20, seconds=-1)


def test_every_way_of_issuing_passes_the_policies(world: World) -> None:
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    world.drain()
    services, actor = world.services, world.actor

    async def builtin() -> str:
        async with services.db.begin() as tx:
            return await authorities.builtin_issuing_id(tx, world.account.id)

    ca_id = world.run(builtin())
    limit(world, allowed=(".shop.internal",))
    key = generate(KeyAlgorithm.EC_P256)
    order = CertificateOrder("app_1", actor.account_id, world.project_id, ("bank.example",), make_csr(key, ["x.y"]))
    request = IssueRequest("r1", actor.account_id, world.project_id, ("bank.example",), key.public_key())

    async def early() -> Problem | None:
        async with services.db.begin() as tx:
            return await authorities.names_refused(
                tx, actor.account_id, world.project_id, ca_id, ["bank.example"], "server"
            )

    application = Application(
        names=("bank.example",), validation_method="dns", applicant=Applicant("Ann", "ann@one.example", "+49 30 1"),
        consent=True,
    )  # fmt: skip
    ways: dict[str, Any] = {
        "an application": certificates.create_certificate(services, actor, application=application),
        "by hand": authorities.issue_leaves(services, actor, ca_id, [LeafRequest("server", ("bank.example",))]),
        "the kit": authorities.client_kit(
            services, actor, LeafRequest("client", ("ann@bank.example",)), authority_id=ca_id
        ),
        "a managed certificate": certificates.issue_private(services, actor, names=["bank.example"]),
        "an order": BuiltinCa(services).submit(order),
        "the door": authorities.issue(services, ca_id, request),
        "asked before": early(),
    }
    for way, work in ways.items():
        try:
            found = world.run(work)
        except Problem as problem:
            found = problem
        assert code(found[0] if isinstance(found, list) else found) == "name_not_allowed", way
    assert world.run(_good(world, ca_id)) == 0


async def _good(world: World, ca_id: str) -> int:
    i = issued_certificates.c
    async with world.services.db.begin() as tx:
        query = sa.select(sa.func.count()).where(i.authority_id == ca_id, sa.not_(i.internal))
        return int(await tx.scalar(query) or 0)


def test_a_batch_asks_for_its_policies_once_whatever_its_size(
    world: World, low: authorities.Authority, statements: list[str]
) -> None:
    def asked(count: int) -> tuple[int, int]:
        requests = [LeafRequest("server", (f"h{n}.shop.internal",)) for n in range(count)]
        statements.clear()
        world.run(authorities.issue_leaves(world.services, world.actor, low.id, requests))
        return sum("ca_policies.allowed" in said for said in statements), len(statements)

    assert asked(1)[0] == 0, "where there are none, nobody asks for them"
    limit(world, allowed=(".shop.internal",), quota=100)
    one, five = asked(1), asked(5)
    assert one[0] == five[0] == 1
    # Keys are stored one by one; nothing else may grow with the batch.
    assert five[1] <= one[1] + 4


@pytest.fixture
def statements(world: World) -> Iterator[list[str]]:
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        found.append(statement)

    engine = world.services.db.engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", note)
    yield found
    sa.event.remove(engine, "before_cursor_execute", note)


# --- quotas ----------------------------------------------------------------------------------------------------------


def test_a_quota_counts_what_is_good_and_frees_places(world: World, low: authorities.Authority) -> None:
    limit(world, quota=2)
    first = ask(world, low.id, "a.example.com", days=10)
    assert code(ask(world, low.id, "b.example.com", days=20)) is None
    full = ask(world, low.id, "c.example.com")
    assert code(full) == "certificate_quota"
    assert "Shop" in full.message
    assert "allows 2 at a time" in full.message
    world.run(authorities.delete_leaf(world.services, world.actor, low.id, first.id))
    assert code(ask(world, low.id, "c.example.com")) == "certificate_quota", "deleted from the list it is still good"
    world.later(days=10)
    third = ask(world, low.id, "c.example.com")
    assert code(third) is None
    assert code(ask(world, low.id, "d.example.com")) == "certificate_quota"
    world.run(authorities.revoke_leaf(world.services, world.actor, low.id, third.id))
    assert code(ask(world, low.id, "d.example.com")) is None


def test_within_a_batch_only_what_is_issued_takes_a_place(world: World, low: authorities.Authority) -> None:
    limit(world, quota=2)
    requests = [LeafRequest("server", names) for names in ((), ("a.example",), ("b.example",), ("c.example",))]
    found = world.run(authorities.issue_leaves(world.services, world.actor, low.id, requests))
    assert [code(one) for one in found] == ["lint_failed", None, None, "certificate_quota"]


def test_two_at_once_cannot_both_take_the_last_place(world: World, low: authorities.Authority) -> None:
    limit(world, quota=1)

    async def race() -> list[Any]:
        work = [
            authorities.issue_leaves(
                world.services, world.actor, low.id, [LeafRequest("server", (f"{n}.example.com",))]
            )
            for n in "abcd"
        ]
        return [found[0] for found in await asyncio.gather(*work)]

    assert sorted(code(one) or "" for one in world.run(race())) == ["", *["certificate_quota"] * 3]
    assert world.run(_good(world, low.id)) == 1


# --- the product's own -----------------------------------------------------------------------------------------------


def test_what_the_product_needs_itself_is_neither_judged_nor_counted(world: World) -> None:
    services = world.services
    world.run(authorities.ensure_builtin(services, world.account.id, world.project_id))
    world.drain()
    limit(world, allowed=("nothing.internal",), quota=0, max_days=1, profiles=("client",))
    own = world.run(
        certificates.issue_private(services, system_actor(world.account.id, "web certificate"), names=["cw.example"])
    )
    made = make(world, BELOW, name="Answering", parent_id=make(world).id, ocsp_enabled=True)
    assert made.state == "active"

    async def version() -> Any:
        async with services.db.begin() as tx:
            return await certificates.current_version(tx, own.id)

    leaf_der = world.run(version()).leaf_der

    def renew(reference: str, *names: str) -> Any:
        key = generate(KeyAlgorithm.EC_P256)
        order = CertificateOrder(
            reference, world.account.id, world.project_id, names, make_csr(key, ["x.y"]), replaces_der=leaf_der
        )
        try:
            return world.run(BuiltinCa(services).submit(order))
        except Problem as problem:
            return problem

    assert code(renew("app_1", "cw.example")) is None
    assert code(renew("app_2", "cw.example", "bank.example")) is not None


# --- leading them ----------------------------------------------------------------------------------------------------


def test_a_policy_is_kept_as_it_reads_changed_and_deleted(world: World) -> None:
    made = limit(world, " Shop ", allowed=("WWW.Shop.internal", "www.shop.internal", "10.0.0.7/32"), quota=3)
    assert (made.name, made.limits.allowed) == ("Shop", ("www.shop.internal", "10.0.0.7"))
    services, actor = world.services, world.actor

    def change(revision: int, **changes: Any) -> CaPolicy:
        return world.run(authorities.update_policy(services, actor, made.id, changes, revision=revision))

    assert change(1).revision == 1
    changed = change(1, quota=None, wildcards=False)
    assert (changed.limits.quota, changed.limits.wildcards, changed.limits.allowed) == (
        None,
        False,
        made.limits.allowed,
    )
    with pytest.raises(Stale):
        change(1, quota=5)
    with pytest.raises(Refused, match="already a policy"):
        limit(world, "shop")
    with pytest.raises(Invalid, match="no profile"):
        limit(world, "kinds", profiles=("server", "unknown"))
    world.run(authorities.delete_policy(services, actor, made.id))
    assert world.run(authorities.list_policies(services, actor)) == []

    async def recorded() -> list[str]:
        async with services.db.begin() as tx:
            a = audit_events.c
            return list(
                (await tx.scalars(sa.select(a.action).where(a.action.like("ccm:policy:%")).order_by(a.id))).all()
            )

    assert world.run(recorded()) == ["ccm:policy:create", "ccm:policy:update", "ccm:policy:delete"]


def test_policies_are_seen_and_led_only_where_somebody_may(world: World) -> None:
    shop = world.run(people.create_project(world.services, world.actor, name="shop"))
    services = world.services
    wide, own = limit(world, "all"), limit(world, "shop", project_id=shop.id)
    keeper = world.actor_with("ccm:policy:*", project_id=shop.id)
    reader = world.actor_with("ccm:policy:list", "ccm:policy:get")
    named = world.actor_with("ccm:policy:*", resources=(f"ca-policy:{own.id}",))

    assert [p.id for p in world.run(authorities.list_policies(services, keeper))] == [own.id]
    assert [p.id for p in world.run(authorities.list_policies(services, named))] == [own.id]
    assert len(world.run(authorities.list_policies(services, reader))) == 2
    for actor, policy_id, refusal in (
        (keeper, wide.id, NotFound), (reader, own.id, Forbidden), (world.other_actor, own.id, NotFound),
        (named, wide.id, NotFound),
    ):  # fmt: skip
        for work in (
            authorities.update_policy(services, actor, policy_id, {"quota": 1}),
            authorities.delete_policy(services, actor, policy_id),
        ):
            with pytest.raises(refusal):
                world.run(work)
    with pytest.raises(NotFound):
        world.run(authorities.get_policy(services, world.other_actor, own.id))
    assert world.run(authorities.list_policies(services, world.other_actor)) == []
    for actor, project_id, refusal in (
        (keeper, None, Forbidden), (reader, shop.id, Forbidden), (world.other_actor, shop.id, NotFound),
    ):  # fmt: skip
        with pytest.raises(refusal):
            world.run(
                authorities.create_policy(services, actor, "x", PolicyLimits(), project_id=project_id)
            )  # fmt: skip
    with pytest.raises(NotFound):
        limit(world, "y", authority_id="ca_00000000000000000000000000")
    world.run(authorities.update_policy(services, keeper, own.id, {"quota": 1}))
    world.run(authorities.delete_policy(services, named, own.id))

    async def left() -> int:
        async with services.db.begin() as tx:
            return int(await tx.scalar(sa.select(sa.func.count()).select_from(ca_policies)) or 0)

    assert world.run(left()) == 1


def test_trying_names_says_which_rule_decides(world: World, low: authorities.Authority) -> None:
    services = world.services
    limit(
        world, "Names", allowed=(".shop.internal", "10.0.0.0/8"), refused=(".db.shop.internal",), quota=1, max_days=30
    )

    def attempt(*names: str, actor: Any = None, **rest: Any) -> authorities.PolicyTrial:
        return world.run(authorities.try_names(services, actor or world.actor, low.id, names, **rest))

    found = attempt("a.shop.internal", "x.db.shop.internal", "bank.example")
    assert [(one.allowed, one.rule) for one in found.verdicts] == [
        (True, ".shop.internal"), (False, ".db.shop.internal"), (False, None),
    ]  # fmt: skip
    assert (code(found.problem), found.policies, found.max_days, found.quota, found.used) == (
        "name_not_allowed", ("Names",), 30, 1, 0,
    )  # fmt: skip
    assert attempt("a.shop.internal").problem is None
    assert code(attempt("a.shop.internal", days=31).problem) == "life_not_allowed"
    ask(world, low.id, "a.shop.internal")
    assert code(attempt("b.shop.internal").problem) == "certificate_quota"
    shop = world.run(people.create_project(services, world.actor, name="shop"))
    assert attempt("b.shop.internal", project_id=shop.id).problem is None, "another project has its own count"
    with pytest.raises(NotFound):
        attempt("a.shop.internal", actor=world.other_actor)
    with pytest.raises(Forbidden):
        attempt("a.shop.internal", actor=world.actor_with("ccm:cert:issue"))


def test_the_api_leads_policies_by_revision(api: Any, low: authorities.Authority) -> None:
    made = api.post("/api/v1/ca-policies", {"name": "Shop", "allowed": [".Shop.internal"], "authority_id": low.id})
    assert made.status_code == 201, made.text
    place = made.headers["location"]
    assert (made.json()["allowed"], made.json()["quota"], made.json()["wildcards"]) == ([".shop.internal"], None, True)
    assert api.get(place).headers["etag"] == '"1"'
    assert api.patch(place, {"quota": 5}).status_code == 428
    changed = api.patch(place, {"quota": 5}, headers={"if-match": '"1"'}).json()
    assert (changed["quota"], changed["allowed"], changed["revision"]) == (5, [".shop.internal"], 2)
    assert api.patch(place, {"quota": None}, headers={"if-match": '"1"'}).status_code == 412
    assert api.patch(place, {"quota": None}, headers={"if-match": '"2"'}).json()["quota"] is None
    wrong = api.patch(place, {"refused": ["x", "a b"]}, headers={"if-match": '"3"'})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "refused[1]")
    assert api.patch(place, {"authority_id": None}, headers={"if-match": '"3"'}).status_code == 422
    tried = api.post("/api/v1/ca-policies/try", {"authority_id": low.id, "names": ["A.shop.internal", "bank.example"]})
    said = tried.json()
    assert [(one["name"], one["allowed"]) for one in said["names"]] == [
        ("a.shop.internal", True), ("bank.example", False),
    ]  # fmt: skip
    assert said["problem"]["code"] == "name_not_allowed"
    assert [one["id"] for one in api.get("/api/v1/ca-policies").json()["items"]] == [made.json()["id"]]
    stranger = api.as_actor(api.world.other_actor)
    assert stranger.get(place).status_code == 404
    assert stranger.delete(place).status_code == 404
    assert stranger.post("/api/v1/ca-policies/try", {"authority_id": low.id, "names": ["a"]}).status_code == 404
    refused = api.post(f"/api/v1/authorities/{low.id}/issued", {"requests": [{"profile": "server", "names": ["b.c"]}]})
    assert refused.json()["items"][0]["problem"]["code"] == "name_not_allowed"
    assert api.delete(place).status_code == 204
    assert api.get(place).status_code == 404
