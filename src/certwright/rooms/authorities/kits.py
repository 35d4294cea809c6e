"""What a listener with mutual TLS and its client need, in one step: a CA, a client's key and certificate, the lists."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from itertools import pairwise

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from certwright.kernel.actor import Actor
from certwright.kernel.problems import Problem
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, keys
from certwright.rooms.authorities import hierarchy, leaves, lists, store
from certwright.rooms.authorities.tables import authorities, issued_certificates
from certwright.rooms.authorities.words import CaRequest, Leaf, LeafRequest
from certwright.x509 import bundles
from certwright.x509.certificates import facts_of
from certwright.x509.issue import Subject


async def client_kit(
    services: Services,
    actor: Actor,
    request: LeafRequest,
    *,
    authority_id: str | None = None,
    ca_name: str = "",
    project_id: str | None = None,
    legacy: bool = False,
) -> tuple[str, bytes]:
    """File name and zip (see `x509.bundles.client_kit`): a further client of the CA `authority_id`, or the first one
    of a new hierarchy `ca_name`, whose lists are made at once. Audited as making CAs, issuing and exporting are.

    Needs `ccm:cert:issue` and `ccm:cert:export`, for a new CA `ccm:ca:create`. Raises what those actions raise.
    """
    access.require_somewhere(actor, "ccm:cert:export")
    if authority_id is None:
        authority_id, made = await _with_hierarchy(services, actor, ca_name, project_id, request)
    else:
        (answer,) = await leaves.issue_leaves(services, actor, authority_id, [request], project_id=project_id)
        if isinstance(answer, Problem):
            raise answer
        made = answer
    i = issued_certificates.c
    async with services.db.begin() as tx:
        key_id = await tx.scalar(sa.select(i.key_id).where(i.id == made.id))
        above, crls, days, missing = await _above(tx, services, authority_id)
    key = await keys.open_key(services, actor, str(key_id), f"client kit with certificate {made.id}")
    name = next(iter(made.names), "") or facts_of(made.der).common_name or made.serial
    kit = bundles.ClientKit(
        client=bundles.Contents(name, [made.der, *(der for der in above if not facts_of(der).self_signed)], key),
        authorities=above, crls=crls, crl_days=days, missing=missing,
    )  # fmt: skip
    content = await asyncio.to_thread(
        bundles.client_kit, kit, at=services.clock.now(), random=os.urandom, legacy=legacy
    )
    return f"{bundles.safe_file_name(name)}-mutual-tls.zip", content


async def _with_hierarchy(
    services: Services, actor: Actor, name: str, project_id: str | None, request: LeafRequest
) -> tuple[str, Leaf]:
    """A root and, below it, a CA for clients only, with its first client: all of them or, where the client can't have
    its certificate, none."""
    access.require_somewhere(actor, "ccm:ca:create")
    said = name.strip()
    call = await leaves.prepared(actor, [request])
    try:
        async with services.db.begin() as tx:
            project = await access.project_for(tx, actor, "ccm:ca:create", project_id)
            root = await hierarchy.create_in(
                tx, services, actor, project,
                CaRequest(f"{said} root", Subject(common_name=f"{said} root"[:64]), path_len=1),
            )  # fmt: skip
            low = await hierarchy.create_in(
                tx, services, actor, project,
                CaRequest(
                    said, Subject(common_name=said[:64]), parent_id=root.id, path_len=0, purposes=("client_auth",)
                ),
            )  # fmt: skip
            (answer,) = await leaves.issue_in(tx, services, [call], low.id, project)
            (made,) = [answer] if isinstance(answer, Problem) else answer
            if isinstance(made, Problem):
                raise made
    except IntegrityError:
        raise hierarchy.name_taken(said) from None
    return low.id, made


_Missing = list[tuple[str, tuple[str, ...]]]


async def _above(
    tx: Tx, services: Services, authority_id: str
) -> tuple[list[bytes], list[tuple[bytes, str]], int, _Missing]:
    """Certificates from the CA to its root, the newest lists of each, how many days the shortest is good, and whose
    lists are led elsewhere."""
    found: list[bytes] = []
    crls: list[tuple[bytes, str]] = []
    days = 30
    place: str | None = authority_id
    while place is not None:
        ca = (
            await tx.execute(sa.select(authorities).where(authorities.c.id == place).with_for_update(key_share=True))
        ).one()
        await lists.publish(tx, services, ca)
        found.append(ca.certificate_der)
        for shard in range(ca.crl_shards):
            newest = await lists.newest(tx, ca.id, shard)
            crls.append((newest.der, store.crl_url(services, ca.id, shard)))
        days = min(days, ca.crl_days)
        place = ca.parent_id
    missing = _led_elsewhere([found[-1], *ca.outside_chain])
    return [*found, *ca.outside_chain], crls, days, missing


def _led_elsewhere(ders: Sequence[bytes]) -> _Missing:
    """The CAs above the first of these certificates, with where each is said to publish its list."""
    known = [facts_of(der) for der in ders]
    missing = [(above.subject, below.crl_urls) for below, above in pairwise(known)]
    if not known[-1].self_signed:
        missing.append((f"{known[-1].issuer} (and its certificate into ca.pem)", known[-1].crl_urls))
    return missing
