"""A running product, and the `certwright` command run in this process against it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from certwright.entry.cli import main
from certwright.entry.cli.client import Api
from certwright.entry.cli.session import sign_in
from certwright.entry.cli.settings import Connection
from certwright.entry.demo.servers import Product
from tests.conftest import database_for

PASSWORD = "a long enough passphrase 7"  # of a throw-away product
EMAIL = "ann@one.example"


@dataclass(frozen=True)
class Running:
    """A product with an administrator, and her token."""

    url: str
    token: str
    root: Path
    data_dir: Path


@pytest.fixture(scope="module")
def product_database(database_server: str) -> Iterator[str | None]:
    """Where the product of a test file keeps its tables; None has it start a PostgreSQL of its own, 2 s slower."""
    with database_for(database_server, "cli") as url:
        yield url


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, product_database: str | None) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("product")
    settings = {"ALLOWED_NETWORKS": "127.0.0.0/8"} | ({"DATABASE_URL": product_database} if product_database else {})
    product = Product(home / "data", home / "log", settings)
    try:
        token = product.start()
        with Api(Connection(product.url, None, product.root)) as api:
            person = {"email": EMAIL, "name": "Ann", "password": PASSWORD, "account_name": "One"}
            api.call("POST", "/setup", body={"token": token, **person})
            made, _ = sign_in(api, EMAIL, PASSWORD, name="tests", days=30)
        yield Running(product.url, made["token"], product.root, home / "data")
    finally:
        product.stop()


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """`command("certificates", "list", stdin="")`: nobody is at the terminal, and nothing is configured."""
    for name in [name for name in os.environ if name.startswith("CERTWRIGHT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CERTWRIGHT_CLI_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("CERTWRIGHT_DATA_DIR", str(tmp_path / "no-data"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str = "") -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["certwright", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return run


@pytest.fixture
def signed_in(command: Command, running: Running, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The same, with the environment of someone who uses this product."""
    monkeypatch.setenv("CERTWRIGHT_URL", running.url)
    monkeypatch.setenv("CERTWRIGHT_TOKEN", running.token)
    monkeypatch.setenv("CERTWRIGHT_CA_FILE", str(running.root))
    return command
