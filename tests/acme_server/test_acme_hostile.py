"""What a client says that means harm, and what it gets for it."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import urllib.parse
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx2
import orjson
import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.responses import Response

from certwright.acme import jose
from certwright.acme.challenges import read_tls_alpn
from certwright.acme.jose import b64url
from certwright.acme.requests import AcmeProblem
from certwright.entry.acme import AcmeDoor
from certwright.rooms import acme_server, authorities, validation
from certwright.rooms.acme_server import Nonces, Prover, proofs, protocol, rules
from certwright.rooms.acme_server.tables import acme_authorizations, acme_nonce_keys
from certwright.rooms.acme_server.words import VALIDATE_STEP
from tests.acme_server.support import JOSE, Client, Outside, csr, open_directory, problem
from tests.conftest import World


def signed(client: Client, url: str, payload: bytes, **header: Any) -> bytes:
    """A request with exactly these octets as payload; `header` replaces members of the protected header."""
    said = {"alg": "ES256", "nonce": client.fresh_nonce(), "url": url, "kid": client.kid} | header
    protected = b64url(said.pop("raw") if "raw" in said else orjson.dumps({k: v for k, v in said.items() if v}))
    signing_input = f"{protected}.{b64url(payload)}".encode()
    signature = b64url(jose.signature_of(client.key, signing_input))
    return orjson.dumps({"protected": protected, "payload": b64url(payload), "signature": signature})


def beside(client: Client) -> Client:
    """Another account of the same directory."""
    other = Client(client.world, SimpleNamespace(url=client.at("directory")), client.outside, client.app)  # type: ignore[arg-type]  # its url will do
    return other.register()


def said(client: Client, url: str, payload: Any) -> bytes:
    """A request with a nonce of its own, to be sent beside others."""
    return jose.signed_request(payload, url=url, nonce=client.fresh_nonce(), key=client.key, kid=client.kid)


def together(client: Client, requests: list[tuple[str, bytes]]) -> list[Any]:
    """The answers to requests that come at the same time."""

    async def go() -> list[Any]:
        transport = httpx2.ASGITransport(client.app)
        async with httpx2.AsyncClient(transport=transport, base_url="https://cw.example") as http:
            posts = [http.post(url, content=body, headers={"content-type": JOSE}) for url, body in requests]
            return list(await asyncio.gather(*posts))

    return client.world.run(go())


# --- text that no database and no answer can hold ---------------------------------------------------------------------


def test_text_that_is_none(client: Client) -> None:
    url = client.at("new-order")
    for payload in (
        rb'{"identifiers":[{"type":"dns","value":"\ud800.example"}]}',
        rb'{"identifiers":[{"type":"\ud800","value":"a.example"}]}',
        rb'{"identifiers":[{"type":"dns","value":"a.example"}],"profile":"\udfff"}',
        rb'{"identifiers":[{"type":"dns","value":"a.example"}],"replaces":"\ud800.\ud800"}',
        rb'{"identifiers":[{"type":"dns","value":"a.example"}],"replaces":"\u0000.AA"}',
        rb'{"\ud800":1,"identifiers":[{"type":"dns","value":"a.example"}]}',
    ):
        assert problem(client.raw(url, signed(client, url, payload))) == "malformed", payload
    # What escapes may say.
    good = rb'{"identifiers":[{"type":"dns","value":"\u0061.example"}],"contact":"\ud83d\ude00 \\u00e4"}'
    assert client.raw(url, signed(client, url, good)).status_code == 201


def test_addresses_that_lead_nowhere(client: Client) -> None:
    for what in ("order/{}", "order/{}/finalize", "authz/{}", "cert/{}", "account/{}", "challenge/{}/http-01"):
        for id_ in ("x%00", "%ed%a0%80", "%ff", "%0d%0aSet-Cookie:x=y"):
            path = client.at(what.format(id_))
            # As the server will read it.
            url = urllib.parse.unquote(path, errors="replace")
            response = client.raw(path, signed(client, url, b"" if "finalize" not in what else b'{"csr":""}'))
            assert problem(response) in ("malformed", "unauthorized", "badCSR"), path
            assert "set-cookie" not in response.headers
    assert problem(client.post(f"{client.kid}/orders?cursor=%00", None)) == "malformed"


def test_services_that_can_t_exist(client: Client) -> None:
    for slug in ("serv%00ers", "%ff", "%0d%0aX:y"):
        response = client.send("GET", f"https://cw.example/acme/{slug}/directory")
        assert (response.status_code, "x" in response.headers) == (404, False)


def test_an_account_no_database_can_hold(client: Client) -> None:
    url = client.at("new-order")
    for tail in (r"\u0000", r"\ud800"):
        kid = f"{client.at('account')}/x{tail}"
        raw = f'{{"alg":"ES256","nonce":"{client.fresh_nonce()}","url":"{url}","kid":"{kid}"}}'
        assert problem(client.raw(url, signed(client, url, b"{}", raw=raw.encode()))) == "malformed"


def test_a_key_for_binding_no_database_can_hold(world: World, net: Outside) -> None:
    client = Client(world, open_directory(world, eab_required=True), net)
    url = client.at("new-account")
    for kid in ("x\x00", "\ud800"):
        binding = jose.external_account_binding(client.key, url=url, kid="kid", mac_key=b"x")
        header = json.dumps({"alg": "HS256", "kid": kid, "url": url}).encode()
        payload = {"externalAccountBinding": binding | {"protected": b64url(header)}}
        assert problem(client.post(url, payload, by_key=True)) == "malformed"


def test_keys_that_are_no_text(client: Client) -> None:
    url = client.at("new-account")
    for jwk in (
        {"kty": "RSA", "n": "\ud800", "e": "AQAB"}, {"kty": "EC", "crv": "P-256", "x": "\ud800", "y": "AA"},
        {"kty": "OKP", "crv": "\ud800", "x": "AA"}, {"kty": "EC", "crv": "P-256\x00", "x": "AA", "y": "AA"},
    ):  # fmt: skip
        raw = json.dumps({"alg": "ES256", "nonce": client.fresh_nonce(), "url": url, "jwk": jwk}).encode()
        assert problem(client.raw(url, signed(client, url, b"{}", raw=raw))) == "malformed"


def test_a_client_that_hangs_up_in_the_middle_is_no_failure_of_ours(client: Client) -> None:
    scope = {"type": "http", "method": "POST", "path": f"/acme/{client.base.rpartition('/')[2]}/new-order",
             "query_string": b"", "headers": [(b"content-type", JOSE.encode())]}  # fmt: skip
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    client.world.run(AcmeDoor(Response(status_code=404), client.world.services)(scope, receive, send))

    assert sent[0]["status"] == 400


# --- nonces -----------------------------------------------------------------------------------------------------------


def test_a_nonce_is_good_once_however_it_is_written(client: Client) -> None:
    """The last letter of 26 octets in base 64 has two bits that mean nothing."""
    nonce, kid = client.fresh_nonce(), client.kid or ""
    order = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = order.index(nonce[-1])
    twins = [nonce[:-1] + order[last // 4 * 4 + n] for n in range(4)]
    answers = []
    for twin in dict.fromkeys([nonce, *twins]):
        body = jose.signed_request(None, url=kid, nonce=twin, key=client.key, kid=kid)
        answers.append(client.raw(kid, body).status_code)
    assert answers.count(200) == 1


# --- hosts that answer as late as they can ----------------------------------------------------------------------------


class Slow:
    """Takes the place of `proofs.look`: names below slow.example are never answered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = 0
        monkeypatch.setattr(proofs, "look", self.look)
        monkeypatch.setattr(protocol, "_WORTH_WAITING", 0.01)

    async def look(self, services: Any, kind: str, name: str, *_: Any) -> AcmeProblem | None:
        if name.endswith("slow.example"):
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                await asyncio.Event().wait()
            finally:
                self.now -= 1
        return None


