"""What can be done with a certificate beyond its first issue: changed reissues, more names, OV and EV, withdrawal that
a CA decides on, applying again, and forgetting the applicant. On a real database and the built-in CA."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.x509.oid import NameOID

from certwright.kernel.actor import system_actor
from certwright.kernel.problems import Forbidden, Invalid, InvalidFields, NotFound, Refused, TooMany, Unavailable
from certwright.rooms import certificates, deployment
from certwright.rooms.audit.tables import audit_events
from certwright.rooms.certificates import (
    Applicant,
    AuthorityDirectory,
    Cancelled,
    Changes,
    Operation,
    RevocationReason,
    State,
    TooLate,
    Usage,
)
from certwright.rooms.certificates.tables import applications, versions
from certwright.rooms.certificates.tables import certificates as certificate_table
from certwright.rooms.notify.tables import messages
from certwright.x509.certificates import read_certificate
from tests.certificates.test_lifecycle import (
    NAME,
    Site,
    create,
    issue,
    look,
    product,
    publish_all,
    rows,
    settings,
    site,
    wanted,
)
from tests.conftest import World
from tests.organisations import desk

__all__ = ["product", "settings", "site"]

OTHER = "news.demo.localhost"
PAIR = ("a.demo.localhost", "b.demo.localhost")


def finish(world: World, site: Site, detail: certificates.Detail) -> certificates.Detail:
    """Publish what is asked for, have it looked at, and let the workers run."""
    world.later(seconds=1)
    publish_all(world, site, detail)
    world.run(certificates.check_domains(world.services, world.actor, detail.id))
    world.drain()
    return look(world, detail.id)


def reissue(world: World, certificate_id: str, **changes: Any) -> certificates.Detail:
    world.run(certificates.reissue(world.services, world.actor, certificate_id, Changes(**changes)))
    return look(world, certificate_id)


def leaf_of(world: World, certificate_id: str) -> x509.Certificate:
    file = world.run(certificates.download(world.services, world.actor, certificate_id, "leaf"))
    return x509.load_pem_x509_certificate(file.content)


def applicants_of(world: World, certificate_id: str) -> list[Any]:
    query = sa.select(applications.c.applicant).where(applications.c.certificate_id == certificate_id)
    return [row[0] for row in rows(world, query)]


# --- reissue with changes -------------------------------------------------------------------------------------------


def test_a_reissue_with_another_name_proves_that_name_and_brings_a_version_with_it(product: World, site: Site) -> None:
    detail = issue(product, site)
    asked = reissue(product, detail.id, names=(OTHER,))
    assert asked.summary.state is State.VERIFYING_REISSUE
    assert asked.summary.names == (NAME,)  # what is served goes on until the new one is there
    assert asked.validation is not None
    assert [domain.name for domain in asked.validation.domains] == [OTHER]
    done = finish(product, site, detail)
    assert (done.summary.state, done.summary.names) == (State.ISSUED, (OTHER,))
    assert [version.number for version in done.versions] == [2, 1]


def test_the_version_whose_name_was_changed_is_revoked_as_superseded_after_its_grace(
    product: World, site: Site
) -> None:
    detail = issue(product, site)
    reissue(product, detail.id, names=(OTHER,))
    finish(product, site, detail)
    product.later(days=product.services.settings.superseded_grace_days - 1)
    product.drain()
    assert look(product, detail.id).versions[1].revoked_at is None
    product.later(days=2)
    product.drain()
    product.drain()
    old = look(product, detail.id).versions[1]
    assert (old.revocation_reason, look(product, detail.id).summary.state) == ("superseded", State.ISSUED)
    assert old.revoked_at is not None


def test_a_replaced_version_that_is_still_served_is_not_revoked(product: World, site: Site) -> None:
    class Served:
        async def bound_to(self, tx: Any, certificate_id: str) -> tuple[str, ...]:
            return ()

        async def serves(self, tx: Any, version_id: str) -> bool:
            return served

    served = True
    product.services.ports[Usage] = Served()
    detail = issue(product, site)
    reissue(product, detail.id, names=(OTHER,))
    finish(product, site, detail)
    product.later(days=30)
    product.drain()
    assert look(product, detail.id).versions[1].revoke_asked_at is None
    served = False
    product.later(hours=2)
    product.drain()
    assert look(product, detail.id).versions[1].revoke_asked_at is None  # the grace counts from the last use
    product.later(days=product.services.settings.superseded_grace_days)
    product.drain()
    product.drain()
    assert look(product, detail.id).versions[1].revoked_at is not None


def test_a_reissued_version_is_revoked_as_superseded_also_where_the_names_stay(product: World, site: Site) -> None:
    detail = issue(product, site)
    reissue(product, detail.id, key_algorithm="EC_P384")
    product.drain()
    product.later(days=product.services.settings.superseded_grace_days + 1)
    product.drain()
    product.drain()
    done = look(product, detail.id)
    assert [(v.number, v.key_algorithm, v.revocation_reason) for v in done.versions] == [
        (2, "EC P-384", None), (1, "EC P-256", "superseded"),
    ]  # fmt: skip
    assert done.versions[1].revoked_at is not None


def test_a_renewal_revokes_nothing_the_version_before_runs_out(product: World, site: Site) -> None:
    detail = issue(product, site)
    product.run(certificates.renew_version(product.services, product.actor, detail.id))
    product.drain()
    product.later(days=20)
    product.drain()
    done = look(product, detail.id)
    assert [(v.number, v.revoke_asked_at) for v in done.versions] == [(2, None), (1, None)]


def test_a_renewal_asks_for_what_is_in_use_and_not_for_what_was_withdrawn(product: World, site: Site) -> None:
    detail = issue(product, site)
    reissue(product, detail.id, names=(OTHER,), applicant=Applicant("Eve", "eve@example.com", "+49 30 123456"))
    product.run(certificates.withdraw(product.services, product.actor, detail.id))
    product.run(certificates.renew_version(product.services, product.actor, detail.id))
    product.drain()
    done = look(product, detail.id)
    assert [version.names for version in done.versions] == [(NAME,), (NAME,)]
    assert done.application is not None
    assert done.application.applicant == {
        "name": "Ada Lovelace", "email": "ada@example.com", "phone": "+44 20 7946 0000"
    }  # fmt: skip


def test_the_consent_of_a_renewal_is_the_one_that_was_given(product: World, site: Site) -> None:
    detail = issue(product, site)
    assert detail.application is not None
    product.later(days=40)
    product.run(certificates.renew_version(product.services, product.actor, detail.id))
    renewed = look(product, detail.id).application
    assert renewed is not None
    assert (renewed.id != detail.application.id, renewed.consent_at) == (True, detail.application.consent_at)
    assert renewed.consent_version == detail.application.consent_version


def test_an_addition_and_a_reissue_say_how_far_they_are(product: World, site: Site) -> None:
    detail = issue(product, site, wanted(*PAIR))
    product.run(certificates.add_domains(product.services, product.actor, detail.id, ["c.demo.localhost"]))

    def shown() -> tuple[int | None, int | None]:
        (listed,) = product.run(
            certificates.list_certificates(product.services, product.actor, certificates.Filters())
        )  # fmt: skip
        return listed.progress, look(product, detail.id).summary.progress

    assert shown() == (40, 40)
    product.run(certificates.withdraw(product.services, product.actor, detail.id))
    assert shown() == (100, 100)
    product.run(certificates.reissue(product.services, product.actor, detail.id))
    product.run(certificates.check_domains(product.services, product.actor, detail.id))
    ca = product.services.port(AuthorityDirectory).by_id["builtin"]
    ca.collect, real = never, ca.collect
    product.drain()
    assert shown() == (90, 90)
    ca.collect = real


async def never(order_id: str, account_id: str) -> certificates.Pending:
    return certificates.Pending(timedelta(hours=1))


def test_a_reissue_takes_a_new_csr_where_the_last_one_was_uploaded(product: World, site: Site) -> None:
    from tests.certificates.test_rules import csr_for

    detail = issue(product, site, wanted(names=(), csr=csr_for(NAME)))
    with pytest.raises(Refused) as caught:
        reissue(product, detail.id)
    assert caught.value.code == "reissue_needs_csr"
    reissue(product, detail.id, csr=csr_for(NAME))
    product.drain()
    done = look(product, detail.id)
    assert [version.has_key for version in done.versions] == [False, False]


def test_a_wrong_change_leaves_the_certificate_as_it_was(product: World, site: Site) -> None:
    detail = issue(product, site)
    with pytest.raises(InvalidFields):
        reissue(product, detail.id, names=("a..b",))
    assert look(product, detail.id).summary.state is State.ISSUED


# --- more names -----------------------------------------------------------------------------------------------------


def add(world: World, certificate_id: str, *names: str) -> certificates.Detail:
    world.run(certificates.add_domains(world.services, world.actor, certificate_id, names))
    return look(world, certificate_id)


def test_names_are_added_while_the_version_there_is_can_be_downloaded(product: World, site: Site) -> None:
    detail = issue(product, site, wanted(*PAIR))
    asked = add(product, detail.id, OTHER)
    assert asked.summary.state is State.VERIFYING_DOMAIN_ADDITION
    assert asked.allowed[Operation.DOWNLOAD] is None
    now = product.run(certificates.download(product.services, product.actor, detail.id, "leaf"))
    assert set(read_certificate(now.content).dns_names) == set(PAIR)
    done = finish(product, site, detail)
    assert (done.summary.state, set(done.summary.names)) == (State.ISSUED, {*PAIR, OTHER})


def test_an_addition_that_is_withdrawn_leaves_the_certificate_issued(product: World, site: Site) -> None:
    detail = issue(product, site, wanted(*PAIR))
    add(product, detail.id, OTHER)
    back = product.run(certificates.withdraw(product.services, product.actor, detail.id))
    assert (back.summary.state, set(back.summary.names)) == (State.ISSUED, set(PAIR))


@pytest.mark.parametrize("name", [PAIR[0], "a..b"])
def test_a_name_that_is_there_or_is_none_is_not_added(product: World, site: Site, name: str) -> None:
    detail = issue(product, site, wanted(*PAIR))
    with pytest.raises(InvalidFields):
        add(product, detail.id, name)
    assert look(product, detail.id).summary.state is State.ISSUED


def test_a_single_domain_certificate_takes_no_more_names(product: World, site: Site) -> None:
    detail = issue(product, site)
    with pytest.raises(Refused) as caught:
        add(product, detail.id, OTHER)
    assert caught.value.extra["operation"] == "add_domains"


# --- OV and EV ------------------------------------------------------------------------------------------------------


def specialist(world: World, email: str) -> Any:
    return desk.person(world, email, "desk:*", "scm:*")


def apply_for(world: World, site: Site, certificate_type: str) -> tuple[certificates.Detail, str]:
    """A certificate whose domain is proven and whose organisation isn't: (it, the case's id)."""
    organisation = desk.add(world)
    detail = create(world, wanted(certificate_type=certificate_type, organisation_id=organisation.id))
    waiting = finish(world, site, detail)
    assert waiting.summary.state is State.PENDING_ORGANIZATION_VALIDATION
    assert waiting.summary.progress == 70
    assert waiting.application is not None
    return detail, desk.state(world, waiting.application.id).case_id


def test_an_ov_certificate_waits_for_the_desk_and_names_the_organisation(product: World, site: Site) -> None:
    detail, case_id = apply_for(product, site, "ov")
    desk.verify(product, case_id, specialist(product, "first@one.example"))
    product.drain()
    assert look(product, detail.id).summary.state is State.ISSUED
    leaf = leaf_of(product, detail.id)
    subject = {a.oid: a.value for a in leaf.subject}
    facts = desk.facts()
    assert subject[NameOID.ORGANIZATION_NAME] == facts["legal_name"]
    assert subject[NameOID.COUNTRY_NAME] == facts["country"]
    assert NameOID.SERIAL_NUMBER not in subject
    policies = leaf.extensions.get_extension_for_class(x509.CertificatePolicies).value
    assert [p.policy_identifier.dotted_string for p in policies] == ["2.23.140.1.2.2"]


def test_an_ev_certificate_needs_two_people_and_says_where_the_company_is_registered(
    product: World, site: Site
) -> None:
    detail, case_id = apply_for(product, site, "ev")
    desk.verify(product, case_id, specialist(product, "first@one.example"), specialist(product, "second@one.example"))
    product.drain()
    leaf = leaf_of(product, detail.id)
    subject = {a.oid: a.value for a in leaf.subject}
    facts = desk.facts()
    assert subject[NameOID.SERIAL_NUMBER] == facts["registration_number"]
    assert subject[NameOID.JURISDICTION_COUNTRY_NAME] == facts["jurisdiction_country"]
    assert subject[NameOID.BUSINESS_CATEGORY] == "Private Organization"
    policies = leaf.extensions.get_extension_for_class(x509.CertificatePolicies).value
    assert [p.policy_identifier.dotted_string for p in policies] == ["2.23.140.1.1"]


def test_an_organisation_the_desk_refuses_fails_the_application_with_its_reasons(product: World, site: Site) -> None:
    from certwright.rooms import organisations

    detail, case_id = apply_for(product, site, "ov")
    who = specialist(product, "first@one.example")
    desk.choose(product, case_id)
    desk.claim(product, who, case_id)
    product.run(organisations.refuse(product.services, who, case_id, ["Not in the register."]))
    product.drain()
    failed = look(product, detail.id)
    assert failed.summary.state is State.APPROVAL_FAILED
    assert failed.application is not None
    assert failed.application.failure is not None
    assert failed.application.failure["reasons"] == ["Not in the register."]


def test_an_application_waiting_for_the_desk_can_be_withdrawn(product: World, site: Site) -> None:
    detail, _case_id = apply_for(product, site, "ov")
    back = product.run(certificates.withdraw(product.services, product.actor, detail.id))
    assert back.summary.state is State.PENDING_APPLICATION
    draft = product.run(certificates.read_draft(product.services, product.actor, detail.id))
    assert draft["certificate_type"] == "ov"
    assert draft["organisation_id"]


def test_a_verified_organisation_is_used_again_for_the_next_certificate(product: World, site: Site) -> None:
    detail, case_id = apply_for(product, site, "ov")
    desk.verify(product, case_id, specialist(product, "first@one.example"))
    product.drain()
    first = look(product, detail.id).application
    assert first is not None
    second = create(product, wanted(certificate_type="ov", organisation_id=first.organisation_id))
    product.drain()
    assert look(product, second.id).summary.state is State.ISSUED


def test_another_accounts_organisation_is_not_named(product: World, site: Site) -> None:
    _, stranger, _ = product.run(product.add_account("eve@two.example"))
    foreign = desk.add(product, stranger)
    with pytest.raises(NotFound):
        create(product, wanted(certificate_type="ov", organisation_id=foreign.id))


def test_an_ov_certificate_renews_without_hands_while_its_organisation_is_verified(product: World, site: Site) -> None:
    detail, case_id = apply_for(product, site, "ov")
    desk.verify(product, case_id, specialist(product, "first@one.example"))
    product.drain()
    nobody = system_actor(product.account.id, "renewal")
    product.run(certificates.renew_version(product.services, nobody, detail.id))
    product.drain()
    done = look(product, detail.id)
    assert (done.summary.state, [version.number for version in done.versions]) == (State.ISSUED, [2, 1])
    subjects = {version.subject for version in done.versions}
    assert len(subjects) == 1
    assert desk.facts()["legal_name"] in subjects.pop()


# --- revoking OV and EV ---------------------------------------------------------------------------------------------


def issued_ov(world: World, site: Site) -> certificates.Detail:
    detail, case_id = apply_for(world, site, "ov")
    desk.verify(world, case_id, specialist(world, "first@one.example"))
    world.drain()
    return look(world, detail.id)


def revoke(world: World, certificate_id: str, reason: RevocationReason) -> certificates.Detail:
    world.run(certificates.revoke(world.services, world.actor, certificate_id, reason))
    world.drain()
    return look(world, certificate_id)


def mailed_secrets(world: World) -> list[str]:
    """The tokens of the links in the outbox, oldest first."""
    query = (
        sa.select(messages.c.text).where(messages.c.kind == "certificate.confirm_revocation").order_by(messages.c.id)
    )
    return [re.findall(r"/confirm-revocation\?token=([\w-]+)", row[0])[0] for row in rows(world, query)]


def test_an_ov_certificate_is_revoked_after_its_applicant_confirmed_the_mailed_link(product: World, site: Site) -> None:
    detail = issued_ov(product, site)
    asked = revoke(product, detail.id, RevocationReason.SUPERSEDED)
    assert asked.summary.state is State.VERIFYING_REVOCATION
    (secret,) = mailed_secrets(product)
    shown = product.run(certificates.look_revocation_link(product.services, secret))
    assert (shown.names, shown.reason, shown.address) == ((NAME,), "superseded", "ada@example.com")
    product.drain()
    assert look(product, detail.id).summary.state is State.VERIFYING_REVOCATION  # looking confirms nothing
    product.run(certificates.confirm_revocation(product.services, secret))
    product.drain()
    assert look(product, detail.id).summary.state is State.REVOKED


def test_the_link_of_a_revocation_works_once(product: World, site: Site) -> None:
    detail = issued_ov(product, site)
    revoke(product, detail.id, RevocationReason.SUPERSEDED)
    (secret,) = mailed_secrets(product)
    product.run(certificates.confirm_revocation(product.services, secret))
    with pytest.raises(Refused) as caught:
        product.run(certificates.confirm_revocation(product.services, secret))
    assert caught.value.code == "mailed_link_over"


@pytest.mark.parametrize("secret", ["", "x" * 43, "' OR 1=1 --"])
def test_a_link_that_is_not_ours_revokes_nothing(product: World, secret: str) -> None:
    with pytest.raises(Invalid) as caught:
        product.run(certificates.confirm_revocation(product.services, secret))
    assert caught.value.code == "mailed_link_unknown"


class Letters:
    """The applicant's mailbox."""

    def __init__(self) -> None:
        self.links: list[str] = []

    async def write(self, tx: Any, services: Any, letter: certificates.Letter) -> None:
        self.links.append(letter.link.partition("token=")[2])


