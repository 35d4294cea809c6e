"""What a kind of target must be able to do. Connectors implement these; the entry plugs them in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from certwright.rooms.deployment.words import Deployment, Discovery, Material, Plan, StepResult


class Sealer(Protocol):
    """Encrypts what a target keeps for undo; `context` is bound to the sealed bytes."""

    def seal(self, secret: bytes, context: str) -> bytes: ...

    def open(self, sealed: bytes, context: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Workspace:
    """A private directory that outlives processes (journals, sealed backups), and what seals the backups."""

    directory: Path
    sealer: Sealer


class Target(Protocol):
    """One terminator of TLS.

    Every method may be called again with the same rollout, by another process, after a crash at any point of any
    method: what is done already is found and not done twice. A method that can't succeed raises a Problem: Refused
    when somebody must act, Unavailable when trying again may help. Nothing but `activate` and `undo` changes what
    clients see.
    """

    async def discover(self) -> Discovery:
        """Every TLS site with the certificates in its files."""

    async def plan(self, rollout_id: str, deployments: Sequence[Deployment]) -> Plan:
        """Which files change, which sites that touches, what must be served afterwards. Changes nothing."""

    async def stage(self, plan: Plan, materials: Mapping[str, Material]) -> StepResult:
        """Reserve the target for this rollout, keep what is there now for undo, write the new files beside.

        `materials` by version id. Refuses when the target's own configuration doesn't load as it is.
        """

    async def test(self, plan: Plan) -> StepResult:
        """Prove that the target's own software can load what was staged, before any of it is live."""

    async def activate(self, plan: Plan) -> StepResult:
        """Swap the files, let the software check its whole configuration, then have it read them: one reload."""

    async def verify(self, plan: Plan) -> StepResult:
        """Look from outside until every address serves the intended certificate and none an old one."""

    async def keep(self, plan: Plan) -> StepResult:
        """Remove temporary copies and release the target; the sealed backup stays for a later undo."""

    async def undo(self, plan: Plan) -> StepResult:
        """Put back what was there, see it served again, and release the target; good after any step or none."""

    async def abandon(self, rollout_id: str) -> None:
        """Release the target from a rollout that nobody will go on with; its files stay as they are."""


class TargetKind(Protocol):
    """A folder among the target connectors, known by its `kind`."""

    @property
    def kind(self) -> str: ...

    def check_config(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The configuration with defaults filled in; raises Invalid naming the field (`config.nginx`)."""

    def identity(self, config: Mapping[str, Any]) -> str:
        """What two checked configurations have in common that mean one server, however they name it.

        A server is one target's alone; of what a configuration says, only what can't be varied for the same server may
        go into it. Quick: it may look at links on the disk, but asks nobody.
        """

    def open(self, config: Mapping[str, Any], workspace: Workspace) -> Target:
        """The target of a checked configuration; cheap, touches nothing."""


class TargetKinds(Protocol):
    """The table of connectors, as plugged into `Services.ports`."""

    def get(self, kind: str) -> TargetKind:
        """Raises Invalid `target_kind_unknown`."""

    def kinds(self) -> Sequence[str]: ...
