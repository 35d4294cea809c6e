"""What every API route shares: an action it must name, who calls, problems as RFC 9457 documents, paging, revisions.

A handler is a plain function of a validated body and a `Caller`. Before it runs, its route has found out who asks and
made the coarse check of the action; what object it is about is judged by the room's action behind it.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import json
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, Generic, TypeVar

import orjson
import pydantic_core
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from certwright.kernel.actor import Actor
from certwright.kernel.problems import (
    Forbidden,
    Invalid,
    InvalidFields,
    NotFound,
    Problem,
    Stale,
    TooLarge,
    Unauthenticated,
)
from certwright.platform import idempotency
from certwright.platform.services import Services
from certwright.rooms import access

PUBLIC = "public"
"""The action of a route that is open to everybody; a test keeps the list of those short."""
SIGNED_IN = "signed-in"
"""The action of a route that needs no permission but to be somebody: one's own profile, sessions, password."""

SESSION_COOKIE = "__Host-certwright"
MAX_BODY_BYTES = 2 * 1024 * 1024
MAX_DOCUMENT_BODY_BYTES = 14 * 1024 * 1024
"""A document of 10 MiB in base 64, and what is around it."""
PROBLEM_TYPE = "application/problem+json"
MAX_LIMIT = 100

_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
_KEPT_HEADERS = ("location", "etag", "content-type")

T = TypeVar("T")
Item = TypeVar("Item")


# --- who calls -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Caller:
    """The services, and who asks. `session_id` is set for browsers, None for tokens."""

    services: Services
    actor: Actor
    session_id: str | None = None


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def request_id_of(request: Request) -> str:
    return str(request.scope.get("certwright.request_id", ""))


def address_of(request: Request) -> str:
    """The address of whoever is connected, or of the client behind a trusted proxy (see entry.forwarded)."""
    return request.client.host if request.client else "unknown"


async def identify(request: Request) -> Caller:
    """Who asks: a Bearer token, or else the session cookie. Raises Unauthenticated."""
    services = services_of(request)
    authorization = request.headers.get("authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated(
                "authorization_scheme", "Only the Bearer scheme is known here.",
                fix="Send Authorization: Bearer cwt_…",
            )  # fmt: skip
        actor = await access.authenticate_token(services, token.strip())
        return Caller(services, replace(actor, request_id=request_id_of(request)))
    cookie = request.cookies.get(SESSION_COOKIE)
    if cookie is None:
        raise Unauthenticated(
            "not_signed_in", "You aren't signed in.", fix="Sign in, or send an API token: Authorization: Bearer cwt_…"
        )
    if request.method not in _SAFE_METHODS:
        require_same_origin(request)
    actor, session_id = await access.authenticate_session(services, cookie)
    return Caller(services, replace(actor, request_id=request_id_of(request)), session_id)


def require_same_origin(request: Request) -> None:
    """A change made with a cookie must come from our own pages. Raises Forbidden `cross_site_request`.

    Browsers say so in Sec-Fetch-Site, older ones in Origin; a request with a cookie and neither is refused.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        own = site == "same-origin"
    elif origin is not None:
        own = origin == f"{request.url.scheme}://{request.headers.get('host', '')}"
    else:
        own = False
    if not own:
        raise Forbidden(
            "cross_site_request", "The request doesn't come from this server's own pages.",
            fix="Programs use API tokens instead of the session cookie.",
        )  # fmt: skip


async def caller_of(request: Request) -> Caller:
    caller: Caller | None = request.scope.get("certwright.caller")
    if caller is None:
        raise RuntimeError("a public route asked for its caller")
    return caller


CALLER: Any = Depends(caller_of)
"""Default of a handler's `call: Caller` parameter."""


