"""The alarms there are, as data: what each means, what may have caused it and what to do about it.

Texts are English here and translated when shown; sentences are made from an alarm's reason code and parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from certwright.platform.i18n import N_, _
from certwright.rooms.watch.words import (
    CA_ENDS,
    DEPLOYMENT,
    DESK,
    DIFFERS,
    EVIDENCE,
    EXCEPTION,
    OVERDUE,
    WRONG_CERTIFICATE,
)


@dataclass(frozen=True, slots=True)
class AlarmKind:
    """One row of the alarm catalogue. `severities` are those it can have; texts are in the current locale when read
    through `localized`."""

    id: str
    name: str
    severities: tuple[str, ...]
    resource_type: str
    monitor_type: str
    unit: str
    threshold: str
    causes: tuple[str, ...]
    impact: str
    handling: tuple[str, ...]
    auto_clear: bool = True


CATALOGUE: Mapping[str, AlarmKind] = {
    kind.id: kind
    for kind in (
        AlarmKind(
            id=EXCEPTION,
            name=N_("Certificate exception"),
            severities=("minor", "major", "critical"),
            resource_type="endpoint",
            monitor_type=N_("TLS handshake with every address of the endpoint"),
            unit=N_("days left"),
            threshold=N_(
                "1: fewer than 30 days left (minor; major under 7 days; for lives under 100 days, 33 % and 15 % of "
                "the life). 2: expired (critical). 3: invalid or missing: unreadable, wrong name, broken chain or not "
                "served (critical)."
            ),
            causes=(
                N_("The certificate was not renewed in time, or the renewed one was not installed."),
                N_("The server was not reloaded after its files changed."),
                N_("The certificate was issued for other names, or the wrong file was installed."),
                N_("The issuer's certificate is missing from the file the server sends."),
                N_("The server is stopped, or a firewall is in the way."),
            ),
            impact=N_("Browsers and other clients warn about the connection or refuse it."),
            handling=(
                N_("Open the endpoint to see what each address serves."),
                N_("If the certificate runs out: renew it, or apply for a new one."),
                N_("Deploy it with its full chain; the server is reloaded and checked from outside."),
                N_("If nothing answers: check that the server runs and listens on this address and port."),
                N_("The alarm clears by itself at the next good probe."),
            ),
        ),
        AlarmKind(
            id=DIFFERS,
            name=N_("Served certificate differs from intended"),
            severities=("major",),
            resource_type="endpoint",
            monitor_type=N_("TLS handshake with every address of the endpoint"),
            unit="",
            threshold=N_("The fingerprint served is not that of the version meant to be in use."),
            causes=(
                N_("The server was not reloaded after its files changed."),
                N_("Somebody replaced the certificate by hand."),
                N_("One of several servers behind the name was left out of the rollout."),
                N_("Another server answers at this address."),
            ),
            impact=N_("Some clients get an old or foreign certificate; it may expire unnoticed."),
            handling=(
                N_("Compare the two fingerprints on the endpoint's page."),
                N_("Deploy the certificate to the site again, or correct the binding if the served one is right."),
                N_("The alarm clears by itself at the next good probe."),
            ),
        ),
        AlarmKind(
            id=OVERDUE,
            name=N_("Renewal overdue"),
            severities=("major",),
            resource_type="certificate",
            monitor_type=N_("Time since the certificate should have been renewed"),
            unit=N_("days left"),
            threshold=N_("A fifth of the time between the renewal date and expiry has passed without a new version."),
            causes=(
                N_("Validation fails: a DNS record or a file is no longer where it was."),
                N_("The CA can't be reached or refuses the order."),
                N_("Automatic renewal is switched off for the certificate."),
            ),
            impact=N_("Without a new version the certificate expires on the date named."),
            handling=(
                N_("Open the certificate to see the last problem of its renewal."),
                N_("Correct it and start the renewal by hand; nothing needs to be done if it succeeds meanwhile."),
                N_("The alarm clears by itself when a new version is issued."),
            ),
        ),
        AlarmKind(
            id=DEPLOYMENT,
            name=N_("Deployment failed or undone"),
            severities=("major",),
            resource_type="certificate",
            monitor_type=N_("Outcome of the rollout"),
            unit="",
            threshold=N_("A rollout ended without the intended certificate being served."),
            causes=(
                N_("The server's configuration has an error of its own, so that it can't be reloaded."),
                N_("Files can't be written: permissions or a full disk."),
                N_("The target can't be reached."),
            ),
            impact=N_("The previous certificate is still in use where the rollout was undone."),
            handling=(
                N_("Open the rollout: each step shows what it did and where it stopped."),
                N_("Correct the cause and deploy again."),
                N_("The alarm clears by itself when a rollout of the certificate succeeds."),
            ),
        ),
        AlarmKind(
            id=EVIDENCE,
            name=N_("Validation evidence expires before next renewal"),
            severities=("minor",),
            resource_type="certificate",
            monitor_type=N_("Age of the evidence that the next renewal will need"),
            unit="",
            threshold=N_("The evidence ends within 30 days and before the renewal, and nothing renews it by itself."),
            causes=(
                N_("The names were validated by hand, and the time for which that counts has become shorter."),
                N_("No DNS connection holds the zone, so that nobody publishes a new record."),
            ),
            impact=N_("The renewal stops until somebody shows again that the names are theirs."),
            handling=(
                N_("Best: connect the DNS server of the zone; then names are validated without anybody."),
                N_("Otherwise reissue the certificate after the evidence has ended, and publish what is shown there."),
                N_("The alarm clears by itself when there is newer evidence or a DNS connection."),
            ),
        ),
        AlarmKind(
            id=DESK,
            name=N_("Organization desk behind"),
            severities=("minor",),
            resource_type="desk",
            monitor_type=N_("Time that cases have been waiting for the desk"),
            unit=N_("cases"),
            threshold=N_(
                "An organization waits for the desk longer than the working days its product promises (without a "
                "product: 5 for OV, 10 for EV)."
            ),
            causes=(
                N_("Nobody has taken the case, or whoever took it isn't there."),
                N_("An EV case waits for a second person."),
            ),
            impact=N_("Certificates that were applied for, and perhaps paid, are not issued."),
            handling=(
                N_("Open the desk: the oldest cases come first."),
                N_("A case nobody worked on for a day can be released by anybody at the desk."),
                N_("The alarm clears by itself when no case is late."),
            ),
        ),
        AlarmKind(
            id=WRONG_CERTIFICATE,
            name=N_("CA returned a wrong certificate"),
            severities=("major",),
            resource_type="certificate",
            monitor_type=N_("Comparison of what the CA issued with what was asked for"),
            unit="",
            threshold=N_("Other names, another key, a chain that doesn't belong to it, or expired already."),
            causes=(
                N_("The CA mixed up orders, or is being repaired."),
                N_("Somebody else answers in the CA's place."),
                N_("An intermediate of the CA was changed and the old one is still handed out."),
            ),
            impact=N_("The certificate was refused; what was in use before stays in use until it expires."),
            handling=(
                N_("Open the certificate: its application says what was returned."),
                N_("Ask the CA, and have what it issued revoked."),
                N_("Apply again, or choose another CA; the alarm clears by itself when a right one is issued."),
            ),
        ),
        AlarmKind(
            id=CA_ENDS,
            name=N_("CA ends soon"),
            severities=("minor", "major", "critical"),
            resource_type="authority",
            monitor_type=N_("End of the certificates of private CAs"),
            unit=N_("days left"),
            threshold=N_(
                "1: less than a year left, or a fifth of the CA's life if that is shorter (minor; major in the last "
                "tenth of that time). 2: ended while it was in use (critical)."
            ),
            causes=(
                N_("The CA's certificate is near its end, and nobody has renewed it or put another CA in its place."),
                N_("The CA above it ended sooner than planned: no CA outlives the one above it."),
            ),
            impact=N_(
                "No certificate outlives its CA: what is issued now is cut off by the CA's end, and after it nothing "
                "is issued and nothing that was issued is believed."
            ),
            handling=(
                N_(
                    "Open the CA and renew it: the same name and key, a certificate that ends later. If its parent is "
                    "elsewhere, have that one sign the key once more. If the CA above ends first, renew that before."
                ),
                N_("Give clients a root's new certificate before the old one ends; servers get chains at renewals."),
                N_("A CA nobody needs any more: disable and delete it."),
                N_("The alarm clears by itself when the CA was renewed or revoked, or is deleted."),
            ),
        ),
    )
}


def localized(kind: str) -> AlarmKind:
    """The catalogue's entry in the current locale."""
    entry = CATALOGUE[kind]
    return AlarmKind(
        id=entry.id,
        name=_(entry.name),
        severities=entry.severities,
        resource_type=entry.resource_type,
        monitor_type=_(entry.monitor_type),
        unit=_(entry.unit) if entry.unit else "",
        threshold=_(entry.threshold),
        causes=tuple(_(text) for text in entry.causes),
        impact=_(entry.impact),
        handling=tuple(_(text) for text in entry.handling),
        auto_clear=entry.auto_clear,
    )


