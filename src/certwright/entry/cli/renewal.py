"""`certwright renewals …`, `campaigns …`, `readiness` and `rules …`: when certificates are renewed, and how fast."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from certwright.entry.cli import output
from certwright.entry.cli.common import (
    Everything,
    Json,
    Limit,
    Project,
    Yes,
    confirm,
    group,
    open_api,
    present,
    project_id,
    read_file,
    show_list,
    show_one,
    the_one,
)
from certwright.entry.cli.errors import USAGE, CliError

renewals = group("renewals", "When certificates are renewed: plans, maintenance windows, freezes, limits.")
campaigns = group("campaigns", "Mass replacements: every certificate that matches, by a deadline.")
rules = group("rules", "The dated rules of public trust the product goes by.")

PLANS = (
    ("CERTIFICATE", "certificate_id"), ("NAME", "name"), ("CA", "ca"), ("DUE", "renew_at"), ("GOES", "allowed.at"),
    ("WHY", "allowed.code"), ("PROBLEM", "problem.message"),
)  # fmt: skip
WINDOWS = (
    ("ID", "id"), ("NAME", "name"), ("DAYS", "weekdays"), ("FROM", "from"), ("TO", "to"), ("ZONE", "zone"),
    ("PROJECT", "project_id"),
)  # fmt: skip
FREEZES = (("ID", "id"), ("FROM", "from"), ("TO", "to"), ("REASON", "reason"), ("PROJECT", "project_id"))
LIMITS = (("CA", "ca"), ("PER MINUTE", "per_minute"), ("RESERVE %", "reserve_percent"), ("WAITING", "waiting"))
CAMPAIGNS = (
    ("ID", "id"), ("NAME", "name"), ("REASON", "reason"), ("STATE", "state"), ("WAITING", "counts.waiting"),
    ("GOING", "counts.going"), ("REPLACED", "counts.replaced"), ("FAILED", "counts.failed"), ("DEADLINE", "deadline"),
)  # fmt: skip
ITEMS = (
    ("CERTIFICATE", "certificate_id"), ("NAME", "name"), ("CA", "ca"), ("STATE", "state"), ("ATTEMPTS", "attempts"),
    ("REASON", "reason"),
)  # fmt: skip
EXCLUDED = (("CERTIFICATE", "certificate_id"), ("NAME", "name"), ("CA", "ca"), ("WHY", "reason"))
READY = (
    ("CERTIFICATE", "certificate_id"), ("NAME", "primary_name"), ("WHO", "readiness.who"),
    ("PROOF", "readiness.proof"), ("SURVIVES", "readiness.outcome.survives"),
    ("TIMES A YEAR", "readiness.outcome.times_a_year"),
)  # fmt: skip

Campaign = Annotated[str, typer.Argument(help="Id or name of the mass replacement.")]


# --- plans, windows, freezes, limits ---------------------------------------------------------------------------------


@renewals.command(name="list")
def list_renewals(limit: Limit = 20, everything: Everything = False, as_json: Json = False) -> None:
    """What is renewed next, soonest due first."""
    show_list("/renewals", PLANS, as_json=as_json, limit=limit, everything=everything)


@renewals.command()
def show(
    certificate: Annotated[str, typer.Argument(help="Id or name of the certificate.")], as_json: Json = False
) -> None:
    """When a certificate is renewed, and why then."""
    with open_api() as api:
        found = the_one(api, "/certificates", "cert", certificate, "name", "primary_name")
        present(api.get(f"/renewals/{found}"), as_json=as_json)


@renewals.command()
def windows(limit: Limit = 20, everything: Everything = False, as_json: Json = False) -> None:
    """List the maintenance windows."""
    show_list("/renewal-windows", WINDOWS, as_json=as_json, limit=limit, everything=everything)


@renewals.command(name="add-window")
def add_window(
    name: Annotated[str, typer.Argument(help="What to call it: nights.")],
    from_time: Annotated[str, typer.Argument(help="When it begins: 22:00.")],
    to_time: Annotated[str, typer.Argument(help="When it ends; over midnight if that isn't later: 04:00.")],
    zone: Annotated[str, typer.Option(help="Time zone, such as Europe/Berlin.")] = "UTC",
    days: Annotated[str, typer.Option(help="Days it begins on.")] = "mon,tue,wed,thu,fri,sat,sun",
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Let renewals run only inside windows. A project's own windows stand in for the account's."""
    with open_api() as api:
        body = {
            "name": name, "from": from_time, "to": to_time, "zone": zone, "weekdays": days.split(","),
            "project_id": project_id(api, project),
        }  # fmt: skip
        present(api.post("/renewal-windows", body), as_json=as_json)


