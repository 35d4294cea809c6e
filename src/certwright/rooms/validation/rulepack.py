"""The dated rules of public trust as frozen values; the package ships with a file of them.

Every figure is looked up by the date of issue, so that the product switches by itself at midnight UTC of the day named.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

_FILE = "rules-2026.yaml"
PERSISTENT = frozenset(("dns-persist-01",))
"""Methods whose record stays for good (BR 3.2.2.4.22): what they showed ages sooner."""
# Days: what is larger is a slip.
_MOST = 4000
_Step = TypeVar("_Step", bound="_Dated")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Dated(_Strict):
    from_: Annotated[date, Field(alias="from")]


class ValidityStep(_Dated):
    """Longest life of a leaf in days: never more than `max`, `ask` to stay clear of it."""

    max: int = Field(gt=0, le=_MOST)
    ask: int = Field(gt=0, le=_MOST)

    @model_validator(mode="after")
    def _within(self) -> ValidityStep:
        if self.ask > self.max:
            raise ValueError("ask must not be more than max")
        return self


class DaysStep(_Dated):
    """A limit in days."""

    max: int = Field(gt=0, le=_MOST)


class SecondsStep(_Dated):
    """A limit in seconds."""

    max: int = Field(gt=0, le=_MOST * 86_400)


class ClassicStep(_Dated):
    """Let's Encrypt's classic profile: life in days, re-use of authorizations in hours."""

    days: int = Field(gt=0, le=_MOST)
    authz_reuse_hours: int = Field(gt=0, le=24 * _MOST)


class Keys(_Strict):
    rsa_min: int
    rsa_multiple_of: int
    curves: tuple[str, ...]


class PublicTls(_Strict):
    """The Baseline Requirements as dated data."""

    validity_days: tuple[ValidityStep, ...]
    dcv_reuse_days: tuple[DaysStep, ...]
    dcv_reuse_days_persistent_dns: int
    organization_reuse_days: tuple[DaysStep, ...]
    short_lived_max_seconds: tuple[SecondsStep, ...]
    method_discouraged: dict[str, date]
    method_end: dict[str, date]
    exact_fqdn_only: tuple[str, ...]
    caa_parameters_must: date
    server_auth_only_eku: date
    keys: Keys
    revocation_reasons: tuple[str, ...]

    @model_validator(mode="after")
    def _ordered(self) -> PublicTls:
        for steps in (
            self.validity_days, self.dcv_reuse_days, self.organization_reuse_days, self.short_lived_max_seconds,
        ):  # fmt: skip
            days = [step.from_ for step in steps]
            if not days or days != sorted(set(days)):
                raise ValueError("dated steps must be present and in order")
        return self


class LetsEncrypt(_Strict):
    revocation_reasons: tuple[str, ...]
    classic_days: tuple[ClassicStep, ...]
    tlsserver_days: int
    shortlived_hours: int

    @model_validator(mode="after")
    def _ordered(self) -> LetsEncrypt:
        days = [step.from_ for step in self.classic_days]
        if not days or days != sorted(set(days)):
            raise ValueError("dated steps must be present and in order")
        return self


class RenewalFallback(_Strict):
    fraction_of_life: float = Field(gt=0, lt=1)
    fraction_if_life_under_10_days: float = Field(gt=0, lt=1)


class RulePack(_Strict):
    """The whole file. Use the functions below for anything that depends on a date."""

    public_tls: PublicTls
    letsencrypt: LetsEncrypt
    renewal_fallback: RenewalFallback
    notification_steps_days: tuple[int, ...]
    notification_steps_fraction_left: tuple[float, ...]


@lru_cache(maxsize=1)
def rule_pack() -> RulePack:
    """The rules shipped with this release, for what belongs to no account (others: `rulebook.rules_of`). Raises
    pydantic.ValidationError if the file is damaged."""
    return parse(shipped_text())


def shipped_text() -> str:
    return files("certwright.rooms.validation").joinpath(_FILE).read_text("utf-8")


def parse(text: str) -> RulePack:
    return RulePack.model_validate(yaml.safe_load(text))


@dataclass(frozen=True, slots=True)
class Validity:
    """Days of life for a leaf issued at a given moment."""

    max_days: int
    ask_days: int


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _in_force(steps: tuple[_Step, ...], at: datetime) -> _Step:
    """The last step that began at or before `at`; the first one for moments before all of them."""
    began = [step for step in steps if _midnight(step.from_) <= at]
    return began[-1] if began else steps[0]


def validity(pack: RulePack, at: datetime) -> Validity:
    """Life of a publicly trusted leaf issued at `at` (BR 6.3.2)."""
    step = _in_force(pack.public_tls.validity_days, at)
    return Validity(step.max, step.ask)


def dcv_reuse(pack: RulePack, at: datetime) -> timedelta:
    """How old a domain validation may be when issuing at `at` (BR 4.2.1)."""
    return timedelta(days=_in_force(pack.public_tls.dcv_reuse_days, at).max)


def organization_reuse(pack: RulePack, at: datetime) -> timedelta:
    """How old an organisation's verification may be when issuing at `at` (BR 4.2.1)."""
    return timedelta(days=_in_force(pack.public_tls.organization_reuse_days, at).max)


LETS_ENCRYPT = "letsencrypt.org"
"""What Let's Encrypt calls itself in CAA records."""


def lets_encrypt_classic(pack: RulePack, at: datetime) -> tuple[int, int]:
    """(days of life, hours for which an authorization is used again) of Let's Encrypt's usual certificates at `at`."""
    step = _in_force(pack.letsencrypt.classic_days, at)
    return step.days, step.authz_reuse_hours


def method_end(pack: RulePack, method: str) -> datetime | None:
    """From when public CAs may neither use the method nor rely on what it showed before."""
    day = pack.public_tls.method_end.get(method)
    return _midnight(day) if day else None


def dcv_usable_until(pack: RulePack, method: str, validated_at: datetime, *, public: bool) -> datetime:
    """The last moment at which a certificate may be issued on this validation.

    The limit is that of the day of issue, so that a later, shorter limit cuts old evidence off at midnight of the day
    it begins. An operator's own CA is held to the same ages, not to the end of methods.
    """
    steps = pack.public_tls.dcv_reuse_days
    until = validated_at + dcv_reuse(pack, validated_at)
    for step in steps:
        begins = _midnight(step.from_)
        if validated_at < begins < until:
            until = min(until, max(begins - timedelta(microseconds=1), validated_at + timedelta(days=step.max)))
    if method in PERSISTENT:
        until = min(until, validated_at + timedelta(days=pack.public_tls.dcv_reuse_days_persistent_dns))
    end = method_end(pack, method) if public else None
    return until if end is None else min(until, end - timedelta(microseconds=1))