def test_a_link_nobody_followed_in_30_days_is_dead_and_another_is_mailed(product: World, site: Site) -> None:
    mailbox = product.services.ports[certificates.Mail] = Letters()
    detail = issued_ov(product, site)
    revoke(product, detail.id, RevocationReason.SUPERSEDED)
    product.later(days=31)
    product.drain()
    first, second = mailbox.links
    with pytest.raises(Refused):
        product.run(certificates.confirm_revocation(product.services, first))
    product.run(certificates.confirm_revocation(product.services, second))
    product.drain()
    assert look(product, detail.id).summary.state is State.REVOKED


def shown_links(world: World, certificate_id: str) -> list[tuple[int, str, str]]:
    return [(link.version, link.address, link.state) for link in look(world, certificate_id).confirmations]


def test_a_certificate_says_whom_a_link_was_mailed_to_and_what_became_of_it(product: World, site: Site) -> None:
    product.services.ports[certificates.Mail] = mailbox = Letters()
    detail = issued_ov(product, site)
    assert look(product, detail.id).confirmations == ()
    revoke(product, detail.id, RevocationReason.SUPERSEDED)
    assert shown_links(product, detail.id) == [(1, "a…@example.com", "waiting")]
    product.later(days=31)
    assert shown_links(product, detail.id) == [(1, "a…@example.com", "ran_out")]
    product.drain()
    assert [state for _number, _to, state in shown_links(product, detail.id)] == ["waiting", "ran_out"]
    product.run(certificates.confirm_revocation(product.services, mailbox.links[-1]))
    assert [state for _number, _to, state in shown_links(product, detail.id)] == ["confirmed", "ran_out"]


