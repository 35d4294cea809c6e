"""The tree of commands, and how it ends."""

from __future__ import annotations

from typing import Annotated

import typer

from certwright import __version__
from certwright.entry.cli import (
    accounts,
    acme_server,
    authorities,
    billing,
    cas,
    certificates,
    csrs,
    deployment,
    local,
    organisations,
    output,
    renewal,
    session,
    uploads,
    validation,
    watch,
    x509,
)
from certwright.entry.cli.common import ending

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
    csrs.app,
    uploads.app,
    validation.app,
    deployment.targets,
    deployment.sites,
    deployment.rollouts,
    renewal.renewals,
    renewal.campaigns,
    renewal.rules,
    watch.endpoints,
    watch.alarms,
    billing.products,
    billing.orders,
    billing.unsubscriptions,
    billing.balance,
    billing.coupons,
    validation.dns,
    organisations.app,
    organisations.cases,
    cas.app,
    authorities.app,
    acme_server.app,
    authorities.hsm,
    accounts.users,
    accounts.groups,
    accounts.policies,
    accounts.projects,
    accounts.tokens,
    local.audit,
    local.keys,
    x509.app,
):
    app.add_typer(group)
app.command()(certificates.apply)
app.command()(uploads.upload)
app.command()(deployment.deploy)
app.command()(renewal.readiness)
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
    ending(lambda: app(prog_name="certwright"))
