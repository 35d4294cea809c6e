"""Rights of the database roles that aren't the owner: what each process of a split installation may do.

The owner of the tables gives them anew at every start, so that they follow the schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from certwright.kernel.problems import Unavailable
from certwright.platform.db import Database

_SCHEMA = "alembic_version"


async def grant(db: Database, *, app: str, signer: str, hidden: sa.Column[bytes], rights: Mapping[str, str]) -> None:
    """`app` may work with every table and sequence, but only read the table of the column `hidden`, and not that
    column. `signer` has the `rights` (table to privileges) and no others. Both see which schema it is."""
    quote = db.engine.dialect.identifier_preparer.quote
    one, other, table = quote(app), quote(signer), quote(hidden.table.name)
    shown = ", ".join(quote(column.name) for column in hidden.table.columns if column is not hidden)
    statements = [
        f"GRANT USAGE ON SCHEMA public TO {one}, {other}",
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {other}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {one}",
        f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {one}",
        f"REVOKE ALL ON {table}, {_SCHEMA} FROM {one}",
        f"GRANT SELECT ({shown}) ON {table} TO {one}",
        f"GRANT SELECT ON {_SCHEMA} TO {one}, {other}",
        *(f"GRANT {privileges} ON {quote(name)} TO {other}" for name, privileges in rights.items()),
    ]
    async with db.begin() as tx:
        # Several starting at once would change the same rows of the catalogue.
        await tx.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('certwright.grant'))"))
        for statement in statements:
            await tx.exec_driver_sql(statement)


async def refuse_if_able(db: Database, hidden: Sequence[sa.Column[bytes]]) -> None:
    """Raises Unavailable `database_role_too_strong` where this process's role can read a column it must not, or become
    somebody who can."""
    query = sa.text(
        "SELECT has_column_privilege(t.oid, :column, 'SELECT') OR pg_has_role(t.relowner, 'MEMBER')"
        " OR (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user)"
        " FROM pg_class t WHERE t.oid = to_regclass(:table)"
    )
    async with db.read() as tx:
        for column in hidden:
            if await tx.scalar(query, {"table": column.table.name, "column": column.name}):
                raise Unavailable(
                    "database_role_too_strong",
                    "The database role of this process can read the keys of CAs, which only the signing process may.",
                    fix="Give web and worker a role of their own: see the page Signing apart of the guide.",
                )
