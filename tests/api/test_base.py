"""What every route shares: problems, ids, caps, revisions, idempotency, paging."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from certwright.entry.api.base import cursor_for, read_cursor, refuse_bad_text
from certwright.kernel.problems import Invalid, Unavailable
from certwright.platform import idempotency

PROBLEM = "application/problem+json"


def _is_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    document: dict[str, Any] = response.json()
    assert document["code"] == code
    assert document["status"] == status
    assert document["type"] == f"urn:certwright:problem:{code}"
    assert document["request_id"] == response.headers["x-request-id"]
    assert document["title"]
    assert document["detail"]
    return document


def test_an_unknown_address_is_a_problem(api: Any) -> None:
    _is_problem(api.get("/api/v1/nothing-here"), 404, "no_such_address")


def test_a_wrong_method_is_a_problem_that_names_the_right_ones(api: Any) -> None:
    response = api.delete("/api/v1/me")
    _is_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET"
    assert api.request("PUT", "/api/v1/authorities/ca_0").headers["allow"] == "DELETE, GET, PATCH"


def test_a_body_that_isn_t_sent_as_json_is_told_how(api: Any) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}  # what curl -d says
    said = _is_problem(
        api.request("POST", "/api/v1/groups", content=b'{"name": "x"}', headers=form), 422, "field_invalid"
    )
    assert "Content-Type: application/json" in said["fix"]


def test_malformed_json_is_a_problem(api: Any) -> None:
    response = api.request("POST", "/api/v1/groups", content=b'{"name": ', headers={"content-type": "application/json"})
    _is_problem(response, 400, "json_invalid")


@pytest.mark.parametrize("size", ["announced", "streamed"])
def test_a_body_over_two_mebibytes_is_refused(api: Any, size: str) -> None:
    async def chunks() -> Any:
        for _ in range(33):
            yield b"x" * 65536

    content: Any = chunks() if size == "streamed" else b"x" * (2 * 1024 * 1024 + 1)
    response = api.request("POST", "/api/v1/groups", content=content, headers={"content-type": "application/json"})
    _is_problem(response, 413, "body_too_large")


def test_validation_names_every_field_at_once_and_echoes_no_value(api: Any) -> None:
    response = api.post("/api/v1/users", {"email": 7, "nmae": "hush-hush", "group_ids": ["x" * 100]})
    document = _is_problem(response, 422, "invalid_fields")
    fields = {e["field"]: e["code"] for e in document["errors"]}
    assert fields == {
        "email": "field_invalid", "name": "field_missing", "nmae": "field_unknown", "group_ids.0": "field_invalid",
    }  # fmt: skip
    assert "hush-hush" not in response.text


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "not_signed_in"),
        ({"authorization": "Basic YTpi"}, "authorization_scheme"),
        ({"authorization": "Bearer nonsense"}, "token_invalid"),
        ({"authorization": "Bearer cwt_01k00000000000000000000000_xx"}, "token_invalid"),
        ({"cookie": "__Host-certwright=stolen"}, "session_invalid"),
    ],
    ids=["nothing", "basic", "nonsense", "unknown-token", "unknown-session"],
)
def test_a_request_without_good_credentials_is_unauthenticated(api: Any, headers: dict[str, str], code: str) -> None:
    response = api.anonymous().get("/api/v1/users", headers=headers)
    _is_problem(response, 401, code)
    assert response.headers["www-authenticate"].startswith("Bearer")


def test_an_unexpected_error_is_opaque_and_has_an_id_to_quote(api: Any, monkeypatch: Any) -> None:
    from certwright.rooms.access import people

    async def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("the secret inner reason")

    monkeypatch.setattr(people, "list_users", broken)
    response = api.get("/api/v1/users")
    _is_problem(response, 500, "internal")
    assert "secret inner reason" not in response.text


def test_every_answer_has_safe_headers_and_a_request_id(api: Any) -> None:
    response = api.get("/healthz", headers={"x-request-id": "my-own-id-42"})
    assert response.headers["x-request-id"] == "my-own-id-42"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    forged = api.get("/healthz", headers={"x-request-id": "no spaces here"})
    assert forged.headers["x-request-id"] != "no spaces here"


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"], ids=["nul", "half-surrogate"])
@pytest.mark.parametrize("where", ["value", "list", "key"])
def test_texts_the_database_cannot_hold_are_refused_by_name(api: Any, text: str, where: str) -> None:
    body: dict[str, Any] = {"name": "p", "document": {"Version": "1.1"}}
    body["document"] = {"value": {"Version": text}, "list": {"Version": [text]}, "key": {text: 1}}[where]
    import json

    response = api.request(
        "POST", "/api/v1/policies", content=json.dumps(body).encode(), headers={"content-type": "application/json"}
    )
    document = _is_problem(response, 422, "text_invalid")
    assert document["field"].startswith("document")


def test_a_nul_in_the_address_is_refused(api: Any) -> None:
    _is_problem(api.get("/api/v1/users?group_id=%00"), 422, "text_invalid")
    assert api.get("/api/v1/users/%00").status_code in (404, 422)


@given(st.binary(max_size=200))
def test_looking_for_bad_text_survives_any_bytes(body: bytes) -> None:
    code = "text_invalid"
    try:
        refuse_bad_text(body)
    except Invalid as problem:
        code = problem.code
    assert code == "text_invalid"


def test_a_change_needs_the_revision_it_was_made_on(api: Any) -> None:
    made = api.post("/api/v1/groups", {"name": "ops"})
    where = made.headers["location"]
    assert made.headers["etag"] == '"1"'
    _is_problem(api.patch(where, {"name": "ops2"}), 428, "if_match_needed")
    changed = api.patch(where, {"name": "ops2"}, headers={"if-match": made.headers["etag"]})
    assert changed.status_code == 200
    assert changed.headers["etag"] == '"2"'
    stale = api.patch(where, {"name": "ops3"}, headers={"if-match": '"1"'})
    _is_problem(stale, 412, "changed_meanwhile")
    for wrong in ("*", '"x"', "2", '"1", "2"'):
        _is_problem(api.patch(where, {"name": "ops3"}, headers={"if-match": wrong}), 422, "if_match_invalid")
    assert api.get(where).json()["name"] == "ops2"


@pytest.mark.parametrize(
    ("address", "field", "fix"),
    [
        ("/api/v1/certificates?stat=issued", "stat", "Did you mean state?"),
        ("/api/v1/groups?limit=5&cursr=x", "cursr", "Did you mean cursor?"),
        ("/api/v1/groups?zzz", None, None),
        ("/api/v1/groups?zzz=", "zzz", "Known here: cursor, limit, user_id."),
        ("/api/v1/me?verbose=1", "verbose", "Leave it out: this address takes none."),
    ],
)
def test_a_parameter_nobody_knows_is_refused_with_the_nearest(
    api: Any, address: str, field: str | None, fix: str | None
) -> None:
    document = _is_problem(api.get(address), 422, "unknown_parameter")
    if field is not None:
        assert (document["field"], document["fix"]) == (field, fix)


def test_every_unknown_parameter_is_named(api: Any) -> None:
    document = _is_problem(api.get("/api/v1/groups?a=1&b=2"), 422, "invalid_fields")
    assert [(e["code"], e["field"]) for e in document["errors"]] == [
        ("unknown_parameter", "a"), ("unknown_parameter", "b"),
    ]  # fmt: skip
    changing = api.post("/api/v1/groups?dry_run=true", {"name": "made in earnest"})
    _is_problem(changing, 422, "unknown_parameter")
    assert "made in earnest" not in _names_of_groups(api)


def test_a_stranger_learns_no_parameters_and_a_health_check_may_carry_any(api: Any) -> None:
    _is_problem(api.anonymous().get("/api/v1/groups?zzz=1"), 401, "not_signed_in")
    assert api.anonymous().get("/healthz?at=1").status_code == 200


# --- Idempotency-Key -------------------------------------------------------------------------------------------------


def test_a_repeated_request_is_carried_out_once(api: Any) -> None:
    key = {"idempotency-key": "k-1"}
    first = api.post("/api/v1/groups", {"name": "once"}, headers=key)
    again = api.post("/api/v1/groups", {"name": "once"}, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    names = [group["name"] for group in api.get("/api/v1/groups").json()["items"]]
    assert names.count("once") == 1


def test_a_key_used_for_another_request_is_refused(api: Any) -> None:
    key = {"idempotency-key": "k-2"}
    api.post("/api/v1/groups", {"name": "one"}, headers=key)
    _is_problem(api.post("/api/v1/groups", {"name": "two"}, headers=key), 422, "idempotency_mismatch")
    _is_problem(api.post("/api/v1/projects", {"name": "one"}, headers=key), 422, "idempotency_mismatch")


def test_a_refused_request_frees_its_key(api: Any) -> None:
    key = {"idempotency-key": "k-3"}
    _is_problem(api.post("/api/v1/groups", {"name": ""}, headers=key), 422, "name_invalid")
    assert api.post("/api/v1/groups", {"name": "now"}, headers=key).status_code == 201


def test_a_key_is_known_to_its_caller_only(api: Any) -> None:
    key = {"idempotency-key": "k-4"}
    api.post("/api/v1/groups", {"name": "mine"}, headers=key)
    other = api.as_actor(api.world.other_actor)
    theirs = other.post("/api/v1/groups", {"name": "mine"}, headers=key)
    assert theirs.status_code == 201
    assert "idempotency-replayed" not in theirs.headers


def test_a_secret_is_never_repeated(api: Any) -> None:
    key = {"idempotency-key": "k-5"}
    first = api.post("/api/v1/tokens", {"name": "ci"}, headers=key)
    assert first.status_code == 201
    document = _is_problem(api.post("/api/v1/tokens", {"name": "ci"}, headers=key), 409, "already_done")
    assert document["object_id"] == first.json()["id"]

    async def stored() -> Any:
        import sqlalchemy as sa

        async with api.world.services.db.begin() as tx:
            return (await tx.execute(sa.select(idempotency.idempotency_keys))).all()

    assert first.json()["token"].encode() not in repr(api.world.run(stored())).encode()


def test_while_the_first_runs_the_second_waits_and_a_lost_first_is_never_repeated(api: Any) -> None:
    world = api.world
    body = b'{"name":"lost"}'
    print_ = idempotency.fingerprint("POST", "/api/v1/groups", b"", body)
    token_id = api.get("/api/v1/me").json()["id"]
    key = idempotency.Key(world.account.id, token_id, "k-6", print_)
    world.run(idempotency.claim(world.services.db, key, world.clock.now()))
    headers = {"idempotency-key": "k-6", "content-type": "application/json"}
    send = lambda: api.request("POST", "/api/v1/groups", content=body, headers=headers)  # noqa: E731
    _is_problem(send(), 409, "idempotency_in_flight")
    world.later(minutes=5)
    _is_problem(send(), 409, "idempotency_outcome_unknown")
    world.later(hours=24)
    assert send().status_code == 201


def _names_of_groups(api: Any) -> list[str]:
    return [group["name"] for group in api.get("/api/v1/groups").json()["items"]]


@pytest.mark.parametrize("when", ["before the commit", "at the commit"])
def test_a_request_that_failed_midway_is_not_carried_out_twice(
    api: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The database goes away under the transaction that makes a group; nobody knows on which side of its commit."""
    database = type(api.world.services.db)
    whole = database.begin

    @asynccontextmanager
    async def broken(self: Any) -> AsyncIterator[Any]:
        async with whole(self) as tx:
            yield tx
            is_ours = await tx.scalar(sa.text("SELECT count(*) FROM groups WHERE name = 'once'"))
            if is_ours and when == "before the commit":
                raise Unavailable("database_unavailable", "It went away.")
        if is_ours:
            raise Unavailable("database_unavailable", "It went away.")

    key = {"idempotency-key": "k-7"}
    with monkeypatch.context() as away:
        away.setattr(database, "begin", broken)
        _is_problem(api.post("/api/v1/groups", {"name": "once"}, headers=key), 503, "database_unavailable")
    assert _names_of_groups(api).count("once") == (1 if when == "at the commit" else 0)
    before = _names_of_groups(api)
    _is_problem(api.post("/api/v1/groups", {"name": "once"}, headers=key), 409, "idempotency_outcome_unknown")
    assert _names_of_groups(api) == before


