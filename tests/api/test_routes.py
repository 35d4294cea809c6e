"""No route is open by accident, and nobody reaches what belongs to another account."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.routing import BaseRoute, Mount

from certwright.entry.api.base import PUBLIC, SESSION_COOKIE, SIGNED_IN
from certwright.rooms import access, accounts
from tests.conftest import Api

OPEN_TO_ALL = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/api/v1/openapi.json"),
    ("POST", "/api/v1/setup"),
    ("POST", "/api/v1/sign-in"),
    ("POST", "/api/v1/password-links/use"),
    # Applicants may have no account; the mailed link is their key.
    ("POST", "/api/v1/organisation-links/look"),
    ("POST", "/api/v1/organisation-links/choose"),
    # Relying parties have no account.
    ("GET", "/ca/{file_name}"),
    ("GET", "/crl/{file_name}"),
    ("GET", "/ocsp/{authority_id}/{question:path}"),
    ("POST", "/ocsp/{authority_id}"),
    # The console: what comes before anybody is somebody, the roots to trust, and files of the package.
    ("GET", "/setup"),
    ("POST", "/setup"),
    ("GET", "/confirm-domain"),
    ("POST", "/confirm-domain"),
    ("GET", "/confirm-revocation"),
    ("POST", "/confirm-revocation"),
    ("GET", "/organisation-verification"),
    ("POST", "/organisation-verification"),
    ("GET", "/sign-in"),
    ("POST", "/sign-in"),
    ("POST", "/sign-out"),
    ("GET", "/password"),
    ("POST", "/password"),
    ("POST", "/preferences"),
    ("GET", "/ca"),
    ("GET", "/static/{name:path}"),
}
OPEN_TO_THE_SIGNED_IN = {
    ("POST", "/api/v1/sign-out"),
    ("GET", "/api/v1/me"),
    ("PUT", "/api/v1/me/password"),
    ("GET", "/api/v1/me/sessions"),
    ("DELETE", "/api/v1/me/sessions/{session_id}"),
    ("GET", "/api/v1/actions"),
    # The text is for whoever is asked to agree to it.
    ("GET", "/api/v1/certificates/privacy-statement"),
    ("GET", "/privacy-statement"),
    ("GET", "/api/v1/organisation-kinds"),
    ("GET", "/api/v1/tokens"),
    # Arithmetic on what the caller sends; of the account nothing is shown but CA certificates that complete a chain.
    *(
        ("POST", f"/api/v1/tools/x509/{tool}")
        for tool in ("check", "inspect", "convert", "chain", "split", "join", "match", "csr", "bundle", "key")
    ),
    *(("GET", f"/guide{rest}") for rest in ("", "/findings", "/findings/{id}", "/{id}")),
    # The same on the console's pages, and the answer as a file.
    ("GET", "/toolbox"),
    ("POST", "/toolbox/save"),
    *(
        (method, f"/toolbox/{tool}")
        for tool in ("check", "inspect", "convert", "chain", "split", "join", "match", "csr", "bundle", "key")
        for method in ("GET", "POST")
    ),
    ("GET", "/api/v1/tokens/{token_id}"),
    ("PATCH", "/api/v1/tokens/{token_id}"),
    ("DELETE", "/api/v1/tokens/{token_id}"),
    ("GET", "/"),
    ("GET", "/profile"),
    ("POST", "/profile/password"),
    ("POST", "/profile/sessions/{id}/end"),
    ("POST", "/tokens/{id}/revoke"),
    ("GET", "/settings"),
}


def _walk(routes: list[BaseRoute], prefix: str = "") -> list[tuple[str, str, Any]]:
    found = []
    for route in routes:
        if isinstance(route, Mount):
            found += _walk(list(route.routes), prefix + route.path)
        else:
            for method in getattr(route, "methods", None) or {"ANY"}:
                found.append((method, prefix + str(getattr(route, "path", route)), route))
    return found


def test_every_route_names_an_action_or_is_in_a_short_list(api: Any) -> None:
    routes = [r for r in _walk(api.app.routes) if r[0] != "HEAD"]
    assert len(routes) > 40
    for method, path, route in routes:
        action = getattr(route, "action", None)
        assert action is not None, f"{method} {path} names no action"
        if action == PUBLIC:
            assert (method, path) in OPEN_TO_ALL, f"{method} {path} is open to everybody"
        elif action == SIGNED_IN:
            assert (method, path) in OPEN_TO_THE_SIGNED_IN, f"{method} {path} is open to everybody signed in"
        else:
            assert action in access.ACTIONS, f"{method} {path} names the unknown action {action}"


def test_every_route_that_is_not_public_refuses_strangers_and_the_powerless(api: Any) -> None:
    world = api.world
    _, weak, _ = world.run(world.add_account("carl@three.example"))
    own_page = {"sec-fetch-site": "same-origin"}
    with_token = api.as_actor(weak)
    with_cookie = Api(world, api.app, own_page | {"cookie": world.run(_session_cookie(world, weak))})
    world.run(_take_everything_from(world, weak))
    for method, path, route in _walk(api.app.routes):
        if route.action == PUBLIC:
            continue
        address = path.replace("{", "").replace("}", "")
        of_the_api = path.startswith(("/api/", "/metrics"))
        refused = api.anonymous().request(method, address, headers=own_page)
        # A page sends people to where they sign in.
        assert refused.status_code == (401 if of_the_api else 303), f"{method} {path}: {refused.status_code}"
        assert of_the_api or refused.headers["location"].startswith("/sign-in")
        if route.action != SIGNED_IN:
            refused = (with_token if of_the_api else with_cookie).request(method, address)
            assert refused.status_code == 403, f"{method} {path}: {refused.status_code}"
            assert not of_the_api or refused.json()["action"] == route.action


async def _session_cookie(world: Any, actor: Any) -> str:
    async with world.services.db.begin() as tx:
        user = await accounts.store.get_user(tx, accounts.tables.users.c.account_id == actor.account_id, actor.user_id)
        signed_in = await accounts.open_session(tx, world.services, user, address="192.0.2.7", user_agent="")
    return f"{SESSION_COOKIE}={signed_in.secret}"


async def _take_everything_from(world: Any, actor: Any) -> None:
    from certwright.rooms.access.tables import policy_attachments

    async with world.services.db.begin() as tx:
        await tx.execute(policy_attachments.delete().where(policy_attachments.c.account_id == actor.account_id))


def _make(api: Any) -> dict[str, str]:
    """One of everything in the first account: path template of the object → its address."""
    made = {}
    one = {"Effect": "Allow", "Action": "scm:*"}
    for kind, body in (
        ("groups", {"name": "ops"}),
        ("projects", {"name": "shop"}),
        ("policies", {"name": "look", "document": {"Version": "1.1", "Statement": [one]}}),
        ("users", {"email": "dora@one.example", "name": "Dora"}),
        ("tokens", {"name": "ci"}),
    ):  # fmt: skip
        response = api.post(f"/api/v1/{kind}", body)
        assert response.status_code == 201, response.text
        made[kind] = response.headers["location"]
    group = made["groups"].rpartition("/")[2]
    attached = api.post("/api/v1/policy-attachments", {"policy": "scm_full_access", "group_id": group})
    made["policy-attachments"] = attached.headers["location"]
    event = api.get("/api/v1/audit-events?limit=1").json()["items"][0]["id"]
    made["audit-events"] = f"/api/v1/audit-events/{event}"
    return made


def test_what_belongs_to_another_account_is_not_there(api: Any) -> None:
    made = _make(api)
    other = api.as_actor(api.world.other_actor)
    revision = {"if-match": '"1"'}
    for kind, where in made.items():
        assert api.get(where).status_code == 200, where
        assert other.get(where).status_code == 404, where
        if kind == "audit-events":
            continue
        assert other.delete(where).status_code == 404, where
        if kind != "policy-attachments":
            assert other.patch(where, {"name": "stolen"}, headers=revision).status_code == 404, where
        assert api.get(where).status_code == 200, where
    user, group = made["users"], made["groups"]
    user_id, group_id = user.rpartition("/")[2], group.rpartition("/")[2]
    own_group = other.post("/api/v1/groups", {"name": "theirs"}).headers["location"]
    own_group_id = own_group.rpartition("/")[2]
    policy_id = made["policies"].rpartition("/")[2]
    project_id = made["projects"].rpartition("/")[2]
    for response in (
        other.post(f"{user}/password-link"),
        other.get(f"{group}/members"),
        other.put(f"{group}/members/{api.world.other_actor.user_id}"),
        other.put(f"{own_group}/members/{user_id}"),
        other.delete(f"{group}/members/{user_id}"),
        other.post("/api/v1/users", {"email": "eve@two.example", "name": "Eve", "group_ids": [group_id]}),
        other.post("/api/v1/policies/simulate", {"user_id": user_id, "action": "scm:cert:list"}),
        other.post("/api/v1/policy-attachments", {"policy": policy_id, "group_id": own_group_id}),
        other.post("/api/v1/policy-attachments", {"policy": "scm_full_access", "group_id": group_id}),
        other.post("/api/v1/policy-attachments", {"policy": "scm_full_access", "user_id": user_id}),
        other.post(
            "/api/v1/policy-attachments",
            {"policy": "scm_full_access", "group_id": own_group_id, "project_id": project_id},
        ),
        other.post("/api/v1/tokens", {"name": "t", "policies": [policy_id]}),
    ):
        assert response.status_code == 404, f"{response.request.url}: {response.text}"


@pytest.mark.parametrize(
    "kind", ["users", "groups", "projects", "policies", "policy-attachments", "tokens", "audit-events"]
)
def test_lists_show_only_the_own_account(api: Any, kind: str) -> None:
    made = _make(api)
    mine = {item["id"] for item in api.get(f"/api/v1/{kind}?limit=100").json()["items"]}
    other = api.as_actor(api.world.other_actor)
    theirs = {item["id"] for item in other.get(f"/api/v1/{kind}?limit=100").json()["items"]}
    assert made[kind].rpartition("/")[2] in mine
    assert not mine & theirs
