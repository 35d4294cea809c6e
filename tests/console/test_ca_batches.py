"""The console's pages for many certificates at once, the kit for mutual TLS, kinds, and what a CA's page tells."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certwright.rooms import access, audit, authorities
from certwright.rooms.authorities import CaRequest
from certwright.rooms.authorities.tables import ca_profiles
from certwright.x509.certificates import read_certificates
from certwright.x509.issue import Subject
from tests.console.conftest import Web

SignIn = Callable[[Any], Web]


@pytest.fixture
def hierarchy(api: Any) -> tuple[str, str, str]:
    """Ids of a root, a CA below it and one below that."""
    world = api.world
    found: list[str] = []
    for name, path_len in (("Top", None), ("Middle", 1), ("Low", 0)):
        request = CaRequest(name, Subject(common_name=name), parent_id=found[-1] if found else None, path_len=path_len)
        found.append(world.run(authorities.create_authority(world.services, world.actor, request)).id)
    return found[0], found[1], found[2]


def _request(name: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    san = x509.SubjectAlternativeName([x509.DNSName(name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(san, critical=False)
    return csr.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _names(world: Any, ca: str) -> list[tuple[str, ...]]:
    return [leaf.names for leaf in world.run(authorities.list_leaves(world.services, world.actor, ca))]


def test_each_line_of_a_table_has_its_own_answer(api: Any, web: SignIn, hierarchy: tuple[str, str, str]) -> None:
    me, low = web(api.world.actor), hierarchy[2]
    assert "names,common_name,days" in me.get(f"/authorities/{low}/batch").text
    table = (
        "names;common_name;days\nann@example.com;Ann;90\nbad name!;Eve <b>;\nc.example d.example;Cy;ten\n;Dan;\n;Di;0\n"
    )
    answer = me.form(f"/authorities/{low}/batch", {"content": table, "profile": "client", "days": "30"})
    assert "2 certificates were issued." in answer.text
    assert "3 were refused" in answer.text
    assert "&#39;ten&#39; isn&#39;t a number of days" in answer.text
    assert "<b>" not in answer.text.replace("<body", "")
    leaves = api.world.run(authorities.list_leaves(api.world.services, api.world.actor, low))
    lives = {leaf.subject: (leaf.not_after - leaf.issued_at).days for leaf in leaves}
    assert lives == {"CN=Ann": 89, "CN=Dan": 29}
    wrong = me.form(f"/authorities/{low}/batch", {"content": "ann@example.com,Ann"})
    assert (wrong.status_code, 'id="e-content-1"' in wrong.text) == (422, True)
    assert 'id="e-content-1"' in me.form(f"/authorities/{low}/batch", {"content": ""}).text
    assert web(api.world.other_actor).form(f"/authorities/{low}/batch", {"content": table}).status_code == 404


def test_files_with_requests_become_certificates_for_their_keys(
    api: Any, web: SignIn, hierarchy: tuple[str, str, str]
) -> None:
    me, low = web(api.world.actor), hierarchy[2]
    parts = [("content_file", (f"{n}.csr", _request(f"{n}.example").encode())) for n in ("a", "b", "c")]
    headers = {"sec-fetch-site": "same-origin", "cookie": me._headers({})["cookie"], "accept": "text/html"}
    answer = me.api.request(
        "POST", f"/authorities/{low}/batch", files=parts, data={"profile": "server", "content": ""}, headers=headers
    )
    assert "3 certificates were issued." in answer.text
    assert sorted(_names(api.world, low)) == [("a.example",), ("b.example",), ("c.example",)]
    key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
    refused = me.form(f"/authorities/{low}/batch", {"content": _request("d.example") + key, "profile": "server"})
    assert "a private key stays with its owner" in refused.text
    assert len(_names(api.world, low)) == 3


def test_a_kit_makes_its_ca_and_another_client_joins_it(api: Any, web: SignIn) -> None:
    me, world = web(api.world.actor), api.world
    nameless = me.form("/authorities/kit", {"place": "new", "common_name": "Ann"})
    assert (nameless.status_code, 'id="e-ca_name-1"' in nameless.text) == (422, True)
    first = me.form("/authorities/kit", {"place": "new", "ca_name": "Shop clients", "common_name": "Ann"})
    assert (first.headers["content-type"], first.headers["cache-control"]) == ("application/zip", "no-store")
    found = world.run(authorities.list_authorities(world.services, world.actor))
    ca = next(one for one in found if one.name == "Shop clients")
    page = me.get(f"/authorities/kit?ca={ca.id}").text
    assert f'<option value="{ca.id}" selected>' in page
    second = me.form(
        "/authorities/kit", {"place": "there", "authority_id": ca.id, "names": "bob@example.com", "days": "5"}
    )
    with zipfile.ZipFile(io.BytesIO(second.content)) as archive:
        assert {"ca.pem", "crl.pem", "bob_example.com.key", "bob_example.com.pfx"} <= set(archive.namelist())
    assert _names(world, ca.id)[0] == ("bob@example.com",)
    strange = {"place": "there", "authority_id": ca.id, "names": "eve@example.com"}
    assert web(world.other_actor).form("/authorities/kit", strange).status_code == 404
    assert me.form("/authorities/kit", strange, sec_fetch_site="cross-site").status_code == 403


def test_a_kind_is_described_changed_and_deleted(api: Any, web: SignIn) -> None:
    me = web(api.world.actor)
    form = {
        "name": "vpn", "max_days": "30", "names": "any", "usage_digital_signature": "yes", "usage_key_agreement": "yes",
        "extended_key_usage": "ipsec_ike", "extensions": "1.3.6.1.4.1.99999.2 DAJvaw== critical", "crl_url": "yes",
    }  # fmt: skip
    odd = me.form("/authorities/kinds/new", form | {"extensions": "1.3.6.1.4.1.99999.2"})
    assert (odd.status_code, 'id="e-extensions-1"' in odd.text) == (422, True)
    assert 'id="e-extended_key_usage-1"' in me.form("/authorities/kinds/new", form | {"extended_key_usage": "x"}).text
    assert me.form("/authorities/kinds/new", form).status_code == 303
    world = api.world
    (made,) = [k for k in world.run(authorities.list_profiles(world.services, world.actor)) if k.name == "vpn"]
    assert (made.body["key_usage"], made.body["aia_url"]) == (["digital_signature", "key_agreement"], False)
    assert made.body["extensions"] == [{"oid": "1.3.6.1.4.1.99999.2", "value": "DAJvaw==", "critical": True}]
    shown = me.get("/authorities/kinds/vpn").text
    assert "1.3.6.1.4.1.99999.2 DAJvaw== critical" in shown
    # The page gives back what it shows: saved unchanged, the kind is the same.
    assert me.form("/authorities/kinds/vpn", form | {"revision": str(made.revision)}).status_code == 303
    assert me.form("/authorities/kinds/vpn", form | {"revision": str(made.revision)}).status_code == 412
    (same,) = [k for k in world.run(authorities.list_profiles(world.services, world.actor)) if k.name == "vpn"]
    assert same.body == made.body

    async def saved_when_it_was_allowed() -> None:
        old = made.body | {"extensions": [{"oid": "2.5.29.46", "value": "MAA=", "critical": False}]}
        async with world.services.db.begin() as tx:
            await tx.execute(sa.update(ca_profiles).where(ca_profiles.c.name == "vpn").values(body=old))

    world.run(saved_when_it_was_allowed())
    for address in ("/authorities/kinds", "/authorities/kinds/vpn"):
        assert "the extension 2.5.29.46 is one that" in me.get(address).text
    assert "disabled" in me.get("/authorities/kinds/client").text
    assert "client_auth" in me.get("/authorities/kinds/new?from=client").text
    assert "Delete this kind?" in me.form("/authorities/kinds/vpn/delete", {"about": "vpn"}).text
    assert me.form("/authorities/kinds/vpn/delete", {"confirmed": "yes"}).status_code == 303
    assert me.get("/authorities/kinds/vpn").status_code == 404


def test_a_ca_is_exported_with_those_above_it(api: Any, web: SignIn, hierarchy: tuple[str, str, str]) -> None:
    me, world = web(api.world.actor), api.world
    file = me.get(f"/authorities/{hierarchy[2]}/chain")
    assert [one.subject for one in read_certificates(file.content)] == ["CN=Low", "CN=Middle", "CN=Top"]
    assert api.get(f"/api/v1/authorities/{hierarchy[2]}/chain").text == file.text
    assert [one.subject for one in read_certificates(me.get(f"/authorities/{hierarchy[0]}/chain").content)] == [
        "CN=Top"
    ]
    assert web(world.other_actor).get(f"/authorities/{hierarchy[2]}/chain").status_code == 404
    pending = CaRequest("Out", Subject(common_name="Out"), outside=True)
    out = world.run(authorities.create_authority(world.services, world.actor, pending))
    assert api.get(f"/api/v1/authorities/{out.id}/chain").status_code == 404


def test_a_ca_s_page_tells_who_made_its_key_with_whole_fingerprints(
    api: Any, web: SignIn, hierarchy: tuple[str, str, str]
) -> None:
    me, world, low = web(api.world.actor), api.world, hierarchy[2]
    me.form(f"/authorities/{low}/disable", {"confirmed": "yes"})
    page = me.get(f"/authorities/{low}").text
    assert page.index("Disabled</span>") < page.index("Made, with a new key")
    (event,) = _events(world, low)
    told = event.after or {}
    for name in ("spki_sha256", "sha256"):
        assert ":".join(told[name][i : i + 2] for i in range(0, 64, 2)).upper() in page


def _events(world: Any, authority_id: str) -> list[audit.AuditEvent]:
    async def read() -> list[audit.AuditEvent]:
        wanted = audit.Filter(action="ccm:ca:create", object_id=authority_id)
        return await access.people.audit_events(world.services, world.actor, wanted, limit=5)

    return list(world.run(read()))


def test_the_list_of_what_a_ca_issued_can_be_narrowed(api: Any, web: SignIn, hierarchy: tuple[str, str, str]) -> None:
    me, low = web(api.world.actor), hierarchy[2]
    me.form(f"/authorities/{low}/batch", {"content": "names\n" + "".join(f"u{n}@example.com\n" for n in range(25))})
    leaves = api.world.run(authorities.list_leaves(api.world.services, api.world.actor, low, limit=30))
    me.form(f"/authorities/{low}/issued/{leaves[-1].id}/revoke", {"confirmed": "yes", "reason": "superseded"})
    revoked = me.get(f"/authorities/{low}?revoked=yes").text
    assert (leaves[-1].names[0] in revoked, leaves[0].names[0] in revoked) == (True, False)
    rest = me.get(f"/authorities/{low}?revoked=no").text
    assert f"revoked=no&amp;after={leaves[19].id}" in rest
    assert "Nothing found" in me.get(f"/authorities/{low}?revoked=yes&q=nobody@example.com").text


def test_the_request_of_a_ca_elsewhere_is_signed(api: Any, web: SignIn, hierarchy: tuple[str, str, str]) -> None:
    me, middle = web(api.world.actor), hierarchy[1]
    form = {"place": "elsewhere", "common_name": "Warehouse", "path_len": "0", "permitted_dns": "wh.example"}
    assert 'id="e-parent_id-1"' in me.form("/authorities/new", form).text
    assert 'id="e-csr-1"' in me.form("/authorities/new", form | {"parent_id": middle}).text
    made = me.form("/authorities/new", form | {"parent_id": middle, "csr": _request("ignored.example")})
    place = made.headers["location"].partition("?")[0]
    assert place.startswith(f"/authorities/{middle}/issued/")
    shown = me.get(place).text
    assert "CN=Warehouse" in shown
    assert me.form(f"{place}/revoke", {"confirmed": "yes", "reason": "superseded"}).status_code == 303
    assert "Superseded" in me.get(place).text


def test_a_certificate_belongs_to_the_project_that_is_chosen(
    api: Any, web: SignIn, hierarchy: tuple[str, str, str]
) -> None:
    me, world, low = web(api.world.actor), api.world, hierarchy[2]
    assert "project_id" not in me.get(f"/authorities/{low}/issue").text
    other = world.run(access.people.create_project(world.services, world.actor, name="web"))
    for page in ("issue", "batch"):
        shown = me.get(f"/authorities/{low}/{page}").text
        assert f'<option value="{other.id}">' in shown
        assert f'<option value="{world.project_id}" selected>' in shown  # that of the CA
    form = {"profile": "client", "common_name": "Ann", "country": "DE", "project_id": other.id}
    assert me.form(f"/authorities/{low}/issue", form).status_code == 303
    (leaf,) = world.run(authorities.list_leaves(world.services, world.actor, low))
    assert (leaf.project_id, leaf.subject) == (other.id, "CN=Ann,C=DE")
