"""Pure decisions about deploying: facts in, verdict with reason out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from certwright.kernel.names import covers
from certwright.kernel.problems import Invalid, Problem, Refused, Unavailable
from certwright.rooms.deployment.words import FINISHED_STATES, ORDER, Caution, KeyKind, RolloutState, Site, Slot, Step

ONLY_SLOT = "only"
UNDO_ATTEMPTS = 5
_FIRST_RETRY = timedelta(minutes=15)
_LONGEST_RETRY = timedelta(hours=12)
_FIRST_UNDO_AGAIN = timedelta(minutes=1)
_LONGEST_UNDO_AGAIN = timedelta(minutes=10)
_NAME_LENGTH = 63
_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.- ")


def judge_target_name(name: str) -> str:
    """1 to 63 letters, digits, spaces and `_.-`; raises Invalid `target_name_invalid`."""
    trimmed = name.strip()
    if not 1 <= len(trimmed) <= _NAME_LENGTH or not set(trimmed) <= _NAME_CHARACTERS:
        raise Invalid(
            "target_name_invalid",
            f"A target's name has 1 to {_NAME_LENGTH} letters, digits, spaces, hyphens, underscores and dots.",
            field="name",
            fix="Shorten it or leave out other characters.",
        )
    return trimmed


def judge_region(region: str) -> str:
    """At most 63 of the characters names have; may be empty."""
    trimmed = region.strip()
    if len(trimmed) > _NAME_LENGTH or not set(trimmed) <= _NAME_CHARACTERS:
        raise Invalid(
            "region_invalid", "A region has at most 63 letters, digits, hyphens, underscores and dots.",
            field="region", fix="Write something like eu-west-1, or leave it out.",
        )  # fmt: skip
    return trimmed


def label_of(site: Site) -> str:
    """How a site is called for people: its first name and where it listens."""
    names = [name for name in site.names if name not in ("", "_")]
    where = ", ".join(listener.text for listener in site.listeners[:2])
    return f"{names[0]} ({where})" if names else where


def served_names(site: Site, slot: Slot) -> tuple[str, ...]:
    """Names clients may use there now: those the site answers to and those of the certificate in its file."""
    out: list[str] = []
    for name in site.names:
        if name.startswith("."):
            out += [name[1:], f"*{name}"]
        elif name and name != "_" and not name.startswith("~") and not name.endswith(".*") and "$" not in name:
            out.append(name)
    out += slot.installed.names if slot.installed else ()
    return tuple(dict.fromkeys(out))


def not_covered(new_names: Sequence[str], served: Sequence[str]) -> tuple[str, ...]:
    """Names served now that the new certificate is not good for (RFC 6125 6.4.3)."""
    return tuple(name for name in served if not any(covers(pattern, name) for pattern in new_names))


def coverage_caution(label: str, new_names: Sequence[str], served: Sequence[str]) -> Caution | None:
    missing = not_covered(new_names, served)
    if not missing:
        return None
    shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    return Caution(
        "names_not_covered", f"{label} serves {shown} now, which the new certificate does not cover.", missing
    )


def slot_for(site: Site, kind: KeyKind) -> tuple[str, Slot]:
    """Which of a site's certificates a new one of this key type replaces, and the word for that slot.

    Raises Refused `site_not_managed`, `no_slot_for_key_type`.
    """
    if not site.managed:
        raise Refused(
            "site_not_managed",
            f"{label_of(site)} can't be changed: {site.unmanaged_reason}",
            fix="Choose another site, or change its configuration to plain file names.",
            extra={"reason": site.unmanaged_code},
        )
    managed = [slot for slot in site.slots if slot.managed]
    if len(site.slots) == 1:
        return ONLY_SLOT, managed[0]
    fitting = [slot for slot in managed if slot.installed is not None and slot.installed.key_kind is kind]
    fitting = fitting or [slot for slot in managed if slot.installed is None]
    if len(fitting) != 1:
        raise Refused(
            "no_slot_for_key_type",
            f"{label_of(site)} has {len(site.slots)} certificates, and it isn't clear which one an {kind.upper()} "
            "certificate should replace.",
            fix="Choose a certificate whose key type is that of exactly one of the site's certificates.",
        )
    return kind.value, fitting[0]


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """What decides whether a version may be put on a server."""

    has_key: bool
    revoked: bool
    not_after: datetime


def why_not_deploy(facts: VersionFacts, now: datetime) -> Problem | None:
    """None if this version may be deployed, else the reason."""
    if facts.revoked:
        return Refused(
            "version_revoked", "This certificate was revoked; clients would refuse it.",
            fix="Reissue it, then deploy the new version.",
        )  # fmt: skip
    if facts.not_after <= now:
        return Refused(
            "version_expired",
            f"This certificate expired on {facts.not_after:%Y-%m-%d %H:%M} UTC; clients would refuse it.",
            fix="Renew it, then deploy the new version.",
        )
    if not facts.has_key:
        return Refused(
            "no_private_key", "The private key is not held here, because the CSR was uploaded.",
            fix="Install the certificate by hand with the key you made the CSR with.",
        )  # fmt: skip
    return None


def files_shared_with(slot: Slot, others: Mapping[str, Slot]) -> str | None:
    """The label of another site bound to another certificate but using one of the same files; None if there is none.

    `others` are the slots of the target's bindings to other certificates, by their sites' labels.
    """
    own = {slot.certificate_path, slot.key_path}
    for label, other in others.items():
        if own & {other.certificate_path, other.key_path}:
            return label
    return None


def match_sites(known: Mapping[str, Site], found: Sequence[Site]) -> dict[str, str]:
    """Which known site (by id) each found one (by key) is, so that bindings survive a renamed site.

    Same key first; then the same certificate files, if just one known and one found site that are left have them.
    """
    by_key = {site.key: site_id for site_id, site in known.items()}
    out = {site.key: by_key[site.key] for site in found if site.key in by_key}
    left_known = [(site_id, site) for site_id, site in known.items() if site_id not in out.values()]
    left_found = [site for site in found if site.key not in out]
    for site in left_found:
        files = _files(site)
        same_known = [site_id for site_id, old in left_known if _files(old) == files]
        same_found = [other for other in left_found if _files(other) == files]
        if files and len(same_known) == 1 and len(same_found) == 1:
            out[site.key] = same_known[0]
    return out


def _files(site: Site) -> frozenset[str]:
    return frozenset(slot.certificate_path for slot in site.slots)


def following(step: Step) -> Step | None:
    """The step after this one when all goes well; None at the end."""
    return None if step in (Step.KEEP, Step.UNDO) else ORDER[ORDER.index(step) + 1]


def after_failure(step: Step, undo_failures: int) -> tuple[RolloutState, Step | None]:
    """Where a rollout goes when `step` was refused; `undo_failures` counts this one, too.

    Planning changes nothing, so there is nothing to undo. An undo that keeps failing is somebody's to look at, and goes
    on being tried: it only puts back what the rollout itself wrote, so that trying is safe at any time.
    """
    if step is Step.PLAN:
        return RolloutState.UNDONE, None
    if step is Step.UNDO and undo_failures >= UNDO_ATTEMPTS:
        return RolloutState.FAILED, Step.UNDO
    return RolloutState.UNDOING, Step.UNDO


def undo_again_after(tries: int) -> timedelta:
    """How long to wait before a failed undo is tried once more, `tries` such waits later: 1 min, 2 min … 10 min."""
    doubled: timedelta = _FIRST_UNDO_AGAIN * 2 ** min(tries, 10)
    return min(doubled, _LONGEST_UNDO_AGAIN)


def undo_failed(rollout_id: str, target: str, why: Problem, because: Mapping[str, Any] | None) -> Refused:
    """What a failed rollout says: what a person must do, and that the rest goes by itself. `because` is what the
    rollout was undone for; None when somebody asked for it."""
    return Refused(
        "undo_failed",
        f"What {target} served before could not be put back: {why.message}",
        fix=f"{why.fix} The undo is tried again every few minutes; certwright rollouts undo {rollout_id} tries at "
        f"once. Other rollouts to {target} wait for it.".strip(),
        extra={"why": why.code, "because": because and dict(because)},
    )


def undone_for(problem: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What a rollout is undone for, of the problem it has now: that of a failed undo holds it inside."""
    because: Mapping[str, Any] | None = problem
    if problem is not None and problem["code"] == "undo_failed":
        because = problem["because"]
    return because


