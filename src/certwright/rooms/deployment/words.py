"""The room's values: what a target serves, what a rollout will change, and how each step went.

Everything here is a frozen fact without secrets, and everything that outlives a process turns into JSON and back, so
that any worker can pick up where another one died.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes


class Step(StrEnum):
    """A rollout's steps in their order; `undo` replaces whatever is left when one of them fails."""

    PLAN = "plan"
    STAGE = "stage"
    TEST = "test"
    ACTIVATE = "activate"
    VERIFY = "verify"
    KEEP = "keep"
    UNDO = "undo"


ORDER = (Step.PLAN, Step.STAGE, Step.TEST, Step.ACTIVATE, Step.VERIFY, Step.KEEP)


class RolloutState(StrEnum):
    """`undone`: nothing of it is left on the target; `failed`: undoing did not succeed, somebody must look."""

    RUNNING = "running"
    UNDOING = "undoing"
    DEPLOYED = "deployed"
    UNDONE = "undone"
    FAILED = "failed"


FINISHED_STATES = (RolloutState.DEPLOYED, RolloutState.UNDONE, RolloutState.FAILED)


class KeyKind(StrEnum):
    """What decides which certificate a client is offered when a site has several."""

    RSA = "rsa"
    EC = "ec"
    EDWARDS = "edwards"


def key_kind(public_key: object) -> KeyKind | None:
    """The kind of a public key; None for one that no TLS server uses."""
    match public_key:
        case rsa.RSAPublicKey():
            return KeyKind.RSA
        case ec.EllipticCurvePublicKey():
            return KeyKind.EC
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            return KeyKind.EDWARDS
    return None


@dataclass(frozen=True, slots=True)
class Listener:
    """One address a site listens on. `host` is `*` or `::` for all addresses, a path for `unix` sockets."""

    host: str
    port: int
    tls: bool = False
    default_server: bool = False
    http2: bool = False
    quic: bool = False
    proxy_protocol: bool = False
    unix: bool = False

    @property
    def text(self) -> str:
        if self.unix:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Installed:
    """The certificate found in a slot's file; not necessarily the one in the server's memory."""

    sha256: str
    names: tuple[str, ...]
    not_after: datetime
    key_kind: KeyKind | None


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one certificate of a site lives. Paths are absolute; `certificate_path` may equal `key_path`."""

    certificate_path: str
    key_path: str
    passphrase_path: str | None = None
    installed: Installed | None = None
    unmanaged_code: str | None = None
    unmanaged_reason: str | None = None

    @property
    def managed(self) -> bool:
        return self.unmanaged_code is None


@dataclass(frozen=True, slots=True)
class Address:
    """How to reach a listener from here, and which name to ask for (None: send no SNI)."""

    host: str
    port: int
    server_name: str | None
    unix: bool = False
    proxy_protocol: bool = False

    @property
    def text(self) -> str:
        if self.unix:
            place = f"unix:{self.host}"
        else:
            place = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return f"{place} ({self.server_name or 'no name sent'})"


@dataclass(frozen=True, slots=True)
class Site:
    """One TLS site of a target. `key` stays the same as long as names and addresses do.

    A site we can't manage says why: `unmanaged_code` and a sentence for people. `addresses` is how its certificate
    can be seen from outside; empty when nothing tells it apart from its neighbours.
    """

    key: str
    names: tuple[str, ...]
    listeners: tuple[Listener, ...]
    slots: tuple[Slot, ...]
    source: str
    addresses: tuple[Address, ...] = ()
    protocol: str = "http"
    unmanaged_code: str | None = None
    unmanaged_reason: str | None = None

    @property
    def managed(self) -> bool:
        return self.unmanaged_code is None


def site_as_dict(site: Site) -> dict[str, Any]:
    """For storing; `site_from_dict` reads it back."""
    out = asdict(site)
    for slot in out["slots"]:
        if slot["installed"] is not None:
            slot["installed"]["not_after"] = slot["installed"]["not_after"].isoformat()
    return out


def site_from_dict(data: Mapping[str, Any]) -> Site:
    return Site(
        key=data["key"],
        names=tuple(data["names"]),
        listeners=tuple(Listener(**listener) for listener in data["listeners"]),
        slots=tuple(_slot(slot) for slot in data["slots"]),
        source=data["source"],
        addresses=tuple(Address(**address) for address in data["addresses"]),
        protocol=data["protocol"],
        unmanaged_code=data["unmanaged_code"],
        unmanaged_reason=data["unmanaged_reason"],
    )


def _slot(data: Mapping[str, Any]) -> Slot:
    found = data["installed"]
    installed = found and Installed(
        found["sha256"],
        tuple(found["names"]),
        datetime.fromisoformat(found["not_after"]),
        KeyKind(found["key_kind"]) if found["key_kind"] else None,
    )
    return Slot(**(dict(data) | {"installed": installed}))


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """Why the target's own configuration doesn't load now, with the place if it was told."""

    message: str
    file: str | None = None
    line: int | None = None
    certificate_file: str | None = None
    """Set when the only fault is this certificate or key file: replacing it may be the cure."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a target serves. With a `fault` the sites were read from the files as they are."""

    software: str
    sites: tuple[Site, ...]
    fault: ConfigFault | None = None


@dataclass(frozen=True, slots=True)
class Material:
    """A certificate version with its private key, in memory only; never stored or logged by this room."""

    version_id: str
    leaf_der: bytes
    chain_ders: tuple[bytes, ...]
    private_key: PrivateKeyTypes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Deployment:
    """Put this version on this site; facts of the new certificate only, no key."""

    site_key: str
    version_id: str
    sha256: str
    names: tuple[str, ...]
    not_after: datetime
    key_kind: KeyKind


