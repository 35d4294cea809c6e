"""The toolbox: check, look into, match, convert and pack certificates and keys. Nothing that is given here is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from starlette.responses import Response

from certwright.entry.api.base import SIGNED_IN
from certwright.entry.console import guide, numbered, words
from certwright.entry.console.forms import Form
from certwright.entry.console.numbered import Mark
from certwright.entry.console.web import FORM_PROBLEMS, Call, Pages, colons, moment, page
from certwright.kernel.problems import Invalid, Problem
from certwright.platform.i18n import _
from certwright.rooms import uploads
from certwright.rooms.uploads import Given, Judgement, Purpose, Wishes, tools
from certwright.x509.bundles import Server, safe_file_name
from certwright.x509.keys import KeyAlgorithm
from certwright.x509.workshop.words import REPAIRS

pages = Pages()

INPUTS = ("certificate", "key", "chain")
_FILES = 10
_KEPT = ("purpose", "private", "offline", "strict", "to", "alias", "legacy", "server", "name", "names", "key_algorithm",
         "form", "common_name")  # fmt: skip
_RENAMED = {"inputs": "content", **{f"input {n}": "content" for n in range(1, tools.MAX_INPUTS + 1)}}


# --- what is given ----------------------------------------------------------------------------------------------------


def one(form: Form, name: str) -> bytes | None:
    """The file if one is chosen, else what was typed; None if neither."""
    chosen = form.files(f"{name}_file")
    if chosen:
        return chosen[0][1]
    return _typed(form, name) or None


def several(form: Form) -> list[bytes]:
    """What was typed and every file. Raises Invalid `nothing_given`."""
    found = [typed] if (typed := _typed(form, "content")) else []
    found += [content for _name, content in form.files("content_file")]
    if not found:
        raise Invalid(
            "nothing_given", "Nothing was pasted and no file is chosen.", field="content",
            fix="Paste the text, or choose the files.",
        )  # fmt: skip
    return found


def _typed(form: Form, name: str) -> bytes:
    """Browsers send every line end of a text field as CR LF; whose they were before isn't known."""
    text = form.raw(name)
    return text.replace("\r\n", "\n").encode() if text.strip() else b""


def passphrase(form: Form, name: str = "passphrase") -> bytes | None:
    return form.raw(name).encode() or None


def given(form: Form) -> Given:
    return Given(one(form, "certificate") or b"", one(form, "key"), one(form, "chain"), passphrase(form))


def typed_again(form: Form, *names: str) -> dict[str, str]:
    """What goes back into the fields: choices, and texts that hold no secret."""
    values = form.values()
    back = {name: values[name] for name in _KEPT if name in values}
    return back | {name: form.raw(name) for name in names if name in form and numbered.is_public(form.raw(name))}


# --- what was found ---------------------------------------------------------------------------------------------------


