"""The door for certificates that were issued elsewhere: what gets in, what is said of the rest, and who may."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from certwright.rooms import access, authorities, certificates, uploads
from certwright.x509.certificates import to_pem
from tests.uploads.material import b64, body, ca, codes, key, pem_key
from tests.x509.factory import openssl

UPLOAD = "/api/v1/uploads"
VECTORS = Path(__file__).resolve().parent.parent / "vectors"


def uploaded(api: Any, **more: Any) -> dict[str, Any]:
    answer = api.post(UPLOAD, body(**more))
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_life_of_an_uploaded_certificate(api: Any) -> None:
    leaf = ca().leaf("www.example.com", "example.com")
    pem = "Bag Attributes: none\r\n" + to_pem(ca().root) + to_pem(ca().issuing) + to_pem(leaf)
    answer = api.post(UPLOAD, body(certificate=pem, name="shop", description="bought", tags={"team": "web"}))
    assert answer.status_code == 201, answer.text
    made = answer.json()
    cert = made["certificate"]
    assert answer.headers["location"] == f"/api/v1/certificates/{cert['id']}"
    assert (cert["state"], cert["uploaded"], cert["name"], cert["ca"]) == ("hosted", True, "shop", "uploaded")
    assert (cert["names"], cert["auto_renew"], cert["purpose"]) == (["www.example.com", "example.com"], False, "server")
    assert set(made["report"]["repaired"]) == {"text_around", "crlf", "chain_order", "root_included"}
    assert [link["source"] for link in made["report"]["links"]] == ["given", "given"]
    assert made["report"]["certificate"] + made["report"]["chain"] == to_pem(leaf) + to_pem(ca().issuing)
    assert "PRIVATE" not in answer.text

    path = f"/api/v1/certificates/{cert['id']}"
    assert api.get("/api/v1/certificates?state=hosted").json()["items"][0]["id"] == cert["id"]
    assert api.get(path).json()["versions"][0]["has_key"] is True
    assert api.get(f"{path}/download").content.decode() == to_pem(leaf) + to_pem(ca().issuing)
    assert "PRIVATE KEY" in api.get(f"{path}/download?format=key").text
    (record,) = api.get(f"{path}/uploads").json()["items"]
    assert (record["version"], set(record["repaired"])) == (1, set(made["report"]["repaired"]))
    patched = api.patch(path, {"name": "shop-2", "tags": {"a": "b"}}, headers={"if-match": '"1"'})
    assert (patched.json()["name"], patched.json()["tags"]) == ("shop-2", {"a": "b"})

    refused = api.get(path).json()["refused_operations"]
    assert {"renew", "reissue", "revoke", "set_auto_renew"} <= set(refused)
    assert "only the CA that issued it can revoke it" in refused["revoke"]["message"]
    assert api.post(f"{path}/revoke", {"reason": "superseded"}).status_code == 409
    assert api.post(f"{path}/reissue").status_code == 409

    api.world.later(days=91)
    api = api.as_actor(api.world.actor)
    assert api.get(path).json()["state"] == "expired"
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404


def test_only_what_is_sealed_is_left_of_a_key(api: Any) -> None:
    secret = pem_key().splitlines()[1]
    uploaded(api)
    api.post(UPLOAD, body(key=pem_key().replace(secret, secret[:-3] + "\t!!")))

    async def everything() -> str:
        async with api.world.services.db.begin() as tx:
            names = await tx.exec_driver_sql("SELECT relname FROM pg_stat_user_tables")
            tables = [row[0] for row in names]
            rows = [str((await tx.exec_driver_sql(f'SELECT * FROM "{table}"')).all()) for table in tables]
            return "\n".join(rows)

    text = api.world.run(everything())
    assert secret not in text
    assert "www.example.com" in text


@pytest.mark.parametrize("container", ["der", "p7b", "pfx", "jks"])
def test_stores_are_known_by_their_content(api: Any, container: str) -> None:
    tool = {"inputs": [{"content": to_pem(ca().leaf("www.example.com")) + ca().pem + pem_key()}]}
    made = api.post("/api/v1/tools/x509/convert", tool | {"to": container, "out_passphrase": "correct horse"})
    if container == "der":
        assert made.status_code == 422
        data = ca().leaf("www.example.com")
    else:
        assert made.status_code == 200, made.text
        data = made.content
    given = {"certificate": b64(data), "encoding": "base64", "passphrase": "correct horse", "chain": b64(ca().issuing)}
    given["key"] = b64(pem_key().encode()) if container in ("der", "p7b") else None
    assert codes(uploaded(api, **given)["report"]) == []


# What a load balancer's form answers with too few words, and what is said here.
OPENSSH = (VECTORS / "openssh.key").read_text()
NO_SUCH = "cert_01m7yzmhg0e8fve8xcf6tz760p"
PARAMETERS = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
FAQ: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("invalid parameter: nothing was pasted", {"certificate": " \n"}, "empty", "certificate", "Paste"),
    (
        "invalid parameter: the key instead", {"certificate": pem_key(), "key": None}, "wrong_block", "certificate",
        "Paste",
    ),
    ("invalid certificate format: a page", {"certificate": "<html>not here</html>"}, "not_pem", "certificate", "page"),
    (
        "invalid certificate format: a lost letter",
        {"certificate": to_pem(ca().issuing).replace("MII", "M!I", 1)}, "bad_base64", "certificate", "again",
    ),
    (
        "certificate chain not found", {"certificate": to_pem(ca().leaf("www.example.com")), "strict": True},
        "chain_missing", "certificate", "intermediate",
    ),
    ("invalid private key: OpenSSH's", {"key": OPENSSH}, "key_format", "key", "ssh-keygen"),
    ("invalid private key: missing", {"key": None}, "key_missing", "key", "Paste"),
    ("EC parameters only", {"key": PARAMETERS}, "ec_parameters_only", "key", "EC PRIVATE KEY"),
    ("invalid public key: of another certificate", {"key": pem_key(key("other"))}, "key_mismatch", "key", "openssl"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "given", "code", "where", "remedy"), FAQ, ids=[case[0] for case in FAQ])
def test_each_case_of_a_load_balancer_has_its_own_finding_and_remedy(
    api: Any, case: str, given: dict[str, Any], code: str, where: str, remedy: str
) -> None:
    answer = api.post(UPLOAD, body(**given))
    assert answer.status_code == 422, case
    problem = answer.json()
    assert (problem["code"], problem["field"]) == (code, where)
    assert remedy in problem["fix"]
    assert problem["errors"][0]["where"].startswith(where)
    assert problem["report"]["ok"] is False
    checked = api.post(f"{UPLOAD}/check", body(**given))
    assert checked.status_code == 200
    assert checked.json()["findings"] == problem["report"]["findings"]
    assert api.get("/api/v1/certificates").json()["items"] == []


def test_not_found_in_this_account(api: Any) -> None:
    made = uploaded(api)["certificate"]["id"]
    other = api.as_actor(api.world.other_actor)
    for answer in (
        other.get(f"/api/v1/certificates/{made}"), other.post(f"/api/v1/certificates/{made}/replace", body()),
        other.get(f"/api/v1/certificates/{made}/uploads"), other.post(f"{UPLOAD}/check", body(replaces=made)),
        api.post(f"/api/v1/certificates/{NO_SUCH}/replace", body()),
    ):  # fmt: skip
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert "that you may see" in answer.json()["detail"]
    # Another account's certificates are no duplicates, and their keys not reused.
    assert codes(other.post(UPLOAD, body()).json()["report"]) == []


def test_a_duplicate_is_named_and_refused_unless_it_is_wanted(api: Any) -> None:
    leaf = ca().leaf("www.example.com")
    first = uploaded(api, leaf=leaf, name="first")["certificate"]["id"]
    again = api.post(UPLOAD, body(leaf))
    assert (again.status_code, again.json()["code"]) == (422, "duplicate")
    assert f"first ({first})" in again.json()["detail"]
    assert codes(uploaded(api, leaf=leaf, allow_duplicate=True)["report"], "warning") == ["duplicate"]
    reused = uploaded(api, leaf=ca().leaf("other.example.com"))["report"]
    assert codes(reused, "warning") == ["key_reused"]


def test_what_is_in_a_project_one_may_not_see_is_not_named(api: Any) -> None:
    services = api.world.services
    shop = api.world.run(access.people.create_project(services, api.world.actor, name="shop"))
    leaf = ca().leaf("www.example.com")
    hidden = uploaded(api, leaf=leaf, name="hidden-one")["certificate"]
    limited = api.world.actor_with("scm:cert:*", project_id=shop.id)

    async def refused() -> Any:
        given = uploads.Given(to_pem(leaf).encode() + ca().pem.encode(), pem_key().encode())
        return await uploads.check(services, limited, given, uploads.Wishes(online=False))

    found = api.world.run(refused())
    (duplicate,) = [finding for finding in found.findings if finding.code == "duplicate"]
    assert "in a project that you may not see" in duplicate.message
    assert "hidden-one" not in str(found)
    assert hidden["id"] not in str(found)


def test_a_newer_upload_is_a_new_version_that_is_told_to_deployment(api: Any) -> None:
    first = uploaded(api, leaf=ca().leaf("www.example.com", days=20), name="shop")["certificate"]
    path = f"/api/v1/certificates/{first['id']}"
    checked = api.post(f"{UPLOAD}/check", body(ca().leaf("www.example.com")))
    assert checked.json()["successor_of"] == [{"id": first["id"], "name": "shop"}]
    new = ca().leaf("www.example.com", own=key("new"))
    answer = api.post(f"{path}/replace", body(new, key=pem_key(key("new"))))
    assert answer.status_code == 200, answer.text
    cert = answer.json()["certificate"]
    assert (answer.json()["version"], len(cert["versions"]), cert["state"]) == (2, 2, "hosted")
    assert api.get(f"{path}/download?format=leaf").text == to_pem(new)
    assert [r["version"] for r in api.get(f"{path}/uploads").json()["items"]] == [2, 1]
    audit = [event["action"] for event in api.get("/api/v1/audit-events").json()["items"]]
    assert {"scm:cert:upload", "scm:cert:replace"} <= set(audit)
    api.world.drain()  # every listener of the new version takes it

    again = api.post(f"{path}/replace", body(new, key=pem_key(key("new"))))
    assert again.json()["code"] == "duplicate"
    older = api.post(f"{path}/replace", body(ca().leaf("www.example.com", days=10)))
    assert codes(older.json()["report"], "warning") == ["key_reused", "expires_earlier"]
    assert f"shop ({first['id']}, its earlier version 1)" in older.json()["report"]["findings"][0]["message"]


def test_a_replacement_that_loses_names_is_refused_unless_it_is_meant(api: Any) -> None:
    first = uploaded(api, leaf=ca().leaf("www.example.com", "a.example.com"))["certificate"]
    path = f"/api/v1/certificates/{first['id']}/replace"
    fewer = body(ca().leaf("www.example.com"))
    lost = api.post(path, fewer)
    assert (lost.status_code, lost.json()["code"]) == (422, "names_missing")
    assert "a.example.com" in lost.json()["detail"]
    assert codes(api.post(f"{UPLOAD}/check", fewer | {"replaces": first["id"]}).json(), "error") == ["names_missing"]
    covered = api.post(path, body(ca().leaf("*.example.com")))
    assert codes(covered.json()["report"]) == ["key_reused"]
    meant = api.post(path, fewer | {"allow_fewer_names": True})
    assert codes(meant.json()["report"], "warning") == ["key_reused", "names_missing"]


def test_what_was_issued_here_is_not_replaced_by_an_upload(api: Any) -> None:
    api.world.run(authorities.ensure_builtin(api.world.services, api.world.account.id, api.world.project_id))
    issued = api.world.run(
        certificates.issue_private(api.world.services, api.world.actor, names=("www.example.com",))
    )  # fmt: skip
    answer = api.post(f"/api/v1/certificates/{issued.id}/replace", body())
    assert (answer.status_code, answer.json()["code"]) == (409, "operation_not_allowed")
    assert "issued here" in answer.json()["detail"]


def test_a_client_ca_has_no_key_and_is_not_deployed(api: Any) -> None:
    given = {"certificate": to_pem(ca().issuing), "key": None, "purpose": "client_ca"}
    made = uploaded(api, **given)
    cert = made["certificate"]
    assert made["report"]["chain_complete"] is True
    assert (cert["purpose"], cert["names"], cert["primary_name"]) == ("client_ca", [], "Issuing")
    assert cert["versions"][0]["has_key"] is False
    assert "to check clients by" in cert["refused_operations"]["deploy"]["message"]
    path = f"/api/v1/certificates/{cert['id']}"
    assert api.get(f"{path}/download?format=leaf").text == to_pem(ca().issuing)
    assert api.get(f"{path}/download?format=key").status_code == 409
    wrong = api.post(UPLOAD, body(certificate=to_pem(ca().leaf("a.example.com")), key=None, purpose="client_ca"))
    assert wrong.json()["code"] == "not_a_ca"
    newer = api.post(f"{path}/replace", body(certificate=to_pem(ca().root), key=None))
    assert newer.status_code == 200, newer.text


def test_rsa_1024_is_refused_unless_the_account_admits_it_and_then_warned_of_for_ever(api: Any, tmp_path: Any) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    small = rsa.generate_private_key(65537, 1024)
    given = body(ca().leaf("old.example.com", own=small), key=pem_key(small))
    assert api.post(UPLOAD, given).json()["code"] == "weak_key"
    policy = api.get(f"{UPLOAD}/policy")
    assert policy.json() == {"legacy_rsa": False, "revision": 0, "updated_at": None}
    assert api.patch(f"{UPLOAD}/policy", {"legacy_rsa": True}).status_code == 428
    changed = api.patch(f"{UPLOAD}/policy", {"legacy_rsa": True}, headers={"if-match": policy.headers["etag"]})
    assert (changed.json()["legacy_rsa"], changed.json()["revision"]) == (True, 1)
    stale = api.patch(f"{UPLOAD}/policy", {"legacy_rsa": False}, headers={"if-match": policy.headers["etag"]})
    assert stale.status_code == 412
    made = api.post(UPLOAD, given).json()
    assert codes(made["report"], "warning") == ["weak_key"]
    api.patch(f"{UPLOAD}/policy", {"legacy_rsa": False}, headers={"if-match": '"1"'})
    (record,) = api.get(f"/api/v1/certificates/{made['certificate']['id']}/uploads").json()["items"]
    assert codes(record, "warning") == ["weak_key"]


def test_an_upload_sent_twice_is_stored_once(api: Any) -> None:
    given = body(ca().leaf("www.example.com"))
    first = api.post(UPLOAD, given, headers={"idempotency-key": "k1"})
    again = api.post(UPLOAD, given, headers={"idempotency-key": "k1"})
    assert (first.status_code, again.status_code, again.headers["idempotency-replayed"]) == (201, 201, "true")
    assert again.json()["certificate"]["id"] == first.json()["certificate"]["id"]
    assert len(api.get("/api/v1/certificates").json()["items"]) == 1


LABELS: list[tuple[dict[str, Any], str]] = [
    ({"name": "a/b"}, "certificate_name_invalid"),
    ({"name": "x" * 64}, "certificate_name_invalid"),
    ({"description": "x" * 256}, "description_too_long"),
    ({"project_id": "prj_none"}, "not_found"),
    ({"encoding": "base64"}, "bad_base64"),
]


def test_labels_are_judged_before_anything_is_looked_at(api: Any) -> None:
    for given, code in LABELS:
        found = api.post(UPLOAD, body(**given)).json()
        assert found["code"] == code, found


def test_names_are_taken_once(api: Any) -> None:
    uploaded(api, name="shop")
    other = api.post(UPLOAD, body(ca().leaf("b.example.com"), name="shop"))
    assert (other.status_code, other.json()["code"]) == (409, "certificate_name_taken")


def test_more_than_a_mebibyte_is_a_finding_and_more_than_the_body_may_have_is_not_read(api: Any) -> None:
    answer = api.post(UPLOAD, body(certificate="A" * (1024 * 1024 + 1)))
    assert (answer.status_code, answer.json()["code"]) == (422, "too_large")

    async def endless() -> Any:
        sent = 0
        while True:
            sent += 1
            assert sent < 40, "read on after the limit"
            yield b"x" * 100_000

    refused = api.request("POST", UPLOAD, content=endless(), headers={"content-type": "application/json"})
    assert refused.status_code == 413


ROUTES = [
    ("POST", UPLOAD, "scm:cert:upload"),
    ("POST", f"{UPLOAD}/check", "scm:cert:upload"),
    ("GET", f"{UPLOAD}/quotas", "scm:upload_policy:get"),
    ("GET", f"{UPLOAD}/policy", "scm:upload_policy:get"),
    ("PATCH", f"{UPLOAD}/policy", "scm:upload_policy:update"),
    ("POST", "/api/v1/certificates/{id}/replace", "scm:cert:replace"),
    ("GET", "/api/v1/certificates/{id}/uploads", "scm:cert:get"),
]


def test_every_door_is_shut_to_strangers_and_to_the_powerless(api: Any) -> None:
    made = uploaded(api)["certificate"]["id"]
    services, admin = api.world.services, api.world.actor
    powers = sorted({action for _, _, action in ROUTES})
    for action in powers:
        others = [other for other in powers if other != action]
        document = {"Version": "1.1", "Statement": [{"Effect": "Allow", "Action": others}]}
        policy = api.world.run(
            access.people.create_policy(services, admin, name=action.replace(":", "-"), document=document)
        )
        limited = api.as_actor(admin, [policy.id])
        for method, path, needed in ROUTES:
            if needed == action:
                sent = {"json": {"legacy_rsa": True} if method == "PATCH" else body()} if method != "GET" else {}
                where = path.format(id=made)
                assert api.anonymous().request(method, where, **sent).status_code == 401, where
                answer = limited.request(method, where, headers={"if-match": '"0"'}, **sent)
                assert answer.status_code in (403, 404), (where, answer.text)


def test_who_may_upload_but_not_look_gets_the_answer_to_the_upload(api: Any) -> None:
    document = {"Version": "1.1", "Statement": [{"Effect": "Allow", "Action": ["scm:cert:upload"]}]}
    policy = api.world.run(
        access.people.create_policy(api.world.services, api.world.actor, name="inbox", document=document)
    )
    clerk = api.as_actor(api.world.actor, [policy.id])
    answer = clerk.post(UPLOAD, body())
    assert answer.status_code == 201, answer.text
    assert clerk.get(answer.headers["location"]).status_code == 403


def test_an_uploaded_certificate_moves_with_what_was_found(api: Any) -> None:
    shop = api.world.run(access.people.create_project(api.world.services, api.world.actor, name="shop"))
    made = uploaded(api)["certificate"]["id"]
    moved = api.patch(f"/api/v1/certificates/{made}", {"project_id": shop.id}, headers={"if-match": '"1"'})
    assert moved.status_code == 200, moved.text
    api.world.drain()

    async def projects() -> Any:
        async with api.world.services.db.begin() as tx:
            found = await tx.exec_driver_sql(
                "SELECT u.project_id, k.project_id FROM uploads u JOIN versions v ON v.id = u.version_id "
                "JOIN private_keys k ON k.id = v.key_id"
            )
            return found.all()

    assert api.world.run(projects()) == [(shop.id, shop.id)]


def test_the_expiry_of_an_uploaded_certificate_is_announced_like_any_other(api: Any) -> None:
    uploaded(api, leaf=ca().leaf("www.example.com", days=110))
    api.world.drain()
    told = []
    for days in (51, 30, 23):  # 59, 29 and 6 days are left then
        api.world.drain(until=api.world.later(days=days))

        async def notices() -> Any:
            async with api.world.services.db.begin() as tx:
                return (await tx.exec_driver_sql("SELECT step FROM notices WHERE sent")).all()

        told.append(len(api.world.run(notices())))
    assert told == [1, 2, 3]


def test_openssl_opens_what_was_stored(api: Any, tmp_path: Any) -> None:
    made = uploaded(api)["certificate"]["id"]
    pem = api.get(f"/api/v1/certificates/{made}/download?format=key").content
    assert b"Private-Key" in openssl("pkey", "-noout", "-text", stdin=pem)


def with_settings(api: Any, **changed: Any) -> None:
    services = api.world.services
    object.__setattr__(services, "settings", services.settings.model_copy(update=changed))


def test_an_account_holds_so_many_of_each_purpose_and_no_more(api: Any) -> None:
    with_settings(api, uploaded_servers=1, uploaded_client_cas=1)
    made = uploaded(api)["certificate"]["id"]
    full = api.post(UPLOAD, body(ca().leaf("b.example.com")))
    assert (full.status_code, full.json()["code"], full.json()["limit"]) == (409, "upload_quota_reached", 1)
    authority = {"certificate": to_pem(ca().issuing), "key": None, "purpose": "client_ca"}
    uploaded(api, **authority)
    assert api.get(f"{UPLOAD}/quotas").json()["items"] == [
        {"purpose": "server", "used": 1, "limit": 1}, {"purpose": "client_ca", "used": 1, "limit": 1},
    ]  # fmt: skip
    # What is replaced takes no more room, another account has its own, and what is deleted makes some.
    newer = body(ca().leaf("www.example.com", "example.com", days=91))
    assert api.post(f"/api/v1/certificates/{made}/replace", newer).status_code == 200
    assert api.as_actor(api.world.other_actor).post(UPLOAD, body()).status_code == 201
    api.delete(f"/api/v1/certificates/{made}")
    uploaded(api, leaf=ca().leaf("b.example.com"))


def test_of_uploads_at_once_one_is_stored_and_the_quota_holds(api: Any) -> None:
    world = api.world
    given = uploads.Given((to_pem(ca().leaf("www.example.com")) + ca().pem).encode(), pem_key().encode())
    others = [
        uploads.Given((to_pem(ca().leaf(f"n{n}.example.com")) + ca().pem).encode(), pem_key().encode())
        for n in range(3)
    ]  # fmt: skip

    async def together(files: list[uploads.Given]) -> list[Any]:
        wishes = uploads.Wishes(online=False)
        work = [uploads.upload(world.services, world.actor, one, wishes) for one in files]
        return await asyncio.gather(*work, return_exceptions=True)

    same = world.run(together([given] * 3))
    assert sorted(getattr(one, "code", "stored") for one in same) == ["duplicate", "duplicate", "stored"]
    with_settings(api, uploaded_servers=2)
    more = world.run(together(others))
    assert sorted(getattr(one, "code", "stored") for one in more) == [
        "stored", "upload_quota_reached", "upload_quota_reached",
    ]  # fmt: skip
