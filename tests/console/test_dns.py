"""DNS connections, the check-it tool and the ledger on their pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from certwright.platform.config import Settings
from tests.servers.dns import DnsServer, authoritative, zone_text
from tests.servers.hostile_http import Handler, HostileHttp, answer, hostile_http
from tests.servers.ports import free_port
from tests.servers.powerdns import powerdns
from tests.validation.servers import require

SignIn = Callable[[Any], Any]
VALUE = "certwright-validation=abcdefgh"


@pytest.fixture
def dns_port() -> int:
    return free_port("127.0.0.1")


@pytest.fixture
def routes() -> dict[str, Handler]:
    return {}


@pytest.fixture
def site(routes: dict[str, Handler]) -> Iterator[HostileHttp]:
    with hostile_http(routes) as running:
        yield running


@pytest.fixture
def dns(dns_port: int, tmp_path: Path) -> Iterator[DnsServer]:
    require("knotd")
    zone = zone_text("page.test", [f'good TXT "{VALUE}"', 'old TXT "x"', '@ CAA 0 issue "ca.other.test"'])
    with authoritative(tmp_path / "knot", {"page.test": zone}, port=dns_port) as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, worker_database: str, dns_port: int, site: HostileHttp) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", database_url=worker_database, database_pool=8, public_url="https://cw.example",
        allowed_networks=("127.0.0.0/8",), dns_servers=(f"127.0.0.1:{dns_port}",), dns_authoritative_port=dns_port,
        validation_http_port=site.port,
    )  # fmt: skip


def plain(answer: Any) -> str:
    return str(answer.text).replace("&#39;", "'").replace("&#34;", '"')


def field_of(page: Any, name: str) -> str:
    found = re.search(rf'<input[^>]*name="{name}"[^>]*>', page.text)
    assert found is not None, name
    return found[0]


def test_every_operator_can_be_chosen_and_is_asked_for_its_own_fields(api: Any, web: SignIn) -> None:
    ann = web(api.world.actor)
    first = ann.get("/dns/new")
    assert 'value="lexicon.cloudflare"' in first.text
    assert 'value="huawei"' in first.text
    assert 'type="text"' in field_of(first, "key_name")
    chosen = ann.get("/dns/new?operator=lexicon.ovh")
    assert "OVHcloud" in chosen.text
    for name in ("auth_application_secret", "auth_consumer_key"):
        assert 'type="password"' in field_of(chosen, name)
    assert 'type="text"' in field_of(chosen, "auth_application_key")
    assert '<option value="ovh-ca">' in chosen.text
    assert 'name="access_key"' in ann.get("/dns/new?operator=huawei").text


def test_a_connection_to_an_operator_is_made_tested_edited_and_never_shows_its_secret(api: Any, web: SignIn) -> None:
    ann = web(api.world.actor)
    with powerdns("page.test", {"hush-hush-key": True}) as operator:
        made = ann.form("/dns/new", {
            "operator": "lexicon.powerdns", "name": "Hosted", "zones": "page.test", "auth_token": "hush-hush-key",
            "pdns_server": operator.url,
        })  # fmt: skip
        assert made.status_code == 303
        shown = ann.get("/dns")
        assert "PowerDNS (HTTP API)" in shown.text
        assert "Works" in shown.text
        edit = re.findall(r"/dns/dns_[a-z0-9]+/edit", shown.text)[0]
        page = ann.get(edit)
        assert operator.url in field_of(page, "pdns_server")
        assert "value=" not in field_of(page, "auth_token")
        revision = re.findall(r'name="revision" value="(\d+)"', page.text)[0]
        changed = {"name": "Hosted there", "zones": "page.test", "pdns_server": operator.url, "revision": revision}
        assert ann.form(edit, changed).status_code == 303
        again = ann.get("/dns")
        assert "Hosted there" in again.text
        assert "Works" in again.text
        operator.keys.clear()
        assert ann.form(edit.replace("/edit", "/check")).status_code == 303
        refused = ann.get("/dns")
        assert "powerdns doesn't accept the credentials" in plain(refused)
        assert all("hush-hush-key" not in seen.text for seen in (shown, page, again, refused))


@pytest.mark.parametrize(
    ("fields", "at", "said"),
    [
        ({"operator": "lexicon.porkbun"}, "auth_key", "a line for each of auth_key=… and auth_secret=…"),
        ({"operator": "lexicon.powerdns", "auth_token": "hush-hush", "pdns_server": "/run/x"}, "pdns_server", "a path"),
        ({"operator": "huawei", "secret": "hush-hush-hush-hush"}, "access_key", "access key (AK)"),
        ({"operator": "huawei", "access_key": "ABCDEFGH1", "secret": "hush-hush"}, "secret", "secret key (SK)"),
        (
            {"operator": "rfc2136", "server": "ns1.page.test", "key_name": "k", "secret": "hush-hush"},
            "secret",
            "base 64",
        ),
    ],
)
def test_what_an_operator_needs_and_does_not_get_is_said_at_its_field(
    api: Any, web: SignIn, fields: dict[str, str], at: str, said: str
) -> None:
    refused = web(api.world.actor).form("/dns/new", {"name": "x", "zones": "page.test", **fields})
    assert refused.status_code == 422
    assert said in plain(refused)
    assert "is-invalid" in field_of(refused, at)
    assert "hush-hush" not in refused.text


def test_the_tool_looks_a_record_up_and_shows_what_each_server_said(api: Any, web: SignIn, dns: DnsServer) -> None:
    ann = web(api.world.actor)
    good = ann.form(
        "/dns/check", {"what": "dns", "record_name": "good.page.test", "type": "TXT", "value": f'"{VALUE}"'}
    )
    assert "was found at 1 server of page.test" in plain(good)
    assert f"ns1.page.test (127.0.0.1 port {dns.port})" in good.text
    wrong = ann.form("/dns/check", {"what": "dns", "record_name": "old.page.test", "value": VALUE})
    assert "has another TXT value: 'x'" in plain(wrong)
    assert "old.page.test" in field_of(wrong, "record_name")
    barred = ann.form(
        "/dns/check",
        {"what": "dns", "record_name": "good.page.test", "value": VALUE, "record_ca": "letsencrypt.org"},
    )
    assert "let only ca.other.test issue" in plain(barred)
    caa = ann.form("/dns/check", {"what": "caa", "caa_name": "page.test", "ca_identifiers": "ca.other.test"})
    assert "permit ca.other.test" in plain(caa)
    assert 'page.test. CAA 0 issue "ca.other.test"' in plain(caa)


def test_the_tool_fetches_a_file_and_shows_its_first_bytes(
    api: Any, web: SignIn, site: HostileHttp, routes: dict[str, Handler]
) -> None:
    routes["/.well-known/pki-validation/a.txt"] = answer(200, b"<script>our shop")
    asked = {"what": "file", "host": "site.localhost", "file_name": "a.txt", "content": VALUE}
    page = web(api.world.actor).form("/dns/check", asked)
    assert "its content begins with '<script>our shop'" in plain(page).replace("&lt;", "<").replace("&gt;", ">")
    assert "<script>our shop" not in page.text


def test_what_the_tool_cannot_look_up_is_said_at_its_field(api: Any, web: SignIn) -> None:
    page = web(api.world.actor).form("/dns/check", {"what": "dns", "record_name": "a..b", "value": "x"})
    assert page.status_code == 422
    assert 'role="alert"' in page.text


def test_the_ledger_shows_what_was_seen_where_and_until_when_it_counts(
    api: Any, web: SignIn, site: HostileHttp, routes: dict[str, Handler]
) -> None:
    from tests.validation.test_room import only, require_names

    world = api.world
    require_names(world, "app_ledger", "site.localhost", method="file")
    file = only(world, "app_ledger").file
    assert file is not None
    routes[file.path] = answer(200, file.content.encode())
    world.drain()
    ann = web(world.actor)
    page = ann.get("/dns/evidence")
    assert "site.localhost" in page.text
    assert "The file was found at" in page.text
    assert "Built-in private CA" in page.text
    assert "No evidence of this domain" in ann.get("/dns/evidence?domain=other.test").text
    assert "site.localhost" not in web(world.other_actor).get("/dns/evidence").text
