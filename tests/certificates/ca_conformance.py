"""What every CA behind `rooms.certificates.CertificateAuthority` must do. A connector's test subclasses this and
supplies `subject`: the wired product with the CA in its directory, and a way to publish what the CA asks to see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from certwright.kernel.ids import new_id
from certwright.kernel.problems import Problem
from certwright.rooms import certificates
from certwright.rooms.certificates import (
    CertificateAuthority,
    CertificateOrder,
    Challenging,
    Issued,
    Needs,
    Pending,
    Rejected,
    RevocationReason,
    Wanted,
)
from certwright.x509.certificates import read_certificate
from certwright.x509.csr import make_csr
from certwright.x509.keys import KeyAlgorithm, PrivateKey, generate, spki_sha256
from tests.conftest import World

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
            methods=dict.fromkeys(self.names, "file"),
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


class CaConformance:
    """Inherit in a class named Test…, with a fixture `subject`."""

    def test_it_says_what_it_is(self, subject: Subject) -> None:
        told = subject.authority.capabilities
        assert told.name
        assert "file" in told.methods
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

    def _until_refused(self, subject: Subject, order: CertificateOrder) -> None:
        """Raises _No once the CA has said no, at whichever call it says it."""
        try:
            issued = subject.until_issued(subject.submit(order))
        except Problem as problem:
            if problem.status in (409, 422):
                raise _No from problem
            raise
        raise AssertionError(f"it was issued: {issued}")
