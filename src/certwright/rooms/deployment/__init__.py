"""The deployment room: targets, their sites, which certificate serves where, and the rollouts that put it there."""

from __future__ import annotations

from datetime import timedelta

from certwright.platform.services import Services
from certwright.rooms.deployment.actions import (
    STEP,
    Bindings,
    bind,
    bound_sites,
    create_target,
    delete_target,
    deploy,
    discover,
    get_rollout,
    get_target,
    list_bindings,
    list_rollouts,
    list_sites,
    list_targets,
    listens_at,
    preview,
    redeploy,
    retry_due,
    unbind,
    undo_rollout,
    update_target,
)
from certwright.rooms.deployment.jobs import rollout_step, version_issued
from certwright.rooms.deployment.ports import Target, TargetKind, TargetKinds, Workspace
from certwright.rooms.deployment.tables import bindings, rollouts, sites, targets
from certwright.rooms.deployment.words import (
    BindingView,
    Caution,
    Health,
    Preview,
    RolloutState,
    RolloutView,
    SiteView,
    Step,
    TargetView,
    Trigger,
)

__all__ = [
    "STEP",
    "BindingView",
    "Bindings",
    "Caution",
    "Health",
    "Preview",
    "RolloutState",
    "RolloutView",
    "SiteView",
    "Step",
    "Target",
    "TargetKind",
    "TargetKinds",
    "TargetView",
    "Trigger",
    "Workspace",
    "bind",
    "bindings",
    "bound_sites",
    "create_target",
    "delete_target",
    "deploy",
    "discover",
    "get_rollout",
    "get_target",
    "list_bindings",
    "list_rollouts",
    "list_sites",
    "list_targets",
    "listens_at",
    "preview",
    "redeploy",
    "register",
    "rollouts",
    "sites",
    "targets",
    "unbind",
    "undo_rollout",
    "update_target",
]


def register(services: Services) -> None:
    services.jobs.register(STEP, rollouts, rollout_step)
    services.jobs.every("deployment.retry", timedelta(minutes=1), retry_due)
    services.events.subscribe_batch("certificate.version_issued", "deployment", version_issued)
