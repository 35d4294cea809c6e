"""The connector for dns-lexicon's providers, through its provider for PowerDNS against that API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from certwright.connectors.dns.lexicon import LexiconProvider, LexiconWriter
from certwright.connectors.dns.lexicon.connector import known_operators, run_worker
from certwright.kernel.problems import Invalid, InvalidFields
from certwright.platform.addresses import AddressGuard
from certwright.platform.egress import Egress, EgressProblem
from certwright.platform.resolver import Resolver
from tests.servers.ports import free_port
from tests.servers.powerdns import PowerDns, powerdns
from tests.validation.dns_writer_conformance import DnsWriterConformance, Subject, code_of, run, txt

ZONE = "lexicon.example"
GUARD = AddressGuard.of(["127.0.0.0/8"])


@pytest.fixture(scope="module")
def api() -> Iterator[PowerDns]:
    with powerdns(ZONE, {"good-key": True, "looking-only": False}) as service:
        yield service


def writer(url: str, key: str, zone: str = ZONE, *, guard: AddressGuard = GUARD, timeout: float = 20) -> LexiconWriter:
    provider = LexiconProvider(timeout=timeout)
    settings = provider.settings({"provider": "powerdns", "pdns_server": url})
    return provider.writer(Egress(Resolver([], guard=guard), guard), [zone], settings, key)


class TestLexicon(DnsWriterConformance):
    @pytest.fixture
    def subject(self, api: PowerDns) -> Subject:
        return Subject(
            zone=ZONE, writer=writer(api.url, "good-key"), txt=api.txt, cname=api.cname, put=api.put,
            wrong_secret=writer(api.url, "wrong"), unknown_key=writer(api.url, "auth_token=nobody"),
            not_permitted=writer(api.url, "looking-only"),
            not_listening=writer(f"http://127.0.0.1:{free_port()}", "good-key"),
            foreign_zone=writer(api.url, "good-key", "elsewhere.example"), foreign_name="_x.elsewhere.example",
            any_text=False, any_target=False, own_servers=False,
        )  # fmt: skip


def test_a_provider_that_hangs_is_killed_within_the_limit(api: PowerDns) -> None:
    with powerdns(ZONE, {"good-key": True}) as silent:
        silent.hang = True
        slow = writer(silent.url, "good-key", timeout=3)
        assert code_of(slow.check_credentials()) == "dns_update_unreachable"


def test_an_operator_at_a_forbidden_address_is_never_contacted(api: PowerDns) -> None:
    before = len(api.requests)
    with pytest.raises(EgressProblem) as caught:
        run(writer(api.url, "good-key", guard=AddressGuard()).add(txt(f"_a.{ZONE}", "v", 300)))
    assert caught.value.code == "egress_denied"
    assert len(api.requests) == before


def test_many_operators_can_be_reached_and_each_says_what_it_lacks() -> None:
    said = run(run_worker({"operation": "providers"}, 30))
    assert {"cloudflare", "aliyun", "ovh", "hetzner", "powerdns"} <= {
        n for n, there in said["providers"].items() if there
    }
    lacking = next(name for name, there in said["providers"].items() if not there)
    egress = Egress(Resolver([], guard=GUARD), GUARD)
    other = LexiconWriter(egress, lacking, (ZONE,), {}, timeout=20)
    assert code_of(other.check_credentials()) == "lexicon_missing"
    unknown = LexiconWriter(egress, "nosuchoperator", (ZONE,), {}, timeout=20)
    assert code_of(unknown.check_credentials()) == "lexicon_missing"


def test_options_a_provider_does_not_get_are_a_failure_without_its_words() -> None:
    egress = Egress(Resolver([], guard=GUARD), GUARD)
    bare = LexiconWriter(egress, "powerdns", (ZONE,), {"auth_token": "geheim"}, timeout=20)
    with pytest.raises(Exception, match="powerdns didn't do it") as caught:
        run(bare.check_credentials())
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "field", "code"),
    [
        ({}, "settings.provider", "lexicon_provider_invalid"),
        ({"provider": "localzone"}, "settings.provider", "lexicon_provider_invalid"),
        ({"provider": "../evil"}, "settings.provider", "lexicon_provider_invalid"),
        ({"provider": "auto"}, "settings.provider", "lexicon_provider_invalid"),
        ({"provider": "cloudflare", "Bad Name": "x"}, "settings.Bad Name", "setting_unknown"),
        ({"provider": "cloudflare", "auth_key_id": "x"}, "settings.auth_key_id", "setting_unknown"),
        ({"provider": "cloudflare", "auth_token": "x"}, "settings.auth_token", "lexicon_option_secret"),
        ({"provider": "cloudflare", "zone_id": ["x"]}, "settings.zone_id", "lexicon_option_invalid"),
        ({"provider": "ovh", "auth_entrypoint": "mars"}, "settings.auth_entrypoint", "lexicon_option_invalid"),
        ({"provider": "powerdns", "pdns_server": "/run/pdns.sock"}, "settings.pdns_server", "lexicon_option_is_path"),
        ({"provider": "powerdns", "pdns_server": "file:///etc"}, "settings.pdns_server", "lexicon_option_is_path"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_field(given: dict[str, Any], field: str, code: str) -> None:
    with pytest.raises(InvalidFields) as caught:
        LexiconProvider().settings(given)
    assert (caught.value.field, caught.value.code) == (field, code)


def test_a_misspelt_operator_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvalidFields) as caught:
        LexiconProvider().settings({"provider": "cloudflair"})
    assert "cloudflare" in caught.value.fix


@pytest.mark.parametrize(
    ("provider", "secret"),
    [
        ("cloudflare", ""),
        ("cloudflare", " \n "),
        ("cloudflare", "one\ntwo"),
        ("cloudflare", "auth_token=a\nno pair"),
        ("cloudflare", "auth_username=geheim"),
        ("porkbun", "geheim-alone"),
        ("porkbun", "auth_key=geheim\nauth_token=geheim"),
    ],
)
def test_a_secret_that_cannot_be_one_is_refused_without_repeating_it(provider: str, secret: str) -> None:
    with pytest.raises(Invalid) as caught:
        LexiconProvider().check_secret(secret, {"provider": provider})
    assert caught.value.code == "lexicon_secret_invalid"
    said = caught.value.message + str(caught.value.fix)
    assert "geheim" not in said
    assert "auth_" in said


@pytest.mark.parametrize(
    ("provider", "secret", "options"),
    [
        ("hetzner", "abc=def", {"auth_token": "abc=def"}),
        ("godaddy", "auth_key=a\nauth_secret=b=c", {"auth_key": "a", "auth_secret": "b=c"}),
        ("inwx", "pass word", {"auth_password": "pass word"}),
        ("ultradns", "auth_username=u\nauth_password=p", {"auth_username": "u", "auth_password": "p"}),
        ("cloudflare", "tok", {"auth_token": "tok"}),
    ],
)
def test_a_secret_becomes_the_options_of_its_operator(provider: str, secret: str, options: dict[str, str]) -> None:
    made = LexiconProvider()
    made.check_secret(secret, {"provider": provider})
    egress = Egress(Resolver([], guard=GUARD), GUARD)
    assert made.writer(egress, [ZONE], {"provider": provider}, secret).options == options


def test_the_operators_and_options_offered_are_those_of_the_package() -> None:
    """Fails when a new release of dns-lexicon brings or takes any: then operators.txt is brought up to date."""
    said = run(run_worker({"operation": "providers"}, 30))["options"]
    left_out = {"auto", "ddns", "localzone"}
    files = {"auth_config_file", "auth_key_file", "auth_profile"}
    offered = {name: {field.name for field in one.fields} for name, one in known_operators().items()}
    assert offered == {name: set(options) - files for name, options in said.items() if name not in left_out}


def test_every_operator_has_something_secret_to_ask_for_and_a_title_of_its_own() -> None:
    operators = known_operators().values()
    assert all(any(field.secret for field in operator.fields) for operator in operators)
    assert len({operator.title for operator in operators}) == len(operators) == len({o.key for o in operators})


def test_what_is_typed_into_secret_fields_becomes_one_secret() -> None:
    known = known_operators()
    assert known["hetzner"].secret({"auth_token": "t", "zone": "x"}) == "t"
    assert known["porkbun"].secret({"auth_key": "k", "auth_secret": "s"}) == "auth_key=k\nauth_secret=s"
    assert known["porkbun"].secret({}) == ""
