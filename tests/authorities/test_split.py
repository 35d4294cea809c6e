"""Signing apart: one real `serve --split`, which works whole, and whose web process tries to get at the keys of CAs."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import ssl
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library
from pydantic import SecretStr

from certwright.entry import wiring
from certwright.entry.cli.client import Api
from certwright.entry.cli.errors import CliError
from certwright.entry.cli.session import sign_in
from certwright.entry.cli.settings import Connection
from certwright.entry.demo.servers import Product
from certwright.entry.serve import running_services
from certwright.kernel.problems import Problem, Unavailable
from certwright.platform import confinement
from certwright.platform.config import Settings
from certwright.platform.vault import FileKeyKeeper, Vault
from certwright.rooms import authorities
from certwright.rooms.authorities import hsm, remote
from certwright.x509 import crl, ocsp
from certwright.x509.ca_requests import draft_request
from certwright.x509.certificates import to_pem
from certwright.x509.csr import make_csr
from certwright.x509.csr import to_pem as csr_to_pem
from certwright.x509.issue import (
    ISSUING,
    ROOT,
    SERVER,
    IssuerFacts,
    Profile,
    Subject,
    approve,
    assemble,
    draft_certificate,
    issuer_facts,
    new_serial,
    sign_with_key,
    validity,
)
from certwright.x509.judgement import profile_words
from certwright.x509.keys import KeyAlgorithm, PublicKey, generate, to_pkcs8_pem
from tests.authorities.test_signing_units import asked_as_nobody

T = TypeVar("T")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked up in /proc")
needs_landlock = pytest.mark.skipif(not confinement.can_forbid(), reason="this kernel has no Landlock")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")

PASSWORD = "a long enough passphrase 7"  # of a throw-away product
BOUND = 60.0  # seconds; only reached when something is broken

# What somebody does who has taken over a process: at a signal it runs whatever lies in a file.
TAKEN_OVER = """
import os, signal, sys
def obey(*_):
    place = os.environ["TAKEN_OVER"]
    exec(open(place + "/orders").read(), {"place": place})
if {"web", "worker"} & set(sys.orig_argv):
    signal.signal(signal.SIGUSR1, obey)