_SENTENCES: Mapping[str, str] = {
    "expired": N_("The certificate {subject} expired on {not_after}."),
    "not_yet_valid": N_("The certificate {subject} is valid only from {not_before}; a clock may be wrong."),
    "wrong_name": N_("The certificate served is not valid for {name}; it names {names}."),
    "chain_incomplete": N_("The chain is incomplete: {detail}."),
    "chain_broken": N_("The chain is broken: {detail}."),
    "expires_soon": N_("The certificate {subject} expires on {not_after}."),
    "no_certificate": N_("The server sent no certificate."),
    "unreadable": N_("The certificate can't be read: {detail}."),
    "unreachable": N_("No certificate is served: {detail}."),
    "differs": N_("The certificate served ({served}) is not the intended one ({intended})."),
    "renewal_overdue": N_(
        "The renewal was due on {due} and has not succeeded; the certificate expires on {not_after}."
    ),
    "evidence_runs_out": N_(
        "The proof that {names} may be certified counts until {until}; the renewal due on {needed_at} needs newer."
    ),
    "evidence_missing": N_(
        "There is no proof any more that {names} may be certified; the renewal due on {needed_at} will need it."
    ),
    "desk_behind": N_("{late} of {waiting} cases at the organization desk are late; the first was due on {due_at}."),
    "wrong_certificate": N_("What the CA returned was refused: {detail}."),
    "ca_ends": N_("The CA {ca} ends on {not_after}; nothing it issues outlives it."),
    "ca_ended": N_("The CA {ca} ended on {not_after}; nothing it issued is believed any more."),
    "rollout_failed": N_("The rollout failed: {detail}."),
    "rollout_undone": N_("The rollout was undone, the previous certificate is back in place: {detail}."),
}


