"""Where a CA's lists are published to besides here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from certwright.entry.console.web import FORM_PROBLEMS, Call, Pages, page, see
from certwright.kernel.problems import NotFound, Problem
from certwright.rooms import authorities

pages = Pages()

_ADDRESS = "/authorities/{id}/list-storage"


async def _view(call: Call, problem: Problem | None = None, values: Mapping[str, Any] | None = None) -> Response:
    ca = await authorities.get_authority(call.services, call.actor, call.param("id"))
    try:
        storage = await authorities.get_list_storage(call.services, call.actor, ca.id)
    except NotFound:
        storage = None
    if values is None:
        values = {"region": "us-east-1"}
        if storage is not None:
            names = ("endpoint", "region", "bucket", "prefix", "access_key_id", "public_url")
            values = {name: getattr(storage, name) or "" for name in names}
    return page(call, "authorities/list_storage.html", {"ca": ca, "storage": storage, "values": values}, problem)


@pages.get(_ADDRESS, action="ccm:ca:update")
async def storage_page(call: Call) -> Response:
    return await _view(call)


@pages.post(_ADDRESS, action="ccm:ca:update")
async def set_storage(call: Call) -> Response:
    form = call.form
    request = authorities.StorageRequest(
        endpoint=form.text("endpoint"), bucket=form.text("bucket"), access_key_id=form.text("access_key_id"),
        secret_access_key=form.optional("secret_access_key"), region=form.text("region"), prefix=form.text("prefix"),
        public_url=form.optional("public_url"),
    )  # fmt: skip
    try:
        await authorities.set_list_storage(call.services, call.actor, call.param("id"), request)
    except FORM_PROBLEMS as problem:
        return await _view(call, problem, {k: v for k, v in form.values().items() if k != "secret_access_key"})
    return see(f"/authorities/{call.param('id')}/list-storage", said="saved", call=call)


@pages.post(_ADDRESS + "/delete", action="ccm:ca:update", ask="remove_list_storage")
async def remove_storage(call: Call) -> Response:
    await authorities.delete_list_storage(call.services, call.actor, call.param("id"))
    return see(f"/authorities/{call.param('id')}", said="saved", call=call)
