"""What no door of the private CA lets pass, whoever asks: names, purposes, places, CAs that aren't good ones."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certwright.kernel.problems import Invalid, InvalidFields, NotFound, Problem
from certwright.rooms import authorities, certificates
from certwright.rooms.access import people
from certwright.rooms.authorities import PolicyLimits, rules
from certwright.rooms.authorities.words import CaRequest, CaState, LeafRequest
from certwright.x509.certificates import to_pem
from certwright.x509.crl import read_crl
from certwright.x509.csr import to_pem as csr_to_pem
from certwright.x509.issue import CLIENT_AUTH, NameConstraints, Subject, issuer_facts
from certwright.x509.profiles import read_profile
from tests.authorities.test_hierarchy import BELOW, ROOT, do, events_of, leaf, look, make, openssl_verifies, pem_files
from tests.conftest import START, Api, World


@pytest.fixture
def low(world: World) -> authorities.Authority:
    return make(world, BELOW, parent_id=make(world).id)


def refused(work: Callable[[], object]) -> Problem:
    with pytest.raises(Problem) as refusal:
        work()
    return refusal.value


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("WWW.Example.COM.", "www.example.com"),
        ("Ann.B+x@EXAMPLE.com", "Ann.B+x@example.com"),
        ("ann@xn--bcher-kva.example", "ann@xn--bcher-kva.example"),
        ("spiffe://prod_1.example/web", "spiffe://prod_1.example/web"),
        ("https://[2001:db8::1]:8443/a?b#c", "https://[2001:db8::1]:8443/a?b#c"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("@example.com", None), ("ann@", None), ("ann@b@example.com", None), ("<ann>@example.com", None),
        ('"ann"@example.com', None), ("ann@example.com.", None), ("ann@*.example.com", None), ("ann@-a.example", None),
        ("a..b@example.com", None), ("://", None), ("1://a", None), ("https://", None), ("file:///a", None),
        ("https://a..b/", None), ("https://a./", None), ("https://ann:pw@a/", None), ("https://a/ b", None),
        ("https://a/%zz", None), ('https://a/"', None), ("https://[::1", None),
        ("fe80::1%eth0", None), ("fe80::1%a@b", None), ("fe80::1%\n", None),
    ],
)  # fmt: skip
def test_a_name_is_one_of_its_kind_or_refused(name: str, kept: str | None) -> None:
    if kept is None:
        with pytest.raises(InvalidFields) as refusal:
            authorities.judge_names([name])
        assert [problem.field for problem in refusal.value.problems] == ["names[0]"]
    else:
        assert authorities.judge_names([name]) == (kept,)


def test_a_certificate_is_found_by_a_name_as_it_was_said(world: World, low: authorities.Authority) -> None:
    said = ("WWW.Example.com", "Ann.B@Example.com", "https://a.example/Path")
    made = leaf(world, low.id, *said, profile="client", subject=Subject(common_name="Ann"))
    leaf(world, low.id, "other.example.com")
    for name in (*said[::2], "Ann.B@example.com", made.serial[:9].upper()):
        found = world.run(authorities.list_leaves(world.services, world.actor, low.id, search=f" {name} "))
        assert [one.id for one in found] == [made.id], name


def test_no_way_of_writing_passes_a_policy_by(world: World, low: authorities.Authority) -> None:
    limits = PolicyLimits(refused=("evil.example", "@evil.example", "*://evil.example"))
    world.run(authorities.create_policy(world.services, world.actor, "P", limits))
    for name, common_name, code in (
        ("https://evil.example./", "p", "name_invalid"),
        ("ann@evil.example.", "p", "name_invalid"),
        ("ok.example", "https://evil.example./", "name_not_allowed"),
        ("ok.example", "ann@evil.example.", "name_not_allowed"),
        ("ok.example", "evil.example\0.ok.example", "subject_invalid"),
        ("ok.example", "ok.example\n", "subject_invalid"),
    ):
        holder = Subject(common_name=common_name)
        problem = refused(lambda: leaf(world, low.id, name, profile="client", subject=holder))  # noqa: B023  # at once
        assert problem.code == code, (name, common_name)


# --- what stands above -----------------------------------------------------------------------------------------------


def test_limits_bind_whatever_stands_below_however_deep(world: World) -> None:
    """A path is good within the limits of every CA on it (RFC 5280 section 6.1): what the last of them may do by itself
    doesn't count."""
    limits = NameConstraints(permitted_dns=("example.com",))
    top = make(world, path_len=2)
    middle = make(
        world, BELOW, name="Middle", parent_id=top.id, path_len=1, constraints=limits, purposes=("server_auth",)
    )
    last = make(world, BELOW, name="Last", parent_id=middle.id, purposes=("server_auth",))
    assert leaf(world, last.id, "www.example.com").names == ("www.example.com",)
    problem = refused(lambda: leaf(world, last.id, "www.example.org"))
    assert [one["code"] for one in problem.extra["findings"]] == ["name_constraint"]
    assert refused(lambda: leaf(world, last.id, profile="client")).code == "lint_failed"


