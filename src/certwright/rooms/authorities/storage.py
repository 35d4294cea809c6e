"""Publishing lists to an object storage as well, for relying parties that don't reach this server."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Invalid, not_found
from certwright.platform.db import Tx
from certwright.platform.jobs import Next
from certwright.platform.services import Services
from certwright.rooms import audit
from certwright.rooms.authorities import store
from certwright.rooms.authorities.tables import authorities, crl_shards, crl_storages, crls
from certwright.rooms.authorities.words import STORE_STEP, ListStorage, StorageRequest
from certwright.x509.crl import to_pem

# Lists stored in one run of the step.
_AT_ONCE = 20
# S3's own rules for names, which its look-alikes follow.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9._-]*")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_CACHE = "public, max-age=300"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A storage and the key to it."""

    endpoint: str
    region: str
    bucket: str
    access_key_id: str
    secret_access_key: str = field(repr=False)


class ObjectStorage(Protocol):
    """Puts objects into buckets; plugged into Services.ports by the entry."""

    async def put(self, services: Services, bucket: Bucket, key: str, content: bytes, headers: dict[str, str]) -> None:
        """Replaces the object `key`. Raises Problem `storage_refused`, `storage_no_bucket`, `storage_failed`,
        `storage_not_installed`, or what the guarded client says."""
        ...


def secret_context(storage_id: str) -> str:
    return f"crl_storages:{storage_id}"


# --- what people do ---------------------------------------------------------------------------------------------------


def _judged(request: StorageRequest) -> dict[str, Any]:
    for name, good, said in (
        ("endpoint", _is_endpoint(request.endpoint), "The endpoint is an https address without a path."),
        ("bucket", bool(_BUCKET.fullmatch(request.bucket)), "The bucket's name has 3 to 63 small letters and digits."),
        ("region", bool(_REGION.fullmatch(request.region)), "The region is a word such as us-east-1."),
        ("prefix", len(request.prefix) <= 200 and bool(_PREFIX.fullmatch(request.prefix)),
         "The prefix is a path without a leading slash, such as crl/."),
        ("access_key_id", 1 <= len(request.access_key_id) <= 200 and request.access_key_id.isprintable(),
         "The access key's id is missing."),
        ("public_url", request.public_url is None or _is_place(request.public_url),
         "The public address begins with http:// or https:// and ends without a slash."),
    ):  # fmt: skip
        if not good:
            raise Invalid("list_storage_invalid", said, field=name, fix="Correct it; the guide shows an example.")
    return {
        "endpoint": request.endpoint.rstrip("/"), "region": request.region, "bucket": request.bucket,
        "prefix": request.prefix, "access_key_id": request.access_key_id,
    }  # fmt: skip


def _is_place(url: str) -> bool:
    parts = urlsplit(url)
    plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= 500
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and not url.endswith("/")


def _is_endpoint(url: str) -> bool:
    parts = urlsplit(url)
    return _is_place(url.rstrip("/")) and parts.path in ("", "/") and not parts.query and parts.username is None


async def set_list_storage(services: Services, actor: Actor, authority_id: str, request: StorageRequest) -> ListStorage:
    """Publishes a CA's lists there from now on, those of today at once. Certificates issued from now on name the public
    address, if there is one. Needs `ccm:ca:update`. Raises Invalid `list_storage_invalid`, `storage_secret_missing`."""
    values = _judged(request) | {"updated_at": services.clock.now()}
    s = crl_storages.c
    async with services.db.begin() as tx:
        ca = await store.visible_row(tx, actor, "ccm:ca:update", authority_id, lock=True)
        before = (await tx.execute(sa.select(crl_storages).where(s.authority_id == authority_id))).one_or_none()
        storage_id = new_id("cst", services.clock.now()) if before is None else before.id
        if request.secret_access_key:
            secret = request.secret_access_key.encode("utf-8", "replace")
            values["secret"] = services.vault.seal(secret, secret_context(storage_id))
        elif before is None or (before.endpoint, before.access_key_id) != (values["endpoint"], request.access_key_id):
            # A secret kept for one place must not be sent to another.
            raise Invalid("storage_secret_missing", "The secret of this access key isn't known here.",
                          field="secret_access_key", fix="Enter the secret access key.")  # fmt: skip
        await tx.execute(
            postgresql.insert(crl_storages)
            .values(
                values | {"id": storage_id, "authority_id": authority_id, "account_id": ca.account_id,
                          "secret": values.get("secret", getattr(before, "secret", None))}
            )
            .on_conflict_do_update(index_elements=[s.authority_id], set_=values)
        )  # fmt: skip
        await tx.execute(
            sa.update(authorities)
            .where(authorities.c.id == authority_id)
            .values(crl_public_url=request.public_url, revision=authorities.c.revision + 1)
        )
        await _anew(tx, services, authority_id)
        told = {key: values[key] for key in ("endpoint", "region", "bucket", "prefix", "access_key_id")}
        await audit.record(
            tx, services, actor, "ccm:ca:update", "authority", authority_id, project_id=ca.project_id,
            after={"list_storage": told | {"public_url": request.public_url}},
        )  # fmt: skip
        return await _shown(tx, authority_id)


