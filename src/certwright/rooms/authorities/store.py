"""All rooms of this folder read CAs through here: rows, facts, chains, addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from certwright.kernel.actor import Actor
from certwright.kernel.problems import not_found
from certwright.platform.db import Database, Said, Tx
from certwright.platform.services import Services
from certwright.rooms import access, audit
from certwright.rooms.authorities import rules, words
from certwright.rooms.authorities.tables import authorities, ca_keys, ca_policies, crl_shards, crls, issued_certificates
from certwright.rooms.authorities.words import Authority, CaOrigin, CaState, KeyStore
from certwright.x509.certificates import facts_of
from certwright.x509.issue import IssuerFacts, issuer_facts, limits_of
from certwright.x509.profiles import constraint_words, purpose_words


def crl_url(services: Services, authority_id: str, shard: int = 0) -> str:
    name = f"{authority_id}-{shard}" if shard else authority_id
    return f"{services.settings.status_base_url}/crl/{name}.crl"


def crl_urls(services: Services, authority_id: str, shard: int) -> tuple[str, ...]:
    """Every address under which certificates may name this list: the present one, and that of the product itself, which
    certificates made before `status_url` was set name."""
    present = crl_url(services, authority_id, shard)
    own = services.settings.base_url + present.removeprefix(services.settings.status_base_url)
    return tuple(dict.fromkeys((present, own)))


def named_crl_urls(services: Services, ca: Any, shard: int) -> tuple[str, ...]:
    """Where what a CA issues now says one of its lists is found: in the storage it is published to, if that has a
    public address, and here."""
    here = crl_url(services, ca.id, shard)
    return (here,) if ca.crl_public_url is None else (f"{ca.crl_public_url}/{here.rpartition('/')[2]}", here)


def certificate_url(services: Services, authority_id: str) -> str:
    return f"{services.settings.status_base_url}/ca/{authority_id}.crt"


def ocsp_url(services: Services, authority_id: str) -> str:
    return f"{services.settings.status_base_url}/ocsp/{authority_id}"


# Whether the account has policies at all: where it has none, issuing asks no further.
_POLICED = sa.exists().where(ca_policies.c.account_id == authorities.c.account_id).label("policed")
# Changes with every change of the row.
_VERSION: sa.ColumnElement[str] = sa.cast(sa.column("xmin", _selectable=authorities), sa.Text)
_ROW = sa.select(authorities, _POLICED, _VERSION.label("version")).where(
    authorities.c.id == sa.bindparam("authority"), authorities.c.erased_at.is_(None)
)
_ROW_HELD = _ROW.with_for_update(key_share=True)


_ROW_AT_ONCE = Said(_ROW)


async def row_at_once(db: Database, authority_id: str) -> Any:
    """The same where it is asked many times a second, with no transaction; None for one that isn't there."""
    return await _ROW_AT_ONCE.row(db, authority=authority_id)


def unchanged() -> sa.ColumnElement[bool]:
    """A condition with the parameters `i_authority_id` and `ca_version` (a row's `version`): nothing has become of the
    CA since it was judged, and there are still no policies."""
    a = authorities.c
    policed = sa.exists().where(ca_policies.c.account_id == a.account_id)
    return sa.exists().where(
        a.id == sa.bindparam("i_authority_id", type_=a.id.type), sa.bindparam("ca_version") == _VERSION, ~policed
    )


async def row(tx: Tx, authority_id: str, *, lock: bool = False) -> Any:
    """A CA whose key still exists. Raises NotFound."""
    found = (await tx.execute(_ROW_HELD if lock else _ROW, {"authority": authority_id})).one_or_none()
    if found is None:
        raise not_found("CA", authority_id)
    return found


async def builtin_issuing(tx: Tx, account_id: str) -> Any:
    """The built-in CA that issues, as `row` shows it; None before the first start made one."""
    a = authorities.c
    query = sa.select(authorities, _POLICED).where(a.account_id == account_id, a.builtin, a.kind == "issuing")
    return (await tx.execute(query)).one_or_none()


async def hold(tx: Tx, authority_id: str) -> None:
    """Locks the CA's row. Whoever changes lists does this first, publishing and revoking alike: they can't block each
    other in turn. Issuing goes on meanwhile (its rows only point at this one)."""
    query = sa.select(authorities.c.id).where(authorities.c.id == authority_id)
    await tx.execute(query.with_for_update(key_share=True))


