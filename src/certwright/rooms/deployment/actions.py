"""What people and other rooms can do with targets, bindings and rollouts: gather facts, ask the rules, write, queue."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from cryptography import x509
from sqlalchemy.exc import IntegrityError

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Invalid, Problem, Refused, Stale, not_found
from certwright.platform.db import Tx, assert_no_transaction
from certwright.platform.services import Services
from certwright.rooms import access, audit, certificates
from certwright.rooms.certificates import Operation, VersionMaterial
from certwright.rooms.deployment import rules, store
from certwright.rooms.deployment.ports import Target, TargetKind, TargetKinds, Workspace
from certwright.rooms.deployment.tables import bindings, rollouts, targets
from certwright.rooms.deployment.words import (
    BindingView,
    Caution,
    Deployment,
    Discovery,
    Health,
    KeyKind,
    Preview,
    RolloutItemView,
    RolloutState,
    RolloutStepView,
    RolloutView,
    SiteView,
    Step,
    TargetView,
    Trigger,
    key_kind,
    site_as_dict,
    site_from_dict,
)

STEP = "deployment.rollout"

log = structlog.get_logger(__name__)

_MOST_SITES = 200
# As enumerated: undo comes last, whatever it follows. Ids alone don't order what began in one millisecond.
_STEP_ORDER = tuple(Step)


# --- targets --------------------------------------------------------------------------------------------------------


async def create_target(
    services: Services,
    actor: Actor,
    *,
    name: str,
    kind: str,
    config: Mapping[str, Any],
    region: str = "",
    project_id: str | None = None,
) -> TargetView:
    """A new target; nothing is looked at yet. Raises Invalid for name, region, kind and each field of config, Refused
    `target_name_taken`, and `server_taken` when a target of any account or project is that server already."""
    name, region = rules.judge_target_name(name), rules.judge_region(region)
    connector = services.port(TargetKinds).get(kind)
    checked = connector.check_config(config)
    now = services.clock.now()
    target_id = new_id("tgt", now)
    async with services.db.begin() as tx:
        project = await access.project_for(tx, actor, "scm:target:create", project_id)
        if not await store.insert_target(
            tx, id=target_id, account_id=actor.account_id, project_id=project, name=name, kind=kind, region=region,
            config=dict(checked), server=_server_of(connector, checked), created_at=now, updated_at=now,
        ):  # fmt: skip
            raise _name_taken(name) if await store.target_name_taken(tx, actor.account_id, name) else _server_taken()
        await audit.record(
            tx, services, actor, "scm:target:create", "target", target_id, project_id=project,
            after={"name": name, "kind": kind, "region": region, "config": dict(checked)},
        )  # fmt: skip
        row = await store.target(tx, target_id)
    assert row is not None
    return _target_view(row)


async def list_targets(
    services: Services, actor: Actor, *, after: str | None = None, limit: int = 20
) -> list[TargetView]:
    """Newest first; `after` is the id of the last one seen."""
    async with services.db.begin() as tx:
        rows = await store.target_page(tx, access.visible(targets, actor, "scm:target:list"), after=after, limit=limit)
    return [_target_view(row) for row in rows]


async def get_target(services: Services, actor: Actor, target_id: str) -> TargetView:
    async with services.db.begin() as tx:
        return _target_view(await _visible_target(tx, actor, "scm:target:get", target_id))


async def update_target(
    services: Services,
    actor: Actor,
    target_id: str,
    *,
    revision: int,
    name: str | None = None,
    region: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> TargetView:
    """None leaves a field as it is. Raises Stale, Refused `target_busy` while a rollout is under way, and as
    `create_target` does."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible_target(tx, actor, "scm:target:update", target_id, lock=True)
        values: dict[str, Any] = {}
        if name is not None:
            values["name"] = rules.judge_target_name(name)
            if await store.target_name_taken(tx, actor.account_id, values["name"], but=target_id):
                raise _name_taken(values["name"])
        if region is not None:
            values["region"] = rules.judge_region(region)
        if config is not None:
            connector = services.port(TargetKinds).get(row.kind)
            values["config"] = dict(connector.check_config(config))
            server = _server_of(connector, values["config"])
            # A rollout must end where it began.
            moved = values["config"] != row.config or server != row.server
            if moved and _under_way(await store.unfinished_rollouts(tx, target_id)):
                raise _busy(row.name)
            if not await store.claim_server(tx, target_id, server):
                raise _server_taken()
        if not await store.update_target(tx, target_id, revision, updated_at=now, **values):
            raise Stale("target_changed", "The target was changed since you read it.", fix="Read it again and repeat.")
        before = {field: getattr(row, field) for field in values}
        await audit.record(
            tx, services, actor, "scm:target:update", "target", target_id, project_id=row.project_id,
            before=before, after=values,
        )  # fmt: skip
        changed = await store.target(tx, target_id)
    assert changed is not None
    return _target_view(changed)