def test_a_link_mailed_again_takes_the_place_of_the_one_before(product: World, site: Site) -> None:
    product.services.ports[certificates.Mail] = mailbox = Letters()
    detail = issued_ov(product, site)

    def again(actor: Any = None) -> None:
        product.run(certificates.mail_revocation_again(product.services, actor or product.actor, detail.id))

    with pytest.raises(Refused) as unasked:
        again()
    assert unasked.value.code == "no_confirmation_awaited"
    revoke(product, detail.id, RevocationReason.SUPERSEDED)
    with pytest.raises(TooMany) as hasty:
        again()
    assert hasty.value.code == "mailing_too_soon"
    product.later(minutes=6)
    with pytest.raises(Forbidden):
        again(product.actor_with("scm:cert:get", "scm:cert:list"))
    with pytest.raises(NotFound):
        again(product.other_actor)
    again()
    first, second = mailbox.links
    assert [state for _number, _to, state in shown_links(product, detail.id)] == ["waiting", "replaced"]
    with pytest.raises(Refused):
        product.run(certificates.confirm_revocation(product.services, first))
    product.run(certificates.confirm_revocation(product.services, second))
    product.drain()
    assert look(product, detail.id).summary.state is State.REVOKED
    with pytest.raises(Refused):
        again()


def test_the_old_version_of_a_reissued_ov_certificate_waits_for_the_mailed_link(product: World, site: Site) -> None:
    product.services.ports[certificates.Mail] = mailbox = Letters()
    detail = issued_ov(product, site)
    reissue(product, detail.id, key_algorithm="EC_P384")
    product.drain()
    assert (look(product, detail.id).summary.state, mailbox.links) == (State.ISSUED, [])
    product.later(days=product.services.settings.superseded_grace_days + 1)
    for _ in range(3):
        product.drain()
    assert look(product, detail.id).versions[1].revoked_at is None
    assert shown_links(product, detail.id) == [(1, "a…@example.com", "waiting")]
    product.run(certificates.confirm_revocation(product.services, mailbox.links[-1]))
    product.drain()
    assert look(product, detail.id).versions[1].revoked_at is not None
    assert look(product, detail.id).summary.state is State.ISSUED