def test_an_answer_is_not_replayed_to_another_token_of_the_same_person(api: Any) -> None:
    key, body = {"idempotency-key": "k-8"}, {"name": "seen by one"}
    assert api.post("/api/v1/groups", body, headers=key).status_code == 201
    making = {"Version": "1.1", "Statement": [{"Effect": "Allow", "Action": "iam:group:create", "Resource": "token:x"}]}
    policy = api.post("/api/v1/policies", {"name": "makes groups", "document": making}).json()["id"]
    narrow = api.as_actor(api.world.actor, policies=[policy])
    _is_problem(narrow.post("/api/v1/groups", body, headers=key), 403, "not_permitted")


@pytest.mark.parametrize("key", ["", "x" * 201], ids=["empty", "long"])
def test_a_key_that_is_none_is_refused(api: Any, key: str) -> None:
    response = api.post("/api/v1/groups", {"name": "g"}, headers={"idempotency-key": key})
    _is_problem(response, 422, "idempotency_key_invalid")


# --- paging ----------------------------------------------------------------------------------------------------------


def test_pages_cover_a_list_once_and_in_order(api: Any) -> None:
    made = []
    for number in range(5):
        api.world.later(seconds=1)
        made.append(api.post("/api/v1/groups", {"name": f"g{number}"}).json()["id"])
    seen: list[str] = []
    cursor = ""
    while True:
        page = api.get(f"/api/v1/groups?limit=2{cursor}").json()
        seen += [group["id"] for group in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = "&cursor=" + page["next_cursor"]
    assert [i for i in seen if i in made] == made
    assert len(seen) == len(set(seen)) == 6


@pytest.mark.parametrize("cursor", ["nonsense", "W10", "WzFd", "WyJhXHUwMDAwIl0", "%F0%9F%92%A9"])
def test_a_made_up_cursor_is_refused(api: Any, cursor: str) -> None:
    _is_problem(api.get(f"/api/v1/groups?cursor={cursor}"), 422, "cursor_invalid")


@given(st.text(max_size=50))
def test_a_cursor_of_a_shape_reads_back_or_is_refused(text: str) -> None:
    back, code = text, "cursor_invalid"
    try:
        back = read_cursor(cursor_for(text), str)
    except Invalid as problem:
        code = problem.code
    assert back == text
    assert code == "cursor_invalid"


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-03-01T12:00:00+02:00", "2026-03-01T10:00:00+00:00"),
        ("0001-01-01T00:00:00+00:00", "0001-01-01T00:00:00+00:00"),
        ("0001-01-01T00:00:00+00:01", None),
        ("9999-12-31T23:59:59-00:01", None),
        ("2026-03-01T12:00:00", None),
        ("yesterday", None),
    ],
)
def test_a_moment_in_a_cursor_is_one_of_utcs_calendar(text: str, utc: str | None) -> None:
    if utc is not None:
        assert read_cursor(cursor_for(text), datetime).isoformat() == utc
        return
    with pytest.raises(Invalid) as caught:
        read_cursor(cursor_for(text), datetime)
    assert caught.value.code == "cursor_invalid"


