"""Revocation lists in an object storage: a server that checks every signature (AWS Signature Version 4, with botocore
as the other side) and misbehaves on demand stands for S3."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509

from certwright.kernel.problems import Forbidden, Invalid, NotFound
from certwright.rooms import authorities
from certwright.rooms.authorities import StorageRequest
from tests.conftest import Api, World

SECRET = "wJalrXUtnFEMI/K7MDENG"  # a made-up one


@dataclass
class S3:
    port: int
    objects: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    answer: tuple[int, bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, **changes: Any) -> StorageRequest:
        values: dict[str, Any] = {
            "endpoint": self.endpoint, "bucket": "lists", "access_key_id": "AKIATEST", "secret_access_key": SECRET,
            "prefix": "crl/", "region": "eu-central-1",
        }  # fmt: skip
        return StorageRequest(**values | changes)


def is_signed(request: BaseHTTPRequestHandler, body: bytes) -> bool:
    """Whether the holder of the secret signed this very request: signed again here, from what arrived."""
    given = request.headers.get("Authorization", "")
    names = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    again = AWSRequest(method="PUT", url=f"http://{request.headers['Host']}{request.path}", data=body)
    for name in names:
        if name != "host":
            again.headers[name] = request.headers[name]
    again.context["timestamp"] = request.headers["X-Amz-Date"]
    auth = S3SigV4Auth(Credentials("AKIATEST", SECRET), "s3", "eu-central-1")
    wanted = auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again)
    return given.endswith(f"Signature={wanted}") and "host" in names


@contextmanager
def s3() -> Iterator[S3]:
    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, text = storage.answer or (200, b"")
            if storage.answer is None and not is_signed(self, body):
                status, text = 403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"
            if status == 200:
                storage.objects[self.path] = body
                storage.headers[self.path] = dict(self.headers.items())
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    storage = S3(server.server_address[1])
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield storage
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def running() -> Iterator[S3]:
    with s3() as storage:
        yield storage


@pytest.fixture
def storage(running: S3) -> S3:
    running.objects.clear()
    running.answer = None
    return running


@pytest.fixture
def ca(world: World) -> str:
    async def make() -> str:
        await authorities.ensure_builtin(world.services, world.account.id, world.project_id)
        async with world.services.db.begin() as tx:
            return await authorities.builtin_issuing_id(tx, world.account.id)

    found = world.run(make())
    world.drain()
    return found


def publish(world: World, ca: str, request: StorageRequest) -> authorities.ListStorage:
    world.run(authorities.set_list_storage(world.services, world.actor, ca, request))
    world.drain()
    return world.run(authorities.get_list_storage(world.services, world.actor, ca))


def issue(world: World, ca: str) -> authorities.Leaf:
    request = authorities.LeafRequest("server", names=("www.example",))
    (leaf,) = world.run(authorities.issue_leaves(world.services, world.actor, ca, [request]))
    assert isinstance(leaf, authorities.Leaf), leaf
    return leaf


def test_todays_list_is_there_at_once_and_each_new_one_after_it(world: World, ca: str, storage: S3) -> None:
    shown = publish(world, ca, storage.request())

    assert (shown.waiting, shown.problem) == (0, None)
    place = f"/lists/crl/{ca}.crl"
    assert set(storage.objects) == {place, place.replace(".crl", ".pem")}
    assert storage.headers[place]["Content-Type"] == "application/pkix-crl"
    leaf = issue(world, ca)
    world.run(authorities.revoke_leaf(world.services, world.actor, ca, leaf.id))
    world.drain()
    listed = x509.load_der_x509_crl(storage.objects[place])
    assert listed.get_revoked_certificate_by_serial_number(int(leaf.serial, 16)) is not None
    assert x509.load_pem_x509_crl(storage.objects[place.replace(".crl", ".pem")]) == listed


def test_every_part_of_a_list_is_there(world: World, ca: str, storage: S3) -> None:
    world.run(authorities.update_authority(world.services, world.actor, ca, crl_shards=3))
    world.drain()

    publish(world, ca, storage.request(prefix=""))

    assert {place for place in storage.objects if place.endswith(".crl")} == {
        f"/lists/{ca}.crl", f"/lists/{ca}-1.crl", f"/lists/{ca}-2.crl",
    }  # fmt: skip


def test_certificates_name_the_public_address_and_this_server(world: World, ca: str, storage: S3) -> None:
    publish(world, ca, storage.request(public_url="http://crl.example.com/crl"))

    points = x509.load_der_x509_certificate(issue(world, ca).der).extensions.get_extension_for_class(
        x509.CRLDistributionPoints
    )
    (point,) = points.value
    assert [name.value for name in point.full_name or ()] == [
        f"http://crl.example.com/crl/{ca}.crl", f"https://cw.example/crl/{ca}.crl",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((403, b"<Error><Code>AccessDenied</Code></Error>"), "storage_refused"),
        ((404, b"<Error><Code>NoSuchBucket</Code></Error>"), "storage_no_bucket"),
        ((500, b"<html>oops"), "storage_failed"),
        ((307, b""), "storage_failed"),
    ],
)
def test_what_the_storage_refuses_is_shown_and_tried_again(
    world: World, ca: str, storage: S3, answer: tuple[int, bytes], code: str
) -> None:
    storage.answer = answer
    shown = publish(world, ca, storage.request())
    assert (shown.waiting, (shown.problem or {}).get("code")) == (1, code)

    storage.answer = None
    world.later(hours=2)
    world.drain()

    shown = world.run(authorities.get_list_storage(world.services, world.actor, ca))
    assert (shown.waiting, shown.problem) == (0, None)
    assert len(storage.objects) == 2


def test_a_wrong_secret_is_refused_by_the_storage(world: World, ca: str, storage: S3) -> None:
    shown = publish(world, ca, storage.request(secret_access_key="wrong"))  # made up

    assert shown.problem is not None
    assert "SignatureDoesNotMatch" in shown.problem["message"]
    assert "wrong" not in str(shown)


def test_an_address_nobody_opened_is_not_connected_to(world: World, ca: str, storage: S3) -> None:
    shown = publish(world, ca, storage.request(endpoint="http://169.254.169.254"))

    assert (shown.problem or {})["code"] == "egress_denied"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"endpoint": "ftp://storage.example"}, "endpoint"),
        ({"endpoint": "https://storage.example/path"}, "endpoint"),
        ({"endpoint": "https://user@storage.example"}, "endpoint"),
        ({"bucket": "../lists"}, "bucket"),
        ({"bucket": "Lists"}, "bucket"),
        ({"prefix": "/crl/"}, "prefix"),
        ({"prefix": "../"}, "prefix"),
        ({"region": "eu central"}, "region"),
        ({"access_key_id": ""}, "access_key_id"),
        ({"public_url": "ldap://crl.example.com"}, "public_url"),
        ({"secret_access_key": None}, "secret_access_key"),
    ],
)
def test_storages_that_can_t_be(world: World, ca: str, storage: S3, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        publish(world, ca, storage.request(**changes))

    assert refused.value.field == field


def test_the_secret_stays_with_its_address(world: World, ca: str, storage: S3) -> None:
    publish(world, ca, storage.request())

    publish(world, ca, storage.request(secret_access_key=None, prefix="other/"))
    assert f"/lists/other/{ca}.crl" in storage.objects
    with pytest.raises(Invalid, match="isn't known"):
        publish(world, ca, storage.request(secret_access_key=None, endpoint="https://evil.example"))


def test_over_the_api(api: Api, ca: str, storage: S3) -> None:
    path = f"/api/v1/authorities/{ca}/list-storage"
    body = {
        "endpoint": storage.endpoint, "bucket": "lists", "access_key_id": "AKIATEST", "secret_access_key": SECRET,
        "region": "eu-central-1",
    }  # fmt: skip
    assert api.get(path).status_code == 404
    assert SECRET not in api.put(path, body).text
    api.world.drain()
    assert api.get(path).json()["waiting"] == 0
    assert SECRET not in api.get("/api/v1/audit-events").text
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404
    assert api.delete(path).status_code == 204


def test_tenants_and_viewers(world: World, ca: str, storage: S3) -> None:
    publish(world, ca, storage.request())
    viewer = world.actor_with("ccm:ca:get")

    assert world.run(authorities.get_list_storage(world.services, viewer, ca)).bucket == "lists"
    with pytest.raises(Forbidden):
        world.run(authorities.set_list_storage(world.services, viewer, ca, storage.request()))
    with pytest.raises(Forbidden):
        world.run(authorities.delete_list_storage(world.services, viewer, ca))
    for attempt in (
        authorities.get_list_storage(world.services, world.other_actor, ca),
        authorities.set_list_storage(world.services, world.other_actor, ca, storage.request()),
        authorities.delete_list_storage(world.services, world.other_actor, ca),
    ):
        with pytest.raises(NotFound):
            world.run(attempt)
