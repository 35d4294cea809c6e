"""The console's frame: routes that name their action, one call value for handlers, rendering, and safe headers.

A page is an ordinary GET; every change is an ordinary POST answered by a redirect, or by the same page again with the
problems beside the fields. Scripts only make that smoother.
"""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

import structlog
from babel import Locale
from babel.core import negotiate_locale
from babel.dates import format_date, format_datetime, format_timedelta
from babel.numbers import format_currency, format_decimal
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
from certwright.kernel.money import Money
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


PAGE = 20
"""Lines of a list on one page."""

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


class Line(Protocol):
    """What lists are made of."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Line)


@dataclass(frozen=True, slots=True)
class Found:
    """A handler with its address and what it asks of callers; `ask` is a code of words.QUESTIONS or empty. `file`: its
    form may hold a document; `files`: so many small ones."""

    method: str
    path: str
    action: str
    handler: Handler
    ask: str = ""
    file: bool = False
    files: int = 0


_call: ContextVar[Call] = ContextVar("console_call")


@dataclass(slots=True)
class Pages:
    """Collects handlers; `action` says what a caller must be allowed to do, or PUBLIC or SIGNED_IN."""

    found: list[Found] = field(default_factory=list)

    def get(self, path: str, *, action: str) -> Callable[[Handler], Handler]:
        return self._add("GET", path, action)

    def post(
        self, path: str, *, action: str, ask: str = "", file: bool = False, files: int = 0
    ) -> Callable[[Handler], Handler]:  # fmt: skip
        """With `ask` the handler is called only once the person has confirmed, on a page or in a script's dialog.

        With `file` the form may hold one of at most 10 MiB; `frame` lets so much through below its address, too. With
        `files` it may hold so many of 2 MiB together.
        """
        return self._add("POST", path, action, ask, file=file, files=files)

    def _add(
        self, method: str, path: str, action: str, ask: str = "", *, file: bool = False, files: int = 0
    ) -> Callable[[Handler], Handler]:
        def keep(handler: Handler) -> Handler:
            self.found.append(Found(method, path, action, handler, ask, file, files))
            return handler

        return keep


class ActionRoute(Route):
    """A route of the console with what it asks of callers, for the tests that walk all routes."""

    def __init__(
        self, path: str, endpoint: Callable[[Request], Awaitable[Response]], method: str, action: str, ask: str = ""
    ) -> None:
        super().__init__(path, endpoint, methods=[method])
        self.action = action
        self.ask = ask

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        # The log line and the request counter name the route by this.
        return match, {**child, "route": self} if match is not Match.NONE else child


def routes(pages: Pages, services: Services) -> list[ActionRoute]:
    """Raises RuntimeError for an action that isn't in the catalogue and for a question that isn't in the words."""
    for found in pages.found:
        if found.action not in (PUBLIC, SIGNED_IN) and found.action not in access.ACTIONS:
            raise RuntimeError(f"{found.method} {found.path} names the unknown action {found.action!r}")
        if found.ask and found.ask not in words.QUESTIONS:
            raise RuntimeError(f"{found.method} {found.path} asks the unknown question {found.ask!r}")
    # /certificates/new is not the certificate called "new": addresses without parameters come first.
    ordered = sorted(pages.found, key=lambda found: "{" in found.path)
    return [
        ActionRoute(found.path, _endpoint(found, services), found.method, found.action, found.ask) for found in ordered
    ]


def page_above(request: Request) -> str:
    """The nearest page above the address of a POST: where a change is made is where its result is looked at."""
    path = request.url.path
    shown = [route for route in request.app.routes if isinstance(route, ActionRoute) and "GET" in (route.methods or ())]
    while path := path.rpartition("/")[0]:
        if any(route.path_regex.match(path) for route in shown):
            return path
    return "/"


def refusal_page(request: Request, services: Services, status: int) -> Response:
    """The page for what the router refuses; made without looking who asks."""
    problem: Problem = NotFound("not_found", "There is no such page.", fix="Check the address, or begin at the start.")
    if status == 413:
        problem = TooLarge(
            "form_too_large", "That is more than a form may hold.", fix="Send less text or smaller files."
        )
    problem.status = status
    with use_locale(_locale_of(request)):
        call = _empty_call(request, services)
        token = _call.set(call)
        try:
            return _safe(problem_page(call, problem))
        finally:
            _call.reset(token)


def _endpoint(found: Found, services: Services) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        with use_locale(_locale_of(request)):
            call = _empty_call(request, services)
            token = _call.set(call)
            try:
                return _safe(await _answer(found, call))
            finally:
                _call.reset(token)

    return endpoint


def _safe(response: Response) -> Response:
    response.headers.update(SECURITY_HEADERS)
    return response


async def _answer(found: Found, call: Call) -> Response:
    """Who asks, may they, what did they send, are they sure; then the handler. Every refusal becomes a page."""
    request, action = call.request, found.action
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
            call = replace(call, form=await _form(found, request))
            _call.set(call)
        sure = not found.ask or call.form.checked("confirmed")
        response = await found.handler(call) if sure else _asked(call, found.ask)
    except Unauthenticated:
        return _to_sign_in(call)
    except Problem as problem:
        return problem_page(call, problem)
    if call.said is not None and response.status_code < 300:
        response.delete_cookie(SAID_COOKIE, path="/")
    return response


async def _form(found: Found, request: Request) -> Form:
    if found.files:
        return await forms.read_with_files(request, found.files)
    return await (forms.read_with_file if found.file else forms.read)(request)


def _asked(call: Call, code: str) -> Response:
    """The question before a change that can't simply be taken back; the page repeats the form it came from."""
    question = words.QUESTIONS[code]
    back = call.form.text("back")
    view = {
        "section": "",
        "title": _(question.title),
        "crumbs": (),
        "about": call.form.text("about"),
        "action": call.path,
        "fields": [*((key, value) for key, value in call.form if key != "confirmed"), ("confirmed", "yes")],
        "back": safe_next(back) if back else page_above(call.request),
        "warning": _(question.consequence),
        "lines": (),
        "button": _(question.button),
    }
    return page(call, "confirm.html", view)


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
    call: Call, template: str, view: Mapping[str, Any] | None = None, problem: Problem | None = None, *,
    renamed: Mapping[str, str] | None = None, status: int | None = None,
) -> Response:  # fmt: skip
    """The page made of `template`; `view` are its variables.

    With a `problem` it is the page somebody was on, once more, with what is wrong beside the fields; `renamed` maps
    the API's names of fields to the form's. Secrets are never put back into a form.
    """
    context = {"call": call, "faults": Faults.of(problem, renamed), "now": call.now, **(view or {})}
    html = _environment().get_template(template).render(context)
    code = status or (problem.status if problem else 200)
    return Response(html, status_code=code, media_type="text/html", headers={"cache-control": "no-store"})


