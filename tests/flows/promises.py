"""What must hold after anything that ever happens: nothing lost, nothing doubled, nothing stuck, all of it on record.

A trigger of the test's own notes every change of a certificate's stage, whoever makes it, so that the transitions and
the audit trail can be compared with what the specification allows.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

import sqlalchemy as sa

from certwright.rooms import audit
from certwright.rooms.billing.tables import ledger_accounts, ledger_postings
from certwright.rooms.certificates import State
from tests.flows.stage import Stage

S = State

MAY_BECOME: dict[State | None, set[State]] = {
    None: {S.PENDING_APPLICATION, S.HOSTED, S.ISSUED},
    S.PENDING_APPLICATION: {S.PENDING_DOMAIN_VALIDATION, S.REFUND_REVIEW},
    S.APPROVAL_FAILED: {S.PENDING_DOMAIN_VALIDATION},
    S.PENDING_DOMAIN_VALIDATION: {
        S.TO_BE_ISSUED, S.PENDING_ORGANIZATION_VALIDATION, S.APPROVAL_FAILED, S.VERIFYING_WITHDRAWAL,
        S.PENDING_APPLICATION,
    },
    S.PENDING_ORGANIZATION_VALIDATION: {
        S.TO_BE_ISSUED, S.ISSUED, S.APPROVAL_FAILED, S.VERIFYING_WITHDRAWAL, S.PENDING_APPLICATION,
    },
    S.TO_BE_ISSUED: {S.ISSUED, S.APPROVAL_FAILED},
    S.ISSUED: {S.VERIFYING_REISSUE, S.VERIFYING_DOMAIN_ADDITION, S.VERIFYING_REVOCATION},
    # A reissue that ends without a version falls back to whatever became of the version there is.
    S.VERIFYING_REISSUE: {S.ISSUED, S.VERIFYING_WITHDRAWAL, S.VERIFYING_REVOCATION, S.REVOKED},
    S.VERIFYING_DOMAIN_ADDITION: {S.ISSUED, S.VERIFYING_WITHDRAWAL, S.VERIFYING_REVOCATION, S.REVOKED},
    S.VERIFYING_WITHDRAWAL: {
        S.PENDING_APPLICATION, S.ISSUED, S.TO_BE_ISSUED, S.PENDING_ORGANIZATION_VALIDATION, S.VERIFYING_REISSUE,
        S.VERIFYING_DOMAIN_ADDITION, S.APPROVAL_FAILED, S.VERIFYING_REVOCATION, S.REVOKED,
    },
    # Back to issued, and shown as expired, when it ran out before the CA took the revocation.
    S.VERIFYING_REVOCATION: {S.REVOKED, S.REVOCATION_PENDING_DOMAIN_VALIDATION, S.ISSUED},
    S.REVOCATION_PENDING_DOMAIN_VALIDATION: {S.REVOKED, S.VERIFYING_REVOCATION, S.ISSUED},
    S.REVOKED: {S.PENDING_APPLICATION, S.REFUND_REVIEW},
    S.REFUND_REVIEW: {S.PENDING_APPLICATION, S.REVOKED},
    S.HOSTED: set(),
}  # fmt: skip
"""The stored stages a certificate may go to from each; `expired` is computed from the clock. From the table of
operations of the specification, typed in by hand."""

_NOTES = """
CREATE TABLE IF NOT EXISTS noted_stages
    (n bigserial PRIMARY KEY, certificate_id text NOT NULL, before text, after text NOT NULL);
CREATE OR REPLACE FUNCTION note_stage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR OLD.stage <> NEW.stage THEN
        INSERT INTO noted_stages (certificate_id, before, after)
        VALUES (NEW.id, CASE TG_OP WHEN 'INSERT' THEN NULL ELSE OLD.stage END, NEW.stage);
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER note_stage AFTER INSERT OR UPDATE ON certificates
    FOR EACH ROW EXECUTE FUNCTION note_stage();
