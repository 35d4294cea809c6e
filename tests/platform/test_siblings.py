"""Web processes forked from the first one: what they share with it and what they don't, and how each of them ends."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest

from certwright.entry.demo.servers import Product
from certwright.entry.lifeline import ENDING

T = TypeVar("T")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what is open is looked up in /proc")

BOUND = 60.0  # seconds; only reached when something is broken


def until(fact: Callable[[], T]) -> T:
    """What it answers, once that is something."""
    deadline = time.monotonic() + BOUND
    while not (found := fact()):
        assert time.monotonic() < deadline, "the awaited fact did not come about"
        time.sleep(0.02)
    return found


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


# --- fork alone ------------------------------------------------------------------------------------------------------

# The beginning of each: a sibling that serves does `work`, and ends when it is told to.
STAGE = """
import asyncio, json, os, random, secrets, signal, sys, uuid
from datetime import UTC, datetime
from certwright.entry.children import Child
from certwright.entry.lifeline import ENDING, stop_event
from certwright.entry.siblings import Sibling, fork

# Where something is broken, nobody waits for ever.
signal.alarm(BOUND)
os.register_at_fork(after_in_child=lambda: signal.alarm(BOUND))

def say(**facts):
    os.write(1, json.dumps(facts).encode() + b"\\n")

async def serve(sibling):
    stopping = stop_event(sibling.lifeline, quiet=True)
    say(**work())
    await stopping.wait()
    say(pid=os.getpid(), ended=True)

def successor(number):
    return Child(f"web {number + 1}", ["--help"], b"")

def left(siblings):
    return [child.process.pid for child in siblings._children if child.process.poll() is None]

def is_sibling(forked):
    if isinstance(forked, Sibling):
        if forked.may_serve():
            asyncio.run(serve(forked))
        else:
            say(pid=os.getpid(), served=False)
        return True
    return False
"""


def play(script: str) -> subprocess.Popen[bytes]:
    """It ends for whoever reads what it says when all of its processes have ended."""
    whole = f"BOUND = {BOUND:.0f}\n" + STAGE + textwrap.dedent(script)
    return subprocess.Popen([sys.executable, "-c", whole], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def heard(process: subprocess.Popen[bytes], count: int) -> list[dict[str, Any]]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def the_rest(process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    said, _ = process.communicate(timeout=BOUND)
    return [json.loads(line) for line in said.splitlines()]


def test_no_two_of_them_draw_the_same_chance() -> None:
    """Ids of one moment, also where one was made of it before the fork; secrets, keys, and what spreads load."""
    process = play("""
        from cryptography.hazmat.primitives.asymmetric import ec
        from certwright.kernel.ids import new_id

        moment = datetime(2026, 3, 1, tzinfo=UTC)
        made = new_id("cert", moment)
        ec.generate_private_key(ec.SECP256R1())  # OpenSSL's generator is seeded
        random.random(), uuid.uuid4(), secrets.token_hex()

        def work():
            key = ec.generate_private_key(ec.SECP256R1())
            drawn = [secrets.token_hex(), uuid.uuid4(), random.random(), key.private_numbers().private_value]
            return {"chance": [str(one) for one in drawn] + [new_id("cert", moment) for _ in range(500)]}

        forked = fork(2, successor)
        if not is_sibling(forked):
            say(**work())
            forked.let_serve()
            sys.stdin.read()
            asyncio.run(forked.gone(10))
    """)
    drawn = [chance for said in heard(process, 3) for chance in said["chance"]]
    assert len(drawn) == 3 * 504
    assert len(set(drawn)) == len(drawn)
    assert [said["ended"] for said in the_rest(process)] == [True, True]


def test_signals_mean_nothing_to_them_and_the_first_one_ends_them_all() -> None:
    process = play("""
        def work():
            return {"serves": os.getpid()}

        forked = fork(3, successor)
        if isinstance(forked, Sibling):
            say(pid=os.getpid())
        if not is_sibling(forked):
            sys.stdin.readline()
            forked.let_serve()
            sys.stdin.readline()
            asyncio.run(forked.gone(10))
            say(left=left(forked))
    """)
    pids = {said["pid"] for said in heard(process, 3)}

    def interrupt_all() -> None:
        for pid in pids:
            for ending in ENDING:
                os.kill(pid, ending)

    assert process.stdin is not None
    interrupt_all()
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert {said["serves"] for said in heard(process, 3)} == pids
    interrupt_all()
    *ended, last = the_rest(process)
    assert {said["pid"] for said in ended if said["ended"]} == pids
    assert last == {"left": []}
    assert process.returncode == 0


@pytest.mark.parametrize("serving", [True, False], ids=["while they serve", "before they do"])
def test_when_the_first_one_is_killed_they_end(serving: bool) -> None:
    process = play(f"""
        def work():
            return {{"pid": os.getpid()}}

        forked = fork(2, successor)
        if not is_sibling(forked):
            say(pids=left(forked))
            if {serving}:
                forked.let_serve()
            signal.pause()
    """)
    (first,) = heard(process, 1)
    if serving:
        assert {said["pid"] for said in heard(process, 2)} == set(first["pids"])
    process.kill()
    last = the_rest(process)
    assert {said["pid"] for said in last} == set(first["pids"])
    assert all(said.get("ended") if serving else said["served"] is False for said in last)


def test_one_that_does_not_end_is_killed_after_a_while() -> None:
    process = play("""
        forked = fork(1, successor)
        if isinstance(forked, Sibling):
            say(pid=os.getpid())
            while True:
                signal.pause()
        sys.stdin.read()
        asyncio.run(forked.gone(0.1))
        say(left=left(forked))
    """)
    (stuck,) = heard(process, 1)
    assert the_rest(process) == [{"left": []}]
    assert not is_running(stuck["pid"])


@pytest.mark.parametrize("ignored", [True, False], ids=["is nothing to one started with nohup", "ends any other"])
def test_a_terminal_that_is_closed(ignored: bool) -> None:
    process = play(f"""
        # However this test was started.
        signal.signal(signal.SIGHUP, signal.SIG_IGN if {ignored} else signal.SIG_DFL)

        async def wait():
            stopping, handled = stop_event(None, quiet=True), asyncio.Event()
            os.kill(os.getpid(), signal.SIGHUP)
            # Handled in the order in which they come.
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, handled.set)
            os.kill(os.getpid(), signal.SIGUSR1)
            await handled.wait()
            say(ends=stopping.is_set())

        asyncio.run(wait())
    """)
    assert the_rest(process) == [{"ends": not ignored}]
    assert process.returncode == 0


# --- the product -----------------------------------------------------------------------------------------------------

# Written down by the process that is about to fork.
WITNESS = """
import os, sys
def look():
    import asyncio, gc, json, ssl
    if os.path.exists(os.environ["WITNESS"]):
        return
    from asyncpg import Connection
    from certwright.platform.db import Database
    from certwright.platform.vault import FileKeyKeeper, Vault
    secret = (asyncio.AbstractEventLoop, Connection, Database, FileKeyKeeper, Vault, ssl.SSLContext)
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    held = sorted({type(one).__name__ for one in gc.get_objects() if isinstance(one, secret)})
    if frozen:
        gc.freeze()
    files = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd") if int(fd) > 2]
    sockets = [file for file in files if os.path.exists(file) and "socket:" in os.readlink(file)]
    facts = {"threads": len(os.listdir("/proc/self/task")), "held": held, "sockets": len(sockets)}
    with open(os.environ["WITNESS"], "w") as file:
        json.dump(facts, file)
