"""What must be shown for each name, as people see it in Chromium; and confirming by mail from the mail to the page."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from certwright.connectors.channel.smtp import SmtpChannel
from certwright.rooms import notify
from tests.console.conftest import Console
from tests.console.test_flow import apply_for
from tests.servers.smtp import MailServer, mail_server

Play = Callable[[Callable[[Console], Any]], Any]
PICTURES = os.environ.get("CERTWRIGHT_PICTURES")


async def picture(page: Page, name: str) -> None:
    if PICTURES:
        await page.screenshot(path=str(Path(PICTURES) / f"{name}.png"), full_page=True)


def test_the_page_shows_what_to_publish_in_both_forms_with_buttons_to_copy(play: Play) -> None:
    async def scenario(console: Console) -> None:
        async with console.page(permissions=["clipboard-read", "clipboard-write"]) as page:
            await console.set_up(page)
            await apply_for(page, "bücher.example.com\nwww.bücher.example.com", method="DNS record")
            await page.get_by_role("heading", name="Verify domains").wait_for()
            for text in (
                "bücher.example.com",
                "xn--bcher-kva.example.com",
                "300 seconds",
                "The same record counts for",
            ):
                await expect(page.get_by_text(text).first).to_be_visible()
            value = await page.locator("#value-1").inner_text()
            assert re.fullmatch(r'"certwright-validation=[a-z2-7]{32}"', value)
            assert await page.locator("#host-2").inner_text() == "xn--bcher-kva.example.com"
            await page.locator("#copy-value-1").click()
            assert await page.evaluate("navigator.clipboard.readText()") == value
            other = await page.locator("#or-value-1").inner_text()
            assert other == value.strip('"').removeprefix("certwright-validation=") + ".certwright.invalid"
            await picture(page, "validation-dns")

    play(scenario)


def test_a_mailed_link_leads_to_a_page_that_asks_before_it_counts(play: Play) -> None:
    async def scenario(console: Console, mails: MailServer) -> None:
        channel = SmtpChannel("localhost", mails.port, sender="cw@our.example", security="none")
        console.services.ports[notify.Channel] = channel  # type: ignore[index]
        async with console.page() as page, console.page() as theirs:
            await console.set_up(page)
            await apply_for(page, "shop.example.com", method="E-mail to the domain")
            await page.get_by_role("heading", name="Verify domains").wait_for()
            await expect(page.get_by_text("postmaster@example.com")).to_be_visible()
            await expect(page.get_by_text("may not use it from 15 Mar 2028")).to_be_visible()
            await picture(page, "validation-mail")
            link = await _link(page, mails)
            await theirs.goto(link)
            assert "token" not in theirs.url
            await expect(theirs.get_by_text("Example Ltd")).to_be_visible()
            await picture(theirs, "validation-confirm")
            await expect(page.get_by_text("Every name is verified")).not_to_be_visible()
            await theirs.get_by_role("button", name="Yes, I confirm").click()
            await expect(theirs.get_by_text("You confirmed the certificate")).to_be_visible()
            await expect(page.get_by_text("The certificate is issued.")).to_be_visible()

    async def with_mail(console: Console) -> None:
        with mail_server() as mails:
            await scenario(console, mails)

    play(with_mail)


async def _link(page: Page, mails: MailServer) -> str:
    """From the first mail to arrive."""
    for _ in range(100):
        if mails.mails:
            plain = next(part.get_content() for part in mails.mails[0].message.iter_parts())
            return re.findall(r"https://\S+/confirm-domain\?token=\S+", plain)[0]
        await page.wait_for_timeout(100)
    pytest.fail("no mail arrived")
