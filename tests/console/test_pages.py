"""What every page owes: an action, safe headers, honest refusals, and working without scripts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from certwright.entry.api.base import PUBLIC, SIGNED_IN
from certwright.entry.console.pages_certificates import changes_of
from certwright.entry.console.pages_deployment import shown_state, step_lines
from certwright.entry.console.pages_settings import UNSHOWN
from certwright.entry.console.web import ActionRoute
from certwright.entry.console.words import TOOLS
from certwright.kernel.problems import Unavailable
from certwright.platform.config import Settings
from certwright.rooms import access, authorities, certificates, watch
from certwright.rooms.access.tables import policy_attachments
from certwright.rooms.deployment import RolloutState, RolloutView, Step, Trigger
from certwright.rooms.deployment.words import RolloutStepView

SignIn = Callable[[Any], Any]

OPEN_TO_ALL = {
    ("GET", "/setup"), ("POST", "/setup"), ("GET", "/sign-in"), ("POST", "/sign-in"), ("POST", "/sign-out"),
    ("GET", "/password"), ("POST", "/password"), ("POST", "/preferences"), ("GET", "/ca"),
    ("GET", "/confirm-domain"), ("POST", "/confirm-domain"), ("GET", "/confirm-revocation"),
    ("POST", "/confirm-revocation"), ("GET", "/organisation-verification"), ("POST", "/organisation-verification"),
    ("GET", "/static/{name:path}"),
}  # fmt: skip
OPEN_TO_THE_SIGNED_IN = {
    ("GET", "/"), ("GET", "/settings"), ("GET", "/profile"), ("POST", "/profile/password"),
    ("GET", "/privacy-statement"),
    ("POST", "/profile/sessions/{id}/end"), ("POST", "/tokens/{id}/revoke"),
    ("GET", "/guide"), ("GET", "/guide/findings"), ("GET", "/guide/findings/{id}"), ("GET", "/guide/{id}"),
    ("GET", "/toolbox"), ("POST", "/toolbox/save"),
    *((method, f"/toolbox/{tool}") for tool in TOOLS for method in ("GET", "POST")),
}  # fmt: skip


def _routes(api: Any) -> list[tuple[str, str, str]]:
    found = []
    for route in api.app.routes:
        if isinstance(route, ActionRoute):
            (method,) = (route.methods or set()) - {"HEAD"}
            found.append((method, route.path, route.action))
    return found


def test_every_page_names_an_action_of_the_catalogue_or_stands_in_a_short_list(api: Any, web: SignIn) -> None:
    routes = _routes(api)
    assert len(routes) > 100
    for method, path, action in routes:
        if action == PUBLIC:
            assert (method, path) in OPEN_TO_ALL
        elif action == SIGNED_IN:
            assert (method, path) in OPEN_TO_THE_SIGNED_IN
        else:
            assert action in access.ACTIONS


def test_no_page_stands_where_vendor_doors_and_the_api_are(api: Any, web: SignIn) -> None:
    taken = ("/api", "/v1", "/v2", "/v3", "/v5", "/healthz", "/readyz", "/metrics", "/crl", "/ca/")
    for method, path, _action in _routes(api):
        assert not path.startswith(taken), path
        assert (method, path) != ("POST", "/")


def test_strangers_are_sent_to_sign_in_and_the_powerless_are_refused(api: Any, web: SignIn) -> None:
    world = api.world
    _, weak, _ = world.run(world.add_account("carl@three.example"))
    powerless, stranger = web(weak), web(None)
    world.run(_take_everything_from(world, weak))
    for method, path, action in _routes(api):
        if action == PUBLIC:
            continue
        address = path.replace("{id}", "cert_nothing")
        send = (lambda who, to: who.get(to)) if method == "GET" else (lambda who, to: who.form(to))
        sent_away = send(stranger, address)
        assert sent_away.status_code == 303, f"{method} {path}"
        assert sent_away.headers["location"].startswith("/sign-in"), f"{method} {path}"
        if action != SIGNED_IN:
            refused = send(powerless, address)
            assert refused.status_code == 403, f"{method} {path}: {refused.status_code}"
            assert action in refused.text


async def _take_everything_from(world: Any, actor: Any) -> None:
    async with world.services.db.begin() as tx:
        await tx.execute(policy_attachments.delete().where(policy_attachments.c.account_id == actor.account_id))
    world.services.port(access.AuthCache).clear()


def _simple_pages(api: Any) -> list[str]:
    return [path for method, path, _ in _routes(api) if method == "GET" and "{" not in path]


def test_every_page_opens_on_an_empty_installation(api: Any, web: SignIn) -> None:
    ann = web(api.world.actor)
    for path in _simple_pages(api):
        response = ann.get(path)
        # Without their links.
        lone = ("/setup", "/password", "/confirm-domain", "/confirm-revocation", "/organisation-verification")
        wanted = 404 if path in lone else 303 if path == "/sign-in" else 200
        assert response.status_code == wanted, f"{path}: {response.status_code}"
        if wanted == 200 and response.headers["content-type"].startswith("text/html"):
            assert response.text.count("<h1") == 1, path


def test_every_answer_carries_the_strict_content_policy(api: Any, web: SignIn) -> None:
    ann = web(api.world.actor)
    for path in ("/", "/sign-in", "/ca", "/nothing-here", "/certificates/cert_nothing", "/static/console.css"):
        headers = ann.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy, path
        assert "script-src 'self';" in policy, path
        assert "style-src 'self';" in policy, path
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"


def test_pages_are_not_kept_by_caches_but_named_static_files_are(api: Any, web: SignIn) -> None:
    ann = web(api.world.actor)
    assert ann.get("/").headers["cache-control"] == "no-store"
    assert "immutable" in ann.get("/static/console.css?v=1").headers["cache-control"]
    assert ann.get("/static/console.css").headers["cache-control"] == "no-cache"


def test_static_files_come_compressed_to_those_who_take_it(api: Any, web: SignIn) -> None:
    stranger = web(None)
    small = stranger.get("/static/vendor/htmx.min.js", accept_encoding="gzip")
    plain = stranger.get("/static/vendor/htmx.min.js", accept_encoding="identity")
    assert small.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert small.text == plain.text
    assert int(small.headers["content-length"]) < int(plain.headers["content-length"])


@pytest.mark.parametrize(
    "name", ["../__init__.py", "..%2f__init__.py", "vendor/assets.sha256", "vendor/tabler.min.css.gz", "%00", "vendor"]
)
def test_only_the_static_files_of_the_package_are_served(web: SignIn, name: str) -> None:
    assert web(None).get(f"/static/{name}").status_code == 404


def test_an_unknown_address_is_a_page_for_people_and_a_problem_for_programs(api: Any, web: SignIn) -> None:
    page = web(None).get("/nothing-here")
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
    for path, accept in (("/nothing-here", "application/json"), ("/api/v1/nothing-here", "text/html")):
        problem = web(None).get(path, accept=accept)
        assert problem.headers["content-type"] == "application/problem+json", path


@pytest.mark.parametrize(
    "headers",
    [{"sec_fetch_site": "cross-site"}, {"sec_fetch_site": "same-site"}, {"sec_fetch_site": "none"}],
    ids=lambda h: h["sec_fetch_site"],
)
@pytest.mark.parametrize("path", ["/sign-in", "/access/groups", "/preferences", "/sign-out"])
def test_a_form_sent_by_another_site_is_refused(
    api: Any, web: SignIn, path: str, headers: dict[str, str]
) -> None:  # fmt: skip
    refused = web(api.world.actor).form(path, {"name": "stolen"}, **headers)
    assert refused.status_code == 403
    assert "cross_site_request" in refused.text


def test_without_fetch_metadata_the_origin_decides(api: Any, web: SignIn) -> None:
    ann = web(api.world.actor)
    own = api.request(
        "POST", "/preferences", data={"theme": "dark"},
        headers={"origin": "https://cw.example", "cookie": f"__Host-certwright={ann.cookie}"},
    )  # fmt: skip
    foreign = api.request(
        "POST", "/preferences", data={"theme": "dark"},
        headers={"origin": "https://evil.example", "cookie": f"__Host-certwright={ann.cookie}"},
    )  # fmt: skip
    assert own.status_code == 303
    assert foreign.status_code == 403


def test_the_one_time_secret_leaves_the_address_at_once(api: Any, web: SignIn) -> None:
    for path in ("/setup", "/password"):
        moved = web(None).get(f"{path}?token=abc")
        assert moved.status_code == 303
        assert moved.headers["location"] == path
        cookie = moved.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "Secure" in cookie
        assert "SameSite=lax" in cookie


def test_a_form_larger_than_a_mebibyte_is_refused(api: Any, web: SignIn) -> None:
    refused = web(api.world.actor).form("/access/groups", {"name": "x" * (1024 * 1024 + 1)})
    assert refused.status_code == 413
    assert "form_too_large" in refused.text


@pytest.mark.parametrize(
    ("path", "fields", "said"),
    [
        ("/certificates/new", {"names": "https://x", "step": "review"}, "is a web address, not a host name"),
        ("/certificates/new", {"key_source": "csr"}, "The CSR is missing."),
        ("/certificates/new", {"key_source": "csr", "csr": "-----BEGIN RUBBISH-----"}, "CSR"),
        ("/targets/new", {"name": "web", "nginx": "nginx", "config": "etc"}, "absolute path"),
        ("/targets/new", {"name": "web", "nginx": "/usr/sbin/nginx", "reload": "'open"}, "open quotation mark"),
        ("/endpoints/new", {"host": "*.example.com", "port": "443"}, "only a single host can be watched"),
        ("/endpoints/new", {"host": "a.example.com", "port": "x"}, "That is not a whole number."),
        ("/endpoints/new", {"host": "a.example.com", "port": "70000"}, "70000 is not a port."),
        ("/dns/new", {"name": "ns", "zones": "example.com", "port": "53"}, "DNS server is missing"),
        (
            "/access/users",
            {"name": "", "email": "nobody"},
            "That is not an e-mail address that messages can be sent to.",
        ),
        ("/access/groups", {"name": ""}, "The name must have"),
        ("/access/policies/new", {"name": "p", "document": "{"}, "not well-formed JSON: line 1"),
        (
            "/access/policies/new",
            {"name": "p", "document": '{"Version":"1.1","Statement":[{"Effect":"Allow","Action":"scm:cert:lst"}]}'},
            "scm:cert:list",
        ),
        ("/profile/tokens", {"name": "t", "days": "9999", "policy": "everything"}, "1 to 365 days"),
        ("/profile/tokens", {"name": "t", "days": "9"}, "What the token may do is not chosen."),
        ("/profile/password", {"current": "wrong", "new": "x"}, "password"),
        ("/settings/recipients", {"name": "A", "email": "nope"}, "address"),
    ],
)
def test_what_is_wrong_is_said_on_the_form_with_what_was_typed(
    api: Any, web: SignIn, path: str, fields: dict[str, str], said: str
) -> None:
    refused = web(api.world.actor).form(path, fields)
    assert refused.status_code in (409, 422)
    assert said in refused.text.replace("&#39;", "'")
    assert 'role="alert"' in refused.text
    for name in ("name", "host", "names"):
        if fields.get(name):
            assert fields[name] in refused.text.replace("&#39;", "'")


def test_passwords_never_come_back_in_a_page(api: Any, web: SignIn) -> None:
    secret = "hush-hush-hush"
    ann = web(api.world.actor)
    for path, fields in (
        ("/sign-in", {"email": "ann@one.example", "password": secret}),
        ("/profile/password", {"current": secret, "new": secret}),
        ("/dns/new", {"name": "ns", "secret": secret}),
    ):
        assert secret not in ann.form(path, fields).text


def _apply(api: Any, name: str = "shop.example.com") -> Any:
    applicant = certificates.Applicant("Ann", "ann@one.example", "+49 30 123456")
    application = certificates.Application(names=(name,), applicant=applicant, consent=True)
    world = api.world
    return world.run(certificates.create_certificate(world.services, world.actor, application=application))


def test_certificates_of_another_account_are_not_there(api: Any, web: SignIn) -> None:
    made = _apply(api)
    other = web(api.world.other_actor)
    assert web(api.world.actor).get(f"/certificates/{made.id}").status_code == 200
    for part in ("", "/validation", "/edit", "/revoke", "/delete", "/deploy", "/apply"):
        assert other.get(f"/certificates/{made.id}{part}").status_code == 404, part
    for part in ("/withdraw", "/reissue", "/delete"):
        assert other.form(f"/certificates/{made.id}{part}", {"confirmed": "yes"}).status_code == 404, part
    assert "shop.example.com" not in other.get("/certificates").text
    assert web(api.world.actor).get(f"/certificates/{made.id}").status_code == 200


def test_the_wrong_order_of_operations_is_answered_with_the_reason_on_the_page(api: Any, web: SignIn) -> None:
    made = _apply(api)
    refused = web(api.world.actor).form(f"/certificates/{made.id}/reissue")
    assert refused.status_code == 409
    assert "pending_domain_validation" in refused.text


def test_a_change_made_on_an_old_page_is_refused_and_keeps_what_was_typed(api: Any, web: SignIn) -> None:
    made = _apply(api)
    ann = web(api.world.actor)
    fields = {"name": "first-name", "revision": str(made.summary.revision)}
    assert ann.form(f"/certificates/{made.id}/edit", fields).status_code == 303
    stale = ann.form(f"/certificates/{made.id}/edit", fields | {"name": "second-name"})
    assert stale.status_code == 412
    assert "second-name" in stale.text
    assert "first-name" not in web(api.world.actor).get("/certificates?q=second-name").text


def test_the_list_is_paged_by_key_and_every_certificate_is_on_one_page_only(api: Any, web: SignIn) -> None:
    names = {f"n{number:02}.example.com" for number in range(45)}
    for name in sorted(names):
        _apply(api, name)
    ann = web(api.world.actor)
    for sort in ("created", "updated", "state"):
        address, seen, pages = f"/certificates?sort={sort}", [], 0
        while address:
            text = ann.get(address).text
            seen += [name for name in names if f">{name}<" in text]
            following = text.split('<a class="btn btn-small" href="/certificates?')
            address = "/certificates?" + following[1].split('"')[0].replace("&amp;", "&") if len(following) > 1 else ""
            pages += 1
        assert pages == 3, sort
        assert sorted(seen) == sorted(names), sort


@pytest.mark.parametrize(
    "after",
    [
        "x", "x|y", "|", "|cert_x", "2026-13-01|cert_x", "a|b|c" * 90, "2026-11-21T09:00:00|cert_x",
        "0001-01-01T00:00:00%2B14:00|cert_x", "9999-12-31T23:59:59-14:00|cert_x", "2026-W47|cert_x",
    ],
)  # fmt: skip
def test_a_made_up_page_of_the_list_is_refused_or_empty(api: Any, web: SignIn, after: str) -> None:
    for sort in ("created", "expiry", "updated", "state"):
        status = web(api.world.actor).get(f"/certificates?sort={sort}&after={after}").status_code
        assert status == 422 if sort in ("expiry", "updated") else status in (200, 422)


@pytest.mark.parametrize("query", ["expires_before=tomorrow", "expires_before=9999-12-31", "state=nonsense", "sort=x"])
def test_a_filter_that_makes_no_sense_breaks_nothing(api: Any, web: SignIn, query: str) -> None:
    assert web(api.world.actor).get(f"/certificates?{query}").status_code in (200, 422)


def test_a_private_key_is_never_fetched_by_a_link(api: Any, web: SignIn) -> None:
    made = _apply(api)
    for kind in ("key", "nginx"):
        assert web(api.world.actor).get(f"/certificates/{made.id}/download?format={kind}").status_code == 404


def test_only_what_may_be_done_is_offered(api: Any, web: SignIn) -> None:
    world = api.world
    made = _apply(api)

    async def reader() -> Any:
        async with world.services.db.begin() as tx:
            user = await access.people.accounts.insert_user(
                tx, world.services, world.account.id, email="rita@one.example", name="Rita", password_hash="none"
            )
        await access.people.attach_policy(world.services, world.actor, policy="scm_read_only_access", user_id=user.id)
        return user

    user = world.run(reader())
    rita = web(type(world.actor)("user", user.id, user.email, user.account_id, (), user.id))
    page = rita.get(f"/certificates/{made.id}")
    assert page.status_code == 200
    for operation in ("withdraw", "revoke", "delete", "edit", "renewal", "reissue", "deploy", "apply"):
        assert f'/certificates/{made.id}/{operation}"' not in page.text, operation
    assert rita.form(f"/certificates/{made.id}/withdraw").status_code == 403
    assert rita.get("/certificates/new").status_code == 403
    assert "People and access" not in page.text


def test_texts_of_others_are_shown_as_text(api: Any, web: SignIn) -> None:
    hostile = '"><script>alert(1)</script>'
    ann = web(api.world.actor)
    assert ann.form("/access/groups", {"name": hostile, "description": hostile}).status_code == 303
    for text in (ann.get("/access/groups").text, ann.get(f"/certificates?q={hostile}").text, ann.get("/audit").text):
        assert "<script>alert" not in text


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_choice_of_appearance_is_kept_in_the_browser(api: Any, web: SignIn, theme: str) -> None:
    ann = web(api.world.actor)
    chosen = ann.form("/preferences", {"theme": theme, "back": "/certificates"})
    assert chosen.headers["location"] == "/certificates"
    assert f"certwright-theme={theme}" in chosen.headers["set-cookie"]
    shown = api.request("GET", "/sign-in", headers={"cookie": f"certwright-theme={theme}"})
    assert f'data-bs-theme="{theme}"' in shown.text


@pytest.mark.parametrize("cookie", ['certwright-theme=x"onload=', "certwright-locale=../../etc", "certwright-said=zzz"])
def test_cookies_somebody_made_up_change_nothing(web: SignIn, api: Any, cookie: str) -> None:
    shown = api.request("GET", "/sign-in", headers={"cookie": cookie, "accept-language": "xx-YY;q=x,,;"})
    assert shown.status_code == 200
    assert 'lang="en"' in shown.text
    assert "onload" not in shown.text


def test_an_expired_session_sends_a_fragment_request_to_sign_in_as_a_whole(web: SignIn) -> None:
    answer = web(None).get("/certificates", hx_request="true")
    assert answer.headers["hx-redirect"] == "/sign-in?next=%2Fcertificates"
    assert answer.text == ""


def test_an_endpoint_that_was_added_is_listed_and_can_be_removed(api: Any, web: SignIn) -> None:
    ann = web(api.world.actor)
    added = ann.form("/endpoints/new", {"host": "a.example.com", "port": "443", "starttls": "none"})
    assert added.status_code == 303
    where = added.headers["location"]
    assert "a.example.com:443" in ann.get("/endpoints").text
    assert ann.get(where).status_code == 200
    assert ann.form(f"{where}/delete").status_code == 303
    assert ann.get(where).status_code == 404
    found = api.world.run(watch.list_endpoints(api.world.services, api.world.actor))
    assert found == []


def test_a_database_that_is_away_is_said_plainly(api: Any, web: SignIn, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = web(api.world.actor)

    async def away(*_: Any) -> Any:
        raise Unavailable("database_unavailable", "The database can't be reached at the moment.", fix="Wait a moment.")

    monkeypatch.setattr(access, "authenticate_session", away)
    answer = ann.get("/certificates")
    assert answer.status_code == 503
    assert "The database can&#39;t be reached at the moment." in answer.text


_TAKES_AWAY = ("delete", "unbind", "revoke", "detach", "remove", "end", "withdraw", "undo", "disabled")


def test_whatever_takes_something_away_asks_first_without_any_script(api: Any) -> None:
    routes = [route for route in api.app.routes if isinstance(route, ActionRoute)]
    pages = {route.path for route in routes if "GET" in (route.methods or ())}
    taking = [r for r in routes if "POST" in (r.methods or ()) and r.path.rpartition("/")[2] in _TAKES_AWAY]
    assert len(taking) > 15
    assert [route.path for route in taking if not route.ask and route.path not in pages] == []


def test_a_question_changes_nothing_until_it_is_answered_and_repeats_the_form(api: Any, web: SignIn) -> None:
    ann = web(api.world.actor)
    group = ann.form("/access/groups", {"name": "Crew"}).headers["location"]
    asked = ann.form(f"{group}/delete", {"about": "<Crew>", "extra": "1"})
    assert asked.status_code == 200
    assert "Delete this group?" in asked.text
    assert "&lt;Crew&gt;" in asked.text
    assert '<input type="hidden" name="extra" value="1">' in asked.text
    assert '<input type="hidden" name="confirmed" value="yes">' in asked.text
    assert f'href="{group}">Cancel' in asked.text
    assert ann.get(group).status_code == 200
    assert ann.form(f"{group}/delete", {"confirmed": "yes"}).headers["location"] == "/access/groups"
    assert ann.get(group).status_code == 404


def test_cancelling_never_leads_to_another_site(api: Any, web: SignIn) -> None:
    asked = web(api.world.actor).form("/tokens/tok_x/revoke", {"back": "https://evil.example/"})
    assert 'href="/">Cancel' in asked.text


@pytest.mark.parametrize(
    ("address", "above"),
    [
        ("/access/users", "/access"),
        ("/access/users/usr_x/link", "/access/users/usr_x"),
        ("/access/attachments/att_x/detach", "/access"),
        ("/certificates/cert_x/withdraw", "/certificates/cert_x"),
        ("/profile/tokens", "/profile"),
        ("/dns/dns_x/check", "/dns"),
        ("/sign-out", "/"),
    ],
)
def test_the_address_of_a_change_opened_again_leads_to_the_page_above_it(
    api: Any, web: SignIn, address: str, above: str
) -> None:
    again = web(api.world.actor).get(address)
    assert (again.status_code, again.headers["location"]) == (303, above)
    assert "default-src 'none'" in again.headers["content-security-policy"]


def test_no_address_of_a_change_answers_a_page_view_with_wrong_method(api: Any, web: SignIn) -> None:
    ann = web(api.world.actor)
    for method, path, _action in _routes(api):
        if method == "POST":
            assert ann.get(path.replace("{id}", "cert_nothing")).status_code in (200, 303, 404), path


def test_no_policy_is_attached_that_nobody_chose(api: Any, web: SignIn) -> None:
    ann = web(api.world.actor)
    group = ann.form("/access/groups", {"name": "Crew"}).headers["location"]
    offered = ann.get(group).text
    assert offered.index('<option value="" selected>Choose a policy</option>') < offered.index("Tenant Administrator")
    refused = ann.form(f"{group}/attach", {"project_id": ""})
    assert refused.status_code == 422
    assert "No policy is chosen." in refused.text
    assert "No policy is attached: nothing is allowed." in refused.text
    assert ann.form(f"{group}/attach", {"policy": "scm_read_only_access"}).status_code == 303
    assert "nothing is allowed" not in ann.get(group).text


def test_whoever_has_only_the_console_s_own_certificate_has_not_begun(api: Any, web: SignIn) -> None:
    world, ann = api.world, web(api.world.actor)
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    own = world.run(certificates.issue_private(world.services, world.actor, names=["localhost"], name="console"))
    world.services.settings.data_dir.mkdir(parents=True, exist_ok=True)
    (world.services.settings.data_dir / "console-certificate").write_text(own.id)
    first = ann.get("/").text
    assert "Apply for your first certificate" in first
    assert "the one this console is served with" in first
    assert "When certificates run out" not in first
    assert "serves this console" in ann.get("/certificates").text
    assert "This console is served with it" in ann.get(f"/certificates/{own.id}").text
    _apply(api)
    later = ann.get("/").text
    assert "Apply for your first certificate" not in later
    assert "the one this console is served with" not in later
    assert "When certificates run out" in later


def test_every_setting_has_a_line_or_a_reason_not_to(api: Any, web: SignIn) -> None:
    text = web(api.world.actor).get("/settings").text
    for name in Settings.model_fields:
        assert (f"CERTWRIGHT_{name.upper()}<" in text) != (name in UNSHOWN), name


def test_a_target_that_was_mistyped_says_so_and_is_looked_at_again_once_mended(api: Any, web: SignIn) -> None:
    ann = web(api.world.actor)
    fields = {"name": "web-1", "nginx": "/nowhere/nginx", "config": "/nowhere/nginx.conf", "connect_host": "127.0.0.1"}
    where = ann.form("/targets/new", fields).headers["location"]
    shown = ann.get(where).text
    assert "/nowhere/nginx" in shown
    assert "Its sites are not known" in shown
    assert "No TLS sites found" not in shown
    mended = ann.form(f"{where}/edit", fields | {"nginx": "/elsewhere/nginx", "revision": "1"})
    assert mended.headers["location"] == where
    assert "/elsewhere/nginx" in ann.get(where).text


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ({"state": "issued"}, {"state": "revoked"}, [("state", "issued", "revoked")]),
        (None, {"names": ["a.example", "b.example"]}, [("names", "", "a.example, b.example")]),
        ({"region": ""}, {"region": ""}, []),
        ({"name": "a"}, None, [("name", "a", "")]),
        (None, {"next_update": "2026-11-28T13:53:21.539542+00:00"}, [("next update", "", "2026-11-28 13:53 UTC")]),
        (None, {"sha256": "ab" * 32}, [("sha256", "", "abababababababab…")]),
        ({"auto_renew": True}, {"auto_renew": False}, [("auto renew", "yes", "no")]),
        (None, {"config": {"nginx": "/usr/sbin/nginx", "prefix": None}}, [("config", "", "nginx /usr/sbin/nginx")]),
        (None, {"note": "x" * 90}, [("note", "", "x" * 79 + "…")]),
    ],
)
def test_what_an_event_changed_is_told_field_by_field(before: Any, after: Any, shown: Any) -> None:
    assert changes_of(before, after) == shown


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"planned": False, "problem": {"message": "The key is gone."}}, "refused"),
        ({"planned": True, "problem": {"message": "nginx -t failed."}}, "undone"),
        ({"planned": False, "problem": None}, "undone"),  # undone by hand before it was planned
        ({"planned": True, "state": RolloutState.DEPLOYED}, "deployed"),
    ],
)
def test_a_rollout_that_never_began_was_refused_and_not_undone(changes: Any, shown: str) -> None:
    assert shown_state(replace(_rollout(RolloutState.UNDONE, None), **changes)) == shown


_AT = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


def _rollout(state: RolloutState, next_step: Step | None, *runs: tuple[Step, str | None]) -> RolloutView:
    steps = tuple(RolloutStepView(step, _AT, _AT if outcome else None, outcome, (), None) for step, outcome in runs)
    return RolloutView(
        id="roll_1", project_id="prj_1", target_id="tgt_1", target="web-1", state=state, trigger=Trigger.USER,
        requested_by="ann", next_step=next_step, problem=None, waiting_for=None, cautions=(), created_at=_AT,
        started_at=_AT, finished_at=None if next_step else _AT, steps=steps,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rollout", "shown"),
    [
        (
            _rollout(RolloutState.RUNNING, Step.PLAN),
            ["plan running", "stage waiting", "test waiting", "activate waiting", "verify waiting", "keep waiting"],
        ),
        (
            _rollout(RolloutState.RUNNING, Step.TEST, (Step.PLAN, "done"), (Step.STAGE, "done")),
            ["plan done", "stage done", "test running", "activate waiting", "verify waiting", "keep waiting"],
        ),
        (
            _rollout(RolloutState.UNDOING, Step.UNDO, (Step.PLAN, "done"), (Step.STAGE, "done"), (Step.TEST, "failed")),
            ["plan done", "stage done", "test failed", "undo running"],
        ),
        (
            _rollout(RolloutState.UNDONE, None, (Step.PLAN, "done"), (Step.STAGE, "failed"), (Step.UNDO, "done")),
            ["plan done", "stage failed", "undo done"],
        ),
        (_rollout(RolloutState.FAILED, None, (Step.PLAN, "failed")), ["plan failed"]),
    ],
    ids=["just begun", "half way", "being undone", "undone", "failed at once"],
)
def test_a_rollout_shows_what_was_done_and_only_what_is_still_to_come(rollout: RolloutView, shown: list[str]) -> None:
    words = {"ok": "done", "bad": "failed", "busy": "running", "": "waiting"}
    assert [f"{line['step']} {words[line['tone']]}" for line in step_lines(rollout)] == shown
