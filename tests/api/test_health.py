"""Health, readiness, metrics, and the description of the API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog.testing

from certwright.entry import wiring
from certwright.entry.app import create_app
from certwright.platform.config import Settings


def test_health_and_readiness_are_open_and_metrics_are_not(api: Any) -> None:
    assert api.anonymous().get("/healthz").json() == {"status": "ok"}
    assert api.anonymous().get("/readyz").json() == {"status": "ok"}
    assert api.anonymous().get("/metrics").status_code == 401


def test_metrics_count_requests_by_route_not_by_address(api: Any) -> None:
    api.get("/api/v1/groups/grp_one")
    api.get("/api/v1/no/such/address/at/all")
    text = api.get("/metrics").text
    assert 'certwright_http_requests_total{method="GET",route="/api/v1/groups/{group_id}",status="404"}' in text
    assert "grp_one" not in text
    assert "such" not in text


@pytest.fixture
def without_database(tmp_path: Path) -> Iterator[Any]:
    """The application while PostgreSQL doesn't answer."""
    settings = Settings(data_dir=tmp_path, database_url=f"postgresql://nobody@/nothing?host={tmp_path}")
    with asyncio.Runner() as runner:
        services = runner.run(wiring.build(settings))
        app = create_app(services)

        def get(path: str, **headers: str) -> httpx2.Response:
            async def send() -> httpx2.Response:
                transport = httpx2.ASGITransport(app)
                async with httpx2.AsyncClient(transport=transport, base_url="https://cw.example") as client:
                    return await client.get(path, headers=headers)

            return runner.run(send())

        yield get
        runner.run(wiring.aclose(services))


def test_without_its_database_the_product_stays_up_and_says_so(without_database: Any) -> None:
    assert without_database("/healthz").status_code == 200
    for path in ("/readyz", "/api/v1/users"):
        response = without_database(path, authorization="Bearer cwt_01k00000000000000000000000_x")
        assert response.status_code == 503
        assert response.json()["code"] == "database_unavailable"
        assert response.headers["retry-after"]


def test_the_description_is_complete(api: Any) -> None:
    document = api.anonymous().get("/api/v1/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert set(document["components"]["securitySchemes"]) == {"token", "session"}
    assert "HTTPValidationError" not in document["components"]["schemas"]
    operations = [(path, m, o) for path, item in document["paths"].items() for m, o in item.items()]
    assert len(operations) > 90
    ids = [operation["operationId"] for _, _, operation in operations]
    assert len(ids) == len(set(ids))
    for path, method, operation in operations:
        where = f"{method} {path}"
        assert operation.get("summary"), where
        problems = {status for status in operation["responses"] if status >= "400"}
        assert {"400", "422", "500", "503"} <= problems, where
        assert (operation["security"] == []) == (operation["x-action"] == "public"), where
        assert operation["security"] == [] or {"401", "403"} <= problems, where
        for status in problems:
            assert "application/problem+json" in operation["responses"][status]["content"], where
        if method == "patch":
            assert {"412", "428"} <= problems, where


def test_addresses_of_vendor_compatible_doors_are_free(api: Any) -> None:
    taken = {getattr(route, "path", "") for route in api.app.routes}
    assert not [path for path in taken if path.startswith(("/v1", "/v2", "/v3", "/v5"))]
    assert not [r for r in api.app.routes if getattr(r, "path", "") == "/" and "POST" in (r.methods or ())]


@pytest.mark.parametrize(
    ("path", "headers", "level"),
    [
        ("/healthz", {}, "debug"),
        ("/metrics", {}, "debug"),
        ("/", {"hx-request": "true"}, "debug"),
        ("/", {}, "info"),
        ("/api/v1/groups", {}, "info"),
        ("/api/v1/groups/none", {"hx-request": "true"}, "info"),
    ],
    ids=["health", "a scrape", "a page asking for news", "a page", "the API", "a refusal"],
)
def test_what_comes_by_itself_is_kept_out_of_the_log(api: Any, path: str, headers: dict[str, str], level: str) -> None:
    with structlog.testing.capture_logs() as lines:
        api.get(path, headers=headers)
    assert [line["log_level"] for line in lines if line["event"] == "request"] == [level]
