"""Lays a message out as plain text and as HTML that mail programs of all ages show alike."""

from __future__ import annotations

from html import escape

from certwright.platform.i18n import _, current_locale
from certwright.rooms.notify.words import Text

_COLOURS = {
    "critical": "#b42318",
    "major": "#c4500c",
    "minor": "#a15c07",
    "warning": "#a15c07",
    "cleared": "#067647",
    "info": "#175cd3",
}


def as_text(text: Text) -> str:
    """Plain text; every line that matters stands by itself."""
    lines = [text.heading, "=" * min(len(text.heading), 72), "", text.lead, ""]
    width = max((len(label) for label, _value in text.facts), default=0)
    lines += [f"{label + ':':<{width + 1}} {value}" for label, value in text.facts]
    for title, items in text.lists:
        lines += ["", title]
        lines += [f"  {number}. {item}" for number, item in enumerate(items, 1)]
    if text.link is not None:
        lines += ["", f"{text.link[0]}: {text.link[1]}"]
    lines += ["", "-- ", _("Sent by Certwright. Answers to this address are not read.")]
    return "\n".join(lines) + "\n"


def as_html(text: Text) -> str:
    """HTML without images, scripts or anything loaded from elsewhere; every value is escaped."""
    colour = _COLOURS.get(text.severity, _COLOURS["info"])
    rows = "".join(
        '<tr><td style="padding:4px 16px 4px 0;color:#667085;vertical-align:top;white-space:nowrap">'
        f'{escape(label)}</td><td style="padding:4px 0;overflow-wrap:anywhere">{escape(value)}</td></tr>'
        for label, value in text.facts
    )
    lists = "".join(
        f'<h2 style="font-size:15px;margin:24px 0 8px">{escape(title)}</h2><ol style="margin:0;padding-left:20px">'
        + "".join(f'<li style="margin:4px 0">{escape(item)}</li>' for item in items)
        + "</ol>"
        for title, items in text.lists
    )
    link = ""
    if text.link is not None:
        label, address = escape(text.link[0]), escape(text.link[1])
        style = f"display:inline-block;padding:10px 18px;background:{colour};color:#ffffff;border-radius:6px"
        link = f'<p style="margin:24px 0 0"><a href="{address}" style="{style};text-decoration:none">{label}</a></p>'
    footer = escape(_("Sent by Certwright. Answers to this address are not read."))
    return (
        f'<!doctype html><html lang="{escape(current_locale().replace("_", "-"))}"><head><meta charset="utf-8">'
        f"<title>{escape(text.subject)}</title></head>"
        '<body style="margin:0;padding:24px;background:#f2f4f7;color:#101828;'
        'font:15px/1.5 system-ui,-apple-system,Segoe UI,Roboto,sans-serif">'
        '<div style="max-width:640px;margin:0 auto;background:#ffffff;border-radius:8px;overflow:hidden">'
        f'<div style="height:6px;background:{colour}"></div><div style="padding:24px">'
        f'<h1 style="font-size:20px;margin:0 0 12px">{escape(text.heading)}</h1>'
        f'<p style="margin:0 0 16px">{escape(text.lead)}</p>'
        f'<table role="presentation" style="border-collapse:collapse;font-size:14px">{rows}</table>{lists}{link}'
        '</div></div><p style="max-width:640px;margin:12px auto;color:#667085;font-size:12px">'
        f"{footer}</p></body></html>"
    )
