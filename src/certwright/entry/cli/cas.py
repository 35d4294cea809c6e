"""`certwright cas …`: the CAs outside that certificates are ordered from."""

from __future__ import annotations

import re
import sys
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
    key_values,
    open_api,
    present,
    project_id,
    read_file,
    show_list,
    the_one,
)
from certwright.entry.cli.errors import USAGE, CliError

app = group("cas", "CAs outside, over ACME: add them, test them, then apply with --ca NAME.")

COLUMNS = (
    ("ID", "id"), ("NAME", "name"), ("DIRECTORY", "directory_url"), ("PUBLIC", "public"), ("TESTED", "checked_at"),
    ("PROBLEM", "problem.message"),
)  # fmt: skip

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Ca = Annotated[str, typer.Argument(help="Id or name of the CA.")]
Contact = Annotated[
    list[str] | None, typer.Option("--contact", help="E-mail address the CA may write to; may be repeated.")
]
AgreeTerms = Annotated[bool, typer.Option("--agree-terms", help="You agree to the CA's terms of service.")]
Profile = Annotated[str | None, typer.Option(help="One of the CA's certificate profiles; show lists them.")]
PreferredChain = Annotated[str | None, typer.Option(help="Common name of the root whose chain to prefer.")]
TrustedRoot = Annotated[
    str | None, typer.Option("--root", help="PEM file of the root that vouches for the directory's own certificate.")
]
EabKid = Annotated[str | None, typer.Option("--eab-kid", help="Key id the CA gave you for ACME; its key is asked for.")]
EabStdin = Annotated[bool, typer.Option("--eab-key-stdin", help="Read that key from standard input.")]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit-of",
        help="What the CA allows, as NAME=COUNT/PERIOD: orders=300/3h, certificates_per_domain=50/7d, "
        "duplicates=5/7d, failed_validations=3/1h; may be repeated.",
    ),
]


Product = Annotated[
    list[str] | None,
    typer.Option(
        "--product", help="Of a CA that sells: TYPE/NAMES=PRODUCT, such as ov/single=ssl_basic; may be repeated."
    ),
]
Setting = Annotated[
    list[str] | None,
    typer.Option(
        "--setting",
        help="Of a CA that sells: years=1, payment_method=balance, skip_approval=true, dns_record=TXT or CNAME, "
        "cname_target=NAME, caa_identifiers=NAME,NAME; may be repeated.",
    ),
]
ApiKeyStdin = Annotated[bool, typer.Option("--api-key-stdin", help="Read the key of its API from standard input.")]


def _shop(products: list[str] | None, settings: list[str] | None) -> dict[str, Any] | None:
    if products is None and settings is None:
        return None
    found: dict[str, Any] = dict(key_values(settings or [], "--setting"))
    if "years" in found and found["years"].isdigit():
        found["years"] = int(found["years"])
    if "caa_identifiers" in found:
        found["caa_identifiers"] = [name.strip() for name in found["caa_identifiers"].split(",") if name.strip()]
    if found.get("skip_approval") in ("true", "false"):
        found["skip_approval"] = found["skip_approval"] == "true"
    if products is not None:
        found["products"] = dict(key_values(products, "--product"))
    return found


def _api_key(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().strip()
    if sys.stdin.isatty():
        return str(typer.prompt("Key of the CA's API", hide_input=True))
    raise CliError("no_terminal", "Nobody can be asked for the key.", "Add --api-key-stdin.", exit_code=USAGE)


def _find(api: Any, text: str) -> str:
    return the_one(api, "/cas", "eca", text, "name")


def _limits(given: list[str] | None) -> dict[str, Any]:
    found = {}
    for name, text in key_values(given or [], "--limit-of").items():
        match = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,5})([smhd])", text)
        if match is None:
            raise CliError("usage", f"--limit-of takes NAME=COUNT/PERIOD, such as {name}=300/3h.", exit_code=USAGE)
        found[name] = {"count": int(match[1]), "seconds": int(match[2]) * _UNITS[match[3]]}
    return found


def _eab_key(kid: str | None, *, from_stdin: bool) -> str | None:
    if not kid:
        return None
    if from_stdin:
        return sys.stdin.readline().strip()
    if sys.stdin.isatty():
        return str(typer.prompt("Key of the external account binding", hide_input=True))
    raise CliError("no_terminal", "Nobody can be asked for the key.", "Add --eab-key-stdin.", exit_code=USAGE)


@app.command(name="list")
def list_cas(limit: Limit = 20, everything: Everything = False, as_json: Json = False) -> None:
    """List the CAs, newest first."""
    show_list("/cas", COLUMNS, as_json=as_json, limit=limit, everything=everything)