async def delete_target(services: Services, actor: Actor, target_id: str) -> None:
    """Forget a target and its history of rollouts; the server itself isn't touched. One that could not be undone is
    given up with it.

    Raises Refused `target_bound` while certificates are bound to its sites, `target_busy` during a rollout.
    """
    async with services.db.begin() as tx:
        row = await _visible_target(tx, actor, "scm:target:delete", target_id)
        given_up = await store.unfinished_rollouts(tx, target_id)
    if given_up and not _under_way(given_up):
        # Before it is forgotten, or the server would stay reserved for nobody. Should the target live on, the next
        # try reserves it again.
        target = _connector_of(services, row)
        for rollout in given_up:
            await target.abandon(rollout.id)
    async with services.db.begin() as tx:
        row = await _visible_target(tx, actor, "scm:target:delete", target_id, lock=True)
        if _under_way(await store.unfinished_rollouts(tx, target_id)):
            raise _busy(row.name)
        bound = await store.bindings_where(tx, bindings.c.target_id == target_id)
        if bound:
            labels = [binding.site for binding in bound]
            raise Refused(
                "target_bound",
                f"Certificates are bound to {len(bound)} of its sites: {', '.join(labels[:5])}.",
                fix="Unbind them first; they go on being served, but are no longer renewed there.",
                extra={"bound_to": labels},
            )
        await store.delete_target(tx, target_id)
        await audit.record(
            tx, services, actor, "scm:target:delete", "target", target_id, project_id=row.project_id,
            before={"name": row.name, "kind": row.kind, "config": row.config},
        )  # fmt: skip


async def discover(services: Services, actor: Actor, target_id: str) -> tuple[SiteView, ...]:
    """Look at the target now and remember its sites. A problem met is kept as its health, then raised."""
    async with services.db.begin() as tx:
        row = await _visible_target(tx, actor, "scm:target:discover", target_id)
    try:
        found = await open_target(services, row).discover()
    except Problem as problem:
        async with services.db.begin() as tx:
            await store.record_health(
                tx, target_id, health=Health.UNHEALTHY.value, health_problem=problem.as_dict(),
                discovered_at=services.clock.now(),
            )  # fmt: skip
        raise
    async with services.db.begin() as tx:
        await record_discovery(tx, services, target_id, found)
        await audit.record(
            tx, services, actor, "scm:target:discover", "target", target_id, project_id=row.project_id,
            after={"sites": len(found.sites), "software": found.software},
        )  # fmt: skip
        return await _site_views(tx, target_id)


async def record_discovery(tx: Tx, services: Services, target_id: str, found: Discovery) -> None:
    """Match what was found with what is known; sites keep their ids when names or addresses change."""
    now = services.clock.now()
    row = await store.target(tx, target_id, lock=True)
    if row is None:
        return
    known = {site.id: site_from_dict(site.facts) for site in await store.sites_of(tx, target_id, with_gone=True)}
    matched = rules.match_sites(known, found.sites)
    keep = []
    for site in found.sites:
        site_id = matched.get(site.key) or new_id("site", now)
        keep.append(site_id)
        values = {
            "key": site.key, "label": rules.label_of(site), "names": list(site.names), "facts": site_as_dict(site),
            "last_seen_at": now, "gone_at": None,
        }  # fmt: skip
        if site_id in known:
            await store.update_site(tx, site_id, **values)
        else:
            await store.insert_site(
                tx, id=site_id, account_id=row.account_id, project_id=row.project_id, target_id=target_id,
                first_seen_at=now, **values,
            )  # fmt: skip
    await store.forget_gone_sites(tx, target_id, keep, now)
    problem = None
    if found.fault is not None:
        problem = {"code": "target_config_broken", "message": found.fault.message, "file": found.fault.file,
                   "line": found.fault.line}  # fmt: skip
    await store.record_health(
        tx, target_id, health=(Health.UNHEALTHY if problem else Health.HEALTHY).value, health_problem=problem,
        software=found.software, discovered_at=now,
    )  # fmt: skip


