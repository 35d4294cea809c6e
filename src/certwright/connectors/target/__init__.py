"""Connectors to what terminates TLS, one folder per kind of target, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from certwright.connectors.target.nginx import NginxKind
from certwright.kernel.problems import Invalid
from certwright.rooms.deployment.ports import TargetKind


def builtin_kinds() -> Mapping[str, TargetKind]:
    kinds: list[TargetKind] = [NginxKind()]
    return {kind.kind: kind for kind in kinds}


@dataclass(frozen=True, slots=True)
class Targets:
    """The port `TargetKinds`: every kind of target this build knows."""

    by_name: Mapping[str, TargetKind] = field(default_factory=builtin_kinds)

    def get(self, kind: str) -> TargetKind:
        """Raises Invalid `target_kind_unknown`."""
        found = self.by_name.get(kind)
        if found is None:
            raise Invalid(
                "target_kind_unknown",
                f"There is no kind of target {kind[:40]!r}.",
                field="kind",
                fix=f"Use one of: {', '.join(self.kinds())}.",
            )
        return found

    def kinds(self) -> Sequence[str]:
        return sorted(self.by_name)
