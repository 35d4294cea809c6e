"""Orders at a CA that sells and does what the test says: late, double, wrong, lost and missing answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.ids import new_id
from certwright.kernel.money import Money
from certwright.kernel.problems import Invalid, InvalidFields, Problem, Unavailable
from certwright.platform.config import Settings
from certwright.rooms import billing, cas, certificates, organisations
from certwright.rooms.certificates import (
    Applicant,
    Application,
    Cancelled,
    CertificateOrder,
    CertificateType,
    Issued,
    Needs,
    Pending,
    Rejected,
    RevocationReason,
    State,
    TooLate,
)
from certwright.rooms.organisations.tables import organisation_cases
from certwright.rooms.validation import Method
from certwright.x509.certificates import read_certificate
from certwright.x509.csr import make_csr
from certwright.x509.keys import KeyAlgorithm, generate, spki_sha256
from tests.cas import work
from tests.cas.site import Site, site
from tests.certificates.ca_conformance import Subject
from tests.conftest import Api, World
from tests.servers.certcentral import FakeCertCentral, Reply, error, fake_certcentral

ROOT = Path(__file__).parents[2]
NAME = "shop.demo.localhost"
CONTACT = Applicant("Ada Lovelace", "ada@example.com", "+442079460000")
FACTS = {
    "kind": "company", "legal_name": "Example Widgets Ltd", "registration_number": "123", "jurisdiction_country": "GB",
    "jurisdiction_region": "", "street": "1 High Street", "city": "London", "province": "London",
    "postal_code": "N1 1AA", "country": "GB", "phone": "+442079460000", "phone_source": "directory",
}  # fmt: skip


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path / "site") as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, worker_database: str, web: Site) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", database_url=worker_database, database_pool=8, public_url="https://cw.example",
        allowed_networks=("127.0.0.0/8", "::1/128"), validation_http_port=web.port,
    )  # fmt: skip


@pytest.fixture
def ca(world: World) -> Iterator[FakeCertCentral]:
    with fake_certcentral() as running:
        running.now = world.clock.now
        yield running


class Shop:
    """The CA as the certificates room finds it, and orders at it."""

    def __init__(self, world: World, ca: FakeCertCentral, **changes: Any) -> None:
        self.world, self.ca = world, ca
        self.added = work.add_shop(world, ca, **changes)
        self._subject = Subject(world, self.added.id, (NAME,), lambda wanted: None)

    @property
    def authority(self) -> Any:
        return self._subject.authority

    def order(self, *names: str, method: str = "dns", **changes: Any) -> CertificateOrder:
        wanted = names or (NAME,)
        values: dict[str, Any] = {
            "reference": new_id("app", self.world.clock.now()), "account_id": self.world.account.id,
            "project_id": self.world.project_id, "names": wanted,
            "csr_der": make_csr(generate(KeyAlgorithm.EC_P256), wanted), "methods": dict.fromkeys(wanted, method),
        } | changes  # fmt: skip
        return CertificateOrder(**values)

    def organised(self, *names: str, kind: CertificateType = CertificateType.OV, **changes: Any) -> CertificateOrder:
        return self.order(*names, certificate_type=kind, organisation=FACTS, contact=CONTACT, **changes)

    def submit(self, order: CertificateOrder) -> str:
        return str(self.world.run(self.authority.submit(order)))

    def collect(self, order_id: str) -> Any:
        return self.world.run(self.authority.collect(order_id, self.world.account.id))

    def cancel(self, order_id: str) -> Any:
        return self.world.run(self.authority.cancel(order_id, self.world.account.id))

    def revoke(self, leaf_der: bytes) -> None:
        self.world.run(self.authority.revoke(leaf_der, RevocationReason.SUPERSEDED, self.world.account.id))

    def proceed(self, order_id: str) -> None:
        self.world.run(self.authority.proceed(order_id, self.world.account.id))

    def show(self, order_id: str) -> Needs:
        """Publish what the CA wants to see, and give our leave."""
        needs = self.collect(order_id)
        assert isinstance(needs, Needs), needs
        for wanted in needs.wanted:
            self.ca.published[wanted.name] = wanted.value
        self.proceed(order_id)
        return needs

    def issued(self, order: CertificateOrder) -> Issued:
        order_id = self.submit(order)
        if isinstance(self.collect(order_id), Needs):
            self.show(order_id)
        for _ in range(5):
            found = self.collect(order_id)
            if isinstance(found, Issued):
                return found
            assert isinstance(found, Pending), found
        raise AssertionError("it takes too long")

    def bought(self) -> list[str]:
        """States of all orders at the CA."""
        return [order.status for order in self.ca.orders.values()]


@pytest.fixture
def shop(world: World, ca: FakeCertCentral) -> Shop:
    return Shop(world, ca)


def raised(call: Any, *arguments: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        call(*arguments)
    return caught.value


# --- what is ordered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "names", "product"),
    [
        (CertificateType.DV, (NAME,), "ssl_dv_geotrust"),
        (CertificateType.DV, ("*.demo.localhost",), "wildcard_dv_geotrust"),
        (CertificateType.DV, (NAME, "other.demo.localhost"), "cloud_dv_geotrust"),
        (CertificateType.OV, (NAME, "*.demo.localhost"), "ssl_basic"),
        (CertificateType.EV, (NAME,), "ssl_ev_basic"),
    ],
)
def test_type_and_names_choose_the_product(
    shop: Shop, kind: CertificateType, names: tuple[str, ...], product: str
) -> None:
    shop.submit(shop.organised(*names, kind=kind))
    (order,) = shop.ca.orders.values()
    assert order.product == product
    assert order.first.names == list(names)
    assert (order.organisation is None) == (kind is CertificateType.DV)


def test_a_product_can_be_set_and_unset(world: World, ca: FakeCertCentral) -> None:
    ca.products["ssl_dv_plain"] = "Plain"
    shop = Shop(world, ca, settings={"products": {"dv/single": "ssl_dv_plain", "dv/multi": ""}})
    shop.submit(shop.order())
    assert [order.product for order in ca.orders.values()] == ["ssl_dv_plain"]
    assert raised(shop.submit, shop.order(NAME, "b.demo.localhost")).code == "ca_not_sold"
    assert len(ca.orders) == 1


def test_a_txt_record_is_wanted_at_the_name_and_for_a_wildcard_below_it(shop: Shop) -> None:
    names = ("a.demo.localhost", "*.demo.localhost")
    needs = shop.collect(shop.submit(shop.order(*names)))
    (order,) = shop.ca.orders.values()
    assert order.method == "dns-txt-token"
    assert [(w.name, w.method, w.place, w.value, w.record_type) for w in needs.wanted] == [
        ("a.demo.localhost", Method.DNS, "a.demo.localhost", order.token, "TXT"),
        ("*.demo.localhost", Method.DNS, "demo.localhost", order.token, "TXT"),
    ]
    assert needs.wanted[0].until == order.token_until


def test_a_cname_record_can_be_chosen(world: World, ca: FakeCertCentral) -> None:
    shop = Shop(world, ca, settings={"dns_record": "CNAME"})
    order_id = shop.submit(shop.order())
    (wanted,) = shop.show(order_id).wanted
    (order,) = ca.orders.values()
    assert (wanted.place, wanted.record_type) == (f"_dnsauth.{NAME}", "CNAME")
    assert wanted.value == f"{order.token}.dcv.digicert.com"
    assert isinstance(shop.collect(order_id), Pending)
    assert isinstance(shop.collect(order_id), Issued)


def test_by_mail_there_is_nothing_to_publish_and_the_mailboxes_are_waited_for(shop: Shop) -> None:
    order_id = shop.submit(shop.order(method="email"))
    assert shop.show(order_id) == Needs(())
    waiting = shop.collect(order_id)
    assert waiting.why.code == "ca_mail_unanswered"
    assert NAME in waiting.why.message
    (order,) = shop.ca.orders.values()
    shop.ca.answer_mail(order)
    assert isinstance(shop.collect(order_id), Issued)


def test_different_methods_in_one_order_are_refused_before_anything_is_bought(shop: Shop) -> None:
    order = shop.order(NAME, "b.demo.localhost", methods={NAME: "file", "b.demo.localhost": "dns"})
    assert raised(shop.submit, order).code == "ca_methods_mixed"
    assert shop.ca.seen == []


# --- one order, whatever happens -------------------------------------------------------------------------------------


def test_an_order_whose_answer_was_lost_is_found_again_by_our_reference(shop: Shop) -> None:
    shop.ca.lost["order"] = 1
    order = shop.order()
    assert isinstance(raised(shop.submit, order), Unavailable)
    order_id = shop.submit(order)
    assert shop.bought() == ["pending"]
    assert isinstance(shop.collect(order_id), Needs)


def test_after_a_lost_answer_nothing_is_ordered_before_the_ca_had_time_to_settle(shop: Shop) -> None:
    shop.ca.in_the_way["order"].append(Reply(502, b"<html>bad gateway</html>"))
    order = shop.order()
    assert raised(shop.submit, order).code == "ca_busy"
    settling = raised(shop.submit, order)
    assert settling.code == "ca_order_settling"
    assert 0 < settling.extra["retry_after"] <= 121
    assert len(shop.ca.requests("order")) == 1
    shop.world.later(minutes=3)
    shop.submit(order)
    assert shop.bought() == ["pending"]


def test_an_order_the_ca_took_twice_is_given_back_once(shop: Shop) -> None:
    shop.ca.lost["order"] = 1
    order = shop.order()
    raised(shop.submit, order)
    (number,) = shop.ca.orders
    double = shop.ca.double(number)
    shop.submit(order)
    assert {n: o.status for n, o in shop.ca.orders.items()} == {number: "pending", double: "canceled"}


def test_patience_the_ca_asks_for_is_given_and_the_order_goes_out_right_after(shop: Shop) -> None:
    shop.ca.in_the_way["order"].append(error("request_limit_exceeded", "slow down", 429, ("Retry-After", "77")))
    order = shop.order()
    asked = raised(shop.submit, order)
    assert (asked.code, asked.extra["retry_after"]) == ("ca_rate_limited", 77)
    shop.submit(order)
    assert shop.bought() == ["pending"]
    assert shop.ca.requests("alternate") == []


def test_without_a_retry_after_half_the_cas_window_is_waited(shop: Shop) -> None:
    shop.ca.in_the_way["order"].append(error("request_limit_exceeded", status=429))
    assert raised(shop.submit, shop.order()).extra["retry_after"] == 90


BUYER = """
import asyncio, json, sys
from pathlib import Path
from certwright.entry import wiring
from certwright.platform.config import Settings
from certwright.rooms.certificates import AuthorityDirectory, CertificateOrder

