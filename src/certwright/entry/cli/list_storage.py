"""`certwright authorities storage`: revocation lists in an object storage, too."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from certwright.entry.cli import output
from certwright.entry.cli.common import Json, Yes, confirm, group, open_api, present, read_file, the_one

storage = group("storage", "An object storage that a CA's revocation lists are published to as well.")

Authority = Annotated[str, typer.Argument(help="Id or name of the CA.")]


def _path(api: Any, text: str) -> str:
    return f"/authorities/{the_one(api, '/authorities', 'ca', text, 'name')}/list-storage"


@storage.command()
def show(authority: Authority, as_json: Json = False) -> None:
    """Show where a CA's lists are put, and whether they are there."""
    with open_api() as api:
        document = api.get(_path(api, authority))
    present(document, as_json=as_json)


@storage.command(name="set")
def set_storage(
    authority: Authority,
    endpoint: Annotated[str, typer.Option(help="Its address, such as https://s3.eu-central-1.amazonaws.com.")],
    bucket: Annotated[str, typer.Option(help="The bucket.")],
    access_key: Annotated[str, typer.Option(help="Id of the access key.")],
    secret: Annotated[
        str | None, typer.Option(help="File with the secret access key (- for standard input).", metavar="FILE")
    ] = None,
    region: Annotated[str, typer.Option(help="The region.")] = "us-east-1",
    prefix: Annotated[str, typer.Option(help="Before each object's name, such as crl/.")] = "",
    public_url: Annotated[
        str | None, typer.Option(help="Where everybody finds them; new certificates name it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Publish a CA's lists to an S3-compatible storage as well, from now on and those of today."""
    body = {
        "endpoint": endpoint, "bucket": bucket, "access_key_id": access_key, "region": region, "prefix": prefix,
        "public_url": public_url, "secret_access_key": read_file(secret).strip() if secret else None,
    }  # fmt: skip
    with open_api() as api:
        document = api.put(_path(api, authority), body)
    present(document, as_json=as_json)


@storage.command()
def remove(authority: Authority, yes: Yes = False) -> None:
    """Put nothing more there; what is there stays."""
    with open_api() as api:
        path = _path(api, authority)
        confirm(f"Publish the lists of {authority} here only?", yes=yes)
        api.delete(path)
    output.say("Lists are published here only; what was stored is still there.")
