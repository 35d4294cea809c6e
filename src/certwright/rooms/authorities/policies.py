"""Policies of what private CAs issue: led here, and put to every request in one place, `gate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import IntegrityError

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Invalid, Problem, Refused, Stale, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, accounts, audit
from certwright.rooms.authorities import policy_rules, profiles, store
from certwright.rooms.authorities.policy_rules import Asked
from certwright.rooms.authorities.tables import ca_policies, issued_certificates
from certwright.rooms.authorities.words import CaPolicy, IssueRequest, PolicyLimits, PolicyTrial
from certwright.x509.issue import DAY

# --- judging ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Bound:
    """What binds one project at the CA. `used` is counted only where there is a quota."""

    policies: tuple[CaPolicy, ...]
    project: str = ""
    quota: CaPolicy | None = None
    used: int = 0


@dataclass(slots=True)
class Gate:
    """Says of each request of a batch whether it may be issued; told of those that were, it counts them."""

    authority: str
    _bound: Mapping[str, _Bound] = field(default_factory=dict)
    _internal: frozenset[str] = frozenset()

    def is_internal(self, request: IssueRequest) -> bool:
        """Whether it is the product's own, which nobody judges."""
        return request.internal or request.reference in self._internal

    def refusal(self, request: IssueRequest) -> Problem | None:
        bound = self._of(request)
        if bound is None:
            return None
        asked = Asked(
            bound.project, self.authority, request.profile, request.names,
            request.subject.common_name if request.subject else request.common_name, request.seconds,
        )  # fmt: skip
        problem = policy_rules.refusal(bound.policies, asked)
        if problem is None and bound.quota is not None and bound.used >= (bound.quota.limits.quota or 0):
            return policy_rules.quota_refusal(bound.quota, asked)
        return problem

    def longest(self, request: IssueRequest) -> int | None:
        """The longest life in seconds."""
        bound = self._of(request)
        return None if bound is None else policy_rules.longest_seconds(bound.policies)

    def count(self, request: IssueRequest) -> None:
        bound = self._of(request)
        if bound is not None:
            bound.used += 1

    def _of(self, request: IssueRequest) -> _Bound | None:
        return None if self.is_internal(request) else self._bound.get(request.project_id)


async def gate(tx: Tx, ca: Any, requests: Sequence[IssueRequest], now: datetime) -> Gate:
    """Gathers what binds these requests to the CA `ca`, a row of `store.row` or `store.visible_row`, which says whether
    there are policies. Where one sets a quota, the project's turn at this CA is held until the transaction ends: two
    that come at once can't both take the last place."""
    internal = await _renewals_of_our_own(tx, ca.account_id, requests)
    if not ca.policed:
        return Gate(ca.name, {}, internal)
    projects = {request.project_id for request in requests if not (request.internal or request.reference in internal)}
    policies = await _binding(tx, ca.account_id, ca.id, sorted(projects))
    found: dict[str, _Bound] = {}
    for project_id in sorted(projects) if policies else ():
        bound = await _bound(tx, policies, project_id)
        if bound.quota is not None:
            await tx.execute(
                sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"{ca.id}/{project_id}", 0)))
            )
            bound.used = await _count_good(tx, ca.id, project_id, now, bound.quota.limits.quota or 0)
        found[project_id] = bound
    return Gate(ca.name, found, internal)


# Asked for every certificate, so it is built once.
_BINDING = (
    sa.select(ca_policies)
    .where(
        ca_policies.c.account_id == sa.bindparam("account"),
        sa.or_(ca_policies.c.authority_id.is_(None), ca_policies.c.authority_id == sa.bindparam("authority")),
        sa.or_(
            ca_policies.c.project_id.is_(None),
            ca_policies.c.project_id == sa.any_(sa.bindparam("projects", type_=ARRAY(sa.Text))),
        ),
    )
    .order_by(sa.func.lower(ca_policies.c.name))
)


async def _binding(tx: Tx, account_id: str, authority_id: str, projects: Sequence[str]) -> list[CaPolicy]:
    values = {"account": account_id, "authority": authority_id, "projects": list(projects)}
    return [_shown(row) for row in await tx.execute(_BINDING, values)]