# --- routes ----------------------------------------------------------------------------------------------------------

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class ActionRoute(APIRoute):
    """A route that knows its action and lets nobody past who may not do it anywhere."""

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        action: str,
        secret: bool,
        hot: bool = False,
        **kwargs: Any,
    ) -> None:
        self.action = action
        self.secret = secret
        self.hot = hot
        self._begins = path.partition("{")[0]
        super().__init__(path, endpoint, **kwargs)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Most of some hundred routes are ruled out without their regular expression."""
        if not scope.get("root_path") and not scope["path"].startswith(self._begins):
            return Match.NONE, {}
        match, found = super().matches(scope)
        return (Match.FULL if match is Match.PARTIAL and self._is_asked_for_its_head(scope) else match), found

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_asked_for_its_head(scope):
            await self.app(scope, receive, send)
        else:
            await super().handle(scope, receive, send)

    def _is_asked_for_its_head(self, scope: Scope) -> bool:
        """Whatever is read may be asked for its headers alone (RFC 9110 section 9.1); the server leaves the body out.
        The schema needn't say so."""
        return scope["method"] == "HEAD" and "GET" in (self.methods or ())

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        if self.hot:
            handle = _shortened(self.dependant, handle)
        action, secret = self.action, self.secret
        # Health checks come with whatever a load balancer adds.
        strict = self.path.startswith("/api/")
        known = frozenset(_query_parameters(self.dependant))

        async def guarded(request: Request) -> Response:
            caller = None
            if action != PUBLIC:
                caller = await identify(request)
                request.scope["certwright.caller"] = caller
                if action != SIGNED_IN:
                    access.require_somewhere(caller.actor, action)
            if request.method not in _SAFE_METHODS:
                refuse_bad_text(await request.body())
            if "\x00" in request.scope["path"]:
                raise NotFound("no_such_address", "There is nothing at this address.", fix="Check the path.")
            if b"%00" in request.scope["query_string"]:
                raise _bad_text("query")
            if strict and request.scope["query_string"] and not known.issuperset(request.query_params):
                raise _unknown_parameters(request.query_params, known)
            key = request.headers.get("idempotency-key")
            if key is None or request.method != "POST" or caller is None:
                return await handle(request)
            return await _once(request, caller, key, handle, secret)

        return guarded


def _shortened(dependant: Dependant, otherwise: Handler) -> Handler:
    """Calls the handler of a body, a caller and texts in the path with less ado than the framework, which takes as long
    over such a request as signing a certificate. Whatever isn't plainly right is left to the framework, and refused
    there in its own words."""
    call, (body,), names = dependant.call, dependant.body_params, [one.name for one in dependant.path_params]
    model = body.field_info.annotation
    simple = not (dependant.query_params or dependant.header_params or dependant.cookie_params)
    texts = all(one.field_info.annotation is str and not one.field_info.metadata for one in dependant.path_params)
    if call is None or not (isinstance(model, type) and issubclass(model, BaseModel) and simple and texts):
        raise RuntimeError(f"{dependant.path} isn't a route that can be shortened")

    async def quick(request: Request) -> Response:
        if request.headers.get("content-type") != "application/json":
            return await otherwise(request)
        try:
            asked = model.model_validate(pydantic_core.from_json(await request.body()))
        except ValueError:
            return await otherwise(request)
        texts = {name: request.path_params[name] for name in names}
        answer: Response = await call(**texts, **{body.name: asked, "call": await caller_of(request)})
        return answer

    return quick


def _query_parameters(dependant: Dependant) -> Iterator[str]:
    """Of a handler and of what it depends on."""
    yield from (parameter.alias for parameter in dependant.query_params)
    for below in dependant.dependencies:
        yield from _query_parameters(below)


