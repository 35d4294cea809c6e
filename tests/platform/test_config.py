"""Settings: read from the environment and a TOML file, and refused with the setting's own name."""

from __future__ import annotations

from pathlib import Path

import pytest

from certwright.kernel.problems import InvalidFields, Problem
from certwright.platform.config import load_settings


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "certwright.toml"
    file.write_text('listen = "127.0.0.1:1"\norganization = "Example"\nallowed_networks = ["10.0.0.0/8"]\n')
    settings = load_settings({"CERTWRIGHT_CONFIG": str(file), "CERTWRIGHT_LISTEN": "127.0.0.1:2"})
    assert settings.listen == "127.0.0.1:2"
    assert settings.organization == "Example"
    assert str(settings.allowed_networks[0]) == "10.0.0.0/8"


def test_the_file_of_the_data_directory_is_found_by_itself(tmp_path: Path) -> None:
    (tmp_path / "certwright.toml").write_text('organization = "Example"\n')
    assert load_settings({"CERTWRIGHT_DATA_DIR": str(tmp_path)}).organization == "Example"


def test_lists_are_comma_separated_in_the_environment() -> None:
    settings = load_settings({"CERTWRIGHT_DNS_SERVERS": "192.0.2.1:53, [2001:db8::1]:53"})
    assert settings.dns_servers == ("192.0.2.1:53", "[2001:db8::1]:53")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CERTWRIGHT_LISTEN", "8443"),
        ("CERTWRIGHT_LISTEN", "host:notaport"),
        ("CERTWRIGHT_PUBLIC_URL", "ftp://example.com"),
        ("CERTWRIGHT_ALLOWED_NETWORKS", "10.0.0.0/99"),
        ("CERTWRIGHT_SMTP_PORT", "99999"),
        ("CERTWRIGHT_SMTP_SECURITY", "maybe"),
        ("CERTWRIGHT_DNS_SERVERS", "nonsense"),
        ("CERTWRIGHT_PROBE_INTERVAL", "0"),
        ("CERTWRIGHT_LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(variable: str, value: str) -> None:
    with pytest.raises(InvalidFields) as caught:
        load_settings({variable: value})
    assert caught.value.field == variable
    assert variable in caught.value.message


def test_a_secret_that_is_wrong_is_not_repeated_in_the_message() -> None:
    with pytest.raises(Problem) as caught:
        load_settings({"CERTWRIGHT_LISTEN": "x", "CERTWRIGHT_DATABASE_URL": "postgresql://u:hunter2@h/db"})
    assert "hunter2" not in repr(caught.value.as_dict())


def test_an_unknown_setting_in_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('lisen = "127.0.0.1:1"\n')
    with pytest.raises(InvalidFields) as caught:
        load_settings({"CERTWRIGHT_CONFIG": str(file)})
    assert caught.value.code == "setting_unknown"
    assert caught.value.field == "lisen in c.toml"


@pytest.mark.parametrize("content", [b"listen = ", b"\xff\xfe", b"[["])
def test_a_file_that_is_not_toml_is_refused_with_its_path(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(content)
    with pytest.raises(Problem) as caught:
        load_settings({"CERTWRIGHT_CONFIG": str(file)})
    assert caught.value.code == "config_unreadable"
    assert str(file) in caught.value.message


def test_a_misspelt_variable_is_refused_with_the_setting_that_is_meant() -> None:
    with pytest.raises(Problem) as caught:
        load_settings({"CERTWRIGHT_ALLOWED_NETWORK": "10.0.0.0/8"})
    assert (caught.value.code, caught.value.field) == ("setting_unknown", "CERTWRIGHT_ALLOWED_NETWORK")
    assert "CERTWRIGHT_ALLOWED_NETWORKS" in caught.value.fix


@pytest.mark.parametrize(
    "variable", ["CERTWRIGHT_URL", "CERTWRIGHT_TOKEN", "CERTWRIGHT_CA_FILE", "CERTWRIGHT_APPLICANT"]
)
def test_variables_of_the_command_line_are_no_settings_and_let_through(variable: str) -> None:
    assert load_settings({variable: "x"}).listen