def paged(found: Sequence[T], path: str, **query: str) -> tuple[Sequence[T], str]:
    """One page out of lines fetched with `limit=PAGE + 1`, and the address of the next page or ""; `query` goes along.

    Lines are told apart by their `id`.
    """
    if len(found) <= PAGE:
        return found, ""
    return found[:PAGE], with_query(path, **query, after=found[PAGE - 1].id)


async def changed(
    call: Call, doing: Awaitable[object], again: Callable[[Call, Problem], Awaitable[Response]], to: str, said: str,
    met: tuple[type[Problem], ...] = FORM_PROBLEMS,
) -> Response:  # fmt: skip
    """Make a change and go to `to`; what is met on the way is said by `again`, the page it was asked for on."""
    try:
        await doing
    except met as problem:
        return await again(call, problem)
    return see(to, said=said, call=call)


def see(path: str, *, said: str | None = None, call: Call | None = None) -> Response:
    """Go to `path` by GET; `said` is a code of words.SAID, shown there once."""
    address = quote(path, safe="/?&=%#:,+~-._")
    response: Response = RedirectResponse(address, status_code=303)
    if call is not None and call.request.headers.get("x-inline"):
        # The script that sent the form goes there itself: following, it would fetch the page and lose what is said.
        response = Response(status_code=204, headers={"x-go": address})
    if said is not None:
        secure = call is None or call.request.url.scheme == "https"
        response.set_cookie(
            SAID_COOKIE, said, max_age=60, path="/", secure=secure, httponly=True, samesite="lax"
        )  # fmt: skip
    return response


def problem_page(call: Call, problem: Problem) -> Response:
    return page(call, "problem.html", {"problem": problem}, problem)


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
        question=lambda code: f"{_(words.QUESTIONS[code].title)} {_(words.QUESTIONS[code].consequence)}",
        this_call=_call.get,
    )
    environment.filters.update(
        day=day,
        moment=moment,
        relative=relative,
        number=number,
        colons=colons,
        with_query=with_query,
        short=short,
        money=money,
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
    if abs(delta) < timedelta(seconds=1):
        return _("just now")
    days = abs(delta) >= timedelta(days=1)
    if days and abs(delta) < timedelta(days=400):
        return format_timedelta(
            timedelta(days=round(delta.total_seconds() / 86400)), granularity="day", threshold=1e9,
            add_direction=True, locale=current_locale(),
        )  # fmt: skip
    return format_timedelta(delta, add_direction=True, locale=current_locale())


def number(value: float) -> str:
    return format_decimal(value, locale=current_locale())


def money(value: Money) -> str:
    """`€19.99`, the way the page's language writes it, with all places of the currency."""
    digits = len(value.text.partition(".")[2])
    pattern = "¤#,##0" + ("." + "0" * digits if digits else "")
    return format_currency(value.amount, value.currency, pattern, locale=current_locale(), currency_digits=False)


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