def finding_lines(found: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """Findings as documents, each with where the guide tells about it; errors first."""
    ranks = ("error", "warning", "note")
    lines = [{"line": "", **finding, "guide": guide.address(finding["code"])} for finding in found]
    return sorted(lines, key=lambda line: ranks.index(line["severity"]))


def repair_lines(codes: Iterable[str]) -> list[dict[str, str]]:
    return [
        {"code": code, "message": REPAIRS.get(code, code), "guide": guide.address(code)} for code in codes
    ]  # fmt: skip


def judgement_view(found: Judgement, inputs: Mapping[str, bytes | None]) -> dict[str, Any]:
    """A judgement for its page, beside the text it is about."""
    marks: dict[str, list[tuple[int, Mark]]] = {name: [] for name in inputs}
    for finding in found.findings:
        if finding.where.line is not None and finding.where.input in marks:
            marks[finding.where.input].append((finding.where.line, Mark(finding.code, finding.severity.value)))
    titles = {"certificate": _("Certificate"), "key": _("Private key"), "chain": _("Chain")}
    texts = [(name, titles[name], numbered.rows(octets, marks[name])) for name, octets in inputs.items()]
    findings = [
        finding.as_dict() | {"line": f"{finding.where.input}-{finding.where.line}" if finding.where.line else ""}
        for finding in found.findings
    ]
    there = {f"{name}-{row.number}" for name, _title, lines in texts for row in lines if not row.skipped}
    lines = finding_lines(findings)
    return {
        "judgement": found,
        "findings": [line | {"line": line["line"] if line["line"] in there else ""} for line in lines],
        "repairs": repair_lines(repair.code for repair in found.repaired),
        "texts": [(name, title, lines) for name, title, lines in texts if lines],
        "pem": found.certificate_pem + found.chain_pem,
        "file_name": file_name(found.leaf),
        "leaf_name": _first_name(found.leaf),
        "added": [link for link in found.links if link.source is not uploads.Source.GIVEN],
    }


def file_name(leaf: Mapping[str, Any] | None) -> str:
    """What to call a file with this certificate, without an ending."""
    return safe_file_name(_first_name(leaf) or "certificate")


def _first_name(leaf: Mapping[str, Any] | None) -> str:
    if leaf is None:
        return ""
    return str(next(iter(leaf["names"]), None) or leaf["common_name"] or "")


# --- the pages --------------------------------------------------------------------------------------------------------


def _tool(
    call: Call, name: str, view: Mapping[str, Any] | None = None, problem: Problem | None = None,
    texts: Sequence[str] = ("content",),
) -> Response:  # fmt: skip
    title, lead = words.TOOLS[name]
    context = {
        "name": name, "title": _(title), "lead": _(lead), "values": typed_again(call.form, *texts), "result": None,
        "had_secrets": bool(call.form.files("key_file") or call.form.raw("key") or call.form.raw("passphrase")),
    }  # fmt: skip
    return page(call, f"toolbox/{name}.html", {**context, **_options(name), **(view or {})}, problem, renamed=_RENAMED)


def _options(name: str) -> dict[str, Any]:
    match name:
        case "convert":
            return {"formats": [(code, words.plain(words.FORMATS, code)) for code in words.FORMATS]}
        case "bundle":
            return {"servers": [(code.value, words.plain(words.SERVERS, code)) for code in Server]}
        case "csr":
            return {"algorithms": [(code.value, words.plain(words.KEY_ALGORITHMS, code)) for code in KeyAlgorithm]}
        case "key":
            return {"forms": [(code, words.plain(words.FORMATS, code)) for code in ("pkcs8", "pkcs1", "sec1")]}
    return {}


@pages.get("/toolbox", action=SIGNED_IN)
async def home(call: Call) -> Response:
    shown = [(name, _(title), _(lead)) for name, (title, lead) in words.TOOLS.items()]
    return page(call, "toolbox/index.html", {"tools": shown})


@pages.get("/toolbox/check", action=SIGNED_IN)
async def check_page(call: Call) -> Response:
    return _tool(call, "check")


@pages.post("/toolbox/check", action=SIGNED_IN, files=3)
async def check(call: Call) -> Response:
    form = call.form
    wishes = Wishes(
        purpose=Purpose.CLIENT_CA if form.text("purpose") == Purpose.CLIENT_CA.value else Purpose.SERVER,
        strict=form.checked("strict"), private=form.checked("private"), online=not form.checked("offline"),
    )  # fmt: skip
    try:
        found = await tools.check(call.services, call.actor, given(form), wishes)
    except FORM_PROBLEMS as problem:
        return _tool(call, "check", None, problem, INPUTS)
    result = judgement_view(found, {name: one(form, name) for name in INPUTS})
    return _tool(call, "check", {"result": result}, texts=INPUTS)


@pages.get("/toolbox/inspect", action=SIGNED_IN)
async def inspect_page(call: Call) -> Response:
    return _tool(call, "inspect")


@pages.post("/toolbox/inspect", action=SIGNED_IN, files=1)
async def inspect(call: Call) -> Response:
    form = call.form
    try:
        content = several(form)[-1]
        document = await tools.inspect(call.services, content, passphrase(form))
    except FORM_PROBLEMS as problem:
        return _tool(call, "inspect", None, problem)
    result = {
        "container": words.plain(words.CONTAINERS, document["container"]),
        "findings": finding_lines(document["findings"]),
        "repairs": repair_lines(document["repaired"]),
        "parts": [_part(part) for part in document["parts"]],
    }
    return _tool(call, "inspect", {"result": result})


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    """One part of a file: what it is, and its fields in words, those without a value left out."""
    facts = [
        (words.plain(words.PART_FIELDS, name), _said(name, value), name in _OCTETS)
        for name, value in part.items()
        if name not in ("kind", "where", "problem") and value not in (None, "", [], {}, False)
    ]
    return {
        "kind": words.plain(words.PARTS, part["kind"]),
        "where": part["where"],
        "problem": part.get("problem"),
        "facts": facts,
    }


_OCTETS = ("serial", "sha256", "sha1", "spki_sha256", "subject_key_id", "authority_key_id")
_TIMES = ("not_before", "not_after", "this_update", "next_update", "produced_at")


def _said(name: str, value: Any) -> list[Any]:
    """A field's value in lines for people."""
    if name in _TIMES:
        return [moment(datetime.fromisoformat(value))]
    if name in _OCTETS:
        return [colons(value) if len(value) % 2 == 0 else value.upper()]
    if name == "key_usage":
        # As RFC 5280 writes them.
        return [re.sub(r"_([a-z])", lambda found: found[1].upper(), one) for one in value]
    return _shown(value)


def _shown(value: Any) -> list[str]:
    match value:
        case True:
            return [_("yes")]
        case list():
            return [line for inner in value for line in _shown(inner)]
        case dict():
            return [", ".join(f"{words.plain(words.PART_FIELDS, name)}: {inner}" for name, inner in value.items())]
    return [str(value)]


@pages.get("/toolbox/match", action=SIGNED_IN)
async def match_page(call: Call) -> Response:
    return _tool(call, "match")


@pages.post("/toolbox/match", action=SIGNED_IN, files=_FILES)
async def match(call: Call) -> Response:
    form = call.form
    try:
        key = one(form, "key")
        inputs = several(form) + ([key] if key is not None else [])
        found = await tools.match(call.services, inputs, passphrase(form))
    except FORM_PROBLEMS as problem:
        return _tool(call, "match", None, problem)
    parts = [dict(part) | {"word": words.plain(words.PARTS, part["kind"])} for part in found.parts]
    return _tool(call, "match", {"result": {"match": found.match, "parts": parts}})


@pages.get("/toolbox/convert", action=SIGNED_IN)
async def convert_page(call: Call) -> Response:
    return _tool(call, "convert")


@pages.post("/toolbox/convert", action=SIGNED_IN, files=_FILES)
async def convert(call: Call) -> Response:
    form = call.form
    try:
        made = await tools.convert(
            call.services, several(form), form.text("to"), passphrase=passphrase(form),
            out_passphrase=passphrase(form, "out_passphrase"), alias=form.text("alias"), legacy=form.checked("legacy"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return _tool(call, "convert", None, _told(problem))
    return attachment(made.name, made.content, made.media_type)


@pages.get("/toolbox/chain", action=SIGNED_IN)
async def chain_page(call: Call) -> Response:
    return _tool(call, "chain")


@pages.post("/toolbox/chain", action=SIGNED_IN, files=1)
async def chain(call: Call) -> Response:
    form = call.form
    try:
        found = await tools.chain(
            call.services, call.actor, several(form)[-1], passphrase(form), online=not form.checked("offline")
        )
    except FORM_PROBLEMS as problem:
        return _tool(call, "chain", None, problem)
    result = {
        "complete": found.complete,
        "missing": found.missing,
        "links": found.links,
        "pem": found.pem,
        "file_name": file_name(found.judgement.leaf),
        "leaf_name": _first_name(found.judgement.leaf),
        "findings": finding_lines(finding.as_dict() for finding in found.judgement.findings),
    }
    return _tool(call, "chain", {"result": result})


@pages.get("/toolbox/split", action=SIGNED_IN)
async def split_page(call: Call) -> Response:
    return _tool(call, "split")


@pages.post("/toolbox/split", action=SIGNED_IN, files=_FILES)
async def split(call: Call) -> Response:
    form = call.form
    try:
        found = await tools.split(call.services, several(form), passphrase(form))
    except FORM_PROBLEMS as problem:
        return _tool(call, "split", None, problem)
    files = [
        {"name": made.name, "content": made.content.decode("ascii"), "secret": made.name.startswith("key")}
        for made in found
    ]
    return _tool(call, "split", {"result": {"files": files}})


@pages.get("/toolbox/join", action=SIGNED_IN)
async def join_page(call: Call) -> Response:
    return _tool(call, "join")


@pages.post("/toolbox/join", action=SIGNED_IN, files=_FILES)
async def join(call: Call) -> Response:
    form = call.form
    try:
        made = await tools.join(call.services, several(form), passphrase(form))
    except FORM_PROBLEMS as problem:
        return _tool(call, "join", None, problem)
    return attachment(made.name, made.content, made.media_type)


@pages.get("/toolbox/csr", action=SIGNED_IN)
async def csr_page(call: Call) -> Response:
    return _tool(call, "csr")


@pages.post("/toolbox/csr", action=SIGNED_IN, files=1)
async def csr(call: Call) -> Response:
    form = call.form
    try:
        made = await tools.csr(
            call.services, form.lines("names"), key_algorithm=form.text("key_algorithm", KeyAlgorithm.EC_P256.value),
            key=one(form, "key"), passphrase=passphrase(form), common_name=form.checked("common_name"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return _tool(call, "csr", None, problem.at("names") if problem.field == "name" else problem)
    base = safe_file_name(form.lines("names")[0])
    return _tool(call, "csr", {"result": {"csr": made.csr_pem, "key": made.key_pem, "file_name": base}})


@pages.get("/toolbox/bundle", action=SIGNED_IN)
async def bundle_page(call: Call) -> Response:
    return _tool(call, "bundle")


@pages.post("/toolbox/bundle", action=SIGNED_IN, files=_FILES)
async def bundle(call: Call) -> Response:
    form = call.form
    try:
        key = one(form, "key")
        made = await tools.bundle(
            call.services, call.actor, several(form) + ([key] if key is not None else []), form.text("server"),
            name=form.text("name"), passphrase=passphrase(form), legacy=form.checked("legacy"),
            online=not form.checked("offline"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return _tool(call, "bundle", None, problem)
    return attachment(made.name, made.content, made.media_type)


@pages.get("/toolbox/key", action=SIGNED_IN)
async def key_page(call: Call) -> Response:
    return _tool(call, "key")


@pages.post("/toolbox/key", action=SIGNED_IN, files=1)
async def key(call: Call) -> Response:
    form = call.form
    try:
        content = one(form, "key")
        if content is None:
            raise Invalid("key_missing", "There is no private key.", field="key", fix="Paste it, or choose its file.")
        made = await tools.key(
            call.services, content, passphrase=passphrase(form), form=form.text("form", "pkcs8"),
            out_passphrase=passphrase(form, "out_passphrase"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return _tool(call, "key", None, problem)
    return attachment(made.name, made.content, made.media_type)


@pages.post("/toolbox/save", action=SIGNED_IN)
async def save(call: Call) -> Response:
    """What a page shows, as a file: sent by POST, so that no address or log holds it."""
    return attachment(
        safe_file_name(call.form.text("name")), call.form.raw("content").replace("\r\n", "\n").encode(), "text/plain"
    )  # fmt: skip


def attachment(name: str, content: bytes, media_type: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{safe_file_name(name)}"', "cache-control": "no-store"}
    return Response(content, media_type=media_type, headers=headers)


def _told(problem: Problem) -> Problem:
    """The workshop speaks to the command line here; on the page the field is called by its name."""
    if problem.code == "passphrase_needed":
        problem.field, problem.fix = "out_passphrase", "Type one; you will need it to open the file."
    elif problem.code == "passphrase_too_short":
        problem.field = "out_passphrase"
    return problem