def test_a_key_known_to_others_waits_for_nobody(product: World, site: Site) -> None:
    detail = issued_ov(product, site)
    assert revoke(product, detail.id, RevocationReason.KEY_COMPROMISE).summary.state is State.REVOKED
    assert mailed_secrets(product) == []


def test_a_dv_certificate_is_revoked_without_mail(product: World, site: Site) -> None:
    detail = issue(product, site)
    assert revoke(product, detail.id, RevocationReason.SUPERSEDED).summary.state is State.REVOKED
    assert mailed_secrets(product) == []


# --- withdrawal the CA decides on -----------------------------------------------------------------------------------


class Undecided:
    """A CA that has the order and takes its time; it can take an order back."""

    def __init__(self, real: Any, answer: Cancelled | TooLate) -> None:
        self.real, self.answer = real, answer
        self.capabilities = replace(real.capabilities, name="Undecided CA")
        self.patient = True
        self.cancelled: list[str] = []

    async def submit(self, order: Any) -> str:
        return str(await self.real.submit(order))

    async def collect(self, order_id: str, account_id: str) -> Any:
        if self.patient:
            return certificates.Pending(timedelta(hours=1))
        return await self.real.collect(order_id, account_id)

    async def cancel(self, order_id: str, account_id: str) -> Cancelled | TooLate:
        self.cancelled.append(order_id)
        return self.answer

    async def revoke(self, leaf_der: bytes, reason: RevocationReason, account_id: str) -> None:
        await self.real.revoke(leaf_der, reason, account_id)