def begin_all(client: Client, order: Any) -> list[int]:
    urls = [client.challenge(client.read(url), "http-01")["url"] for url in order["authorizations"]]
    return [client.post(url, {}).status_code for url in urls]


@pytest.fixture
def narrow(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for few looks at once."""
    for name, number in (("_AT_ONCE", 4), ("_OF_ONE", 2), ("_AT_ONCE_AT_WORK", 3), ("_PATIENCE", 0.01)):
        monkeypatch.setattr(proofs, name, number)
    world.services.ports[Prover] = Prover(world.services)  # type: ignore[index]  # a plain dict, in the tests


@pytest.mark.usefixtures("narrow")
def test_the_slow_hosts_of_one_client_keep_no_other_waiting(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    begin_all(client, client.order(*(f"h{number}.slow.example" for number in range(6))).json())

    other = beside(client)
    order = other.order("www.example").json()
    # Its answer comes as soon as that is looked at.
    monkeypatch.setattr(protocol, "_WORTH_WAITING", 60)
    begin_all(other, order)

    assert other.read(other.order_url(order))["status"] == "ready"
    assert slow.most == 2


@pytest.mark.usefixtures("narrow")
def test_nor_do_they_keep_the_worker_from_other_work(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    monkeypatch.setattr(Prover, "begin", lambda *_: None)
    order = client.order(*(f"h{number}.slow.example" for number in range(5))).json()
    begin_all(client, order)
    ids = [url.rpartition("/")[2] for url in order["authorizations"]]

    async def work() -> list[datetime]:
        services = world.services
        going = {asyncio.create_task(services.jobs.run_step(services, VALIDATE_STEP, one)) for one in ids}
        while len(going) > 2:
            _, going = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
        assert slow.now == 2
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        z = acme_authorizations.c
        async with services.db.read() as tx:
            return list((await tx.scalars(sa.select(z.next_step_at).where(z.step_lease_until.is_(None)))).all())

    assert world.run(work()) == [world.clock.now() + timedelta(seconds=30)] * 3


def test_an_account_has_so_many_challenges_under_way(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    Slow(monkeypatch)
    monkeypatch.setattr(rules, "MOST_UNDER_WAY", 2)
    order = client.order("a.slow.example", "b.slow.example", "c.slow.example").json()

    assert begin_all(client, order) == [200, 200, 429]

    refused = client.challenge(client.read(order["authorizations"][2]), "http-01")
    assert refused["status"] == "pending"
    response = client.post(refused["url"], {})
    assert (problem(response), response.headers["retry-after"]) == ("rateLimited", "10")
    assert client.post(refused["url"], None).status_code == 200, "looking isn't limited"


def test_servers_that_answer_each_question_late_are_not_asked_for_ever(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proofs, "_SECONDS_IN_ALL", 0.05)

    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(validation, "follow", never)
    order = client.order("www.example").json()
    challenge = client.challenge(client.read(order["authorizations"][0]), "dns-01")
    client.look(challenge)

    said = client.post(challenge["url"], None).json()

    assert said["status"] == "processing", "it is looked at twice more"
    assert "within 0.05 seconds" in said["error"]["detail"]


# --- keys for binding -------------------------------------------------------------------------------------------------


def eab_client(world: World, net: Outside, **key: Any) -> tuple[Client, acme_server.NewEabKey]:
    directory = open_directory(world, eab_required=True)
    made = acme_server.create_eab_key(world.services, world.actor, directory.id, name="shop", **key)
    return Client(world, directory, net), world.run(made)


def registration(client: Client, key: acme_server.NewEabKey) -> bytes:
    url = client.at("new-account")
    binding = jose.external_account_binding(client.key, url=url, kid=key.key.id, mac_key=jose.from_b64url(key.secret))
    payload = {"externalAccountBinding": binding}
    return jose.signed_request(payload, url=url, nonce=client.fresh_nonce(), key=client.key)


def test_a_key_for_one_account_binds_one_however_many_come_at_once(world: World, net: Outside) -> None:
    client, key = eab_client(world, net)
    rivals = [Client(world, SimpleNamespace(url=client.at("directory")), net, client.app) for _ in range(4)]  # type: ignore[arg-type]  # its url will do

    answers = together(client, [(client.at("new-account"), registration(one, key)) for one in rivals])

    assert sorted(answer.status_code for answer in answers) == [201, 403, 403, 403]
    assert {problem(answer) for answer in answers if answer.status_code == 403} == {"unauthorized"}


def test_a_client_that_registers_twice_at_once_has_one_account(world: World, net: Outside) -> None:
    client, key = eab_client(world, net)

    answers = together(client, [(client.at("new-account"), registration(client, key)) for _ in range(3)])

    assert sorted(answer.status_code for answer in answers) == [200, 200, 201]
    assert len({answer.headers["location"] for answer in answers}) == 1


def test_a_binding_made_for_another_service_is_none_here(world: World, net: Outside) -> None:
    client, key = eab_client(world, net, reusable=True)
    elsewhere = Client(world, open_directory(world, name="Elsewhere", eab_required=True), net, client.app)
    body = registration(client, key)
    assert client.raw(client.at("new-account"), body).status_code == 201
    # The whole request, its binding in a request of its own, and another binding with the key of the first service.
    bound = orjson.loads(jose.from_b64url(orjson.loads(body)["payload"]))
    elsewhere.key = client.key
    for answer in (
        elsewhere.raw(elsewhere.at("new-account"), body),
        elsewhere.post(elsewhere.at("new-account"), bound, by_key=True),
        elsewhere.raw(elsewhere.at("new-account"), registration(elsewhere, key)),
    ):
        assert problem(answer) == "unauthorized"


# --- what was promised and isn't allowed any more ---------------------------------------------------------------------


def change(world: World, **values: Any) -> None:
    directory = world.run(acme_server.list_directories(world.services, world.actor))[0]
    world.run(acme_server.update_directory(world.services, world.actor, directory.id, values))
    world.later(seconds=2)


def test_an_order_that_waited_is_judged_by_the_rules_of_the_day(world: World, client: Client) -> None:
    order = client.order("www.example").json()
    client.prove(order)

    change(world, allowed_names=["shop.example"])
    assert problem(client.post(order["finalize"], {"csr": csr("www.example")})) == "rejectedIdentifier"
    change(world, allowed_names=[], profiles=["client"])
    assert problem(client.post(order["finalize"], {"csr": csr("www.example")})) == "invalidProfile"
    change(world, profiles=["client", "server"])
    assert client.post(order["finalize"], {"csr": csr("www.example")}).json()["status"] == "valid"


def test_proofs_of_a_kind_that_isn_t_taken_any_more_aren_t_used_again(world: World, client: Client) -> None:
    change(world, reuse_days=30)
    client.obtain("www.example")
    assert client.order("www.example").json()["status"] == "ready"

    change(world, challenges=["dns-01"])

    assert client.order("www.example").json()["status"] == "pending"


# --- two at once ------------------------------------------------------------------------------------------------------


def issued_to(client: Client) -> list[tuple[str, bool]]:
    """States of the orders of an account, and whether each has a certificate."""
    query = sa.text(
        "SELECT o.status, i.id IS NOT NULL AS issued FROM acme_orders o LEFT JOIN issued_certificates i "
        "ON i.reference = o.id WHERE o.acme_account_id = :id"
    )

    async def look() -> list[tuple[str, bool]]:
        async with client.world.services.db.read() as tx:
            rows = await tx.execute(query, {"id": (client.kid or "").rpartition("/")[2]})
            return [(row.status, row.issued) for row in rows]

    return client.world.run(look())


def test_a_proof_given_up_while_the_order_is_finalized(world: World, client: Client) -> None:
    for _ in range(4):
        order = client.order("www.example").json()
        client.prove(order)
        proof = order["authorizations"][0]
        done, gone = together(client, [
            (order["finalize"], said(client, order["finalize"], {"csr": csr("www.example")})),
            (proof, said(client, proof, {"status": "deactivated"})),
        ])  # fmt: skip
        assert gone.json()["status"] == "deactivated"
        assert done.status_code == 200 or problem(done) == "orderNotReady"

    assert set(issued_to(client)) <= {("valid", True), ("invalid", False)}


def test_an_account_left_while_its_order_is_finalized_and_its_key_changed(world: World, client: Client) -> None:
    order = client.order("www.example").json()
    client.prove(order)
    kid, place, new = client.kid or "", client.at("key-change"), ec.generate_private_key(ec.SECP256R1())

    answers = together(client, [
        (kid, said(client, kid, {"status": "deactivated"})),
        (order["finalize"], said(client, order["finalize"], {"csr": csr("www.example")})),
        (place, said(client, place, jose.key_change(client.key, new, account_url=kid, url=place))),
    ])  # fmt: skip

    for answer in answers:
        assert answer.status_code == 200 or problem(answer) == "unauthorized"
    assert answers[0].json()["status"] == "deactivated"
    assert issued_to(client) == ([("valid", True)] if answers[1].status_code == 200 else [("pending", False)])
    for key in (client.key, new):
        client.key = key
        assert problem(client.post(client.at("new-order"), {})) in ("unauthorized", "malformed")


def test_two_key_changes_at_once_leave_one_key(world: World, client: Client) -> None:
    kid, place = client.kid or "", client.at("key-change")
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    bodies = [
        (place, said(client, place, jose.key_change(client.key, key, account_url=kid, url=place))) for key in keys
    ]

    answers = together(client, bodies)

    # Two of them were verified with the old key, or came when that was none any more.
    assert [answer.status_code for answer in answers].count(200) == 1
    assert {problem(answer) for answer in answers if answer.status_code != 200} <= {"unauthorized", "malformed"}
    good = []
    for key in [client.key, *keys]:
        client.key = key
        good.append(client.post(kid, None).status_code)
    assert good == [400, *(200 if answer.status_code == 200 else 400 for answer in answers)]


def test_a_certificate_is_revoked_once_however_many_ask(world: World, client: Client) -> None:
    leaf = client.obtain("www.example")[0].public_bytes(serialization.Encoding.DER)
    url = client.at("revoke-cert")

    answers = together(client, [(url, said(client, url, {"certificate": b64url(leaf)})) for _ in range(3)])

    assert sorted(answer.status_code for answer in answers) == [200, 400, 400]
    assert {problem(answer) for answer in answers if answer.status_code == 400} == {"alreadyRevoked"}


# --- where a name leads -----------------------------------------------------------------------------------------------


def test_a_file_that_moved_is_followed_no_further_than_the_guard_allows(client: Client, net: Outside) -> None:
    net.records["inner.example", "A"] = ["10.1.2.3"]
    # Where the file is said to be, and whether that is where anybody looks.
    refused = ("connection", "unauthorized")
    ends = {
        f"http://elsewhere.example:{net.port}/good": None,
        "http://10.1.2.3/good": ("rejectedIdentifier",),
        "http://inner.example/good": ("rejectedIdentifier",),
        "http://[::ffff:10.1.2.3]/good": ("rejectedIdentifier",),
        "http://169.254.169.254/latest/meta-data/": ("rejectedIdentifier",),
        "http://127.0.0.1:22/good": refused,
        "file:///etc/passwd": refused,
        "gopher://127.0.0.1/": refused,
        f"http://ann:secret@127.0.0.1:{net.port}/good": refused,
        "http://www.example/\x7fgood": refused,
        "loop": refused,
    }
    order = client.order(*(f"h{number}.example" for number in range(len(ends)))).json()
    for number, (place, kinds) in enumerate(ends.items()):
        proof = client.read(order["authorizations"][number])
        challenge = client.show(proof)
        path = f"/.well-known/acme-challenge/{challenge['token']}"
        net.files["/good"] = net.files.pop(path)
        net.moved[path] = path if place == "loop" else place

        client.look(challenge)

        seen = client.post(challenge["url"], None).json()
        assert seen["status"] == ("valid" if kinds is None else "invalid"), place
        assert kinds is None or seen["error"]["type"].rpartition(":")[2] in kinds, f"{place}: {seen}"
        assert "secret" not in str(seen)


def test_aliases_that_lead_in_a_circle(world: World, client: Client, net: Outside) -> None:
    net.records["_acme-challenge.www.example", "CNAME"] = ["there.example."]
    net.records["there.example", "CNAME"] = ["_acme-challenge.www.example."]
    order = client.order("www.example").json()
    challenge = client.challenge(client.read(order["authorizations"][0]), "dns-01")

    client.look(challenge)
    for _ in range(2):
        world.later(seconds=10)
        world.drain()

    seen = client.post(challenge["url"], None).json()
    assert (seen["status"], seen["error"]["type"].rpartition(":")[2]) == ("invalid", "dns")
    assert "in a circle" in seen["error"]["detail"]


def test_more_than_a_file_could_be_isn_t_read(client: Client, net: Outside) -> None:
    order = client.order("www.example").json()
    challenge = client.show(client.read(order["authorizations"][0]))
    path = f"/.well-known/acme-challenge/{challenge['token']}"
    net.files[path] = net.files[path] + b" " * 1_000_000

    client.look(challenge)

    assert client.post(challenge["url"], None).json()["error"]["type"].endswith(":unauthorized")


# --- what answers for a name ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [
    x509.UniformResourceIdentifier("https://evil.example"), x509.RFC822Name("ann@evil.example"),
    x509.DNSName("evil.example"), x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
    x509.DirectoryName(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "evil")])),
    x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x0c\x01a"),
])  # fmt: skip
def test_a_tls_alpn_certificate_with_another_name_beside(other: x509.GeneralName) -> None:
    """RFC 8737 section 3: the name being validated and no other entries."""
    key = ec.generate_private_key(ec.SECP256R1())
    at = datetime(2026, 3, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(x509.Name([])).public_key(key.public_key())
        .serial_number(1).not_valid_before(at).not_valid_after(at + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("www.example"), other]), critical=True)
    )  # fmt: skip

    names, _ = read_tls_alpn(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER))

    assert names != ("www.example",)
    assert len(names) == 2


# --- processes --------------------------------------------------------------------------------------------------------


def test_a_process_that_needs_a_key_waits_for_the_one_that_is_making_it(world: World) -> None:
    async def start() -> tuple[str, str]:
        nonces, now = Nonces(world.services), world.clock.now()
        async with world.services.db.begin() as tx:
            values = {"id": "acn_first", "key": b"k" * 32, "created_at": now}
            await tx.execute(sa.insert(acme_nonce_keys).values(values))
            making = asyncio.create_task(nonces.fresh())
            waits = sa.text(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'acme_nonce_keys'::regclass"
            )
            while not making.done() and not await tx.scalar(waits):
                await asyncio.sleep(0)
        return await nonces.check(await making)

    assert world.run(start())[1] == "acn_first"


def test_as_many_orders_at_once_as_there_are_connections(world: World, net: Outside) -> None:
    client = Client(world, open_directory(world, reuse_days=1), net).register()
    limits = authorities.PolicyLimits(allowed=(".",))
    world.run(authorities.create_policy(world.services, world.actor, "everything", limits))
    world.later(seconds=2)
    url = client.at("new-order")
    payload = {"identifiers": [{"type": "dns", "value": "www.example"}]}
    count = 2 * world.services.settings.database_pool
    answers = together(client, [(url, said(client, url, payload)) for _ in range(count)])

    assert {answer.status_code for answer in answers} == {201}