"""


@dataclass(frozen=True)
class Running:
    product: Product
    api: Api
    home: Path

    @property
    def data(self) -> Path:
        return self.home / "data"

    def pid(self, role: str) -> int:
        """Of the process with this role, once there is one; of the first web process."""
        return until(lambda: self.pids(role))[0]

    def pids(self, role: str) -> list[int]:
        found: list[int] = []
        for pid in Path(f"/proc/{self.product.pid}/task/{self.product.pid}/children").read_text().split():
            try:
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except FileNotFoundError:
                continue
            if role.encode() in arguments:
                found.append(int(pid))
        return sorted(found)

    def connections(self) -> dict[str, list[int]]:
        """By the memory that web processes count them in: how many each says it has."""
        found: dict[str, list[int]] = {}
        for pid in self.pids("web"):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            shares = Path(f"/proc/{pid}/fd/{int(arguments[arguments.index(b'--shares-fd') + 1])}")
            counts = shares.read_bytes()
            found[str(shares.stat().st_ino)] = [
                int.from_bytes(counts[at : at + 4], sys.byteorder) for at in range(0, len(counts), 4)
            ]
        return found

    def url(self, role: str) -> str:
        lines = (self.data / "signing" / "pgpass").read_text().splitlines()
        (password,) = [line.split(":")[4] for line in lines if line.split(":")[3] == role]
        return f"postgresql://{role}:{password}@/certwright?host={self.data / 'postgres' / 'cluster'}"

    def query(self, text: str, *values: object, role: str = "certwright") -> list[Any]:
        async def ask() -> list[Any]:
            connection = await asyncpg.connect(self.url(role))
            try:
                return list(await connection.fetch(text, *values))
            finally:
                await connection.close()

        return asyncio.run(ask())

    def key_of(self, ca: dict[str, Any]) -> str:
        return str(self.query("SELECT ca_key_id FROM authorities WHERE id = $1", ca["id"])[0][0])

    def ask(self, head: dict[str, Any], octets: bytes = b"") -> tuple[Any, bytes]:
        """Over the socket, as any process of this user could. Raises what is answered."""

        async def go() -> tuple[Any, bytes]:
            signer = remote.RemoteSigner(self.data / "signing" / "socket")
            try:
                return await signer._ask(head, octets, BOUND)
            finally:
                signer.close()

        return asyncio.run(go())

    def refusal(self, head: dict[str, Any], octets: bytes = b"") -> Problem:
        with pytest.raises(Problem) as caught:
            self.ask(head, octets)
        return caught.value

    def fetch(self, url: str) -> bytes:
        with httpx2.Client(verify=ssl.create_default_context(cafile=str(self.product.root))) as web:
            answer = web.get(url)
        return answer.content if answer.status_code == 200 else b""


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("split")
    orders = home / "orders"
    orders.mkdir()
    (orders / "sitecustomize.py").write_text(TAKEN_OVER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(orders))
        patch.setenv("TAKEN_OVER", str(orders))
        options = ["--split", "--processes", "2"]
        product = Product(home / "data", home / "log", {"ALLOWED_NETWORKS": "127.0.0.0/8"}, options=options)
    try:
        token = product.start()
        with Api(Connection(product.url, None, product.root)) as api:
            person = {"email": "ann@one.example", "name": "Ann", "password": PASSWORD, "account_name": "One"}
            api.call("POST", "/setup", body={"token": token, **person})
            made, _ = sign_in(api, "ann@one.example", PASSWORD, name="tests", days=30)
        with Api(Connection(product.url, made["token"], product.root)) as api:
            yield Running(product, api, home)
    finally:
        product.stop()


def until(fact: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + BOUND
    while not (found := fact()):
        assert time.monotonic() < deadline, "the awaited fact did not come about"
        time.sleep(0.02)
    return found


def make(split: Running, name: str, **wanted: Any) -> dict[str, Any]:
    body = {"name": name, "subject": {"common_name": name}} | wanted
    made: dict[str, Any] = split.api.call("POST", "/authorities", body=body).document
    return made


def library_certificate(ca: dict[str, Any]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(ca["certificate_pem"].encode())


def facts(ca: dict[str, Any]) -> IssuerFacts:
    return issuer_facts(library_certificate(ca).public_bytes(Encoding.DER))


@pytest.fixture(scope="module")
def root(split: Running) -> dict[str, Any]:
    return make(split, "Apart root")


@pytest.fixture(scope="module")
def low(split: Running, root: dict[str, Any]) -> dict[str, Any]:
    return make(split, "Apart issuing", parent_id=root["id"], path_len=0, ocsp_enabled=True)


def issue(split: Running, ca: dict[str, Any], name: str) -> dict[str, Any]:
    csr = csr_to_pem(make_csr(generate(KeyAlgorithm.EC_P256), [name])).decode()
    body = {"requests": [{"profile": "server", "names": [name], "csr": csr}]}
    (item,) = split.api.call("POST", f"/authorities/{ca['id']}/issued", body=body).document["items"]
    assert item["problem"] is None
    issued: dict[str, Any] = item["certificate"]
    return issued


# --- it works whole --------------------------------------------------------------------------------------------------


def test_cas_certificates_lists_and_answers_are_signed_by_the_signing_process(
    split: Running, low: dict[str, Any]
) -> None:
    issued = issue(split, low, "www.example.com")
    certificate = library_certificate(issued)
    certificate.verify_directly_issued_by(library_certificate(low))
    split.api.call("POST", f"/authorities/{low['id']}/issued/{issued['id']}/revoke", body={"reason": "superseded"})

    def listed() -> bool:
        found = split.fetch(low["crl_url"])
        return bool(found) and issued["serial"] in crl.read_crl(found, issuer=facts(low)).entries

    until(listed)
    question = library.OCSPRequestBuilder().add_certificate(certificate, library_certificate(low), hashes.SHA1())
    path = base64.b64encode(question.build().public_bytes(Encoding.DER)).decode().replace("/", "%2F")

    def answered() -> library.OCSPResponse | None:
        answer = library.load_der_ocsp_response(split.fetch(f"{low['ocsp_url']}/{path}"))
        return answer if answer.response_status is library.OCSPResponseStatus.SUCCESSFUL else None

    assert until(answered).certificate_status is library.OCSPCertStatus.REVOKED


def test_an_experimental_key_is_made_and_used_there_too(split: Running) -> None:
    made = make(split, "Apart lattice", key_algorithm="ML_DSA_65")

    def listed() -> bytes:
        return split.fetch(made["crl_url"])

    assert x509.load_der_x509_crl(until(listed)).is_signature_valid(library_certificate(made).public_key())  # type: ignore[arg-type]


def test_a_ca_below_a_parent_outside_asks_for_its_certificate(split: Running) -> None:
    made = make(split, "Apart outside", outside=True)
    request = x509.load_pem_x509_csr(made["csr_pem"].encode())
    assert request.is_signature_valid
    # The key waits for its certificate and signs nothing else until then.
    asked = {"do": "sign", "kind": "certificate", "key_id": split.key_of(made), "hash": "sha256"}
    tbs = drafted(None, profile=ROOT, public=request.public_key()).tbs
    assert split.refusal(asked | {"profile": profile_words(ROOT)}, tbs).code == "signer_refused"


def test_a_ca_is_brought_along_and_a_second_try_takes_the_key_of_the_first(split: Running) -> None:
    key = generate(KeyAlgorithm.EC_P256)
    linted = approve(drafted(None, profile=ROOT, public=key.public_key()))
    der = assemble(linted, sign_with_key(key, linted.tbs, linted.hash_name))
    body = {"certificate": to_pem(der), "private_key": to_pkcs8_pem(key).decode()}
    make(split, "Taken name")
    with pytest.raises(CliError) as caught:
        split.api.call("POST", "/authorities/import", body=body | {"name": "Taken name"})
    assert caught.value.code == "ca_name_taken"
    brought = split.api.call("POST", "/authorities/import", body=body | {"name": "Brought"}).document
    assert brought["state"] == "active"
    with pytest.raises(CliError) as caught:
        split.api.call("POST", "/authorities/import", body=body | {"name": "Brought again"})
    assert caught.value.code == "ca_key_known"


# --- the web process tries -------------------------------------------------------------------------------------------

TRIES = """
import json, os, subprocess
tries = json.load(open(place + "/tries"))
found = {}
for name, code in tries.items():
    try:
        found[name] = "got " + str(eval(code))[:80]
    except Exception as error:
        found[name] = type(error).__name__
