"""Before anybody is signed in: set-up, sign-in, password links; and the two preferences a browser keeps."""

from __future__ import annotations

from contextlib import suppress

from starlette.responses import RedirectResponse, Response

from certwright.entry.api.accounts import set_session_cookie
from certwright.entry.api.base import PUBLIC, address_of
from certwright.entry.console.web import (
    FORM_PROBLEMS,
    LOCALE_COOKIE,
    THEME_COOKIE,
    THEMES,
    Call,
    Pages,
    clear_session,
    page,
    safe_next,
    see,
)
from certwright.kernel.problems import Problem, Unauthenticated
from certwright.platform.i18n import available_locales
from certwright.rooms import access, accounts

pages = Pages()

_LINK_COOKIE = "__Host-certwright-link"
_LINK_SECONDS = 1800
_YEAR = 365 * 24 * 3600


def _kept_link(call: Call) -> str:
    return call.request.cookies.get(_LINK_COOKIE, "")


def _keep_link(call: Call, path: str) -> Response | None:
    """Move the one-time secret out of the address at once, so that no history, referrer or bookmark keeps it."""
    secret = call.query.text("token")
    if not secret:
        return None
    response = RedirectResponse(path, status_code=303)
    response.set_cookie(
        _LINK_COOKIE, secret[:200], max_age=_LINK_SECONDS, path="/", secure=True, httponly=True, samesite="lax"
    )
    return response


@pages.get("/setup", action=PUBLIC)
async def setup(call: Call) -> Response:
    moved = _keep_link(call, "/setup")
    if moved is not None:
        return moved
    link = _kept_link(call)
    is_open = bool(link) and await accounts.setup_is_open(call.services, link)
    values = {"account_name": call.services.settings.organization}
    return page(call, "setup.html", {"open": is_open, "values": values}, status=200 if is_open else 404)


@pages.post("/setup", action=PUBLIC)
async def set_up(call: Call) -> Response:
    form = call.form
    email, password = form.text("email"), form.raw("password")
    try:
        await access.people.set_up(
            call.services, _kept_link(call), email=email, name=form.text("name"), password=password,
            account_name=form.text("account_name"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return page(call, "setup.html", {"open": True, "values": form.values()}, problem)
    response = await _signed_in(call, email, password, "/")
    response.delete_cookie(_LINK_COOKIE, path="/", secure=True, httponly=True)
    return response


@pages.get("/sign-in", action=PUBLIC)
async def sign_in_page(call: Call) -> Response:
    if call.who is not None:
        return see(safe_next(call.query.text("next")))
    return page(call, "sign_in.html", {"values": {"next": call.query.text("next")}})


@pages.post("/sign-in", action=PUBLIC)
async def sign_in(call: Call) -> Response:
    target = safe_next(call.form.text("next"))
    try:
        return await _signed_in(call, call.form.text("email"), call.form.raw("password"), target)
    except (Unauthenticated, *FORM_PROBLEMS) as problem:
        values = {"email": call.form.text("email"), "next": call.form.text("next")}
        return page(call, "sign_in.html", {"values": values}, problem)


async def _signed_in(call: Call, email: str, password: str, target: str) -> Response:
    opened = await accounts.sign_in(
        call.services, email, password, address=address_of(call.request),
        user_agent=call.request.headers.get("user-agent", ""),
    )  # fmt: skip
    response = see(target)
    set_session_cookie(response, opened)
    return response


@pages.post("/sign-out", action=PUBLIC)
async def sign_out(call: Call) -> Response:
    if call.who is not None and call.who.session_id is not None:
        # Ended already, elsewhere: what counts is that this browser forgets it.
        with suppress(Problem):
            await access.people.end_session(call.services, call.who.actor, call.who.session_id)
    response = see("/sign-in", said="signed_out", call=call)
    clear_session(response)
    return response


@pages.get("/password", action=PUBLIC)
async def password_page(call: Call) -> Response:
    moved = _keep_link(call, "/password")
    if moved is not None:
        return moved
    link = _kept_link(call)
    user = await accounts.password_link_user(call.services, link) if link else None
    return page(call, "password.html", {"user": user}, status=200 if user else 404)


@pages.post("/password", action=PUBLIC)
async def set_password(call: Call) -> Response:
    link = _kept_link(call)
    user = await accounts.password_link_user(call.services, link) if link else None
    try:
        await accounts.use_password_link(call.services, link, call.form.raw("password"))
    except FORM_PROBLEMS as problem:
        return page(call, "password.html", {"user": user}, problem)
    response = see("/sign-in", said="password_set", call=call)
    response.delete_cookie(_LINK_COOKIE, path="/", secure=True, httponly=True)
    return response


@pages.post("/preferences", action=PUBLIC)
async def preferences(call: Call) -> Response:
    """Light or dark, and the language: kept in the browser, not in the account."""
    response = see(safe_next(call.form.text("back")))
    secure = call.request.url.scheme == "https"
    theme, locale = call.form.text("theme"), call.form.text("locale")
    if theme in THEMES:
        response.set_cookie(THEME_COOKIE, theme, max_age=_YEAR, path="/", secure=secure, samesite="lax")
    if locale in available_locales():
        response.set_cookie(LOCALE_COOKIE, locale, max_age=_YEAR, path="/", secure=secure, samesite="lax")
    return response