class Router:
    """Collects routes; `action` is mandatory: a name from `access.ACTIONS`, SIGNED_IN or PUBLIC.

    `secret=True` says that the answer holds something shown once, which no replay may repeat; `hot=True` that it is
    asked thousands of times a second (see `_shortened`).
    """

    def __init__(self, *, prefix: str = "", tags: Sequence[str] = ()) -> None:
        self.prefix = prefix
        self.tags = list(tags)
        self._declared: list[tuple[str, Callable[..., Any], dict[str, Any]]] = []
        self._made: dict[str, list[ActionRoute]] = {}

    def get(self, path: str, *, action: str, **kwargs: Any) -> Callable[[T], T]:
        return self._route("GET", path, action, **kwargs)

    def post(self, path: str, *, action: str, **kwargs: Any) -> Callable[[T], T]:
        return self._route("POST", path, action, **kwargs)

    def put(self, path: str, *, action: str, **kwargs: Any) -> Callable[[T], T]:
        return self._route("PUT", path, action, **kwargs)

    def patch(self, path: str, *, action: str, **kwargs: Any) -> Callable[[T], T]:
        return self._route("PATCH", path, action, **kwargs)

    def delete(self, path: str, *, action: str, **kwargs: Any) -> Callable[[T], T]:
        return self._route("DELETE", path, action, **kwargs)

    def _route(
        self, method: str, path: str, action: str, *, secret: bool = False, hot: bool = False, **kwargs: Any
    ) -> Callable[[T], T]:
        if action not in (PUBLIC, SIGNED_IN) and action not in access.ACTIONS:
            raise RuntimeError(f"{method} {self.prefix}{path} names the unknown action {action!r}")

        def keep(endpoint: T) -> T:
            own = {"methods": [method], "action": action, "secret": secret, "hot": hot}
            declared = {"tags": self.tags, **kwargs, **own}
            declared["openapi_extra"] = {**kwargs.get("openapi_extra", {}), "x-action": action}
            self._declared.append((self.prefix + path, endpoint, declared))  # type: ignore[arg-type]  # T is a handler
            return endpoint

        return keep

    def routes(self, prefix: str = "") -> list[ActionRoute]:
        """Made once: they belong to no application, and reading the signatures of all handlers takes 0.2 s."""
        if prefix not in self._made:
            self._made[prefix] = [
                ActionRoute(prefix + path, endpoint, **declared) for path, endpoint, declared in self._declared
            ]
        return self._made[prefix]


def add_routes(app: FastAPI, router: Router, prefix: str = "") -> None:
    app.router.routes.extend(router.routes(prefix))


async def _once(request: Request, caller: Caller, text: str, handle: Handler, secret: bool) -> Response:
    """Carry out a POST with an Idempotency-Key once."""
    services = caller.services
    print_ = idempotency.fingerprint(
        request.method, request.url.path, request.scope["query_string"], await request.body()
    )
    actor = caller.actor
    # Bound to the credential: what a token may see isn't what another token of the same person may.
    key = idempotency.Key(actor.account_id, actor.id, idempotency.checked_key(text), print_)
    known = await idempotency.claim(services.db, key, services.clock.now())
    if known is not None:
        return Response(known.body, known.status, {**known.headers, "Idempotency-Replayed": "true"})
    try:
        response = await handle(request)
    except Problem as problem:
        await _not_done(services, key, problem.status)
        raise
    except (HTTPException, RequestValidationError):
        await idempotency.release(services.db, key)
        raise
    if response.status_code >= 300:
        await _not_done(services, key, response.status_code)
        return response
    body = bytes(response.body)
    kept = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    hidden = secret or len(body) > idempotency.MAX_BODY
    answer = idempotency.Answer(response.status_code, kept, None if hidden else body, _object_id(response))
    await idempotency.keep(services.db, key, answer)
    return response


async def _not_done(services: Services, key: idempotency.Key, status: int) -> None:
    # A server's failure may have come after a commit, or at one: only a refusal says that nothing was done.
    if status >= 500:
        await idempotency.lose(services.db, key)
    else:
        await idempotency.release(services.db, key)


def _object_id(response: Response) -> str | None:
    location = response.headers.get("location")
    return location.rstrip("/").rpartition("/")[2] if location else None


def _unknown_parameters(given: Iterable[str], known: frozenset[str]) -> InvalidFields:
    """A filter that is misspelt must not be a filter that is not there."""
    problems = []
    for name in [name for name in given if name not in known][:20]:
        near = difflib.get_close_matches(name, known, 1, 0.6)
        takes = f"Known here: {', '.join(sorted(known))}." if known else "Leave it out: this address takes none."
        problems.append(
            Invalid(
                "unknown_parameter", f"There is no parameter {name[:60]!r} here.", field=name[:60],
                fix=f"Did you mean {near[0]}?" if near else takes,
            )
        )  # fmt: skip
    return InvalidFields(problems)


_SUSPICIOUS = re.compile(rb"\\u(0000|d[89a-f])|\x00", re.IGNORECASE)


