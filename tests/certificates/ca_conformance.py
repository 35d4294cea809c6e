"""What every CA behind `rooms.certificates.CertificateAuthority` must do. A connector's test subclasses this and
supplies `subject`: the wired product with the CA in its directory, and a way to publish what the CA asks to see.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.serialization import Encoding

from certwright.kernel.ids import new_id
from certwright.kernel.problems import Problem
from certwright.rooms import certificates
from certwright.rooms.certificates import (
    STEP,
    Applicant,
    Application,
    AuthorityDirectory,
    Cancelled,
    Cancels,
    CertificateAuthority,
    CertificateOrder,
    Challenging,
    Detail,
    Issued,
    Needs,
    Operation,
    Pending,
    Rejected,
    RevocationReason,
    State,
    TooLate,
    Wanted,
)
from certwright.rooms.watch.tables import alarms as alarm_table
from certwright.x509.certificates import read_certificate
from certwright.x509.csr import make_csr
from certwright.x509.keys import KeyAlgorithm, PrivateKey, generate, spki_sha256
from tests.conftest import World
from tests.servers.tls import issue

_PATIENCE = 200


class _No(Exception):
    """The CA refused for good; its words."""


@dataclass(frozen=True)
class Subject:
    """`ca` is what certificates are ordered from by, `names` are names it will certify, `publish` puts in place what it
    wants to see."""

    world: World
    ca: str
    names: tuple[str, ...]
    publish: Callable[[Wanted], None]
    method: str = "file"

    @property
    def authority(self) -> CertificateAuthority:
        """Found anew, as after a restart of the process."""

        async def find() -> CertificateAuthority:
            async with self.world.services.db.begin() as tx:
                directory = self.world.services.port(certificates.AuthorityDirectory)
                found = await directory.find(tx, self.world.account.id, self.ca)
            assert found is not None
            return found[1]

        return self.world.run(find())

    def order(self, key: PrivateKey | None = None, reference: str | None = None) -> CertificateOrder:
        chosen = key or generate(KeyAlgorithm.EC_P256)
        return CertificateOrder(
            reference=reference or new_id("app", self.world.clock.now()), account_id=self.world.account.id,
            project_id=self.world.project_id, names=self.names, csr_der=make_csr(chosen, self.names),
            methods=dict.fromkeys(self.names, self.method),
        )  # fmt: skip

    def submit(self, order: CertificateOrder) -> str:
        return self.world.run(self.authority.submit(order))

    def collect(self, order_id: str) -> Any:
        return self.world.run(self.authority.collect(order_id, self.world.account.id))

    def until_issued(self, order_id: str) -> Issued:
        """Do what the certificates room does, without its waiting."""
        authority = self.authority
        for _ in range(_PATIENCE):
            match self.collect(order_id):
                case Issued() as issued:
                    return issued
                case Needs(wanted):
                    assert isinstance(authority, Challenging)
                    for one in wanted:
                        self.publish(one)
                    self.world.run(authority.proceed(order_id, self.world.account.id))
                case Pending(again):
                    assert again.total_seconds() > 0
                case Rejected(reasons):
                    assert reasons
                    raise _No(*reasons)
        raise AssertionError("it takes too long")


class _Altered:
    """A CA that answers `pending` times that it isn't done, and then what `change` makes of the truth."""

    def __init__(self, real: CertificateAuthority) -> None:
        self._real = real
        self.pending = 0
        self.answered = 0
        self.change: Callable[[Issued], Issued] = lambda issued: issued

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def collect(self, order_id: str, account_id: str) -> Any:
        answer = await self._real.collect(order_id, account_id)
        if not isinstance(answer, Issued):
            return answer
        if self.pending:
            self.pending -= 1
            return Pending(timedelta(seconds=1))
        self.answered += 1
        return self.change(answer)