def with_ca(world: World, answer: Cancelled | TooLate) -> Undecided:
    directory = world.services.port(AuthorityDirectory)
    ca = Undecided(directory.by_id["builtin"], answer)
    world.services.ports[AuthorityDirectory] = AuthorityDirectory({**directory.by_id, "slow": ca}, directory.outside)
    return ca


def reissue_waiting_at_the_ca(world: World, site: Site, ca: Undecided) -> certificates.Detail:
    ca.patient = False
    detail = issue(world, site, ca="slow")
    ca.patient = True
    world.later(seconds=1)  # ids of one moment have no order; nobody is that fast
    world.run(certificates.reissue(world.services, world.actor, detail.id))
    world.drain()
    assert look(world, detail.id).summary.state is State.VERIFYING_REISSUE
    return detail


def test_a_withdrawal_the_ca_agrees_to_leaves_nothing_ordered(product: World, site: Site) -> None:
    ca = with_ca(product, Cancelled())
    detail = reissue_waiting_at_the_ca(product, site, ca)
    asked = product.run(certificates.withdraw(product.services, product.actor, detail.id))
    assert asked.summary.state is State.VERIFYING_WITHDRAWAL
    product.drain()
    assert look(product, detail.id).summary.state is State.ISSUED
    assert len(look(product, detail.id).versions) == 1
    assert len(ca.cancelled) == 1


