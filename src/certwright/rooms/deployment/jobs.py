"""The step of a rollout: claim, act on the target with no transaction open, record, go on. Killed anywhere, another
worker runs the same step again and the target finds what is done already."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog

from certwright.kernel.actor import system_actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Problem, Refused
from certwright.platform.db import Tx, assert_no_transaction
from certwright.platform.events import Event
from certwright.platform.jobs import Again, Next
from certwright.platform.services import Services
from certwright.rooms import audit, certificates, keys
from certwright.rooms.deployment import actions, rules, store
from certwright.rooms.deployment.ports import Target
from certwright.rooms.deployment.words import Discovery, Material, Plan, RolloutState, Step, StepResult, Trigger

log = structlog.get_logger(__name__)

_WAIT_FOR_TARGET = timedelta(seconds=2)
_KEEP_AGAIN = timedelta(seconds=30)
_UNDO_AGAIN = timedelta(seconds=5)


async def rollout_step(services: Services, rollout_id: str) -> Next:
    """Run the rollout's next step and record how it went."""
    async with services.db.begin() as tx:
        row = await store.rollout(tx, rollout_id)
        if row is None or row.finished_at is not None:
            return None
        if row.started_at is None:
            other = await store.begin_rollout(tx, rollout_id, row.target_id, services.clock.now())
            if other is not None:
                # The rollout before it starts this one when it ends; looking again now and then costs little.
                raise Again(
                    _WAIT_FOR_TARGET, rules.why_wait(other.id, RolloutState(other.state), row.target, other.problem)
                )
        target_row = await store.target(tx, row.target_id)
        step = Step(row.next_step)
        step_id = None
        if row.state == RolloutState.FAILED.value:
            # Tried for days, it would fill the history: one note stands for all these tries.
            step_id = await store.last_step(tx, rollout_id, step)
        if step_id is None:
            step_id = await store.begin_step(
                tx, id=new_id("rst", services.clock.now()), account_id=row.account_id, project_id=row.project_id,
                rollout_id=rollout_id, step=step.value, started_at=services.clock.now(),
            )  # fmt: skip
    assert_no_transaction()
    target = actions.open_target(services, target_row)
    plan = Plan.from_dict(row.plan) if row.plan else None
    try:
        plan, result = await _act(services, target, row, step, plan)
    except Problem as problem:
        if problem.code == "target_busy":
            raise Again(_WAIT_FOR_TARGET, problem) from problem
        if step is Step.KEEP:
            # What was seen served is not taken back because tidying up failed.
            raise Again(_KEEP_AGAIN, problem) from problem
        return await _refused(services, row, step, step_id, problem, await _look(target, step))
    return await _done(services, row, step, step_id, plan, result, await _look(target, step))


async def _act(
    services: Services, target: Target, row: Any, step: Step, plan: Plan | None
) -> tuple[Plan | None, StepResult]:
    if step is Step.PLAN:
        made = await _plan(services, target, row)
        said = tuple(f"{'Replace' if change.exists else 'Create'} {change.path}" for change in made.changes)
        return made, StepResult(step, said)
    if plan is None:
        # Undone before it was planned: there is nothing on the target.
        return None, StepResult(step, ("Nothing had been planned.",))
    match step:
        case Step.STAGE:
            return plan, await target.stage(plan, await _materials(services, row, plan))
        case Step.TEST:
            return plan, await target.test(plan)
        case Step.ACTIVATE:
            return plan, await target.activate(plan)
        case Step.VERIFY:
            return plan, await target.verify(plan)
        case Step.KEEP:
            return plan, await target.keep(plan)
        case Step.UNDO:
            return plan, await target.undo(plan)


async def _plan(services: Services, target: Target, row: Any) -> Plan:
    async with services.db.begin() as tx:
        items = await store.items_of(tx, [row.id])
        found = {site.id: site for site in await store.sites_by_id(tx, [item.site_id for item in items])}
        versions = {item.id: await certificates.version_material(tx, item.version_id) for item in items}
    deployments = []
    for item in items:
        version, site = versions[item.id], found.get(item.site_id)
        if version is None or site is None:
            raise Refused(
                "version_missing" if version is None else "site_missing",
                f"What was to be put on {item.site_label} is gone." if version is None
                else f"{item.site_label} is not there any more.",
                fix="Start a new deployment.",
            )  # fmt: skip
        problem = rules.why_not_deploy(actions.version_facts(version), services.clock.now())
        if problem is not None:
            raise problem
        deployments.append(actions.deployment_of(version, site.key))
    assert_no_transaction()
    return await target.plan(row.id, deployments)


