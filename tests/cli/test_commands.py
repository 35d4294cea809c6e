"""The command against a running product: what people see, what programs read, and how it ends."""

from __future__ import annotations

import getpass
import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from certwright.entry.cli import output, settings
from certwright.entry.cli.client import Api
from certwright.entry.cli.errors import CliError
from tests.servers.ports import free_port

from .conftest import EMAIL, PASSWORD, Command, Running


@pytest.fixture(scope="module")
def product_database() -> None:
    """As people have it: commands beside the product find its own PostgreSQL by the data directory."""


def fingerprint(root: Path) -> str:
    return x509.load_pem_x509_certificate(root.read_bytes()).fingerprint(SHA256()).hex()


# --- certificates ---------------------------------------------------------------------------------------------------


def test_a_certificate_is_issued_shown_downloaded_changed_revoked_and_deleted(
    signed_in: Command, tmp_path: Path
) -> None:
    made = signed_in("authorities", "issue", "intra.example", "10.0.0.7", "--name", "intra", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["names"] == ["intra.example", "10.0.0.7"]

    listed = signed_in("certificates", "list", "--search", "intra").out.splitlines()
    assert listed[0].split("\t")[:3] == ["ID", "NAME", "STATE"]
    assert [line.split("\t")[1:3] for line in listed[1:]] == [["intra", "issued"]]
    shown = signed_in("certificates", "show", "intra.example")
    assert "state:" in shown.out
    assert "versions:" in shown.out

    chain = signed_in("certificates", "download", "intra", "-o", "chain.pem")
    assert chain.code == 0, chain.err
    key = signed_in("certificates", "download", "intra", "--format", "key", "-o", "key.pem")
    assert key.code == 0, key.err
    leaf = x509.load_pem_x509_certificates((tmp_path / "chain.pem").read_bytes())[0]
    private = load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    assert private.public_key() == leaf.public_key()
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    again = signed_in("certificates", "download", "intra", "--format", "key", "-o", "key.pem")
    assert (again.code, "file_exists" in again.err) == (1, True)

    renamed = signed_in("certificates", "update", "intra", "--name", "intra-2", "--tag", "team=shop", "--no-auto-renew")
    assert renamed.code == 0, renamed.err
    assert "intra-2" in renamed.out

    unasked = signed_in("certificates", "revoke", "intra-2")
    assert (unasked.code, "--yes" in unasked.err) == (2, True)
    revoked = signed_in("certificates", "revoke", "intra-2", "--reason", "superseded", "--yes", "--wait")
    assert (revoked.code, "revoked" in revoked.out) == (0, True), revoked.err
    deleted = signed_in("certificates", "delete", "intra-2", "--yes")
    assert deleted.code == 0, deleted.err
    assert signed_in("certificates", "show", "intra-2").code == 1


def test_an_application_says_what_to_publish_and_can_be_taken_back(signed_in: Command) -> None:
    applied = signed_in(
        "apply", "www.shop.example", "--name", "shop", "--applicant", "Ann", "--email", EMAIL, "--phone",
        "+49 30 1234567", "--consent",
    )  # fmt: skip
    assert applied.code == 0, applied.err
    assert "pending_domain_validation" in applied.out
    assert re.search(r'Publish: +\S+\. 300 IN TXT "certwright-validation=\S+"', applied.out)
    checked = signed_in("certificates", "check", "shop")
    assert (checked.code, "Last look" in checked.out) == (1, True)
    waited = signed_in("certificates", "wait", "shop", "--timeout", "1")
    assert (waited.code, "still_waiting" in waited.err) == (1, True)
    withdrawn = signed_in("certificates", "withdraw", "shop")
    assert (withdrawn.code, "pending_application" in withdrawn.out) == (0, True), withdrawn.err
    refused = signed_in("certificates", "withdraw", "shop")
    assert refused.code == 1
    assert "Possible now:" in refused.err


def test_many_certificates_are_previewed_changed_and_exported(signed_in: Command, tmp_path: Path) -> None:
    for number in (1, 2):
        made = signed_in("authorities", "issue", f"many-{number}.example", "--name", f"many-{number}")
        assert made.code == 0, made.err
    said = signed_in("certificates", "bulk", "tag", "--search", "many-", "--set-tag", "team=shop", "--dry-run")
    assert (said.code, said.out.count("would be done")) == (0, 2), said.err
    unasked = signed_in("certificates", "bulk", "tag", "--search", "many-", "--set-tag", "team=shop")
    assert (unasked.code, "--yes" in unasked.err) == (2, True)
    assert "team:shop" not in signed_in("certificates", "show", "many-1", "--json").out
    done = signed_in("certificates", "bulk", "tag", "--search", "many-", "--set-tag", "team=shop", "--yes")
    assert (done.code, "Done to 2." in done.out) == (0, True), done.err
    again = json.loads(
        signed_in("certificates", "bulk", "tag", "many-1", "--set-tag", "team=shop", "--yes", "--json").out
    )
    assert (again["ok"], again["items"][0]["problem"]["code"]) == (0, "nothing_to_do")
    assert signed_in("certificates", "bulk", "delete").code == 2

    file = tmp_path / "list.csv"
    assert signed_in("certificates", "export", "--tag", "team:shop", "-o", str(file)).code == 0
    assert len(file.read_text().splitlines()) == 3
    listed = json.loads(signed_in("certificates", "export", "--search", "many-1", "--format", "json").out)
    assert [one["name"] for one in listed["items"]] == ["many-1"]
    narrowed = signed_in("certificates", "list", "--domains", "single", "--search", "many-", "--type", "dv", "--json")
    assert len(json.loads(narrowed.out)["items"]) == 2
    assert json.loads(signed_in("certificates", "list", "--deployed-on", "nowhere", "--json").out)["items"] == []


def test_what_applicants_agree_to_can_be_read(signed_in: Command) -> None:
    read = signed_in("certificates", "privacy-statement")
    assert (read.code, "# What is kept" in read.out) == (0, True), read.err
    assert signed_in("certificates", "privacy-statement", "--version", "never").code == 1


def test_every_wrong_field_of_an_application_has_its_own_line(signed_in: Command) -> None:
    refused = signed_in("apply", "not a name", "--applicant", "Ann", "--email", "nobody", "--phone", "1", "--consent")
    assert refused.code == 1
    assert re.search(r"^  names\S*: .+\[\w+\]$", refused.err, re.MULTILINE)
    assert re.search(r"^  applicant\.email: .+\[\w+\]$", refused.err, re.MULTILINE)


def test_json_is_the_document_of_the_api_even_for_a_problem(signed_in: Command) -> None:
    missing = signed_in("certificates", "show", "cert_00000000000000000000000000", "--json")
    assert missing.code == 1
    assert json.loads(missing.out)["code"] == "not_found"
    assert "Code: not_found" in missing.err


def test_a_name_that_stands_for_two_asks_for_the_id(signed_in: Command) -> None:
    for number in (1, 2):
        assert signed_in("authorities", "issue", "twin.example", "--name", f"twin-{number}").code == 0
    unclear = signed_in("certificates", "show", "twin.example")
    assert (unclear.code, "name_ambiguous" in unclear.err) == (2, True)


def test_a_table_of_versions_fits_a_terminal_of_eighty_columns(
    signed_in: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert signed_in("authorities", "issue", "wide.example", "--name", "wide").code == 0
    assert signed_in("certificates", "reissue", "wide", "--wait").code == 0
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    table = signed_in("certificates", "show", "wide").out.partition("versions:\n")[2].splitlines()
    heading, *lines = [line.rstrip() for line in table if line.strip()]
    assert heading.split() == ["NUMBER", "ID", "STATUS", "EXPIRES", "KEY"]
    assert [line.split()[0::2][:2] for line in lines] == [["2", "current"], ["1", "superseded"]]
    assert max(map(len, [heading, *lines])) <= 80


def test_an_earlier_version_is_revoked_by_its_number(signed_in: Command) -> None:
    assert signed_in("authorities", "issue", "leaked.example", "--name", "leaked").code == 0
    assert signed_in("certificates", "reissue", "leaked", "--wait").code == 0
    unknown = signed_in("certificates", "revoke", "leaked", "--version", "7", "--yes")
    assert (unknown.code, "There are: 2, 1." in unknown.err) == (2, True)
    done = signed_in(
        "certificates", "revoke", "leaked", "--version", "1", "--reason", "key_compromise", "--yes", "--wait", "--json"
    )
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["state"] == "issued"
    assert [(v["number"], v["revocation_reason"]) for v in document["versions"]] == [(2, None), (1, "key_compromise")]
    assert document["versions"][1]["revoked_at"]
    again = signed_in("certificates", "revoke", "leaked", "--version", "1", "--yes")
    assert (again.code, "expired or is revoked" in again.err) == (1, True)


def test_whom_a_dns_connection_can_be_made_to_is_listed_with_what_each_needs(signed_in: Command) -> None:
    table = signed_in("dns", "operators", "cloudfl")
    assert (table.code, "Cloudflare" in table.out, "Hetzner" in table.out) == (0, True, False)
    (one,) = json.loads(signed_in("dns", "operators", "cloudfl", "--json").out)["items"]
    assert (one["kind"], one["settings"]) == ("lexicon", {"provider": "cloudflare"})
    assert [field["name"] for field in one["fields"] if field["secret"]] == ["auth_token"]


def test_any_other_table_shows_as_many_columns_as_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [{"id": "x" * 30, "first": "a" * 30, "second": "b" * 30, "third": "c" * 10} for _ in range(2)]
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    output.details({"things": items})
    lines = capsys.readouterr().out.partition("things:\n")[2].splitlines()
    assert lines[0].split() == ["ID", "FIRST", "THIRD"]
    assert len(lines) == 3


# --- the other groups -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("certificates", "list"), ("targets", "list"), ("sites", "list"), ("sites", "bindings"), ("rollouts", "list"),
        ("endpoints", "list"), ("alarms", "list"), ("alarms", "list", "--cleared"), ("dns", "list"),
        ("validation", "evidence"), ("validation", "methods", "www.example.com"), ("authorities", "list"),
        ("users", "list"), ("groups", "list"), ("policies", "list"), ("policies", "attachments"), ("projects", "list"),
        ("tokens", "list"), ("audit", "list"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_every_list_is_lines_with_a_heading_and_a_document_for_programs(
    signed_in: Command, arguments: tuple[str, ...]
) -> None:
    table = signed_in(*arguments)
    assert table.code == 0, table.err
    heading, *lines = table.out.splitlines()
    assert heading.isupper()
    assert {line.count("\t") for line in lines} <= {heading.count("\t")}
    found = signed_in(*arguments, "--json")
    assert found.code == 0, found.err
    assert len(json.loads(found.out)["items"]) >= len(lines)


def test_people_and_permissions_are_managed(signed_in: Command) -> None:
    invited = signed_in("users", "invite", "bob@one.example", "Bob")
    assert (invited.code, "/password?token=" in invited.out) == (0, True), invited.err
    assert signed_in("groups", "create", "auditors").code == 0
    assert signed_in("groups", "add-member", "auditors", "bob@one.example").code == 0
    assert "bob@one.example" in signed_in("groups", "members", "auditors").out
    before = signed_in("policies", "simulate", "bob@one.example", "iam:audit:list")
    assert (before.code, "allowed:" in before.out) == (1, True), before.err
    attached = signed_in("policies", "attach", "Security Auditor", "--group", "auditors")
    assert attached.code == 0, attached.err
    after = signed_in("policies", "simulate", "bob@one.example", "iam:audit:list")
    assert after.code == 0, after.out
    assert "Bob" in signed_in("users", "show", "bob@one.example").out
    assert "disabled" in signed_in("users", "disable", "bob@one.example").out


def test_a_project_is_named_by_its_name_or_its_id(signed_in: Command) -> None:
    made = signed_in("projects", "create", "north", "--json")
    project = json.loads(made.out)["id"]
    for number, called in enumerate(("north", project)):
        issued = signed_in("authorities", "issue", f"p{number}.example", "--name", f"pp{number}", "--project", called)
        assert issued.code == 0, issued.err
    assert json.loads(signed_in("certificates", "show", "pp0", "--json").out)["project_id"] == project
    listed = json.loads(signed_in("certificates", "list", "--project", "north", "--json").out)["items"]
    assert {item["name"] for item in listed} == {"pp0", "pp1"}
    moved = signed_in("certificates", "update", "pp0", "--project", "default")
    default = json.loads(signed_in("certificates", "show", "pp0", "--json").out)["project_id"]
    assert (moved.code, default == project) == (0, False), moved.err
    for arguments in (
        ("authorities", "issue", "p3.example"), ("certificates", "list"), ("certificates", "update", "pp0"),
        ("apply", "p4.example", "--phone", "+49 30 1234567", "--consent"), ("targets", "add", "t"),
        ("endpoints", "add", "127.0.0.1"), ("policies", "simulate", EMAIL, "scm:cert:list"),
        ("policies", "attach", "Security Auditor", "--user", EMAIL),
    ):  # fmt: skip
        refused = signed_in(*arguments, "--project", "nort")
        assert (refused.code, "There is nothing called 'nort'" in refused.err) == (1, True), arguments


def test_a_server_that_cannot_be_looked_at_is_not_kept(signed_in: Command, tmp_path: Path) -> None:
    refused = signed_in("targets", "add", "nowhere", "--set", f"config={tmp_path}/no-such/nginx.conf")
    assert refused.code == 1
    assert "nowhere was not added." in refused.err
    assert "nowhere" not in signed_in("targets", "list").out


def test_a_server_that_could_not_be_taken_back_is_told_with_the_way_on(
    signed_in: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(api: Api, path: str) -> None:
        raise CliError("not_permitted", "You may not do this (scm:target:delete).")

    with monkeypatch.context() as broken:
        broken.setattr(Api, "delete", refuse)
        kept = signed_in("targets", "add", "stays", "--set", f"config={tmp_path}/no-such/nginx.conf", "--json")
    assert "stays was added and stays, because you may not do this" in json.loads(kept.out)["fix"]
    assert re.search(r"certwright targets discover tgt_\w{26}", kept.err)
    assert signed_in("targets", "delete", "stays", "--yes").code == 0


def test_an_endpoint_is_watched_and_its_alarm_shown(signed_in: Command) -> None:
    port = free_port()
    added = signed_in("endpoints", "add", "127.0.0.1", "--port", str(port))
    assert added.code == 0, added.err
    shown = signed_in("endpoints", "show", f"127.0.0.1:{port}", "--json")
    assert json.loads(shown.out)["port"] == port
    assert signed_in("endpoints", "probe", f"127.0.0.1:{port}").code == 0
    assert signed_in("endpoints", "delete", f"127.0.0.1:{port}", "--yes").code == 0


def test_a_new_token_is_alone_on_standard_output(signed_in: Command) -> None:
    made = signed_in("tokens", "create", "ci", "--days", "7")
    assert re.fullmatch(r"cwt_\S+\n", made.out)
    assert "cwt_" not in made.err
    assert signed_in("tokens", "revoke", "ci", "--yes").code == 0


# --- how it ends ----------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_ends_with_4(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERTWRIGHT_URL", f"https://127.0.0.1:{free_port()}")
    ended = command("certificates", "list")
    assert (ended.code, "Code: not_reachable" in ended.err, ended.out) == (4, True, "")


def test_a_server_that_cannot_prove_itself_is_told_nothing(
    command: Command, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CERTWRIGHT_URL", running.url)
    monkeypatch.setenv("CERTWRIGHT_TOKEN", running.token)
    ended = command("certificates", "list")
    assert (ended.code, "Code: certificate_not_trusted" in ended.err) == (4, True)


def test_without_a_token_it_ends_with_3(signed_in: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CERTWRIGHT_TOKEN")
    ended = signed_in("certificates", "list")
    assert (ended.code, "certwright login" in ended.err) == (3, True)


@pytest.mark.parametrize(
    "arguments",
    [("certificates", "list", "--limit", "0"), ("apply",), ("no-such-command",), ("certificates", "update", "x")],
    ids=" ".join,
)
def test_a_command_used_wrongly_ends_with_2(command: Command, arguments: tuple[str, ...]) -> None:
    assert command(*arguments).code == 2


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://user@host", "https://host/path", "https://"])
def test_an_address_that_is_none_is_refused_before_anything_is_sent(
    command: Command, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("CERTWRIGHT_URL", url)
    ended = command("whoami")
    assert (ended.code, "url_invalid" in ended.err) == (2, True)


# --- signing in -----------------------------------------------------------------------------------------------------


def test_login_keeps_a_token_for_its_owner_alone_and_logout_revokes_it(
    command: Command, running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("certwright.entry.cli.session._ask", lambda email: (email, getpass.getpass()))
    monkeypatch.setattr(getpass, "getpass", lambda prompt="": PASSWORD)
    shown = fingerprint(running.root)
    done = command("login", running.url, "--email", EMAIL, "--trust-fingerprint", shown)
    assert done.code == 0, done.err
    kept = tmp_path / "config" / "cli.toml"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    stored = settings.read_stored({"CERTWRIGHT_CLI_DIR": str(tmp_path / "config")})
    assert stored is not None
    assert EMAIL in command("whoami").out
    assert command("logout").code == 0
    assert not kept.exists()
    monkeypatch.setenv("CERTWRIGHT_URL", running.url)
    monkeypatch.setenv("CERTWRIGHT_CA_FILE", str(running.root))
    monkeypatch.setenv("CERTWRIGHT_TOKEN", stored.token)
    assert command("whoami").code == 3


def test_login_with_a_token_from_standard_input(command: Command, running: Running) -> None:
    done = command("login", running.url, "--ca-file", str(running.root), "--token-stdin", stdin=running.token + "\n")
    assert (done.code, running.token in done.out + done.err) == (0, False), done.err
    assert command("certificates", "list").code == 0


def test_a_wrong_password_is_told_as_what_it_is(
    command: Command, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("certwright.entry.cli.session._ask", lambda email: (email, "not the right passphrase"))
    refused = command("login", running.url, "--ca-file", str(running.root), "--email", EMAIL)
    assert (refused.code, "Code: bad_credentials" in refused.err) == (3, True)
    assert "Check both" in refused.err
    assert "certwright login" not in refused.err


def test_login_refuses_a_root_with_another_fingerprint(command: Command, running: Running, tmp_path: Path) -> None:
    refused = command("login", running.url, "--trust-fingerprint", "00" * 32, "--token-stdin", stdin="x\n")
    assert (refused.code, "fingerprint_differs" in refused.err) == (4, True)
    assert list((tmp_path / "config").glob("*")) == []


def test_login_trusts_no_unknown_root_when_nobody_can_be_asked(command: Command, running: Running) -> None:
    refused = command("login", running.url, "--token-stdin", stdin=running.token)
    assert (refused.code, "certificate_not_trusted" in refused.err) == (4, True)


def test_a_stored_token_is_sent_to_its_own_server_only(tmp_path: Path) -> None:
    environ = {"CERTWRIGHT_CLI_DIR": str(tmp_path), "CERTWRIGHT_DATA_DIR": str(tmp_path)}
    settings.write_stored(settings.Stored("https://one.example", "cwt_1_secret"), environ)
    assert settings.load(environ).token == "cwt_1_secret"
    assert settings.load(environ | {"CERTWRIGHT_URL": "https://other.example"}).token is None


# --- on this machine ------------------------------------------------------------------------------------------------


def _local(running: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: these commands have an event loop and logging to themselves."""
    return subprocess.run(
        [sys.executable, "-m", "certwright", *arguments, "--data-dir", str(running.data_dir)],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_the_audit_chain_is_verified_beside_the_running_product(running: Running) -> None:
    first = _local(running, "audit", "verify", "--json")
    assert first.returncode == 0, first.stderr
    head = json.loads(first.stdout)["head"]
    assert _local(running, "audit", "verify", "--noted", head).returncode == 0
    position = head.partition(":")[0]
    cut = _local(running, "audit", "verify", "--noted", f"{position}:{'0' * 64}")
    assert (cut.returncode, "chain_cut" in cut.stderr) == (1, True)


def test_keys_are_rotated_under_the_running_product(running: Running, signed_in: Command) -> None:
    assert signed_in("authorities", "issue", "rotated.example", "--name", "rotated").code == 0
    rotated = _local(running, "keys", "rotate")
    assert rotated.returncode == 0, rotated.stderr
    assert re.search(r"\b[1-9]\d* secrets were put under it", rotated.stdout)
    read = signed_in("certificates", "download", "rotated", "--format", "key", "-o", "-")
    assert (read.code, "PRIVATE KEY" in read.out) == (0, True), read.err
    assert signed_in("authorities", "issue", "after.example", "--name", "after").code == 0


def test_there_is_no_set_up_link_once_there_is_an_administrator(running: Running) -> None:
    refused = _local(running, "setup-link")
    assert (refused.returncode, "already_set_up" in refused.stderr) == (1, True)


# --- the command itself ---------------------------------------------------------------------------------------------


def test_help_loads_neither_server_nor_http_client() -> None:
    code = (
        "import sys\nfrom certwright.entry.cli.app import app\n"
        "heavy = {'fastapi', 'sqlalchemy', 'pydantic', 'cryptography', 'httpx2', 'rich', 'asyncpg'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.strip() == "[]"


def test_the_shell_can_complete_commands() -> None:
    environ = {"_CERTWRIGHT_COMPLETE": "complete_bash", "COMP_WORDS": "certwright certi", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "certwright"], capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **environ},
    )  # fmt: skip
    assert done.stdout.split() == ["certificates"]
