"""The workshop's door in the API: the same report, for the signed in only, and nothing of a key comes back."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Api

VECTORS = Path(__file__).resolve().parent.parent / "vectors"
AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def text(name: str) -> str:
    return (VECTORS / name).read_text()


def codes(report: dict[str, Any]) -> list[str]:
    """Beside what pkilint notes."""
    return [finding["code"] for finding in report["findings"] if finding["code"] != "lint"]


@pytest.fixture
def door(api: Api) -> Api:
    """At the moment the vectors are judged for."""
    api.world.clock.set(AT)
    return api.as_actor(api.world.actor)


def test_a_check_answers_with_the_report_and_what_would_be_stored(door: Api) -> None:
    answer = door.post("/api/v1/tools/x509/check", {"certificate": text("reversed.pem"), "key": text("keys/leaf.pem")})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["ok"], found["repaired"], codes(found)) == (True, ["root_included", "chain_order"], [])
    assert found["leaf"]["names"] == ["www.example.com"]
    assert found["certificate"] + found["chain"] == text("good.pem")
    assert "PRIVATE" not in answer.text


def test_findings_are_an_answer_and_no_refusal(door: Api) -> None:
    answer = door.post("/api/v1/tools/x509/check", {"certificate": text("good.pem"), "key": text("keys/other.pem")})
    assert answer.status_code == 200
    assert codes(answer.json()) == ["key_mismatch"]
    nothing = door.post("/api/v1/tools/x509/check", {"certificate": "", "strict": True}).json()
    assert (nothing["ok"], nothing["leaf"], nothing["findings"][0]["code"]) == (False, None, "empty")


def test_a_store_is_sent_as_base64(door: Api) -> None:
    store = base64.b64encode((VECTORS / "openssl1.pfx").read_bytes()).decode()
    body = {"content": store, "encoding": "base64", "passphrase": text("passphrase.txt").strip()}
    answer = door.post("/api/v1/tools/x509/inspect", body).json()
    assert (answer["container"], sorted(p["kind"] for p in answer["parts"])) == (
        "pfx", ["certificate", "certificate", "key"],
    )  # fmt: skip
    refused = door.post("/api/v1/tools/x509/inspect", body | {"content": "no base64!"})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_base64")


@pytest.mark.parametrize("path", ["check", "inspect"])
def test_nobody_uses_it_who_is_not_signed_in(path: str, door: Api) -> None:
    body = {"certificate": "x"} if path == "check" else {"content": "x"}
    assert door.anonymous().post(f"/api/v1/tools/x509/{path}", body).status_code == 401


def test_what_is_refused_is_not_repeated_to_the_sender(door: Api) -> None:
    key = text("keys/leaf.pem")
    answer = door.post("/api/v1/tools/x509/check", {"certificate": key, "key": 7, "nonsense": key})
    assert answer.status_code == 422
    assert key.splitlines()[1][:16] not in answer.text