def test_a_moment_outside_of_utcs_calendar_is_refused_by_its_field(api: Any) -> None:
    document = api.get("/api/v1/audit-events?since=0001-01-01T00:00:00%2B14:00").json()
    assert (document["status"], document["field"]) == (422, "since")


@pytest.mark.parametrize("limit", ["0", "101", "x", "-1"])
def test_a_limit_outside_its_range_is_refused(api: Any, limit: str) -> None:
    document = api.get(f"/api/v1/groups?limit={limit}").json()
    assert (document["status"], document["field"]) == (422, "limit")


# --- cookies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 201),
        ({"origin": "https://cw.example"}, 201),
        ({"sec-fetch-site": "cross-site", "origin": "https://cw.example"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({}, 403),
    ],
    ids=["same-origin", "old-browser", "cross-site", "sibling-host", "other-origin", "null-origin", "neither"],
)
def test_a_change_with_the_cookie_must_come_from_our_own_pages(api: Any, headers: dict[str, str], status: int) -> None:
    from certwright.rooms import accounts

    async def open_session() -> str:
        services = api.world.services
        async with services.db.begin() as tx:
            user = await accounts.store.get_user(
                tx, accounts.tables.users.c.account_id == api.world.account.id, api.world.actor.user_id
            )
            return (await accounts.open_session(tx, services, user, address="192.0.2.7", user_agent="")).secret

    cookie = {"cookie": f"__Host-certwright={api.world.run(open_session())}"}
    browser = api.anonymous()
    assert browser.get("/api/v1/me", headers=cookie).status_code == 200
    assert browser.post("/api/v1/groups", {"name": "web"}, headers=cookie | headers).status_code == status


# --- the route that is asked thousands of times a second -------------------------------------------------------------

ISSUED = "/api/v1/authorities/ca_0/issued"
GOOD = b'{"requests": [{"names": ["a.example.com"]}]}'


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (GOOD, "application/json", 404, "not_found"),
        (GOOD, "application/json; charset=utf-8", 404, "not_found"),
        (b'{"requests": [', "application/json", 400, "json_invalid"),
        (b'{"requests": [{"nmes": []}]}', "application/json", 422, "field_unknown"),
        (b'{"requests": "all"}', "application/json", 422, "field_invalid"),
        (b"{}", "application/json", 422, "field_missing"),
        (GOOD, "text/plain", 422, "field_invalid"),
        (b'{"requests": [{"names": ["\\ud800"]}]}', "application/json", 422, "text_invalid"),
    ],
    ids=["good", "good, with a charset", "cut off", "misspelt", "of another shape", "empty", "no JSON", "bad text"],
)
def test_a_shortened_route_answers_as_every_other(
    api: Any, body: bytes, content_type: str, status: int, code: str
) -> None:
    _is_problem(api.request("POST", ISSUED, content=body, headers={"content-type": content_type}), status, code)
