"""`certwright certificates …`: the life of a certificate from application to deletion."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from certwright.entry.cli import output
from certwright.entry.cli.common import (
    Everything,
    Json,
    Limit,
    Project,
    Timeout,
    Wait,
    Yes,
    confirm,
    group,
    key_values,
    open_api,
    present,
    project_id,
    read_file,
    show_list,
    the_one,
)
from certwright.entry.cli.errors import FAILED, USAGE, CliError

if TYPE_CHECKING:
    from certwright.entry.cli.client import Api

app = group("certificates", "Apply for certificates, look at them, download, reissue, revoke, delete them.")

COLUMNS = (
    ("ID", "id"), ("NAME", "name"), ("STATE", "state"), ("NAMES", "names"), ("EXPIRES", "not_after"),
    ("RENEWS", "auto_renew"),
)  # fmt: skip

# With ids of 30 characters this fits a terminal of 80.
VERSIONS = (
    ("NUMBER", "number"), ("ID", "id"), ("STATUS", "status"), ("EXPIRES", "not_after"), ("KEY", "key_algorithm"),
)  # fmt: skip

_REVOKED_BY = {"account": "by the account", "key": "by its key", "control": "by its names"}

Certificate = Annotated[str, typer.Argument(help="Id, name or primary domain name of the certificate.")]


class Method(StrEnum):
    DNS = "dns"
    FILE = "file"
    EMAIL = "email"
    TLS_ALPN_01 = "tls-alpn-01"


class FileFormat(StrEnum):
    FULLCHAIN = "fullchain"
    LEAF = "leaf"
    CHAIN = "chain"
    ROOT = "root"
    KEY = "key"
    NGINX = "nginx"
    APACHE = "apache"
    TOMCAT = "tomcat"
    IIS = "iis"
    WEBLOGIC = "weblogic"
    RESIN = "resin"
    HAPROXY = "haproxy"
    KUBERNETES = "kubernetes"
    PEM = "pem"
    DER = "der"
    P7B = "p7b"


_WITHOUT_KEY = (
    FileFormat.FULLCHAIN, FileFormat.LEAF, FileFormat.CHAIN, FileFormat.ROOT, FileFormat.PEM, FileFormat.DER,
    FileFormat.P7B,
)  # fmt: skip


class Reason(StrEnum):
    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "key_compromise"
    AFFILIATION_CHANGED = "affiliation_changed"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessation_of_operation"


class BulkAction(StrEnum):
    AUTO_RENEW_ON = "auto_renew_on"
    AUTO_RENEW_OFF = "auto_renew_off"
    NOTIFY_ON = "notify_on"
    NOTIFY_OFF = "notify_off"
    TAG = "tag"
    UNTAG = "untag"
    MOVE = "move"
    VERIFY_DOMAINS = "verify_domains"
    WITHDRAW = "withdraw"
    REISSUE = "reissue"
    WITHDRAW_PRIVACY = "withdraw_privacy"
    REVOKE = "revoke"
    DELETE = "delete"


class ExportFormat(StrEnum):
    CSV = "csv"
    JSON = "json"


class Sort(StrEnum):
    CREATED = "created"
    EXPIRY = "expiry"
    UPDATED = "updated"
    STATE = "state"


def find(api: Api, text: str) -> str:
    """The id of the certificate that `text` names."""
    # The server narrows the list; names are compared exactly here.
    return the_one(api, "/certificates", "cert", text, "name", "primary_name", search=text)


def organisation_id(api: Api, text: str) -> str:
    return the_one(api, "/organisations", "org", text, "legal_name")


def path_of(certificate_id: str, *parts: str) -> str:
    return "/".join(["/certificates", quote(certificate_id, safe=""), *parts])


States = Annotated[list[str] | None, typer.Option("--state", help="Only these states; may be repeated.")]
Search = Annotated[str | None, typer.Option(help="Part of a name, fingerprint or serial number.")]
TypeFilter = Annotated[str | None, typer.Option("--type", help="dv, ov, ov_pro, ev or ev_pro.")]
Domains = Annotated[str | None, typer.Option("--domains", help="single, multi or wildcard.")]
OfCa = Annotated[str | None, typer.Option("--ca", help="Id or name of a CA.")]
TagFilter = Annotated[list[str] | None, typer.Option("--tag", help="KEY:VALUE; may be repeated.")]
From = Annotated[str | None, typer.Option("--expires-after", help="RFC 3339 time, such as 2027-01-31T00:00:00Z.")]
Until = Annotated[str | None, typer.Option("--expires-before", help="RFC 3339 time.")]
Soon = Annotated[bool, typer.Option("--expires-soon", help="Only those that expire soon.")]
OfKey = Annotated[str | None, typer.Option("--key", help="Key as it is listed, such as 'EC P-256'.")]
Sha256 = Annotated[str | None, typer.Option("--sha256", help="The whole fingerprint.")]
Serial = Annotated[str | None, typer.Option("--serial", help="The whole serial number.")]
OnTarget = Annotated[str | None, typer.Option("--deployed-on", help="Id or name of a target it serves on.")]


def _filter(**given: Any) -> dict[str, Any]:
    """The query that narrows a list; names of CAs and projects become ids."""
    with open_api() as api:
        given["project_id"] = project_id(api, given.pop("project"))
        if given["ca"] not in (None, "builtin"):
            given["ca"] = the_one(api, "/cas", "ca", given["ca"], "name")
    soon = given.pop("expires_soon")
    return {key: value for key, value in given.items() if value} | ({"expires_soon": "true"} if soon else {})


@app.command(name="list")
def list_certificates(
    state: States = None,
    search: Search = None,
    type: TypeFilter = None,
    domains: Domains = None,
    ca: OfCa = None,
    tag: TagFilter = None,
    project: Project = None,
    expires_after: From = None,
    expires_before: Until = None,
    expires_soon: Soon = False,
    key: OfKey = None,
    sha256: Sha256 = None,
    serial: Serial = None,
    deployed_on: OnTarget = None,
    sort: Annotated[Sort, typer.Option(help="Newest first, or next to expire first.")] = Sort.CREATED,
    limit: Limit = 20,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """List certificates, newest first."""
    wanted = _filter(
        state=state, search=search, type=type, domain_type=domains, ca=ca, tag=tag, project=project,
        expires_after=expires_after, expires_before=expires_before, expires_soon=expires_soon, key_algorithm=key,
        sha256=sha256, serial=serial, deployed_on=deployed_on,
    )  # fmt: skip
    show_list(
        "/certificates", COLUMNS, as_json=as_json, limit=limit, everything=everything, sort=sort.value, **wanted
    )  # fmt: skip


@app.command()
def export(
    state: States = None,
    search: Search = None,
    type: TypeFilter = None,
    domains: Domains = None,
    ca: OfCa = None,
    tag: TagFilter = None,
    project: Project = None,
    expires_after: From = None,
    expires_before: Until = None,
    expires_soon: Soon = False,
    key: OfKey = None,
    deployed_on: OnTarget = None,
    format: Annotated[ExportFormat, typer.Option(help="For spreadsheets or for programs.")] = ExportFormat.CSV,
    to: Annotated[str, typer.Option("--output", "-o", help="File or directory; - for standard output.")] = "-",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write all certificates that fit the filters as one file."""
    wanted = _filter(
        state=state, search=search, type=type, domain_type=domains, ca=ca, tag=tag, project=project,
        expires_after=expires_after, expires_before=expires_before, expires_soon=expires_soon, key_algorithm=key,
        deployed_on=deployed_on,
    )  # fmt: skip
    with open_api() as api:
        reply = api.call("GET", "/certificates/export", params=wanted | {"format": format.value})
    save_reply(reply, to, f"certificates.{format.value}", secret=False, force=force)


