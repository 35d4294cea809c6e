"""The guide beside the work: the same pages as in `docs/guide`, for whoever is signed in."""

from __future__ import annotations

from starlette.responses import Response

from certwright.entry.api.base import SIGNED_IN
from certwright.entry.console import guide
from certwright.entry.console.web import Call, Pages, page
from certwright.kernel.problems import NotFound
from certwright.platform.i18n import _

pages = Pages()


def _shown(call: Call, name: str) -> Response:
    found = guide.page(name)
    if found is None:
        raise NotFound(
            "not_found", "The guide has no such page.", fix="Look for it in the guide's list of pages."
        )  # fmt: skip
    crumbs = [] if name == guide.HOME else [(_("Guide"), "/guide")]
    if name.startswith("findings/") and name != "findings/index":
        crumbs.append((_("Findings"), "/guide/findings"))
    return page(call, "guide.html", {"found": found, "crumbs": crumbs})


@pages.get("/guide", action=SIGNED_IN)
async def home(call: Call) -> Response:
    return _shown(call, guide.HOME)


@pages.get("/guide/findings", action=SIGNED_IN)
async def findings(call: Call) -> Response:
    return _shown(call, "findings/index")


@pages.get("/guide/findings/{id}", action=SIGNED_IN)
async def finding(call: Call) -> Response:
    return _shown(call, f"findings/{call.param('id')}")


@pages.get("/guide/{id}", action=SIGNED_IN)
async def one(call: Call) -> Response:
    return _shown(call, call.param("id"))
