"""`certwright authorities …`: private CAs, what they issue, and kinds of certificates."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certwright.entry.cli import output
from certwright.entry.cli.ca_policies import policies
from certwright.entry.cli.certificates import save_reply
from certwright.entry.cli.common import (
    Everything,
    Json,
    Limit,
    Project,
    Yes,
    confirm,
    confirm_name,
    group,
    open_api,
    present,
    project_id,
    read_file,
    show_list,
    the_one,
)
from certwright.entry.cli.errors import USAGE, CliError
from certwright.entry.cli.list_storage import storage
from certwright.entry.issuing_table import COLUMNS as BATCH_COLUMNS
from certwright.entry.issuing_table import Asked, read_batch
from certwright.kernel.problems import Problem

if TYPE_CHECKING:
    from certwright.entry.cli.client import Api

app = group("authorities", "Private CAs: make them, lead them, issue from them.")
issued = group("issued", "Certificates for people and devices: issue, list, export, revoke, delete them.")
profiles = group("profiles", "Kinds of certificates: list, describe, delete them.")
hsm = group("hsm", "The HSM that keys of CAs can be made in.")
app.add_typer(issued)
app.add_typer(profiles)
app.add_typer(policies)
app.add_typer(storage)

COLUMNS = (
    ("ID", "id"), ("NAME", "name"), ("KIND", "kind"), ("PARENT", "parent"), ("STATE", "state"),
    ("KEY", "key_algorithm"), ("EXPIRES", "not_after"),
)  # fmt: skip
ISSUED_COLUMNS = (
    ("ID", "id"), ("SUBJECT", "subject"), ("NAMES", "names"), ("PROFILE", "profile"), ("EXPIRES", "not_after"),
    ("REVOKED", "revoked_at"), ("KEY HELD", "has_key"),
)  # fmt: skip

Authority = Annotated[str, typer.Argument(help="Id or name of the CA.")]
Issued = Annotated[str, typer.Argument(help="Id of the issued certificate.")]
Reason = Annotated[str, typer.Option(help="unspecified, key_compromise, superseded, cessation_of_operation, …")]
CommonName = Annotated[str | None, typer.Option("--cn", help="Common name of the subject.")]
Organization = Annotated[str | None, typer.Option("--organization", help="O of the subject.")]
Country = Annotated[str | None, typer.Option("--country", help="C of the subject, two letters.")]
Key = Annotated[str, typer.Option("--key", help="EC_P256, EC_P384, RSA_2048, RSA_3072 or RSA_4096.")]
Output = Annotated[str | None, typer.Option("--output", "-o", help="File or directory; - for standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]
PathLength = Annotated[int | None, typer.Option(help="Levels of CAs below it; 0: servers and clients only.")]
Permitted = Annotated[
    list[str] | None,
    typer.Option(
        help="What it may certify: shop.example, 10.0.0.0/8, ann@shop.example, email:shop.example, uri:.shop.example. "
        "Again for more."
    ),
]
Excluded = Annotated[list[str] | None, typer.Option(help="What it may not certify, written like that.")]
Purposes = Annotated[list[str] | None, typer.Option(help="server_auth, client_auth, … or an OID.")]
_QUIET = ("certificate_pem", "csr_pem")


def _find(api: Api, text: str) -> str:
    return f"/authorities/{the_one(api, '/authorities', 'ca', text, 'name')}"


def issuing(api: Api, text: str | None) -> str:
    """The CA meant; by default the built-in one that issues."""
    if text is not None and text != "issuing":
        return _find(api, text)
    for ca in api.pages("/authorities", limit=None):
        if ca["builtin"] and ca["kind"] == "issuing":
            return f"/authorities/{ca['id']}"
    raise CliError("not_found", "There is no built-in CA that issues.", "Name a CA: certwright authorities list.")


def _subject(common_name: str | None, organization: str | None, country: str | None) -> dict[str, Any]:
    return {"common_name": common_name, "organization": organization, "country": country}


@app.command(name="list")
def list_authorities(as_json: Json = False) -> None:
    """List the CAs, each above those below it."""
    with open_api() as api:
        found = list(api.pages("/authorities", limit=None))
    if as_json:
        output.document({"items": found})
    else:
        output.rows(list(_downwards(found)), COLUMNS)


def _downwards(found: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each CA with its parent's name, right after the one it is below; one whose parent may not be seen at the top."""
    names = {ca["id"]: ca["name"] for ca in found}
    below: dict[str | None, list[dict[str, Any]]] = {}
    for ca in found:
        below.setdefault(ca["parent_id"] if ca["parent_id"] in names else None, []).append(ca)
    left = below.get(None, [])[::-1]
    while left:
        ca = left.pop()
        yield ca | {"parent": names.get(ca["parent_id"], "")}
        left += below.get(ca["id"], [])[::-1]