def test_limits_bind_below_a_parent_outside(world: World) -> None:
    top_key, low_key = key(), key()
    limits = x509.NameConstraints([x509.DNSName("example.com")], None)
    purposes = x509.ExtendedKeyUsage([x509.ObjectIdentifier(CLIENT_AUTH)])
    top = ca("Outside", top_key, extra=[(limits, True), (purposes, False)])
    low = bring(world, "Low", [ca("Low", low_key, by=(top, top_key)), top], low_key)
    assert leaf(world, low.id, "a.example.com", profile="client").names == ("a.example.com",)
    assert refused(lambda: leaf(world, low.id, "a.example.org", profile="client")).code == "lint_failed"
    assert refused(lambda: leaf(world, low.id, "a.example.com")).code == "lint_failed"


def test_a_path_length_above_the_parent_binds_too(world: World) -> None:
    top_key, low_key = key(), key()
    top = ca("Outside", top_key, path_len=1)
    low = bring(world, "Low", [ca("Low", low_key, by=(top, top_key)), top], low_key)
    problem = refused(lambda: make(world, BELOW, parent_id=low.id, name="Under", path_len=None))
    assert problem.code == "path_len_exhausted"


# --- CAs brought along -----------------------------------------------------------------------------------------------

_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def ca(
    common_name: str, own: _Key, *, by: tuple[x509.Certificate, _Key] | None = None, is_ca: bool = True,
    path_len: int | None = None, may_sign: bool = True, until: datetime = START + timedelta(days=900),
    extra: list[tuple[x509.ExtensionType, bool]] | None = None,
) -> x509.Certificate:  # fmt: skip
    """As other programs make them, also wrong ones."""
    parts = [x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)] if common_name else []
    issuer, signer = by or (None, own)
    builder = x509.CertificateBuilder(
        issuer.subject if issuer is not None else x509.Name(parts), x509.Name(parts), own.public_key(),
        x509.random_serial_number(), START - timedelta(days=90), until,
    )  # fmt: skip
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=may_sign, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    for value, critical in [(x509.BasicConstraints(is_ca, path_len), True), (usage, True), *(extra or [])]:
        builder = builder.add_extension(value, critical)
    return builder.sign(signer, hashes.SHA256())


def bring(world: World, name: str, chain: list[x509.Certificate], own: _Key) -> authorities.Authority:
    text = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    certificate = "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in chain)
    made = world.run(
        authorities.import_authority(world.services, world.actor, name=name, certificate=certificate, private_key=text)
    )
    world.drain()
    return look(world, made.id)


def _through_a_leaf(own: _Key) -> list[x509.Certificate]:
    root, between = key(), key()
    top = ca("Root", root)
    leaf_ = ca("Leaf", between, by=(top, root), is_ca=False, may_sign=False)
    return [ca("Low", own, by=(leaf_, between)), leaf_, top]


def _below_path_length_0(own: _Key) -> list[x509.Certificate]:
    root = key()
    top = ca("Root", root, path_len=0)
    return [ca("Low", own, by=(top, root)), top]