async def _materials(services: Services, row: Any, plan: Plan) -> dict[str, Material]:
    """Certificates and private keys of the planned versions; every key read is audited."""
    actor = system_actor(row.account_id, "deployment")
    out = {}
    for version_id in sorted({change.version_id for change in plan.changes}):
        async with services.db.begin() as tx:
            version = await certificates.version_material(tx, version_id)
        if version is None or version.key_id is None:
            raise Refused("version_missing", "The version to deploy is gone.", fix="Start a new deployment.")
        why = f"deployed to {row.target} by rollout {row.id}, asked for by {row.requested_by}"
        key = await keys.open_key(services, actor, version.key_id, why)
        out[version_id] = Material(version_id, version.leaf_der, version.chain_ders, key)
    return out


async def _look(target: Target, step: Step) -> Discovery | None:
    """What is installed after a step that changes files, so that nobody reads yesterday's state."""
    if step not in (Step.KEEP, Step.UNDO):
        return None
    try:
        return await target.discover()
    except Problem as problem:
        log.info("sites could not be listed after a rollout", code=problem.code)
        return None


async def _done(
    services: Services, row: Any, step: Step, step_id: str, plan: Plan | None, result: StepResult,
    seen: Discovery | None,
) -> Next:  # fmt: skip
    now = services.clock.now()
    after = rules.following(step)
    state = {Step.KEEP: RolloutState.DEPLOYED, Step.UNDO: RolloutState.UNDONE}.get(step, RolloutState.RUNNING)
    async with services.db.begin() as tx:
        values: dict[str, Any] = {"finished_at": now} if after is None else {}
        if step is Step.UNDO:
            values["problem"] = rules.undone_for(row.problem)
        if step is Step.PLAN and plan is not None:
            items = await store.items_of(tx, [row.id])
            values["plan"] = plan.as_dict()
            values["plan"]["cautions"] = [*(await _coverage(tx, items)), *values["plan"]["cautions"]]
        if not await store.move_rollout(tx, row.id, step, after, state, **values):
            return None
        await store.end_step(tx, step_id, finished_at=now, outcome="done", details=list(result.details), problem=None)
        if seen is not None:
            await actions.record_discovery(tx, services, row.target_id, seen)
        if after is None:
            await _finish(tx, services, row, state, rules.undone_for(row.problem))
    return None if after is None else timedelta(0)


async def _coverage(tx: Tx, items: Any) -> list[dict[str, Any]]:
    out = []
    for item in items:
        version = await certificates.version_material(tx, item.version_id)
        found = await store.sites_by_id(tx, [item.site_id])
        if version is not None:
            out += [caution.as_dict() for caution in actions.coverage(found, version)]
    return out


async def _refused(
    services: Services, row: Any, step: Step, step_id: str, problem: Problem, seen: Discovery | None
) -> Next:
    now = services.clock.now()
    log.warning("rollout step refused", rollout=row.id, step=step.value, code=problem.code)
    async with services.db.begin() as tx:
        await store.end_step(tx, step_id, finished_at=now, outcome="failed", problem=problem.as_dict())
        undo_failures = await store.failed_undos(tx, row.id, row.undo_asked_at) if step is Step.UNDO else 0
        state, after = rules.after_failure(step, undo_failures)
        said = rules.undone_for(row.problem) or (problem.as_dict() if step is not Step.UNDO else None)
        if state is RolloutState.FAILED:
            said = rules.undo_failed(row.id, row.target, problem, said).as_dict()
        values: dict[str, Any] = {"problem": said}
        if after is None:
            values["finished_at"] = now
        if not await store.move_rollout(tx, row.id, step, after, state, **values):
            return None
        if seen is not None:
            await actions.record_discovery(tx, services, row.target_id, seen)
        if after is None:
            await _finish(tx, services, row, state, said)
            return None
        if state is RolloutState.FAILED and row.state != state.value:
            await _tell(tx, services, row, state, said, await store.items_of(tx, [row.id]))
    if state is RolloutState.FAILED:
        tries = row.step_attempts if row.state == state.value else 0
        raise Again(rules.undo_again_after(tries), problem)
    return timedelta(0) if step is not Step.UNDO else _UNDO_AGAIN * 2 ** (undo_failures - 1)