@renewals.command(name="edit-window")
def edit_window(
    window: Annotated[str, typer.Argument(help="Id or name of the window.")],
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    from_time: Annotated[str | None, typer.Option("--from", help="When it begins: 22:00.")] = None,
    to_time: Annotated[str | None, typer.Option("--to", help="When it ends.")] = None,
    zone: Annotated[str | None, typer.Option(help="Time zone, such as Europe/Berlin.")] = None,
    days: Annotated[str | None, typer.Option(help="Days it begins on.")] = None,
    as_json: Json = False,
) -> None:
    """Change a maintenance window; what isn't given stays."""
    with open_api() as api:
        found = _whole(api, "/renewal-windows", the_one(api, "/renewal-windows", "rwn", window, "name"))
        given = {"name": name, "from": from_time, "to": to_time, "zone": zone,
                 "weekdays": days.split(",") if days else None}  # fmt: skip
        _put(api, "/renewal-windows", found, given, as_json=as_json)


def _whole(api: Any, path: str, row_id: str) -> dict[str, Any]:
    return next(item for item in api.pages(path, limit=None) if item["id"] == row_id)


def _put(api: Any, path: str, found: dict[str, Any], given: dict[str, Any], *, as_json: bool) -> None:
    body = {field: found[field] if value is None else value for field, value in given.items()}
    present(api.call("PUT", f"{path}/{found['id']}", body=body).document, as_json=as_json)


@renewals.command(name="remove-window")
def remove_window(window: Annotated[str, typer.Argument(help="Id or name of the window.")]) -> None:
    """Remove a maintenance window."""
    with open_api() as api:
        found = the_one(api, "/renewal-windows", "rwn", window, "name")
        api.delete(f"/renewal-windows/{found}")
    output.say(f"{found} is removed.")


@renewals.command()
def freezes(limit: Limit = 20, everything: Everything = False, as_json: Json = False) -> None:
    """List the freezes."""
    show_list("/renewal-freezes", FREEZES, as_json=as_json, limit=limit, everything=everything)


