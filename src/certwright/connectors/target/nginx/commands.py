"""Runs nginx itself: test, dump, reload. No shell, bounded in time, and its complaints read for people."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from certwright.connectors.target.nginx.config import shown
from certwright.kernel.problems import Problem, Refused, Unavailable
from certwright.platform.db import assert_no_transaction
from certwright.rooms.deployment.words import ConfigFault

_SAID = re.compile(r"\[(?P<level>emerg|error|alert|crit)\] \d+#\d+: (?P<text>.*)")
_PLACE = re.compile(r" in (?P<file>/.+):(?P<line>\d+)$")
_CERTIFICATE = re.compile(r'(?:cannot load certificate(?: key)? |SSL_CTX_use_\w+\()"(?P<file>/[^"]+)"')
_PROGRAM = re.compile(r"/[^\0]*/(nginx|openresty|angie|tengine|freenginx)[A-Za-z0-9._-]{0,32}")
_MOST_OUTPUT = 64 * 1024 * 1024
_MOST_LINKS = 40


@dataclass(frozen=True, slots=True)
class Ran:
    """`out` may hold surrogates for bytes that are no UTF-8; `err` is fit to be shown."""

    code: int
    out: str
    err: str


async def run(argv: Sequence[str], *, seconds: float, cwd: Path | None = None) -> Ran:
    """Run to the end. Raises Refused `command_not_found`/`permission_denied`, Unavailable `command_timeout`."""
    assert_no_transaction()
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=cwd, env=_environment(), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except FileNotFoundError:
        raise Refused(
            "command_not_found", f"There is no program {argv[0]} on this machine.", field="config.nginx",
            fix="Enter the path of the nginx program.",
        ) from None  # fmt: skip
    except PermissionError:
        raise Refused(
            "permission_denied", f"Certwright may not run {argv[0]}.", field="config.nginx",
            fix="Allow the user Certwright runs as to execute it.",
        ) from None  # fmt: skip
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    except TimeoutError:
        raise Unavailable(
            "command_timeout", f"{' '.join(argv)} didn't finish within {seconds:g} seconds.",
            fix="Run it by hand to see what it waits for (a slow DNS name or a key on a device, often).",
        ) from None  # fmt: skip
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return Ran(process.returncode or 0, _text(out), shown(_text(err)))


def _environment() -> Mapping[str, str]:
    # Nothing of ours: settings in the environment may hold secrets.
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def _text(output: bytes) -> str:
    return output[:_MOST_OUTPUT].decode("utf-8", "surrogateescape")


def is_program_name(path: str) -> bool:
    """Whether an absolute path ends in the name of an nginx or of a known derivative."""
    return _PROGRAM.fullmatch(path) is not None


def check_program(path: str) -> str:
    """The file to run, links followed. Refuses what isn't called an nginx itself, and what others could replace."""
    program = _check_trusted(path, "config.nginx", "program")
    if not is_program_name(program):
        raise Refused(
            "nginx_program_invalid", f"{path} leads to a program that is no nginx.", field="config.nginx",
            fix="Enter the path of the nginx program itself.",
        )  # fmt: skip
    return program


def check_configuration_file(path: str) -> str:
    """The real path. Refuses a configuration others can change: it can load modules, and runs with our rights."""
    return _check_trusted(path, "config.config", "configuration file")


def _check_trusted(path: str, field: str, what: str) -> str:
    """Refuse what other users of the machine could exchange, be it the file or anything on the way to it."""
    try:
        way = list(_way_to(path))
    except (FileNotFoundError, NotADirectoryError):
        raise Refused(
            "file_missing", f"There is no {what} {path} on this machine.", field=field, fix="Enter its path."
        ) from None
    except OSError as error:
        raise Refused(
            "permission_denied", f"Certwright may not look at {path}.", field=field, fix="Give it read permission."
        ) from error
    real, status = way[-1]
    if not stat.S_ISREG(status.st_mode):
        raise Refused("not_a_regular_file", f"{path} is not a file.", field=field, fix=f"Enter the path of the {what}.")
    if any(_others_may_change(place, place_status, real) for place, place_status in way):
        raise Refused(
            "untrusted_file",
            f"The {what} {path} can be changed by other users of this machine.",
            field=field,
            fix="It and every directory on the way to it must belong to root or to the user Certwright runs as, and "
            "not be writable by everybody.",
        )
    return str(real)


def _others_may_change(place: Path, status: os.stat_result, real: Path) -> bool:
    if status.st_uid not in (0, os.geteuid()):
        return True
    if stat.S_ISLNK(status.st_mode) or not status.st_mode & stat.S_IWOTH:
        return False
    # In a sticky directory such as /tmp others can't replace what isn't theirs: good enough higher up.
    return not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and place != real.parent)


def _way_to(path: str) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything that decides what a path means: each directory and link passed, and at last the file. OSError."""
    at, links = Path("/"), 0
    yield at, at.lstat()
    todo = list(Path(path).parts[1:])
    while todo:
        part = todo.pop(0)
        if part == "..":
            at = at.parent
            yield at, at.lstat()
            continue
        place = at / part
        status = place.lstat()
        yield place, status
        if not stat.S_ISLNK(status.st_mode):
            at = place
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target = place.readlink()
        if target.is_absolute():
            at, todo = Path("/"), [*target.parts[1:], *todo]
        else:
            todo = [*target.parts, *todo]


def fault_in(stderr: str) -> ConfigFault:
    """What nginx -t complained about, from its standard error."""
    said = [match for line in stderr.splitlines() if (match := _SAID.search(line))]
    # An alert such as "could not open error log file" may come first, but isn't what made it fail.
    said.sort(key=lambda match: match["level"] != "emerg")
    text = said[0]["text"].strip() if said else (stderr.strip().splitlines() or ["nginx gave no reason"])[0]
    certificate = _CERTIFICATE.search(text)
    place = _PLACE.search(text)
    return ConfigFault(
        message=text[:500],
        file=place["file"] if place else None,
        line=int(place["line"]) if place else None,
        certificate_file=certificate["file"] if certificate and "ermission denied" not in text else None,
    )


def broken(fault: ConfigFault, what_now: str) -> Problem:
    """The refusal for a configuration that doesn't load; `what_now` says what that means for the rollout."""
    extra = {"file": fault.file, "line": fault.line, "detail": fault.message}
    if "ermission denied" in fault.message:
        return Refused(
            "permission_denied",
            f"nginx can't test its configuration with Certwright's rights: {fault.message}. {what_now}",
            fix="Run Certwright as the user that may read these files.",
            extra=extra,
        )
    place = f"line {fault.line} of {fault.file}" if fault.file else "the configuration"
    return Refused(
        "nginx_config_broken",
        f"nginx refuses {place}: {fault.message}. {what_now}",
        fix="Correct it (nginx -t shows the same message), then deploy again.",
        extra=extra,
    )
