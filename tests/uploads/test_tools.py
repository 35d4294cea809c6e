"""The workshop's tools through the API, and downloads for each server: the same as offline, and nothing is kept."""

from __future__ import annotations

import asyncio
import io
import time
import zipfile
from pathlib import Path
from typing import Any

from certwright.platform.processes import Processes
from certwright.rooms import uploads
from certwright.x509.certificates import to_pem
from certwright.x509.workshop import containers, toolbox
from tests.servers.hostile_http import answer, hostile_http
from tests.uploads.material import NOW, access, b64, body, ca, key, pem_key
from tests.uploads.test_outside import port  # noqa: F401  # a fixture
from tests.x509.factory import openssl

TOOLS = "/api/v1/tools/x509"
PASS = "correct horse"


def parts() -> list[dict[str, str]]:
    return [{"content": to_pem(ca().leaf("www.example.com"))}, {"content": ca().pem}, {"content": pem_key()}]


def test_what_one_tool_makes_the_next_one_reads(api: Any) -> None:
    sent: dict[str, Any] = {"inputs": parts()}
    for to in ("pfx", "jks", "p7b", "pem"):
        made = api.post(f"{TOOLS}/convert", sent | {"to": to, "out_passphrase": PASS if to in ("pfx", "jks") else None})
        assert made.status_code == 200, made.text
        assert f'filename="www.example.com.{to}"' in made.headers["content-disposition"]
        sent = {"inputs": [{"content": b64(made.content), "encoding": "base64"}], "passphrase": PASS}
    seen = api.post(f"{TOOLS}/inspect", {"content": made.text}).json()
    assert [part["kind"] for part in seen["parts"]] == ["certificate", "certificate"]
    key_form = api.post(f"{TOOLS}/convert", {"inputs": [{"content": pem_key()}], "to": "sec1"})
    assert key_form.text.startswith("-----BEGIN EC PRIVATE KEY-----")