def test_a_withdrawal_that_comes_too_late_ends_with_the_certificate_the_ca_approved(product: World, site: Site) -> None:
    ca = with_ca(product, TooLate("approved a minute ago"))
    detail = reissue_waiting_at_the_ca(product, site, ca)
    product.run(certificates.withdraw(product.services, product.actor, detail.id))
    ca.patient = False
    product.drain()
    done = look(product, detail.id)
    assert (done.summary.state, len(done.versions)) == (State.ISSUED, 2)
    assert done.application is not None
    assert done.application.withdrawal_refused == "approved a minute ago"


def test_a_certificate_whose_withdrawal_the_ca_considers_can_still_be_downloaded(product: World, site: Site) -> None:
    ca = with_ca(product, Cancelled())
    detail = reissue_waiting_at_the_ca(product, site, ca)
    asked = product.run(certificates.withdraw(product.services, product.actor, detail.id))
    assert asked.allowed[Operation.WITHDRAW] is not None
    assert asked.allowed[Operation.DELETE] is not None


# --- a second CA ----------------------------------------------------------------------------------------------------


class Unwilling:
    """A first CA that answers every order with `answer`."""

    def __init__(self, real: Any, answer: Any) -> None:
        self.capabilities = replace(real.capabilities, name="Unwilling CA")
        self.answer = answer

    async def submit(self, order: Any) -> str:
        if isinstance(self.answer, Exception):
            raise self.answer
        return f"order of {order.reference}"

    async def collect(self, order_id: str, account_id: str) -> Any:
        return self.answer

    async def revoke(self, leaf_der: bytes, reason: RevocationReason, account_id: str) -> None:
        raise Refused("not_mine", "That is none of my certificates.")


