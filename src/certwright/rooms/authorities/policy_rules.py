"""What policies let private CAs issue: pure decisions. Every policy that applies must allow it; none widens another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from certwright.kernel.problems import Invalid, Problem, Refused
from certwright.rooms.authorities import name_rules
from certwright.rooms.authorities.words import CaPolicy, NameVerdict, PolicyLimits
from certwright.x509.issue import DAY
from certwright.x509.profiles import MAX_DAYS

MOST_RULES: Final = 200
MOST_POLICIES: Final = 200
LARGEST_QUOTA: Final = 1_000_000
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{1,100}")
_ASK: Final = "Somebody who may change the policies of private CAs (ccm:policy:update) can allow it"


@dataclass(frozen=True, slots=True)
class Asked:
    """A certificate somebody asks for; `project` and `authority` are their names. `profile` None: not known yet;
    `seconds` None: the usual life."""

    project: str
    authority: str
    profile: str | None
    names: tuple[str, ...]
    common_name: str | None = None
    seconds: int | None = None


# --- policies themselves ---------------------------------------------------------------------------------------------


def judge_policy(name: str, limits: PolicyLimits) -> PolicyLimits:
    """The limits as they are kept. Raises Invalid naming the field, and what reading rules raises."""
    if not _NAME.fullmatch(name) or not name.strip():
        raise Invalid("ca_policy_name", "A policy's name has 1 to 100 printable characters.", field="name",
                      fix="Choose one that people understand when it refuses something: Shop names.")  # fmt: skip
    for field, found in (("allowed", limits.allowed), ("refused", limits.refused), ("profiles", limits.profiles)):
        if len(found) > MOST_RULES:
            raise Invalid("ca_policy_too_long", f"A policy holds at most {MOST_RULES} lines of a kind.", field=field,
                          fix="Write what they have in common: .example.internal, 10.0.0.0/8.")  # fmt: skip
    if limits.max_days is not None and not 1 <= limits.max_days <= MAX_DAYS:
        raise Invalid("ca_policy_days", f"The longest life is 1 to {MAX_DAYS} days.", field="max_days",
                      fix="Leave it out where the kinds of certificates limit it enough.")  # fmt: skip
    if limits.quota is not None and not 0 <= limits.quota <= LARGEST_QUOTA:
        raise Invalid("ca_policy_quota", f"The quota is 0 to {LARGEST_QUOTA}.", field="quota",
                      fix="Leave it out for no limit; 0 lets a project have none.")  # fmt: skip
    return PolicyLimits(
        allowed=name_rules.read_rules(limits.allowed, "allowed"),
        refused=name_rules.read_rules(limits.refused, "refused"),
        wildcards=limits.wildcards,
        profiles=tuple(dict.fromkeys(limits.profiles)),
        max_days=limits.max_days,
        quota=limits.quota,
    )


# --- names -----------------------------------------------------------------------------------------------------------


def verdict(policies: Iterable[CaPolicy], name: str) -> NameVerdict:
    """What all policies together say to one name, in a sentence; the first that refuses it decides."""
    found = _verdict(policies, name)
    return replace(found, why=f"{found.why[0].upper()}{found.why[1:]}.")


def _verdict(policies: Iterable[CaPolicy], name: str) -> NameVerdict:
    found = NameVerdict(name, True, "no policy that applies limits names")
    for policy in policies:
        said = _one_verdict(policy, name)
        if not said.allowed:
            return said
        if found.rule is None and said.rule is not None:
            found = said
    return found


def _one_verdict(policy: CaPolicy, name: str) -> NameVerdict:
    limits = policy.limits
    if name.startswith("*.") and not limits.wildcards:
        return NameVerdict(name, False, f"the policy {policy.name!r} allows no wildcards", policy.name)
    if (rule := name_rules.which_refuses(limits.refused, name)) is not None:
        return NameVerdict(name, False, f"the policy {policy.name!r} refuses {rule}", policy.name, rule)
    if not limits.allowed:
        return NameVerdict(name, True, f"the policy {policy.name!r} doesn't refuse it")
    if (rule := name_rules.which_allows(limits.allowed, name)) is not None:
        return NameVerdict(name, True, f"the policy {policy.name!r} allows {rule}", policy.name, rule)
    return NameVerdict(name, False, f"the policy {policy.name!r} allows other names only", policy.name)


# --- requests --------------------------------------------------------------------------------------------------------


def refusal(policies: Sequence[CaPolicy], asked: Asked) -> Problem | None:
    """Why this may not be issued: Refused `profile_not_allowed`, `life_not_allowed` or `name_not_allowed`; None if it
    may, as far as its quota."""
    for policy in policies:
        limits = policy.limits
        if limits.profiles and asked.profile is not None and asked.profile not in limits.profiles:
            return Refused(
                "profile_not_allowed",
                f"The project {asked.project!r} may have no certificates of the kind {asked.profile!r} from "
                f"{asked.authority!r}: the policy {policy.name!r} allows {', '.join(limits.profiles)}.",
                field="profile", fix=f"Choose another kind. {_ASK}.",
                extra={"policy": policy.name, "policy_id": policy.id, "profiles": list(limits.profiles)},
            )  # fmt: skip
        if limits.max_days is not None and asked.seconds is not None and asked.seconds > limits.max_days * DAY:
            return Refused(
                "life_not_allowed",
                f"The project {asked.project!r} may have certificates from {asked.authority!r} for at most "
                f"{limits.max_days} days: so says the policy {policy.name!r}.",
                field="days", fix=f"Ask for at most {limits.max_days} days. {_ASK}.",
                extra={"policy": policy.name, "policy_id": policy.id, "max_days": limits.max_days},
            )  # fmt: skip
    common = name_rules.name_in_common_name(asked.common_name, asked.names)
    said = [_verdict(policies, name) for name in (*asked.names, *([] if common is None else [common]))]
    wrong = [one for one in said if not one.allowed]
    if not wrong:
        return None
    first = wrong[0]
    more = f" (and {len(wrong) - 1} more of its names)" if len(wrong) > 1 else ""
    return Refused(
        "name_not_allowed",
        f"The project {asked.project!r} may not have {first.name[:260]!r} certified by {asked.authority!r}{more}: "
        f"{first.why}.",
        field="subject.common_name" if first is said[-1] and common is not None else "names",
        fix=f"Leave the name out, or ask in another project. {_ASK}.",
        extra={"policy": first.policy, "rule": first.rule, "names": [one.name for one in wrong]},
    )  # fmt: skip


def longest_seconds(policies: Iterable[CaPolicy]) -> int | None:
    """The longest life that all of them allow; what is asked for without a life gets at most this."""
    found = [policy.limits.max_days * DAY for policy in policies if policy.limits.max_days is not None]
    return min(found, default=None)


def narrowest_quota(policies: Iterable[CaPolicy]) -> CaPolicy | None:
    """The policy whose quota is the smallest."""
    found = [policy for policy in policies if policy.limits.quota is not None]
    return min(found, key=lambda policy: policy.limits.quota or 0, default=None)


def quota_refusal(policy: CaPolicy, asked: Asked) -> Refused:
    quota = policy.limits.quota
    return Refused(
        "certificate_quota",
        f"The project {asked.project!r} may have no further certificate from {asked.authority!r}: the policy "
        f"{policy.name!r} allows {quota} at a time.",
        fix=f"Revoke some that aren't needed, or wait until some expire. {_ASK}.",
        extra={"policy": policy.name, "policy_id": policy.id, "quota": quota},
    )  # fmt: skip