@app.command()
def bulk(
    action: Annotated[BulkAction, typer.Argument(help="What to do to all of them.")],
    certificates: Annotated[list[str] | None, typer.Argument(help="Ids or names; or filters instead.")] = None,
    state: States = None,
    search: Search = None,
    type: TypeFilter = None,
    domains: Domains = None,
    ca: OfCa = None,
    tag: TagFilter = None,
    project: Project = None,
    expires_before: Until = None,
    expires_soon: Soon = False,
    deployed_on: OnTarget = None,
    all_of_them: Annotated[bool, typer.Option("--all", help="All certificates you may see.")] = False,
    tags: Annotated[list[str] | None, typer.Option("--set-tag", help="KEY=VALUE for tag, KEY for untag.")] = None,
    to_project: Annotated[str | None, typer.Option("--to-project", help="For move: id or name.")] = None,
    reason: Annotated[Reason | None, typer.Option(help="For revoke.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done, and why not.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Do one thing to many certificates: first it says of each what will be done or why not, then it asks."""
    wanted = _filter(
        state=state, search=search, type=type, domain_type=domains, ca=ca, tag=tag, project=project,
        expires_before=expires_before, expires_soon=expires_soon, deployed_on=deployed_on,
    )  # fmt: skip
    if not (certificates or wanted or all_of_them):
        raise CliError("usage", "Say which certificates, by name or by filters.", "Or add --all.", exit_code=USAGE)
    with open_api() as api:
        if certificates:
            ids = [find(api, one) for one in certificates]
        else:
            ids = [str(item["id"]) for item in api.pages("/certificates", limit=None, **wanted)]
        body: dict[str, Any] = {"action": action.value}
        if tags:
            body["tags"] = {key: value for key, _equals, value in (text.partition("=") for text in tags)}
        if to_project:
            body["project_id"] = project_id(api, to_project)
        if reason:
            body["reason"] = reason.value
        lines = _in_parts(api, "/certificates/bulk/preview", body, ids)
        fine = [line["id"] for line in lines if line["ok"]]
        if dry_run or not fine:
            _show_bulk(lines, "would be done", as_json=as_json)
            return
        if not as_json:
            _show_bulk(lines, "will be done", as_json=False)
        confirm(f"Do {action.value} to {len(fine)} of {len(lines)} certificates?", yes=yes)
        done = _in_parts(api, "/certificates/bulk", body, fine)
    failed = [line for line in done if not line["ok"]]
    left = [line for line in lines if not line["ok"]]
    if as_json:
        output.document({"ok": len(done) - len(failed), "refused": len(failed) + len(left), "items": done + left})
    else:
        output.say(f"Done to {len(done) - len(failed)}.")
        if failed:
            _show_bulk(failed, "done", as_json=False)
    if failed:
        raise typer.Exit(FAILED)


_AT_ONCE = 200


def _in_parts(api: Api, path: str, body: dict[str, Any], ids: list[str]) -> list[dict[str, Any]]:
    """The lines for all ids, asked for as many at a time as the server takes."""
    lines: list[dict[str, Any]] = []
    for start in range(0, max(len(ids), 1), _AT_ONCE):
        lines += api.post(path, body | {"ids": ids[start : start + _AT_ONCE]})["items"]
    return lines


def _show_bulk(lines: list[dict[str, Any]], good: str, *, as_json: bool) -> None:
    if as_json:
        fine = sum(line["ok"] for line in lines)
        output.document({"ok": fine, "refused": len(lines) - fine, "items": lines})
        return
    shown = [
        {
            "name": line["name"] or line["id"],
            "said": good if line["ok"] else f"left alone: {line['problem']['message']}",
        }
        for line in lines
    ]
    output.rows(shown, (("NAME", "name"), ("WHAT", "said")))


@app.command(name="privacy-statement")
def privacy_statement(
    version: Annotated[str | None, typer.Option(help="One agreed to earlier; default: today's.")] = None,
    as_json: Json = False,
) -> None:
    """Read what applicants agree to."""
    with open_api() as api:
        query = f"?version={quote(version, safe='')}" if version else ""
        document = api.get(f"/certificates/privacy-statement{query}")
    if as_json:
        output.document(document)
        return
    output.say(f"Privacy statement, version {document['version']}\n\n{document['text'].rstrip()}")


@app.command(name="mail-confirmation")
def mail_confirmation(certificate: Certificate, as_json: Json = False) -> None:
    """Mail the applicant of an OV or EV certificate a new link for the revocation that waits for one."""
    with open_api() as api:
        document = api.post(path_of(find(api, certificate), "confirmation", "mail"))
    if as_json:
        output.document(document)
        return
    _show_confirmations(document)


@app.command()
def show(certificate: Certificate, as_json: Json = False) -> None:
    """Show one certificate with its application, versions and what can be done with it now."""
    with open_api() as api:
        document = api.get(path_of(find(api, certificate)))
    if as_json:
        output.document(document)
        return
    output.details(document, skip=("refused_operations", "validation", "versions", "confirmations"))
    if document["versions"]:
        output.say("\nversions:")
        output.rows([version | {"status": _version_status(version)} for version in document["versions"]], VERSIONS)
    for version in document["versions"]:
        if (held := version["waiting_for"]) is not None:
            output.say(
                f"Version {version['number']} is not revoked yet: {held['message']} {held.get('fix', '')}".rstrip()
            )
    _show_confirmations(document)
    show_domains(document.get("validation"))


def _show_confirmations(document: dict[str, Any]) -> None:
    """The links mailed to the applicant before a version of an OV or EV certificate is revoked."""
    if not document["confirmations"]:
        return
    output.say("\nlinks mailed before a revocation:")
    output.rows(
        document["confirmations"],
        (("VERSION", "version"), ("TO", "address"), ("MAILED", "mailed_at"), ("STATE", "state")),
    )


def _version_status(version: dict[str, Any]) -> str:
    if version["revoked_at"] or version["revoke_asked_at"]:
        how = _REVOKED_BY.get(version["revoked_by"] or "")
        return (f"revoked {how}" if how else "revoked") if version["revoked_at"] else "revoking"
    return "superseded" if version["superseded_at"] else "current"


def show_domains(validation: dict[str, Any] | None) -> None:
    """What each domain still needs, the way it is typed into a DNS console or put on a server."""
    for domain in (validation or {}).get("domains", []):
        output.say(f"\n{domain['name']}: {domain['status']} ({domain['method']})")
        said = domain.get("explanation")
        if said and not said.get("ok"):
            output.say(f"  Last look: {said['message']} {said.get('fix', '')}".rstrip())
        todo = domain.get("instructions")
        if not todo:
            continue
        match todo["kind"]:
            case "record":
                output.say(f"  Publish:   {todo['name']}. {todo['ttl']} IN {todo['type']} {todo['quoted']}")
                if (other := todo.get("instead")) is not None:
                    output.say(f"  Or:        {other['name']}. {other['ttl']} IN {other['type']} {other['value']}.")
            case "file":
                output.say(f"  Publish:   {todo['url']}\n  Content:   {todo['content']}")
            case "tls-alpn":
                output.say(f"  Answered:  by this server at {todo['listen']}")
                output.say(f"             Port {todo['port']} of the name has to lead there.")
            case "mail":
                output.say(f"  Confirm:   by the link mailed to {', '.join(todo['addresses'])}")
            case _:
                output.say("  The record is written automatically.")


@app.command()
def apply(
    names: Annotated[list[str] | None, typer.Argument(help="Domain names, the primary one first.")] = None,
    method: Annotated[Method, typer.Option(help="How control of the names is shown.")] = Method.DNS,
    name: Annotated[str | None, typer.Option(help="What to call it; default cert-xxxxxx.")] = None,
    key: Annotated[str, typer.Option(help="EC_P256, EC_P384, RSA_2048, RSA_3072 or RSA_4096.")] = "EC_P256",
    csr: Annotated[
        str | None, typer.Option(help="File with your own CSR (- for standard input); names come from it.")
    ] = None,
    kept_csr: Annotated[
        str | None, typer.Option("--kept-csr", help="Id or name of a CSR kept here: see certwright csrs list.")
    ] = None,
    pin_key: Annotated[bool, typer.Option("--pin-key", help="Keep its key for later versions, too.")] = False,
    applicant: Annotated[str | None, typer.Option(help="Your name.", envvar="CERTWRIGHT_APPLICANT")] = None,
    email: Annotated[str | None, typer.Option(help="Your e-mail address.", envvar="CERTWRIGHT_APPLICANT_EMAIL")] = None,
    phone: Annotated[str | None, typer.Option(help="Your phone number.", envvar="CERTWRIGHT_APPLICANT_PHONE")] = None,
    consent: Annotated[
        bool,
        typer.Option(
            "--consent", help="You agree to the privacy statement: certwright certificates privacy-statement."
        ),
    ] = False,
    technical: Annotated[
        str | None,
        typer.Option("--technical-contact", help="NAME,E-MAIL,PHONE of somebody else for technical questions."),
    ] = None,
    exceptions: Annotated[
        list[str] | None, typer.Option("--method-for", help="NAME=METHOD, for names shown in another way; repeat it.")
    ] = None,
    root_hash: Annotated[str, typer.Option(help="default or sha256, where the CA lets people choose.")] = "default",
    description: Annotated[str, typer.Option(help="For you to remember.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="KEY=VALUE; may be repeated.")] = None,
    project: Project = None,
    ca: Annotated[str, typer.Option("--ca", help="Id or name of the CA: see certwright cas list.")] = "builtin",
    fallback_ca: Annotated[
        str | None, typer.Option("--fallback-ca", help="A second CA, asked when the first refuses or stays away.")
    ] = None,
    auto_renew: Annotated[bool, typer.Option(help="Renew it in time, without anybody's doing.")] = True,
    certificate_type: Annotated[
        str | None, typer.Option("--type", help="dv, ov, ov_pro, ev or ev_pro; default: as bought, else dv.")
    ] = None,
    organisation: Annotated[
        str | None, typer.Option(help="Id or name of the organization that OV and EV certificates name.")
    ] = None,
    certificate: Annotated[
        str | None, typer.Option(help="Apply for this existing certificate, which waits for an application.")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = 600,
    as_json: Json = False,
) -> None:
    """Apply for a certificate. Prints what to publish, unless a DNS connection does it."""
    if not names and not csr and not kept_csr:
        raise CliError("usage", "Say which names, or give a CSR.", "certwright apply www.example.com", exit_code=USAGE)
    if not consent and sys.stdin.isatty():
        consent = typer.confirm(
            "Do you agree to the privacy statement (certwright certificates privacy-statement): your contact data are "
            "kept with the application?"
        )
    application: dict[str, Any] = {
        "names": names or [],
        "validation_method": method.value,
        "key_algorithm": key,
        "consent": consent,
        "certificate_type": certificate_type,
        "per_name_methods": key_values(exceptions or [], "--method-for"),
        "root_hash": root_hash,
        "technical_contact": _person(technical) if technical else None,
    }
    if csr:
        application["csr"] = read_file(csr)
    if not phone and sys.stdin.isatty():
        phone = typer.prompt("Your phone number, for questions about this application")
    with open_api() as api:
        if kept_csr:
            application |= {"csr_id": the_one(api, "/csrs", "csr", kept_csr, "name"), "pin_key": pin_key}
        if organisation:
            application["organisation_id"] = organisation_id(api, organisation)
        # Whoever is signed in, unless somebody else is named.
        me = api.get("/me").get("user") or {}
        application["applicant"] = {
            "name": applicant or me.get("name", ""),
            "email": email or me.get("email", ""),
            "phone": phone or "",
        }
        if certificate:
            document = api.post(path_of(find(api, certificate), "application"), application)
        else:
            document = api.post(
                "/certificates",
                {
                    "name": name, "description": description, "tags": key_values(tag or [], "--tag"),
                    "project_id": project_id(api, project), "ca": ca, "fallback_ca": fallback_ca,
                    "auto_renew": auto_renew,
                    "application": application,
                },
            )  # fmt: skip
        if wait:
            document = _wait_until_issued(api, document, timeout, show_work=not as_json)
        else:
            document = _until_the_ca_asked(api, document)
    if as_json:
        output.document(document)
        return
    output.say(f"{document['id']} {document['name']}: {document['state']}")
    if document["state"] != "issued":
        show_domains(document.get("validation"))
        _say_what_next(document)


def _person(text: str) -> dict[str, str]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3:
        raise CliError("usage", "--technical-contact takes NAME,E-MAIL,PHONE.", exit_code=USAGE)
    return dict(zip(("name", "email", "phone"), parts, strict=True))


# A CA with challenges of its own is asked first; it answers within moments, or not at all.
_CA_ANSWERS_WITHIN = 20.0


def _until_the_ca_asked(api: Api, document: dict[str, Any]) -> dict[str, Any]:
    """The document once it is known what is to be shown, or nothing is; as it is if the CA takes its time."""
    from certwright.entry.cli.client import polled

    certificate_id = document["id"]
    if not _asks_the_ca(document):
        return document
    for document in polled(lambda: api.get(path_of(certificate_id)), seconds=_CA_ANSWERS_WITHIN):
        if not _asks_the_ca(document):
            break
    return document


def _asks_the_ca(document: dict[str, Any]) -> bool:
    waits = document["state"] in ("pending_domain_validation", "verifying_reissue", "verifying_domain_addition")
    return waits and not (document.get("validation") or {}).get("domains")


def _say_what_next(document: dict[str, Any]) -> None:
    if _asks_the_ca(document):
        held = (document.get("application") or {}).get("waiting_for") or {}
        output.say(f"\nThe CA hasn't said yet what it wants to see. {held.get('message', '')}".rstrip())
        output.say(f"See it as soon as it has: certwright certificates show {document['id']}")
    elif _has_work(document):
        output.say(f"\nThen: certwright certificates check {document['id']}")


_UNDER_WAY = ("pending_domain_validation", "pending_organization_validation", "to_be_issued", "verifying_reissue",
              "verifying_domain_addition", "verifying_withdrawal", "verifying_revocation")  # fmt: skip


def _wait_until_issued(api: Api, document: dict[str, Any], timeout: float, *, show_work: bool) -> dict[str, Any]:
    """The document once nothing is under way. Raises CliError when it failed or takes longer than `timeout`."""
    document = _watch(api, document["id"], timeout, show_work=show_work)
    if document["state"] in ("issued", "revoked"):
        return document
    failure = (document.get("application") or {}).get("failure") or {}
    raise CliError(
        str(failure.get("code", "not_issued")),
        str(failure.get("message", f"The certificate is {document['state']}.")),
        str(failure.get("fix", "")),
        document=document,
    )


def _watch(api: Api, certificate_id: str, timeout: float, *, show_work: bool) -> dict[str, Any]:
    from certwright.entry.cli.client import polled

    progress = output.Progress()
    instructed = False
    document: dict[str, Any] = {}
    try:
        for document in polled(lambda: api.get(path_of(certificate_id)), seconds=timeout):
            if document["state"] not in _UNDER_WAY:
                return document
            if show_work and not instructed and _has_work(document):
                instructed = True
                show_domains(document["validation"])
            progress.show(_status(document))
    finally:
        progress.stop()
    raise CliError(
        "still_waiting", f"After {timeout:.0f} s it is still {document['state']}; it goes on without us.",
        f"Look again: certwright certificates show {certificate_id}", document=document,
    )  # fmt: skip


def _has_work(document: dict[str, Any]) -> bool:
    domains = (document.get("validation") or {}).get("domains", [])
    return any((domain.get("instructions") or {}).get("kind") in ("record", "file", "mail") for domain in domains)


def _status(document: dict[str, Any]) -> str:
    parts = [document["state"]]
    domains = (document.get("validation") or {}).get("domains", [])
    waiting = [domain for domain in domains if domain["status"] != "valid"]
    if waiting:
        parts.append(f"{len(domains) - len(waiting)} of {len(domains)} names validated")
        said = waiting[0].get("explanation")
        if said and not said.get("ok"):
            parts.append(f"{waiting[0]['name']}: {said['message']}")
    held = (document.get("application") or {}).get("waiting_for")
    if held:
        parts.append(str(held.get("message", "")))
    return " · ".join(parts)


@app.command()
def check(certificate: Certificate, as_json: Json = False) -> None:
    """Look now at every domain that waits, and say what was found. Exit code 1 while one is missing."""
    with open_api() as api:
        document = api.post(path_of(find(api, certificate), "validation", "check"))
    if as_json:
        output.document(document)
    else:
        show_domains(document)
    if not document["all_valid"]:
        raise typer.Exit(FAILED)


@app.command()
def wait(certificate: Certificate, timeout: Timeout = 600, as_json: Json = False) -> None:
    """Wait until nothing is under way for this certificate."""
    with open_api() as api:
        document = _watch(api, find(api, certificate), timeout, show_work=False)
    _report(document, as_json=as_json)


def _report(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.document(document)
    else:
        expires = f", expires {output.cell(document['not_after'])}" if document.get("not_after") else ""
        output.say(f"{document['id']} {document['name']}: {document['state']}{expires}")


@app.command()
def withdraw(certificate: Certificate, as_json: Json = False) -> None:
    """Take the open application back."""
    with open_api() as api:
        _report(api.post(path_of(find(api, certificate), "withdraw")), as_json=as_json)


KeyChoice = Annotated[str | None, typer.Option("--key", help="Another key algorithm: EC_P256, RSA_2048 and so on.")]
CsrFile = Annotated[str | None, typer.Option("--csr", help="File with a new CSR of your own (- for standard input).")]
MethodChoice = Annotated[Method | None, typer.Option(help="Another way to show control of the names.")]


def _changes(key: str | None, csr: str | None, method: Method | None) -> dict[str, Any]:
    given = {
        "key_algorithm": key, "csr": read_file(csr) if csr else None,
        "validation_method": method.value if method else None,
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


@app.command()
def reissue(
    certificate: Certificate,
    names: Annotated[list[str] | None, typer.Option("--name", help="All the names it is to have; repeat it.")] = None,
    key: KeyChoice = None,
    csr: CsrFile = None,
    method: MethodChoice = None,
    organisation: Annotated[str | None, typer.Option(help="Another organization, by id or name.")] = None,
    wait: Wait = False,
    timeout: Timeout = 600,
    as_json: Json = False,
) -> None:
    """Get a new version now, with a new key and whatever you change, deployed wherever the certificate is bound."""
    changes = _changes(key, csr, method)
    if names:
        changes["names"] = names
    with open_api() as api:
        if organisation:
            changes["organisation_id"] = organisation_id(api, organisation)
        document = api.post(path_of(find(api, certificate), "reissue"), changes or None)
        if wait:
            document = _wait_until_issued(api, document, timeout, show_work=not as_json)
        elif changes:
            document = _until_the_ca_asked(api, document)
    _report(document, as_json=as_json)
    if document["state"] == "verifying_reissue" and not as_json:
        show_domains(document.get("validation"))
        _say_what_next(document)


@app.command(name="add-domains")
def add_domains(
    certificate: Certificate,
    names: Annotated[list[str], typer.Argument(help="The names to add.")],
    csr: CsrFile = None,
    method: MethodChoice = None,
    wait: Wait = False,
    timeout: Timeout = 600,
    as_json: Json = False,
) -> None:
    """Add names to a multi-domain certificate, within its quota. What works now goes on working meanwhile."""
    body = {"names": names, **_changes(None, csr, method)}
    with open_api() as api:
        document = api.post(path_of(find(api, certificate), "add-domains"), body)
        if wait:
            document = _wait_until_issued(api, document, timeout, show_work=not as_json)
        else:
            document = _until_the_ca_asked(api, document)
    _report(document, as_json=as_json)
    if document["state"] == "verifying_domain_addition" and not as_json:
        show_domains(document.get("validation"))
        _say_what_next(document)


@app.command(name="apply-again")
def apply_again(certificate: Certificate, as_json: Json = False) -> None:
    """Use the paid time left after a revocation: the certificate waits for an application again."""
    with open_api() as api:
        _report(api.post(path_of(find(api, certificate), "apply-again")), as_json=as_json)


@app.command(name="withdraw-privacy")
def withdraw_privacy(certificate: Certificate, yes: Yes = False, as_json: Json = False) -> None:
    """Erase the contact data and the organization's details kept with a certificate, for good."""
    confirm("Erase the personal data kept with it? Renewals of OV and EV certificates need it again.", yes=yes)
    with open_api() as api:
        _report(api.post(path_of(find(api, certificate), "withdraw-privacy")), as_json=as_json)


@app.command()
def revoke(
    certificate: Certificate,
    reason: Annotated[Reason, typer.Option(help="What the CA is told.")] = Reason.UNSPECIFIED,
    version: Annotated[str | None, typer.Option(help="Number or id of an earlier version; default: current.")] = None,
    yes: Yes = False,
    wait: Wait = False,
    timeout: Timeout = 120,
    as_json: Json = False,
) -> None:
    """Revoke the current version, or an earlier one. It can't be undone. A reissue under way goes on."""
    with open_api() as api:
        certificate_id = find(api, certificate)
        body: dict[str, Any] = {"reason": reason.value}
        if version is not None:
            body["version_id"] = _version_id(api, certificate_id, version)
        confirm(f"Revoke {certificate}{f' version {version}' if version else ''} for good?", yes=yes)
        document = api.post(path_of(certificate_id, "revoke"), body)
        if wait:
            document = _wait_until_revoked(api, document, body.get("version_id"), timeout)
    _report(document, as_json=as_json)


def _version_id(api: Api, certificate_id: str, text: str) -> str:
    versions = api.get(path_of(certificate_id))["versions"]
    for version in versions:
        if text in (version["id"], str(version["number"])):
            return str(version["id"])
    known = ", ".join(str(version["number"]) for version in versions) or "none"
    raise CliError("version_unclear", f"There is no version {text!r} of it.", f"There are: {known}.", exit_code=USAGE)


def _wait_until_revoked(api: Api, document: dict[str, Any], version_id: str | None, timeout: float) -> dict[str, Any]:
    from certwright.entry.cli.client import polled

    current = next(version["id"] for version in document["versions"] if version["superseded_at"] is None)
    certificate_id, seen, instructed = document["id"], document, False
    wanted: dict[str, Any] = {}
    for seen in polled(lambda: api.get(path_of(certificate_id)), seconds=timeout):
        wanted = next(v for v in seen["versions"] if v["id"] == (version_id or current))
        if wanted["revoked_at"]:
            return dict(seen)
        if not instructed and _has_work(seen):
            instructed = True
            show_domains(seen["validation"])
    held = (wanted.get("waiting_for") or {}).get("message", "")
    raise CliError(
        "still_waiting", f"After {timeout:.0f} s the CA has not confirmed it; it goes on without us. {held}".rstrip(),
        f"Look again: certwright certificates show {certificate_id}", document=seen,
    )  # fmt: skip


@app.command()
def download(
    certificate: Certificate,
    format: Annotated[FileFormat, typer.Option(help="A part in PEM, or the archive for a server.")] = (
        FileFormat.FULLCHAIN
    ),
    to: Annotated[str | None, typer.Option("--output", "-o", help="File or directory; - for standard output.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Download the current version. What is made for a server, and `key`, hold the private key: readable by you
    alone."""
    with open_api() as api:
        reply = api.call("GET", path_of(find(api, certificate), "download"), params={"format": format.value})
    secret = format not in _WITHOUT_KEY
    save_reply(reply, to, f"certificate-{format.value}", secret=secret, force=force)


def save_reply(reply: Any, to: str | None, otherwise: str, *, secret: bool, force: bool) -> None:
    """Write a file the API sent to `to`: a file, a directory (None: this one) or `-`. A secret is its owner's alone."""
    if to == "-":
        sys.stdout.buffer.write(reply.content)
        return
    path = Path(to) if to else Path()
    if path.is_dir():
        path /= _file_name(reply.headers.get("content-disposition", ""), otherwise)
    if path.exists() and not force:
        raise CliError("file_exists", f"{path} is there already.", "Name another file, or add --force.")
    _write(path, reply.content, secret=secret)
    output.say(str(path))


def _file_name(disposition: str, otherwise: str) -> str:
    # Only the last part: a server must not choose where on this disk a file goes.
    name = Path(disposition.partition('filename="')[2].partition('"')[0]).name
    return name or otherwise


def _write(path: Path, content: bytes, *, secret: bool) -> None:
    import os

    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CliError("file_unwritable", f"{path} can't be written: {error.strerror}.") from error


@app.command()
def update(
    certificate: Certificate,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    description: Annotated[str | None, typer.Option(help="A new description.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="KEY=VALUE; replaces all tags; may be repeated.")] = None,
    auto_renew: Annotated[bool | None, typer.Option(help="Renew it in time, or leave it.")] = None,
    fallback_ca: Annotated[
        str | None, typer.Option("--fallback-ca", help="A second CA; an empty text takes it away.")
    ] = None,
    notify: Annotated[bool | None, typer.Option(help="Send messages about it, or none.")] = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Rename, describe, tag, move; switch renewal and messages."""
    wanted: dict[str, Any] = {
        "name": name, "description": description, "auto_renew": auto_renew, "fallback_ca": fallback_ca,
        "notify": notify, "project_id": project,
        "tags": key_values(tag, "--tag") if tag else None,
    }  # fmt: skip
    changes = {key: value for key, value in wanted.items() if value is not None}
    if not changes:
        raise CliError("usage", "Say what to change.", "See certwright certificates update --help.", exit_code=USAGE)
    with open_api() as api:
        if project is not None:
            changes["project_id"] = project_id(api, project)
        document = api.patch(path_of(find(api, certificate)), changes)
    present(document, as_json=as_json, skip=("refused_operations", "validation", "application", "versions"))


@app.command()
def delete(certificate: Certificate, yes: Yes = False) -> None:
    """Delete it for good: its private keys are erased. Deleting does not revoke."""
    with open_api() as api:
        certificate_id = find(api, certificate)
        confirm(f"Delete {certificate} for good? It is not revoked by that.", yes=yes)
        api.delete(path_of(certificate_id))
    output.say(f"{certificate_id} is deleted.")
