"""The signing process: opens CA keys, judges what it is asked to sign, and answers on a socket of this machine.

It believes nobody: every document is read back and measured by what this process itself knows of the key (see
`x509.judgement`), so that whoever takes over a web process gets certificates that a CA here may issue, and nothing
else. It never gives a key out. What it signs stands in its own log, which nobody who asks can change.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import hashlib
import os
import socket
import struct
import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
import structlog
from cryptography.exceptions import UnsupportedAlgorithm

from certwright.kernel.problems import Invalid, Problem, Refused, Unavailable, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms.authorities.remote import LENGTHS, address_of, problem_words, read_head, written
from certwright.rooms.authorities.signer import Document, LocalSigner
from certwright.rooms.authorities.tables import authorities, ca_keys, ocsp_responders
from certwright.rooms.authorities.words import KeyStore
from certwright.x509 import judgement
from certwright.x509.certificates import load, tbs_fields
from certwright.x509.crl import MAX_CRL_OCTETS
from certwright.x509.issue import OCSP_SIGNER, ROOT, IssuerFacts, Linted, assemble, issuer_facts
from certwright.x509.judgement import refused
from certwright.x509.keys import ca_key_algorithm, ca_key_from_pkcs8_der, spki, spki_sha256

log = structlog.get_logger(__name__)

# What the database role of a signing process may do, by table.
SIGNER_RIGHTS: Final[Mapping[str, str]] = {
    "ca_keys": "SELECT, INSERT, UPDATE", "authorities": "SELECT", "ocsp_responders": "SELECT",
}  # fmt: skip
# Octets of each kind. A certificate with a thousand names has 40,000.
_MOST: Final[Mapping[str, int]] = {
    "certificate": 1024 * 1024, "list": MAX_CRL_OCTETS, "answer": 16 * 1024, "request": 64 * 1024,
}  # fmt: skip
_MOST_KEY: Final = 32 * 1024
# From the first octet of a question to its last, in seconds; between questions anybody may be silent.
_PATIENCE: Final = 15.0
_MOST_CONNECTIONS: Final = 256
_LARGE: Final = 1024 * 1024
_MOST_HOLDERS: Final = 1000
# How long a CA's certificate is known by: one that is renewed may be limited otherwise.
_FRESH: Final = timedelta(seconds=1)
_SO_PEERGROUPS: Final = 59
_MOST_GROUPS: Final = 256


@dataclass(frozen=True, slots=True)
class _Holder:
    """Whose key it is, as it was found `at`. `waits` for a CA that has no certificate yet; a responder answers for
    `ca`."""

    spki_sha256: str
    at: datetime
    ca: IssuerFacts | None = None
    waits: bool = False
    responder_der: bytes | None = None


class SigningServer:
    def __init__(self, services: Services, signer: LocalSigner) -> None:
        self._services = services
        self._signer = signer
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        # A list of 64 MB is read by one at a time.
        self._large = asyncio.Lock()
        self._holders: OrderedDict[str, _Holder] = OrderedDict()
        # Holders whose CAs are in transactions of others that aren't committed yet: we signed their certificates.
        self._made: OrderedDict[str, _Holder] = OrderedDict()
        self._group: int | None = None

    async def listen(self, path: Path, group: str | None = None) -> None:
        """Raises Invalid `signer_socket_unusable`, `signer_group_unknown`, Unavailable `signer_running`."""
        if group is not None:
            try:
                self._group = grp.getgrnam(group).gr_gid
            except KeyError:
                raise Invalid(
                    "signer_group_unknown", f"There is no group {group!r} on this machine.",
                    field="CERTWRIGHT_SIGNER_GROUP", fix="Make it, or name another one.",
                ) from None  # fmt: skip
        try:
            listener = self._bind(path)
        except OSError as error:
            raise Invalid(
                "signer_socket_unusable", f"The socket {path} can't be made: {error.strerror}.",
                field="CERTWRIGHT_SIGNER_SOCKET", fix="Name a path in a directory that this user may write to.",
            ) from error  # fmt: skip
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, backlog=_MOST_CONNECTIONS)

    def _bind(self, path: Path) -> socket.socket:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if is_signer_there(path):
                raise Unavailable(
                    "signer_running", f"A signing process listens on {path} already.",
                    fix="Stop it first, or name another socket for this one.",
                )  # fmt: skip
            path.unlink(missing_ok=True)
            with address_of(path) as address:
                before = os.umask(0o177)
                try:
                    listener.bind(address)
                finally:
                    os.umask(before)
            if self._group is not None:
                os.chown(path, -1, self._group)
                path.chmod(0o660)
        except BaseException:  # whatever ended it: the socket is nobody's yet
            listener.close()
            raise
        return listener

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    # --- one connection -----------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if not self._may_ask(writer.get_extra_info("socket")):
                log.warning("a process of a user who may not ask was turned away")
            elif len(self._connections) > _MOST_CONNECTIONS:
                log.warning("too many connections to the signing process")
            else:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                    while True:
                        await self._one(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    def _may_ask(self, peer: socket.socket) -> bool:
        """The socket's mode says so already, where nobody changed it."""
        if not sys.platform.startswith("linux"):
            return True
        size = struct.calcsize("3i")
        _, user, group = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        if user in (0, os.geteuid()):
            return True
        if self._group is None:
            return False
        try:
            others = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _MOST_GROUPS)
        except OSError:
            others = b""  # in more groups than fit
        return self._group in (group, *struct.unpack(f"{len(others) // 4}I", others))

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One question. Raises ConnectionError for what isn't one, which ends the connection."""
        # Between questions anybody may be silent as long as he likes.
        lengths = await reader.readexactly(LENGTHS.size)
        async with asyncio.timeout(_PATIENCE):
            head, size = await read_head(reader, lengths, most=MAX_CRL_OCTETS)
        if size > _most(head):
            async with asyncio.timeout(_PATIENCE):
                # Whoever is still sending wouldn't read an answer.
                while size:
                    size -= len(await reader.readexactly(min(size, 65536)))
            writer.write(written({"problem": problem_words(refused("it is too large"))}))
            await writer.drain()
            return
        async with self._large if size > _LARGE else contextlib.nullcontext():
            async with asyncio.timeout(_PATIENCE):
                octets = await reader.readexactly(size)
            try:
                answer, result = await self._answer(head, octets)
            except Problem as problem:
                answer, result = {"problem": problem_words(problem)}, b""
        writer.write(written(answer, result))
        await writer.drain()

    async def _answer(self, head: Mapping[str, Any], octets: bytes) -> tuple[dict[str, Any], bytes]:
        key_id = str(head.get("key_id", ""))
        match head.get("do"):
            case "sign":
                return {}, await self._sign(key_id, head, octets)
            case "create_key":
                return await self._create(head)
            case "import_key":
                return await self._import(octets)
            case "erase_key":
                await self._erase(key_id)
                return {}, b""
            case "token_state":
                state = await self._signer.token_state(anew=head.get("anew") is True)
                words = {field.name: getattr(state, field.name) for field in fields(state)}
                problem = None if state.problem is None else problem_words(state.problem)
                return {"state": words | {"problem": problem}}, b""
        raise refused("it asks for something else")

    # --- keys ---------------------------------------------------------------------------------------------------------

    async def _create(self, head: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        try:
            algorithm, store = ca_key_algorithm(str(head.get("algorithm"))), KeyStore(str(head.get("store")))
        except ValueError:
            raise refused("it asks for a kind of key that isn't made here") from None
        async with self._services.db.begin() as tx:
            key_id, public = await self._signer.create_key(tx, algorithm, store)
        log.info("a CA key was made", key=key_id, algorithm=algorithm.value, store=store.value)
        return {"key_id": key_id}, spki(public)

    async def _import(self, octets: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            key = ca_key_from_pkcs8_der(octets)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise refused("what it brings is no key") from None
        async with self._services.db.begin() as tx:
            key_id = await self._signer.import_key(tx, key)
        log.info("a CA key was brought here", key=key_id)
        return {"key_id": key_id}, b""

    async def _erase(self, key_id: str) -> None:
        """Not while a CA may still need it: its waiting time must be over. The row of a responder that has ended may be
        gone already, in the transaction of whoever asks."""
        now = self._services.clock.now()
        a, r, owner = authorities.c, ocsp_responders.c, authorities.alias("owner")
        in_use = sa.select(
            sa.exists().where(
                a.ca_key_id == key_id, a.erased_at.is_(None), sa.or_(a.delete_at.is_(None), a.delete_at > now)
            ),
            sa.exists().where(
                r.ca_key_id == key_id, r.not_after > now, r.authority_id == owner.c.id, owner.c.erased_at.is_(None),
                sa.or_(owner.c.delete_at.is_(None), owner.c.delete_at > now),
            ),
        )  # fmt: skip
        async with self._services.db.begin() as tx:
            if any((await tx.execute(in_use)).one()):
                raise Refused(
                    "signer_refused", "The signing process doesn't erase this key: it is still in use.",
                    fix="Delete the CA; its key is erased when its waiting time is over.",
                )  # fmt: skip
            await self._signer.erase_key(tx, key_id)
        self._holders.pop(key_id, None)
        self._made.pop(key_id, None)
        log.info("a CA key was erased", key=key_id)

    # --- signing ------------------------------------------------------------------------------------------------------

    async def _sign(self, key_id: str, head: Mapping[str, Any], tbs: bytes) -> bytes:
        async with self._services.db.begin() as tx:
            holder = await self._holder(tx, key_id)
            try:
                document = self._judged(holder, head, tbs)
            except Problem:
                if self._holders.pop(key_id, None) is None:
                    raise
                # The CA may have been renewed this moment.
                holder = await self._holder(tx, key_id)
                document = self._judged(holder, head, tbs)
            signature = await self._signer.sign(tx, key_id, document)
            if isinstance(document, Linted):
                await self._remember(tx, key_id, holder, document, signature)
        # An answer is signed for whoever asks, thousands at a time, and says nothing that isn't in the tables.
        if head["kind"] != "answer":
            log.info("signed", document=head["kind"], key=key_id, sha256=hashlib.sha256(tbs).hexdigest())
        return signature

    def _judged(self, holder: _Holder, head: Mapping[str, Any], tbs: bytes) -> Document:
        kind, at = head.get("kind"), self._services.clock.now()
        hash_name = str(head.get("hash"))
        if kind == "answer":
            if holder.responder_der is None or holder.ca is None:
                raise refused("this key doesn't answer for a CA")
            return judgement.judge_answer(
                tbs, responder_der=holder.responder_der, issuer=holder.ca, hash_name=hash_name, at=at
            )
        if holder.responder_der is not None:
            raise refused("this key does nothing but answer for a CA")
        if kind == "certificate":
            if holder.waits:
                raise refused("this CA has no certificate yet")
            words = head.get("profile")
            profile = judgement.profile_of(words if isinstance(words, dict) else {})
            if profile.name == ROOT.name and holder.ca is not None:
                return judgement.judge_renewed_root(
                    tbs, profile=profile, before=holder.ca, own_spki_sha256=holder.spki_sha256, hash_name=hash_name,
                    at=at,
                )  # fmt: skip
            return judgement.judge_certificate(
                tbs, profile=profile, issuer=holder.ca, own_spki_sha256=holder.spki_sha256, hash_name=hash_name, at=at
            )
        if kind == "list" and holder.ca is not None:
            return judgement.judge_list(tbs, issuer=holder.ca, hash_name=hash_name, at=at)
        if kind == "request":
            return judgement.judge_request(tbs, own_spki_sha256=holder.spki_sha256, hash_name=hash_name)
        raise refused("this key has no CA that could say so")

    async def _holder(self, tx: Tx, key_id: str) -> _Holder:
        known, now = self._holders.get(key_id), self._services.clock.now()
        if known is not None and (known.responder_der is not None or known.at <= now < known.at + _FRESH):
            return known
        k, a, r, owner = ca_keys.c, authorities.c, ocsp_responders.c, authorities.alias("owner")
        query = (
            sa.select(
                k.spki_sha256, a.id.label("authority_id"), a.certificate_der, r.certificate_der.label("responder_der"),
                owner.c.certificate_der.label("owner_der"),
            )
            .outerjoin(authorities, a.ca_key_id == k.id)
            .outerjoin(ocsp_responders, r.ca_key_id == k.id)
            .outerjoin(owner, owner.c.id == r.authority_id)
            .where(k.id == key_id, k.erased_at.is_(None))
        )  # fmt: skip
        row = (await tx.execute(query)).one_or_none()
        if row is None:
            raise not_found("CA key", key_id)
        der = row.owner_der if row.responder_der is not None else row.certificate_der
        if der is None:
            return self._made.get(key_id) or _Holder(row.spki_sha256, now, waits=row.authority_id is not None)
        if spki_sha256(load(row.responder_der or der)) != row.spki_sha256:
            raise refused("the certificate of its CA is for another key")
        holder = _Holder(row.spki_sha256, now, issuer_facts(der), responder_der=row.responder_der)
        _keep(self._holders, key_id, holder)
        return holder

    async def _remember(self, tx: Tx, key_id: str, holder: _Holder, linted: Linted, signature: bytes) -> None:
        """Certificates of CAs and responders whose keys are here: who asked uses them before his transaction ends."""
        profile = linted.profile
        if not profile.is_ca and profile.name != OCSP_SIGNER.name:
            return
        mark = hashlib.sha256(tbs_fields(linted.tbs)[5]).hexdigest()
        own = await tx.scalar(sa.select(ca_keys.c.id).where(ca_keys.c.spki_sha256 == mark))
        if own is None:
            return
        der = assemble(linted, signature)
        ca = issuer_facts(der) if profile.is_ca else holder.ca
        made = _Holder(mark, self._services.clock.now(), ca, responder_der=None if profile.is_ca else der)
        _keep(self._made, own, made)


def _keep(where: OrderedDict[str, _Holder], key_id: str, holder: _Holder) -> None:
    where[key_id] = holder
    if len(where) > _MOST_HOLDERS:
        where.popitem(last=False)


def _most(head: Mapping[str, Any]) -> int:
    if head.get("do") == "sign":
        return _MOST.get(str(head.get("kind")), 0)
    return _MOST_KEY if head.get("do") == "import_key" else 0


def is_signer_there(path: Path) -> bool:
    """Whether a process listens on this socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            with address_of(path) as address:
                trial.connect(address)
        except OSError:
            return False
    return True
