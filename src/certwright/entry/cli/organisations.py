"""`certwright organisations …`: whom OV and EV certificates name; `certwright cases …`: the desk that verifies them."""

from __future__ import annotations

import base64
import re
from pathlib import Path
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
    show_list,
    show_one,
    the_one,
)
from certwright.entry.cli.errors import USAGE, CliError

app = group("organisations", "Whom OV and EV certificates name, and how far their verification is.")
cases = group("cases", "The organization desk: take cases, record checks, decide.")

ORGANISATIONS = (
    ("ID", "id"), ("LEGAL NAME", "legal_name"), ("COUNTRY", "address.country"), ("NUMBER", "registration_number"),
    ("OPEN CASES", "open_cases"),
)  # fmt: skip
VERIFICATIONS = (
    ("ID", "id"), ("ORGANISATION", "legal_name"), ("TYPE", "type"), ("CA", "ca"), ("STATE", "state"), ("TURN", "turn"),
    ("SUBJECT", "subject_id"),
)  # fmt: skip
CASES = (
    ("ID", "id"), ("ORGANISATION", "facts.legal_name"), ("TYPE", "type"), ("CA", "ca"), ("STATE", "state"),
    ("TAKEN BY", "claimed_by_name"), ("SINCE", "created_at"),
)  # fmt: skip

Organisation = Annotated[str, typer.Argument(help="Id or legal name of the organization.")]
Case = Annotated[str, typer.Argument(help="Id of the case.")]
File = Annotated[Path, typer.Argument(help="A PDF, PNG or JPEG of at most 10 MB.")]
Into = Annotated[Path, typer.Option("--output", "-o", help="Where to write the file; - for standard output.")]
State = Annotated[str | None, typer.Option(help="Only those in this state, such as queued.")]
Region = Annotated[str | None, typer.Option(help="State or province of the register, where it is not the country's.")]
Contacts = Annotated[
    list[str] | None,
    typer.Option("--contact", help="Somebody to ask, as 'Name <address>' or 'Name <address> role'; may be repeated."),
]

_CONTACT = re.compile(r"\s*([^<>]+?)\s*<([^<>]+)>\s*(.*?)\s*")


def _find(api: Any, text: str) -> str:
    return the_one(api, "/organisations", "org", text, "legal_name")


def _contacts(given: list[str]) -> list[dict[str, str]]:
    found = []
    for text in given:
        match = _CONTACT.fullmatch(text)
        if match is None:
            raise CliError("usage", f"--contact takes 'Name <address> role', not {text!r}.", exit_code=USAGE)
        found.append({"name": match[1], "email": match[2], "role": match[3]})
    return found


def _document(path: Path) -> dict[str, str]:
    try:
        return {"name": path.name, "content": base64.b64encode(path.read_bytes()).decode("ascii")}
    except OSError as error:
        raise CliError("file_unreadable", f"{path} can't be read: {error}.", exit_code=USAGE) from error


def _save(path: str, into: Path) -> None:
    with open_api() as api:
        content = api.call("GET", path).content
    if str(into) == "-":
        import sys

        sys.stdout.buffer.write(content)
        return
    try:
        with into.open("xb") as file:
            file.write(content)
    except OSError as error:
        raise CliError("file_not_written", f"{into} can't be written: {error}.", exit_code=USAGE) from error
    output.note(f"Written to {into}.")


# --- organisations ---------------------------------------------------------------------------------------------------


@app.command()
def kinds(as_json: Json = False) -> None:
    """Which kinds of organizations there are, and which of them can be verified; look before paying."""
    with open_api() as api:
        found = api.get("/organisation-kinds")
    if as_json:
        output.document(found)
    else:
        output.rows(found["items"], (("KIND", "kind"), ("VERIFIABLE", "verifiable"), ("WHAT IT IS", "sentence")))


@app.command(name="list")
def list_organisations(limit: Limit = 20, everything: Everything = False, as_json: Json = False) -> None:
    """List the organizations, newest first."""
    show_list("/organisations", ORGANISATIONS, as_json=as_json, limit=limit, everything=everything)


