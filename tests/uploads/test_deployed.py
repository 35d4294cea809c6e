"""Uploaded certificates at work: on a real nginx, replaced by newer ones there, and not deleted while in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from certwright.connectors.target import Targets
from certwright.connectors.target.nginx import NginxKind
from certwright.rooms import deployment
from certwright.x509.certificates import read_certificate, to_pem
from tests.deployment.conftest import nginx  # noqa: F401  # a fixture
from tests.deployment.test_nginx_rollout import served
from tests.servers.nginx import Nginx
from tests.uploads.material import b64, body, ca, key, pem_key
from tests.x509.factory import openssl

BASE = "/api/v1"


def test_from_a_pfx_to_a_server_and_on_to_the_next_version(api: Any, nginx: Nginx, tmp_path: Path) -> None:  # noqa: F811
    world = api.world
    world.services.ports[deployment.TargetKinds] = Targets({"nginx": NginxKind()})
    old = ca().leaf("a.example", own=key("old"))
    nginx.write_site("a.example", (to_pem(old) + ca().pem).encode(), pem_key(key("old")).encode())
    first, second = ca().leaf("a.example", days=20), ca().leaf("a.example", own=key("new"))
    for name, text in (("a.crt", to_pem(first)), ("a.key", pem_key()), ("ca.crt", ca().pem)):
        (tmp_path / name).write_text(text)
    exported = openssl(
        "pkcs12", "-export", "-in", "a.crt", "-inkey", "a.key", "-certfile", "ca.crt", "-passout", "pass:pelican",
        cwd=tmp_path,
    )  # fmt: skip
    given = {"certificate": b64(exported), "encoding": "base64", "passphrase": "pelican", "online": False}
    made = api.post(f"{BASE}/uploads", given).json()["certificate"]["id"]

    with nginx:
        config = {"nginx": str(nginx.binary), "config": str(nginx.conf_path)}
        target = api.post(f"{BASE}/targets", {"name": "web-1", "config": config}).json()["id"]
        (site,) = api.post(f"{BASE}/targets/{target}/discover").json()["items"]
        started = api.post(f"{BASE}/deployments", {"certificate_id": made, "site_ids": [site["id"]]})
        assert started.status_code == 202, started.text
        world.drain()
        assert world.run(served(nginx)) == read_certificate(first).sha256

        refused = api.delete(f"{BASE}/certificates/{made}")
        assert (refused.status_code, refused.json()["code"]) == (409, "certificate_bound")
        assert "web-1" in refused.json()["detail"]

        newer = api.post(f"{BASE}/certificates/{made}/replace", body(second, key=pem_key(key("new"))))
        assert newer.status_code == 200, newer.text
        world.drain()
        assert world.run(served(nginx)) == read_certificate(second).sha256

    authority = body(certificate=ca().pem, key=None, purpose="client_ca")
    client_ca = api.post(f"{BASE}/uploads", authority).json()["certificate"]["id"]
    not_served = api.post(f"{BASE}/deployments", {"certificate_id": client_ca, "site_ids": [site["id"]]})
    assert (not_served.status_code, not_served.json()["code"]) == (409, "operation_not_allowed")
    assert "to check clients by" in not_served.json()["detail"]
