"""What an nginx target's configuration may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from certwright.connectors.target import Targets
from certwright.connectors.target.nginx import NginxKind
from certwright.connectors.target.nginx.commands import check_configuration_file, check_program, fault_in
from certwright.kernel.problems import Invalid, InvalidFields, Refused
from certwright.rooms.deployment.words import ConfigFault


def test_defaults_are_those_of_debian() -> None:
    assert NginxKind().check_config({}) == {
        "nginx": "/usr/sbin/nginx",
        "config": "/etc/nginx/nginx.conf",
        "prefix": None,
        "reload": None,
        "connect_host": "127.0.0.1",
    }


@pytest.mark.parametrize(
    ("config", "code", "field"),
    [
        pytest.param({"nginx": "nginx"}, "nginx_program_invalid", "config.nginx", id="relative program"),
        pytest.param({"nginx": "/bin/sh"}, "nginx_program_invalid", "config.nginx", id="another program"),
        pytest.param({"nginx": 7}, "nginx_program_invalid", "config.nginx", id="no text"),
        pytest.param({"config": "nginx.conf"}, "path_not_absolute", "config.config", id="relative config"),
        pytest.param({"prefix": "x"}, "path_not_absolute", "config.prefix", id="relative prefix"),
        pytest.param({"connect_host": "a b"}, "connect_host_invalid", "config.connect_host", id="host"),
        pytest.param({"reload": ["rm", "-rf", "/"]}, "reload_command_refused", "config.reload", id="any command"),
        pytest.param(
            {"reload": ["/tmp/systemctl", "reload", "nginx"]}, "reload_command_refused", "config.reload", id="place"
        ),
        pytest.param({"reload": ["systemctl", "stop", "nginx"]}, "reload_command_refused", "config.reload", id="verb"),
        pytest.param(
            {"reload": ["systemctl", "reload", "--force"]}, "reload_command_refused", "config.reload", id="option"
        ),
        pytest.param({"reload": "systemctl reload nginx"}, "reload_command_refused", "config.reload", id="a string"),
        pytest.param({"bogus": 1}, "target_setting_unknown", "config.bogus", id="unknown"),
    ],
)
def test_a_bad_setting_is_refused_by_name(config: dict[str, Any], code: str, field: str) -> None:
    with pytest.raises(InvalidFields) as caught:
        NginxKind().check_config(config)
    assert [(p.code, p.field) for p in caught.value.problems] == [(code, field)]


def test_all_bad_settings_are_told_at_once() -> None:
    with pytest.raises(InvalidFields) as caught:
        NginxKind().check_config({"nginx": "x", "config": "y", "z": 1})
    assert {p.field for p in caught.value.problems} == {"config.nginx", "config.config", "config.z"}


@pytest.mark.parametrize(
    "reload", [["systemctl", "reload", "nginx.service"], ["/usr/sbin/service", "nginx", "reload"], None]
)
def test_ways_to_reload_a_service_are_accepted(reload: object) -> None:
    assert NginxKind().check_config({"reload": reload})["reload"] == reload


def test_an_unknown_kind_of_target_names_the_known_ones() -> None:
    with pytest.raises(Invalid) as caught:
        Targets().get("apache")
    assert caught.value.code == "target_kind_unknown"
    assert "nginx" in caught.value.fix


@pytest.mark.parametrize(
    ("said", "message", "file", "line", "certificate_file"),
    [
        pytest.param(
            '[emerg] 7#7: unknown directive "x" in /e/n.conf:12\nnginx: configuration file /e/n.conf failed',
            'unknown directive "x" in /e/n.conf:12', "/e/n.conf", 12, None, id="a line",
        ),
        pytest.param(
            '2026/11/21 09:06:01 [emerg] 7#7: SSL_CTX_use_PrivateKey("/c/k.pem") failed (SSL: key values mismatch)',
            'SSL_CTX_use_PrivateKey("/c/k.pem") failed (SSL: key values mismatch)', None, None, "/c/k.pem",
            id="a pair that does not match",
        ),
        pytest.param(
            '[emerg] 7#7: cannot load certificate "/c/a.pem": BIO_new_file() failed (13: Permission denied)',
            'cannot load certificate "/c/a.pem": BIO_new_file() failed (13: Permission denied)', None, None, None,
            id="a certificate we may not read is not one to repair",
        ),
        pytest.param(
            '[alert] 7#7: could not open error log file\n[emerg] 7#7: host not found in upstream "x" in /e/u.conf:3',
            'host not found in upstream "x" in /e/u.conf:3', "/e/u.conf", 3, None, id="an alert before it",
        ),
        pytest.param("", "nginx gave no reason", None, None, None, id="silence"),
    ],
)  # fmt: skip
def test_what_nginx_complains_of_is_understood(
    said: str, message: str, file: str | None, line: int | None, certificate_file: str | None
) -> None:
    assert fault_in(said) == ConfigFault(message, file, line, certificate_file)


def test_files_others_can_change_are_not_trusted(tmp_path: Path) -> None:
    program, config = tmp_path / "nginx", tmp_path / "nginx.conf"
    for check, path in ((check_program, program), (check_configuration_file, config)):
        with pytest.raises(Refused) as caught:
            check(str(path))
        assert caught.value.code == "file_missing"
        path.write_text("")
        path.chmod(0o755)
        check(str(path))
        path.chmod(0o777)
        with pytest.raises(Refused) as caught:
            check(str(path))
        assert caught.value.code == "untrusted_file"