def with_unwilling(world: World, answer: Any) -> None:
    directory = world.services.port(AuthorityDirectory)
    ca = Unwilling(directory.by_id["builtin"], answer)
    world.services.ports[AuthorityDirectory] = AuthorityDirectory({**directory.by_id, "first": ca}, directory.outside)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Refused("blocked", "This name is on the CA's list."), id="a CA that refuses the order"),
        pytest.param(certificates.Rejected(("No such thing.",)), id="a CA that rejects it later"),
    ],
)
def test_where_the_first_ca_refuses_for_reasons_of_its_own_the_second_issues(
    product: World, site: Site, answer: Any
) -> None:
    with_unwilling(product, answer)
    detail = create(product, wanted(), ca="first", fallback_ca="builtin")
    finish(product, site, detail)
    product.drain()
    done = look(product, detail.id)
    if done.summary.state is State.PENDING_DOMAIN_VALIDATION:  # what one CA saw is no proof for another
        done = finish(product, site, detail)
    assert (done.summary.state, done.summary.ca, done.fallback_ca) == (State.ISSUED, "builtin", "first")
    told = [
        entry.reason
        for entry in rows(
            product, sa.select(audit_events.c.reason).where(audit_events.c.action == "scm:cert:fall_over")
        )
    ]
    assert told
    assert all("CA's list" in reason or "No such thing" in reason for reason in told)