def refuse_bad_text(body: bytes) -> None:
    """Refuse NUL and halves of surrogate pairs inside JSON texts: the database can't hold them. Raises Invalid."""
    if not body or not _SUSPICIOUS.search(body):
        return
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return  # said of the whole body later
    todo: list[tuple[str, Any]] = [("", value)]
    while todo:
        field, value = todo.pop()
        if isinstance(value, str) and ("\x00" in value or any("\ud800" <= c <= "\udfff" for c in value)):
            raise _bad_text(field)
        if isinstance(value, dict):
            todo += [(f"{field}.{k}".strip(".") if k.isprintable() else field, v) for k, v in value.items()]
            todo += [(field, k) for k in value]
        elif isinstance(value, list):
            todo += [(f"{field}.{n}".strip("."), v) for n, v in enumerate(value)]


def _bad_text(field: str) -> Invalid:
    return Invalid(
        "text_invalid", "The text holds a character that isn't one (NUL or half a surrogate pair).",
        field=field or None, fix="Remove that character.",
    )  # fmt: skip


# --- answers ---------------------------------------------------------------------------------------------------------


def _default(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (frozenset, set)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def json_bytes(value: Any) -> bytes:
    """Dataclasses, enums, times and mappings straight to JSON; times end in Z."""
    return orjson.dumps(value, default=_default, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer without a second validation of what we made ourselves; declare its shape with `response_model`."""
    return Response(json_bytes(value), status, headers, media_type="application/json")


class Page(BaseModel, Generic[Item]):
    """A page of a list; `next_cursor` is null on the last one."""

    items: list[Item]
    next_cursor: str | None


def _not_a_number(value: Any) -> Any:
    # Bare numbers would be read as seconds since 1970, which no description of a date-time promises.
    if isinstance(value, (int, float)) or (isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.eE]+", value)):
        raise ValueError("it must be a date and time with a zone, such as 2026-03-01T12:00:00Z")
    return value


def in_utc(moment: datetime) -> datetime:
    """The moment in UTC. Raises ValueError without a zone, and where UTC has left the years 1 to 9999: nothing behind
    could reckon with it."""
    if moment.tzinfo is None:
        raise ValueError("it must have a zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("it must lie in the years 1 to 9999 of UTC") from error


Moment = Annotated[AwareDatetime, BeforeValidator(_not_a_number), AfterValidator(in_utc)]
"""A date and time with its zone, as RFC 3339 writes it."""

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="how many at most")]
Cursor = Annotated[str | None, Query(max_length=400, description="next_cursor of the page before")]


def cursor_for(*parts: Any) -> str:
    """An opaque cursor of these values; nothing secret: whoever makes one up sees no more than the filter allows."""
    return base64.urlsafe_b64encode(json_bytes(parts)).decode().rstrip("=")


def read_cursor(text: str | None, *shapes: type) -> Any:
    """The values of a cursor of this shape (one comes alone), or None without one. Raises Invalid `cursor_invalid`."""
    if text is None:
        return None
    wrong = Invalid(
        "cursor_invalid", "That is not a cursor of this list.", field="cursor", fix="Start again without a cursor."
    )
    try:
        parts = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise wrong from error
    shapes = shapes or (str,)
    if not isinstance(parts, list) or len(parts) != len(shapes):
        raise wrong
    values = []
    for part, shape in zip(parts, shapes, strict=True):
        if shape is datetime and isinstance(part, str):
            try:
                part = in_utc(datetime.fromisoformat(part))
            except ValueError as error:
                raise wrong from error
        if not isinstance(part, shape) or (isinstance(part, str) and not (part.isascii() and part.isprintable())):
            raise wrong
        values.append(part)
    return values[0] if len(values) == 1 else tuple(values)


def page_of(rows: Sequence[T], limit: int, key: Callable[[T], Any], show: Callable[[T], Any] | None = None) -> Response:
    """A page of `rows`, of which one more than `limit` was read; `key` gives the cursor's value (or a tuple)."""
    items = list(rows[:limit])
    cursor = None
    if len(rows) > limit:
        last = key(items[-1])
        cursor = cursor_for(*(last if isinstance(last, tuple) else (last,)))
    return json_response({"items": [show(row) for row in items] if show else items, "next_cursor": cursor})


def etag(revision: int) -> str:
    return f'"{revision}"'


def check_if_match(request: Request, revision: int | None = None) -> int:
    """The revision a change was made on, from If-Match. Raises a problem 428 without it, Invalid when it isn't one,
    Stale when it isn't `revision`."""
    text = request.headers.get("if-match")
    if text is None:
        raise PreconditionNeeded(
            "if_match_needed", "Changes must say which revision they were made on.", field="If-Match",
            fix="Read the object and send its ETag as If-Match.",
        )  # fmt: skip
    found = re.fullmatch(r'"([0-9]{1,9})"', text.strip())
    if found is None:
        raise Invalid(
            "if_match_invalid", "If-Match must be the ETag of one revision.", field="If-Match",
            fix='Send what ETag said, with its quotes: "3".',
        )  # fmt: skip
    if revision is not None and int(found[1]) != revision:
        raise Stale(
            "changed_meanwhile", "It was changed by someone else since you read it.", field="If-Match",
            fix="Read it again and repeat your change on what you find.",
        )  # fmt: skip
    return int(found[1])


class PreconditionNeeded(Problem):
    status = 428
    title = "Say what you change"


# --- problems --------------------------------------------------------------------------------------------------------


def problem_document(problem: Problem, request_id: str) -> dict[str, Any]:
    """RFC 9457 members, ours (`code`, `field`, `fix`, `request_id`), and the machine-readable facts."""
    said = problem.as_dict()
    message = said.pop("message")
    known: dict[str, Any] = {
        "type": f"urn:certwright:problem:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": message,
    }
    return {**said, **known, "request_id": request_id}


def problem_response(problem: Problem, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
    out = dict(headers or {})
    if problem.status == 401:
        out["WWW-Authenticate"] = 'Bearer realm="certwright"'
    if problem.status in (429, 503):
        out["Retry-After"] = str(problem.extra.get("retry_after", 5))
    body = json_bytes(problem_document(problem, request_id))
    return Response(body, problem.status, out, media_type=PROBLEM_TYPE)


_PYDANTIC_CODES = MappingProxyType({
    "missing": ("field_missing", "This field is needed."),
    "extra_forbidden": ("field_unknown", "There is no such field."),
})  # fmt: skip


def _said_of(error: Mapping[str, Any]) -> Problem:
    where, *rest = error["loc"]
    field = ".".join(str(part) for part in rest)[:200] or str(where)
    if error["type"] == "model_attributes_type" and not rest:
        return Invalid("field_invalid", "The body isn't read as a JSON object.", field=field,
                       fix="Send one, with the header Content-Type: application/json.")  # fmt: skip
    code, message = _PYDANTIC_CODES.get(error["type"], ("field_invalid", ""))
    message = message or f"{str(error['msg']).removeprefix('Value error, ').rstrip('.')}."
    return Invalid(code, message, field=field, fix="Correct the field; the API description says what it takes.")


def validation_problem(error: RequestValidationError) -> Problem:
    errors = error.errors()
    if any(e["type"] == "json_invalid" for e in errors):
        return Problem("json_invalid", "The body is not well-formed JSON.", fix="Check quotes, commas and brackets.")
    return InvalidFields([_said_of(e) for e in errors[:50]])


def http_problem(error: HTTPException, method: str) -> Problem:
    """What the framework refuses, as one of our problems."""
    if error.status_code == 404:
        return NotFound("no_such_address", "There is nothing at this address.", fix="Check the path.")
    if error.status_code == 405:
        problem = Problem("method_not_allowed", f"{method[:20]} isn't possible here.", fix="See the Allow header.")
        problem.status, problem.title = 405, "Method not allowed"
        return problem
    if error.status_code == 413:
        most = error.detail if error.detail.isdigit() else MAX_BODY_BYTES
        return TooLarge("body_too_large", "The body is too large.", fix=f"Send at most {most} bytes.")
    problem = Problem("bad_request", "The request can't be read.", fix="Check its syntax.")
    problem.status = error.status_code
    return problem


def _allowed(request: Request) -> str:
    """The methods of this address (RFC 9110 15.5.6); the framework names those of its first route alone."""
    routes = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
    return ", ".join(sorted({method for route in routes for method in getattr(route, "methods", None) or ()}))


def install_problem_handlers(app: FastAPI) -> None:
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return problem_response(error, request_id_of(request))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_response(validation_problem(error), request_id_of(request))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = error.headers
        if error.status_code == 405:
            headers = {**(headers or {}), "Allow": _allowed(request)}
        return problem_response(http_problem(error, request.method), request_id_of(request), headers)

    app.add_exception_handler(Problem, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
