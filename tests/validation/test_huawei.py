"""The connector for Huawei Cloud DNS against a server that keeps to its published interface."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from certwright.connectors.dns.huawei import HuaweiProvider, HuaweiWriter
from certwright.kernel.problems import Invalid, InvalidFields
from certwright.platform.addresses import AddressGuard
from certwright.platform.egress import Egress, EgressProblem
from certwright.platform.resolver import Resolver
from tests.servers.huawei_dns import HuaweiDns, huawei_dns
from tests.servers.ports import free_port
from tests.validation.dns_writer_conformance import DnsWriterConformance, Subject, code_of, run, txt

ZONE = "huawei.example"
GUARD = AddressGuard.of(["127.0.0.0/8"])
AK, SK = "AKEXAMPLE00001", "sk-of-the-first-key-0123456789"
KEYS = {AK: (SK, True), "LOOKINGONLY01": (SK, False)}


@pytest.fixture(scope="module")
def api() -> Iterator[HuaweiDns]:
    with huawei_dns(ZONE, KEYS) as service:
        yield service


def writer(
    url: str, key: str = AK, secret: str = SK, zone: str = ZONE, *, guard: AddressGuard = GUARD, **changes: Any
) -> HuaweiWriter:
    provider = HuaweiProvider(**changes)
    # Straight to the writer: settings take https only, and the server here speaks http.
    return provider.writer(
        Egress(Resolver([], guard=guard), guard), [zone], {"access_key": key, "endpoint": url}, secret
    )


class TestHuawei(DnsWriterConformance):
    @pytest.fixture
    def subject(self, api: HuaweiDns) -> Subject:
        return Subject(
            zone=ZONE, writer=writer(api.url), txt=api.txt, cname=api.cname, put=api.put,
            wrong_secret=writer(api.url, secret="another-secret-key-0123456789"),
            unknown_key=writer(api.url, "NOBODYKNOWS001"), not_permitted=writer(api.url, "LOOKINGONLY01"),
            not_listening=writer(f"http://127.0.0.1:{free_port()}"),
            foreign_zone=writer(api.url, zone="elsewhere.example"), foreign_name="_x.elsewhere.example",
            any_text=False, own_servers=False,
        )  # fmt: skip


def test_a_value_that_another_writer_swept_away_is_written_once_more(api: HuaweiDns) -> None:
    api.lost_writes = 1
    run(writer(api.url).add(txt(f"_raced.{ZONE}", "ours", 300)))
    assert api.txt(f"_raced.{ZONE}")[0] == {"ours"}
    api.lost_writes = 9
    assert code_of(writer(api.url).add(txt(f"_lost.{ZONE}", "ours", 300))) == "dns_update_failed"
    assert code_of(writer(api.url).remove(txt(f"_raced.{ZONE}", "ours"))) == "dns_update_failed"
    api.lost_writes = 0


def test_a_clock_that_is_wrong_is_told_as_a_key_that_is_not_accepted(api: HuaweiDns) -> None:
    slow = writer(api.url, now=lambda: datetime.now(UTC) - timedelta(hours=1))
    assert code_of(slow.check_credentials()) == "dns_update_bad_key"


def test_an_endpoint_on_a_forbidden_network_is_never_contacted(api: HuaweiDns) -> None:
    before = len(api.requests)
    with pytest.raises(EgressProblem) as caught:
        run(writer(api.url, guard=AddressGuard()).check_credentials())
    assert caught.value.code == "egress_denied"
    assert len(api.requests) == before


def test_settings_are_completed() -> None:
    assert HuaweiProvider().settings({"access_key": AK}) == {
        "access_key": AK, "endpoint": "https://dns.myhuaweicloud.com",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "field", "code"),
    [
        ({}, "settings.access_key", "huawei_access_key_invalid"),
        ({"access_key": "a b"}, "settings.access_key", "huawei_access_key_invalid"),
        ({"access_key": AK, "endpoint": "http://dns.example"}, "settings.endpoint", "huawei_endpoint_invalid"),
        ({"access_key": AK, "endpoint": "https://dns.example/v2"}, "settings.endpoint", "huawei_endpoint_invalid"),
        ({"access_key": AK, "region": "x"}, "settings.region", "setting_unknown"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_field(given: dict[str, Any], field: str, code: str) -> None:
    with pytest.raises(InvalidFields) as caught:
        HuaweiProvider().settings(given)
    assert (caught.value.field, caught.value.code) == (field, code)


@pytest.mark.parametrize("secret", ["", "short", "ü" * 20])
def test_a_secret_that_cannot_be_one_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(Invalid) as caught:
        HuaweiProvider().check_secret(secret, {})
    assert caught.value.code == "huawei_secret_invalid"
    assert not secret or secret not in caught.value.message