@app.command()
def show(
    authority: Authority,
    pem: Annotated[
        bool, typer.Option("--pem", help="Print its certificate alone; of a pending CA its request.")
    ] = False,
    request: Annotated[
        bool, typer.Option("--request", help="Print the request for its parent, if that is elsewhere.")
    ] = False,
    chain: Annotated[
        bool, typer.Option("--chain", help="Print its certificate and those above it, up to the root.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show one CA, or take its certificate."""
    with open_api() as api:
        path = _find(api, authority)
        if chain:
            output.say(api.call("GET", f"{path}/chain").content.decode().strip())
            return
        document = api.get(path)
    if request:
        if document["csr_pem"] is None:
            raise CliError("no_request", "This CA has no request for a parent.", "Only one made with --outside has.")
        output.say(document["csr_pem"].strip())
    elif pem:
        output.say((document["certificate_pem"] or document["csr_pem"]).strip())
    else:
        present(document, as_json=as_json, skip=_QUIET)


@app.command()
def issue(
    names: Annotated[
        list[str] | None, typer.Argument(help="Domain names and IP addresses, the primary one first.")
    ] = None,
    authority: Annotated[
        str | None, typer.Option("--ca", help="Id or name of the CA; default the built-in one.")
    ] = None,
    key: Annotated[str, typer.Option(help="EC_P256, EC_P384, RSA_2048, RSA_3072 or RSA_4096.")] = "EC_P256",
    csr: Annotated[str | None, typer.Option(help="File with your own CSR (- for standard input).")] = None,
    days: Annotated[
        int | None, typer.Option(help="How long it is good; default 90, at most what its kind and the CA allow.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    description: Annotated[str, typer.Option(help="For you to remember.")] = "",
    project: Project = None,
    auto_renew: Annotated[bool, typer.Option(help="Renew it in time, without anybody's doing.")] = True,
    as_json: Json = False,
) -> None:
    """Issue a certificate at once, without validation: you vouch for the names."""
    with open_api() as api:
        body = {
            "names": names or [], "key_algorithm": key, "csr": read_file(csr) if csr else None, "days": days,
            "name": name, "description": description, "project_id": project_id(api, project), "auto_renew": auto_renew,
        }  # fmt: skip
        document = api.post(f"{issuing(api, authority)}/certificates", body)
    present(document, as_json=as_json)


# --- hierarchies -----------------------------------------------------------------------------------------------------


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What to call the CA.")],
    common_name: CommonName = None,
    organization: Organization = None,
    country: Country = None,
    parent: Annotated[str | None, typer.Option(help="Id or name of the CA above it; without one it is a root.")] = None,
    outside: Annotated[bool, typer.Option("--outside", help="Make a request for a parent that isn't here.")] = False,
    key: Annotated[
        str, typer.Option(help="EC_P256, EC_P384, RSA_2048, RSA_3072, RSA_4096; experimental: ML_DSA_65, ML_DSA_87.")
    ] = "EC_P256",
    hsm: Annotated[bool, typer.Option("--hsm", help="Make its key in the HSM, which never gives it out.")] = False,
    hash_name: Annotated[str | None, typer.Option("--hash", help="sha256, sha384 or sha512.")] = None,
    days: Annotated[int | None, typer.Option(help="Its life; default 20 years for a root, 5 for others.")] = None,
    path_len: PathLength = None,
    permit: Permitted = None,
    exclude: Excluded = None,
    purpose: Purposes = None,
    crl_days: Annotated[int, typer.Option(help="How long its revocation lists are good, 1 to 30.")] = 7,
    ocsp: Annotated[bool, typer.Option(help="Answer about single certificates, too.")] = False,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Make a root, a CA below one, or a request for a parent outside."""
    body = {
        "name": name, "subject": _subject(common_name or name, organization, country), "outside": outside,
        "key_algorithm": key, "key_store": "hsm" if hsm else "software", "hash_name": hash_name, "days": days,
        "path_len": path_len, "name_constraints": _constraints(permit or [], exclude or []), "purposes": purpose or [],
        "crl_days": crl_days, "ocsp_enabled": ocsp,
    }  # fmt: skip
    with open_api() as api:
        above = the_one(api, "/authorities", "ca", parent, "name") if parent is not None else None
        made = api.post("/authorities", body | {"parent_id": above, "project_id": project_id(api, project)})
    present(made, as_json=as_json, skip=_QUIET)
    if made["experimental"] and not as_json:
        output.say("Experimental: browsers and OpenSSL before 3.5 can't verify what this CA signs.")
    if outside and not as_json:
        output.say(made["csr_pem"].strip())
        output.say(f"Have its parent sign this request, then: certwright authorities install {made['id']} FILE")


def _constraints(permit: list[str], exclude: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for way, texts in (("permitted", permit), ("excluded", exclude)):
        for text in texts:
            kind, value = _kind_of_constraint(text)
            found.setdefault(f"{way}_{kind}", []).append(value)
    return found


def _kind_of_constraint(text: str) -> tuple[str, str]:
    kind, _, value = text.partition(":")
    if kind.lower() in ("email", "uri"):
        return f"{kind.lower()}s", value
    if "@" in text:
        return "emails", text
    return ("ips" if "/" in text else "dns"), text


@app.command()
def certify(
    parent: Annotated[str, typer.Argument(help="Id or name of the CA that certifies it.")],
    csr: Annotated[str, typer.Argument(help="File with its request (PKCS#10, PEM); - for standard input.")],
    common_name: Annotated[str, typer.Option("--cn", help="Common name of the subject.")],
    organization: Organization = None,
    country: Country = None,
    days: Annotated[int | None, typer.Option(help="Its life; default 5 years.")] = None,
    path_len: PathLength = None,
    permit: Permitted = None,
    exclude: Excluded = None,
    purpose: Purposes = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Certify a CA whose key is elsewhere, from its request."""
    body = {
        "csr": read_file(csr), "subject": _subject(common_name, organization, country), "days": days,
        "path_len": path_len, "name_constraints": _constraints(permit or [], exclude or []), "purposes": purpose or [],
    }  # fmt: skip
    with open_api() as api:
        made = api.post(f"{_find(api, parent)}/subordinates", body | {"project_id": project_id(api, project)})
    if as_json:
        present(made, as_json=True, skip=_QUIET)
    else:
        output.say(made["certificate_pem"].strip())


@app.command()
def install(
    authority: Authority,
    certificate: Annotated[str, typer.Argument(help="PEM file: what the parent signed, then the parent's chain.")],
    as_json: Json = False,
) -> None:
    """Give a CA the certificate its parent signed: a pending one its first, others the next one for the same key."""
    with open_api() as api:
        done = api.post(f"{_find(api, authority)}/certificate", {"certificate": read_file(certificate)})
    present(done, as_json=as_json, skip=_QUIET)


@app.command()
def renew(
    authority: Authority,
    days: Annotated[int | None, typer.Option(help="How long it is good; default as long as before.")] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Give a CA a certificate that ends later, for the same name and key."""
    with open_api() as api:
        path = _find(api, authority)
        before = api.get(path)
        confirm(f"Renew the CA {before['name']}, which ends {before['not_after']}?", yes=yes)
        unchanged = {"If-Match": f'"{before["revision"]}"'}
        done = api.call("POST", f"{path}/renew", body={"days": days}, headers=unchanged).document
    present(done, as_json=as_json, skip=_QUIET)


@app.command(name="import")
def import_ca(
    name: Annotated[str, typer.Argument(help="What to call the CA.")],
    certificate: Annotated[str, typer.Option("--certificate", help="PEM file: the CA's, then those above it.")],
    key: Annotated[str, typer.Option("--key", help="PEM file of its private key.")],
    passphrase_stdin: Annotated[
        bool, typer.Option("--passphrase-stdin", help="Read the key's passphrase from standard input.")
    ] = False,
    crl_number: Annotated[int, typer.Option(help="Number of the last list published for it elsewhere.")] = 0,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Bring your own CA. Its key is sealed at once; erase your copy."""
    secret = sys.stdin.readline().rstrip("\r\n") if passphrase_stdin else None
    body = {
        "name": name, "certificate": read_file(certificate), "private_key": read_file(key), "passphrase": secret,
        "crl_number": crl_number,
    }  # fmt: skip
    with open_api() as api:
        made = api.post("/authorities/import", body | {"project_id": project_id(api, project)})
    present(made, as_json=as_json, skip=_QUIET)


@app.command()
def edit(
    authority: Authority,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    crl: Annotated[bool | None, typer.Option(help="Whether new certificates point to revocation lists.")] = None,
    crl_days: Annotated[int | None, typer.Option(help="How long its lists are good, 1 to 30.")] = None,
    crl_shards: Annotated[int | None, typer.Option(help="Over how many lists revocations are spread.")] = None,
    ocsp: Annotated[bool | None, typer.Option(help="Whether it answers about single certificates.")] = None,
    as_json: Json = False,
) -> None:
    """Change a CA's name and publishing; counts for what is issued from then on."""
    changes = {"name": name, "crl_enabled": crl, "crl_days": crl_days, "crl_shards": crl_shards, "ocsp_enabled": ocsp}
    if all(value is None for value in changes.values()):
        raise CliError("usage", "Say what to change.", "See certwright authorities edit --help.", exit_code=USAGE)
    with open_api() as api:
        present(api.patch(_find(api, authority), changes), as_json=as_json, skip=_QUIET)


@app.command()
def disable(authority: Authority, as_json: Json = False) -> None:
    """Have a CA issue nothing more; its lists go on."""
    _post(authority, "disable", {}, as_json)


@app.command()
def enable(authority: Authority, as_json: Json = False) -> None:
    """Have a disabled CA issue again."""
    _post(authority, "enable", {}, as_json)


@app.command()
def restore(authority: Authority, as_json: Json = False) -> None:
    """Take back the deletion of a CA that still waits for it."""
    _post(authority, "restore", {}, as_json)


@app.command()
def revoke(authority: Authority, reason: Reason = "unspecified", yes: Yes = False, as_json: Json = False) -> None:
    """Revoke a CA: nothing it issued is trusted any more. Can't be taken back."""
    with open_api() as api:
        path = _find(api, authority)
        name = str(api.get(path)["name"])
        confirm_name(f"Revoke the CA {name}, and with it everything it issued?", name, yes=yes)
        present(api.post(f"{path}/revoke", {"reason": reason}), as_json=as_json, skip=_QUIET)


def _post(authority: str, what: str, body: dict[str, Any], as_json: bool) -> None:
    with open_api() as api:
        present(api.post(f"{_find(api, authority)}/{what}", body), as_json=as_json, skip=_QUIET)


@app.command()
def delete(
    authority: Authority,
    days: Annotated[int, typer.Option(help="How long to wait before its key is erased, 7 to 30.")] = 7,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete a CA after a time of waiting, during which it can be restored."""
    confirm(f"Erase the key of the CA {authority} in {days} days?", yes=yes)
    with open_api() as api:
        reply = api.call("DELETE", _find(api, authority), params={"days": days})
    present(reply.document, as_json=as_json, skip=_QUIET)


# --- what they issue -------------------------------------------------------------------------------------------------


@issued.command(name="list")
def list_issued(
    authority: Authority,
    search: Annotated[str | None, typer.Option(help="A whole name, or a serial's beginning.")] = None,
    revoked: Annotated[bool | None, typer.Option(help="Only those that are, or aren't, revoked.")] = None,
    limit: Limit = 20,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """List what a CA issued, newest first."""
    with open_api() as api:
        path = _find(api, authority)
    show_list(
        f"{path}/issued", ISSUED_COLUMNS, as_json=as_json, limit=limit, everything=everything, search=search,
        revoked=revoked,
    )  # fmt: skip


@issued.command()
def new(
    names: Annotated[list[str] | None, typer.Argument(help="Host names, addresses, e-mail addresses, URIs.")] = None,
    authority: Annotated[
        str | None, typer.Option("--ca", help="Id or name of the CA; default the built-in one.")
    ] = None,
    profile: Annotated[str, typer.Option(help="client, server, or a kind of your own.")] = "client",
    common_name: CommonName = None,
    organization: Organization = None,
    country: Country = None,
    key: Key = "EC_P256",
    csr: Annotated[str | None, typer.Option(help="File with a CSR whose key to use (- for standard input).")] = None,
    days: Annotated[
        int | None, typer.Option(help="How long it is good; default 90, at most what its kind and the CA allow.")
    ] = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Issue one certificate that isn't managed: for a person, a device, a server elsewhere."""
    request = {
        "profile": profile, "names": names or [], "subject": _subject(common_name, organization, country),
        "key_algorithm": key, "csr": read_file(csr) if csr else None, "days": days,
    }  # fmt: skip
    (answer,) = _issue(authority, [request], project)
    if answer["problem"] is not None:
        said = answer["problem"]
        raise CliError(said["code"], said["message"], said.get("fix", ""), field=said.get("field"), document=said)
    present(answer["certificate"], as_json=as_json, skip=_QUIET)


def _issue(authority: str | None, requests: list[dict[str, Any]], project: str | None) -> list[dict[str, Any]]:
    with open_api() as api:
        path = issuing(api, authority)
        said = {"requests": requests, "project_id": project_id(api, project)}
        found: list[dict[str, Any]] = api.post(f"{path}/issued", said)["items"]
        return found


@issued.command()
def batch(
    files: Annotated[
        list[str],
        typer.Argument(
            help=f"CSV file (- for standard input) with a first line; columns: {', '.join(BATCH_COLUMNS)}. "
            "Or files with CSRs in PEM, whose names and subject are those asked for.",
            metavar="FILE…",
        ),
    ],
    authority: Annotated[
        str | None, typer.Option("--ca", help="Id or name of the CA; default the built-in one.")
    ] = None,
    profile: Annotated[str, typer.Option(help="Kind of those that say none.")] = "client",
    days: Annotated[int | None, typer.Option(help="How long those are good that say nothing; default 90.")] = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Issue many certificates, up to 1,000: one for each line of a table, or for each of several CSRs."""
    try:
        asked = read_batch("\n".join(read_file(name) for name in files))
    except Problem as problem:
        raise CliError(problem.code, problem.message, problem.fix, exit_code=USAGE) from None
    wanted = [_request(one, profile, days) for one in asked if one.problem is None]
    found = iter(_issue(authority, wanted, project) if wanted else ())
    answers = [{"certificate": None, "problem": one.problem.as_dict()} if one.problem else next(found) for one in asked]
    failed = [(one.number, a["problem"]) for one, a in zip(asked, answers, strict=True) if a["problem"] is not None]
    if as_json:
        output.document({"items": answers})
    else:
        output.rows([a["certificate"] for a in answers if a["certificate"] is not None], ISSUED_COLUMNS)
        for number, said in failed:
            output.note(f"line {number}: {said['message']} ({said['code']})")
    if failed:
        raise typer.Exit(1)


def _request(one: Asked, profile: str, days: int | None) -> dict[str, Any]:
    request: dict[str, Any] = {
        "profile": one.profile or profile, "names": list(one.names), "subject": dict(one.subject), "csr": one.csr,
        "days": days if one.days is None else one.days,
    }  # fmt: skip
    return request | ({"key_algorithm": one.key_algorithm} if one.key_algorithm else {})


@issued.command(name="show")
def show_issued(
    authority: Authority,
    certificate: Issued,
    pem: Annotated[bool, typer.Option("--pem", help="Print the certificate alone.")] = False,
    as_json: Json = False,
) -> None:
    """Show one issued certificate."""
    with open_api() as api:
        document = api.get(f"{_find(api, authority)}/issued/{certificate}")
    if pem:
        output.say(document["certificate_pem"].strip())
    else:
        present(document, as_json=as_json, skip=_QUIET)


@issued.command()
def export(
    authority: Authority,
    certificate: Issued,
    server: Annotated[
        str, typer.Option(help="pem, nginx, apache, haproxy, tomcat, iis (PFX for browsers too), kubernetes, …")
    ] = "pem",
    legacy: Annotated[bool, typer.Option("--legacy", help="PFX that programs of before 2019 open.")] = False,
    to: Output = None,
    force: Force = False,
) -> None:
    """Write an archive with the certificate, its chain and its key. Recorded in the audit log."""
    with open_api() as api:
        reply = api.call(
            "POST", f"{_find(api, authority)}/issued/{certificate}/export", body={"server": server, "legacy": legacy}
        )
    save_reply(reply, to, f"{certificate}-{server}.zip", secret=True, force=force)


@issued.command()
def kit(
    names: Annotated[list[str] | None, typer.Argument(help="E-mail addresses or host names of the client.")] = None,
    common_name: CommonName = None,
    authority: Annotated[str | None, typer.Option("--ca", help="Id or name of a CA that is there.")] = None,
    new_ca: Annotated[str | None, typer.Option("--new-ca", help="Make a hierarchy of this name for it.")] = None,
    days: Annotated[
        int | None, typer.Option(help="How long it is good; default 90, at most what its kind and the CA allow.")
    ] = None,
    legacy: Annotated[bool, typer.Option("--legacy", help="PFX that programs of before 2019 open.")] = False,
    project: Project = None,
    to: Output = None,
    force: Force = False,
) -> None:
    """Mutual TLS in one step: CAs and lists for the listener; key, certificate and PFX for a client."""
    if (authority is None) == (new_ca is None):
        raise CliError("usage", "Say which CA: --ca NAME, or --new-ca NAME to make one.", exit_code=USAGE)
    with open_api() as api:
        body = {
            "authority_id": None if authority is None else the_one(api, "/authorities", "ca", authority, "name"),
            "ca_name": new_ca or "", "names": names or [], "subject": _subject(common_name, None, None), "days": days,
            "legacy": legacy, "project_id": project_id(api, project),
        }  # fmt: skip
        reply = api.call("POST", "/client-kits", body=body)
    save_reply(reply, to, "mutual-tls.zip", secret=True, force=force)


@issued.command(name="revoke")
def revoke_issued(
    authority: Authority, certificate: Issued, reason: Reason = "unspecified", yes: Yes = False, as_json: Json = False
) -> None:
    """Revoke one issued certificate; lists and answers say so at once."""
    confirm(f"Revoke {certificate}?", yes=yes)
    with open_api() as api:
        done = api.post(f"{_find(api, authority)}/issued/{certificate}/revoke", {"reason": reason})
    present(done, as_json=as_json, skip=_QUIET)


@issued.command(name="delete")
def delete_issued(authority: Authority, certificate: Issued, yes: Yes = False) -> None:
    """Take one out of the list and erase its key. Doesn't revoke it."""
    confirm(f"Delete {certificate} and its key? It stays valid until it expires.", yes=yes)
    with open_api() as api:
        api.call("DELETE", f"{_find(api, authority)}/issued/{certificate}")


# --- kinds -----------------------------------------------------------------------------------------------------------


@profiles.command(name="list")
def list_profiles(as_json: Json = False) -> None:
    """List the kinds of certificates private CAs issue."""
    show_list(
        "/ca-profiles",
        (("NAME", "name"), ("USAGE", "body.extended_key_usage"), ("DAYS", "body.max_days"), ("NAMES", "body.names"),
         ("PROBLEM", "problem.message")),
        as_json=as_json, limit=1000,
    )  # fmt: skip


@profiles.command(name="set")
def set_profile(
    name: Annotated[str, typer.Argument(help="What it is called: small letters, digits, - and _.")],
    body: Annotated[str, typer.Argument(help="JSON file that describes it (- for standard input).")],
    as_json: Json = False,
) -> None:
    """Describe a kind of certificate, or change one."""
    try:
        said = json.loads(read_file(body))
    except ValueError as error:
        raise CliError("usage", f"{body} isn't JSON: {error}.", exit_code=USAGE) from error
    with open_api() as api:
        known = {p["name"]: p for p in api.pages("/ca-profiles", limit=None) if p["id"] is not None}
        if name in known:
            headers = {"If-Match": f'"{known[name]["revision"]}"'}
            done = api.call("PATCH", f"/ca-profiles/{name}", body={"body": said}, headers=headers).document
        else:
            done = api.post("/ca-profiles", {"name": name, "body": said})
    present(done, as_json=as_json)


@profiles.command(name="delete")
def delete_profile(name: Annotated[str, typer.Argument(help="Name of the kind.")], yes: Yes = False) -> None:
    """Delete a kind of certificate; what was issued by it stays."""
    confirm(f"Delete the kind {name}?", yes=yes)
    with open_api() as api:
        api.call("DELETE", f"/ca-profiles/{name}")


# --- the HSM ---------------------------------------------------------------------------------------------------------


@hsm.command(name="show")
def show_hsm(as_json: Json = False) -> None:
    """Show the HSM's token, and whether the keys of our CAs are in it."""
    with open_api() as api:
        _say_hsm(api.get("/hsm"), as_json=as_json)


@hsm.command()
def check(as_json: Json = False) -> None:
    """The same, and try a PIN that was refused once more; tokens lock after some wrong ones."""
    with open_api() as api:
        _say_hsm(api.post("/hsm/check"), as_json=as_json)


def _say_hsm(document: dict[str, Any], *, as_json: bool) -> None:
    """Fails if the HSM does, so that a script can ask."""
    present(document, as_json=as_json, skip=("problem",))
    problem, missing = document["problem"], ", ".join(document["missing"])
    if as_json and (problem or missing):
        raise typer.Exit(1)
    if problem:
        raise CliError(problem["code"], problem["message"], problem.get("fix", ""))
    if missing:
        raise CliError("hsm_key_missing", f"Keys that aren't in the token: {missing}.", "Restore the token's backup.")
