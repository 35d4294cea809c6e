"""What an action needs from below, in one frozen value made by the entry and passed along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from certwright.kernel.clock import Clock
from certwright.platform.config import Settings
from certwright.platform.db import Database
from certwright.platform.egress import Egress
from certwright.platform.events import Events
from certwright.platform.jobs import Jobs
from certwright.platform.resolver import Resolver
from certwright.platform.vault import Vault

Port = TypeVar("Port")


@dataclass(frozen=True, slots=True)
class Services:
    """`ports` holds what the entry plugged into the ports that rooms declare, keyed by the port's class."""

    settings: Settings
    clock: Clock
    db: Database
    jobs: Jobs
    events: Events
    vault: Vault
    egress: Egress
    resolver: Resolver
    ports: Mapping[type, Any] = field(default_factory=dict)

    def port(self, kind: type[Port]) -> Port:
        found: Port = self.ports[kind]
        return found