async def _bound(tx: Tx, policies: Sequence[CaPolicy], project_id: str) -> _Bound:
    own = tuple(policy for policy in policies if policy.project_id in (None, project_id))
    if not own:
        return _Bound(())
    project = await accounts.store.get_project(tx, sa.true(), project_id)
    return _Bound(own, project.name if project else project_id, policy_rules.narrowest_quota(own))


async def _count_good(tx: Tx, authority_id: str, project_id: str, now: datetime, most: int) -> int:
    """Certificates that are neither expired nor revoked, the product's own aside; counted up to `most`."""
    i = issued_certificates.c
    good = sa.select(sa.literal(1)).where(
        i.authority_id == authority_id, i.project_id == project_id, i.not_after > now, i.revoked_at.is_(None),
        sa.not_(i.internal),
    )  # fmt: skip
    return int(await tx.scalar(sa.select(sa.func.count()).select_from(good.limit(most).subquery())) or 0)


async def require_unlimited(tx: Tx, ca: Any, project_id: str) -> None:
    """A CA whose key is elsewhere certifies what it likes; so it is certified only where nothing limits that. Raises
    Refused `ca_certificate_policed`."""
    for policy in await _binding(tx, ca.account_id, ca.id, [project_id]):
        limits = policy.limits
        if limits.allowed or limits.refused or limits.profiles or not limits.wildcards:
            raise Refused(
                "ca_certificate_policed",
                f"The policy {policy.name!r} limits what the project may have from {ca.name!r}; a CA whose key is "
                "elsewhere would be bound by nothing.",
                fix="Ask in another project, or make the CA here, where policies bind what it issues.",
                extra={"policy": policy.name, "policy_id": policy.id},
            )  # fmt: skip


async def _renewals_of_our_own(tx: Tx, account_id: str, requests: Sequence[IssueRequest]) -> frozenset[str]:
    """References of requests that renew one of the product's own certificates, for no further name."""
    renewing = {request.replaces: request for request in requests if request.replaces is not None}
    if not renewing:
        return frozenset()
    i = issued_certificates.c
    rows = await tx.execute(
        sa.select(i.serial, i.names).where(i.account_id == account_id, i.serial.in_(list(renewing)), i.internal)
    )
    return frozenset(renewing[row.serial].reference for row in rows if set(renewing[row.serial].names) <= {*row.names})


async def names_refused(
    tx: Tx,
    account_id: str,
    project_id: str,
    authority_id: str,
    names: Sequence[str],
    profile: str | None,
    *,
    seconds: int | None = None,
    now: datetime | None = None,
) -> Problem | None:
    """Why a certificate with these names, kind and life would be refused, asked before anybody has to prove anything.

    With `now` a quota that is used up says so, too; it is held to when the certificate is issued. A `profile` of None
    isn't judged. Names are as they will stand in the certificate. Raises NotFound for a CA that isn't there.
    """
    policies = await _binding(tx, account_id, authority_id, [project_id])
    if not policies:
        return None
    ca = await store.row(tx, authority_id)
    bound = await _bound(tx, policies, project_id)
    asked = Asked(bound.project, ca.name, profile, tuple(names), seconds=seconds)
    problem = policy_rules.refusal(bound.policies, asked)
    if problem is None and bound.quota is not None and now is not None:
        quota = bound.quota.limits.quota or 0
        if await _count_good(tx, authority_id, project_id, now, quota) >= quota:
            return policy_rules.quota_refusal(bound.quota, asked)
    return problem


async def builtin_names_refused(
    tx: Tx, account_id: str, project_id: str, names: Sequence[str], now: datetime
) -> Problem | None:
    """The same for the built-in CA and its usual kind, in one query where there are no policies."""
    row = await store.builtin_issuing(tx, account_id)
    if row is None or not row.policed:
        return None
    return await names_refused(tx, account_id, project_id, row.id, names, None, now=now)