@app.command()
def show(ca: Ca, as_json: Json = False) -> None:
    """Show one CA: our account there, what it offers, its limits."""
    with open_api() as api:
        _present(api.get(f"/cas/{_find(api, ca)}"), as_json)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it: letsencrypt.")],
    directory: Annotated[str, typer.Argument(help="The https address of its ACME directory, or of its API.")],
    contact: Contact = None,
    agree_terms: AgreeTerms = False,
    private: Annotated[
        bool, typer.Option("--private", help="Browsers don't trust it: internal names are welcome.")
    ] = False,
    profile: Profile = None,
    preferred_chain: PreferredChain = None,
    root: TrustedRoot = None,
    eab_kid: EabKid = None,
    eab_key_stdin: EabStdin = False,
    kind: Annotated[str, typer.Option(help="acme, or certcentral: sells over an API like DigiCert's.")] = "acme",
    api_key_stdin: ApiKeyStdin = False,
    product: Product = None,
    setting: Setting = None,
    limit_of: Limits = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Add a CA, test it and register an account there. Exit code 1 when the test fails; the CA is kept to be edited."""
    body = {
        "kind": kind, "api_key": _api_key(from_stdin=api_key_stdin) if kind == "certcentral" else None,
        "settings": _shop(product, setting),
        "name": name, "directory_url": directory, "contacts": contact or [], "agree_terms": agree_terms,
        "public": not private, "profile": profile, "preferred_chain": preferred_chain,
        "root_pem": read_file(root) if root else None, "eab_kid": eab_kid,
        "eab_key": _eab_key(eab_kid, from_stdin=eab_key_stdin), "limits": _limits(limit_of),
    }  # fmt: skip
    with open_api() as api:
        made = api.post("/cas", body | {"project_id": project_id(api, project)})
        _tested(api.post(f"/cas/{made['id']}/test"), as_json)


@app.command()
def edit(
    ca: Ca,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    contact: Contact = None,
    agree_terms: AgreeTerms = False,
    public: Annotated[bool | None, typer.Option("--public/--private", help="Whether browsers trust it.")] = None,
    profile: Annotated[str | None, typer.Option(help="Another profile; an empty text for the usual one.")] = None,
    preferred_chain: Annotated[str | None, typer.Option(help="Another root; an empty text for any.")] = None,
    root: TrustedRoot = None,
    eab_kid: EabKid = None,
    eab_key_stdin: EabStdin = False,
    new_api_key: Annotated[bool, typer.Option("--new-api-key", help="A new key of its API; it is asked for.")] = False,
    api_key_stdin: ApiKeyStdin = False,
    product: Product = None,
    setting: Setting = None,
    limit_of: Limits = None,
    as_json: Json = False,
) -> None:
    """Change a CA and test it. Contacts given replace the old ones."""
    wanted = {
        "name": name, "contacts": contact, "agree_terms": agree_terms or None, "public": public, "profile": profile,
        "preferred_chain": preferred_chain, "root_pem": read_file(root) if root else None, "eab_kid": eab_kid,
        "eab_key": _eab_key(eab_kid, from_stdin=eab_key_stdin), "limits": _limits(limit_of) or None,
        "api_key": _api_key(from_stdin=api_key_stdin) if new_api_key or api_key_stdin else None,
        "settings": _shop(product, setting),
    }  # fmt: skip
    changes = {key: value for key, value in wanted.items() if value is not None}
    if not changes:
        raise CliError("usage", "Say what to change.", "See certwright cas edit --help.", exit_code=USAGE)
    with open_api() as api:
        path = f"/cas/{_find(api, ca)}"
        api.patch(path, changes)
        _tested(api.post(f"{path}/test"), as_json)


@app.command(name="test")
def check(ca: Ca, as_json: Json = False) -> None:
    """Read its directory, and find or make our account there. Exit code 1 when something is wrong."""
    with open_api() as api:
        _tested(api.post(f"/cas/{_find(api, ca)}/test"), as_json)


def _tested(found: dict[str, Any], as_json: bool) -> None:
    _present(found, as_json)
    said = found.get("problem")
    if said:
        raise CliError(said["code"], said["message"], said.get("fix", ""), document=said)


def _present(document: dict[str, Any], as_json: bool) -> None:
    if not as_json:
        limits = ", ".join(f"{name} {f['count']} per {_period(f['seconds'])}" for name, f in document["limits"].items())
        offers = document["offers"] or {}
        document = document | {"limits": limits, "profiles": ", ".join(sorted(offers.get("profiles", {})))}
        for word, value in (document.pop("settings") or {}).items():
            document[word] = ", ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value
    present(document, as_json=as_json, skip=("problem", "root_pem", "offers"))


def _period(seconds: int) -> str:
    for unit in ("d", "h", "m"):
        if seconds % _UNITS[unit] == 0:
            return f"{seconds // _UNITS[unit]}{unit}"
    return f"{seconds}s"


@app.command(name="change-key")
def change_key(ca: Ca, yes: Yes = False, as_json: Json = False) -> None:
    """Give our account there a new key. Its URL stays."""
    with open_api() as api:
        ca_id = _find(api, ca)
        confirm(f"Change the key of the account at {ca}?", yes=yes)
        _present(api.post(f"/cas/{ca_id}/change-key"), as_json)


@app.command(name="new-account")
def new_account(ca: Ca, yes: Yes = False, as_json: Json = False) -> None:
    """Register another account there, where the CA closed ours or others may hold its key. Orders under way fail."""
    with open_api() as api:
        ca_id = _find(api, ca)
        confirm(f"Leave the account at {ca} behind, erase its key, and register another?", yes=yes)
        _tested(api.post(f"/cas/{ca_id}/new-account"), as_json)


@app.command()
def delete(
    ca: Ca,
    deactivate: Annotated[bool, typer.Option("--deactivate", help="Close the account there first, for good.")] = False,
    yes: Yes = False,
) -> None:
    """Forget a CA that no certificate needs any more, and erase the account's key."""
    with open_api() as api:
        ca_id = _find(api, ca)
        confirm(f"Forget {ca} and the key of the account there?", yes=yes)
        api.delete(f"/cas/{ca_id}{'?deactivate=true' if deactivate else ''}")
    output.say(f"{ca_id} is forgotten.")