with open(place + "/found.new", "w") as file:
    json.dump(found, file)
os.rename(place + "/found.new", place + "/found")
"""


@needs_landlock
@pytest.mark.parametrize("role", ["web", "worker"])
def test_a_process_that_was_taken_over_reaches_neither_files_nor_memory_of_the_others(
    split: Running, low: dict[str, Any], role: str
) -> None:
    orders, data = split.home / "orders", split.data
    cluster, parent, signer = data / "postgres" / "cluster", split.product.pid, split.pid("signer")
    (orders / "orders").write_text(textwrap.dedent(TRIES))
    tries = {
        "control: its own keyring": f"open({str(data / 'keys' / 'keyring.json')!r}).read()",
        "the keyring of CA keys": f"open({str(data / 'signing' / 'keyring.json')!r}).read()",
        "through a program": f"subprocess.check_output(['cat', {str(data / 'signing' / 'keyring.json')!r}])",
        "under another name": f"os.link({str(data / 'signing' / 'keyring.json')!r}, {str(data / 'tmp' / 'k')!r})",
        "moved away": f"os.rename({str(data / 'signing')!r}, {str(data / 'tmp' / 'signing')!r})",
        "passwords of the database": f"open({str(data / 'signing' / 'pgpass')!r}).read()",
        "tables behind the database": f"open({str(cluster / 'PG_VERSION')!r}).read()",
        "who may connect": f"open({str(cluster / 'pg_hba.conf')!r}, 'w').write('local all all trust')",
        "who may connect, anew": f"open({str(cluster / 'pg_hba.conf.mine')!r}, 'w').write('local all all trust')",
        "memory of the signing process": f"open('/proc/{signer}/mem', 'rb').read(1)",
        "memory of the parent": f"open('/proc/{parent}/mem', 'rb').read(1)",
        "environment of the parent": f"open('/proc/{parent}/environ', 'rb').read(1)",
        "open files of the parent": f"os.listdir('/proc/{parent}/fd') and os.readlink('/proc/{parent}/fd/0')",
        "the signing process's root": f"open('/proc/{signer}/root{data}/signing/keyring.json').read()",
        "ending the signing process": f"os.kill({signer}, 9)",
    }
    if role == "worker":
        del tries["ending the signing process"]  # it reloads servers, which takes signals
    (orders / "found").unlink(missing_ok=True)
    (orders / "tries").write_text(json.dumps(tries))
    os.kill(split.pid(role), signal.SIGUSR1)
    until((orders / "found").exists)
    found = json.loads((orders / "found").read_text())
    assert found.pop("control: its own keyring").startswith("got {"), "the tries are real"
    assert found.keys() == tries.keys() - {"control: its own keyring"}
    assert {name: what for name, what in found.items() if what.startswith("got ")} == {}
    assert not (data / "tmp" / "k").exists()
    assert issue(split, low, "after.example.com")["serial"]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT sealed FROM ca_keys",
        "SELECT * FROM ca_keys",
        "SELECT k FROM ca_keys k",
        "COPY ca_keys TO STDOUT",
        "COPY ca_keys (sealed) TO PROGRAM 'cat'",
        "CREATE TEMP VIEW mine AS SELECT sealed FROM ca_keys; SELECT * FROM mine",
        "SELECT sealed FROM ca_keys WHERE sealed > ''",
        "UPDATE ca_keys SET algorithm = encode(sealed, 'hex')",
        "UPDATE ca_keys SET erased_at = now()",
        "DELETE FROM ca_keys",
        "ALTER TABLE ca_keys OWNER TO certwright_app",
        "GRANT SELECT ON ca_keys TO certwright_app",
        "CREATE TRIGGER mine BEFORE UPDATE ON ca_keys EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE FUNCTION mine() RETURNS bytea SECURITY DEFINER LANGUAGE sql AS 'SELECT sealed FROM ca_keys LIMIT 1'",
        "CREATE TABLE mine (n int)",
        "SET ROLE certwright",
        "SET ROLE certwright_signer",
        "SET SESSION AUTHORIZATION certwright",
        "ALTER ROLE certwright_app SUPERUSER",
        "ALTER ROLE certwright PASSWORD 'known'",
        "GRANT certwright TO certwright_app",
        "CREATE ROLE mine LOGIN",
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_read_file('PG_VERSION')",
        "SELECT lo_import('PG_VERSION')",
        "UPDATE alembic_version SET version_num = '0'",
    ],
)
def test_the_database_role_of_web_and_worker_gets_no_ca_key(split: Running, statement: str) -> None:
    async def attempt() -> None:
        connection = await asyncpg.connect(split.url("certwright_app"))
        try:
            async with connection.transaction():
                await connection.execute(statement)
        finally:
            await connection.close()

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        asyncio.run(attempt())


def test_without_its_password_no_role_connects(split: Running) -> None:
    async def attempt(role: str) -> None:
        await asyncpg.connect(split.url(role).replace(split.url(role).split(":")[2].split("@")[0], "wrong"))

    for role in ("postgres", "certwright", "certwright_signer", "certwright_app"):
        with pytest.raises(asyncpg.InvalidPasswordError):
            asyncio.run(attempt(role))


def test_the_role_of_the_signing_process_reads_nothing_but_what_it_judges_by(split: Running) -> None:
    readable = split.query(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        " AND has_table_privilege('certwright_signer', oid, 'SELECT, INSERT, UPDATE, DELETE') ORDER BY relname"
    )
    assert [row[0] for row in readable] == ["alembic_version", "authorities", "ca_keys", "ocsp_responders"]


def test_the_keyring_of_the_web_process_opens_no_ca_key(split: Running, root: dict[str, Any]) -> None:
    (row,) = split.query("SELECT id, sealed FROM ca_keys WHERE id = $1", split.key_of(root))
    with pytest.raises(Unavailable) as caught:
        Vault(FileKeyKeeper(split.data / "keys" / "keyring.json")).open(row["sealed"], f"ca_keys:{row['id']}")
    assert caught.value.code == "keyring_key_missing"
    own = Vault(FileKeyKeeper(split.data / "signing" / "keyring.json"))
    assert own.open(row["sealed"], f"ca_keys:{row['id']}"), "the value is whole"


def test_a_process_with_the_owners_role_does_not_start_as_a_guest(split: Running) -> None:
    guest = guests_settings(split).model_copy(update={"database_url": SecretStr(split.url("certwright"))})

    async def start() -> None:
        async with running_services(guest):
            pass

    with pytest.raises(Unavailable) as caught:
        asyncio.run(start())
    assert caught.value.code == "database_role_too_strong"


def guests_settings(split: Running) -> Settings:
    return Settings(
        data_dir=split.data, database_url=SecretStr(split.url("certwright_app")), database_pool=3,
        signer_socket=split.data / "signing" / "socket",
    )  # fmt: skip


# --- over the socket -------------------------------------------------------------------------------------------------


def drafted(
    issuer: IssuerFacts | None, *, profile: Profile = SERVER, public: Any = None,
    names: tuple[str, ...] = ("x.example",), longer: timedelta = timedelta(0),
) -> Any:  # fmt: skip
    start, end = validity(profile, issuer, at=datetime.now(UTC))
    key: PublicKey = public or generate(KeyAlgorithm.EC_P256).public_key()
    return draft_certificate(
        profile=profile, subject=Subject(common_name="Draft" if profile.is_ca else None),
        names=() if profile.is_ca else names, public_key=key, issuer=issuer, serial=new_serial(), not_before=start,
        not_after=end + longer,
    )  # fmt: skip


def test_the_control_a_good_certificate_is_signed(split: Running, low: dict[str, Any]) -> None:
    draft = drafted(facts(low))
    head = {"do": "sign", "kind": "certificate", "key_id": split.key_of(low), "hash": "sha256"}
    _, signature = split.ask(head | {"profile": profile_words(SERVER)}, draft.tbs)
    assert assemble(approve(draft), signature)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("octets that are nothing", "signer_refused"),
        ("a text", "signer_refused"),
        ("a certificate of another CA", "lint_failed"),
        ("a certificate of a made-up CA with the same name", "lint_failed"),
        ("a certificate that lives too long", "lint_failed"),
        ("a certificate for a name that isn't one", "lint_failed"),
        ("a CA below one that may have none", "lint_failed"),
        ("a second root of the same key", "signer_refused"),
        ("a certificate by a profile that makes CAs of leaves", "profile_invalid"),
        ("a certificate by a profile that answers for the CA", "profile_invalid"),
        ("a certificate to be signed with another hash", "signer_refused"),
        ("a certificate with something behind it", "lint_failed"),
        ("a certificate as a list", "signer_refused"),
        ("a list of another CA", "signer_refused"),
        ("a list of tomorrow", "signer_refused"),
        ("a list that is good for a year", "signer_refused"),
        ("an answer", "signer_refused"),
        ("a request for another key", "signer_refused"),
        ("an unknown kind", "signer_refused"),
        ("more octets than a certificate has", "signer_refused"),
    ],
)
def test_the_signing_process_judges_for_itself(
    split: Running, root: dict[str, Any], low: dict[str, Any], what: str, code: str
) -> None:
    own, other, now = facts(low), facts(root), datetime.now(UTC)
    key = generate(KeyAlgorithm.EC_P256)
    forged = drafted(None, profile=ROOT, public=key.public_key())
    body = {"key_usage": ["digital_signature"], "extended_key_usage": ["client_auth"], "max_days": 90}
    made_up = issuer_facts(assemble(approve(forged), sign_with_key(key, forged.tbs, forged.hash_name)))
    head: dict[str, Any] = {"kind": "certificate", "profile": profile_words(SERVER), "hash": "sha256"}
    question = ocsp.Question("sha1", *ocsp.issuer_digests(own, "sha1"), 1)
    list_of = lambda issuer, at, days: crl.draft_crl(issuer, 9, at, at + timedelta(days=days), []).tbs  # noqa: E731
    is_list = {"kind": "list"}
    asked: dict[str, tuple[bytes, dict[str, Any]]] = {
        "octets that are nothing": (os.urandom(300), {}),
        "a text": (b"pay Mallory 1000", {}),
        "a certificate of another CA": (drafted(other).tbs, {}),
        "a certificate of a made-up CA with the same name": (drafted(made_up).tbs, {}),
        "a certificate that lives too long": (drafted(own, longer=timedelta(days=1)).tbs, {}),
        "a certificate for a name that isn't one": (drafted(own, names=("not_a_name",)).tbs, {}),
        "a CA below one that may have none": (
            drafted(own, profile=ISSUING).tbs, {"profile": profile_words(ISSUING)}
        ),
        "a second root of the same key": (
            drafted(None, profile=ROOT, public=own.public_key).tbs, {"profile": profile_words(ROOT)}
        ),
        "a certificate by a profile that makes CAs of leaves": (
            drafted(own).tbs, {"profile": {"name": "mine", "body": body | {"key_usage": ["key_cert_sign"]}}}
        ),
        "a certificate by a profile that answers for the CA": (
            drafted(own).tbs,
            {"profile": {"name": "mine", "body": body | {"extended_key_usage": ["1.3.6.1.5.5.7.3.9"]}}},
        ),
        "a certificate to be signed with another hash": (drafted(own).tbs, {"hash": "sha512"}),
        "a certificate with something behind it": (drafted(own).tbs + b"\x05\x00", {}),
        "a certificate as a list": (drafted(own).tbs, is_list),
        "a list of another CA": (list_of(other, now, 7), is_list),
        "a list of tomorrow": (list_of(own, now + timedelta(days=1), 7), is_list),
        "a list that is good for a year": (list_of(own, now, 365), is_list),
        "an answer": (
            ocsp.draft_answer(question, ocsp.Answer(ocsp.Status.GOOD, now, now + timedelta(days=1)), own.der).tbs,
            {"kind": "answer"},
        ),
        "a request for another key": (
            draft_request(Subject(common_name="x"), key.public_key(), None, None).tbs, {"kind": "request"}
        ),
        "an unknown kind": (drafted(own).tbs, {"kind": "anything"}),
        "more octets than a certificate has": (bytes(1024 * 1024 + 1), {}),
    }  # fmt: skip
    octets, differently = asked[what]
    problem = split.refusal({"do": "sign", "key_id": split.key_of(low)} | head | differently, octets)
    assert problem.code == code, problem.message


def test_a_responders_key_signs_answers_about_its_own_ca_only(
    split: Running, root: dict[str, Any], low: dict[str, Any]
) -> None:
    def responder() -> list[Any]:
        return split.query("SELECT ca_key_id, certificate_der FROM ocsp_responders WHERE authority_id = $1", low["id"])

    (row,) = until(responder)
    now = datetime.now(UTC)
    said = ocsp.Answer(ocsp.Status.GOOD, now, now + timedelta(days=1))
    head = {"do": "sign", "key_id": row["ca_key_id"], "hash": "sha256", "kind": "answer"}
    good, strange = (
        ocsp.draft_answer(
            ocsp.Question("sha1", *ocsp.issuer_digests(facts(ca), "sha1"), 7), said, row["certificate_der"]
        )
        for ca in (low, root)
    )
    _, signature = split.ask(head, good.tbs)
    assert ocsp.assemble(good, signature)
    assert split.refusal(head, strange.tbs).code == "signer_refused"
    certificate = {"kind": "certificate", "profile": profile_words(SERVER)}
    assert split.refusal(head | certificate, drafted(facts(low)).tbs).code == "signer_refused"


def test_a_key_a_ca_uses_is_not_erased_for_whoever_asks(split: Running, low: dict[str, Any]) -> None:
    assert split.refusal({"do": "erase_key", "key_id": split.key_of(low)}).code == "signer_refused"
    assert issue(split, low, "still.example.com")["serial"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\xff\x00\x00\x00\x00",
        b"\x00\x00\x00\x02\xff\xff\xff\xff{}",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00\x00\x00\x02\x00\x00\x00\x00[]",
        b"\x00\x00\x00\x04\x00\x00\x00\x00null",
    ],
)
def test_what_is_no_question_ends_the_connection_and_costs_nothing(split: Running, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(BOUND)
        with remote.address_of(split.data / "signing" / "socket") as address:
            connection.connect(address)
        connection.sendall(sent)
        assert connection.recv(1) == b""
    assert split.refusal({"do": "anything"}).code == "signer_refused", "the next one is answered"


def test_the_socket_is_its_users_own(split: Running) -> None:
    assert (split.data / "signing" / "socket").stat().st_mode & 0o777 == 0o600
    assert (split.data / "signing").stat().st_mode & 0o777 == 0o700


@needs_root
def test_another_user_is_turned_away_even_where_the_files_let_him_in(split: Running) -> None:
    folder = split.data / "signing"
    directory = os.open(folder, os.O_PATH)
    folder.chmod(0o711)
    (folder / "socket").chmod(0o666)
    try:
        assert asked_as_nobody(f"/proc/self/fd/{directory}/socket", [], (directory,)) == "closed"
    finally:
        (folder / "socket").chmod(0o600)
        folder.chmod(0o700)
        os.close(directory)


# --- keys are rotated ------------------------------------------------------------------------------------------------


def test_both_keyrings_are_rotated_under_the_running_product(split: Running, root: dict[str, Any]) -> None:
    """The old ones are destroyed. That the signing process opens CA keys by the new ones shows when it is killed."""

    async def rotate() -> list[int]:
        done = []
        async with running_services(Settings(data_dir=split.data, database_pool=3), owner=True) as services:
            for vault in (services.vault, services.port(authorities.CaVault)):
                assert isinstance(vault.keeper, FileKeyKeeper)
                fresh = vault.keeper.rotate()
                done.append(await vault.rewrap(services.db))
                vault.keeper.forget(fresh)
        return done

    others, of_cas = asyncio.run(rotate())
    assert others >= 1, "the console's own key"
    assert of_cas == split.query("SELECT count(*) FROM ca_keys WHERE sealed IS NOT NULL")[0][0]
    assert make(split, "After the rotation", parent_id=root["id"], path_len=0)["state"] == "active"


def test_two_web_processes_count_their_connections_in_one_memory_and_share_them(split: Running) -> None:
    def both() -> list[int]:
        (counts,) = split.connections().values()
        return counts

    assert len(until(lambda: split.pids("web") if len(split.pids("web")) == 2 else None)) == 2
    until(lambda: max(both()) < 1000)  # what doesn't serve yet counts as having more than everybody
    before = sum(both())
    trust = ssl.create_default_context(cafile=str(split.product.root))
    address = urlsplit(split.product.url)
    held: list[ssl.SSLSocket] = []
    try:
        # Whoever has more leaves the next one to the other: a few suffice, where one process got none of any number.
        while min(both()) < 3:
            assert len(held) < 100, both()
            plain = socket.create_connection((address.hostname or "", address.port or 443), timeout=BOUND)
            held.append(trust.wrap_socket(plain, server_hostname=address.hostname))
        until(lambda: sum(both()) >= before + len(held))
    finally:
        for connection in held:
            connection.close()
    until(lambda: sum(both()) <= before)


# --- what a crash leaves ---------------------------------------------------------------------------------------------


def test_a_key_nobody_came_to_use_is_erased_and_one_that_is_used_is_not(split: Running, root: dict[str, Any]) -> None:
    """As after a kill between the making of the key and the commit of the CA it was made for."""
    head, _ = split.ask({"do": "create_key", "algorithm": "EC_P256", "store": "software"})
    fresh, _ = split.ask({"do": "create_key", "algorithm": "EC_P256", "store": "software"})
    used = split.key_of(root)
    long_ago = datetime.now(UTC) - timedelta(days=2)
    split.query("UPDATE ca_keys SET created_at = $1 WHERE id = ANY($2)", long_ago, [head["key_id"], used])

    async def clear_up() -> None:
        services = await wiring.build(guests_settings(split))
        try:
            await hsm.destroy_abandoned(services)
        finally:
            await wiring.aclose(services)

    asyncio.run(clear_up())
    kept = split.query("SELECT id FROM ca_keys WHERE sealed IS NOT NULL")
    assert {fresh["key_id"], used} <= {row["id"] for row in kept}
    assert head["key_id"] not in {row["id"] for row in kept}


def test_a_killed_signing_process_is_said_and_started_again(split: Running, low: dict[str, Any]) -> None:
    pid = split.pid("signer")
    os.kill(pid, signal.SIGKILL)
    until(lambda: not authorities.is_signer_there(split.data / "signing" / "socket"))
    with pytest.raises(CliError) as caught:
        issue(split, low, "meanwhile.example.com")
    assert caught.value.code == "signer_unavailable"

    until(lambda: authorities.is_signer_there(split.data / "signing" / "socket"))
    assert issue(split, low, "again.example.com")["serial"]
    assert split.pid("signer") != pid
