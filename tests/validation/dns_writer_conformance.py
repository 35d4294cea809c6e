"""What every DnsWriter must do, whatever operator stands behind it. A connector's test subclasses this against a real
server and supplies `subject`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from certwright.kernel.problems import Problem
from certwright.rooms.validation import DnsRecord, DnsWriter


@dataclass(frozen=True)
class Subject:
    """A writer for `zone` and a way to see what the zone really holds.

    `txt(name)` gives values and TTL at the server, `cname(name)` the target without its dot; `put(name, type, data,
    ttl)` plants a record behind the writer's back; the other writers are the same connection with one thing wrong.
    """

    zone: str
    writer: DnsWriter
    txt: Callable[[str], tuple[set[str], int | None]]
    cname: Callable[[str], str | None]
    put: Callable[[str, str, str, int], None]
    wrong_secret: DnsWriter
    unknown_key: DnsWriter
    not_permitted: DnsWriter
    not_listening: DnsWriter
    foreign_zone: DnsWriter
    foreign_name: str
    any_text: bool = True
    """Whether every text can be published; else such a value is refused as dns_value_not_plain."""
    any_target: bool = True
    """Whether a CNAME may lead out of the zone; else such a one is refused as dns_update_changed."""
    own_servers: bool = True
    """Whether the operator has a server where a record can be seen at once."""


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


def code_of(coroutine: Coroutine[Any, Any, Any]) -> str:
    with pytest.raises(Problem) as caught:
        run(coroutine)
    assert caught.value.fix
    return caught.value.code


def txt(name: str, value: str, ttl: int = 300) -> DnsRecord:
    return DnsRecord(name, "TXT", value, ttl)


class DnsWriterConformance:
    """Inherit in a class named Test…, with a fixture `subject`."""

    def test_a_value_added_is_served(self, subject: Subject) -> None:
        name = f"_a.{subject.zone}"
        run(subject.writer.add(txt(name, "one", 120)))
        assert subject.txt(name) == ({"one"}, 120)

    def test_adding_twice_leaves_one_value(self, subject: Subject) -> None:
        name = f"_twice.{subject.zone}"
        for _ in range(2):
            run(subject.writer.add(txt(name, "same", 300)))
        assert subject.txt(name)[0] == {"same"}

    def test_other_values_and_their_ttl_are_left_alone(self, subject: Subject) -> None:
        name = f"shared.{subject.zone}"
        subject.put(name, "TXT", '"v=spf1 -all"', 3600)
        run(subject.writer.add(txt(name, "ours", 60)))
        assert subject.txt(name) == ({"v=spf1 -all", "ours"}, 3600)
        run(subject.writer.remove(txt(name, "ours")))
        assert subject.txt(name) == ({"v=spf1 -all"}, 3600)

    def test_two_of_our_values_live_side_by_side(self, subject: Subject) -> None:
        name = f"_two.{subject.zone}"
        run(subject.writer.add(txt(name, "first", 300)))
        run(subject.writer.add(txt(name, "second", 300)))
        run(subject.writer.remove(txt(name, "first")))
        assert subject.txt(name)[0] == {"second"}

    def test_removing_what_is_not_there_is_no_error(self, subject: Subject) -> None:
        run(subject.writer.remove(txt(f"_never.{subject.zone}", "x")))
        assert subject.txt(f"_never.{subject.zone}")[0] == set()

    def test_the_apex_of_the_zone_can_hold_a_value(self, subject: Subject) -> None:
        run(subject.writer.add(txt(subject.zone, "at-apex", 300)))
        assert "at-apex" in subject.txt(subject.zone)[0]
        run(subject.writer.remove(txt(subject.zone, "at-apex")))
        assert "at-apex" not in subject.txt(subject.zone)[0]

    def test_the_values_of_cas_and_of_ours_arrive_as_they_are(self, subject: Subject) -> None:
        name = f"_usual.{subject.zone}"
        for value in ("certwright-validation=xsyp4pjzhbyzxuri32msupmqbotephqy", "u7-J_Qx0aBc" + "z" * 32, "=a="):
            run(subject.writer.add(txt(name, value, 300)))
            assert value in subject.txt(name)[0]
            run(subject.writer.remove(txt(name, value)))
            assert value not in subject.txt(name)[0]

    @pytest.mark.parametrize("value", ['with "quotes" and \\ backslash', "x" * 600, "ümläut", "a;b=c"])
    def test_awkward_values_arrive_as_they_are(self, subject: Subject, value: str) -> None:
        name = f"_awkward.{subject.zone}"
        if not subject.any_text:
            assert code_of(subject.writer.add(txt(name, value, 300))) == "dns_value_not_plain"
            assert subject.txt(name)[0] == set()
            return
        run(subject.writer.add(txt(name, value, 300)))
        assert value in subject.txt(name)[0]
        run(subject.writer.remove(txt(name, value)))
        assert value not in subject.txt(name)[0]

    def test_a_cname_in_the_way_is_told_and_nothing_is_added(self, subject: Subject) -> None:
        name = f"alias.{subject.zone}"
        subject.put(name, "CNAME", f"www.{subject.zone}.", 300)
        assert code_of(subject.writer.add(txt(name, "v", 300))) == "dns_update_cname"
        assert subject.txt(name)[0] == set()

    def test_a_cname_is_added_once_and_removed(self, subject: Subject) -> None:
        record = DnsRecord(f"_0a1b.shop.{subject.zone}", "CNAME", "Abc234.certwright.invalid", 300)
        if not subject.any_target:
            assert code_of(subject.writer.add(record)) == "dns_update_changed"
            assert subject.cname(record.name) is None
            record = DnsRecord(record.name, "CNAME", f"Abc234.{subject.zone}", 300)
        for _ in range(2):
            run(subject.writer.add(record))
            assert subject.cname(record.name) == record.value.lower()
        run(subject.writer.remove(record))
        assert subject.cname(record.name) is None
        run(subject.writer.remove(record))

    def test_a_cname_that_leads_elsewhere_stays_and_is_told(self, subject: Subject) -> None:
        name = f"_led.{subject.zone}"
        subject.put(name, "CNAME", f"other.{subject.zone}.", 300)
        ours = DnsRecord(name, "CNAME", "abc.certwright.invalid")
        assert code_of(subject.writer.add(ours)) == "dns_update_cname"
        run(subject.writer.remove(ours))
        assert subject.cname(name) == f"other.{subject.zone}"

    def test_a_cname_is_not_added_beside_other_records(self, subject: Subject) -> None:
        name = f"_full.{subject.zone}"
        subject.put(name, "TXT", '"kept"', 300)
        assert (
            code_of(subject.writer.add(DnsRecord(name, "CNAME", "abc.certwright.invalid"))) == "dns_update_name_taken"
        )
        assert (subject.txt(name)[0], subject.cname(name)) == ({"kept"}, None)

    def test_names_belong_to_the_longest_zone_or_none(self, subject: Subject) -> None:
        assert subject.writer.zone_for(f"a.b.{subject.zone}") == subject.zone
        assert subject.writer.zone_for(subject.zone.upper() + ".") == subject.zone
        assert subject.writer.zone_for(f"not{subject.zone}") is None
        assert code_of(subject.writer.add(txt(f"not{subject.zone}", "v", 300))) == "dns_update_not_zone"

    def test_good_credentials_are_confirmed_without_a_change(self, subject: Subject) -> None:
        before = subject.txt(subject.zone)
        run(subject.writer.check_credentials())
        assert subject.txt(subject.zone) == before

    def test_where_a_record_can_be_seen_is_told(self, subject: Subject) -> None:
        servers = run(subject.writer.servers())
        assert bool(servers) is subject.own_servers
        assert all(server.port for server in servers)

    @pytest.mark.parametrize("operation", ["check", "add", "remove"])
    @pytest.mark.parametrize(
        ("which", "code"),
        [
            ("wrong_secret", "dns_update_bad_key"),
            ("unknown_key", "dns_update_bad_key"),
            ("not_permitted", "dns_update_refused"),
            ("not_listening", "dns_update_unreachable"),
            ("foreign_zone", "dns_update_not_zone"),
        ],
    )
    def test_every_failure_has_its_code(self, subject: Subject, which: str, code: str, operation: str) -> None:
        writer: DnsWriter = getattr(subject, which)
        name = subject.foreign_name if which == "foreign_zone" else f"_fail.{subject.zone}"
        calls = {
            "check": writer.check_credentials,
            "add": lambda: writer.add(txt(name, "v", 300)),
            "remove": lambda: writer.remove(txt(name, "v")),
        }
        said = code_of(calls[operation]())
        assert said == code