def sentence(reason: str, params: Mapping[str, Any]) -> str:
    """One sentence in the current locale. Times are shown to the minute in UTC, fingerprints by their beginning."""
    template, values = sentence_parts(reason, params)
    return _(template).format_map(values) if template else reason


def sentence_parts(reason: str, params: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """The English template of a reason and every value it needs as a person reads it; no template if it is unknown.

    For events: whoever hears of an alarm can say the sentence in a language of its own.
    """
    template = _SENTENCES.get(reason, "")
    wanted = [name for _text, name, _spec, _conversion in Formatter().parse(template) if name]
    return template, {name: _shown(name, params[name]) if name in params else "–" for name in wanted}


def as_told(kind: str) -> dict[str, Any]:
    """The catalogue's entry in English, for events; the receiver translates text by text."""
    entry = CATALOGUE[kind]
    return {
        "name": entry.name,
        "resource_type": entry.resource_type,
        "monitor_type": entry.monitor_type,
        "unit": entry.unit,
        "threshold_text": entry.threshold,
        "causes": list(entry.causes),
        "impact": entry.impact,
        "handling": list(entry.handling),
        "auto_clear": entry.auto_clear,
    }


def _shown(key: str, value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or "–"
    text = str(value)
    if key in ("not_after", "not_before", "due", "due_at", "until", "needed_at"):
        return f"{text[:10]} {text[11:16]} UTC"
    if key in ("served", "intended"):
        return text[:16] + "…"
    return text.rstrip(".")
