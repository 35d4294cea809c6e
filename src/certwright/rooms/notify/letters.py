"""What messages say. Each function makes one message in the current locale from facts; none of them asks anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from certwright.platform.i18n import N_, _, ngettext
from certwright.rooms.notify.words import NoticeStep, Text

_SEVERITIES = {
    "critical": N_("Critical"),
    "major": N_("Major"),
    "minor": N_("Minor"),
    "warning": N_("Warning"),
    "cleared": N_("Cleared"),
}


def alarm_text(told: Mapping[str, Any], what: str, base_url: str) -> Text:
    """An alarm that was raised, got worse or was cleared; `told` is the payload of the event, `what` its last word."""
    catalogue = told["catalogue"]
    severity = "cleared" if what == "cleared" else str(told["severity"])
    name, resource = _(str(catalogue["name"])), str(told["object_name"])
    shown = _(_SEVERITIES[severity])
    facts = [
        (_("Alarm"), f"{told['kind']} {name}"),
        (_("Severity"), shown),
        (_("Resource"), f"{resource} ({told['object_type']})"),
        (_("Monitored by"), _(str(catalogue["monitor_type"]))),
    ]
    if told["addresses"]:
        facts.append((_("Host IP"), ", ".join(told["addresses"])))
    facts.append((_("Location"), _location(told["location"])))
    facts.append((_("Raised"), minute(str(told["raised_at"]))))
    if what == "cleared":
        facts.append((_("Cleared"), minute(str(told["at"]))))
        facts.append((_("Cleared by"), str(told["by"])))
    values = [f"{value['value']:g}" for value in told["recent_values"]]
    if values:
        facts.append((_("Recent values ({unit})").format(unit=_(str(catalogue["unit"]))), ", ".join(values)))
    if told["threshold"] is not None:
        facts.append((_("Threshold crossed"), str(told["threshold"])))
    facts.append((_("Thresholds"), _(str(catalogue["threshold_text"]))))
    lead = _(str(told["sentence"]["template"])).format_map(told["sentence"]["values"])
    lists: list[tuple[str, tuple[str, ...]]] = []
    if what == "cleared":
        lead = _("The alarm is over. It had said: {sentence}").format(sentence=lead)
    else:
        facts.append((_("Impact"), _(str(catalogue["impact"]))))
        lists = [
            (_("Possible causes"), tuple(_(str(cause)) for cause in catalogue["causes"])),
            (_("What to do"), tuple(_(str(step)) for step in catalogue["handling"])),
        ]
    return Text(
        subject=f"[{shown}] {name}: {resource}",
        severity=severity,
        heading=f"{shown}: {name}",
        lead=lead,
        facts=tuple(facts),
        lists=tuple(lists),
        link=(_("Open the alarm"), f"{base_url}/alarms/{told['alarm_id']}"),
    )


def _location(location: Mapping[str, Any]) -> str:
    parts = []
    for key, value in location.items():
        if value in (None, "", "none"):
            continue
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        parts.append(f"{key.removesuffix('_id')} {shown}")
    return "; ".join(parts) or "–"


def expiry_text(
    step: NoticeStep,
    *,
    certificate_id: str,
    name: str,
    names: Sequence[str],
    not_after: datetime,
    now: datetime,
    renews: bool,
    base_url: str,
) -> Text:
    """A reminder that a certificate runs out; the first of a short life says that its renewal is late."""
    days = max((not_after - now) // timedelta(days=1), 0)
    expired = now >= not_after
    if expired:
        heading, severity = _("The certificate {name} has expired").format(name=name), "critical"
        lead = _("It expired on {when}; clients warn about it or refuse it.").format(when=minute(not_after.isoformat()))
    else:
        left = ngettext("{days} day left", "{days} days left", days).format(days=days)
        severity = "major" if days < 7 else "minor"
        if step.first_of_short_life and renews:
            heading = _("The renewal of {name} is overdue: {left}").format(name=name, left=left)
        else:
            heading = _("The certificate {name} expires soon: {left}").format(name=name, left=left)
        lead = _("It expires on {when}.").format(when=minute(not_after.isoformat()))
    if renews:
        advice = (
            _("It renews by itself, but has not done so yet: look at the last problem of its renewal."),
            _("Correct the cause, or start the renewal by hand."),
        )
    else:
        advice = (
            _("Apply for a new certificate or upload one, in time for everything that has to be installed by hand."),
            _("An organization-validated certificate takes its CA three to ten working days."),
        )
    return Text(
        subject=heading,
        severity=severity,
        heading=heading,
        lead=lead,
        facts=(
            (_("Certificate"), f"{name} ({certificate_id})"),
            (_("Names"), ", ".join(names[:20]) + (" …" if len(names) > 20 else "")),
            (_("Expires"), minute(not_after.isoformat())),
        ),
        lists=((_("What to do"), advice),),
        link=(_("Open the certificate"), f"{base_url}/certificates/{certificate_id}"),
    )


def verification_text(name: str, code: str, hours: int) -> Text:
    """The message that proves an address belongs to somebody who wants messages."""
    return Text(
        # Subjects are listed to whoever may see messages, and shown on locked screens: the code stays inside.
        subject=_("Your code for messages from Certwright"),
        severity="info",
        heading=_("Confirm this address"),
        lead=_(
            "{name}, somebody entered this address to be told about certificates. If you agree, give them the code "
            "below or enter it yourself. If not, do nothing: no other message will come."
        ).format(name=name),
        facts=((_("Code"), code), (_("Good for"), ngettext("{n} hour", "{n} hours", hours).format(n=hours))),
    )


def minute(iso: str) -> str:
    """`2026-11-21 09:05 UTC` from an ISO time in UTC."""
    return f"{iso[:10]} {iso[11:16]} UTC"
