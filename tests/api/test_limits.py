"""Whoever may have this server look at something outside can't make it do so without end."""

from __future__ import annotations

from typing import Any

import pytest

from certwright.platform.limits import CheckLimit, Rate

CHECKS: dict[str, Any] = {
    "/api/v1/tools/check-dns": {"name": "a.test", "value": "x"},
    "/api/v1/tools/check-file": {"host": "10.0.0.1", "file_name": "a.txt", "content": "x"},
    "/api/v1/tools/check-caa": {"name": "a.test", "ca_identifiers": ["ca.example"]},
}


@pytest.mark.parametrize("path", list(CHECKS), ids=lambda path: path.rpartition("/")[2])
def test_a_tool_asked_too_often_says_when_to_come_back(api: Any, path: str) -> None:
    api.world.services.port(CheckLimit).rate = Rate(burst=1, per_second=0.25)
    file = "/api/v1/tools/check-file"
    assert api.post(file, CHECKS[file]).status_code == 200
    for asked in (api, api.as_actor(api.world.actor)):  # another token is the same account
        refused = asked.post(path, CHECKS[path])
        assert (refused.status_code, refused.json()["code"]) == (429, "checks_throttled")
        assert refused.headers["retry-after"] == "4"
    other = api.as_actor(api.world.other_actor)
    assert other.post(file, CHECKS[file]).status_code == 200
    api.world.later(seconds=4)
    assert api.post(file, CHECKS[file]).status_code == 200


def test_checking_ones_own_domains_and_connections_counts_too(api: Any) -> None:
    secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"  # of nothing
    settings = {"server": "127.0.0.1", "port": 9, "key_name": "k"}
    body = {"name": "c", "kind": "rfc2136", "zones": ["a.test"], "secret": secret, "settings": settings}
    connection = api.post("/api/v1/dns-connections", body)
    assert connection.status_code == 201, connection.text
    application = {
        "names": ["a.example"], "validation_method": "file", "consent": True,
        "applicant": {"name": "Ann", "email": "ann@one.example", "phone": "+49 30 1234567"},
    }  # fmt: skip
    made = api.post("/api/v1/certificates", {"application": application})
    assert made.status_code == 202, made.text
    api.world.services.port(CheckLimit).rate = Rate(burst=0, per_second=1)
    for path in (connection.headers["location"] + "/test", made.headers["location"] + "/validation/check"):
        refused = api.post(path)
        assert (refused.status_code, refused.headers.get("retry-after")) == (429, "1"), path