async def try_names(
    services: Services,
    actor: Actor,
    authority_id: str,
    names: Sequence[str],
    *,
    project_id: str | None = None,
    profile: str = "server",
    days: int | None = None,
) -> PolicyTrial:
    """What the policies that bind a project at a CA say, without issuing anything. Names as `leaves.judge_names` left
    them. Needs `ccm:policy:get` in the project and to see the CA."""
    access.require_somewhere(actor, "ccm:policy:get")
    now = services.clock.now()
    async with services.db.begin() as tx:
        project = await access.project_for(tx, actor, "ccm:policy:get", project_id)
        ca = await store.visible_row(tx, actor, "ccm:ca:get", authority_id)
        policies = await _binding(tx, actor.account_id, ca.id, [project])
        bound = await _bound(tx, policies, project)
        if bound.quota is not None:
            bound.used = await _count_good(tx, ca.id, project, now, policy_rules.LARGEST_QUOTA)
    asked = Asked(bound.project, ca.name, profile, tuple(names), seconds=None if days is None else days * DAY)
    problem = policy_rules.refusal(bound.policies, asked)
    quota = None if bound.quota is None else bound.quota.limits.quota
    if problem is None and bound.quota is not None and bound.used >= (quota or 0):
        problem = policy_rules.quota_refusal(bound.quota, asked)
    longest = policy_rules.longest_seconds(bound.policies)
    return PolicyTrial(
        verdicts=tuple(policy_rules.verdict(bound.policies, name) for name in names),
        problem=problem,
        policies=tuple(policy.name for policy in bound.policies),
        max_days=None if longest is None else longest // DAY,
        quota=quota,
        used=None if quota is None else bound.used,
    )


# --- leading them ----------------------------------------------------------------------------------------------------


def _shown(row: Any) -> CaPolicy:
    limits = PolicyLimits(
        allowed=tuple(row.allowed), refused=tuple(row.refused), wildcards=row.wildcards, profiles=tuple(row.profiles),
        max_days=row.max_days, quota=row.quota,
    )  # fmt: skip
    return CaPolicy(
        row.id, row.name, row.project_id, row.authority_id, limits, row.created_at, row.updated_at, row.revision
    )


async def list_policies(services: Services, actor: Actor) -> list[CaPolicy]:
    """By name. Needs `ccm:policy:list`; whoever has it in one project sees that project's alone."""
    p = ca_policies.c
    query = sa.select(ca_policies).where(access.visible(ca_policies, actor, "ccm:policy:list"))
    async with services.db.begin() as tx:
        rows = (await tx.execute(query.order_by(sa.func.lower(p.name)))).all()
    return [_shown(row) for row in rows]


async def get_policy(services: Services, actor: Actor, policy_id: str) -> CaPolicy:
    """Raises NotFound."""
    async with services.db.begin() as tx:
        return _shown(await _visible(tx, actor, "ccm:policy:get", policy_id))


async def create_policy(
    services: Services,
    actor: Actor,
    name: str,
    limits: PolicyLimits,
    *,
    project_id: str | None = None,
    authority_id: str | None = None,
) -> CaPolicy:
    """For one project and CA, or without them for all of the account. What was issued stays as it is.

    Needs `ccm:policy:create` there, and to see the CA. Raises what `policy_rules.judge_policy` says, Invalid
    `profile_unknown`, Refused `ca_policy_name_taken`, `ca_policy_count`, NotFound for a project or CA that isn't seen.
    """
    access.require_somewhere(actor, "ccm:policy:create")
    said = policy_rules.judge_policy(name, limits)
    now = services.clock.now()
    try:
        async with services.db.begin() as tx:
            if project_id is not None:
                await access.project_for(tx, actor, "ccm:policy:create", project_id)
            else:
                access.require(actor, "ccm:policy:create")
            if authority_id is not None:
                await _seen_ca(tx, actor, authority_id)
            await _judge_profiles(tx, actor.account_id, said)
            await _judge_count(tx, actor.account_id)
            row = (
                await tx.execute(
                    sa.insert(ca_policies)
                    .values(
                        _columns(said) | {
                            "id": new_id("cpl", now), "account_id": actor.account_id, "project_id": project_id,
                            "authority_id": authority_id, "name": name.strip(), "created_at": now, "updated_at": now,
                        }
                    )
                    .returning(ca_policies)
                )
            ).one()  # fmt: skip
            await audit.record(
                tx, services, actor, "ccm:policy:create", "ca-policy", row.id, project_id=project_id,
                after={"name": row.name, "authority_id": authority_id} | _columns(said),
            )  # fmt: skip
    except IntegrityError:
        raise _name_taken(name) from None
    return _shown(row)