if "--processes" in sys.orig_argv:
    os.register_at_fork(before=look)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("siblings")


@pytest.fixture(scope="module")
def product(home: Path) -> Iterator[Product]:
    (home / "site").mkdir()
    (home / "site" / "sitecustomize.py").write_text(WITNESS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(home / "site"), prepend=os.pathsep)
        patch.setenv("WITNESS", str(home / "witness"))
        running = Product(home / "data", home / "log", {}, options=["--processes", "3"])
    # A process started with nohup, as this one may have been, hands that on.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        running.start()
        signal.signal(signal.SIGHUP, before)
        yield running
    finally:
        signal.signal(signal.SIGHUP, before)
        running.stop()


def siblings_of(product: Product) -> list[int]:
    """The web processes beside the first one: those that were forked, and those that follow such."""
    children = Path(f"/proc/{product.pid}/task/{product.pid}/children").read_text().split()
    found = []
    for pid in children:
        with suppress(FileNotFoundError, ProcessLookupError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if {b"--processes", b"--socket-fd"} & set(words):
                found.append(int(pid))
    return found


def answers(product: Product, *, within: float = BOUND) -> bool:
    """On a connection of its own, after a look into the database."""
    with httpx2.Client(verify=ssl.create_default_context(cafile=str(product.root)), timeout=within) as web:
        try:
            return bool(web.get(f"{product.url}/readyz").status_code == 200)
        except httpx2.TimeoutException:
            return False


def answers_while_stopped(product: Product, others: list[int]) -> bool:
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        return answers(product, within=1)
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def test_nothing_that_must_not_be_shared_is_there_at_the_fork(product: Product, home: Path) -> None:
    assert json.loads((home / "witness").read_text()) == {"threads": 1, "held": [], "sockets": 1}


def test_each_of_them_serves(product: Product) -> None:
    everybody = [product.pid, *siblings_of(product)]
    assert len(everybody) == 3
    for one in everybody:
        # One that is still starting may wait for a lock of one that was stopped: then again.
        until(partial(answers_while_stopped, product, [pid for pid in everybody if pid != one]))


def test_most_of_what_was_loaded_is_shared(product: Product) -> None:
    for pid in siblings_of(product):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        own = kilobytes["Private_Dirty"] + kilobytes["Private_Clean"]
        assert own < 0.4 * kilobytes["Rss"]


def test_one_that_is_killed_is_replaced_and_meanwhile_the_others_go_on(product: Product, home: Path) -> None:
    """So is the one that takes its place, which is killed before it serves."""
    killed, other = siblings_of(product)

    def successor() -> set[int]:
        return set(siblings_of(product)) - {killed, other}

    os.kill(killed, signal.SIGKILL)
    assert all(answers(product) for _ in range(4))
    # Asked again at once it might be none: there is a moment between two programs at which a process has no words.
    (first,) = until(successor)
    os.kill(first, signal.SIGKILL)
    until(lambda: successor() - {first})
    until(partial(answers_while_stopped, product, [product.pid, other]))
    said = [json.loads(line) for line in (home / "log").read_text().splitlines()]
    assert [(one["event"], one["process"], one["code"]) for one in said] == [
        ("a process ended and is started again", "web 2", -signal.SIGKILL),
        ("a process ended and is started again", "web 2", -signal.SIGKILL),
    ]


def test_they_end_with_the_product(product: Product, home: Path) -> None:
    """The last of these: it stops it, as a terminal does that is closed."""
    left = siblings_of(product)
    assert len(left) == 2
    process = product._process
    assert process is not None
    process.send_signal(signal.SIGHUP)
    assert process.wait(BOUND) == 0
    assert not any(is_running(pid) for pid in left)
    assert "Traceback" not in (home / "log").read_text()
