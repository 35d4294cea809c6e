"""The console's frame: routes that name their action, one call value for handlers, rendering, and safe headers.

A page is an ordinary GET; every change is an ordinary POST answered by a redirect, or by the same page again with the
problems beside the fields. Scripts only make that smoother.
"""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import structlog
from babel import Locale
from babel.core import negotiate_locale
from babel.dates import format_date, format_datetime, format_timedelta
from babel.numbers import format_decimal
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from certwright.entry.api.base import PUBLIC, SESSION_COOKIE, SIGNED_IN, Caller, identify, require_same_origin
from certwright.entry.console import forms, words
from certwright.entry.console.forms import Faults, Form
from certwright.kernel.actor import Actor
from certwright.kernel.problems import Invalid, NotFound, Problem, Refused, Stale, TooLarge, TooMany, Unauthenticated
from certwright.platform.i18n import _, available_locales, current_locale, ngettext, use_locale
from certwright.platform.services import Services
from certwright.rooms import access

log = structlog.get_logger(__name__)

THEMES = ("auto", "light", "dark")
THEME_COOKIE = "certwright-theme"
LOCALE_COOKIE = "certwright-locale"
SAID_COOKIE = "certwright-said"

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    # Not no-referrer: browsers would then send `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


FORM_PROBLEMS = (Invalid, Refused, Stale, TooMany, TooLarge)
"""What a person can set right on the page they are on; everything else gets a page of its own."""


@dataclass(frozen=True, slots=True)
class Who:
    """The signed-in person behind a request; `name` is their e-mail address."""

    actor: Actor
    name: str
    session_id: str | None


@dataclass(frozen=True, slots=True)
class Call:
    """Everything a handler gets. `now` is one moment for the whole page."""

    request: Request
    services: Services
    now: datetime
    who: Who | None
    form: Form
    query: Form
    theme: str
    said: str | None
    allowed: Callable[[str], bool]

    @property
    def actor(self) -> Actor:
        if self.who is None:
            raise Unauthenticated("not_signed_in", "Sign in first.", fix="Sign in and try again.")
        return self.who.actor

    @property
    def path(self) -> str:
        return self.request.url.path

    def param(self, name: str) -> str:
        return str(self.request.path_params[name])


Handler = Callable[[Call], Awaitable[Response]]
_call: ContextVar[Call] = ContextVar("console_call")


@dataclass(slots=True)
class Pages:
    """Collects handlers; `action` says what a caller must be allowed to do, or PUBLIC or SIGNED_IN."""

    found: list[tuple[str, str, str, Handler]] = field(default_factory=list)

    def get(self, path: str, *, action: str) -> Callable[[Handler], Handler]:
        return self._add("GET", path, action)

    def post(self, path: str, *, action: str) -> Callable[[Handler], Handler]:
        return self._add("POST", path, action)

    def _add(self, method: str, path: str, action: str) -> Callable[[Handler], Handler]:
        def keep(handler: Handler) -> Handler:
            self.found.append((method, path, action, handler))
            return handler

        return keep


class ActionRoute(Route):
    """A route of the console with the action it requires, for the test that walks all routes."""

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]], method: str, action: str) -> None:
        super().__init__(path, endpoint, methods=[method])
        self.action = action

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        # The log line and the request counter name the route by this.
        return match, {**child, "route": self} if match is not Match.NONE else child


def routes(pages: Pages, services: Services) -> list[ActionRoute]:
    """Raises RuntimeError for an action that isn't in the catalogue."""
    for method, path, action, _handler in pages.found:
        if action not in (PUBLIC, SIGNED_IN) and action not in access.ACTIONS:
            raise RuntimeError(f"{method} {path} names the unknown action {action!r}")
    # /certificates/new is not the certificate called "new": addresses without parameters come first.
    ordered = sorted(pages.found, key=lambda found: "{" in found[1])
    return [
        ActionRoute(path, _endpoint(handler, action, services), method, action)
        for method, path, action, handler in ordered
    ]


def refusal_page(request: Request, services: Services, status: int) -> Response:
    """The page for what the router refuses; made without looking who asks."""
    problem: Problem = NotFound("not_found", "There is no such page.", fix="Check the address, or begin at the start.")
    problem.status = status
    with use_locale(_locale_of(request)):
        call = _empty_call(request, services)
        token = _call.set(call)
        try:
            return _safe(problem_page(call, problem))
        finally:
            _call.reset(token)


def _endpoint(handler: Handler, action: str, services: Services) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        with use_locale(_locale_of(request)):
            call = _empty_call(request, services)
            token = _call.set(call)
            try:
                return _safe(await _answer(handler, action, call))
            finally:
                _call.reset(token)

    return endpoint


