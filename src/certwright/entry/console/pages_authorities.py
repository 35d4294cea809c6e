"""The private CA: what it is, its revocation lists, and the public page where clients get its root."""

from __future__ import annotations

from starlette.responses import Response

from certwright.entry.api.base import PUBLIC
from certwright.entry.console.web import Call, Pages, page
from certwright.rooms import authorities

pages = Pages()


@pages.get("/authorities", action="ccm:ca:list")
async def list_page(call: Call) -> Response:
    found = await authorities.list_authorities(call.services, call.actor)
    return page(call, "authorities/list.html", {"lines": found})


@pages.get("/ca", action=PUBLIC)
async def root_page(call: Call) -> Response:
    found = await authorities.public_authorities(call.services)
    return page(call, "authorities/root.html", {"roots": [ca for ca in found if ca.kind == "root"]})
