"""An administrator for a product that was just started, as the set-up page makes one."""

from __future__ import annotations

import secrets

from certwright.entry.cli.client import Api
from certwright.entry.cli.session import sign_in
from certwright.entry.cli.settings import Connection
from certwright.entry.demo.servers import Product


def administrator(product: Product, setup_token: str) -> tuple[str, Api]:
    """(an API token, the API with it)"""
    email, password = "ann@bench.example", secrets.token_urlsafe(18)
    with Api(Connection(product.url, None, product.root)) as anybody:
        person = {"email": email, "name": "Ann", "password": password, "account_name": "Bench"}
        anybody.call("POST", "/setup", body={"token": setup_token, **person})
        made, _ = sign_in(anybody, email, password, name="bench", days=1)
    return made["token"], Api(Connection(product.url, made["token"], product.root))
