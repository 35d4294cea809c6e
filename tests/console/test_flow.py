"""From an empty installation to a certificate serving on nginx, by hand, in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from playwright.async_api import Page, expect

from tests.console.conftest import FIRST_PERSON, PASSWORD, Console, fill
from tests.servers.nginx import Nginx

Play = Callable[[Any], Any]


async def apply_for(page: Page, names: str, *, method: str = "File on the web server") -> None:
    """The application form, filled, reviewed and submitted; ends on the validation page."""
    await page.goto("/certificates/new")
    await fill(page, {"Domain names": names, "Phone": "+49 30 123456"})
    await page.get_by_label(method).check()
    await page.get_by_label("I agree that my name").check()
    await page.get_by_role("button", name="Review").click()
    await page.get_by_role("heading", name="Review the application").wait_for()
    await page.get_by_role("button", name="Submit the application").click()
    await page.get_by_role("heading", name="Verify domains").wait_for()


async def publish(page: Page, nginx: Nginx) -> None:
    """Put the file where the page says, with what the page says."""
    name = await page.locator("#file-1").inner_text()
    content = await page.locator("#content-1").inner_text()
    folder = nginx.webroot / ".well-known" / "pki-validation"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)


async def until_issued(page: Page) -> None:
    """The page finds out by itself, and offers nothing that is over."""
    await expect(page.locator("#domains")).to_contain_text("The certificate is issued.")
    await expect(page.get_by_role("button", name="Check now")).to_have_count(0)
    await expect(page.get_by_role("button", name="Withdraw the application")).to_have_count(0)
    await page.get_by_role("link", name="Go to the certificate").click()
    await expect(page.locator("#progress .state")).to_have_text("Issued")


async def whole_way(console: Console, page: Page, nginx: Nginx, shoot: Callable[[str], Any] | None = None) -> None:
    async def see(name: str) -> None:
        if shoot is not None:
            await shoot(name)

    await page.goto(await console.setup_link())
    assert "token" not in page.url
    await see("setup")
    await fill(page, FIRST_PERSON)
    await page.get_by_role("button", name="Create the account").click()
    await expect(page.get_by_role("heading", name="Getting started")).to_be_visible()
    await see("home-empty")

    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("status")).to_contain_text("You are signed out.")
    await fill(page, {"E-mail address": "ada@example.org", "Password": PASSWORD})
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("heading", name="Overview").wait_for()

    await apply_for(page, "www.example.org")
    await see("validation")
    await page.get_by_role("button", name="Check now").click()
    await expect(page.locator("#domains .notice.warn")).to_be_visible()
    await see("validation-checked")
    await publish(page, nginx)
    await page.get_by_role("button", name="Check now").click()
    await until_issued(page)
    await see("issued")

    await page.goto("/targets/new")
    await see("target-new")
    await fill(page, {"Name": "web-1", "Program": str(nginx.binary), "Main configuration file": str(nginx.conf_path)})
    await page.get_by_text("More settings").click()
    await fill(page, {"Prefix directory": str(nginx.directory)})
    await page.get_by_role("button", name="Add and look for sites").click()
    await expect(page.get_by_role("rowheader", name="www.example.org")).to_be_visible()
    await see("target")

    await page.goto("/certificates")
    await see("list")
    await page.get_by_role("link", name="www.example.org").click()
    await page.get_by_role("link", name="Deploy", exact=True).click()
    await page.get_by_role("checkbox", name=re.compile("www.example.org")).check()
    await see("deploy")
    await page.get_by_role("button", name="See what will happen").click()
    await expect(page.get_by_role("heading", name="Confirm the deployment")).to_be_visible()
    await see("preview")
    await page.get_by_role("button", name="Deploy now").click()
    await page.get_by_role("heading", name="Rollout to web-1").wait_for()
    await see("rollout-running")
    await expect(page.locator("#rollout .card-head .state")).to_have_text("Deployed")
    await see("rollout")
    await page.get_by_role("link", name="www.example.org").click()
    await expect(page.locator("#deployments")).to_contain_text("this version")
    await see("detail")


def test_from_the_setup_link_to_a_certificate_serving_on_nginx(play: Play, nginx: Nginx) -> None:
    async def scenario(console: Console) -> None:
        async with console.page() as page:
            await whole_way(console, page, nginx)

    play(scenario)
