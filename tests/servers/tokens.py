"""PKCS#11 implementations that have nothing in common but the standard, each with a token called "cas" of its own.

softhsm: SoftHSM2, in this process. p11-kit: SoftHSM2 in a process of its own behind a socket, through p11-kit's client.
tpm: a TPM 2.0 (swtpm) through tpm2-pkcs11. softokn: the token of NSS, behind `odd_token.c`, which tells it where its
database is: python-pkcs11 says nothing to a module when it starts it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.servers import softhsm
from tests.servers.programs import find, missing, require
from tests.servers.softhsm import PIN

SO_PIN = "so-" + PIN
_FOLDERS = tuple(Path(path) for path in ("/usr/lib", "/usr/lib64", "/opt/homebrew/lib"))


def _nothing() -> None:
    return None


@dataclass
class OneToken:
    """`environment` must be set while the module runs. What `lacks` names it makes no keys of. It locks after so many
    wrong PINs (`tries`). Where it is `alone`, nobody else comes to it while we are there, or we lose it to them."""

    name: str
    module: Path
    environment: dict[str, str] = field(default_factory=dict)
    label: str = "cas"
    pin: str = PIN
    lacks: frozenset[str] = frozenset()
    tries: int | None = None
    alone: bool = False
    go_away: Callable[[], None] = _nothing
    come_back: Callable[[], None] = _nothing
    clear: Callable[[], None] = _nothing
    close: Callable[[], None] = _nothing

    def set_environment(self, patch: pytest.MonkeyPatch) -> None:
        for name, value in self.environment.items():
            patch.setenv(name, value)

    def change_pin(self, new: str) -> None:
        tool(self, "--token-label", self.label, "--login", "--pin", self.pin, "--change-pin", "--new-pin", new)
        self.pin = new


def tool(token: OneToken, *words: str) -> str:
    """pkcs11-tool of OpenSC."""
    done = subprocess.run(
        ["pkcs11-tool", "--module", str(token.module), *words], env=os.environ | token.environment,
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def library(name: str, package: str, program: str) -> Path:
    """`lib/**/name`; skips the test where there is none. `program` stands for it in scripts/servers."""
    for folder in _FOLDERS:
        for path in (folder / name, *folder.glob(f"*/{name}"), *folder.glob(f"*/pkcs11/{name}")):
            if path.exists():
                return path
    missing(f"not installed: {program} (Debian: apt-get install {package})")


def in_softhsm(folder: Path) -> OneToken:
    made = softhsm.make(folder)
    away = made.tokens.with_name("away")
    return OneToken(
        "softhsm", made.module, {"SOFTHSM2_CONF": str(made.conf)},
        go_away=lambda: _renamed(made.tokens, away), come_back=lambda: _renamed(away, made.tokens),
    )  # fmt: skip


def _renamed(one: Path, other: Path) -> None:
    one.rename(other)


def behind_p11_kit(folder: Path) -> OneToken:
    require("p11-kit")
    client = library("p11-kit-client.so", "p11-kit-modules", "p11-kit-client")
    made = softhsm.make(folder)
    # A socket's path may have 107 octets.
    place = Path(tempfile.mkdtemp(prefix="p11-")) / "s"
    running: list[subprocess.Popen[bytes]] = []

    def come_back() -> None:
        place.unlink(missing_ok=True)
        words = ["p11-kit", "server", "-f", "-p", str(made.module), "-n", str(place), "pkcs11:token=cas"]
        # With what it starts for each client it is one group.
        running.append(
            subprocess.Popen(
                words,
                env=os.environ | {"SOFTHSM2_CONF": str(made.conf)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        _wait_for(running[-1], place)

    def go_away() -> None:
        server = running.pop()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()

    def close() -> None:
        go_away()
        shutil.rmtree(place.parent)

    come_back()
    return OneToken(
        "p11-kit", client, {"P11_KIT_SERVER_ADDRESS": f"unix:path={place}"},
        go_away=go_away, come_back=come_back, close=close,
    )  # fmt: skip


def _wait_for(server: subprocess.Popen[bytes], place: Path) -> None:
    """Until it listens: a moment after its socket is there."""
    deadline = time.monotonic() + 60
    while True:
        with socket.socket(socket.AF_UNIX) as asking:
            try:
                return asking.connect(str(place))
            except (FileNotFoundError, ConnectionRefusedError):
                assert server.poll() is None
                assert time.monotonic() < deadline
        time.sleep(0.002)


# TPM 2.0 Library, part 3: TPM2_Shutdown(CLEAR); TPM2_DictionaryAttackLockReset with the empty password of a new TPM.
_TPM_SHUTDOWN = bytes.fromhex("8001 0000000c 00000145 0000")
_TPM_LOCK_RESET = bytes.fromhex("8002 0000001b 00000139 4000000a 00000009 40000009 0000 00 0000")


def _tpm_says(place: Path, question: bytes) -> bytes:
    """Up to the code of the answer."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(0.5)
        asking.connect(str(place))
        asking.sendall(question)
        return asking.recv(64)[:10]