async def update_policy(
    services: Services,
    actor: Actor,
    policy_id: str,
    changes: Mapping[str, Any],
    *,
    revision: int | None = None,
) -> CaPolicy:
    """`changes` holds `name` and fields of `PolicyLimits`, those that change; project and CA stay. Counts for what is
    issued from now on. Needs `ccm:policy:update`. Raises Stale and what `create_policy` raises."""
    try:
        async with services.db.begin() as tx:
            old = await _visible(tx, actor, "ccm:policy:update", policy_id, lock=True)
            if revision is not None and revision != old.revision:
                raise Stale("stale", "Somebody changed this policy meanwhile.",
                            fix="Load it again and repeat the change.")  # fmt: skip
            before = _shown(old)
            name = str(changes.get("name", before.name)).strip()
            limits = replace(before.limits, **{key: value for key, value in changes.items() if key != "name"})
            said = policy_rules.judge_policy(name, limits)
            await _judge_profiles(tx, actor.account_id, said)
            values = {"name": name} | _columns(said)
            changed = {key: value for key, value in values.items() if value != getattr(old, key)}
            if not changed:
                return before
            p = ca_policies.c
            row = (
                await tx.execute(
                    sa.update(ca_policies)
                    .where(p.id == policy_id)
                    .values(changed | {"updated_at": services.clock.now(), "revision": p.revision + 1})
                    .returning(ca_policies)
                )
            ).one()
            await audit.record(
                tx, services, actor, "ccm:policy:update", "ca-policy", policy_id, project_id=old.project_id,
                before={key: getattr(old, key) for key in changed}, after=changed,
            )  # fmt: skip
    except IntegrityError:
        raise _name_taken(str(changes.get("name", ""))) from None
    return _shown(row)


async def delete_policy(services: Services, actor: Actor, policy_id: str) -> None:
    """From now on the others decide. Needs `ccm:policy:delete`."""
    async with services.db.begin() as tx:
        old = await _visible(tx, actor, "ccm:policy:delete", policy_id, lock=True)
        await tx.execute(sa.delete(ca_policies).where(ca_policies.c.id == policy_id))
        await audit.record(
            tx, services, actor, "ccm:policy:delete", "ca-policy", policy_id, project_id=old.project_id,
            before={"name": old.name, "authority_id": old.authority_id} | _columns(_shown(old).limits),
        )  # fmt: skip


def _columns(limits: PolicyLimits) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(limits).items()}


async def _visible(tx: Tx, actor: Actor, action: str, policy_id: str, *, lock: bool = False) -> Any:
    """Raises NotFound for a policy that may not be seen, Forbidden for one that may be seen only."""
    p = ca_policies.c
    seen = sa.or_(access.visible(ca_policies, actor, "ccm:policy:get"), access.visible(ca_policies, actor, action))
    query = sa.select(ca_policies).where(p.id == policy_id, seen)
    row = (await tx.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise not_found("policy of private CAs", policy_id)
    access.require(actor, action, project_id=row.project_id, resource=f"ca-policy:{policy_id}")
    return row


async def _seen_ca(tx: Tx, actor: Actor, authority_id: str) -> None:
    try:
        await store.visible_row(tx, actor, "ccm:ca:get", authority_id)
    except Problem as problem:
        raise problem.at("authority_id") from None


async def _judge_profiles(tx: Tx, account_id: str, limits: PolicyLimits) -> None:
    known = await profiles.leaf_profiles(tx, account_id, set(limits.profiles))
    unknown = [name for name in limits.profiles if name not in known]
    if unknown:
        raise Invalid("profile_unknown", f"There is no profile {unknown[0][:40]!r} for certificates.",
                      field="profiles", fix="Choose from the list of profiles.")  # fmt: skip


async def _judge_count(tx: Tx, account_id: str) -> None:
    count = await tx.scalar(sa.select(sa.func.count()).where(ca_policies.c.account_id == account_id))
    if int(count or 0) >= policy_rules.MOST_POLICIES:
        raise Refused(
            "ca_policy_count", f"The account has {policy_rules.MOST_POLICIES} policies, as many as it may have.",
            fix="Delete some that aren't needed; one can hold the rules of several.",
        )  # fmt: skip


def _name_taken(name: str) -> Refused:
    return Refused("ca_policy_name_taken", f"There is already a policy called {name.strip()[:100]!r}.", field="name",
                   fix="Choose another name, or change that policy.")  # fmt: skip