def test_a_key_is_encrypted_and_opened_again(api: Any) -> None:
    locked = api.post(f"{TOOLS}/key", {"content": pem_key(), "out_passphrase": PASS})
    assert "BEGIN ENCRYPTED PRIVATE KEY" in locked.text
    assert openssl("pkey", "-passin", f"pass:{PASS}", stdin=locked.content).decode() == pem_key()
    wrong = api.post(f"{TOOLS}/key", {"content": locked.text, "passphrase": "no"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "wrong_passphrase")
    assert api.post(f"{TOOLS}/key", {"content": locked.text, "passphrase": PASS}).text == pem_key()


def test_split_and_join_are_each_others_opposite(api: Any) -> None:
    joined = api.post(f"{TOOLS}/join", {"inputs": list(reversed(parts()))})
    assert joined.text == pem_key() + to_pem(ca_of(joined.text)) + ca().pem
    files = api.post(f"{TOOLS}/split", {"inputs": [{"content": joined.text}]}).json()["files"]
    again = api.post(f"{TOOLS}/join", {"inputs": [{"content": file["content"]} for file in files]})
    assert again.text == joined.text


def ca_of(text: str) -> bytes:
    found = containers.open_input(text, "x", None).of(containers.Kind.CERTIFICATE)
    return found[0].der


def test_match_says_whether_parts_belong_together(api: Any) -> None:
    good = api.post(f"{TOOLS}/match", {"inputs": parts()[:1] + parts()[2:]}).json()
    assert (good["match"], [part["kind"] for part in good["parts"]]) == (True, ["certificate", "key"])
    bad = api.post(f"{TOOLS}/match", {"inputs": [*parts()[:1], {"content": pem_key(key("other"))}]}).json()
    assert bad["match"] is False
    assert api.post(f"{TOOLS}/match", {"inputs": parts()[:1]}).json()["code"] == "match_one_only"


def test_a_request_is_made_with_a_new_key_or_ones_own(api: Any) -> None:
    made = api.post(f"{TOOLS}/csr", {"names": ["www.example.com", "192.0.2.1"], "passphrase": PASS}).json()
    assert b"DNS:www.example.com, IP Address:192.0.2.1" in openssl("req", "-text", stdin=made["csr"].encode())
    assert "ENCRYPTED" in made["key"]
    own = api.post(f"{TOOLS}/csr", {"names": ["a.example.com"], "key": pem_key(), "common_name": True}).json()
    assert own["key"] is None
    matched = api.post(f"{TOOLS}/match", {"inputs": [{"content": own["csr"]}, {"content": pem_key()}]})
    assert matched.json()["match"] is True
    assert api.post(f"{TOOLS}/csr", {"names": ["a b"]}).status_code == 422
    assert (
        api.post(f"{TOOLS}/csr", {"names": ["a.de"], "key_algorithm": "DSA"}).json()["code"] == "key_algorithm_unknown"
    )


def test_a_chain_is_completed_by_the_cas_own_address_also_in_a_bundle(api: Any, port: None) -> None:  # noqa: F811
    with hostile_http({"/ca": answer(200, ca().issuing)}) as server:
        leaf = to_pem(ca().leaf("www.example.com", extensions=(access(issuer=server.url("/ca")),)))
        found = api.post(f"{TOOLS}/chain", {"content": leaf}).json()
        assert (found["complete"], found["missing"], found["pem"]) == (True, "", leaf + ca().pem)
        assert [link["source"] for link in found["links"]] == ["given", "fetched"]
        offline = api.post(f"{TOOLS}/chain", {"content": leaf, "online": False}).json()
        assert (offline["complete"], offline["missing"]) == (False, "CN=Issuing")
        inputs = [{"content": leaf}, {"content": pem_key()}]
        made = api.post(f"{TOOLS}/bundle", {"inputs": inputs, "server": "nginx", "name": "shop"})
    archive = zipfile.ZipFile(io.BytesIO(made.content))
    assert sorted(archive.namelist()) == ["README.txt", "shop.crt", "shop.key"]
    assert archive.read("shop.crt").decode() == leaf + ca().pem


REFUSALS: list[tuple[str, dict[str, Any], str | None]] = [
    ("convert", {"inputs": [{"content": "x"}], "to": "pem"}, "not_pem"),
    ("convert", {"inputs": [], "to": "pem"}, None),
    ("convert", {"inputs": [{"content": "x"}] * 21, "to": "pem"}, None),
    ("convert", {"inputs": [{"content": "x"}], "to": "doc"}, None),
    ("convert", {"inputs": [{"content": "!", "encoding": "base64"}], "to": "pem"}, "bad_base64"),
    ("convert", {"inputs": [{"content": pem_key()}], "to": "pfx"}, "convert_nothing"),
    ("chain", {"content": pem_key()}, "wrong_block"),
    ("bundle", {"inputs": [{"content": pem_key()}], "server": "nginx"}, "convert_nothing"),
    ("bundle", {"inputs": [{"content": ca().pem}], "server": "iis"}, "bundle_key_needed"),
    ("key", {"content": ca().pem}, "convert_key_needed"),
    ("key", {"content": pem_key(), "form": "pkcs1"}, "key_format"),
]


def test_what_can_not_be_done_is_said(api: Any) -> None:
    for path, sent, code in REFUSALS:
        refused = api.post(f"{TOOLS}/{path}", sent)
        assert refused.status_code == 422, (path, sent, refused.text)
        assert code in (None, refused.json()["code"]), (path, sent)
        assert pem_key().splitlines()[1] not in refused.text


def test_nobody_uses_a_tool_who_is_not_signed_in_and_no_answer_is_kept(api: Any) -> None:
    for path in ("check", "inspect", "convert", "chain", "split", "join", "match", "csr", "bundle", "key"):
        assert api.anonymous().post(f"{TOOLS}/{path}", {}).status_code == 401, path
    made = api.post(f"{TOOLS}/key", {"content": pem_key()}, headers={"idempotency-key": "k"})
    assert made.status_code == 200
    again = api.post(f"{TOOLS}/key", {"content": pem_key()}, headers={"idempotency-key": "k"})
    assert (again.status_code, again.json()["code"]) == (409, "already_done")


def test_tools_show_nothing_of_what_they_made_in_their_repr() -> None:
    file = uploads.tools.File("a", "b", pem_key().encode())
    made = uploads.tools.MadeCsr("x", pem_key())
    given = uploads.Given(pem_key().encode(), pem_key().encode(), passphrase=b"pelican")
    shown = f"{file!r} {made!r} {given!r}"
    assert "PRIVATE" not in shown
    assert "pelican" not in shown


# --- downloads --------------------------------------------------------------------------------------------------------

HOLDS_KEY = ("nginx", "apache", "tomcat", "iis", "weblogic", "resin", "haproxy", "kubernetes")


def test_every_server_has_its_archive_and_only_who_may_gets_keys(api: Any) -> None:
    made = api.post("/api/v1/uploads", body(name="shop")).json()["certificate"]["id"]
    path = f"/api/v1/certificates/{made}/download"
    reader = api.as_actor(api.world.actor, ["security_auditor"])
    for server in (*HOLDS_KEY, "pem", "der", "p7b"):
        got = api.get(f"{path}?format={server}")
        assert got.status_code == 200, got.text
        names = zipfile.ZipFile(io.BytesIO(got.content)).namelist()
        assert "README.txt" in names
        expected = 403 if server in HOLDS_KEY else 200
        assert reader.get(f"{path}?format={server}").status_code == expected, server
        if server not in HOLDS_KEY:
            assert not any(name.endswith((".key", ".key.der")) for name in names)
    assert api.get(f"{path}?format=root").json()["code"] == "root_not_held"
    assert api.get(f"{path}?format=doc").status_code == 422
    reads = [e for e in api.get("/api/v1/audit-events?limit=100").json()["items"] if e["action"] == "scm:key:read"]
    assert len(reads) == len(HOLDS_KEY)


def test_the_passphrase_in_an_archive_opens_its_stores(api: Any, tmp_path: Path) -> None:
    made = api.post("/api/v1/uploads", body(name="shop")).json()["certificate"]["id"]
    got = api.get(f"/api/v1/certificates/{made}/download?format=tomcat")
    zipfile.ZipFile(io.BytesIO(got.content)).extractall(tmp_path)
    said = openssl(
        "pkcs12", "-in", str(tmp_path / "shop.pfx"), "-passin", f"file:{tmp_path / 'shop.password.txt'}", "-nodes"
    )
    assert said.count(b"BEGIN CERTIFICATE") == 2
    assert b"PRIVATE KEY" in said
    jks = (tmp_path / "shop.jks").read_bytes()
    passphrase = (tmp_path / "shop.password.txt").read_bytes().strip()
    assert len(containers.open_input(jks, "x", passphrase).items) == 3


# --- the real pool ----------------------------------------------------------------------------------------------------


def test_lint_and_hostile_files_do_not_hold_up_other_requests(world: Any) -> None:
    """With the real processes: while the first pkilint (0.7 s) and a megabyte of keys are looked at, this process
    works for hundredths of a second at a stretch."""

    async def story() -> tuple[float, uploads.Judgement]:
        pool = world.services.ports[Processes] = Processes(2)
        try:
            given = uploads.Given(to_pem(ca().leaf("www.example.com")).encode() + ca().pem.encode(), pem_key().encode())
            hostile = uploads.Given((to_pem(ca().leaf("www.example.com")) * 900).encode())
            work = [
                asyncio.create_task(uploads.tools.check(world.services, world.actor, one, uploads.Wishes(online=False)))
                for one in (given, hostile)
            ]
            longest = 0.0
            while not all(task.done() for task in work):
                # Of this thread alone: how busy the machine is with others says nothing.
                begun = time.thread_time()
                await asyncio.sleep(0.001)
                longest = max(longest, time.thread_time() - begun)
            return longest, work[0].result()
        finally:
            await pool.close()

    longest, found = world.run(story())
    assert [finding.code for finding in found.findings if finding.code != "lint"] == []
    assert "lint" in [finding.code for finding in found.findings]
    # In this process lint alone would take 0.7 s at a stretch.
    assert longest < 0.5


def test_the_pool_takes_and_gives_plain_values() -> None:
    import pickle

    from certwright.x509.workshop.upload import Options

    given = toolbox.Upload((to_pem(ca().leaf("www.example.com")) + ca().pem).encode(), pem_key().encode())
    judged = toolbox.judge(given, Options(at=NOW), toolbox.Around())
    assert pickle.loads(pickle.dumps(judged)) == judged
    assert "pkcs8" not in repr(judged)