def test_a_first_ca_that_is_away_is_waited_for_and_then_left(product: World, site: Site) -> None:
    with_unwilling(product, Unavailable("ca_unreachable", "The CA can't be reached."))
    detail = create(product, wanted(), ca="first", fallback_ca="builtin")
    finish(product, site, detail)
    product.later(hours=product.services.settings.ca_patience_hours - 1)
    product.drain()
    assert look(product, detail.id).summary.ca == "first"
    product.later(hours=2)
    product.drain()
    if look(product, detail.id).summary.state is State.PENDING_DOMAIN_VALIDATION:
        finish(product, site, detail)
    done = look(product, detail.id)
    assert (done.summary.state, done.summary.ca) == (State.ISSUED, "builtin")


def test_when_the_second_ca_refuses_too_the_application_fails(product: World, site: Site) -> None:
    with_unwilling(product, Refused("blocked", "This name is on the CA's list."))
    directory = product.services.port(AuthorityDirectory)
    product.services.ports[AuthorityDirectory] = AuthorityDirectory(
        {**directory.by_id, "second": directory.by_id["first"]}, directory.outside
    )
    detail = create(product, wanted(), ca="first", fallback_ca="second")
    finish(product, site, detail)
    for _ in range(3):
        if look(product, detail.id).summary.state is State.PENDING_DOMAIN_VALIDATION:
            finish(product, site, detail)
    assert look(product, detail.id).summary.state is State.APPROVAL_FAILED


def test_what_the_first_ca_issued_is_revoked_there_also_after_a_change_of_cas(product: World, site: Site) -> None:
    detail = issue(product, site, fallback_ca=None)
    with_unwilling(product, Refused("blocked", "No."))

    async def change() -> None:
        async with product.services.db.begin() as tx:
            await tx.execute(sa.update(certificate_table).where(certificate_table.c.id == detail.id).values(ca="first"))

    product.run(change())
    assert revoke(product, detail.id, RevocationReason.SUPERSEDED).summary.state is State.REVOKED


@pytest.mark.parametrize(("second", "code"), [("builtin", "fallback_same"), ("nobody", "ca_unknown")])
def test_a_second_ca_is_another_one_that_exists(product: World, second: str, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        create(product, wanted(), fallback_ca=second)
    assert (caught.value.code, caught.value.field) == (code, "fallback_ca")


# --- forgetting the applicant ---------------------------------------------------------------------------------------


def test_withdrawing_the_privacy_authorisation_erases_the_person_and_leaves_the_certificate(
    product: World, site: Site
) -> None:
    detail = issue(product, site)
    assert applicants_of(product, detail.id) != [None]
    after = product.run(certificates.withdraw_privacy(product.services, product.actor, detail.id))
    assert applicants_of(product, detail.id) == [None]
    assert after.summary.state is State.ISSUED
    assert after.application is not None
    assert after.application.applicant is None
    assert after.allowed[Operation.WITHDRAW_PRIVACY] is not None


def test_a_certificate_whose_applicant_was_forgotten_still_renews_itself(product: World, site: Site) -> None:
    detail = issue(product, site)
    product.run(certificates.withdraw_privacy(product.services, product.actor, detail.id))
    product.run(certificates.renew_version(product.services, product.actor, detail.id))
    product.drain()
    assert len(look(product, detail.id).versions) == 2


def test_nobody_is_forgotten_while_they_may_still_be_asked(product: World) -> None:
    detail = create(product, wanted())
    with pytest.raises(Refused):
        product.run(certificates.withdraw_privacy(product.services, product.actor, detail.id))
    assert applicants_of(product, detail.id) != [None]


def test_forgetting_is_a_permission_of_its_own(product: World, site: Site) -> None:
    detail = issue(product, site)
    reader = product.actor_with("scm:cert:get", "scm:cert:update")
    with pytest.raises(Forbidden):
        product.run(certificates.withdraw_privacy(product.services, reader, detail.id))


# --- the port the deployment room answers ---------------------------------------------------------------------------


def test_a_version_nobody_deployed_is_not_served(product: World, site: Site) -> None:
    detail = issue(product, site)
    (version,) = rows(product, sa.select(versions.c.id).where(versions.c.certificate_id == detail.id))

    async def ask() -> bool:
        async with product.services.db.begin() as tx:
            return await deployment.Bindings().serves(tx, version[0])

    assert product.run(ask()) is False
