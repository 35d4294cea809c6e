"""Settings: who is told, the account's name, what this server was started with, and what this is."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import Response

from certwright.entry.api.base import SIGNED_IN
from certwright.entry.console.web import FORM_PROBLEMS, Call, Pages, page, revision_of, see
from certwright.kernel.problems import Problem
from certwright.platform import postgres
from certwright.platform.i18n import _, current_locale
from certwright.rooms import notify, uploads
from certwright.rooms.access import people

pages = Pages()

_MANY = 100

UNSHOWN = {
    "database_pool", "smtp_port", "smtp_security", "smtp_username", "smtp_password", "organization", "private_ca_quota",
    "hsm_pin", "hsm_pin_file", "hsm_timeout", "app_database_url", "signer_database_url", "ca_keyring_file",
    "signer_group",
    "sweep_interval", "step_lease", "worker_heartbeat", "log_format", "log_level",
}  # fmt: skip
"""Settings that have no line of their own: shown with another, secret, or only for whoever runs the process."""


@pages.get("/settings", action=SIGNED_IN)
async def settings(call: Call) -> Response:
    return await _settings(call)


async def _settings(call: Call, problem: Problem | None = None) -> Response:
    services, actor = call.services, call.actor
    recipients: Sequence[Any] | None = None
    if call.allowed("smn:recipient:list"):
        recipients = await notify.list_recipients(services, actor, limit=_MANY)
    view = {
        "recipients": recipients,
        "smtp": services.settings.smtp_host,
        "account": await people.get_account(services, actor) if call.allowed("iam:account:get") else None,
        "uploads": await uploads.get_policy(services, actor) if call.allowed("scm:upload_policy:get") else None,
        "quotas": await uploads.quotas(services, actor) if call.allowed("scm:upload_policy:get") else (),
        "facts": _facts(call) if call.allowed("iam:setting:get") else [],
        "version": _release(),
        "values": call.form.values() if problem else {},
    }
    return page(call, "settings.html", view, problem)


def _facts(call: Call) -> list[tuple[str, str, str]]:
    """What people ask about; never a password, never an address with one in it."""
    s = call.services.settings
    mail = f"{s.smtp_host}:{s.smtp_port} ({s.smtp_security})" if s.smtp_host else _("not set")
    url = urlsplit(s.database_url.get_secret_value() if s.database_url else "")
    # A web process of a split installation has the address of the one its parent started.
    is_ours = not url.netloc or (url.username == postgres.APP and not url.hostname)
    database = _("built in") if is_ours else _("another server")
    signing = _("a process of its own") if s.signer_socket else _("this process")
    return [
        (_("Address"), "CERTWRIGHT_PUBLIC_URL", s.base_url),
        (_("Listens on"), "CERTWRIGHT_LISTEN", s.listen),
        (_("Lists and OCSP without TLS"), "CERTWRIGHT_STATUS_LISTEN", s.status_listen or _("nowhere")),
        (_("Address of lists and OCSP in certificates"), "CERTWRIGHT_STATUS_URL", s.status_base_url),
        (
            _("Reverse proxies that are believed"),
            "CERTWRIGHT_TRUSTED_PROXIES",
            ", ".join(str(network) for network in s.trusted_proxies) or _("none"),
        ),
        (_("Data directory"), "CERTWRIGHT_DATA_DIR", str(s.data_dir)),
        (_("Database"), "CERTWRIGHT_DATABASE_URL", database),
        (_("CA keys are opened by"), "CERTWRIGHT_SIGNER_SOCKET", signing),
        (_("Mail server"), "CERTWRIGHT_SMTP_HOST", mail),
        (_("Sender"), "CERTWRIGHT_SMTP_FROM", s.smtp_from),
        (
            _("Private networks that may be reached"),
            "CERTWRIGHT_ALLOWED_NETWORKS",
            ", ".join(str(network) for network in s.allowed_networks) or _("none"),
        ),
        (_("DNS servers"), "CERTWRIGHT_DNS_SERVERS", ", ".join(s.dns_servers) or _("those of the system")),
        (
            _("Public DNS resolvers asked as well"),
            "CERTWRIGHT_PUBLIC_RESOLVERS",
            ", ".join(s.public_resolvers) or _("none"),
        ),
        (
            _("Port asked on authoritative DNS servers"),
            "CERTWRIGHT_DNS_AUTHORITATIVE_PORT",
            str(s.dns_authoritative_port),
        ),
        (_("Port where file validation looks"), "CERTWRIGHT_VALIDATION_HTTP_PORT", str(s.validation_http_port)),
        (_("Where tls-alpn-01 is answered"), "CERTWRIGHT_TLS_ALPN_LISTEN", s.tls_alpn_listen or _("nowhere")),
        (_("Port where tls-alpn-01 is looked for"), "CERTWRIGHT_VALIDATION_TLS_PORT", str(s.validation_tls_port)),
        (_("HSM for CA keys"), "CERTWRIGHT_HSM_MODULE", str(s.hsm_module) if s.hsm_module else _("none")),
        (_("Token of the HSM"), "CERTWRIGHT_HSM_TOKEN_LABEL", s.hsm_token_label or _("none")),
        (_("Seconds between looks"), "CERTWRIGHT_PROBE_INTERVAL", f"{s.probe_interval:g}"),
        (_("Days old observations are kept"), "CERTWRIGHT_OBSERVATIONS_DAYS", str(s.observations_days)),
        (_("Days cleared alarms are kept"), "CERTWRIGHT_ALARMS_DAYS", str(s.alarms_days)),
        (_("Days messages are kept"), "CERTWRIGHT_MESSAGES_DAYS", str(s.messages_days)),
        (_("Hours a CA that is away is waited for"), "CERTWRIGHT_CA_PATIENCE_HOURS", f"{s.ca_patience_hours:g}"),
        (
            _("Days until a reissued version that nothing serves is revoked"),
            "CERTWRIGHT_SUPERSEDED_GRACE_DAYS",
            f"{s.superseded_grace_days:g}",
        ),
        (
            _("Applicants may verify their own OV applications"),
            "CERTWRIGHT_LONE_DESK",
            _("yes") if s.lone_desk else _("no"),
        ),
        (
            _("Privacy statement"),
            "CERTWRIGHT_PRIVACY_STATEMENT_FILE",
            str(s.privacy_statement_file) if s.privacy_statement_file else _("the one that is shipped"),
        ),
        (
            _("Service statement"),
            "CERTWRIGHT_SERVICE_STATEMENT_FILE",
            str(s.service_statement_file) if s.service_statement_file else _("the one that is shipped"),
        ),
        (
            _("Server certificates an account may upload"),
            "CERTWRIGHT_UPLOADED_SERVERS",
            str(s.uploaded_servers),
        ),
        (
            _("Client CA certificates an account may upload"),
            "CERTWRIGHT_UPLOADED_CLIENT_CAS",
            str(s.uploaded_client_cas),
        ),
        (
            _("List of weak keys"),
            "CERTWRIGHT_WEAK_KEYS_FILE",
            str(s.weak_keys_file) if s.weak_keys_file else _("none"),
        ),
        (_("Hours a session lasts"), "CERTWRIGHT_SESSION_HOURS", f"{s.session_hours:g}"),
    ]


@pages.post("/settings/recipients", action="smn:recipient:create")
async def add_recipient(call: Call) -> Response:
    form = call.form
    try:
        await notify.create_recipient(
            call.services, call.actor, name=form.text("name"), email=form.text("email"), locale=current_locale()
        )
    except FORM_PROBLEMS as problem:
        return await _settings(call, problem)
    return see("/settings", said="added", call=call)


@pages.post("/settings/recipients/{id}/verify", action="smn:recipient:update")
async def verify_recipient(call: Call) -> Response:
    try:
        await notify.verify_recipient(call.services, call.actor, call.param("id"), call.form.text("code"))
    except FORM_PROBLEMS as problem:
        return await _settings(call, problem)
    return see("/settings", said="saved", call=call)


@pages.post("/settings/recipients/{id}/resend", action="smn:recipient:update")
async def resend(call: Call) -> Response:
    try:
        await notify.resend_code(call.services, call.actor, call.param("id"))
    except FORM_PROBLEMS as problem:
        return await _settings(call, problem)
    return see("/settings", said="sent", call=call)


@pages.post("/settings/recipients/{id}/delete", action="smn:recipient:delete", ask="remove_recipient")
async def delete_recipient(call: Call) -> Response:
    await notify.delete_recipient(call.services, call.actor, call.param("id"))
    return see("/settings", said="removed", call=call)


@pages.post("/settings/account", action="iam:account:update")
async def rename_account(call: Call) -> Response:
    try:
        await people.rename_account(
            call.services, call.actor, call.form.text("account_name"), revision=revision_of(call.form)
        )
    except FORM_PROBLEMS as problem:
        return await _settings(call, problem)
    return see("/settings", said="saved", call=call)


@pages.post("/settings/uploads", action="scm:upload_policy:update")
async def set_upload_policy(call: Call) -> Response:
    try:
        await uploads.set_policy(
            call.services, call.actor, legacy_rsa=call.form.checked("legacy_rsa"), revision=revision_of(call.form)
        )
    except FORM_PROBLEMS as problem:
        return await _settings(call, problem)
    return see("/settings", said="saved", call=call)


def _release() -> str:
    try:
        return version("certwright")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0"
