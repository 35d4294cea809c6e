"""Asking the signing process, and how both sides speak.

A question and its answer are one frame each: two lengths of four octets (big-endian), a head in JSON and octets. One
connection carries one question at a time; a process keeps a few of them open. What the signing process changed stays
when the caller's transaction is rolled back: keys no CA came to use are found and erased later (`destroy_abandoned`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import orjson
from cryptography.hazmat.primitives import serialization

from certwright.kernel import problems
from certwright.kernel.problems import Problem, Refused, Unavailable
from certwright.platform.db import Tx
from certwright.rooms.authorities.signer import Document
from certwright.rooms.authorities.words import KeyStore, TokenState
from certwright.x509.ca_requests import RequestDraft
from certwright.x509.crl import CrlDraft
from certwright.x509.issue import Linted
from certwright.x509.judgement import profile_words
from certwright.x509.keys import CaKeyAlgorithm, CaPrivateKey, CaPublicKey, to_pkcs8_der
from certwright.x509.ocsp import OcspDraft

LENGTHS: Final = struct.Struct(">II")
# A profile of sixteen large extensions, in base 64.
MAX_HEAD: Final = 256 * 1024
# A signature, a public key.
_MAX_ANSWER: Final = 64 * 1024
_CONNECTIONS: Final = 8
_SUN_PATH: Final = 103  # octets, on the BSDs and macOS; Linux allows 107

_KINDS: Final[Mapping[str, type[Problem]]] = {
    kind.__name__: kind for kind in vars(problems).values() if isinstance(kind, type) and issubclass(kind, Problem)
}


class RemoteSigner:
    """The `Signer` of web and worker where a process of its own signs. `patience`: seconds its HSM may take for a
    signature, and a tenth of what it may take for a key."""

    def __init__(self, path: Path, *, patience: float = 10.0) -> None:
        self._path = path
        # It gives up before we do, and says why.
        self._for_signature, self._for_key = patience + 5, 10 * patience + 20
        self._free = asyncio.Semaphore(_CONNECTIONS)
        self._idle: list[_Connection] = []

    async def create_key(
        self, tx: Tx, algorithm: CaKeyAlgorithm, store: KeyStore = KeyStore.SOFTWARE
    ) -> tuple[str, CaPublicKey]:
        head, octets = await self._ask({"do": "create_key", "algorithm": algorithm, "store": store}, b"", self._for_key)
        return str(head["key_id"]), cast(CaPublicKey, serialization.load_der_public_key(octets))

    async def import_key(self, tx: Tx, key: CaPrivateKey) -> str:
        head, _ = await self._ask({"do": "import_key"}, to_pkcs8_der(key), self._for_signature)
        return str(head["key_id"])

    async def sign(self, tx: Tx | None, key_id: str, document: Document) -> bytes:
        question: dict[str, Any] = {"do": "sign", "kind": kind_of(document), "key_id": key_id}
        question["hash"] = document.hash_name
        if isinstance(document, Linted):
            question["profile"] = profile_words(document.profile)
        _, signature = await self._ask(question, document.tbs, self._for_signature)
        return signature

    async def erase_key(self, tx: Tx, key_id: str) -> None:
        await self._ask({"do": "erase_key", "key_id": key_id}, b"", self._for_key)

    async def token_state(self, *, anew: bool = False) -> TokenState:
        head, _ = await self._ask({"do": "token_state", "anew": anew}, b"", self._for_key)
        state = dict(head["state"])
        return TokenState(
            **(state | {
                "handles": tuple(state["handles"]),
                "problem": None if state["problem"] is None else read_problem(state["problem"]),
            })
        )  # fmt: skip

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def _ask(self, head: Mapping[str, Any], octets: bytes, seconds: float) -> tuple[Mapping[str, Any], bytes]:
        """Raises Unavailable `signer_unavailable`, and whatever the signing process answers."""
        frame = written(head, octets)
        try:
            async with asyncio.timeout(seconds), self._free:
                answer, signature = await self._exchange(frame)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            raise Unavailable(
                "signer_unavailable", "The process that holds the CA keys doesn't answer; nothing was signed.",
                fix="Try again in a moment; if it lasts, look at the log of the signing process.",
                extra={"retry_after": 2},
            ) from error  # fmt: skip
        if "problem" in answer:
            raise read_problem(answer["problem"])
        return answer, signature

    async def _exchange(self, frame: bytes) -> tuple[Mapping[str, Any], bytes]:
        while self._idle:
            # Whether one that was open before still is shows when it is used; what is asked may be asked twice.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                return await self._over(self._idle.pop(), frame)
        return await self._over(await _Connection.to(self._path), frame)

    async def _over(self, connection: _Connection, frame: bytes) -> tuple[Mapping[str, Any], bytes]:
        done = False
        try:
            answer = await connection.exchange(frame)
            done = True
        finally:
            # Also when whoever asked has gone: the answer would be taken for the next one's.
            if done:
                self._idle.append(connection)
            else:
                connection.close()
        return answer


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, path: Path) -> _Connection:
        connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connecting.setblocking(False)
        try:
            with address_of(path) as address:
                await asyncio.get_running_loop().sock_connect(connecting, address)
            return cls(*await asyncio.open_unix_connection(sock=connecting))
        except BaseException:  # a cancelled wait too: the socket is nobody's yet
            connecting.close()
            raise

    async def exchange(self, frame: bytes) -> tuple[Mapping[str, Any], bytes]:
        self._writer.write(frame)
        await self._writer.drain()
        lengths = await self._reader.readexactly(LENGTHS.size)
        head, size = await read_head(self._reader, lengths, most=_MAX_ANSWER)
        return head, await self._reader.readexactly(size)

    def close(self) -> None:
        self._writer.close()


# --- what both sides say ---------------------------------------------------------------------------------------------


def kind_of(document: Document) -> str:
    match document:
        case Linted():
            return "certificate"
        case CrlDraft():
            return "list"
        case OcspDraft():
            return "answer"
        case RequestDraft():
            return "request"


def written(head: Mapping[str, Any], octets: bytes = b"") -> bytes:
    said = orjson.dumps(head, default=str)
    return LENGTHS.pack(len(said), len(octets)) + said + octets


async def read_head(reader: asyncio.StreamReader, lengths: bytes, *, most: int) -> tuple[Mapping[str, Any], int]:
    """The head of the frame that began with `lengths`, and how many octets follow, `most` at most. Raises
    IncompleteReadError at the end, and ConnectionError for what isn't a frame."""
    size, following = LENGTHS.unpack(lengths)
    if not 2 <= size <= MAX_HEAD or following > most:
        raise ConnectionError("the other side sends more than there is room for")
    try:
        head = orjson.loads(await reader.readexactly(size))
    except orjson.JSONDecodeError:
        head = None
    if not isinstance(head, dict):
        raise ConnectionError("the other side doesn't speak as agreed")
    return head, following


def problem_words(problem: Problem) -> dict[str, Any]:
    return {
        "kind": type(problem).__name__, "code": problem.code, "message": problem.message, "fix": problem.fix,
        "field": problem.field, "extra": problem.extra,
    }  # fmt: skip


def read_problem(words: Mapping[str, Any]) -> Problem:
    kind = _KINDS.get(str(words.get("kind")), Refused)
    problem = Problem.__new__(kind, str(words["message"]))
    Problem.__init__(
        problem, str(words["code"]), str(words["message"]), fix=str(words["fix"]), field=words["field"],
        extra=words["extra"],
    )  # fmt: skip
    return problem


@contextlib.contextmanager
def address_of(path: Path) -> Iterator[str]:
    """A name of the socket `path` that fits into a socket address, good while the block lasts. Raises OSError."""
    if len(os.fsencode(path)) <= _SUN_PATH or not sys.platform.startswith("linux"):
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