class Role(StrEnum):
    """What a changed file holds; `combined` is certificate and key in one."""

    CERTIFICATE = "certificate"
    KEY = "key"
    COMBINED = "combined"
    PASSPHRASE = "passphrase"  # noqa: S105 - a word, not a secret


@dataclass(frozen=True, slots=True)
class Change:
    """One file (or object) that a rollout replaces.

    A key with a `passphrase_path` is written encrypted. A `shared` passphrase file keeps its present lines, because
    keys outside this rollout need them.
    """

    path: str
    role: Role
    version_id: str
    exists: bool
    passphrase_path: str | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Expectation:
    """What an address must serve afterwards, and what it served before (None: it didn't answer).

    `alternatives` are the other certificates of the same site, which a client with other algorithms is offered.
    """

    site_key: str
    address: Address
    key_kind: KeyKind
    sha256: str
    before: str | None
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Caution:
    """Something to see before confirming; `names` are the names it is about."""

    code: str
    message: str
    names: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "names": list(self.names)}


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything one rollout will do, decided before anything is touched."""

    rollout_id: str
    changes: tuple[Change, ...]
    expectations: tuple[Expectation, ...]
    site_keys: tuple[str, ...]
    """Every site whose certificate changes, including those that share a file with the chosen ones."""
    cautions: tuple[Caution, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "rollout_id": self.rollout_id,
            "changes": [
                {
                    "path": c.path,
                    "role": c.role,
                    "version_id": c.version_id,
                    "exists": c.exists,
                    "passphrase_path": c.passphrase_path,
                    "shared": c.shared,
                }
                for c in self.changes
            ],
            "expectations": [
                {
                    "site_key": e.site_key,
                    "host": e.address.host,
                    "port": e.address.port,
                    "server_name": e.address.server_name,
                    "unix": e.address.unix,
                    "proxy_protocol": e.address.proxy_protocol,
                    "key_kind": e.key_kind,
                    "sha256": e.sha256,
                    "before": e.before,
                    "alternatives": list(e.alternatives),
                }
                for e in self.expectations
            ],
            "site_keys": list(self.site_keys),
            "cautions": [c.as_dict() for c in self.cautions],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        return cls(
            rollout_id=data["rollout_id"],
            changes=tuple(
                Change(c["path"], Role(c["role"]), c["version_id"], c["exists"], c["passphrase_path"], c["shared"])
                for c in data["changes"]
            ),
            expectations=tuple(
                Expectation(
                    e["site_key"],
                    Address(e["host"], e["port"], e["server_name"], e["unix"], e["proxy_protocol"]),
                    KeyKind(e["key_kind"]),
                    e["sha256"],
                    e["before"],
                    tuple(e["alternatives"]),
                )
                for e in data["expectations"]
            ),
            site_keys=tuple(data["site_keys"]),
            cautions=tuple(Caution(c["code"], c["message"], tuple(c["names"])) for c in data["cautions"]),
        )


@dataclass(frozen=True, slots=True)
class StepResult:
    """How a step went, for people: sentences without secrets. A step that doesn't succeed raises a Problem instead."""

    step: Step
    details: tuple[str, ...] = ()


class Health(StrEnum):
    """What was last found when looking at a target."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Trigger(StrEnum):
    """Why there is a rollout: somebody asked, or a new version was issued for a certificate that is bound."""

    USER = "user"
    NEW_VERSION = "new_version"


@dataclass(frozen=True, slots=True)
class TargetView:
    """A target as its readers see it; credentials never appear."""

    id: str
    project_id: str
    name: str
    kind: str
    region: str
    config: Mapping[str, Any]
    health: Health
    health_problem: Mapping[str, Any] | None
    software: str
    discovered_at: datetime | None
    created_at: datetime
    updated_at: datetime
    revision: int


@dataclass(frozen=True, slots=True)
class BindingView:
    """This certificate serves this site. `current`: its current version is the one deployed there."""

    id: str
    project_id: str
    target_id: str
    target: str
    site_id: str
    site: str
    slot: str
    certificate_id: str
    deployed_version_id: str | None
    deployed_at: datetime | None
    current: bool
    auto_deploy: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class SiteView:
    """A site as last discovered; `gone_at` when the last discovery didn't find it any more."""

    id: str
    target_id: str
    label: str
    site: Site
    gone_at: datetime | None
    bindings: tuple[BindingView, ...]


@dataclass(frozen=True, slots=True)
class RolloutStepView:
    """One run of a step; `outcome` is None while it runs (or was interrupted)."""

    step: Step
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    details: tuple[str, ...]
    problem: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class RolloutItemView:
    """One binding of a rollout."""

    binding_id: str | None
    site_id: str | None
    site: str
    certificate_id: str
    version_id: str
    previous_version_id: str | None


@dataclass(frozen=True, slots=True)
class RolloutView:
    """A rollout with how far it is. `waiting_for` says what keeps its next step from running now."""

    id: str
    project_id: str
    target_id: str
    target: str
    state: RolloutState
    trigger: Trigger
    requested_by: str
    next_step: Step | None
    problem: Mapping[str, Any] | None
    waiting_for: Mapping[str, Any] | None
    cautions: tuple[Caution, ...]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    items: tuple[RolloutItemView, ...] = ()
    steps: tuple[RolloutStepView, ...] = ()
    planned: bool = True

    @property
    def refused(self) -> bool:
        """It was turned down before there was a plan: nothing was changed, so nothing was undone either."""
        return self.state is RolloutState.UNDONE and not self.planned and self.problem is not None


@dataclass(frozen=True, slots=True)
class Preview:
    """What deploying would do, found out without changing anything."""

    target_id: str
    files: tuple[str, ...]
    addresses: tuple[str, ...]
    sites: tuple[str, ...]
    cautions: tuple[Caution, ...]