async def _finish(tx: Tx, services: Services, row: Any, state: RolloutState, problem: Any) -> None:
    """Bring the bindings in line with what is on the target now, tell, and let the next rollout begin."""
    items = await store.items_of(tx, [row.id])
    for item in items:
        binding = await store.binding(tx, item.binding_id, lock=True) if item.binding_id else None
        if binding is None:
            continue
        if state is RolloutState.DEPLOYED:
            await _now_deployed(tx, services, row, item, binding)
        else:
            await _as_before(tx, services, row, item, binding)
    await _tell(tx, services, row, state, problem, items)
    following = await store.next_waiting(tx, row.target_id)
    if following is not None:
        await services.jobs.start(tx, actions.STEP, following)


async def _tell(tx: Tx, services: Services, row: Any, state: RolloutState, problem: Any, items: Sequence[Any]) -> None:
    """Other rooms and the audit log: how it ended, or that it can't be ended without a person."""
    asked_for = state is RolloutState.UNDONE and row.undo_asked_at is not None
    kind = "finished" if state is RolloutState.DEPLOYED else "undone" if asked_for else "failed"
    certificate_ids = sorted({item.certificate_id for item in items})
    await services.events.publish(
        tx, f"deployment.rollout_{kind}", account_id=row.account_id, object_id=row.id,
        payload={
            "rollout_id": row.id, "target_id": row.target_id, "project_id": row.project_id, "state": state.value,
            "certificate_ids": certificate_ids, "problem": None if kind == "finished" else problem,
        },
    )  # fmt: skip
    await audit.record(
        tx, services, system_actor(row.account_id, "deployment"), "scm:cert:deploy", "rollout", row.id,
        project_id=row.project_id, before={"state": row.state},
        after={"state": state.value, "certificates": certificate_ids}, reason=(problem or {}).get("code", ""),
    )  # fmt: skip


async def _now_deployed(tx: Tx, services: Services, row: Any, item: Any, binding: Any) -> None:
    moved = item.previous_certificate_id != item.certificate_id
    await store.update_binding(
        tx, binding.id, deployed_version_id=item.version_id, deployed_at=services.clock.now(), rollout_id=row.id,
        retry_at=None, failures=0,
    )  # fmt: skip
    if moved and item.previous_certificate_id is not None:
        await services.events.publish(
            tx, "deployment.binding_removed", account_id=row.account_id, object_id=binding.id,
            payload={"binding_id": binding.id, "certificate_id": item.previous_certificate_id,
                     "project_id": row.project_id},
        )  # fmt: skip
    if moved or item.previous_version_id is None:
        await actions.tell_binding_created(tx, services, binding.id)


async def _as_before(tx: Tx, services: Services, row: Any, item: Any, binding: Any) -> None:
    """An undone rollout leaves the binding as it found it; one made for it goes."""
    previous = item.previous_certificate_id
    gone = item.made_binding or previous is None
    if not gone and previous != binding.certificate_id:
        # The previous certificate may have been deleted since, as nothing was bound to it any more.
        gone = await certificates.current_version(tx, previous) is None
    if gone:
        await actions.remove_binding(tx, services, binding)
        return
    await store.update_binding(tx, binding.id, certificate_id=previous, deployed_version_id=item.previous_version_id)
    if previous != binding.certificate_id and binding.deployed_version_id == item.version_id:
        await services.events.publish(
            tx, "deployment.binding_removed", account_id=row.account_id, object_id=binding.id,
            payload={"binding_id": binding.id, "certificate_id": binding.certificate_id,
                     "project_id": row.project_id},
        )  # fmt: skip
        await actions.tell_binding_created(tx, services, binding.id)
    if row.undo_asked_at is None:
        await _count_failure(tx, services, row, binding)


async def _count_failure(tx: Tx, services: Services, row: Any, binding: Any) -> None:
    """What started by itself is tried again by itself; what a person asked for is the person's to repeat."""
    if row.trigger == Trigger.NEW_VERSION.value:
        failures = binding.failures + 1
        at = services.clock.now() + rules.retry_after(failures)
        await store.update_binding(tx, binding.id, failures=failures, retry_at=at)


async def version_issued(services: Services, told: Sequence[Event]) -> None:
    """Listener: certificates have new versions; bring them to where the certificates are used."""
    async with services.db.begin() as tx:
        used = await store.certificates_bound(tx, [event.object_id for event in told])
    for event in told:
        if event.object_id in used:
            async with services.db.begin() as tx:
                await actions.redeploy(tx, services, event.object_id, str(event.payload["version_id"]))