@app.command()
def show(organisation: Organisation, as_json: Json = False) -> None:
    """Show one organization with its contacts and for whom it is verified."""
    with open_api() as api:
        present(api.get(f"/organisations/{_find(api, organisation)}"), as_json=as_json)


@app.command()
def add(
    legal_name: Annotated[str, typer.Argument(help="As the register spells it.")],
    kind: Annotated[str, typer.Option(help="company, sole_trader, non_profit or public_body; see kinds.")],
    jurisdiction: Annotated[str, typer.Option(help="Country of the register, two letters: DE.")],
    street: Annotated[str, typer.Option(help="Street and number.")],
    city: Annotated[str, typer.Option(help="City.")],
    country: Annotated[str, typer.Option(help="Country of the address, two letters: DE.")],
    phone: Annotated[str, typer.Option(help="Number in a public directory, with its country code.")],
    phone_source: Annotated[str, typer.Option(help="The directory it was found in.")],
    number: Annotated[str, typer.Option(help="Number in the register; only public bodies have none.")] = "",
    region: Region = None,
    province: Annotated[str, typer.Option(help="State or province of the address.")] = "",
    postal_code: Annotated[str, typer.Option(help="Postal code.")] = "",
    contact: Contacts = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Add an organization. It is verified when somebody applies in its name."""
    body = {
        "kind": kind, "legal_name": legal_name, "registration_number": number,
        "jurisdiction": {"country": jurisdiction, "region": region or ""},
        "address": {
            "street": street, "city": city, "province": province, "postal_code": postal_code, "country": country,
        },
        "phone": {"number": phone, "source": phone_source}, "contacts": _contacts(contact or []),
    }  # fmt: skip
    with open_api() as api:
        present(api.post("/organisations", body | {"project_id": project_id(api, project)}), as_json=as_json)


_EDITS = {
    "kind": ("kind",), "legal_name": ("legal_name",), "number": ("registration_number",),
    "jurisdiction": ("jurisdiction", "country"), "region": ("jurisdiction", "region"),
    "street": ("address", "street"), "city": ("address", "city"), "province": ("address", "province"),
    "postal_code": ("address", "postal_code"), "country": ("address", "country"),
    "phone": ("phone", "number"), "phone_source": ("phone", "source"),
}  # fmt: skip


@app.command()
def edit(
    organisation: Organisation,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help=f"What to change, as NAME=VALUE; names: {', '.join(_EDITS)}. May be repeated."),
    ] = None,
    contact: Contacts = None,
    as_json: Json = False,
) -> None:
    """Change an organization. Other facts have to be verified anew; contacts given replace the old ones."""
    wanted = key_values(change or [], "--set")
    if unknown := [name for name in wanted if name not in _EDITS]:
        raise CliError("usage", f"--set knows no {unknown[0]!r}.", f"Use {', '.join(_EDITS)}.", exit_code=USAGE)
    if not wanted and contact is None:
        raise CliError("usage", "Say what to change.", "See certwright organisations edit --help.", exit_code=USAGE)
    with open_api() as api:
        path = f"/organisations/{_find(api, organisation)}"
        now = api.get(path)
        body: dict[str, Any] = {}
        for name, value in wanted.items():
            part, *inner = _EDITS[name]
            body[part] = {**body.get(part, now[part]), inner[0]: value} if inner else value
        if contact is not None:
            body["contacts"] = _contacts(contact)
        present(api.patch(path, body), as_json=as_json)


@app.command()
def delete(organisation: Organisation, yes: Yes = False) -> None:
    """Forget an organization with its contacts."""
    with open_api() as api:
        found = _find(api, organisation)
        confirm(f"Forget {organisation}?", yes=yes)
        api.delete(f"/organisations/{found}")
    output.say(f"{found} is forgotten.")


@app.command()
def verifications(
    state: State = None, limit: Limit = 20, everything: Everything = False, as_json: Json = False
) -> None:  # fmt: skip
    """List the verifications of the account, newest first."""
    show_list(
        "/organisation-verifications", VERIFICATIONS, as_json=as_json, limit=limit, everything=everything, state=state
    )


@app.command()
def progress(case: Case, as_json: Json = False) -> None:
    """Show how far a verification is: what is missing, and whose turn it is."""
    show_one(f"/organisation-verifications/{case}", as_json=as_json)


@app.command()
def choose(
    case: Case,
    way: Annotated[str, typer.Argument(help="phone, documents or official_mail.")],
    as_json: Json = False,
) -> None:
    """Choose how to be verified."""
    with open_api() as api:
        present(api.post(f"/organisation-verifications/{case}/way", {"way": way}), as_json=as_json)


@app.command()
def send(case: Case, file: File, as_json: Json = False) -> None:
    """Send a document with the application."""
    with open_api() as api:
        present(api.post(f"/organisation-verifications/{case}/documents", _document(file)), as_json=as_json)


@app.command(name="fetch")
def fetch_sent(case: Case, document: Annotated[str, typer.Argument(help="Id of the document.")], into: Into) -> None:
    """Save a document that was sent; never over a file there is."""
    _save(f"/organisation-verifications/{case}/documents/{document}", into)


# --- the desk --------------------------------------------------------------------------------------------------------


@cases.command(name="list")
def list_cases(
    state: State = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only those you have taken.")] = False,
    limit: Limit = 20,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """List cases of every account, oldest first."""
    show_list(
        "/organisation-cases", CASES, as_json=as_json, limit=limit, everything=everything, state=state,
        mine="true" if mine else None,
    )  # fmt: skip


@cases.command(name="show")
def show_case(case: Case, as_json: Json = False) -> None:
    """Show a case with its evidence, what is missing, and what you may do."""
    show_one(f"/organisation-cases/{case}", as_json=as_json)


def _do(case: str, what: str, body: Any, as_json: bool) -> None:
    with open_api() as api:
        present(api.post(f"/organisation-cases/{case}/{what}", body), as_json=as_json)


@cases.command()
def claim(case: Case, as_json: Json = False) -> None:
    """Take a case from the queue."""
    _do(case, "claim", None, as_json)


@cases.command()
def release(case: Case, as_json: Json = False) -> None:
    """Put a case back into the queue."""
    _do(case, "release", None, as_json)


@cases.command()
def check(
    case: Case,
    item: Annotated[str, typer.Argument(help="existence, address, phone, applicant_authority …; see show.")],
    outcome: Annotated[str, typer.Argument(help="passed or failed.")],
    source: Annotated[str, typer.Option(help="Where it was looked up.")],
    note: Annotated[str, typer.Option(help="What was found, in your words.")] = "",
    as_json: Json = False,
) -> None:
    """Record a check."""
    _do(case, "checks", {"item": item, "outcome": outcome, "source": source, "note": note}, as_json)


@cases.command()
def ask(case: Case, words: Annotated[str, typer.Argument(help="What is needed.")], as_json: Json = False) -> None:
    """Ask the applicant for documents; they are mailed."""
    _do(case, "ask", {"words": words}, as_json)


@cases.command()
def attach(case: Case, file: File, as_json: Json = False) -> None:
    """Attach evidence."""
    _do(case, "documents", _document(file), as_json)


@cases.command()
def fetch(case: Case, document: Annotated[str, typer.Argument(help="Id of the document.")], into: Into) -> None:
    """Save a document of a case; never over a file there is. Audited."""
    _save(f"/organisation-cases/{case}/documents/{document}", into)


@cases.command()
def approve(
    case: Case,
    revision: Annotated[int, typer.Option(help="The revision you read; show prints it.")],
    as_json: Json = False,
) -> None:
    """Approve what you read. For EV a second person does the same."""
    with open_api() as api:
        reply = api.call("POST", f"/organisation-cases/{case}/approve", headers={"If-Match": f'"{revision}"'})
    present(reply.document, as_json=as_json)


@cases.command(name="return")
def give_back(
    case: Case, words: Annotated[str, typer.Argument(help="What is to be mended.")], as_json: Json = False
) -> None:  # fmt: skip
    """As the second person: back to the first, with what is to be mended."""
    _do(case, "return", {"words": words}, as_json)


@cases.command()
def refuse(
    case: Case,
    reason: Annotated[list[str], typer.Option(help="A sentence for the applicant; may be repeated.")],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Refuse for good, with reasons."""
    confirm(f"Refuse {case}?", yes=yes)
    _do(case, "refuse", {"reasons": reason}, as_json)
