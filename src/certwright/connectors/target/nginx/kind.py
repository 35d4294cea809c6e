"""The nginx kind of target: what its configuration may say."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from typing import Any

from certwright.connectors.target.nginx.commands import is_program_name
from certwright.connectors.target.nginx.target import NginxTarget, Options
from certwright.kernel.problems import Invalid, InvalidFields, Problem
from certwright.rooms.deployment.ports import Target, Workspace

_DEFAULTS: Mapping[str, Any] = {
    "nginx": "/usr/sbin/nginx",
    "config": "/etc/nginx/nginx.conf",
    "prefix": None,
    "reload": None,
    "connect_host": "127.0.0.1",
}
_UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._-]{0,63}")
_LONGEST_PATH = 4096
# Whoever may create a target could otherwise have the product run any program: only ways to reload a service.
_RELOADS: Mapping[str, tuple[str | None, ...]] = {
    "systemctl": ("reload", None),
    "service": (None, "reload"),
    "rc-service": (None, "reload"),
}
_FOLDERS = ("", "/bin/", "/usr/bin/", "/sbin/", "/usr/sbin/")


class NginxKind:
    """`verify_seconds` bounds how long old workers may go on serving the previous certificate."""

    kind = "nginx"

    def __init__(self, *, verify_seconds: float = 20.0, command_seconds: float = 20.0) -> None:
        self._verify_seconds = verify_seconds
        self._command_seconds = command_seconds

    def check_config(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Fill in defaults; raises InvalidFields with every wrong field.

        `nginx` path of the program · `config` path of its main file · `prefix` as for `nginx -p` · `reload` a list of
        words (default: `nginx -s reload`) · `connect_host` the address of this machine at which listeners on all
        addresses are looked at.
        """
        problems: list[Problem] = []
        for field in sorted(set(config) - set(_DEFAULTS)):
            problems.append(
                Invalid(
                    "target_setting_unknown",
                    f"An nginx target has no setting {field[:40]!r}.",
                    field=f"config.{field[:40]}",
                    fix=f"Use {', '.join(_DEFAULTS)}.",
                )
            )
        checked = dict(_DEFAULTS) | {k: v for k, v in config.items() if k in _DEFAULTS and v is not None}
        if not (_is_path(checked["nginx"]) and is_program_name(checked["nginx"])):
            problems.append(
                Invalid(
                    "nginx_program_invalid", "The program must be given by its absolute path and be an nginx.",
                    field="config.nginx", fix="Enter something like /usr/sbin/nginx.",
                )
            )  # fmt: skip
        for field in ("config", "prefix"):
            value = checked[field]
            if value is not None and not _is_path(value):
                problems.append(
                    Invalid(
                        "path_not_absolute", f"{field} must be an absolute path.", field=f"config.{field}",
                        fix="Begin the path with a slash.",
                    )
                )  # fmt: skip
        if not _is_this_machine(checked["connect_host"]):
            problems.append(
                Invalid(
                    "connect_host_invalid", "connect_host must be an IP address of this machine.",
                    field="config.connect_host", fix="Leave it out for 127.0.0.1.",
                )
            )  # fmt: skip
        if checked["reload"] is not None and not _is_reload(checked["reload"]):
            problems.append(
                Invalid(
                    "reload_command_refused",
                    "Only commands that reload a service are run.",
                    field="config.reload",
                    fix='Leave it out for nginx -s reload, or give ["systemctl", "reload", "nginx"] with your unit.',
                )
            )
        if problems:
            raise InvalidFields(problems)
        return checked

    def identity(self, config: Mapping[str, Any]) -> str:
        """The real path of the main file. Not the prefix: the same file under another prefix names the same files."""
        return os.path.realpath(str(config["config"]))

    def open(self, config: Mapping[str, Any], workspace: Workspace) -> Target:
        options = Options(
            nginx=config["nginx"],
            config=config["config"],
            prefix=config["prefix"],
            reload=tuple(config["reload"]) if config["reload"] else None,
            connect_host=config["connect_host"],
            verify_seconds=self._verify_seconds,
            command_seconds=self._command_seconds,
        )
        return NginxTarget(options, workspace)


def _is_path(value: object) -> bool:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        return False
    try:
        return len(value.encode()) < _LONGEST_PATH
    except UnicodeEncodeError:
        return False


def _is_this_machine(value: object) -> bool:
    """Whether it is a loopback address or an address of one of this machine's interfaces. Sends nothing."""
    if not isinstance(value, str) or "%" in value:
        return False
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return False
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        # To an address of its own the machine speaks from that very address, and to no other. (Whether it can be bound
        # says less: a machine may be set to bind addresses it doesn't have.)
        try:
            asked.connect((value, 9))
        except OSError:
            return False
        return ipaddress.ip_address(asked.getsockname()[0]) == address


def _is_reload(words: object) -> bool:
    if not isinstance(words, list | tuple) or len(words) != 3 or not all(isinstance(word, str) for word in words):
        return False
    folder, _, name = words[0].rpartition("/")
    expected = _RELOADS.get(name)
    if expected is None or (f"{folder}/" if folder else "") not in _FOLDERS:
        return False
    return all(
        bool(_UNIT.fullmatch(word)) if wanted is None else word == wanted
        for word, wanted in zip(words[1:], expected, strict=True)
    )