@renewals.command()
def freeze(
    from_at: Annotated[str, typer.Argument(help="Beginning, with its zone: 2026-12-20T00:00:00+01:00.")],
    to_at: Annotated[str, typer.Argument(help="End.")],
    reason: Annotated[str, typer.Option("--reason", help="Why nothing may change then.")],
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Let no renewals run for a time."""
    with open_api() as api:
        body = {"from": from_at, "to": to_at, "reason": reason, "project_id": project_id(api, project)}
        present(api.post("/renewal-freezes", body), as_json=as_json)


@renewals.command(name="edit-freeze")
def edit_freeze(
    freeze: Annotated[str, typer.Argument(help="Id of the freeze.")],
    from_at: Annotated[str | None, typer.Option("--from", help="Beginning, with its zone.")] = None,
    to_at: Annotated[str | None, typer.Option("--to", help="End.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why nothing may change then.")] = None,
    as_json: Json = False,
) -> None:
    """Make a freeze longer, shorter or another one; what isn't given stays."""
    with open_api() as api:
        found = _whole(api, "/renewal-freezes", the_one(api, "/renewal-freezes", "rfz", freeze))
        _put(api, "/renewal-freezes", found, {"from": from_at, "to": to_at, "reason": reason}, as_json=as_json)


@renewals.command()
def unfreeze(freeze: Annotated[str, typer.Argument(help="Id of the freeze.")]) -> None:
    """Take a freeze back."""
    with open_api() as api:
        api.delete(f"/renewal-freezes/{the_one(api, '/renewal-freezes', 'rfz', freeze)}")
    output.say(f"{freeze} is removed.")


@renewals.command()
def limits(as_json: Json = False) -> None:
    """How fast renewals go at each CA."""
    with open_api() as api:
        items = api.get("/renewal-limits")["items"]
    if as_json:
        output.document({"items": items})
    else:
        output.rows(items, LIMITS)


@renewals.command(name="set-limit")
def set_limit(
    ca: Annotated[str, typer.Argument(help="Id or name of the CA; builtin for our own.")],
    per_minute: Annotated[int, typer.Option(help="Renewals started in any minute, at most.")],
    reserve: Annotated[int, typer.Option(help="Percent of it kept for urgent ones.")] = 20,
    as_json: Json = False,
) -> None:
    """Set how fast renewals go at a CA."""
    with open_api() as api:
        body = {"per_minute": per_minute, "reserve_percent": reserve}
        present(api.call("PUT", f"/renewal-limits/{ca}", body=body).document, as_json=as_json)


# --- mass replacement ------------------------------------------------------------------------------------------------

Ca = Annotated[str | None, typer.Option("--ca", help="Of this CA, by id or name.")]
Key = Annotated[str | None, typer.Option("--key", help="With this key algorithm, such as RSA_2048.")]
Issuer = Annotated[str | None, typer.Option(help="Whose issuer's name holds this text.")]
IssuedBefore = Annotated[str | None, typer.Option(help="Issued before this moment: 2026-11-01T00:00:00Z.")]
Names = Annotated[str | None, typer.Option(help="With a name that matches: *.example.com; * for all.")]
By = Annotated[str, typer.Option("--by", help="Deadline: hours from now (24h), days (2d), or a moment.")]
ToCa = Annotated[str | None, typer.Option("--to-ca", help="Get the new versions from this CA, by id or name.")]
PerHour = Annotated[int, typer.Option("--per-hour", min=1, help="Certificates replaced in an hour, at most.")]


def _body(
    ca: str | None,
    key: str | None,
    issuer: str | None,
    before: str | None,
    names: str | None,
    by: str,
    per_hour: int,
    to_ca: str | None,
) -> dict[str, Any]:
    criteria = {"ca": ca, "key_algorithm": key, "issuer": issuer, "issued_before": before, "names": names}
    return {"criteria": criteria, "deadline": _deadline(by), "per_hour": per_hour, "to_ca": to_ca}


def _deadline(text: str) -> str:
    if text[:-1].isdigit() and text[-1] in "hd" and len(text) <= 5:
        span = timedelta(hours=int(text[:-1])) if text[-1] == "h" else timedelta(days=int(text[:-1]))
        return (datetime.now(UTC) + span).isoformat()
    return text


def _say_preview(found: dict[str, Any]) -> None:
    output.say(f"{found['replaced']} certificates are replaced.")
    for code, count in sorted(found["counts"].items()):
        output.say(f"  {code}: {count}")
    end = found["estimate"]
    output.say(f"The last one starts at about {end['ends_at']}.")
    if not end["in_time"]:
        output.say(f"That is too late: it would take {end['needed_per_hour']} an hour.")
    if found["excluded"]:
        output.rows(found["excluded"], EXCLUDED)


@campaigns.command()
def preview(
    ca: Ca = None,
    key: Key = None,
    issuer: Issuer = None,
    issued_before: IssuedBefore = None,
    names: Names = None,
    by: By = "24h",
    per_hour: PerHour = 600,
    to_ca: ToCa = None,
    as_json: Json = False,
) -> None:
    """What a mass replacement would do; nothing is changed."""
    with open_api() as api:
        body = _body(ca, key, issuer, issued_before, names, by, per_hour, to_ca)
        found = api.post("/campaigns/preview", body)
    if as_json:
        output.document(found)
    else:
        _say_preview(found)


@campaigns.command()
def start(
    name: Annotated[str, typer.Argument(help="What it is about.")],
    reason: Annotated[
        str,
        typer.Option(
            help="key_compromise, distrust, ca_incident, misissuance, algorithm, drill or other; kept in the audit log."
        ),
    ],
    ca: Ca = None,
    key: Key = None,
    issuer: Issuer = None,
    issued_before: IssuedBefore = None,
    names: Names = None,
    by: By = "24h",
    per_hour: PerHour = 600,
    soonest_end: Annotated[
        bool, typer.Option("--soonest-end", help="Soonest end first, whether or not a server uses it.")
    ] = False,
    to_ca: ToCa = None,
    project: Project = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Replace every certificate that matches. Shows what it will do, and asks."""
    with open_api() as api:
        body = _body(ca, key, issuer, issued_before, names, by, per_hour, to_ca)
        found = api.post("/campaigns/preview", body)
        if not as_json:
            _say_preview(found)
        confirm(f"Replace {found['replaced']} certificates?", yes=yes)
        body |= {
            "name": name, "reason": reason, "priority": "soonest_end" if soonest_end else "bound_first",
            "project_id": project_id(api, project),
        }  # fmt: skip
        present(api.post("/campaigns", body), as_json=as_json)


@campaigns.command(name="list")
def list_campaigns(limit: Limit = 20, everything: Everything = False, as_json: Json = False) -> None:
    """List the mass replacements, newest first."""
    show_list("/campaigns", CAMPAIGNS, as_json=as_json, limit=limit, everything=everything)


def _find(api: Any, text: str) -> str:
    return the_one(api, "/campaigns", "cmp", text, "name")


@campaigns.command(name="show")
def show_campaign(campaign: Campaign, as_json: Json = False) -> None:
    """How a mass replacement goes."""
    with open_api() as api:
        present(api.get(f"/campaigns/{_find(api, campaign)}"), as_json=as_json)


@campaigns.command()
def items(
    campaign: Campaign,
    state: Annotated[str | None, typer.Option(help="waiting, going, replaced, failed, skipped or excluded.")] = None,
    limit: Limit = 20,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """Each certificate of a mass replacement, with how it went."""
    with open_api() as api:
        found = _find(api, campaign)
    given = {"state": state} if state else {}
    show_list(f"/campaigns/{found}/items", ITEMS, as_json=as_json, limit=limit, everything=everything, **given)


@campaigns.command()
def pause(campaign: Campaign, as_json: Json = False) -> None:
    """Start no further ones; those under way end."""
    _steer(campaign, "pause", as_json)


@campaigns.command()
def resume(campaign: Campaign, as_json: Json = False) -> None:
    """Go on."""
    _steer(campaign, "resume", as_json)


@campaigns.command()
def retry(campaign: Campaign, as_json: Json = False) -> None:
    """Try those that failed again, now."""
    _steer(campaign, "retry", as_json)


@campaigns.command()
def cancel(campaign: Campaign, yes: Yes = False, as_json: Json = False) -> None:
    """End it for good; what was replaced stays replaced."""
    confirm(f"Cancel {campaign}?", yes=yes)
    _steer(campaign, "cancel", as_json)


def _steer(campaign: str, word: str, as_json: bool) -> None:
    with open_api() as api:
        present(api.post(f"/campaigns/{_find(api, campaign)}/{word}"), as_json=as_json)


@campaigns.command()
def rate(
    campaign: Campaign,
    per_hour: Annotated[int, typer.Argument(min=1, help="Certificates replaced in an hour, at most.")],
    as_json: Json = False,
) -> None:
    """Go faster or slower."""
    with open_api() as api:
        found = api.call("PATCH", f"/campaigns/{_find(api, campaign)}", body={"per_hour": per_hour})
        present(found.document, as_json=as_json)


# --- readiness and rules ---------------------------------------------------------------------------------------------


def readiness(
    at: Annotated[str | None, typer.Option("--at", help="What if it were this date already: 2029-04-01.")] = None,
    limit: Limit = 20,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """Which certificates survive shorter lives: who renews each one, and how its names are proved."""
    given = {"at": at} if at else {}
    with open_api() as api:
        summary = api.get("/readiness/summary", **given)
        lines = list(api.pages("/readiness", limit=None if everything else limit, **given))
    if as_json:
        output.document({"summary": summary, "items": lines})
        return
    output.say(
        f"{summary['certificates']} certificates, at {summary['at']}: lives of {summary['life_days']} days, "
        f"validations good for {summary['reuse_days']}."
    )
    for word in ("yes", "with_work", "no"):
        output.say(f"  survive: {word}: {summary['outcomes'].get(word, 0)}")
    for step, counts in summary["steps"].items():
        output.say(f"  {step}: " + ", ".join(f"{word} {counts[word]}" for word in sorted(counts)))
    output.rows(lines, READY)


@rules.command(name="show")
def show_rules(as_json: Json = False) -> None:
    """Print the rules in force."""
    if as_json:
        show_one("/rules", as_json=True)
        return
    with open_api() as api:
        output.say(api.get("/rules")["text"].rstrip())


@rules.command()
def replace(
    file: Annotated[str, typer.Argument(help="YAML file, or - for standard input.")],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Put other rules in force for the account. They are checked first, line by line."""
    text = read_file(file)
    if len(text) > 65_536:
        raise CliError("usage", f"{file} is too large for rules.", exit_code=USAGE)
    confirm(f"Go by the rules of {file} from now on?", yes=yes)
    with open_api() as api:
        present(api.call("PUT", "/rules", body={"text": text}).document, as_json=as_json, skip=("text",))


@rules.command()
def revert(yes: Yes = False, as_json: Json = False) -> None:
    """Go back to the rules shipped with this release."""
    confirm("Go back to the shipped rules?", yes=yes)
    with open_api() as api:
        present(api.call("DELETE", "/rules").document, as_json=as_json, skip=("text",))
