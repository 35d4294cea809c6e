"""The API does what its description says, whatever is sent: generated requests against every operation, in-process."""

from __future__ import annotations

from typing import Any, cast

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from certwright.entry.app import create_app
from certwright.platform.services import Services

# The description doesn't depend on the services behind it.
schema = schemathesis.openapi.from_dict(create_app(cast(Services, None)).openapi())

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


def _send(api: Any, case: schemathesis.Case) -> httpx2.Response:
    given = case.as_transport_kwargs(base_url="https://cw.example")
    content = given.get("data")
    if content is not None and not isinstance(content, (bytes, str, dict)):
        content = bytes(content)
    extra: dict[str, Any] = {"json": given["json"]} if given.get("json") is not None else {}
    if isinstance(content, dict):
        extra = {"data": content}
    elif content is not None:
        extra = {"content": content}
    sent = {k: str(v) for k, v in dict(given.get("headers") or {}).items() if k.lower() != "authorization"}
    # Headers travel as bytes without white space around them (RFC 9110 5.5): what would arrive as something else than
    # was generated says nothing about our judgement of it.
    assume(all(v == v.strip() and v.isascii() for v in sent.values()))
    headers = {k: v.encode("ascii") for k, v in sent.items()}
    # Nor does a parameter whose value leaves no trace in the address.
    assume(all(v not in (None, [], {}, ()) for v in dict(given.get("params") or {}).values()))
    response = api.request(given["method"], given["url"], params=given.get("params") or None, headers=headers, **extra)
    return cast(httpx2.Response, response)


@pytest.mark.filterwarnings("default")
@schema.parametrize()
@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,  # the same requests every time: what this finds can be found again
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_operation_keeps_to_its_description(case: schemathesis.Case, api: Any) -> None:
    response = _send(api, case)
    case.validate_response(response, checks=CHECKS)