def _safe(response: Response) -> Response:
    response.headers.update(SECURITY_HEADERS)
    return response


async def _answer(handler: Handler, action: str, call: Call) -> Response:
    """Who asks, may they, what did they send; then the handler. Every refusal becomes a page."""
    request = call.request
    try:
        if request.method == "POST":
            require_same_origin(request)
        if b"%00" in request.scope.get("raw_path", b""):
            raise NotFound("not_found", "There is no such page.", fix="Check the address.")
        who = await _who(request)
        call = replace(call, query=forms.parse(request.url.query), who=who, allowed=_allowed(who))
        _call.set(call)
        if action != PUBLIC:
            if action != SIGNED_IN:
                access.require_somewhere(call.actor, action)
            elif who is None:
                return _to_sign_in(call)
        if request.method == "POST":
            call = replace(call, form=await forms.read(request))
            _call.set(call)
        response = await handler(call)
    except Unauthenticated:
        return _to_sign_in(call)
    except Problem as problem:
        return problem_page(call, problem)
    if call.said is not None and response.status_code < 300:
        response.delete_cookie(SAID_COOKIE, path="/")
    return response


async def _who(request: Request) -> Who | None:
    if SESSION_COOKIE not in request.cookies:
        return None
    try:
        caller: Caller = await identify(request)
    except Unauthenticated:
        return None
    request.scope["certwright.caller"] = caller
    return Who(caller.actor, caller.actor.name, caller.session_id)


def _allowed(who: Who | None) -> Callable[[str], bool]:
    def allowed(action: str) -> bool:
        return who is not None and access.allowed_somewhere(who.actor.grants, action)

    return allowed


def _empty_call(request: Request, services: Services) -> Call:
    theme = request.cookies.get(THEME_COOKIE, "auto")
    said = request.cookies.get(SAID_COOKIE)
    return Call(
        request=request,
        services=services,
        now=services.clock.now(),
        who=None,
        form=Form([]),
        query=Form([]),
        theme=theme if theme in THEMES else "auto",
        said=said if said in words.SAID else None,
        allowed=lambda _action: False,
    )


def _locale_of(request: Request) -> str:
    offered = available_locales()
    chosen = request.cookies.get(LOCALE_COOKIE)
    if chosen in offered:
        return str(chosen)
    wanted = []
    for part in request.headers.get("accept-language", "").split(",")[:20]:
        tag, _semicolon, _quality = part.strip().partition(";")
        wanted.append(tag.replace("-", "_"))
    return negotiate_locale(wanted, list(offered)) or offered[0]


def _to_sign_in(call: Call) -> Response:
    target = call.path if call.request.method == "GET" else "/"
    if call.request.method == "GET" and call.request.url.query:
        target += "?" + call.request.url.query
    address = "/sign-in" if target == "/" else "/sign-in?" + urlencode({"next": target})
    if call.request.headers.get("hx-request") == "true":
        # A fragment must not be filled with the sign-in page: let the whole page go there.
        return Response(status_code=204, headers={"hx-redirect": address})
    return RedirectResponse(address, status_code=303)


def safe_next(target: str) -> str:
    """`target` if it is a path of this console, else `/`: sign-in must not become a way to send people elsewhere."""
    good = (
        target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable() and "\\" not in target
    )
    return target if good else "/"


# --- answering ------------------------------------------------------------------------------------------------------


def page(
    call: Call, template: str, view: Mapping[str, Any] | None = None, *, status: int = 200, faults: Faults | None = None
) -> Response:
    """The page made of `template`; `view` are its variables."""
    context = {"call": call, "faults": faults or Faults(), "now": call.now, **(view or {})}
    html = _environment().get_template(template).render(context)
    return Response(html, status_code=status, media_type="text/html", headers={"cache-control": "no-store"})


def again(
    call: Call, template: str, view: Mapping[str, Any], problem: Problem, renamed: Mapping[str, str] | None = None
) -> Response:
    """The same form with what was typed and what is wrong with it; secrets are not put back into it."""
    return page(call, template, view, status=problem.status, faults=Faults.of(problem, renamed))


def see(path: str, *, said: str | None = None, call: Call | None = None) -> Response:
    """Go to `path` by GET; `said` is a code of words.SAID, shown there once."""
    response = RedirectResponse(quote(path, safe="/?&=%#:,+~-._"), status_code=303)
    if said is not None:
        secure = call is None or call.request.url.scheme == "https"
        response.set_cookie(
            SAID_COOKIE, said, max_age=60, path="/", secure=secure, httponly=True, samesite="lax"
        )  # fmt: skip
    return response