def apply_through(subject: Subject, authority: _Altered) -> Detail:
    """From application to the end, with this authority in the CA's place."""
    world = subject.world
    usual = world.services.port(AuthorityDirectory)
    altered: Any = {**usual.by_id, "altered": authority}
    world.services.ports[AuthorityDirectory] = AuthorityDirectory(altered, usual.outside)  # type: ignore[index]
    try:
        asked = Application(
            names=subject.names, validation_method=subject.method, consent=True,
            applicant=Applicant("Ada Lovelace", "ada@example.com", "+44 20 7946 0000"),
        )  # fmt: skip
        made = world.run(
            certificates.create_certificate(world.services, world.actor, application=asked, ca="altered")
        )  # fmt: skip
        for _ in range(_PATIENCE):
            world.drain()
            detail = look(subject, made.id)
            if detail.summary.state not in (State.PENDING_DOMAIN_VALIDATION, State.TO_BE_ISSUED):
                return detail
            publish_shown(subject, detail)
            world.later(seconds=2)
        raise AssertionError(f"it takes too long: {detail.summary.state} {detail.validation}")
    finally:
        world.services.ports[AuthorityDirectory] = usual  # type: ignore[index]


def look(subject: Subject, certificate_id: str) -> Detail:
    world = subject.world
    return world.run(certificates.get_certificate(world.services, world.actor, certificate_id))


def publish_shown(subject: Subject, detail: Detail) -> None:
    """Put in place what the certificate's page asks for."""
    for domain in detail.validation.domains if detail.validation else ():
        place, value = ("", "")
        if domain.file is not None:
            place, value = domain.file.name, domain.file.content
        elif domain.record is not None:
            place, value = domain.record.name, domain.record.value
        if value and domain.status == "pending":
            subject.publish(Wanted(domain.name, domain.method, place, value, subject.world.clock.now()))
    if detail.validation and detail.allowed[Operation.VERIFY_DOMAINS] is None:
        world = subject.world
        with contextlib.suppress(Problem):  # looked at a moment ago
            world.run(certificates.check_domains(world.services, world.actor, detail.id))


def stranger(names: Sequence[str]) -> bytes:
    """A certificate nobody asked for."""
    return issue(names[0], names=names).certificate.public_bytes(Encoding.DER)


async def open_alarms(world: World, certificate_id: str) -> list[str]:
    async with world.services.db.begin() as tx:
        query = sa.select(alarm_table.c.kind).where(
            alarm_table.c.object_id == certificate_id, alarm_table.c.cleared_at.is_(None)
        )
        return list((await tx.scalars(query)).all())


