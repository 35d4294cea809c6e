"""`/api/v1/csrs` as a client meets it."""

from __future__ import annotations

from typing import Any

import pytest

from certwright.x509.csr import make_csr, to_pem
from certwright.x509.keys import KeyAlgorithm, generate, read_private_key, to_pkcs8_pem

PATH = "/api/v1/csrs"


def test_the_life_of_a_request(api: Any) -> None:
    made = api.post(
        PATH, {"names": ["www.example.com"], "name": "www", "subject": {"organization": "Ex", "country": "de"}}
    )
    assert made.status_code == 201, made.text
    document = made.json()
    assert made.headers["location"] == f"{PATH}/{document['id']}"
    assert document["subject"]["country"] == "DE"
    assert document["used_by"] == {"certificates": 0, "open_applications": 0}
    assert "PRIVATE KEY" not in made.text
    one = f"{PATH}/{document['id']}"
    assert api.get(one).json() == document

    assert api.patch(one, {"name": "web"}).status_code == 428
    changed = api.patch(one, {"name": "web"}, headers={"if-match": made.headers["etag"]})
    assert (changed.status_code, changed.json()["name"]) == (200, "web")
    assert api.patch(one, {"name": "w3b"}, headers={"if-match": made.headers["etag"]}).status_code == 412

    pem, der = api.get(f"{one}/download"), api.get(f"{one}/download?format=der")
    assert pem.text == document["pem"]
    assert pem.headers["content-disposition"] == 'attachment; filename="web.csr"'
    assert to_pem(der.content).decode() == document["pem"]
    assert api.get(f"{one}/download?format=key").status_code == 422

    plain = api.post(f"{one}/export-key", {})
    assert plain.headers["cache-control"] == "no-store"
    assert read_private_key(plain.content)
    locked = api.post(f"{one}/export-key", {"passphrase": "pelican"})
    assert read_private_key(locked.content, b"pelican")
    assert locked.text.startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert api.get(f"{one}/export-key").status_code == 405

    assert api.delete(one).status_code == 204
    assert api.get(one).status_code == 404


def test_lists_page_by_cursor_and_take_filters(api: Any) -> None:
    for name in ("one", "two", "three"):
        api.post(PATH, {"names": [f"{name}.example.com"], "name": name})
        api.world.later(seconds=1)
    first = api.get(f"{PATH}?limit=2").json()
    assert [item["name"] for item in first["items"]] == ["three", "two"]
    rest = api.get(f"{PATH}?limit=2&cursor={first['next_cursor']}").json()
    assert ([item["name"] for item in rest["items"]], rest["next_cursor"]) == (["one"], None)
    assert [item["name"] for item in api.get(f"{PATH}?search=two.ex").json()["items"]] == ["two"]
    assert [item["name"] for item in api.get(f"{PATH}?name=one").json()["items"]] == ["one"]
    assert api.get(f"{PATH}?cursor=nonsense").status_code == 422
    assert api.get(f"{PATH}?search=%00").status_code == 422
    assert api.get(f"{PATH}?nmae=one").status_code == 422


KEY = generate(KeyAlgorithm.EC_P256)
SECRET = to_pkcs8_pem(KEY).decode()
LINES = [line for line in SECRET.splitlines() if "-----" not in line and len(line) > 30]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"csr": SECRET}, "wrong_block"),
        ({"csr": to_pem(make_csr(generate(KeyAlgorithm.EC_P256), ["a.example"])).decode(), "private_key": SECRET},
         "key_mismatch"),
        ({"csr": "x", "private_key": SECRET}, "csr_format"),
        ({"csr": to_pem(make_csr(KEY, ["a.example"])).decode(), "private_key": SECRET[:-60]}, None),
        ({"csr": to_pem(make_csr(KEY, ["a.example"])).decode(), "private_key": SECRET, "oops": SECRET},
         "field_unknown"),
        ({"csr": to_pem(make_csr(KEY, ["a.example"])).decode(), "private_key": [SECRET]}, "field_invalid"),
        ({"private_key": SECRET}, "field_missing"),
        ({"csr": "A" * 200_001}, "field_invalid"),
        ({"csr": to_pem(make_csr(KEY, ["a.example"])).decode(), "name": SECRET}, "field_invalid"),
    ],
    ids=["a key as the CSR", "mismatch", "garbage", "cut", "an unknown field", "a list", "no CSR", "too long",
         "a key as the name"],
)  # fmt: skip
def test_refusals_never_repeat_key_material(api: Any, body: dict[str, Any], code: str | None) -> None:
    refused = api.post(f"{PATH}/upload", body)
    assert refused.status_code == 422, refused.text
    if code:
        assert refused.json()["code"] == code
    assert not any(line in refused.text for line in LINES)
    audit = api.get("/api/v1/audit?limit=100").text
    assert not any(line in audit for line in LINES)
    assert api.get(PATH).json()["items"] == []