def problem_page(call: Call, problem: Problem) -> Response:
    return page(call, "problem.html", {"problem": problem}, status=problem.status)


def clear_session(response: Response) -> None:
    response.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="lax")


def revision_of(form: Form) -> int:
    """The revision a page was made of, from its hidden field. Raises Invalid `revision_missing`."""
    text = form.text("revision")
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Invalid("revision_missing", "The form is incomplete.", fix="Open the page again and repeat the change.")
    return int(text)


def whole_number(form: Form, name: str) -> int:
    """Raises Invalid `number_invalid` for anything but up to nine digits."""
    text = form.text(name)
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Invalid("number_invalid", "That is not a whole number.", field=name, fix="Use digits only.")
    return int(text)


# --- static files ---------------------------------------------------------------------------------------------------


def static_dir() -> Path:
    return Path(str(files("certwright.entry.console") / "static"))


@lru_cache(maxsize=64)
def _static_hash(name: str) -> str:
    try:
        return hashlib.sha256((static_dir() / name).read_bytes()).hexdigest()[:12]
    except FileNotFoundError:
        return "missing"


def static_url(name: str) -> str:
    """The address of a static file; it changes with the content, so that browsers may keep the file for good."""
    return f"/static/{name}?v={_static_hash(name)}"


@lru_cache(maxsize=1)
def _served() -> Mapping[str, Path]:
    root = static_dir()
    return {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file() and p.suffix != ".sha256"}


async def static(request: Request) -> Response:
    """A file of the package, precompressed where the build made it so. Only names known at start are served."""
    name = str(request.path_params["name"])
    found = _served().get(name)
    if found is None or name.endswith(".gz"):
        raise HTTPException(404)
    kept = "public, max-age=31536000, immutable" if request.query_params.get("v") else "no-cache"
    headers = {**SECURITY_HEADERS, "cache-control": kept, "vary": "accept-encoding"}
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    compressed = _served().get(name + ".gz")
    if compressed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        return FileResponse(compressed, media_type=media_type, headers=headers | {"content-encoding": "gzip"})
    return FileResponse(found, media_type=media_type, headers=headers)


# --- rendering ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("certwright.entry.console"),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The i18n extension adds this method at run time.
    environment.install_gettext_callables(_, ngettext, newstyle=True)  # type: ignore[attr-defined]
    environment.globals.update(
        static=static_url,
        locale=lambda: current_locale().replace("_", "-"),
        locales=lambda: [(name, Locale.parse(name).get_display_name(name)) for name in available_locales()],
        said=lambda code: _(words.SAID[code]),
        word=lambda table, code: words.word(getattr(words, table), code),
        detail=lambda table, code: words.detail(getattr(words, table), code),
        tone=lambda table, code: words.tone(getattr(words, table), code),
        plain=lambda table, code: words.plain(getattr(words, table), code),
        this_call=_call.get,
    )
    environment.filters.update(
        day=day, moment=moment, relative=relative, number=number, colons=colons, with_query=with_query, short=short
    )
    return environment


def day(value: datetime | date) -> str:
    """`21 Nov 2026` in the page's language."""
    return format_date(value, "d MMM yyyy", locale=current_locale())


def moment(value: datetime) -> Markup:
    """A moment in UTC as `<time>`, to the minute."""
    at = value.astimezone(UTC)
    text = format_datetime(at, "d MMM yyyy, HH:mm", locale=current_locale()) + " UTC"
    return Markup('<time datetime="{}">{}</time>').format(at.strftime("%Y-%m-%dT%H:%M:%SZ"), text)


def relative(value: datetime) -> str:
    """`in 59 days`, `3 hours ago`; days up to a hundred, because certificates are counted in days."""
    delta = value - _call.get().now
    days = abs(delta) >= timedelta(days=1)
    if days and abs(delta) < timedelta(days=400):
        return format_timedelta(
            timedelta(days=round(delta.total_seconds() / 86400)), granularity="day", threshold=1e9,
            add_direction=True, locale=current_locale(),
        )  # fmt: skip
    return format_timedelta(delta, add_direction=True, locale=current_locale())


def number(value: float) -> str:
    return format_decimal(value, locale=current_locale())


def colons(hexadecimal: str) -> str:
    """`AB:CD:…`, the way fingerprints are compared by eye."""
    text = hexadecimal.upper()
    return ":".join(text[i : i + 2] for i in range(0, len(text), 2))


def short(hexadecimal: str) -> str:
    return hexadecimal[:16].upper()


def with_query(path: str, **values: Any) -> str:
    """`path` with the given values as its query; empty ones are left out."""
    given = {key: value for key, value in values.items() if value not in (None, "", ())}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path
