"""The HSM as an operator sees it, and keys that no CA came to use."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
import structlog

from certwright.kernel.actor import Actor
from certwright.kernel.problems import Forbidden, Problem
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, accounts
from certwright.rooms.authorities.signer import Signer
from certwright.rooms.authorities.tables import authorities, ca_keys, ocsp_responders
from certwright.rooms.authorities.words import HsmState, KeyStore

log = structlog.get_logger(__name__)

# No transaction that makes a CA lasts so long.
_ABANDONED = timedelta(hours=1)


async def hsm_state(services: Services, actor: Actor, *, anew: bool = False) -> HsmState:
    """The token as it is now, and whether the keys of our CAs are in it. `anew` tries a PIN that was refused before.

    For administrators of the operator's account: needs `iam:setting:get`, with `anew` `iam:setting:update`. Raises
    Forbidden; what is wrong with the HSM stands in the answer.
    """
    action = "iam:setting:update" if anew else "iam:setting:get"
    access.require(actor, action)
    async with services.db.begin() as tx:
        operator = await accounts.store.first_account(tx)
        if operator is None or operator.id != actor.account_id:
            raise Forbidden("operator_only", "The HSM belongs to whoever runs this server.",
                            fix="Ask an administrator of the first account.")  # fmt: skip
    token = await services.port(Signer).token_state(anew=anew)
    async with services.db.begin() as tx:
        held = await _keys_in_token(tx, token.label)
    there = frozenset(token.handles)
    known = token.problem is None
    return HsmState(
        token=token,
        keys=sum(handle in there for handle in held) if known else None,
        missing=tuple(sorted(name for handle, name in held.items() if known and name and handle not in there)),
    )


async def _keys_in_token(tx: Tx, label: str) -> dict[str, str]:
    """Handle to the name of the CA that has the key; empty where none has."""
    k, a = ca_keys.c, authorities.c
    query = (
        sa.select(k.token_key, sa.func.coalesce(a.name, "").label("name"))
        .outerjoin(authorities, a.ca_key_id == k.id)
        .where(k.store == KeyStore.HSM, k.token_label == label, k.erased_at.is_(None))
    )
    return {row.token_key: row.name for row in (await tx.execute(query)).all()}


async def destroy_abandoned(services: Services) -> None:
    """Keys made, in the HSM or by a signing process of its own, for CAs that then weren't made; content to find none.
    One that can't be destroyed now is tried again with the next look."""
    k = ca_keys.c
    used = sa.or_(
        sa.exists().where(authorities.c.ca_key_id == k.id), sa.exists().where(ocsp_responders.c.ca_key_id == k.id)
    )
    before = services.clock.now() - _ABANDONED
    query = sa.select(k.id).where(k.erased_at.is_(None), k.created_at < before, ~used)
    async with services.db.read() as tx:
        found = (await tx.scalars(query)).all()
    for key_id in found:
        try:
            async with services.db.begin() as tx:
                await services.port(Signer).erase_key(tx, key_id)
        except Problem as problem:
            # Its token may be another than today's; the others needn't wait for it.
            log.warning("a key no CA uses stays for now", key=key_id, code=problem.code, reason=problem.message)
            continue
        log.info("a key no CA uses was destroyed", key=key_id)