"""


async def take_notes(stage: Stage) -> None:
    async with stage.main.services.db.begin() as tx:
        for statement in _NOTES.split(";\nCREATE"):
            await tx.exec_driver_sql(statement if statement.lstrip().startswith("CREATE") else "CREATE" + statement)


async def check_everything(stage: Stage, where: str) -> None:
    await check_transitions(stage, where)
    await check_outside(stage, where)
    await check_inside(stage, where)
    await check_audit(stage, where)


async def check_transitions(stage: Stage, where: str) -> dict[str, list[tuple[State | None, State]]]:
    """Every change of stage is one the specification knows, and the audit log tells of it. By certificate."""
    noted: dict[str, list[tuple[State | None, State]]] = defaultdict(list)
    for row in await stage.rows("SELECT certificate_id, before, after FROM noted_stages ORDER BY n"):
        noted[row.certificate_id].append((State(row.before) if row.before else None, State(row.after)))
    told: dict[str, list[Any]] = defaultdict(list)
    for row in await stage.rows(
        "SELECT object_id, before->>'state' AS before, after->>'state' AS after FROM audit_events "
        "WHERE object_type = 'certificate' AND after->>'state' IS NOT NULL ORDER BY id"
    ):
        told[row.object_id].append(row)
    for certificate_id, changes in noted.items():
        for before, after in changes:
            assert after in MAY_BECOME[before], f"{where}: {before} became {after}"
        heard = [row.after for row in told[certificate_id]]
        # What was told without a change (of a version, say) repeats the state there is.
        heard = [state for state, _ in itertools.groupby(heard)]
        seen = [state.value for state, _ in itertools.groupby(after for _, after in changes)]
        assert heard == seen, f"{where}: the stage went {seen}, and the audit log says {heard}"
    return noted


async def check_outside(stage: Stage, where: str) -> None:
    """At the CAs: one certificate an order, no order without its application, nothing left on order by mistake."""
    known = {row.id: row for row in await stage.rows("SELECT * FROM applications")}
    deleted = {row.object_id for row in await stage.rows(
        "SELECT object_id FROM audit_events WHERE action = 'scm:cert:delete'"
    )}  # fmt: skip
    for key, order in stage.books.orders.items():
        reference = order.order.reference
        assert stage.books.signed[reference] <= 1, f"{where}: {key} was issued {stage.books.signed[reference]} times"
        if order.order.certificate_type.names_organisation:
            assert order.order.organisation, f"{where}: {key} is for nobody's organization"
        attempt = known.get(reference)
        if attempt is None:
            assert deleted, f"{where}: an order {key} of no application"
            continue
        over = attempt.failed_at or attempt.withdrawn_at
        live = not order.cancelled and order.mood in ("willing", "slow") and order.leaf is None
        told = order.told_to_go or "asking" not in key
        assert not (over and live and told), f"{where}: {key} is over here and still on order at the CA"
    ours = {bytes(row.leaf_der) for row in await stage.rows("SELECT leaf_der FROM versions")}
    for key, order in stage.books.orders.items():
        if order.leaf is not None and order.mood == "willing" and order.order.reference in known:
            assert order.leaf in ours, f"{where}: the certificate of {key} got lost"
    revoked = {bytes(row.leaf_der) for row in await stage.rows(
        "SELECT leaf_der FROM versions WHERE revoked_at IS NOT NULL AND ca IN ('house', 'second', 'asking')"
    )}  # fmt: skip
    assert revoked <= set(stage.books.revoked), f"{where}: revoked here and not at the CA"


async def check_inside(stage: Stage, where: str) -> None:
    """In the database: no orphan keys, no two current versions, leases and events given back, the books right."""
    orphans = await stage.rows(
        "SELECT id FROM private_keys k WHERE sealed IS NOT NULL "
        "AND NOT EXISTS (SELECT FROM versions v WHERE v.key_id = k.id) "
        "AND NOT EXISTS (SELECT FROM applications a WHERE a.key_id = k.id) "
        "AND NOT k.id = ANY(:furnished)",
        furnished=stage.furnished_keys,
    )
    assert not orphans, f"{where}: keys that belong to nothing: {orphans}"
    wrong = await stage.rows(
        "SELECT c.id, c.stage FROM certificates c WHERE c.current_version_id IS DISTINCT FROM "
        "(SELECT v.id FROM versions v WHERE v.certificate_id = c.id AND v.superseded_at IS NULL)"
    )
    assert not wrong, f"{where}: another version is the current one: {wrong}"
    waiting = await stage.rows(
        "SELECT c.id, c.stage FROM certificates c WHERE c.stage IN "
        "('pending_domain_validation', 'pending_organization_validation', 'to_be_issued', 'verifying_reissue', "
        "'verifying_domain_addition', 'verifying_withdrawal') AND NOT EXISTS "
        "(SELECT FROM applications a WHERE a.certificate_id = c.id AND a.issued_at IS NULL "
        "AND a.withdrawn_at IS NULL AND a.failed_at IS NULL AND a.next_step_at IS NOT NULL)"
    )
    assert not waiting, f"{where}: nobody will ever look after {waiting}"
    silent = await stage.rows(
        "SELECT c.id, c.stage FROM certificates c WHERE c.stage IN "
        "('verifying_revocation', 'revocation_pending_domain_validation') AND NOT EXISTS (SELECT FROM versions v "
        "WHERE v.id = c.current_version_id AND v.revoke_asked_at IS NOT NULL AND v.next_step_at IS NOT NULL)"
    )
    assert not silent, f"{where}: nobody will ever revoke {silent}"
    # Summed up by the database: nothing was made or lost, and each account's kept balance is its postings' sum.
    p, a = ledger_postings.c, ledger_accounts.c
    async with stage.main.services.db.begin() as tx:
        assert not (
            await tx.execute(sa.select(p.transaction_id).group_by(p.transaction_id).having(sa.func.sum(p.amount) != 0))
        ).all(), f"{where}: a transaction that doesn't add up"
        assert not (
            await tx.execute(
                sa.select(a.id).outerjoin(ledger_postings, p.ledger_account_id == a.id).group_by(a.id, a.balance)
                .having(a.balance != sa.func.coalesce(sa.func.sum(p.amount), 0))
            )
        ).all(), f"{where}: a balance that is not the sum of its postings"  # fmt: skip


async def check_audit(stage: Stage, where: str) -> None:
    await audit.seal(stage.main.services)
    verdict = await audit.verify(stage.main.services.db, now=stage.clock.now())
    assert verdict.ok, f"{where}: {verdict.explanation}"


async def check_rest(stage: Stage, where: str) -> None:
    """After the workers ran: no lease is held, no event undelivered, no step waits with a problem."""
    leased = " UNION ALL ".join(
        f"SELECT '{step.name}' AS step, id, step_problem FROM {step.table.name} "
        "WHERE step_lease_until IS NOT NULL OR step_problem IS NOT NULL"
        for step in stage.main.services.jobs.steps.values()
    )
    held = await stage.rows(leased)
    assert not held, f"{where}: still held or in trouble: {held}"
    assert not await stage.rows("SELECT id FROM events WHERE delivered_at IS NULL"), f"{where}: an event nobody heard"
