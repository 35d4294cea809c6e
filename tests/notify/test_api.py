"""Recipients and messages through the API."""

from __future__ import annotations

import re
from typing import Any

import pytest

from certwright.connectors.channel.smtp import SmtpChannel
from certwright.rooms.notify import Channel
from tests.servers.smtp import mail_server


def test_a_recipient_from_invitation_to_removal(api: Any) -> None:
    with mail_server() as server:
        channel = SmtpChannel("localhost", server.port, sender="cw@our.example", security="none")
        api.world.services.ports[Channel] = channel
        made = api.post("/api/v1/recipients", {"name": "Carl", "email": "carl@ops.example", "locale": "pt-BR"})
        assert (made.status_code, made.json()["verified"], made.json()["locale"]) == (201, False, "pt_BR")
        where = made.headers["location"]
        api.world.drain()
        found = re.search(r"\b\d{6}\b", server.mails[-1].message.get_body(("plain",)).get_content())
        assert found is not None
    wrong = api.post(f"{where}/verify", {"code": "nonsense"})
    assert (wrong.status_code, wrong.json()["code"], wrong.json()["field"]) == (422, "code_wrong", "code")
    assert api.post(f"{where}/verify", {"code": found[0]}).json()["verified"] is True
    (message,) = api.get("/api/v1/messages").json()["items"]
    assert (message["state"], message["to_address"]) == ("sent", "carl@ops.example")
    assert found[0] not in message["subject"]
    assert api.get(f"/api/v1/messages?object={where.rpartition('/')[2]}").json()["items"] == [message]
    etag = api.get(where).headers["etag"]
    changed = api.patch(where, {"name": "Carla"}, headers={"if-match": etag}).json()
    assert (changed["name"], changed["verified"]) == ("Carla", True)
    assert [item["name"] for item in api.get("/api/v1/recipients").json()["items"]] == ["Carla"]
    other = api.as_actor(api.world.other_actor)
    assert other.get(where).status_code == other.delete(where).status_code == 404
    assert other.get("/api/v1/recipients").json()["items"] == other.get("/api/v1/messages").json()["items"] == []
    assert api.delete(where).status_code == 204
    assert api.get(where).status_code == 404


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"name": "Carl"}, "field_missing", "email"),
        ({"name": "Carl", "email": "carl"}, "email_invalid", "email"),
        ({"name": "", "email": "carl@ops.example"}, "name_invalid", "name"),
        ({"name": "Carl", "email": "carl@ops.example", "phone": "1"}, "field_unknown", "phone"),
    ],
)
def test_bad_recipients_are_refused(api: Any, body: dict[str, Any], code: str, field: str) -> None:
    response = api.post("/api/v1/recipients", body)
    assert (response.status_code, response.json()["code"], response.json()["field"]) == (422, code, field)
