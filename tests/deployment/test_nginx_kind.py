"""What an nginx target's configuration may say."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from socket import AF_INET, SOCK_DGRAM, socket
from typing import Any

import pytest

from certwright.connectors.target import Targets
from certwright.connectors.target.nginx import NginxKind
from certwright.connectors.target.nginx.commands import check_configuration_file, check_program, fault_in
from certwright.kernel.problems import Invalid, InvalidFields, Refused
from certwright.rooms.deployment.words import ConfigFault, site_as_dict
from tests.deployment.certs import make
from tests.deployment.conftest import Opener
from tests.deployment.test_nginx_rollout import refusal
from tests.servers.nginx import Nginx


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
        pytest.param({"nginx": "/x\ud800/nginx"}, "nginx_program_invalid", "config.nginx", id="half a character"),
        pytest.param({"config": "/a\0b"}, "path_not_absolute", "config.config", id="nul"),
        pytest.param({"config": "/" + "a" * 5000}, "path_not_absolute", "config.config", id="longer than any path"),
        *(
            pytest.param({"connect_host": host}, "connect_host_invalid", "config.connect_host", id=f"host {host}")
            for host in (
                "a b",
                "localhost",
                "169.254.169.254",
                "192.0.2.1",
                "0.0.0.0",
                "255.255.255.255",
                "224.0.0.1",
                "::",
                "2001:db8::1",
                "ff02::1",
                "::ffff:192.0.2.1",
                "fe80::1%lo",
                "127.1",
                "2130706433",
                "",
            )
        ),
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


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.8.7", "::1"])
def test_a_listener_is_looked_at_on_this_machine(host: str) -> None:
    assert NginxKind().check_config({"connect_host": host})["connect_host"] == host


def test_an_address_of_an_interface_is_on_this_machine() -> None:
    with socket(AF_INET, SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no way to other networks, hence perhaps no address of its own")
        own = str(asked.getsockname()[0])
    assert NginxKind().check_config({"connect_host": own})["connect_host"] == own


def test_one_server_is_known_by_its_main_file_whatever_else_is_said(tmp_path: Path) -> None:
    kind, real = NginxKind(), tmp_path / "nginx.conf"
    real.touch()
    (tmp_path / "link").symlink_to("nginx.conf")
    names = [{"config": str(real)}, {"config": f"{tmp_path}/./x/../nginx.conf"}, {"config": f"{tmp_path}/link"},
             {"config": f"{real}", "prefix": "/srv", "nginx": "/opt/nginx", "connect_host": "::1"}]  # fmt: skip
    assert {kind.identity(kind.check_config(name)) for name in names} == {str(real)}
    assert kind.identity(kind.check_config({"config": f"{tmp_path}/other"})) != str(real)


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


def test_what_is_run_is_the_file_that_was_looked_at(tmp_path: Path) -> None:
    program = tmp_path / "real" / "nginx-1.26"
    program.parent.mkdir()
    program.touch()
    (tmp_path / "one").symlink_to("real")
    (tmp_path / "nginx").symlink_to("one/../one/nginx-1.26")
    assert check_program(str(tmp_path / "nginx")) == str(program)
    other = tmp_path / "real" / "sh"
    other.touch()
    (tmp_path / "openresty").symlink_to(other)
    with pytest.raises(Refused) as caught:
        check_program(str(tmp_path / "openresty"))
    assert caught.value.code == "nginx_program_invalid"


@pytest.mark.parametrize("opened", ["", "a", "a/b", "links"])
def test_a_directory_on_the_way_that_everybody_may_write_is_not_trusted(tmp_path: Path, opened: str) -> None:
    place = tmp_path / "top"
    program = place / "a" / "b" / "nginx"
    program.parent.mkdir(parents=True)
    program.touch()
    (place / "links").mkdir()
    (place / "links" / "nginx").symlink_to(program)
    assert check_program(str(place / "links" / "nginx")) == str(program)
    (place / opened).chmod(0o777)
    with pytest.raises(Refused) as caught:
        check_program(str(place / "links" / "nginx"))
    assert caught.value.code == "untrusted_file"
    (place / opened).chmod(0o1777)
    if opened == "a/b":
        with pytest.raises(Refused):
            check_program(str(place / "links" / "nginx"))
    else:
        check_program(str(place / "links" / "nginx"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("given_away", ["a", "a/b", "a/b/nginx", "link"])
def test_what_belongs_to_another_user_is_not_trusted(tmp_path: Path, given_away: str) -> None:
    program = tmp_path / "a" / "b" / "nginx"
    program.parent.mkdir(parents=True)
    program.touch()
    (tmp_path / "link").symlink_to("a")
    os.chown(tmp_path / given_away, 65534, 65534, follow_symlinks=False)
    with pytest.raises(Refused) as caught:
        check_program(str(tmp_path / "link" / "b" / "nginx"))
    assert caught.value.code == "untrusted_file"


def test_links_that_lead_to_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "nginx").symlink_to("other")
    (tmp_path / "other").symlink_to("nginx")
    with pytest.raises(Refused):
        check_program(str(tmp_path / "nginx"))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("password=hunter2;\n", id="settings"),
        pytest.param("root:$y$j9T$hunter2:20000:0:99999:7:::\n", id="passwords"),
        pytest.param("events hunter2;\n", id="the word alone"),
        pytest.param("a { events { hunter2 } }\n", id="not at the top"),
        pytest.param('{"events": {"hunter2": 1}}', id="JSON"),
        pytest.param("# events { }\nhunter2 x;\n", id="a comment"),
    ],
)
def test_a_file_that_is_no_nginx_configuration_is_not_told(nginx: Nginx, target: Opener, text: str) -> None:
    nginx.conf_path.write_text(text)
    problem = refusal(target().discover())
    assert problem.code == "not_nginx_configuration"
    assert "hunter2" not in str(problem.as_dict())


def test_a_main_file_may_have_its_events_block_in_a_file_it_includes(nginx: Nginx, target: Opener) -> None:
    whole = nginx.directory / "whole.conf"
    whole.write_text(nginx.conf_path.read_text())
    nginx.conf_path.write_text(f"include {whole};\n")
    pair = make("a.example")
    nginx.write_site("a.example", pair.pem, pair.key_pem)
    assert [site.names for site in asyncio.run(target().discover()).sites] == [("a.example",)]


def test_bytes_that_are_no_text_are_shown_and_their_files_left_alone(nginx: Nginx, target: Opener) -> None:
    pair = make("a.example")
    site = nginx.write_site("a.example", pair.pem, pair.key_pem)
    odd = os.fsencode(site.key) + b"\xe9"
    with open(odd, "wb") as file:
        file.write(pair.key_pem)
    text = site.conf.read_bytes().replace(b"server_name a.example", b"server_name caf\xe9.example a.example")
    site.conf.write_bytes(text.replace(os.fsencode(site.key) + b";", odd + b";"))
    (found,) = asyncio.run(target().discover()).sites
    assert found.names == (r"caf\xe9.example", "a.example")
    assert (found.managed, found.unmanaged_code) == (False, "path_not_text")
    assert json.dumps(site_as_dict(found)).encode().isascii()