async def main() -> None:
    given = json.load(sys.stdin)
    settings = Settings(data_dir=Path(given["data_dir"]), database_url=given["url"], allowed_networks=("127.0.0.0/8",))
    services = await wiring.build(settings)
    async with services.db.begin() as tx:
        _, ca = await services.port(AuthorityDirectory).find(tx, given["account_id"], given["ca"])
    order = CertificateOrder(
        reference=given["reference"], account_id=given["account_id"], project_id="p", names=("shop.demo.localhost",),
        csr_der=bytes.fromhex(given["csr"]), methods={"shop.demo.localhost": "dns"},
    )
    print(await ca.submit(order))
    await wiring.aclose(services)

asyncio.run(main())
"""


def test_a_process_killed_after_the_ca_took_the_order_and_before_it_was_recorded_buys_once(
    shop: Shop, settings: Settings
) -> None:
    shop.ca.now = shop.world.clock.now
    order = shop.order()
    given = {
        "data_dir": str(settings.data_dir), "url": settings.database_url and settings.database_url.get_secret_value(),
        "account_id": order.account_id, "ca": shop.added.id, "reference": order.reference, "csr": order.csr_der.hex(),
    }  # fmt: skip
    environ = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(
        [sys.executable, "-c", BUYER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, text=True
    )
    shop.ca.after["order"] = lambda: os.kill(process.pid, signal.SIGKILL)
    process.communicate(json.dumps(given), timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert shop.bought() == ["pending"]
    order_id = shop.submit(order)
    assert shop.bought() == ["pending"]
    assert isinstance(shop.collect(order_id), Needs)
    assert len(shop.ca.requests("order")) == 1


# --- through the room ------------------------------------------------------------------------------------------------


@pytest.fixture
def seeing(shop: Shop, web: Site) -> Shop:
    """The CA looks at the site itself, as CAs do."""

    def sees(order: Any, name: str) -> bool:
        file = web.root / ".well-known/pki-validation/fileauth.txt"
        return file.exists() and file.read_text() == order.token

    shop.ca.sees = sees  # type: ignore[method-assign]
    return shop


def test_a_certificate_is_bought_validated_by_file_and_issued(seeing: Shop, web: Site) -> None:
    detail = work.issue(seeing.world, web, NAME, ca="shop")
    assert len(detail.versions) == 1
    assert seeing.bought() == ["issued"]
    (order,) = seeing.ca.orders.values()
    assert order.body["alternative_order_id"] == detail.application.id  # type: ignore[union-attr]


def test_a_ca_that_falls_over_in_the_middle_costs_time_and_nothing_else(seeing: Shop, web: Site) -> None:
    ca, world = seeing.ca, seeing.world
    for resource in ("order", "info", "validation", "token", "check", "download"):
        ca.in_the_way[resource].extend([
            Reply(503, b"", (("Retry-After", "1"),)), Reply(200, b"<html>"), Reply(200, b'{"id": [], "status": {}}'),
        ])  # fmt: skip
    ca.processing_looks = 2
    made = work.apply(world, NAME, ca="shop")
    for _ in range(60):
        world.drain()
        work.publish_all(world, web, made.id)
        world.later(minutes=11)
        if work.look(world, made.id).summary.state is State.ISSUED:
            break
    detail = work.look(world, made.id)
    assert detail.summary.state is State.ISSUED, detail.application
    assert len(detail.versions) == 1
    assert not any(ca.in_the_way.values())
    assert seeing.bought() == ["issued"]


@pytest.mark.parametrize(
    ("attribute", "value", "code"),
    [("issued_names", ["evil.example"], "issued_other_names"), ("issued_other_key", True, "issued_other_key")],
)
def test_a_certificate_that_is_not_ours_is_refused_and_recorded(
    seeing: Shop, web: Site, attribute: str, value: Any, code: str
) -> None:
    setattr(seeing.ca, attribute, value)
    made = work.apply(seeing.world, NAME, ca="shop")
    seeing.world.drain()
    work.publish_all(seeing.world, web, made.id)
    detail = work.finish(seeing.world, made.id)
    assert detail.summary.state is State.APPROVAL_FAILED
    assert work.why(detail).startswith(code)
    assert detail.versions == ()


def test_a_rejected_order_fails_with_the_cas_reasons_shortened(seeing: Shop, web: Site) -> None:
    seeing.ca.rejects = "The name is on a blocklist. " + "x" * 2000
    made = work.apply(seeing.world, NAME, ca="shop")
    seeing.world.drain()
    work.publish_all(seeing.world, web, made.id)
    detail = work.finish(seeing.world, made.id)
    assert detail.summary.state is State.APPROVAL_FAILED
    assert "rejected the order: The name is on a blocklist." in work.why(detail)
    assert len(work.why(detail)) < 400


def test_what_the_ca_does_not_see_is_said_and_looked_at_less_and_less_often(seeing: Shop, web: Site) -> None:
    ca, world = seeing.ca, seeing.world
    ca.sees = lambda order, name: False  # type: ignore[method-assign]
    made = work.apply(world, NAME, ca="shop")
    world.drain()
    work.publish_all(world, web, made.id)
    work.check(world, made.id)
    world.drain()
    application = work.look(world, made.id).application
    assert application is not None
    assert application.waiting_for is not None
    assert application.waiting_for["code"] == "ca_domains_open"
    assert "not at the expected place" in application.waiting_for["message"]
    for _ in range(24):
        world.later(minutes=60)
        world.drain()
    assert 5 <= ca.asked["check"] <= 9


def test_withdrawing_cancels_the_order_at_the_ca(shop: Shop) -> None:
    world = shop.world
    made = work.apply(world, NAME, ca="shop")
    world.drain()
    world.run(certificates.withdraw(world.services, world.actor, made.id))
    world.drain()
    assert work.look(world, made.id).summary.state is State.PENDING_APPLICATION
    assert shop.bought() == ["canceled"]


def test_withdrawing_loses_against_a_ca_that_issued_meanwhile(shop: Shop) -> None:
    world, ca = shop.world, shop.ca
    made = work.apply(world, NAME, ca="shop")
    world.drain()
    (order,) = ca.orders.values()
    world.run(certificates.withdraw(world.services, world.actor, made.id))
    ca.in_the_way["status"].append(lambda: ca.answer_mail(order))
    world.drain()
    detail = work.finish(world, made.id)
    assert detail.summary.state is State.ISSUED
    assert shop.bought() == ["issued"]


def test_an_application_that_ran_out_here_leaves_no_order_at_the_ca(shop: Shop) -> None:
    world = shop.world
    made = work.apply(world, NAME, ca="shop")
    world.drain()
    world.later(days=31)
    world.drain()
    assert work.look(world, made.id).summary.state is State.APPROVAL_FAILED
    assert shop.bought() == ["canceled"]


# --- domains ---------------------------------------------------------------------------------------------------------


def test_a_value_that_ran_out_ends_the_order_here_and_at_the_ca(shop: Shop) -> None:
    order_id = shop.submit(shop.order())
    assert isinstance(shop.collect(order_id), Needs)
    shop.proceed(order_id)
    assert isinstance(shop.collect(order_id), Pending)
    shop.world.later(days=31)
    over = shop.collect(order_id)
    assert isinstance(over, Rejected)
    assert "ran out" in over.reasons[0]
    assert shop.bought() == ["canceled"]
    assert shop.collect(order_id) == over


def test_before_our_leave_a_fresh_value_replaces_one_that_ran_out(shop: Shop) -> None:
    order_id = shop.submit(shop.order())
    first = shop.collect(order_id)
    shop.world.later(days=31)
    second = shop.collect(order_id)
    assert first.wanted[0].value != second.wanted[0].value
    assert second.wanted[0].until > shop.world.clock.now()


def test_a_request_that_waits_for_an_administrator_says_so(world: World, ca: FakeCertCentral) -> None:
    shop = Shop(world, ca, settings={"skip_approval": False})
    order_id = shop.submit(shop.order())
    shop.show(order_id)
    assert shop.collect(order_id).again <= timedelta(seconds=5)
    waiting = shop.collect(order_id)
    assert waiting.why.code == "ca_approval_pending"
    (order,) = ca.orders.values()
    order.first.status = "pending"
    assert isinstance(shop.collect(order_id), Issued)


# --- organisations ---------------------------------------------------------------------------------------------------


def test_an_organisation_is_made_and_sent_for_verification_once(shop: Shop) -> None:
    for _ in range(2):
        shop.issued(shop.organised())
    (one,) = shop.ca.organisations.values()
    assert one.facts["name"] == FACTS["legal_name"]
    assert one.facts["country"] == "gb"
    assert one.validations == {"ov": "active"}
    assert len(shop.ca.requests("organization")) == len(shop.ca.requests("org-submit")) == 1


def test_through_the_room_the_cas_own_desk_decides_about_the_organisation(seeing: Shop, web: Site) -> None:
    world = seeing.world
    seeing.ca.organisations_pass = False
    made = world.run(organisations.add_organisation(world.services, world.actor, facts=FACTS))
    asked = Application(
        names=(NAME,), validation_method="file", applicant=work.APPLICANT, consent=True,
        certificate_type="ov", organisation_id=made.id,
    )  # fmt: skip
    bought = world.run(certificates.create_certificate(world.services, world.actor, application=asked, ca="shop"))
    world.drain()
    work.publish_all(world, web, bought.id)
    work.check(world, bought.id)
    world.drain()
    detail = work.look(world, bought.id)
    assert detail.summary.state is State.PENDING_ORGANIZATION_VALIDATION
    assert detail.application is not None
    assert detail.application.waiting_for is not None
    assert detail.application.waiting_for["code"] == "ca_organisation_pending"
    assert work.rows(world, sa.select(organisation_cases.c.id)) == []
    (one,) = seeing.ca.organisations.values()
    one.validations["ov"] = "active"
    world.later(hours=1)
    world.drain()
    assert work.look(world, bought.id).summary.state is State.ISSUED


def test_for_ev_a_person_who_answers_for_it_is_named(shop: Shop) -> None:
    shop.submit(shop.organised(kind=CertificateType.EV))
    (one,) = shop.ca.organisations.values()
    assert [person["last_name"] for person in one.contacts] == ["Lovelace"]


def test_an_organisation_made_before_a_crash_is_found(shop: Shop) -> None:
    shop.ca.lost["organization"] = 1
    order = shop.organised()
    assert isinstance(raised(shop.submit, order), Unavailable)
    shop.submit(order)
    assert len(shop.ca.organisations) == 1
    assert shop.bought() == ["pending"]


def test_an_organisation_under_verification_is_waited_for_and_what_is_open_is_said(shop: Shop) -> None:
    shop.ca.organisations_pass = False
    order_id = shop.submit(shop.organised())
    shop.show(order_id)
    shop.collect(order_id)
    waiting = shop.collect(order_id)
    assert waiting.why.code == "ca_organisation_pending"
    assert "Example Widgets Ltd: address verification" in waiting.why.message
    (one,) = shop.ca.organisations.values()
    one.validations["ov"] = "active"
    assert isinstance(shop.collect(order_id), Issued)


def test_a_refused_organisation_ends_the_order_here_and_at_the_ca(shop: Shop) -> None:
    shop.ca.organisations_pass = False
    order_id = shop.submit(shop.organised())
    shop.show(order_id)
    shop.collect(order_id)
    (one,) = shop.ca.organisations.values()
    one.validations["ov"] = "rejected"
    over = shop.collect(order_id)
    assert isinstance(over, Rejected)
    assert "refused the organization Example Widgets Ltd" in over.reasons[0]
    assert shop.bought() == ["canceled"]


def test_a_closed_organisation_is_refused_before_anything_is_bought(shop: Shop) -> None:
    shop.submit(shop.organised())
    (one,) = shop.ca.organisations.values()
    one.status = "inactive"
    assert raised(shop.submit, shop.organised()).code == "ca_organisation_refused"
    assert len(shop.ca.orders) == 1


def test_without_an_organisation_ov_is_refused(shop: Shop) -> None:
    assert raised(shop.submit, shop.order(certificate_type=CertificateType.OV)).code == "ca_organisation_missing"
    assert shop.ca.orders == {}


# --- reissuing -------------------------------------------------------------------------------------------------------


def test_inside_its_coverage_a_certificate_is_reissued_and_not_bought_again(shop: Shop) -> None:
    first = shop.issued(shop.order())
    key = generate(KeyAlgorithm.EC_P256)
    order = shop.order(replaces_der=first.leaf_der, csr_der=make_csr(key, [NAME]))
    second = shop.issued(order)
    assert read_certificate(second.leaf_der).spki_sha256 == spki_sha256(key)
    assert len(shop.ca.orders) == 1
    third = shop.issued(shop.order(replaces_der=second.leaf_der))
    assert third.leaf_der != second.leaf_der
    assert [len(order.reissues) for order in shop.ca.orders.values()] == [2]
    assert len(shop.ca.requests("order")) == 1


def test_a_reissue_whose_answer_was_lost_is_found_by_its_signing_request(shop: Shop) -> None:
    first = shop.issued(shop.order())
    shop.ca.lost["reissue"] = 1
    order = shop.order(replaces_der=first.leaf_der)
    assert isinstance(raised(shop.submit, order), Unavailable)
    shop.submit(order)
    assert [len(one.reissues) for one in shop.ca.orders.values()] == [1]


def test_after_its_coverage_a_new_order_is_placed(shop: Shop) -> None:
    first = shop.issued(shop.order())
    shop.world.later(days=366)
    shop.submit(shop.order(replaces_der=first.leaf_der))
    assert shop.bought() == ["issued", "pending"]


def test_a_reissue_with_another_name_wants_to_see_only_that_name(shop: Shop) -> None:
    first = shop.issued(shop.order(NAME, "b.demo.localhost"))
    order_id = shop.submit(shop.order(NAME, "c.demo.localhost", replaces_der=first.leaf_der))
    assert [wanted.name for wanted in shop.show(order_id).wanted] == ["c.demo.localhost"]


def test_a_reissue_is_cancelled_without_harm_to_the_order(shop: Shop) -> None:
    first = shop.issued(shop.order())
    order_id = shop.submit(shop.order(NAME, "c.demo.localhost", replaces_der=first.leaf_der))
    assert shop.cancel(order_id) == Cancelled()
    (order,) = shop.ca.orders.values()
    assert (order.status, order.reissues[0].status) == ("issued", "canceled")


# --- taking back -----------------------------------------------------------------------------------------------------


def test_a_pending_order_is_cancelled_once(shop: Shop) -> None:
    order_id = shop.submit(shop.order())
    assert [shop.cancel(order_id), shop.cancel(order_id)] == [Cancelled(), Cancelled()]
    assert shop.bought() == ["canceled"]
    assert len(shop.ca.requests("status")) == 1
    assert isinstance(shop.collect(order_id), Rejected)


def test_a_cancellation_whose_answer_was_lost_is_found_done(shop: Shop) -> None:
    order_id = shop.submit(shop.order())
    shop.ca.lost["status"] = 1
    assert isinstance(raised(shop.cancel, order_id), Unavailable)
    assert shop.cancel(order_id) == Cancelled()
    assert len(shop.ca.requests("status")) == 1


def test_an_order_the_ca_approved_meanwhile_is_too_late_to_cancel_and_is_collected(shop: Shop) -> None:
    order_id = shop.submit(shop.order())
    (order,) = shop.ca.orders.values()
    shop.ca.in_the_way["status"].append(lambda: shop.ca.answer_mail(order))
    answer = shop.cancel(order_id)
    assert isinstance(answer, TooLate)
    assert "issued" in answer.words
    assert isinstance(shop.collect(order_id), Issued)
    assert isinstance(shop.cancel(order_id), TooLate)


def test_a_purchase_that_never_left_is_cancelled_without_asking_the_ca(shop: Shop) -> None:
    shop.ca.in_the_way["organizations"].append(error("access_denied|missing_permission", status=403))
    order = shop.organised()
    assert raised(shop.submit, order).code == "ca_not_permitted"
    (row,) = work.rows(shop.world, sa.select(cas.ca_purchases.c.id))
    asked = len(shop.ca.seen)
    assert shop.cancel(row.id) == Cancelled()
    assert len(shop.ca.seen) == asked
    assert isinstance(shop.collect(shop.submit(order)), Rejected)


# --- revoking --------------------------------------------------------------------------------------------------------


def test_a_revocation_an_administrator_must_approve_is_asked_for_once(world: World, ca: FakeCertCentral) -> None:
    shop = Shop(world, ca)
    leaf = shop.issued(shop.order()).leaf_der
    ca.revocation_needs_approval = True
    for _ in range(3):
        pending = raised(shop.revoke, leaf)
        assert (pending.code, pending.extra["retry_after"]) == ("ca_revocation_pending", 3600)
    assert len(ca.requests("revoke")) == 1
    (order,) = ca.orders.values()
    order.requests[0]["status"] = "approved"
    ca.revoke(order.first, "superseded")
    shop.revoke(leaf)
    assert len(ca.requests("revoke")) == 1


def test_a_revocation_an_administrator_refused_is_said(shop: Shop) -> None:
    leaf = shop.issued(shop.order()).leaf_der
    shop.ca.revocation_needs_approval = True
    raised(shop.revoke, leaf)
    (order,) = shop.ca.orders.values()
    order.requests[0]["status"] = "rejected"
    assert raised(shop.revoke, leaf).code == "ca_revocation_refused"


def test_a_revocation_the_ca_refuses_keeps_the_certificate_waiting_with_the_reason(seeing: Shop, web: Site) -> None:
    world = seeing.world
    made = work.issue(world, web, NAME, ca="shop")
    seeing.ca.in_the_way["revoke"].append(error("revoke_denied", "not this one"))
    world.run(certificates.revoke(world.services, world.actor, made.id, RevocationReason.SUPERSEDED))
    world.drain()
    assert work.look(world, made.id).summary.state is State.VERIFYING_REVOCATION
    assert seeing.ca.revoked == {}
    world.later(hours=2)
    world.drain()
    assert work.look(world, made.id).summary.state is State.REVOKED
    assert list(seeing.ca.revoked.values()) == ["superseded"]


def test_a_reissued_certificate_is_revoked_and_the_first_is_not(shop: Shop) -> None:
    first = shop.issued(shop.order())
    second = shop.issued(shop.order(replaces_der=first.leaf_der))
    for _ in range(2):
        shop.revoke(second.leaf_der)
    assert len(shop.ca.revoked) == 1
    (order,) = shop.ca.orders.values()
    assert (order.first.status, order.reissues[0].status) == ("issued", "revoked")


# --- the key, the settings, the doors --------------------------------------------------------------------------------


def test_the_key_is_sealed_and_appears_in_no_answer_log_or_problem(
    shop: Shop, api: Api, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    key = shop.ca.key
    (row,) = work.rows(shop.world, sa.select(cas.cas.c.api_key))
    assert key.encode() not in row.api_key
    shop.submit(shop.order())
    shop.ca.in_the_way["order"].append(error("x", "no"))
    problem = raised(shop.submit, shop.order())
    held = cas.ShopCredentials("i", "https://x", None, key)
    shown = api.get(f"/api/v1/cas/{shop.added.id}").text + api.get("/api/v1/audit").text
    captured = capfd.readouterr()
    for text in (repr(held), str(problem.as_dict()), shown, captured.out, captured.err, caplog.text):
        assert key not in text
    shop.world.services.vault.keeper.rotate()  # type: ignore[attr-defined]
    shop.world.run(shop.world.services.vault.rewrap(shop.world.services.db))
    shop.submit(shop.order())


def test_testing_the_ca_lists_its_products_and_says_what_is_wrong(shop: Shop) -> None:
    world, ca = shop.world, shop.ca

    def check() -> cas.Ca:
        return world.run(cas.check_ca(world.services, world.actor, shop.added.id))

    tested = check()
    assert tested.problem is None
    assert tested.offers is not None
    assert tested.offers.profiles["ssl_basic"] == "Basic OV"
    ca.products = {"something_else": "Else"}
    said = check().problem
    assert said is not None
    assert said["code"] == "ca_product_unknown"
    assert "something_else" in said["fix"]
    ca.key = "another-key-entirely"
    said = check().problem
    assert said is not None
    assert said["code"] == "ca_key_refused"


def test_a_redirect_is_not_followed_with_the_key(shop: Shop) -> None:
    order_id = shop.submit(shop.order())
    with fake_certcentral() as elsewhere:
        shop.ca.in_the_way["info"].append(Reply(302, b"", (("Location", f"{elsewhere.base_url}order"),)))
        assert raised(shop.collect, order_id).code == "ca_answer_unreadable"
        assert elsewhere.seen == []


@pytest.mark.parametrize(
    ("given", "code", "field"),
    [
        ({"api_key": None}, "ca_api_key_missing", "api_key"),
        ({"api_key": "two words here"}, "ca_api_key_invalid", "api_key"),
        ({"kind": "shop"}, "ca_kind_unknown", "kind"),
        ({"kind": "acme"}, "ca_setting_not_for_kind", "api_key"),
        ({"settings": {"years": 4}}, "ca_setting_invalid", "settings.years"),
        ({"settings": {"years": True}}, "ca_setting_invalid", "settings.years"),
        ({"settings": {"dns_record": "MX"}}, "ca_setting_invalid", "settings.dns_record"),
        ({"settings": {"skip_approval": "yes"}}, "ca_setting_invalid", "settings.skip_approval"),
        ({"settings": {"payment_method": "a b"}}, "ca_setting_invalid", "settings.payment_method"),
        ({"settings": {"cname_target": "*.x.example"}}, "ca_setting_invalid", "settings.cname_target"),
        ({"settings": {"caa_identifiers": "x"}}, "ca_setting_invalid", "settings.caa_identifiers"),
        ({"settings": {"colour": "red"}}, "ca_setting_invalid", "settings.colour"),
        ({"settings": {"products": {"xv/single": "a"}}}, "ca_setting_invalid", "settings.products.xv/single"),
        ({"settings": {"products": {"dv/single": "../x"}}}, "ca_setting_invalid", "settings.products.dv/single"),
        ({"settings": {"products": 1}}, "ca_setting_invalid", "settings.products"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_field(
    world: World, ca: FakeCertCentral, given: dict[str, Any], code: str, field: str
) -> None:
    with pytest.raises(Invalid) as caught:
        work.add_shop(world, ca, **given)
    problem = caught.value.problems[0] if isinstance(caught.value, InvalidFields) else caught.value
    assert (problem.code, problem.field) == (code, field)


def test_the_api_adds_and_edits_such_a_ca(api: Api, ca: FakeCertCentral) -> None:
    body = {"name": "shop", "kind": "certcentral", "directory_url": ca.base_url, "root_pem": ca.root_pem,
            "api_key": ca.key, "settings": {"products": {"ov/single": "ssl_plain"}, "years": 2}}  # fmt: skip
    made = api.post("/api/v1/cas", body)
    assert made.status_code == 201, made.text
    assert made.json()["settings"]["products"]["ov/single"] == "ssl_plain"
    assert made.json()["key_algorithm"] is None
    path, headers = f"/api/v1/cas/{made.json()['id']}", {"if-match": made.headers["etag"]}
    edited = api.patch(path, {"settings": {"years": 1}, "api_key": "a-new-key-of-ours"}, headers=headers)
    assert edited.status_code == 200, edited.text
    assert (edited.json()["settings"]["years"], edited.json()["settings"]["products"]["ov/single"]) == (1, "ssl_plain")
    assert api.post(f"{path}/test").json()["problem"]["code"] == "ca_key_refused"
    assert api.post(f"{path}/change-key").json()["code"] == "ca_no_key_change"
    assert api.delete(path).status_code == 204


def test_another_tenants_order_is_not_found_at_ones_own_ca(shop: Shop) -> None:
    order_id = shop.submit(shop.order())
    other = Shop(shop.world, shop.ca, name="second")
    assert raised(other.collect, order_id).code == "not_found"
    assert raised(other.cancel, order_id).code == "not_found"


@pytest.mark.parametrize(
    ("fault", "status", "code", "again"),
    [
        ("caa_check_failed|a.example", 400, "ca_caa_forbids", False),
        ("csr_invalid_cannot_parse", 400, "ca_csr_refused", False),
        ("not_found|product", 404, "ca_product_refused", False),
        ("insufficient_balance", 400, "ca_not_paid", False),
        ("access_denied|missing_permission", 403, "ca_not_permitted", False),
        ("unauthorized_domain", 400, "ca_name_refused", False),
        ("something_new", 400, "ca_refused", False),
        ("not_found|route", 404, "ca_not_found", False),
        ("whatever", 500, "ca_busy", True),
        ("", 429, "ca_rate_limited", True),
    ],
)
def test_each_refusal_of_the_ca_has_a_code_of_ours_and_its_words_shortened(
    shop: Shop, fault: str, status: int, code: str, again: bool
) -> None:
    shop.ca.in_the_way["order"].append(error(fault, "because of this " + "y" * 5000, status))
    problem = raised(shop.submit, shop.order())
    assert problem.code == code
    assert isinstance(problem, Unavailable) == again
    assert "because of this" in problem.message
    assert len(problem.message) < 450
    assert problem.fix


def test_an_order_the_ca_lost_is_over(shop: Shop) -> None:
    order_id = shop.submit(shop.order())
    shop.ca.orders.clear()
    assert isinstance(shop.collect(order_id), Rejected)


def test_the_years_that_were_bought_are_ordered_and_without_a_purchase_those_of_the_setting(
    world: World, ca: FakeCertCentral
) -> None:
    shop = Shop(world, ca, settings={"years": 2})
    shop.submit(shop.order(years=3))
    shop.submit(shop.order("other.demo.localhost"))
    assert [payload["order_validity"] for payload in ca.requests("order")] == [{"years": 3}, {"years": 2}]


def test_a_bought_product_is_ordered_at_the_ca_for_its_years(world: World, ca: FakeCertCentral) -> None:
    work.add_shop(world, ca)
    product = {
        "code": "shop-dv", "name": "Shop DV", "brand": "Shop", "type": "dv", "domain_type": "single", "ca": "shop",
        "public": False, "currency": "EUR", "prices": {"base": "10"}, "years": {"1": "0", "3": "0"},
    }  # fmt: skip
    world.run(billing.create_product(world.services, world.actor, product))
    world.run(billing.top_up(world.services, world.actor, Money.of(100, "EUR"), reference="bank 1"))
    asked = billing.Asked("shop-dv", years=3)
    placed = world.run(
        billing.place_order(world.services, world.actor, asked, agree=True, pay=billing.PayWith())
    )  # fmt: skip
    wanted = Application(names=(NAME,), validation_method="dns", applicant=CONTACT, consent=True)
    certificate_id = placed.certificates[0]["id"]
    world.run(certificates.apply(world.services, world.actor, certificate_id, wanted))
    world.drain()
    assert [payload["order_validity"] for payload in ca.requests("order")] == [{"years": 3}]