async def visible_row(tx: Tx, actor: Actor, action: str, authority_id: str, *, lock: bool = False) -> Any:
    """A CA the actor may do `action` with. Raises NotFound if they may not see it, Forbidden otherwise."""
    where = sa.and_(
        authorities.c.id == authority_id, authorities.c.erased_at.is_(None),
        access.visible(authorities, actor, "ccm:ca:get"),
    )  # fmt: skip
    query = sa.select(authorities, _POLICED).where(where)
    found = (await tx.execute(query.with_for_update(key_share=True) if lock else query)).one_or_none()
    if found is None:
        raise not_found("CA", authority_id)
    access.require(actor, action, project_id=found.project_id, resource=f"authority:{authority_id}")
    return found


_OWN = Said(_ROW.where(authorities.c.account_id == sa.bindparam("account")))


async def seen_row(db: Database, actor: Actor, action: str, authority_id: str) -> Any:
    """The same where it is asked many times a second, with no transaction: what the filter shows, `decide` allows."""
    found = await _OWN.row(db, authority=authority_id, account=actor.account_id)
    resource = f"authority:{authority_id}"
    if found is None or not access.decide(actor.grants, "ccm:ca:get", resource, found.project_id).allowed:
        raise not_found("CA", authority_id)
    access.require(actor, action, project_id=found.project_id, resource=resource)
    return found


async def children(tx: Tx, authority_id: str, now: datetime) -> int:
    """CAs below it that somebody may still use."""
    a = authorities.c
    found = await tx.scalar(
        sa.select(sa.func.count()).where(
            a.parent_id == authority_id, a.erased_at.is_(None), a.delete_at.is_(None), a.revoked_at.is_(None),
            sa.or_(a.not_after.is_(None), a.not_after > now),
        )
    )  # fmt: skip
    return int(found or 0)


def _below(authority_id: str) -> sa.CTE:
    """All CAs below it: id and depth."""
    a = authorities.c
    first = sa.select(a.id, sa.literal(1).label("depth")).where(a.parent_id == authority_id)
    below = first.cte("below", recursive=True)
    return below.union_all(sa.select(a.id, below.c.depth + 1).join(below, a.parent_id == below.c.id))


async def good_below(tx: Tx, authority_id: str, now: datetime, most: int) -> int:
    """How many certificates of it and of the CAs below it are good, those CAs not counted; `most` is as far as it
    counts."""
    i, a, below = issued_certificates.c, authorities.c, _below(authority_id)
    all_of_them = sa.union_all(sa.select(sa.literal(authority_id).label("id")), sa.select(below.c.id)).subquery()
    issuers = sa.select(a.id).where(a.id.in_(sa.select(all_of_them.c.id)), a.revoked_at.is_(None)).subquery("issuers")
    good = (
        sa.select(sa.literal(1).label("one"))
        .join_from(issuers, issued_certificates, i.authority_id == issuers.c.id)
        .where(i.revoked_at.is_(None), ~i.internal, i.not_after > now)
        .limit(most)
        .subquery()
    )
    return int(await tx.scalar(sa.select(sa.func.count()).select_from(good)) or 0)


async def serials_of_ca(tx: Tx, ca: Any) -> list[str]:
    """Of the certificates its parent gave it: the one it has, and those before, whose key is the same."""
    i = issued_certificates.c
    named = sa.or_(i.reference == ca.id, i.reference.startswith(f"{ca.id}:", autoescape=True))
    found = await tx.scalars(sa.select(i.serial).where(i.authority_id == ca.parent_id, i.revoked_at.is_(None), named))
    return [ca.serial, *(serial for serial in found if serial != ca.serial)]


async def hold_below(tx: Tx, authority_id: str) -> list[str]:
    """Ids of all CAs below it, the lowest first, in which order whoever needs several locks them; they are held."""
    below = _below(authority_id)
    held: list[str] = []
    while True:
        found = (await tx.scalars(sa.select(below.c.id).order_by(below.c.depth.desc(), below.c.id))).all()
        if not (new := [str(one) for one in found if one not in held]):
            return held
        # While one is waited for, another one may be made below it.
        for one in new:
            await hold(tx, one)
        held += new


async def children_wait_until(tx: Tx, authority_id: str, now: datetime) -> datetime | None:
    """Until when CAs below it that wait to be deleted could be restored and used."""
    a = authorities.c
    query = sa.select(sa.func.max(a.delete_at)).where(
        a.parent_id == authority_id, a.erased_at.is_(None), a.revoked_at.is_(None),
        sa.or_(a.not_after.is_(None), a.not_after > now),
    )  # fmt: skip
    found: datetime | None = await tx.scalar(query)
    return found


def ca_facts(ca: Any, below: int = 0) -> rules.CaFacts:
    return rules.CaFacts(
        name=ca.name, root=ca.kind == "root", builtin=ca.builtin,
        has_certificate=ca.certificate_der is not None, not_after=ca.not_after, disabled=ca.disabled_at is not None,
        revoked=ca.revoked_at is not None, delete_at=ca.delete_at, children=below,
    )  # fmt: skip


