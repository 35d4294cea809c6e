"""The tree of commands, and how it ends."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from certwright import __version__
from certwright.entry.cli import (
    accounts,
    authorities,
    certificates,
    deployment,
    local,
    output,
    session,
    validation,
    watch,
)
from certwright.entry.cli.errors import FAILED, CliError
from certwright.kernel.problems import Problem

# Without rich in the help: it would take longer to load than most commands to run.
app = typer.Typer(
    name="certwright",
    help=(
        "Orders, validates, issues, deploys, watches and renews TLS certificates.\n\n"
        "Settings: CERTWRIGHT_URL, CERTWRIGHT_TOKEN and CERTWRIGHT_CA_FILE, else what `certwright login` stored, else "
        "the product on this machine.\n\n"
        "Exit codes: 0 done, 1 refused or failed, 2 used wrongly, 3 not signed in, 4 not reachable."
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

for group in (
    certificates.app,
    validation.app,
    deployment.targets,
    deployment.sites,
    deployment.rollouts,
    watch.endpoints,
    watch.alarms,
    validation.dns,
    authorities.app,
    accounts.users,
    accounts.groups,
    accounts.policies,
    accounts.projects,
    accounts.tokens,
    local.audit,
    local.keys,
):
    app.add_typer(group)
app.command()(certificates.apply)
app.command()(deployment.deploy)
app.command()(session.login)
app.command()(session.logout)
app.command()(session.whoami)
app.command()(local.serve)
app.command()(local.worker)
app.command(name="setup-link")(local.setup_link)
app.command()(local.migrate)


def _version(wanted: bool) -> None:
    if wanted:
        output.say(f"certwright {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the command itself; the work is done by its commands."""


def run() -> None:
    try:
        app(prog_name="certwright")
    except CliError as error:
        output.problem(error, as_json="--json" in sys.argv)
        sys.exit(error.exit_code)
    except Problem as refused:
        output.problem(_of_problem(refused), as_json="--json" in sys.argv)
        sys.exit(FAILED)


def _of_problem(problem: Problem) -> CliError:
    """Commands that work on this machine's data meet the product's own problems."""
    return CliError(problem.code, problem.message, problem.fix, field=problem.field, document=problem.as_dict())