def test_what_cannot_be_a_ca_is_not_brought_as_one(world: World) -> None:
    for number, (chain, code) in enumerate((
        (lambda own: [ca("Leaf", own, is_ca=False)], "not_a_ca"),
        (lambda own: [ca("No signer", own, may_sign=False)], "not_a_ca"),
        (lambda own: [ca("", own)], "ca_subject_missing"),
        (lambda own: [ca("Old", own, until=START - timedelta(days=1))], "expired"),
        (_through_a_leaf, "not_a_ca"),
        (_below_path_length_0, "path_len_exhausted"),
    )):  # fmt: skip
        own = key()
        assert refused(partial(bring, world, "Brought", chain(own), own)).code == code, number


def test_a_root_that_admits_no_ca_below_it_issues_by_itself(world: World, tmp_path: Path) -> None:
    own = key()
    own_id = x509.SubjectKeyIdentifier.from_public_key(own.public_key())
    small = bring(world, "Small", [ca("Small", own, path_len=0, extra=[(own_id, False)])], own)
    made = leaf(world, small.id)
    assert small.certificate_der is not None
    pem_files(tmp_path, root=small.certificate_der, chain=small.certificate_der, leaf=made.der)
    assert openssl_verifies(tmp_path, world) == "leaf.pem: OK"
    wide = bring(world, "Wide", [ca("Wide", own_wide := key())], own_wide)
    assert refused(lambda: leaf(world, wide.id)).code == "ca_is_root"
    do(world, "disable", small.id)
    assert refused(lambda: leaf(world, small.id)).code == "ca_not_active"


def test_a_ca_with_a_weak_key_is_not_brought(world: World) -> None:
    weak = rsa.generate_private_key(65537, 1024)  # that is what is refused
    assert refused(lambda: bring(world, "Weak", [ca("Weak", weak)], weak)).code == "weak_key"


@pytest.mark.parametrize("first", ["the parent", "the child"])
def test_a_revoked_ca_is_on_its_parents_list_whichever_was_brought_first(world: World, first: str) -> None:
    top_key, low_key = key(), key()
    top = ca("Top", top_key)
    chain = [ca("Low", low_key, by=(top, top_key)), top]
    if first == "the parent":
        parent = bring(world, "Top", [top], top_key)
        child = bring(world, "Low", chain, low_key)
    else:
        child = bring(world, "Low", chain, low_key)
        parent = bring(world, "Top", [top], top_key)
    assert look(world, child.id).parent_id == parent.id
    do(world, "revoke", child.id)
    listed = read_crl(world.run(authorities.newest_crl(world.services, parent.id)).der)
    assert set(listed.entries) == {f"{chain[0].serial_number:x}"}


def test_a_ca_revoked_before_its_parent_was_brought_is_on_the_first_list(world: World) -> None:
    top_key, low_key = key(), key()
    top = ca("Top", top_key)
    child = bring(world, "Low", [ca("Low", low_key, by=(top, top_key)), top], low_key)
    do(world, "revoke", child.id)
    parent = bring(world, "Top", [top], top_key)
    listed = read_crl(world.run(authorities.newest_crl(world.services, parent.id)).der)
    assert set(listed.entries) == {child.serial}


# --- CAs whose keys are elsewhere -------------------------------------------------------------------------------------

ELSEWHERE = CaRequest("elsewhere", Subject(common_name="Warehouse CA"), path_len=0, days=100)