def test_an_upload_with_its_key_and_oversize(api: Any) -> None:
    request = to_pem(make_csr(KEY, ["a.example"])).decode()
    kept = api.post(f"{PATH}/upload", {"csr": request, "private_key": SECRET, "name": "mine"})
    assert kept.status_code == 201
    assert kept.json()["has_key"]
    assert not any(line in kept.text for line in LINES)
    assert api.post(f"{PATH}/upload", {"csr": "A" * 3_000_000}).status_code == 413


def test_a_key_export_is_not_kept_for_a_repeated_request(api: Any) -> None:
    made = api.post(PATH, {"names": ["a.example"]}).json()
    headers = {"idempotency-key": "once-and-again-0001"}
    first = api.post(f"{PATH}/{made['id']}/export-key", {}, headers=headers)
    again = api.post(f"{PATH}/{made['id']}/export-key", {}, headers=headers)
    assert "PRIVATE KEY" in first.text
    assert "PRIVATE KEY" not in again.text


ROUTES = [
    ("GET", "", None), ("POST", "", {"names": ["a.example"]}), ("POST", "/upload", {"csr": "x"}),
    ("GET", "/{id}", None), ("PATCH", "/{id}", {"name": "other"}), ("DELETE", "/{id}", None),
    ("GET", "/{id}/download", None), ("POST", "/{id}/export-key", {}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_every_door_is_shut_to_strangers_to_others_and_to_the_powerless(
    api: Any, method: str, path: str, body: Any
) -> None:
    made = api.post(PATH, {"names": ["a.example"]}).json()
    address = PATH + path.replace("{id}", made["id"])
    headers = {"if-match": '"1"'}
    assert api.anonymous().request(method, address, json=body, headers=headers).status_code == 401
    powerless = api.as_actor(api.world.actor, ["dns_administrator"])
    assert powerless.request(method, address, json=body, headers=headers).status_code == 403
    other = api.as_actor(api.world.other_actor).request(method, address, json=body, headers=headers)
    if "{id}" in path:
        assert other.status_code == 404
    else:
        assert made["id"] not in other.text
    assert api.get(f"{PATH}/{made['id']}").json() == made


def test_a_reader_sees_and_downloads_requests_but_no_keys(api: Any) -> None:
    made = api.post(PATH, {"names": ["a.example"]}).json()
    reader = api.as_actor(api.world.actor, ["scm_read_only_access"])
    assert reader.get(f"{PATH}/{made['id']}/download").status_code == 200
    assert reader.post(f"{PATH}/{made['id']}/export-key", {}).json()["code"] == "not_permitted"


def test_a_certificate_is_applied_for_by_the_id(api: Any) -> None:
    made = api.post(PATH, {"names": ["shop.demo.localhost"]}).json()
    application = {
        "csr_id": made["id"], "pin_key": True, "consent": True,
        "applicant": {"name": "Ann", "email": "ann@one.example", "phone": "+49 30 123456"},
    }  # fmt: skip
    applied = api.post("/api/v1/certificates", {"application": application})
    assert applied.status_code == 202, applied.text
    shown = applied.json()["application"]
    assert (shown["csr_id"], shown["key_pinned"], shown["key_source"]) == (made["id"], True, "system")
    assert api.get(f"{PATH}/{made['id']}").json()["used_by"] == {"certificates": 1, "open_applications": 1}
    refused = api.delete(f"{PATH}/{made['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "csr_in_use")
    stranger = api.as_actor(api.world.other_actor).post("/api/v1/certificates", {"application": application})
    assert stranger.status_code == 404