class CaConformance:
    """Inherit in a class named Test…, with a fixture `subject`."""

    def test_it_says_what_it_is(self, subject: Subject) -> None:
        told = subject.authority.capabilities
        assert told.name
        assert subject.method in told.methods
        assert RevocationReason.UNSPECIFIED in told.revocation_reasons
        assert told.challenges == isinstance(subject.authority, Challenging)

    def test_an_order_ends_in_a_certificate_for_its_names_and_key(self, subject: Subject) -> None:
        key = generate(KeyAlgorithm.EC_P256)
        issued = subject.until_issued(subject.submit(subject.order(key)))
        leaf = read_certificate(issued.leaf_der)
        assert set(leaf.dns_names) == set(subject.names)
        assert leaf.spki_sha256 == spki_sha256(key)
        assert issued.chain_ders
        assert read_certificate(issued.chain_ders[0]).subject == leaf.issuer

    def test_the_same_reference_is_the_same_order_even_after_a_restart(self, subject: Subject) -> None:
        order = subject.order()
        first = subject.submit(order)
        assert subject.submit(order) == first
        issued = subject.until_issued(first)
        assert subject.submit(order) == first
        assert subject.until_issued(first) == issued

    def test_two_references_are_two_certificates(self, subject: Subject) -> None:
        leaves = {subject.until_issued(subject.submit(subject.order())).leaf_der for _ in range(2)}
        assert len(leaves) == 2

    def test_a_ca_with_challenges_issues_nothing_before_its_leave(self, subject: Subject) -> None:
        if not subject.authority.capabilities.challenges:
            pytest.skip("this CA validates nothing itself")
        order_id = subject.submit(subject.order())
        for _ in range(2):
            found = subject.collect(order_id)
            assert isinstance(found, Needs)
            for one in found.wanted:
                assert one.name in subject.names
                assert one.value
                subject.publish(one)
        assert isinstance(subject.collect(order_id), Needs)

    def test_another_tenant_finds_no_order(self, subject: Subject) -> None:
        order_id = subject.submit(subject.order())
        with pytest.raises(Problem) as caught:
            subject.world.run(subject.authority.collect(order_id, subject.world.other_account.id))
        assert caught.value.code == "not_found"

    def test_an_order_nobody_made_is_not_found(self, subject: Subject) -> None:
        with pytest.raises(Problem) as caught:
            subject.collect("nothing")
        assert caught.value.code == "not_found"

    def test_revoking_twice_is_revoking_once(self, subject: Subject) -> None:
        leaf = subject.until_issued(subject.submit(subject.order())).leaf_der
        for _ in range(2):
            subject.world.run(subject.authority.revoke(leaf, RevocationReason.SUPERSEDED, subject.world.account.id))

    def test_a_wrong_signing_request_is_refused_for_good(self, subject: Subject) -> None:
        order = subject.order()
        broken = CertificateOrder(
            order.reference, order.account_id, order.project_id, order.names, b"no request", order.methods
        )
        with pytest.raises(_No):
            self._until_refused(subject, broken)

    def test_an_order_taken_back_is_never_issued(self, subject: Subject) -> None:
        authority = subject.authority
        if not isinstance(authority, Cancels):
            pytest.skip("this CA issues at once")
        order_id = subject.submit(subject.order())
        for _ in range(2):
            assert isinstance(subject.world.run(authority.cancel(order_id, subject.world.account.id)), Cancelled)
        assert isinstance(subject.collect(order_id), Rejected)

    def test_what_was_issued_is_too_late_to_take_back(self, subject: Subject) -> None:
        authority = subject.authority
        if not isinstance(authority, Cancels):
            pytest.skip("this CA issues at once")
        order_id = subject.submit(subject.order())
        issued = subject.until_issued(order_id)
        answer = subject.world.run(authority.cancel(order_id, subject.world.account.id))
        assert isinstance(answer, TooLate)
        assert answer.words
        assert subject.until_issued(order_id).leaf_der == issued.leaf_der

    def test_a_ca_that_answers_late_and_twice_yields_one_version(self, subject: Subject) -> None:
        late = _Altered(subject.authority)
        late.pending = 3
        detail = apply_through(subject, late)
        assert detail.summary.state is State.ISSUED, detail.application
        assert len(detail.versions) == 1
        assert late.answered >= 1
        # The step of an application that is over is run again, as after a crash: the CA's second answer is not wanted.
        assert detail.application is not None
        subject.world.run(subject.world.services.jobs.run_step(subject.world.services, STEP, detail.application.id))
        assert len(look(subject, detail.id).versions) == 1

    def test_whatever_else_a_ca_returns_is_refused_recorded_and_alarmed(self, subject: Subject) -> None:
        strangers = stranger(subject.names), stranger(["evil.example"])
        lies: dict[str, Callable[[Issued], Issued]] = {
            "issued_other_names": lambda issued: Issued(strangers[1], issued.chain_ders),
            "issued_other_key": lambda issued: Issued(strangers[0], issued.chain_ders),
            "issued_other_chain": lambda issued: Issued(issued.leaf_der, (strangers[0],)),
            "issued_unreadable": lambda issued: Issued(b"garbage", issued.chain_ders),
        }
        for code, lie in lies.items():
            lying = _Altered(subject.authority)
            lying.change = lie
            detail = apply_through(subject, lying)
            assert detail.versions == ()
            assert detail.application is not None
            assert detail.application.failure is not None, detail.application
            assert detail.application.failure["code"] == code
            assert detail.summary.state is State.APPROVAL_FAILED
            alarms = subject.world.run(open_alarms(subject.world, detail.id))
            assert alarms == ["ALM-2001017"], code

    def _until_refused(self, subject: Subject, order: CertificateOrder) -> None:
        """Raises _No once the CA has said no, at whichever call it says it."""
        try:
            issued = subject.until_issued(subject.submit(order))
        except Problem as problem:
            if problem.status in (409, 422):
                raise _No from problem
            raise
        raise AssertionError(f"it was issued: {issued}")