def in_tpm(folder: Path) -> OneToken:
    require("swtpm", "pkcs11-tool")
    module = library("libtpm2_pkcs11.so", "libtpm2-pkcs11-1", "tpm2-pkcs11")
    library("libtss2-tcti-swtpm.so.0", "libtss2-tcti-swtpm0", "tcti-swtpm")
    sockets = Path(tempfile.mkdtemp(prefix="tpm-"))
    place, control = sockets / "s", sockets / "s.ctrl"
    for name in ("state", "store"):
        (folder / name).mkdir(parents=True)
    running: list[subprocess.Popen[bytes]] = []

    def come_back() -> None:
        for path in (place, control):
            path.unlink(missing_ok=True)
        words = [
            "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder / 'state'}",
            "--server", f"type=unixio,path={place}", "--ctrl", f"type=unixio,path={control}",
            "--flags", "not-need-init,startup-clear", "--seccomp", "action=none",
        ]  # fmt: skip
        running.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        _wait_for(running[-1], control)
        _wait_for(running[-1], place)

    def go_away() -> None:
        # As a machine says it that is switched off; without it the TPM counts a wrong PIN. It has ears for one client
        # only, and that one may still be there.
        with contextlib.suppress(OSError):
            _tpm_says(place, _TPM_SHUTDOWN)
        server = running.pop()
        server.terminate()
        server.wait()

    def clear() -> None:
        """A TPM has room for three keys in use. The kernel's resource manager swaps them, and throws away what a client
        left behind; here there is none. Wrong PINs are forgotten, too."""
        go_away()
        come_back()
        assert _tpm_says(place, _TPM_LOCK_RESET).endswith(bytes(4))

    def close() -> None:
        go_away()
        shutil.rmtree(sockets)

    come_back()
    token = OneToken(
        "tpm", module,
        {
            "TPM2_PKCS11_TCTI": f"swtpm:path={place}", "TPM2_PKCS11_STORE": str(folder / "store"),
            "TPM2_PKCS11_LOG_LEVEL": "0", "TSS2_LOG": "all+none",
        },
        lacks=frozenset({"RSA_4096"}), tries=3, alone=True, go_away=go_away, come_back=come_back,
        clear=clear, close=close,
    )  # fmt: skip
    try:
        tool(token, "--slot-index", "0", "--init-token", "--label", token.label, "--so-pin", SO_PIN)
        tool(token, "--token-label", token.label, "--init-pin", "--so-pin", SO_PIN, "--pin", token.pin)
    except BaseException:
        close()
        raise
    return token


def in_softokn(folder: Path) -> OneToken:
    import pkcs11

    softokn = library("libsoftokn3.so", "libnss3", "softokn")
    folder.mkdir(parents=True)
    module = odd(softokn, folder / "module.so")
    said = f"configdir='sql:{folder}' certPrefix='' keyPrefix='' secmod='secmod.db' flags= "
    token = OneToken(
        "softokn", module, {"ODD_MODULE": str(softokn), "ODD_RESERVED": said}, "NSS Certificate DB", alone=True,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        token.set_environment(patch)
        started = pkcs11.lib(str(module))
        try:
            (slot,) = [slot for slot in started.get_slots() if slot.get_token().label == token.label]
            session = slot.get_token().open(rw=True, so_pin="")
            session.init_pin(token.pin)
        finally:
            started.finalize()
    return token


IMPLEMENTATIONS: dict[str, Callable[[Path], OneToken]] = {
    "softhsm": in_softhsm, "p11-kit": behind_p11_kit, "tpm": in_tpm, "softokn": in_softokn,
}  # fmt: skip


@functools.cache
def _compiled() -> bytes:
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := find(name))), None)
    if compiler is None:
        missing("not installed: a C compiler (Debian: apt-get install gcc libc6-dev)")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "odd.so"
        source = Path(__file__).with_name("odd_token.c")
        subprocess.run([compiler, "-std=gnu99", "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True)
        return made.read_bytes()


def odd(module: Path, place: Path) -> Path:
    """`odd_token.c` for this module, as `place`: a library that was loaded once stays, with the module it found."""
    place.write_bytes(_compiled())
    return place