async def _anew(tx: Tx, services: Services, authority_id: str) -> None:
    c = crl_shards.c
    await tx.execute(sa.update(crl_shards).where(c.authority_id == authority_id).values(stored_number=0))
    await begin(tx, services, authority_id)


async def get_list_storage(services: Services, actor: Actor, authority_id: str) -> ListStorage:
    """Raises NotFound where lists are published here only."""
    async with services.db.read() as tx:
        await store.visible_row(tx, actor, "ccm:ca:get", authority_id)
        return await _shown(tx, authority_id)


async def delete_list_storage(services: Services, actor: Actor, authority_id: str) -> None:
    """Nothing more is put there; what is there stays, and certificates that name it go on naming it. Content to find
    it done. Needs `ccm:ca:update`."""
    async with services.db.begin() as tx:
        ca = await store.visible_row(tx, actor, "ccm:ca:update", authority_id, lock=True)
        gone = await tx.execute(sa.delete(crl_storages).where(crl_storages.c.authority_id == authority_id))
        if not gone.rowcount:
            return
        await tx.execute(
            sa.update(authorities)
            .where(authorities.c.id == authority_id)
            .values(crl_public_url=None, revision=authorities.c.revision + 1)
        )
        await audit.record(tx, services, actor, "ccm:ca:update", "authority", authority_id, project_id=ca.project_id,
                           after={"list_storage": None})  # fmt: skip


async def _shown(tx: Tx, authority_id: str) -> ListStorage:
    c = crl_shards.c
    waiting = (
        sa.select(sa.func.count())
        .where(c.authority_id == authority_id, c.stored_number < c.number)
        .scalar_subquery()
        .label("waiting")
    )
    row = (
        await tx.execute(
            sa.select(crl_storages, authorities.c.crl_public_url, waiting)
            .join(authorities, authorities.c.id == crl_storages.c.authority_id)
            .where(crl_storages.c.authority_id == authority_id)
        )
    ).one_or_none()
    if row is None:
        raise not_found("list storage", authority_id)
    return ListStorage(
        row.authority_id, row.endpoint, row.region, row.bucket, row.prefix, row.access_key_id, row.crl_public_url,
        row.waiting, row.stored_at, row.step_problem,
    )  # fmt: skip


# --- the step ---------------------------------------------------------------------------------------------------------


async def begin(tx: Tx, services: Services, authority_id: str) -> None:
    """After lists were made: have them stored, if the CA has a storage."""
    found = await tx.scalar(sa.select(crl_storages.c.id).where(crl_storages.c.authority_id == authority_id))
    if found is not None:
        await services.jobs.start(tx, STORE_STEP, found)


async def step(services: Services, storage_id: str) -> Next:
    """Puts the newest of each list that isn't there yet. A list that was put and not recorded is put again: it is the
    same. What the storage refuses is tried again later, and shown until then."""
    st, c = crl_storages.c, crl_shards.c
    async with services.db.read() as tx:
        row = (await tx.execute(sa.select(crl_storages).where(st.id == storage_id))).one_or_none()
        if row is None:
            return None
        newest = sa.and_(
            crls.c.authority_id == c.authority_id, crls.c.shard == c.shard, crls.c.number == c.number
        )  # fmt: skip
        lists = (
            await tx.execute(
                sa.select(c.shard, c.number, crls.c.der)
                .join(crls, newest)
                .where(c.authority_id == row.authority_id, c.stored_number < c.number)
                .order_by(c.shard)
                .limit(_AT_ONCE)
            )
        ).all()
    secret = services.vault.open(row.secret, secret_context(row.id)).decode()
    bucket = Bucket(row.endpoint, row.region, row.bucket, row.access_key_id, secret)
    for found in lists:
        name = row.prefix + store.crl_url(services, row.authority_id, found.shard).rpartition("/")[2]
        put = services.port(ObjectStorage).put
        await put(services, bucket, name, found.der, {"Content-Type": "application/pkix-crl", "Cache-Control": _CACHE})
        pem = to_pem(found.der).encode()
        await put(services, bucket, name.removesuffix("crl") + "pem", pem,
                  {"Content-Type": "application/x-pem-file", "Cache-Control": _CACHE})  # fmt: skip
        async with services.db.begin() as tx:
            await tx.execute(
                sa.update(crl_shards)
                .where(c.authority_id == row.authority_id, c.shard == found.shard, c.stored_number < found.number)
                .values(stored_number=found.number)
            )
            await tx.execute(sa.update(crl_storages).where(st.id == storage_id).values(stored_at=services.clock.now()))
    return timedelta(0) if len(lists) == _AT_ONCE else None