def asked_for(own: _Key) -> str:
    """A request that asks for much more than it gets."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Root of everything")])
    )
    builder = builder.add_extension(x509.BasicConstraints(True, 9), True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("evil.example")]), False)
    return builder.sign(own, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def certified(world: World, parent: authorities.Authority, csr: str, **changes: Any) -> authorities.Leaf:
    asked = replace(ELSEWHERE, **changes)
    return world.run(authorities.certify_authority(world.services, world.actor, parent.id, asked, csr))


def test_a_ca_elsewhere_gets_what_was_said_and_not_what_it_asked_for(world: World, tmp_path: Path) -> None:
    top, own = make(world), key()
    limits = NameConstraints(permitted_dns=("wh.example",))
    made = certified(world, top, asked_for(own), constraints=limits)
    facts = issuer_facts(made.der)
    assert (made.profile, made.subject, made.names, made.has_key) == ("issuing", "CN=Warehouse CA", (), False)
    assert (facts.path_len, facts.constraints, facts.may_sign_certificates) == (0, limits.as_extension(), True)
    read = x509.load_der_x509_certificate(made.der)
    assert x509.SubjectAlternativeName.oid not in {extension.oid for extension in read.extensions}
    below = ca("Leaf", key(), by=(read, own), is_ca=False, may_sign=False, until=START + timedelta(days=50))
    assert top.certificate_der is not None
    pem_files(tmp_path, root=top.certificate_der, chain=made.der, leaf=below.public_bytes(serialization.Encoding.DER))
    done = subprocess.run(
        ["openssl", "verify", "-attime", str(int(START.timestamp()) + 9), "-CAfile", "root.pem", "-untrusted",
         "chain.pem", "leaf.pem"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "leaf.pem: OK", done.stderr
    world.run(authorities.revoke_leaf(world.services, world.actor, top.id, made.id, "ca_compromise"))
    world.drain()
    listed = read_crl(world.run(authorities.newest_crl(world.services, top.id)).der)
    assert set(listed.entries) == {made.serial}


def test_a_ca_elsewhere_is_certified_only_as_a_ca_here_would_be(world: World) -> None:
    top, own = make(world, path_len=1), key()
    low = make(world, BELOW, parent_id=top.id, purposes=("client_auth",))
    csr = asked_for(own)
    may_issue = world.actor_with("ccm:cert:*", "ccm:ca:get")
    for work, code in (
        (partial(certified, world, low, csr), "path_len_exhausted"),
        (partial(certified, world, top, csr, path_len=1), "path_len_out_of_range"),
        (partial(certified, world, top, csr, days=0), "ca_days_out_of_range"),
        (partial(certified, world, top, csr, subject=Subject()), "ca_subject_missing"),
        (partial(certified, world, top, csr, subject=Subject("a\0b")), "subject_invalid"),
        (partial(certified, world, top, "x"), "csr_format"),
        (
            lambda: world.run(
                authorities.certify_authority(world.services, may_issue, top.id, ELSEWHERE, csr)
            ),
            "not_permitted",
        ),
        (
            lambda: world.run(
                authorities.certify_authority(world.services, world.other_actor, top.id, ELSEWHERE, csr)
            ),
            "not_found",
        ),
    ):  # fmt: skip
        assert refused(work).code == code
    world.run(authorities.create_policy(world.services, world.actor, "P", PolicyLimits(quota=1, max_days=1)))
    assert certified(world, top, csr).profile == "issuing"
    world.run(authorities.create_policy(world.services, world.actor, "Q", PolicyLimits(refused=("evil.example",))))
    assert refused(lambda: certified(world, top, csr)).code == "ca_certificate_policed"
    do(world, "disable", top.id)
    assert refused(lambda: certified(world, top, csr)).code == "ca_not_active"


def test_a_ca_that_waits_here_and_is_certified_here_knows_its_parent(world: World) -> None:
    top = make(world)
    waiting = make(world, BELOW, name="Waiting", outside=True)
    assert waiting.csr_der is not None
    assert top.certificate_der is not None
    made = certified(world, top, csr_to_pem(waiting.csr_der).decode())
    chain = to_pem(made.der) + to_pem(top.certificate_der)
    installed = world.run(authorities.install_certificate(world.services, world.actor, waiting.id, chain))
    assert installed.parent_id == top.id
    do(world, "revoke", waiting.id)
    listed = read_crl(world.run(authorities.newest_crl(world.services, top.id)).der)
    assert set(listed.entries) == {made.serial}


def test_the_api_certifies_a_ca_elsewhere(world: World, api: Api) -> None:
    top = make(world)
    body = {"csr": asked_for(key()), "subject": {"common_name": "Warehouse CA"}, "path_len": 0}
    answer = api.post(f"/api/v1/authorities/{top.id}/subordinates", body)
    assert (answer.status_code, answer.json()["profile"]) == (201, "issuing")
    assert api.get(answer.headers["location"]).json()["id"] == answer.json()["id"]


# --- places ----------------------------------------------------------------------------------------------------------


def test_who_may_issue_in_one_project_may_not_use_another_ones_ca(world: World) -> None:
    project = world.run(people.create_project(world.services, world.actor, name="B"))
    low = make(world, BELOW, parent_id=make(world).id)
    limited = world.actor_with("ccm:cert:*", "ccm:ca:get", project_id=project.id)
    by_hand = [LeafRequest("server", ("a.example",))]
    for work in (
        lambda: authorities.issue_leaves(world.services, limited, low.id, by_hand, project_id=project.id),
        lambda: certificates.issue_private(
            world.services, limited, authority_id=low.id, names=["a.example"], project_id=project.id
        ),
    ):
        with pytest.raises(NotFound):
            world.run(work())  # type: ignore[arg-type]  # any awaitable will do
    both = [*limited.grants, *world.actor_with("ccm:ca:get").grants]
    seen = replace(limited, grants=tuple(both))
    assert refused(
        lambda: world.run(
            certificates.issue_private(
                world.services, seen, authority_id=low.id, names=["a.example"], project_id=project.id
            )
        )
    ).code == "not_permitted"  # fmt: skip


def test_cas_made_at_once_cannot_all_take_the_last_place(world: World) -> None:
    small = replace(world.services, settings=world.services.settings.model_copy(update={"private_ca_quota": 1}))

    async def go() -> list[object]:
        asked = [replace(ROOT, name=f"CA {n}") for n in range(4)]
        return await asyncio.gather(
            *(authorities.create_authority(small, world.actor, one) for one in asked), return_exceptions=True
        )

    codes = [one.code if isinstance(one, Problem) else "made" for one in world.run(go())]
    assert sorted(codes) == ["ca_quota", "ca_quota", "ca_quota", "made"]


def test_a_kit_whose_client_is_refused_leaves_no_cas(world: World) -> None:
    limits = PolicyLimits(refused=("@evil.example",))
    world.run(authorities.create_policy(world.services, world.actor, "P", limits))

    def kit(one: LeafRequest) -> tuple[str, bytes]:
        return world.run(authorities.client_kit(world.services, world.actor, one, ca_name="Shop"))

    def names() -> set[str]:
        return {one.name for one in world.run(authorities.list_authorities(world.services, world.actor))}

    for one, code in (
        (LeafRequest("client", ("a b@example.com",)), "name_invalid"),
        (LeafRequest("client", subject=Subject(common_name="x" * 65)), "subject_invalid"),
        (LeafRequest("client"), "lint_failed"),
        (LeafRequest("client", ("bob@evil.example",)), "name_not_allowed"),
        (LeafRequest("client", ("ann@example.com",), days=0), "days_out_of_range"),
    ):
        assert refused(partial(kit, one)).code == code
        assert names() == set()
    assert kit(LeafRequest("client", ("ann@example.com",)))[0].endswith("-mutual-tls.zip")
    assert names() == {"Shop root", "Shop"}
    assert refused(partial(kit, LeafRequest("client", ("bob@example.com",)))).code == "ca_name_taken"


# --- below a revoked one ---------------------------------------------------------------------------------------------


def test_below_a_revoked_ca_nothing_is_issued_any_more(world: World) -> None:
    top = make(world, path_len=3)
    high = make(world, BELOW, name="High", parent_id=top.id, path_len=2)
    middle = make(world, BELOW, name="Middle", parent_id=high.id, path_len=1)
    low = make(world, BELOW, parent_id=middle.id)
    do(world, "revoke", high.id, "ca_compromise")
    assert [look(world, one.id).state for one in (top, high, middle, low)] == [
        CaState.ACTIVE, CaState.REVOKED, CaState.DISABLED, CaState.DISABLED,
    ]  # fmt: skip
    assert refused(lambda: leaf(world, low.id)).code == "ca_not_active"
    assert refused(lambda: do(world, "enable", low.id)).code == "ca_above_revoked"
    assert refused(lambda: do(world, "enable", middle.id)).code == "ca_above_revoked"
    (said,) = [event for event in events_of(world, low.id) if event.action == "ccm:ca:disable"]
    assert (said.actor_id, said.reason) == (world.actor.id, "High above it was revoked")


def test_a_ca_is_not_brought_below_a_revoked_one(world: World) -> None:
    top_key, high_key, low_key = key(), key(), key()
    top = ca("Top", top_key)
    high = ca("High", high_key, by=(top, top_key))
    bring(world, "Top", [top], top_key)
    do(world, "revoke", bring(world, "High", [high, top], high_key).id)
    low = ca("Low", low_key, by=(high, high_key))
    assert refused(lambda: bring(world, "Low", [low, high, top], low_key)).code == "ca_above_revoked"


def test_cas_of_one_line_revoked_and_made_at_once_never_block_each_other(world: World) -> None:
    top = make(world, path_len=None)
    middle = make(world, BELOW, name="Middle", parent_id=top.id, path_len=None)
    low = make(world, BELOW, parent_id=middle.id, path_len=None)

    async def go() -> list[object]:
        services, actor = world.services, world.actor
        return await asyncio.gather(
            authorities.revoke_authority(services, actor, middle.id),
            authorities.revoke_authority(services, actor, low.id),
            authorities.create_authority(services, actor, replace(BELOW, name="New", parent_id=low.id, path_len=None)),
            authorities.client_kit(services, actor, LeafRequest("client", ("a@b.example",)), authority_id=low.id),
            return_exceptions=True,
        )

    assert not [one for one in world.run(go()) if isinstance(one, Exception) and not isinstance(one, Problem)]
    assert look(world, low.id).state is not CaState.ACTIVE
    states = [one.state for one in world.run(authorities.list_authorities(world.services, world.actor))]
    assert states.count(CaState.ACTIVE) == 1


# --- the order of ends -----------------------------------------------------------------------------------------------


def test_a_ca_that_can_be_restored_finds_the_one_above_it(world: World) -> None:
    top = make(world)
    low = make(world, BELOW, parent_id=top.id)
    do(world, "disable", low.id)
    do(world, "delete", low.id, days=8)
    do(world, "disable", top.id)
    assert refused(lambda: do(world, "delete", top.id, days=7)).code == "ca_child_waits_longer"
    do(world, "delete", top.id, days=8)
    assert refused(lambda: do(world, "restore", low.id)).code == "ca_parent_deleted"
    world.clock.set(START + timedelta(days=8) - timedelta(seconds=1))
    world.drain()
    do(world, "restore", top.id)
    assert do(world, "restore", low.id).state is CaState.DISABLED


@pytest.mark.parametrize("days", [0, -1, 9132, 2**70])
def test_a_life_out_of_range_is_refused(days: int) -> None:
    with pytest.raises(Invalid) as refusal:
        rules.judge_request(replace(ROOT, days=days), None)
    assert refusal.value.code == "ca_days_out_of_range"


# --- kinds of certificates -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "oid", ["2.5.29.46", "2.5.29.33", "2.5.29.20", "2.5.29.27", "2.5.29.28", "1.3.6.1.5.5.7.48.1.5",
            "2.16.840.1.113730.1.1"],
)  # fmt: skip
def test_a_kind_has_no_extensions_of_cas_lists_and_responders(oid: str) -> None:
    with pytest.raises(Invalid) as refusal:
        read_profile("odd", {"extensions": [{"oid": oid, "value": "BQA="}]})
    assert refusal.value.code == "profile_extension"


def test_an_unknown_purpose_is_told_the_words_there_are() -> None:
    with pytest.raises(Invalid) as refusal:
        read_profile("odd", {"extended_key_usage": ["server"]})
    assert "can't hold 'server': write server_auth, client_auth, " in refusal.value.message


def test_a_kind_that_says_a_purpose_twice_is_kept_with_it_once(world: World, low: authorities.Authority) -> None:
    body = {"extended_key_usage": ["client_auth", CLIENT_AUTH]}
    made = world.run(authorities.create_profile(world.services, world.actor, "twice", body))
    assert made.body["extended_key_usage"] == ["client_auth"]
    assert leaf(world, low.id, "a.example", profile="twice").profile == "twice"


def test_an_extension_that_is_nothing_is_a_finding_of_its_certificate(world: World, low: authorities.Authority) -> None:
    body = {"extensions": [{"oid": "1.3.6.1.5.5.7.1.24", "value": "MAA="}]}
    world.run(authorities.create_profile(world.services, world.actor, "odd", body))
    assert refused(lambda: leaf(world, low.id, "a.example", profile="odd")).code == "lint_failed"
