"""Random walks through the real service on a real database, compared with the pure table of allowed operations."""

from __future__ import annotations

import contextlib
from typing import Any

import hypothesis
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from certwright.kernel.problems import NotFound, Refused
from certwright.rooms import certificates
from certwright.rooms.certificates import Operation, RevocationReason, State
from certwright.rooms.certificates.tables import applications, versions
from certwright.rooms.keys.tables import private_keys
from tests.certificates.test_lifecycle import (
    APPLICANT,
    NAME,
    Site,
    create,
    look,
    product,
    publish_all,
    rows,
    settings,
    site,
    wanted,
)
from tests.conftest import World

__all__ = ["product", "settings", "site"]

MOVES = (Operation.APPLY, Operation.WITHDRAW, Operation.VERIFY_DOMAINS, Operation.REISSUE, Operation.REVOKE,
         Operation.REVOKE_EARLIER, Operation.ADD_DOMAINS, Operation.APPLY_AGAIN, Operation.WITHDRAW_PRIVACY,
         Operation.DOWNLOAD, Operation.EXPORT_KEY, Operation.DELETE)  # fmt: skip
STEPS = st.lists(st.sampled_from([*MOVES, "publish", "workers run", "30 days pass"]), min_size=4, max_size=14)
BUSY = {State.TO_BE_ISSUED, State.VERIFYING_REVOCATION}


def do(world: World, certificate_id: str, move: Operation, names: tuple[str, ...] = (NAME,)) -> None:
    services, actor = world.services, world.actor
    world.later(seconds=1)  # nobody is that fast; checks on demand are limited
    work: dict[Operation, Any] = {
        Operation.APPLY: lambda: certificates.apply(services, actor, certificate_id, wanted(*names)),
        Operation.WITHDRAW: lambda: certificates.withdraw(services, actor, certificate_id),
        Operation.VERIFY_DOMAINS: lambda: certificates.check_domains(services, actor, certificate_id),
        Operation.REISSUE: lambda: certificates.reissue(services, actor, certificate_id),
        Operation.REVOKE: lambda: certificates.revoke(services, actor, certificate_id, RevocationReason.SUPERSEDED),
        Operation.REVOKE_EARLIER: lambda: certificates.revoke(
            services,
            actor,
            certificate_id,
            RevocationReason.SUPERSEDED,
            version_id=an_earlier_version(world, certificate_id),
        ),
        # A name of its own each time: one that is there already is wrong input, not a forbidden operation.
        Operation.ADD_DOMAINS: lambda: certificates.add_domains(
            services,
            actor,
            certificate_id,
            [f"n{int(world.clock.now().timestamp())}.demo.localhost"],
            certificates.Changes(applicant=APPLICANT),
        ),
        Operation.APPLY_AGAIN: lambda: certificates.apply_again(services, actor, certificate_id),
        Operation.WITHDRAW_PRIVACY: lambda: certificates.withdraw_privacy(services, actor, certificate_id),
        Operation.DOWNLOAD: lambda: certificates.download(services, actor, certificate_id, "fullchain"),
        Operation.EXPORT_KEY: lambda: certificates.download(services, actor, certificate_id, "key"),
        Operation.DELETE: lambda: certificates.delete_certificate(services, actor, certificate_id),
    }
    world.run(work[move]())


def an_earlier_version(world: World, certificate_id: str) -> str:
    """One that is as good as any: still valid and not revoked, if there is such a version."""
    known = look(world, certificate_id).versions[1:]
    good = [v.id for v in known if v.revoke_asked_at is None and v.not_after > world.clock.now()]
    ids = [*good, *(v.id for v in known)]
    if not ids:
        raise Refused("no_earlier_version", "There is no earlier version.")
    return ids[0]


def check_facts(world: World, certificate_id: str) -> None:
    detail = look(world, certificate_id)
    current = [v for v in detail.versions if v.superseded_at is None]
    assert len(current) == (1 if detail.versions else 0)
    assert [v.number for v in detail.versions] == list(range(len(detail.versions), 0, -1))
    has_version = (State.ISSUED, State.VERIFYING_REISSUE, State.VERIFYING_DOMAIN_ADDITION, State.REVOKED, State.EXPIRED)
    if detail.summary.state in has_version:
        assert current
    used = {
        r[0]
        for table in (applications, versions)
        for r in rows(world, sa.select(table.c.key_id).where(table.c.certificate_id == certificate_id))
        if r[0] is not None
    }
    held = {r[0] for r in rows(world, sa.select(private_keys.c.id).where(private_keys.c.erased_at.is_(None)))}
    assert used <= held


@hypothesis.settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps=STEPS, names=st.sampled_from([(NAME,), (NAME, "b.demo.localhost")]))
def test_no_walk_finds_an_operation_the_table_and_the_service_disagree_about(
    product: World, site: Site, steps: list[Operation | str], names: tuple[str, ...]
) -> None:
    detail = create(product)
    product.drain()
    for step in steps:
        if step == "workers run":
            product.drain()
        elif step == "30 days pass":
            product.later(days=30)
        elif step == "publish":
            if look(product, detail.id).validation is not None:
                publish_all(product, site, detail)
        else:
            assert isinstance(step, Operation)
            verdict = look(product, detail.id).allowed[step]
            code = None
            try:
                do(product, detail.id, step, names)
            except Refused as refused:
                code = refused.code
            if code is None:
                assert verdict is None, f"{step} worked although the table refuses it"
                if step is Operation.DELETE:
                    break
            else:
                # Two refusals the table can't foresee, because they are races with the workers.
                assert verdict is not None or code in ("no_open_application", "withdrawal_too_late")
        check_facts(product, detail.id)
    with contextlib.suppress(NotFound):
        finish(product, site, detail)


def finish(world: World, site: Site, detail: certificates.Detail) -> None:
    """From wherever the walk ended, the certificate can be brought to a state of rest: nothing is stuck."""
    for _ in range(3):
        if look(world, detail.id).validation is not None:
            publish_all(world, site, detail)
            with contextlib.suppress(Refused):
                do(world, detail.id, Operation.VERIFY_DOMAINS)
        world.drain()
    state = look(world, detail.id).summary.state
    assert state not in BUSY
    if state in (State.PENDING_DOMAIN_VALIDATION, State.VERIFYING_REISSUE, State.VERIFYING_DOMAIN_ADDITION):
        do(world, detail.id, Operation.WITHDRAW)
        assert look(world, detail.id).summary.state in (
            State.PENDING_APPLICATION, State.ISSUED, State.EXPIRED, State.REVOKED,
        )  # fmt: skip
