"""A process that uses an embedded cluster: starts it, tells what it found, waits for a line, leaves.

Usage: postgres_user.py DATA_DIR [UID GID]. With UID and GID it becomes that user first.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401  now: as another user, the interpreter's files may be out of reach
import encodings.ascii  # noqa: F401  likewise
import json
import os
import sys
from pathlib import Path

import asyncpg

from certwright.kernel.problems import Problem
from certwright.platform.postgres import EmbeddedPostgres


async def use(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir, durable=False)
    try:
        cluster = await postgres.start()
    except Problem as problem:
        print(json.dumps(problem.as_dict()), flush=True)
        return
    connection = await asyncpg.connect(cluster.url)
    began = await connection.fetchval("SELECT pg_postmaster_start_time()::text")
    await connection.close()
    pid = int((data_dir / "cluster" / "postmaster.pid").read_text().split("\n")[0])
    print(json.dumps({"url": cluster.url, "began": began, "postmaster": pid}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await postgres.stop()
    print("left", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        os.setgroups([])
        os.setgid(int(sys.argv[3]))
        os.setuid(int(sys.argv[2]))
    asyncio.run(use(Path(sys.argv[1])))
