"""What the groups of commands share: options, opening the API, listing and showing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certwright.entry.cli import output, settings
from certwright.entry.cli.errors import USAGE, CliError
from certwright.kernel.problems import Problem

if TYPE_CHECKING:
    from certwright.entry.cli.client import Api

Json = Annotated[bool, typer.Option("--json", help="Print the API's document instead of a table.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")]
Everything = Annotated[bool, typer.Option("--all", help="All of them, whatever the limit.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it is done, showing progress.")]
Timeout = Annotated[
    float, typer.Option("--timeout", min=1, help="With --wait: give up watching after so many seconds.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
Project = Annotated[str | None, typer.Option("--project", help="Id or name of the project; default: yours.")]


def group(name: str, help: str) -> typer.Typer:
    """A group of commands that shows its help when called without one."""
    return typer.Typer(name=name, help=help, no_args_is_help=True, rich_markup_mode=None)


def ending(command: Callable[[], object]) -> None:
    """Runs a command and ends the process as it came out."""
    import sys

    try:
        command()
    except CliError as error:
        output.problem(error, as_json="--json" in sys.argv)
        sys.exit(error.exit_code)
    except Problem as refused:
        # Commands that work on this machine meet the product's own problems.
        said = CliError(
            refused.code, refused.message, refused.fix, field=refused.field, document=refused.as_dict()
        )  # fmt: skip
        output.problem(said, as_json="--json" in sys.argv)
        sys.exit(said.exit_code)


def open_api() -> Api:
    # Imported here so that help and completion don't pay for an HTTP client.
    from certwright.entry.cli.client import Api

    return Api(settings.load())


def show_list(
    path: str,
    columns: output.Columns,
    *,
    as_json: bool,
    limit: int,
    everything: bool = False,
    **params: Any,
) -> None:
    with open_api() as api:
        items = list(api.pages(path, limit=None if everything else limit, **params))
    if as_json:
        output.document({"items": items})
    else:
        output.rows(items, columns)


def show_one(path: str, *, as_json: bool, skip: Sequence[str] = ()) -> None:
    with open_api() as api:
        present(api.get(path), as_json=as_json, skip=skip)


def present(document: Mapping[str, Any], *, as_json: bool, skip: Sequence[str] = ()) -> None:
    if as_json:
        output.document(document)
    else:
        output.details(document, skip=skip)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before what can't be undone; where nobody can answer, only --yes is an answer."""
    if not yes and _may_ask(question):
        typer.confirm(question, abort=True)


def confirm_name(question: str, name: str, *, yes: bool) -> None:
    """The same before what ends many things: the answer is the name of what is meant."""
    if not yes and _may_ask(question) and typer.prompt(f"{question} Type its name to go on").strip() != name:
        raise CliError("not_confirmed", f"That isn't {name!r}: nothing was done.", exit_code=USAGE)


def _may_ask(question: str) -> bool:
    if someone_is_there():
        return True
    raise CliError("not_confirmed", question, "Nobody can be asked here: add --yes.", exit_code=USAGE)


def someone_is_there() -> bool:
    import sys

    return sys.stdin.isatty()


def key_values(given: Sequence[str], option: str) -> dict[str, str]:
    """`["team=shop"]` as a mapping."""
    found = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise CliError("usage", f"{option} takes KEY=VALUE, not {text!r}.", exit_code=USAGE)
        found[key] = value
    return found


def read_file(path: str) -> str:
    """The text of a file, or of standard input for `-`."""
    import sys
    from pathlib import Path

    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CliError(
            "file_unreadable", f"{path} isn't text in UTF-8.",
            "Save tables as CSV in UTF-8; certificates, keys and requests as PEM.", exit_code=USAGE,
        ) from error  # fmt: skip
    except OSError as error:
        raise CliError("file_unreadable", f"{path} can't be read: {error.strerror}.", exit_code=USAGE) from error


# Lists whose command isn't called like their address.
_COMMANDS = {"/ca-policies": "authorities policies", "/acme-directories": "acme"}


def the_one(api: Api, path: str, prefix: str, text: str, *keys: str, **params: Any) -> str:
    """The id of the one object that `text` names: an id as it is, else the one whose `keys` hold exactly this text."""
    from certwright.kernel.ids import is_id

    if is_id(text, prefix):
        return text
    found = [item for item in api.pages(path, limit=None, **params) if any(item.get(key) == text for key in keys)]
    if len(found) == 1:
        return str(found[0]["id"])
    if not found:
        raise CliError(
            "not_found",
            f"There is nothing called {text!r}.",
            f"List what there is: certwright {_COMMANDS.get(path, path[1:])} list.",
        )
    ids = ", ".join(item["id"] for item in found)
    raise CliError("name_ambiguous", f"{text!r} names {len(found)} of them: {ids}.", "Use the id.", exit_code=USAGE)


def project_id(api: Api, project: str | None) -> str | None:
    """The id of the project that --project names."""
    return None if project is None else the_one(api, "/projects", "prj", project, "name")
