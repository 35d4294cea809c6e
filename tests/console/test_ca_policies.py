"""The console's pages of policies of private CAs: made, tried, changed and deleted without any script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from certwright.rooms import authorities

SignIn = Callable[[Any], Any]


def test_a_policy_is_made_tried_changed_and_deleted(api: Any, web: SignIn) -> None:
    world = api.world
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    world.drain()
    me = web(world.actor)
    ca = next(ca for ca in world.run(authorities.list_authorities(world.services, world.actor)) if ca.kind != "root")
    assert "No policy yet" in me.get("/authorities/policies").text
    wrong = me.form("/authorities/policies/new", {"name": "Shop", "allowed": "ok.internal\nno good", "quota": "many"})
    assert wrong.status_code == 422
    assert 'id="e-quota-1"' in wrong.text
    wrong = me.form("/authorities/policies/new", {"name": "Shop", "allowed": "ok.internal\nno good"})
    assert 'id="e-allowed-1"' in wrong.text
    assert "ok.internal" in wrong.text
    made = me.form(
        "/authorities/policies/new",
        {"name": "Shop <b>", "allowed": ".shop.internal\n10.0.0.0/8", "refused": ".db.shop.internal", "quota": "0",
         "profiles": "server", "max_days": "30", "authority_id": ca.id},
    )  # fmt: skip
    assert made.headers["location"] == "/authorities/policies"
    listed = me.get("/authorities/policies").text
    assert "Shop &lt;b&gt;" in listed
    assert ca.name in listed
    assert "no wildcards" in listed
    assert "30 days at most" in listed

    def attempt(names: str) -> str:
        query = urlencode({"names": names, "authority_id": ca.id, "profile": "server"})
        return str(me.get(f"/authorities/policies?{query}").text)

    tried = attempt("a.shop.internal\nx.db.shop.internal\n10.1.2.3")
    assert "This would be refused" in tried
    assert "refuses .db.shop.internal" in tried
    assert "allows 10.0.0.0/8" in tried
    assert "0 of 0 certificates are used" in tried
    assert 'id="e-names-1"' in attempt("not a name")

    (policy,) = world.run(authorities.list_policies(world.services, world.actor))
    place = f"/authorities/policies/{policy.id}"
    assert "every project" in me.get(place).text
    changed = {"revision": "1", "name": "Shop", "allowed": ".shop.internal", "wildcards": "yes"}
    assert me.form(place, changed).status_code == 303
    assert me.form(place, changed).status_code == 412
    after = world.run(authorities.get_policy(world.services, world.actor, policy.id))
    assert (after.limits.quota, after.limits.wildcards, after.limits.profiles) == (None, True, ())
    assert "This would be issued" in attempt("*.shop.internal")
    stranger = web(world.other_actor)
    assert stranger.get(place).status_code == 404
    assert stranger.form(place, changed).status_code == 404
    assert stranger.form(f"{place}/delete", {"confirmed": "yes"}).status_code == 404
    assert "Delete this policy?" in me.form(f"{place}/delete", {"about": "Shop", "back": place}).text
    assert me.form(f"{place}/delete", {"confirmed": "yes"}).status_code == 303
    assert me.get(place).status_code == 404