def why_wait(rollout_id: str, state: RolloutState, target: str, problem: Mapping[str, Any] | None) -> Problem:
    """What keeps a rollout from beginning: the one before it on the same target, with these facts."""
    if state is RolloutState.FAILED:
        said = (problem or {}).get("message", f"Rollout {rollout_id} failed.")
        return Refused(
            "target_undo_failed",
            f"This rollout waits for rollout {rollout_id} to the same target, which failed and could not be undone. "
            f"{said}",
            fix=f"Mend what it names, then certwright rollouts undo {rollout_id}; this one goes on by itself.",
            extra={"rollout_id": rollout_id},
        )
    return Unavailable(
        "target_busy", f"{target} is being changed by rollout {rollout_id}.", extra={"rollout_id": rollout_id},
        fix="Wait until that rollout is finished; this one goes on by itself then.",
    )  # fmt: skip


def why_not_undo(state: RolloutState, *, is_latest: bool, label: str) -> Problem | None:
    """None if a finished rollout may be undone by hand."""
    if state not in FINISHED_STATES:
        return Refused(
            "rollout_under_way", "This rollout is still under way.", fix="Wait until it is finished.",
            extra={"state": state.value},
        )  # fmt: skip
    if state is RolloutState.UNDONE:
        return Refused(
            "rollout_undone_already", "This rollout was undone already.", fix="There is nothing left to do.",
            extra={"state": state.value},
        )  # fmt: skip
    if not is_latest:
        return Refused(
            "rollout_not_latest",
            f"A later rollout has changed {label} since.",
            fix="Undo the later one first, or deploy the certificate you want served.",
            extra={"state": state.value},
        )
    return None


def retry_after(failures: int) -> timedelta:
    """How long to wait before bringing a new version to a site is tried again by itself: 15 min, 30 min … 12 h."""
    doubled: timedelta = _FIRST_RETRY * 2 ** min(failures - 1, 10)
    return min(doubled, _LONGEST_RETRY)
