"""`/api/v1/targets` … `/rollouts`: shapes, status codes, ETags, paging."""

from __future__ import annotations

from typing import Any

import pytest

from certwright.connectors.target import Targets
from certwright.connectors.target.nginx import NginxKind
from certwright.rooms import authorities, certificates, deployment
from tests.deployment.certs import make
from tests.servers.nginx import Nginx

BASE = "/api/v1"


@pytest.fixture
def door(api: Any, nginx: Nginx) -> Any:
    world = api.world
    world.services.ports[deployment.TargetKinds] = Targets({"nginx": NginxKind()})
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    old = make("a.example")
    nginx.write_site("a.example", old.pem, old.key_pem)
    nginx.start()
    return api


def add_target(door: Any, nginx: Nginx, name: str = "web-1", **more: str) -> dict[str, Any]:
    config = {"nginx": str(nginx.binary), "config": str(nginx.conf_path)} | more
    answer = door.post(f"{BASE}/targets", json={"name": name, "config": config})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"{BASE}/targets/{made['id']}"
    assert answer.headers["etag"] == '"1"'
    return made


def certificate(door: Any) -> str:
    world = door.world
    return str(world.run(certificates.issue_private(world.services, world.actor, names=("a.example",))).id)


def test_from_an_added_target_to_a_finished_rollout(door: Any, nginx: Nginx) -> None:
    target = add_target(door, nginx)
    found = door.post(f"{BASE}/targets/{target['id']}/discover")
    assert found.status_code == 200, found.text
    (site,) = found.json()["items"]
    assert (site["names"], site["managed"], site["bindings"]) == (["a.example"], True, [])
    assert site["slots"][0]["installed"]["names"] == ["a.example"]
    assert site["listeners"][0]["port"] == nginx.https_port
    wanted = {"certificate_id": certificate(door), "site_ids": [site["id"]]}
    shown = door.post(f"{BASE}/deployments/preview", json=wanted)
    assert shown.status_code == 200, shown.text
    assert shown.json()["items"][0]["target_id"] == target["id"]
    started = door.post(f"{BASE}/deployments", json=wanted)
    assert started.status_code == 202, started.text
    (rollout,) = started.json()["rollouts"]
    assert started.headers["location"] == f"{BASE}/rollouts/{rollout['id']}"
    assert (rollout["state"], rollout["next_step"]) == ("running", "plan")
    door.world.drain()
    done = door.get(f"{BASE}/rollouts/{rollout['id']}").json()
    assert (done["state"], done["next_step"], done["problem"]) == ("deployed", None, None)
    assert [step["step"] for step in done["steps"]] == ["plan", "stage", "test", "activate", "verify", "keep"]
    listed = door.get(f"{BASE}/bindings", params={"certificate_id": wanted["certificate_id"]}).json()
    assert [(b["site_id"], b["current"]) for b in listed["items"]] == [(site["id"], True)]
    sites = door.get(f"{BASE}/targets/{target['id']}/sites").json()["items"]
    assert sites[0]["bindings"] == listed["items"]
    undone = door.post(f"{BASE}/rollouts/{rollout['id']}/undo")
    assert (undone.status_code, undone.json()["state"]) == (202, "undoing")
    door.world.drain()
    assert door.get(f"{BASE}/rollouts/{rollout['id']}").json()["state"] == "undone"
    assert door.get(f"{BASE}/bindings").json()["items"] == []


def test_a_binding_is_made_and_taken_away(door: Any, nginx: Nginx) -> None:
    target = add_target(door, nginx)
    (site,) = door.post(f"{BASE}/targets/{target['id']}/discover").json()["items"]
    made = door.post(f"{BASE}/bindings", json={"certificate_id": certificate(door), "site_id": site["id"]})
    assert made.status_code == 201, made.text
    assert made.json()["current"] is False
    refused = door.delete(f"{BASE}/targets/{target['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "target_bound")
    assert door.delete(f"{BASE}/bindings/{made.json()['id']}").status_code == 204
    assert door.delete(f"{BASE}/targets/{target['id']}").status_code == 204
    assert door.get(f"{BASE}/targets/{target['id']}").status_code == 404


def test_a_change_must_say_what_it_was_made_on(door: Any, nginx: Nginx) -> None:
    target = add_target(door, nginx)
    address = f"{BASE}/targets/{target['id']}"
    assert door.patch(address, json={"name": "x"}).status_code == 428
    changed = door.patch(address, json={"name": "x"}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.json()["name"], changed.headers["etag"]) == (200, "x", '"2"')
    assert door.patch(address, json={"name": "y"}, headers={"If-Match": '"1"'}).status_code == 412


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"name": "a/b"}, "target_name_invalid", "name"),
        ({"name": "x", "kind": "apache"}, "target_kind_unknown", "kind"),
        ({"name": "x", "region": "a/b"}, "region_invalid", "region"),
        ({"name": "x", "config": {"nginx": "sh"}}, "nginx_program_invalid", "config.nginx"),
        ({"name": "x", "config": {"config": "n.conf"}}, "path_not_absolute", "config.config"),
        ({"name": "x", "config": {"bogus": 1}}, "target_setting_unknown", "config.bogus"),
        ({"name": "x", "bogus": 1}, "field_unknown", "bogus"),
        ({"kind": "nginx"}, "field_missing", "name"),
    ],
)
def test_a_bad_target_is_refused_field_by_field(door: Any, body: dict[str, Any], code: str, field: str) -> None:
    refused = door.post(f"{BASE}/targets", json=body)
    assert refused.status_code == 422
    assert (refused.json()["code"], refused.json()["field"]) == (code, field)
    assert refused.json()["fix"]


def test_targets_and_rollouts_come_in_pages(door: Any, nginx: Nginx) -> None:
    made = []
    for number in range(3):
        door.world.later(seconds=1)
        made.append(add_target(door, nginx, f"web-{number}", config=f"/etc/{number}.conf")["id"])
    first = door.get(f"{BASE}/targets", params={"limit": 2}).json()
    second = door.get(f"{BASE}/targets", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [row["id"] for row in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None
    assert door.get(f"{BASE}/rollouts").json() == {"items": [], "next_cursor": None}
    assert door.get(f"{BASE}/rollouts", params={"state": "bogus"}).status_code == 422


def test_a_broken_configuration_is_told_with_file_and_line(door: Any, nginx: Nginx) -> None:
    target = add_target(door, nginx)
    (nginx.sites / "z.conf").write_text("server {\n  bogus on;\n}\n")
    refused = door.post(f"{BASE}/targets/{target['id']}/discover")
    assert (refused.status_code, refused.json()["code"], refused.json()["line"]) == (409, "nginx_config_broken", 2)
    looked = door.get(f"{BASE}/targets/{target['id']}").json()
    assert (looked["health"], looked["health_problem"]["code"]) == ("unhealthy", "nginx_config_broken")
