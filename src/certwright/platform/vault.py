"""Envelope encryption of private keys and credentials.

Each secret is sealed with a data key of its own (AES-256-GCM); the data key is wrapped by the active key-encryption
key. Rotating the key-encryption key re-wraps the short headers only. The context (`table:id`) is bound into both
layers, so that a sealed value moved to another row doesn't open.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from certwright.kernel.problems import Unavailable
from certwright.platform.db import Database

_MAGIC = b"CW1"
_KEK_ID = 8
_NONCE = 12
_WRAPPED = 32 + 16
_HEADER = len(_MAGIC) + _KEK_ID + _NONCE + _WRAPPED


class KeyKeeper(Protocol):
    """Holds key-encryption keys. Built in: a 0600 file; a passphrase, PKCS#11 or a KMS fit the same methods."""

    def active(self) -> str: ...

    def knows(self, kek_id: str) -> bool: ...

    def wrap(self, kek_id: str, data_key: bytes, context: bytes) -> bytes: ...

    def unwrap(self, kek_id: str, wrapped: bytes, context: bytes) -> bytes: ...


class FileKeyKeeper:
    """Key-encryption keys in a keyring file, mode 0600, replaced atomically; made when the first secret is sealed.

    Raises Unavailable `keyring_permissions` for a file others can read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._keys: dict[str, bytes] = {}
        self._active = ""
        if path.exists():
            self._load()

    def active(self) -> str:
        # One that was there and is gone isn't made anew: it would look like the right one.
        if self._stamp is None and not self._path.exists():
            self.rotate()
        self._load()
        return self._active

    def knows(self, kek_id: str) -> bool:
        """Whether it holds this key; a keyring that was never made holds none."""
        if kek_id not in self._keys and self._path.exists():
            self._load()
        return kek_id in self._keys

    def wrap(self, kek_id: str, data_key: bytes, context: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        return nonce + AESGCM(self._key(kek_id)).encrypt(nonce, data_key, context)

    def unwrap(self, kek_id: str, wrapped: bytes, context: bytes) -> bytes:
        return AESGCM(self._key(kek_id)).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], context)

    def rotate(self) -> str:
        """Add a fresh key and make it the active one; old keys stay until `forget`. Returns its id."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = json.loads(self._path.read_text()) if self._path.exists() else {"keys": {}}
            if not self._keys and state["keys"]:
                return str(state["active"])  # another process made the first key while we waited
            kek_id = secrets.token_hex(_KEK_ID // 2)
            state["keys"][kek_id] = base64.b64encode(secrets.token_bytes(32)).decode()
            state["active"] = kek_id
            self._write(state)
        self._load()
        return kek_id

    def forget(self, keep: str) -> None:
        """Destroy every key but `keep`; what they sealed can't be opened any more."""
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = json.loads(self._path.read_text())
            state["keys"] = {keep: state["keys"][keep]}
            self._write(state)
        self._load()

    def _write(self, state: Mapping[str, object]) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            if os.geteuid() == 0 and self._path.exists():
                # Root rotates for a product that runs as somebody else.
                owner = self._path.stat()
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            json.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        # Rows may soon be under the new key: the rename must not be undone by a power failure.
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _load(self) -> None:
        status = self._path.stat()
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamp:
            return
        if status.st_mode & 0o077:
            raise Unavailable(
                "keyring_permissions",
                f"The keyring {self._path} can be read by other users of this machine.",
                fix=f"Run: chmod 600 {self._path}",
            )
        state = json.loads(self._path.read_text())
        self._keys = {kek_id: base64.b64decode(key) for kek_id, key in state["keys"].items()}
        self._active, self._stamp = state["active"], stamp

    def _key(self, kek_id: str) -> bytes:
        if not self.knows(kek_id):
            raise Unavailable(
                "keyring_key_missing",
                f"The keyring {self._path} has no key {kek_id}, with which this secret was sealed.",
                fix=f"Restore {self._path.name} of the backup that belongs to this database.",
            )
        return self._keys[kek_id]


@dataclass
class Vault:
    """Seals and opens; knows which columns hold sealed values so that rotation reaches all of them."""

    keeper: KeyKeeper
    _columns: list[tuple[sa.Column[bytes], Callable[[str], str]]] = field(default_factory=list)

    def seal(self, secret: bytes, context: str) -> bytes:
        data_key, nonce, bound = secrets.token_bytes(32), secrets.token_bytes(_NONCE), context.encode()
        kek_id = self.keeper.active()
        header = _MAGIC + kek_id.encode() + self.keeper.wrap(kek_id, data_key, bound)
        return header + nonce + AESGCM(data_key).encrypt(nonce, secret, bound)

    def open(self, sealed: bytes, context: str) -> bytes:
        """The secret; raises Unavailable `secret_unreadable` if the value or its context was tampered with."""
        kek_id, wrapped, rest = _parts(sealed)
        bound = context.encode()
        try:
            data_key = self.keeper.unwrap(kek_id, wrapped, bound)
            return AESGCM(data_key).decrypt(rest[:_NONCE], rest[_NONCE:], bound)
        except InvalidTag:
            raise _tampered(context) from None

    def register(self, column: sa.Column[bytes], context: Callable[[str], str]) -> None:
        """Tell of a column of sealed values; `context` gives the context of a row from its id."""
        if all(known is not column for known, _ in self._columns):
            self._columns.append((column, context))

    async def anything_sealed(self, db: Database) -> bool:
        """Whether the database holds any secret of this vault at all."""
        async with db.begin() as tx:
            for column, _ in self._columns:
                if await tx.scalar(sa.select(sa.exists().where(column.is_not(None)))):
                    return True
        return False

    async def adopt(self, db: Database, former: Vault) -> int:
        """Bring what `former` sealed in this vault's columns under this vault's own keys; returns how many.

        Content to find it done, wholly or in part. Raises Unavailable `keyring_key_missing` for a value that neither
        vault opens, after all others were brought over.
        """
        done, strange = 0, None
        for column, context in self._columns:
            table, key = column.table, column.table.c.id
            after = ""
            while True:
                async with db.begin() as tx:
                    query = sa.select(key, column).where(column.is_not(None), key > after).order_by(key).limit(500)
                    rows = (await tx.execute(query.with_for_update())).all()
                    for row_id, sealed in rows:
                        kek_id, *_ = _parts(sealed)
                        after = row_id
                        if self.keeper.knows(kek_id):
                            continue
                        if not former.keeper.knows(kek_id):
                            strange = kek_id
                            continue
                        new = self.seal(former.open(sealed, context(row_id)), context(row_id))
                        await tx.execute(sa.update(table).where(key == row_id).values({column.name: new}))
                        done += 1
                if not rows:
                    break
        if strange is not None:
            raise Unavailable(
                "keyring_key_missing",
                f"The keyring has no key {strange}, with which this secret was sealed.",
                fix="Restore the keyring of the backup that belongs to this database.",
            )
        return done

    async def rewrap(self, db: Database, *, batch: int = 500) -> int:
        """Re-wrap everything not under the active key; safe to run again after a crash. Returns how many.

        Waits for rows that are locked, so that none is passed over. Raises Unavailable `secret_unreadable` naming the
        row whose value doesn't open.
        """
        active, done = self.keeper.active(), 0
        for column, context in self._columns:
            table, key = column.table, column.table.c.id
            foreign = sa.func.substring(column, len(_MAGIC) + 1, _KEK_ID) != active.encode()
            while True:
                async with db.begin() as tx:
                    rows = (
                        await tx.execute(
                            sa.select(key, column).where(column.is_not(None), foreign).limit(batch).with_for_update()
                        )
                    ).all()  # fmt: skip
                    for row_id, sealed in rows:
                        new = self._rewrapped(sealed, context(row_id), active)
                        await tx.execute(sa.update(table).where(key == row_id).values({column.name: new}))
                done += len(rows)
                if not rows:
                    break
        return done

    def _rewrapped(self, sealed: bytes, context: str, active: str) -> bytes:
        kek_id, wrapped, rest = _parts(sealed)
        bound = context.encode()
        try:
            data_key = self.keeper.unwrap(kek_id, wrapped, bound)
        except InvalidTag:
            raise _tampered(context) from None
        return _MAGIC + active.encode() + self.keeper.wrap(active, data_key, bound) + rest


def _tampered(context: str) -> Unavailable:
    return Unavailable(
        "secret_unreadable",
        f"The sealed value of {context} doesn't open: it was changed or belongs to another row.",
        fix="Restore the row from a backup, or enter the secret again.",
    )


def _parts(sealed: bytes) -> tuple[str, bytes, bytes]:
    if len(sealed) < _HEADER + _NONCE + 16 or not sealed.startswith(_MAGIC):
        raise Unavailable("secret_unreadable", "A sealed value is damaged.", fix="Restore it from a backup.")
    at = len(_MAGIC) + _KEK_ID
    return sealed[len(_MAGIC) : at].decode("ascii", "replace"), sealed[at:_HEADER], sealed[_HEADER:]