async def list_sites(services: Services, actor: Actor, target_id: str) -> tuple[SiteView, ...]:
    """Sites as last discovered, with what is bound to them; those that are gone only while something is bound."""
    async with services.db.moment() as tx:
        await _visible_target(tx, actor, "scm:target:get", target_id)
        return await _site_views(tx, target_id)


def open_target(services: Services, row: Any) -> Target:
    """The connector of a target's row. Raises Refused `server_changed` when its settings mean another server by now."""
    connector = services.port(TargetKinds).get(row.kind)
    # A link may have been set anew since, to what is somebody else's target.
    if _server_of(connector, row.config) != row.server:
        raise Refused(
            "server_changed",
            f"The settings of {row.name} lead to another server than when they were saved.",
            fix="Save the target's settings again if that is meant; otherwise put back the link that was changed.",
        )
    return _connector_of(services, row)


def _connector_of(services: Services, row: Any) -> Target:
    workspace = Workspace(services.settings.data_dir / "deployments", services.vault)
    return services.port(TargetKinds).get(row.kind).open(row.config, workspace)


def _server_of(connector: TargetKind, config: Mapping[str, Any]) -> str:
    # A digest, because what it is made of may be longer than an index takes.
    text = f"{connector.kind}\n{connector.identity(config)}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


async def _visible_target(tx: Tx, actor: Actor, action: str, target_id: str, *, lock: bool = False) -> Any:
    row = await store.target(tx, target_id, access.visible(targets, actor, "scm:target:get"), lock=lock)
    if row is None:
        raise not_found("target", target_id)
    access.require(actor, action, project_id=row.project_id, resource=f"target:{target_id}")
    return row


def _name_taken(name: str) -> Refused:
    return Refused("target_name_taken", f"Another target is called {name!r}.", field="name", fix="Choose another name.")


def _server_taken() -> Refused:
    """Says nothing of whose it is: that may be another account's secret."""
    return Refused(
        "server_taken", "This server is a target already, perhaps one you may not see.", field="config",
        fix="Look for it among your targets, or ask whoever runs Certwright to whom it belongs.",
    )  # fmt: skip


def _busy(name: str) -> Refused:
    return Refused("target_busy", f"A rollout is under way on {name}.", fix="Wait until it is finished, then repeat.")


def _under_way(unfinished: Sequence[Any]) -> bool:
    """Whether any of these rollouts (rows with `state`) is more than an undo that waits for a person."""
    return any(row.state != RolloutState.FAILED.value for row in unfinished)


# --- bindings -------------------------------------------------------------------------------------------------------