def ca_state(ca: Any, now: datetime) -> CaState:
    return rules.state_of(ca_facts(ca), now)


_issuers: dict[str, IssuerFacts] = {}
# Every CA of a large installation, parsed; 2 KB each.
_MOST_ISSUERS = 1000


def issuer_of(ca: Any) -> IssuerFacts:
    """Parsed once per CA certificate: they never change under their fingerprint."""
    found = _issuers.get(ca.sha256)
    if found is None:
        if len(_issuers) >= _MOST_ISSUERS:
            _issuers.clear()
        found = _issuers[ca.sha256] = issuer_facts(ca.certificate_der)
    return found


def signs_leaves(ca: Any) -> bool:
    """As `Authority` says it, of a row."""
    return words.signs_leaves(ca.kind, None if ca.certificate_der is None else issuer_of(ca).path_len)


_binding: dict[tuple[str, int], IssuerFacts] = {}


async def binding_issuer(tx: Tx | None, services: Services, ca: Any) -> IssuerFacts:
    """The same with the limits of every CA above it: for signing. Looked up once for each revision, as `chain` is."""
    found = _binding.get((ca.id, ca.revision))
    if found is None:
        if tx is None:
            async with services.db.read() as reading:
                return await binding_issuer(reading, services, ca)
        ders = await _look_up_above(tx, ca)
        if len(_binding) >= _MOST_ISSUERS:
            _binding.clear()
        found = _binding[ca.id, ca.revision] = replace(issuer_of(ca), above=tuple(limits_of(der) for der in ders))
    return found


async def _look_up_above(tx: Tx, ca: Any) -> list[bytes]:
    """Certificates of the CAs above this one, roots with them, as far as they are known."""
    rows = await rows_above(tx, ca)
    top = rows[-1] if rows else ca
    return [*(row.certificate_der for row in rows), *top.outside_chain]


async def rows_above(tx: Tx, ca: Any) -> list[Any]:
    """CAs of ours above this one, its parent first."""
    found: list[Any] = []
    while ca.parent_id is not None:
        ca = await any_row(tx, ca.parent_id)
        found.append(ca)
    return found


_chains: dict[tuple[str, int], tuple[bytes, ...]] = {}


async def chain(tx: Tx, ca: Any) -> tuple[bytes, ...]:
    """From this CA's certificate up, without the root. Looked up once for each revision of the CA, which rises when one
    above it is renewed, too. By the CA and not by its certificate: another CA may have come with the same one and more
    above it."""
    found = _chains.get((ca.id, ca.revision))
    if found is None:
        if len(_chains) >= _MOST_ISSUERS:
            _chains.clear()
        found = _chains[ca.id, ca.revision] = await _look_up_chain(tx, ca)
    return found


def known_chain(authority_id: str, revision: int) -> tuple[bytes, ...] | None:
    """The same, if it was looked up before."""
    return _chains.get((authority_id, revision))


async def any_row(tx: Tx, authority_id: str) -> Any:
    """A CA, also one whose key is gone: what it issued is still there."""
    return (await tx.execute(sa.select(authorities).where(authorities.c.id == authority_id))).one()


async def _look_up_chain(tx: Tx, ca: Any) -> tuple[bytes, ...]:
    found: list[bytes] = []
    while ca.kind != "root":
        found.append(ca.certificate_der)
        if ca.parent_id is None:
            found += [der for der in ca.outside_chain if not facts_of(der).self_signed]
            break
        ca = (await tx.execute(sa.select(authorities).where(authorities.c.id == ca.parent_id))).one()
    return tuple(found)


# --- recording -------------------------------------------------------------------------------------------------------

# What differs from one certificate of a batch to the next. Arrays of arrays would all have to be of one length: names
# travel as PostgreSQL writes an array.
_EACH: Mapping[str, sa.types.TypeEngine[Any]] = {
    "id": sa.Text(), "reference": sa.Text(), "profile": sa.Text(), "serial": sa.Text(), "names": sa.Text(),
    "der": sa.LargeBinary(), "not_before": sa.DateTime(timezone=True), "not_after": sa.DateTime(timezone=True),
    "shard": sa.Integer(),
}  # fmt: skip
_ALL = ("authority_id", "account_id", "project_id", "issued_at")


