"""What tests of CAs do with the product: add a CA, apply, publish, work until it is over."""

from __future__ import annotations

from typing import Any

from certwright.platform.jobs import drain
from certwright.rooms import cas, certificates
from certwright.rooms.certificates import Applicant, Application, Operation, State
from tests.cas.site import Site
from tests.conftest import World
from tests.servers.certcentral import FakeCertCentral

APPLICANT = Applicant("Ada Lovelace", "ada@example.com", "+44 20 7946 0000")
UNDER_WAY = (State.PENDING_DOMAIN_VALIDATION, State.TO_BE_ISSUED, State.VERIFYING_REISSUE, State.VERIFYING_REVOCATION)


def add(world: World, directory_url: str, root_pem: str, **changes: Any) -> cas.Ca:
    options: dict[str, Any] = {
        "name": "acme", "directory_url": directory_url, "root_pem": root_pem, "public": False,
        "contacts": ("ops@example.com",), "agree_terms": True,
    } | changes  # fmt: skip
    return world.run(cas.add_ca(world.services, world.actor, **options))


def add_shop(world: World, ca: FakeCertCentral, **changes: Any) -> cas.Ca:
    """A CA that sells, called shop."""
    options: dict[str, Any] = {
        "name": "shop", "kind": "certcentral", "directory_url": ca.base_url, "root_pem": ca.root_pem, "public": False,
        "api_key": ca.key,
    } | changes  # fmt: skip
    return world.run(cas.add_ca(world.services, world.actor, **options))


def apply(world: World, *names: str, method: str = "file", ca: str = "acme", **changes: Any) -> certificates.Detail:
    asked = Application(names=names, validation_method=method, applicant=APPLICANT, consent=True)
    return world.run(certificates.create_certificate(world.services, world.actor, application=asked, ca=ca, **changes))


def look(world: World, certificate_id: str) -> certificates.Detail:
    return world.run(certificates.get_certificate(world.services, world.actor, certificate_id))


def check(world: World, certificate_id: str) -> None:
    """Look at what is published now, if anything waits to be."""
    if look(world, certificate_id).allowed[Operation.VERIFY_DOMAINS] is None:
        world.run(certificates.check_domains(world.services, world.actor, certificate_id))


def publish_all(world: World, web: Site, certificate_id: str) -> list[str]:
    """Put what is asked for on the site; the URLs. None when the CA asks for nothing (more)."""
    found = look(world, certificate_id).validation
    files = [domain.file for domain in found.domains if domain.file is not None] if found is not None else []
    for file in files:
        web.publish(file.url, file.content)
    return [file.url for file in files]


def finish(world: World, certificate_id: str, *, rounds: int = 60) -> certificates.Detail:
    """Work until nothing is under way: a real CA takes its own time, whatever the product's clock says."""
    for _ in range(rounds):
        world.run(drain(world.services, rounds=4))
        detail = look(world, certificate_id)
        if detail.summary.state not in UNDER_WAY:
            return detail
        if detail.application is not None and detail.application.validated_at is None and detail.validation:
            check(world, certificate_id)
    raise AssertionError(f"still under way: {detail.summary.state} {detail.application} {detail.validation}")


def issue(world: World, web: Site, *names: str, **changes: Any) -> certificates.Detail:
    made = apply(world, *names, **changes)
    world.drain()
    publish_all(world, web, made.id)
    detail = finish(world, made.id)
    assert detail.summary.state is State.ISSUED, detail.application
    return detail


def why(detail: certificates.Detail) -> str:
    """What the failure of an application says."""
    assert detail.application is not None
    assert detail.application.failure is not None, detail.application
    return f"{detail.application.failure['code']}: {detail.application.failure['message']}"


def rows(world: World, query: Any) -> list[Any]:
    async def read() -> list[Any]:
        async with world.services.db.begin() as tx:
            return list((await tx.execute(query)).all())

    return world.run(read())