async def list_bindings(
    services: Services,
    actor: Actor,
    *,
    certificate_id: str | None = None,
    target_id: str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> list[BindingView]:
    """Which certificate serves which site, as far as the actor may see the targets; oldest first."""
    where = [access.visible(targets, actor, "scm:target:get")]
    if certificate_id is not None:
        where.append(bindings.c.certificate_id == certificate_id)
    if target_id is not None:
        where.append(bindings.c.target_id == target_id)
    if after is not None:
        where.append(bindings.c.id > after)
    async with services.db.begin() as tx:
        return list(await _binding_views(tx, await store.bindings_where(tx, *where, limit=limit)))


async def bind(
    services: Services, actor: Actor, site_id: str, certificate_id: str, *, replace: bool = False
) -> BindingView:
    """Say that this certificate serves this site, without deploying it: for one that is installed there already.

    From then on new versions are deployed there by themselves, if the version found installed is one of this
    certificate's. Raises as `deploy` does.
    """
    now = services.clock.now()
    try:
        async with services.db.begin() as tx:
            version = await _deployable(tx, services, actor, certificate_id)
            (site,) = await _sites_for(tx, actor, [site_id])
            await store.target(tx, site.target_id, lock=True)
            binding_id, _, _ = await _bind(tx, services, actor, site, version, replace=replace)
            _, slot = rules.slot_for(site_from_dict(site.facts), _kind_of(version))
            if slot.installed is not None and slot.installed.sha256 == version.sha256:
                await store.update_binding(tx, binding_id, deployed_version_id=version.version_id, deployed_at=now)
                await tell_binding_created(tx, services, binding_id)
            row = await store.binding(tx, binding_id)
            (view,) = await _binding_views(tx, [row])
    except IntegrityError as error:
        raise _slot_taken_meanwhile() from error
    return view


async def unbind(services: Services, actor: Actor, binding_id: str) -> None:
    """The site goes on serving what it has, but new versions are no longer deployed there. Raises `target_busy`."""
    async with services.db.begin() as tx:
        row = await store.binding(tx, binding_id, access.visible(targets, actor, "scm:target:get"), lock=True)
        if row is None:
            raise not_found("binding", binding_id)
        access.require(actor, "scm:target:update", project_id=row.project_id, resource=f"target:{row.target_id}")
        if _under_way(await store.unfinished_of_binding(tx, binding_id)):
            raise _busy(row.target)
        await remove_binding(tx, services, row)
        await audit.record(
            tx, services, actor, "scm:target:unbind", "target", row.target_id, project_id=row.project_id,
            before={"site": row.site, "certificate_id": row.certificate_id},
        )  # fmt: skip


async def remove_binding(tx: Tx, services: Services, row: Any) -> None:
    await store.delete_binding(tx, row.id)
    await services.events.publish(
        tx, "deployment.binding_removed", account_id=row.account_id, object_id=row.id,
        payload={"binding_id": row.id, "certificate_id": row.certificate_id, "project_id": row.project_id},
    )  # fmt: skip


async def tell_binding_created(tx: Tx, services: Services, binding_id: str) -> None:
    """From now on this certificate is served there: say where it can be seen from outside."""
    row = await store.binding(tx, binding_id)
    if row is None:
        return
    plain = [a for a in site_from_dict(row.facts).addresses if not (a.unix or a.proxy_protocol)]
    address = next((a for a in plain if a.server_name), plain[0] if plain else None)
    if address is None:
        return
    await services.events.publish(
        tx, "deployment.binding_created", account_id=row.account_id, object_id=row.id,
        payload={
            "binding_id": row.id, "site_id": row.site_id, "target_id": row.target_id, "project_id": row.project_id,
            "certificate_id": row.certificate_id, "host": address.host, "port": address.port,
            "sni": address.server_name or "",
        },
    )  # fmt: skip


async def listens_at(tx: Tx, binding_id: str, host: str, port: int) -> bool:
    """Whether the site of this binding was found listening there when its target was last looked at."""
    row = await store.binding(tx, binding_id)
    if row is None:
        return False
    addresses = site_from_dict(row.facts).addresses
    return any((a.host, a.port) == (host, port) and not (a.unix or a.proxy_protocol) for a in addresses)


async def bound_sites(tx: Tx, certificate_id: str) -> tuple[str, ...]:
    """`target: site` of everything the certificate is bound to: why it can't be deleted."""
    return tuple(await store.site_labels_of_certificate(tx, certificate_id))


class Bindings:
    """Answers the certificates room's question where a certificate is used (its `Usage` port)."""

    async def bound_to(self, tx: Tx, certificate_id: str) -> tuple[str, ...]:
        return await bound_sites(tx, certificate_id)

    async def certificates_on(self, tx: Tx, actor: Actor, target: str) -> tuple[str, ...]:
        return tuple(await store.certificates_on(tx, access.visible(targets, actor, "scm:target:get"), target))

    async def serves(self, tx: Tx, version_id: str) -> bool:
        return await store.is_deployed(tx, version_id)


async def _deployable(tx: Tx, services: Services, actor: Actor, certificate_id: str) -> VersionMaterial:
    """The current version, after access, state and the rules for deploying."""
    version = await certificates.usable_version(
        tx, services, actor, certificate_id, action="scm:cert:deploy", operation=Operation.DEPLOY
    )
    problem = rules.why_not_deploy(version_facts(version), services.clock.now())
    if problem is not None:
        raise problem
    return version


def version_facts(version: VersionMaterial) -> rules.VersionFacts:
    return rules.VersionFacts(version.key_id is not None, version.revoked, version.not_after)


def _kind_of(version: VersionMaterial) -> KeyKind:
    kind = key_kind(x509.load_der_x509_certificate(version.leaf_der).public_key())
    if kind is None:
        raise Refused(
            "key_type_unsupported", "No web server takes certificates with this type of key.",
            fix="Reissue it with an EC or RSA key.",
        )  # fmt: skip
    return kind


def deployment_of(version: VersionMaterial, site_key: str) -> Deployment:
    return Deployment(site_key, version.version_id, version.sha256, version.names, version.not_after, _kind_of(version))


async def _sites_for(tx: Tx, actor: Actor, site_ids: Sequence[str]) -> list[Any]:
    """The sites to deploy to, in the order asked for; the actor must be allowed to deploy to their targets."""
    wanted = list(dict.fromkeys(site_ids))
    if not wanted or len(wanted) > _MOST_SITES:
        raise Invalid(
            "sites_needed" if not wanted else "too_many_sites",
            "Choose at least one site." if not wanted else f"At most {_MOST_SITES} sites at once.",
            field="site_ids", fix="List a target's sites to find their ids.",
        )  # fmt: skip
    rows = {
        row.id: row for row in await store.sites_by_id(tx, wanted, access.visible(targets, actor, "scm:target:get"))
    }
    for site_id in wanted:
        row = rows.get(site_id)
        if row is None:
            raise not_found("site", site_id).at("site_ids")
        access.require(actor, "scm:cert:deploy", project_id=row.project_id, resource=f"target:{row.target_id}")
        if row.gone_at is not None:
            raise Refused(
                "site_missing", f"{row.label} was not found any more on {row.gone_at:%Y-%m-%d %H:%M} UTC.",
                fix="Discover the target's sites again and choose another one.",
            )  # fmt: skip
    return [rows[site_id] for site_id in wanted]


async def _bind(
    tx: Tx, services: Services, actor: Actor, site: Any, version: VersionMaterial, *, replace: bool
) -> tuple[str, Any, bool]:
    """The binding of this site's slot to this certificate: its id, the row it was before, and whether it was made.

    Raises Refused `slot_taken`, `files_shared`, `site_not_managed`, `no_slot_for_key_type`.
    """
    now = services.clock.now()
    facts = site_from_dict(site.facts)
    name, slot = rules.slot_for(facts, _kind_of(version))
    others = await store.bindings_where(
        tx, bindings.c.target_id == site.target_id, bindings.c.certificate_id != version.certificate_id,
        bindings.c.site_id != site.id,
    )  # fmt: skip
    shared_with = rules.files_shared_with(slot, {row.site: slot_named(row) for row in others})
    if shared_with is not None:
        raise Refused(
            "files_shared",
            f"{site.label} uses the same certificate files as {shared_with}, which is bound to another certificate.",
            fix="Deploy to both sites, or give each of them files of its own.",
        )
    before = await store.binding_at(tx, site.id, name)
    if before is not None and before.certificate_id == version.certificate_id:
        return before.id, before, False
    if before is not None and not replace:
        raise Refused(
            "slot_taken", f"{site.label} is bound to another certificate.",
            fix="Deploy with --replace (the API's replace: true), or unbind the other certificate first.",
            extra={"certificate_id": before.certificate_id},
        )  # fmt: skip
    if before is not None:
        unfinished = await store.unfinished_of_binding(tx, before.id)
        if _under_way(unfinished):
            raise _busy(before.target)
        if unfinished:
            raise rules.why_wait(unfinished[0].id, RolloutState.FAILED, before.target, None)
        await store.update_binding(tx, before.id, certificate_id=version.certificate_id, retry_at=None, failures=0)
        binding_id, made = before.id, False
    else:
        binding_id, made = new_id("bind", now), True
        await store.insert_binding(
            tx, id=binding_id, account_id=site.account_id, project_id=site.project_id, target_id=site.target_id,
            site_id=site.id, slot=name, certificate_id=version.certificate_id, created_at=now,
        )  # fmt: skip
    await audit.record(
        tx, services, actor, "scm:target:bind", "target", site.target_id, project_id=site.project_id,
        before={"certificate_id": before.certificate_id} if before is not None else None,
        after={"site": site.label, "certificate_id": version.certificate_id},
    )  # fmt: skip
    return binding_id, before, made


def slot_named(row: Any) -> Any:
    """The slot of a binding's site that the binding is for."""
    site = site_from_dict(row.facts)
    return next((s for s in site.slots if s.installed is not None and s.installed.key_kind == row.slot), site.slots[0])


# --- rollouts -------------------------------------------------------------------------------------------------------


async def preview(
    services: Services, actor: Actor, certificate_id: str, site_ids: Sequence[str]
) -> tuple[Preview, ...]:
    """What deploying would do, one per target: files, addresses, and what to know before confirming."""
    async with services.db.begin() as tx:
        version = await _deployable(tx, services, actor, certificate_id)
        chosen = await _sites_for(tx, actor, site_ids)
        rows = {site.target_id: await store.target(tx, site.target_id) for site in chosen}
    assert_no_transaction()
    out = []
    for target_id, row in rows.items():
        here = [site for site in chosen if site.target_id == target_id]
        plan = await open_target(services, row).plan("preview", [deployment_of(version, site.key) for site in here])
        out.append(
            Preview(
                target_id=target_id,
                files=tuple(change.path for change in plan.changes),
                addresses=tuple(dict.fromkeys(e.address.text for e in plan.expectations)),
                sites=tuple(site.label for site in here),
                cautions=(*coverage(here, version), *plan.cautions),
            )
        )
    return tuple(out)


def coverage(chosen: Sequence[Any], version: VersionMaterial) -> tuple[Caution, ...]:
    """Names served now that the new certificate doesn't cover, per site."""
    out = []
    for row in chosen:
        site = site_from_dict(row.facts)
        _, slot = rules.slot_for(site, _kind_of(version))
        caution = rules.coverage_caution(rules.label_of(site), version.names, rules.served_names(site, slot))
        if caution is not None:
            out.append(caution)
    return tuple(out)


async def deploy(
    services: Services, actor: Actor, certificate_id: str, site_ids: Sequence[str], *, replace: bool = False
) -> tuple[RolloutView, ...]:
    """Bind the certificate to these sites and start one rollout per target; look at the rollouts for the outcome.

    Raises Refused for what `rules` refuses (`version_revoked`, `version_expired`, `no_private_key`, `slot_taken`
    unless `replace`, `files_shared`, `site_not_managed`, `no_slot_for_key_type`), NotFound for what may not be seen.
    """
    try:
        async with services.db.begin() as tx:
            version = await _deployable(tx, services, actor, certificate_id)
            chosen = await _sites_for(tx, actor, site_ids)
            started = []
            for target_id in dict.fromkeys(site.target_id for site in chosen):
                here = [site for site in chosen if site.target_id == target_id]
                # One at a time per target, so that two requests can't both find a slot free.
                await store.target(tx, target_id, lock=True)
                bound = [(site, *await _bind(tx, services, actor, site, version, replace=replace)) for site in here]
                started.append(
                    await _start_rollout(
                        tx, services, here[0], Trigger.USER, actor.name,
                        [(binding_id, site, before, made, version) for site, binding_id, before, made in bound],
                    )
                )  # fmt: skip
            for rollout_id, site in zip(started, _first_of_each_target(chosen), strict=True):
                await audit.record(
                    tx, services, actor, "scm:cert:deploy", "certificate", certificate_id, project_id=site.project_id,
                    after={"rollout": rollout_id, "version": version.version_id,
                           "sites": [s.label for s in chosen if s.target_id == site.target_id]},
                )  # fmt: skip
            return tuple([await _rollout_view(tx, await store.rollout(tx, rollout_id)) for rollout_id in started])
    except IntegrityError as error:
        raise _slot_taken_meanwhile() from error


def _slot_taken_meanwhile() -> Refused:
    return Refused("slot_taken", "Somebody else has just bound a certificate there.", fix="Look at the sites again.")


def _first_of_each_target(chosen: Sequence[Any]) -> list[Any]:
    return list({site.target_id: site for site in reversed(chosen)}.values())[::-1]


Item = tuple[str, Any, Any, bool, VersionMaterial]
"""Binding id, site row, the binding as it was before (None: there was none), whether it was made for this, version."""


async def _start_rollout(
    tx: Tx, services: Services, place: Any, trigger: Trigger, requested_by: str, items: Sequence[Item]
) -> str:
    """A new rollout on the target of `place` (a site's or binding's row), or more items for one that still waits."""
    now = services.clock.now()
    rollout_id = await store.waiting_rollout(tx, place.target_id, trigger) if trigger is Trigger.NEW_VERSION else None
    if rollout_id is None:
        rollout_id = new_id("roll", now)
        await store.insert_rollout(
            tx, id=rollout_id, account_id=place.account_id, project_id=place.project_id, target_id=place.target_id,
            state=RolloutState.RUNNING.value, trigger=trigger.value, requested_by=requested_by,
            next_step=Step.PLAN.value, created_at=now,
        )  # fmt: skip
    for binding_id, site, before, made, version in items:
        await store.insert_item(
            tx, id=new_id("item", now), account_id=place.account_id, project_id=place.project_id,
            rollout_id=rollout_id, binding_id=binding_id, site_id=site.id, site_label=site.label,
            certificate_id=version.certificate_id, version_id=version.version_id,
            previous_certificate_id=before.certificate_id if before is not None else None,
            previous_version_id=before.deployed_version_id if before is not None else None, made_binding=made,
        )  # fmt: skip
    await services.jobs.start(tx, STEP, rollout_id)
    return rollout_id


async def redeploy(tx: Tx, services: Services, certificate_id: str, version_id: str) -> tuple[str, ...]:
    """Bring a new version to every site that follows the certificate; content to be asked twice."""
    version = await certificates.version_material(tx, version_id)
    if version is None or rules.why_not_deploy(version_facts(version), services.clock.now()) is not None:
        return ()
    return await _redeploy_rows(tx, services, await store.bindings_to_renew(tx, certificate_id, version_id), version)


async def _redeploy_rows(tx: Tx, services: Services, rows: Sequence[Any], version: VersionMaterial) -> tuple[str, ...]:
    started = []
    for target_id in sorted({row.target_id for row in rows}):
        here = [row for row in rows if row.target_id == target_id]
        await store.target(tx, target_id, lock=True)
        found = {site.id: site for site in await store.sites_by_id(tx, [row.site_id for row in here])}
        items: list[Item] = [(row.id, found[row.site_id], row, False, version) for row in here]
        started.append(await _start_rollout(tx, services, here[0], Trigger.NEW_VERSION, "renewal", items))
        for row in here:
            await store.update_binding(tx, row.id, retry_at=None)
    return tuple(started)


async def retry_due(services: Services) -> None:
    """Chore: try again to bring new versions to sites where that failed some time ago."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        due = await store.bindings_to_retry(tx, now, 100)
        for certificate_id in sorted({row.certificate_id for row in due}):
            version = await certificates.current_version(tx, certificate_id)
            if version is not None:
                await redeploy(tx, services, certificate_id, version.version_id)
            for row in due:
                if row.certificate_id == certificate_id:
                    await store.update_binding(tx, row.id, retry_at=None)


async def get_rollout(services: Services, actor: Actor, rollout_id: str) -> RolloutView:
    """A rollout with its items and every step run so far."""
    async with services.db.moment() as tx:
        return await _rollout_view(tx, await _visible_rollout(tx, actor, "scm:rollout:get", rollout_id))


async def list_rollouts(
    services: Services,
    actor: Actor,
    *,
    certificate_id: str | None = None,
    target_id: str | None = None,
    state: RolloutState | None = None,
    after: str | None = None,
    limit: int = 20,
) -> list[RolloutView]:
    """Newest first, without their steps; of one certificate: where and when it was put, by whom, and how it went."""
    async with services.db.begin() as tx:
        rows = await store.rollout_page(
            tx, access.visible(rollouts, actor, "scm:rollout:list"), certificate_id=certificate_id,
            target_id=target_id, state=state, after=after, limit=limit,
        )  # fmt: skip
        items = await store.items_of(tx, [row.id for row in rows])
    return [_view_of_rollout(row, [item for item in items if item.rollout_id == row.id], ()) for row in rows]


async def undo_rollout(services: Services, actor: Actor, rollout_id: str) -> RolloutView:
    """Put back what was there before a finished rollout, also one whose undo failed.

    Raises Refused `rollout_under_way`, `rollout_undone_already`, `rollout_not_latest`, `target_busy`.
    """
    now = services.clock.now()
    try:
        async with services.db.begin() as tx:
            row = await _visible_rollout(tx, actor, "scm:rollout:undo", rollout_id, lock=True)
            state = RolloutState(row.state)
            superseded = await _superseded_at(tx, row)
            problem = rules.why_not_undo(state, is_latest=superseded is None, label=superseded or "")
            if problem is not None:
                raise problem
            leaves = Step(row.next_step) if row.next_step is not None else None
            await store.move_rollout(
                tx, rollout_id, leaves, Step.UNDO, RolloutState.UNDOING, finished_at=None, undo_asked_at=now
            )
            await services.jobs.start(tx, STEP, rollout_id)
            await audit.record(
                tx, services, actor, "scm:rollout:undo", "rollout", rollout_id, project_id=row.project_id,
                before={"state": row.state}, after={"state": RolloutState.UNDOING.value},
            )  # fmt: skip
            return await _rollout_view(tx, await store.rollout(tx, rollout_id))
    except IntegrityError as error:
        raise _busy("its target") from error


async def _superseded_at(tx: Tx, row: Any) -> str | None:
    """A site of the rollout that a later one has changed."""
    for item in await store.items_of(tx, [row.id]):
        binding = await store.binding(tx, item.binding_id) if item.binding_id else None
        as_before = binding is not None and binding.deployed_version_id == item.previous_version_id
        untouched_since = binding is not None and binding.rollout_id == row.id
        if not untouched_since and not (row.state == RolloutState.FAILED.value and as_before):
            return str(item.site_label)
    return None


async def _visible_rollout(tx: Tx, actor: Actor, action: str, rollout_id: str, *, lock: bool = False) -> Any:
    row = await store.rollout(tx, rollout_id, access.visible(rollouts, actor, "scm:rollout:get"), lock=lock)
    if row is None:
        raise not_found("rollout", rollout_id)
    access.require(actor, action, project_id=row.project_id, resource=f"rollout:{rollout_id}")
    return row


# --- views ----------------------------------------------------------------------------------------------------------


def _target_view(row: Any) -> TargetView:
    return TargetView(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        kind=row.kind,
        region=row.region,
        config=row.config,
        health=Health(row.health),
        health_problem=row.health_problem,
        software=row.software,
        discovered_at=row.discovered_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        revision=row.revision,
    )


async def _binding_views(tx: Tx, rows: Sequence[Any]) -> tuple[BindingView, ...]:
    current: dict[str, str | None] = {}
    for certificate_id in {row.certificate_id for row in rows}:
        version = await certificates.current_version(tx, certificate_id)
        current[certificate_id] = version.version_id if version else None
    return tuple(
        BindingView(
            id=row.id,
            project_id=row.project_id,
            target_id=row.target_id,
            target=row.target,
            site_id=row.site_id,
            site=row.site,
            slot=row.slot,
            certificate_id=row.certificate_id,
            deployed_version_id=row.deployed_version_id,
            deployed_at=row.deployed_at,
            current=row.deployed_version_id is not None and row.deployed_version_id == current[row.certificate_id],
            auto_deploy=row.auto_deploy,
            created_at=row.created_at,
        )
        for row in rows
    )


async def _site_views(tx: Tx, target_id: str) -> tuple[SiteView, ...]:
    found = await store.sites_of(tx, target_id, with_gone=True)
    bound = await _binding_views(tx, await store.bindings_where(tx, bindings.c.target_id == target_id))
    return tuple(
        SiteView(
            id=row.id,
            target_id=row.target_id,
            label=row.label,
            site=site_from_dict(row.facts),
            gone_at=row.gone_at,
            bindings=tuple(binding for binding in bound if binding.site_id == row.id),
        )
        for row in found
    )


async def _rollout_view(tx: Tx, row: Any) -> RolloutView:
    return _view_of_rollout(row, await store.items_of(tx, [row.id]), await store.steps_of(tx, row.id))


def _view_of_rollout(row: Any, items: Sequence[Any], steps: Sequence[Any]) -> RolloutView:
    cautions = (row.plan or {}).get("cautions", ())
    return RolloutView(
        id=row.id,
        project_id=row.project_id,
        target_id=row.target_id,
        target=row.target,
        state=RolloutState(row.state),
        trigger=Trigger(row.trigger),
        requested_by=row.requested_by,
        next_step=Step(row.next_step) if row.next_step else None,
        problem=row.problem,
        waiting_for=row.step_problem if row.finished_at is None else None,
        cautions=tuple(Caution(c["code"], c["message"], tuple(c["names"])) for c in cautions),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        items=tuple(
            RolloutItemView(
                binding_id=item.binding_id,
                site_id=item.site_id,
                site=item.site_label,
                certificate_id=item.certificate_id,
                version_id=item.version_id,
                previous_version_id=item.previous_version_id,
            )
            for item in items
        ),
        planned=row.plan is not None,
        steps=tuple(
            RolloutStepView(
                step=Step(step.step),
                started_at=step.started_at,
                finished_at=step.finished_at,
                outcome=step.outcome,
                details=tuple(step.details or ()),
                problem=step.problem,
            )
            for step in sorted(steps, key=lambda step: _STEP_ORDER.index(Step(step.step)))
        ),
    )
