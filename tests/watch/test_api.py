"""Endpoints and alarms through the API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.servers.tls import issue, tls_server
from tests.watch.material import span

NAME = "www.example.test"


def test_an_endpoint_from_its_making_to_its_end(api: Any) -> None:
    world = api.world
    with tls_server(issue(NAME, **span(world, left=-1, life=90))) as server:
        made = api.post("/api/v1/endpoints", {"host": "127.0.0.1", "port": server.port, "sni": NAME})
        assert made.status_code == 201, made.text
        where = made.headers["location"]
        assert made.json()["last_probe_at"] is None
        world.drain()
        (alarm,) = api.get(where).json()["alarms"]
        assert (alarm["kind"], alarm["severity"], alarm["state"], alarm["threshold"]) == (
            "ALM-2001006",
            "critical",
            "open",
            2,
        )
        assert alarm["message"] == f"The certificate {NAME} expired on 2026-02-28 12:00 UTC."
        assert alarm["host_ips"] == ["127.0.0.1"]

        detail = api.get(f"/api/v1/alarms/{alarm['id']}").json()
        assert [line["what"] for line in detail["history"]] == ["raised"]
        assert detail["catalogue"]["handling"][-1] == "The alarm clears by itself at the next good probe."
        assert detail["recent_values"] == [{"at": "2026-03-01T12:00:00Z", "value": -1.0}]

        acknowledged = api.post(f"/api/v1/alarms/{alarm['id']}/acknowledge")
        assert acknowledged.status_code == 200
        assert acknowledged.json()["acknowledged_by"]
        taken_back = api.post(f"/api/v1/alarms/{alarm['id']}/acknowledge", {"acknowledged": False})
        assert taken_back.json()["acknowledged_at"] is None

        server.serve(issue(NAME, **span(world, left=80, life=90)))
        world.later(minutes=5)
        probed = api.post(f"{where}/probe")
        assert (probed.status_code, probed.headers["location"]) == (202, where)
        world.drain()

    assert api.get(where).json()["last_probe_at"] > probed.json()["last_probe_at"]
    assert api.get("/api/v1/alarms").json()["items"] == []
    (cleared,) = api.get("/api/v1/alarms?state=cleared&kind=ALM-2001006").json()["items"]
    assert (cleared["id"], cleared["severity"], cleared["raised_severity"]) == (alarm["id"], "cleared", "critical")
    late = api.post(f"/api/v1/alarms/{alarm['id']}/acknowledge")
    assert (late.status_code, late.json()["code"]) == (409, "alarm_cleared")

    seen = api.get(f"{where}/observations").json()["items"]
    assert [each["superseded_at"] is None for each in seen] == [True, False]
    assert seen[0]["chain_pem"].startswith("-----BEGIN CERTIFICATE-----")
    assert seen[0]["key_exchange_group"] == "x25519"

    counts = api.get("/api/v1/alarms/counts").json()
    assert counts == {"alarms": {}, "endpoints": 1, "reachable": 1, "unreachable": 0}

    assert api.patch(where, {"enabled": False}).status_code == 428
    etag = api.get(where).headers["etag"]
    changed = api.patch(where, {"enabled": False}, headers={"if-match": etag})
    assert (changed.status_code, changed.json()["enabled"]) == (200, False)
    assert api.patch(where, {"enabled": True}, headers={"if-match": etag}).status_code == 412
    assert api.post(f"{where}/probe").json()["code"] == "endpoint_disabled"
    assert api.delete(where).status_code == 204
    assert api.get(where).status_code == 404


def test_lists_are_paged_and_filtered(api: Any) -> None:
    for number in range(5):
        body = {"host": f"host{number}.example.com"}
        assert api.post("/api/v1/endpoints", body).status_code == 201
        api.world.later(seconds=1)
    first = api.get("/api/v1/endpoints?limit=3").json()
    second = api.get(f"/api/v1/endpoints?limit=3&cursor={first['next_cursor']}").json()
    hosts = [item["host"] for item in first["items"] + second["items"]]
    assert hosts == [f"host{number}.example.com" for number in (4, 3, 2, 1, 0)]
    assert second["next_cursor"] is None
    found = api.get("/api/v1/endpoints?search=HOST3").json()["items"]
    assert [item["host"] for item in found] == ["host3.example.com"]
    assert api.get("/api/v1/endpoints?search=%25").json()["items"] == []
    assert api.get("/api/v1/endpoints?reachable=true").json()["items"] == []


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "field_missing", "host"),
        ({"host": "a b"}, "name_bad_character", "host"),
        ({"host": "a.example.com", "port": 0}, "field_invalid", "port"),
        ({"host": "a.example.com", "starttls": "ftp"}, "field_invalid", "starttls"),
        ({"host": "a.example.com", "sni": "*.example.com"}, "sni_is_wildcard", "sni"),
        ({"host": "a.example.com", "colour": "red"}, "field_unknown", "colour"),
    ],
)
def test_bad_endpoints_are_refused(api: Any, body: dict[str, Any], code: str, field: str) -> None:
    response = api.post("/api/v1/endpoints", body)
    assert (response.status_code, response.json()["code"], response.json()["field"]) == (422, code, field)


def test_what_is_another_accounts_is_not_there(api: Any) -> None:
    world = api.world
    with tls_server(issue(NAME, **span(world, left=-1, life=90))) as server:
        where = api.post("/api/v1/endpoints", {"host": "127.0.0.1", "port": server.port, "sni": NAME}).headers[
            "location"
        ]
        world.drain()
    (alarm,) = api.get("/api/v1/alarms").json()["items"]
    other = api.as_actor(world.other_actor)
    assert other.get("/api/v1/endpoints").json()["items"] == []
    assert other.get("/api/v1/alarms?state=all").json()["items"] == []
    for response in (
        other.get(where),
        other.post(f"{where}/probe"),
        other.get(f"{where}/observations"),
        other.patch(where, {"enabled": False}, headers={"if-match": '"1"'}),
        other.delete(where),
        other.get(f"/api/v1/alarms/{alarm['id']}"),
        other.post(f"/api/v1/alarms/{alarm['id']}/acknowledge"),
    ):
        assert response.status_code == 404, response.text


def test_the_catalogue_says_what_each_alarm_means(api: Any) -> None:
    kinds = api.get("/api/v1/alarm-kinds").json()["items"]
    known = [
        "ALM-2001006", "ALM-2001010", "ALM-2001011", "ALM-2001012", "ALM-2001014", "ALM-2001016", "ALM-2001017",
        "ALM-2001018",
    ]  # fmt: skip
    assert [kind["id"] for kind in kinds] == known
    assert all(kind["causes"] and kind["handling"] and kind["impact"] and kind["auto_clear"] for kind in kinds)