def _record_at_once() -> Said:
    i = issued_certificates.c
    arrays = [sa.cast(sa.bindparam(f"i_{name}"), ARRAY(kind)) for name, kind in _EACH.items()]
    new = sa.func.unnest(*arrays).table_valued(*_EACH, name="certificates").render_derived()
    each = [sa.cast(new.c[name], ARRAY(sa.Text)) if name == "names" else new.c[name] for name in _EACH]
    shared = [sa.bindparam(f"i_{name}", type_=i[name].type) for name in _ALL]
    good = sa.select(sa.literal_column("1").label("one")).where(unchanged()).cte("good")
    rows = sa.select(*each, *shared).select_from(new.join(good, sa.true()))
    added = sa.insert(issued_certificates).from_select([*_EACH, *_ALL], rows)
    return Said(sa.select(good.c.one).add_cte(added.returning(i.id).cte("issued"), *audit.recorded_many(good)))


_RECORD_AT_ONCE = _record_at_once()


async def record_at_once(
    services: Services, version: str, rows: Sequence[Mapping[str, Any]], events: Sequence[audit.Entry]
) -> bool:
    """Certificates of one CA and project without keys held here, made at one time, and their lines in the audit log:
    one statement, which is a transaction by itself. Says whether they are recorded: not where the CA isn't what it was
    in that `version`, or there are policies by now. Raises IntegrityError, Unavailable."""
    values: dict[str, Any] = {f"i_{name}": [row[name] for row in rows] for name in _EACH}
    values["i_names"] = [_array(names) for names in values["i_names"]]
    values |= {f"i_{name}": rows[0][name] for name in _ALL}
    done = await _RECORD_AT_ONCE.row(
        services.db, ca_version=version, **values, **audit.values_of_many(services, events)
    )
    return done is not None


def _array(texts: Sequence[str]) -> str:
    quoted = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return "{" + ",".join([f'"{text}"' for text in quoted]) + "}"


# --- showing ---------------------------------------------------------------------------------------------------------


def listing() -> sa.Select[Any]:
    """CAs with what their first list says, roots first, then by age."""
    lists = (
        sa.select(crl_shards.c.number, crls.c.next_update)
        .outerjoin(
            crls,
            sa.and_(
                crls.c.authority_id == crl_shards.c.authority_id, crls.c.shard == crl_shards.c.shard,
                crls.c.number == crl_shards.c.number,
            ),
        )
        .where(crl_shards.c.authority_id == authorities.c.id, crl_shards.c.shard == 0)
        .lateral("lists")
    )  # fmt: skip
    return (
        sa.select(
            authorities,
            lists.c.number.label("crl_number"),
            lists.c.next_update.label("crl_next_update"),
            ca_keys.c.store.label("key_store"),
            ca_keys.c.token_label,
        )
        .join(ca_keys, ca_keys.c.id == authorities.c.ca_key_id)
        .outerjoin(lists, sa.true())
        .where(authorities.c.erased_at.is_(None))
        .order_by(sa.case((authorities.c.kind == "root", 0), else_=1), authorities.c.id)
    )


async def issued_count(tx: Tx, authority_id: str) -> int:
    i = issued_certificates.c
    query = sa.select(sa.func.count()).where(i.authority_id == authority_id, i.deleted_at.is_(None))
    return int(await tx.scalar(query) or 0)


def shown(services: Services, ca: Any, issued: int | None = None) -> Authority:
    issuer = issuer_of(ca) if ca.certificate_der is not None else None
    permitted, excluded = constraint_words(issuer.constraints if issuer else None)
    return Authority(
        id=ca.id,
        project_id=ca.project_id,
        name=ca.name,
        kind=ca.kind,
        origin=CaOrigin(ca.origin),
        builtin=ca.builtin,
        parent_id=ca.parent_id,
        state=ca_state(ca, services.clock.now()),
        subject=ca.subject,
        key_algorithm=ca.key_algorithm,
        key_store=KeyStore(ca.key_store),
        token_label=ca.token_label,
        hash_name=ca.hash_name,
        serial=ca.serial,
        sha256=ca.sha256,
        not_before=ca.not_before,
        not_after=ca.not_after,
        certificate_der=ca.certificate_der,
        csr_der=ca.csr_der,
        path_len=issuer.path_len if issuer else None,
        permitted=permitted,
        excluded=excluded,
        purposes=purpose_words(issuer.ekus) if issuer and issuer.ekus is not None else None,
        delete_at=ca.delete_at,
        crl_enabled=ca.crl_enabled,
        crl_days=ca.crl_days,
        crl_shards=ca.crl_shards,
        crl_number=ca.crl_number or 0,
        crl_next_update=ca.crl_next_update,
        crl_url=crl_url(services, ca.id),
        ocsp_enabled=ca.ocsp_enabled,
        ocsp_url=ocsp_url(services, ca.id),
        issued=issued,
        problem=ca.step_problem,
        experimental=ca.key_algorithm.startswith("ML-DSA"),
        revision=ca.revision,
    )
