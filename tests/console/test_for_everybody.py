"""Usable with a keyboard, a screen reader, a small screen and the lights out."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Dialog, Page, expect

from tests.console.conftest import Console, fill
from tests.console.test_flow import Play, apply_for
from tests.servers.nginx import Nginx

PAGES = (
    "/", "/certificates", "/certificates/new", "/csrs", "/csrs/new", "/csrs/upload", "/targets", "/targets/new",
    "/endpoints", "/endpoints/new", "/alarms", "/dns", "/dns/new", "/dns/new?operator=lexicon.ovh",
    "/dns/check", "/dns/evidence", "/authorities", "/access", "/access/groups",
    "/access/policies", "/access/policies/new",
    "/orders", "/catalogue", "/catalogue/new", "/products/private-multi", "/products/private-multi/edit",
    "/unsubscriptions", "/balance", "/coupons", "/billing-policy",
    "/organisations", "/organisations/new", "/verifications", "/desk", "/cas", "/cas/new", "/cas/new?kind=certcentral",
    "/renewal", "/renewal/calendar", "/renewal/campaigns", "/renewal/campaigns/new", "/renewal/readiness",
    "/renewal/rules", "/access/simulator", "/access/projects", "/access/tokens", "/audit", "/settings", "/profile",
    "/ca", "/nothing", "/authorities/acme", "/authorities/acme/new", "/authorities/policies",
    "/authorities/policies/new", "/authorities/kinds", "/authorities/kinds/new", "/authorities/kinds/client",
    "/authorities/kit",
    "/certificates/upload", "/certificates/upload?purpose=client_ca", "/toolbox", "/toolbox/check", "/toolbox/csr",
    "/toolbox/convert", "/guide", "/guide/findings", "/guide/findings/weak_key",
)  # fmt: skip

# What a screen reader needs, looked at in the finished page: a list of faults, empty when all is well.
_AUDIT = """() => {
  const faults = [];
  const shown = (e) => e.checkVisibility({visibilityProperty: true});
  const name = (e) => (e.getAttribute('aria-label') || e.innerText || e.getAttribute('title') || '').trim();
  if (!document.documentElement.lang) faults.push('no language');
  if (!document.title.includes('·')) faults.push('no title');
  if (document.querySelectorAll('h1').length !== 1) faults.push('not one h1');
  if (document.querySelectorAll('main').length !== 1) faults.push('not one main');
  let level = 1;
  for (const heading of document.querySelectorAll('h1, h2, h3, h4')) {
    const now = Number(heading.tagName[1]);
    if (now > level + 1) faults.push(`heading jumps to ${heading.outerHTML.slice(0, 80)}`);
    level = now;
    if (!heading.innerText.trim() && shown(heading)) faults.push('empty heading');
  }
  for (const input of document.querySelectorAll('input:not([type=hidden]), select, textarea')) {
    if (!(input.labels && input.labels.length) && !input.getAttribute('aria-label')) {
      faults.push(`no label: ${input.outerHTML.slice(0, 80)}`);
    }
  }
  for (const thing of document.querySelectorAll('button, a[href], summary')) {
    if (shown(thing) && !name(thing)) faults.push(`no name: ${thing.outerHTML.slice(0, 120)}`);
  }
  for (const svg of document.querySelectorAll('svg')) {
    const spoken = svg.getAttribute('role') === 'img' && svg.getAttribute('aria-label');
    if (svg.getAttribute('aria-hidden') !== 'true' && !spoken) faults.push('unspoken picture');
  }
  for (const table of document.querySelectorAll('table')) {
    if (table.querySelectorAll('th[scope]').length === 0) faults.push('table without headings');
  }
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`id twice: ${id}`);
  for (const e of document.querySelectorAll('[aria-describedby], [aria-labelledby], label[for]')) {
    const wanted = (e.getAttribute('aria-describedby') || e.getAttribute('aria-labelledby') || e.htmlFor).split(' ');
    for (const id of wanted) if (!document.getElementById(id)) faults.push(`points nowhere: ${id}`);
  }
  if (document.documentElement.scrollWidth > window.innerWidth) {
    faults.push(`wider than the screen: ${document.documentElement.scrollWidth}`);
  }
  return [...new Set(faults)];
}"""


async def _faults(page: Page, path: str) -> dict[str, Any]:
    await page.goto(path)
    found = await page.evaluate(_AUDIT)
    return {f"{path}: {page.url}": found} if found else {}


def test_every_page_can_be_read_aloud_and_fits_a_phone(play: Play, nginx: Nginx) -> None:
    async def scenario(console: Console) -> None:
        async with console.page(viewport={"width": 390, "height": 844}) as page:
            await page.set_content("<h1>a</h1><h3>b</h3><input><button></button><svg></svg><p id=x><p id=x>")
            assert len(await page.evaluate(_AUDIT)) == 8  # the audit itself finds what is wrong
            for path in ("/sign-in", await console.setup_link()):
                assert await _faults(page, path) == {}
            await console.set_up(page)
            await apply_for(page, "www.example.org\nmünchen.example.org")
            pages = [*PAGES, page.url.removeprefix(console.url)]
            pages += [pages[-1].removesuffix("/validation") + part for part in ("", "/edit", "/reissue", "/revoke")]
            await page.goto("/endpoints/new")
            await fill(page, {"Host name or IP address": "www.example.org", "Port": str(nginx.https_port)})
            await page.get_by_role("button", name="Watch").click()
            await page.get_by_role("heading", name="www.example.org").wait_for()
            pages.append(page.url.removeprefix(console.url))
            faults: dict[str, Any] = {}
            for path in pages:
                faults |= await _faults(page, path)
            assert faults == {}

    play(scenario)


def test_a_watched_endpoint_raises_an_alarm_that_can_be_acknowledged(play: Play, nginx: Nginx) -> None:
    async def scenario(console: Console) -> None:
        async with console.page() as page:
            await console.set_up(page)
            await page.goto("/endpoints/new")
            await fill(page, {"Host name or IP address": "www.example.org", "Port": str(nginx.https_port)})
            await page.get_by_role("button", name="Watch").click()
            await expect(page.locator("#now")).to_contain_text("old.example.org")
            await page.goto("/alarms")
            row = page.get_by_role("rowheader", name="Certificate exception")
            while not await row.is_visible():
                await page.reload()
            await row.get_by_role("link").click()
            await expect(page.locator(".notice.bad, .notice.warn").first).to_contain_text("www.example.org")
            await expect(page.get_by_role("heading", name="What to do")).to_be_visible()
            await expect(page.get_by_text("ALM-2001006")).to_be_visible()
            await page.get_by_role("button", name="Acknowledge: I look after it").click()
            await expect(page.get_by_role("status")).to_contain_text("The alarm is acknowledged.")
            await page.goto("/alarms")
            await expect(page.get_by_role("cell", name="ada@example.org")).to_be_visible()
            await page.goto("/")
            await expect(page.get_by_role("link", name="Open alarms")).to_contain_text("1")

            await page.goto("/endpoints")
            await page.get_by_role("link", name="www.example.org").click()
            await page.get_by_role("link", name="Remove").click()
            await page.get_by_role("button", name="Remove the endpoint").click()
            await page.goto("/alarms?state=cleared")
            await expect(page.get_by_role("row", name="Certificate exception")).to_contain_text("Cleared")
            await expect(page.get_by_role("row", name="Certificate exception")).to_contain_text("was: ")
            await page.get_by_role("link", name="Certificate exception").click()
            await expect(page.locator(".notice.ok")).to_contain_text("This is over")
            await expect(page.get_by_role("heading", name="What to do")).to_have_count(0)

    play(scenario)


def test_a_dialog_asks_once_and_its_answer_is_enough(play: Play) -> None:
    async def scenario(console: Console) -> None:
        async with console.page() as page:
            await console.set_up(page)
            await page.goto("/access/groups")
            await fill(page, {"Name": "Crew", "Description": ""})
            await page.get_by_role("button", name="Create").click()
            asked: list[str] = []

            async def dismiss(dialog: Dialog) -> None:
                asked.append(dialog.message)
                await dialog.dismiss()

            page.once("dialog", dismiss)
            await page.get_by_role("button", name="Delete").click()
            assert asked == ["Delete this group? Its members lose what it allowed."]
            await expect(page.get_by_role("heading", name="Crew")).to_be_visible()
            page.once("dialog", lambda dialog: dialog.accept())
            await page.get_by_role("button", name="Delete").click()
            await expect(page.get_by_role("status")).to_contain_text("Deleted.")
            await expect(page.get_by_role("link", name="Crew")).to_have_count(0)

    play(scenario)


def test_everything_is_reached_with_the_keyboard_and_the_lights_follow_the_system(play: Play) -> None:
    async def scenario(console: Console) -> None:
        async with console.page(color_scheme="dark", permissions=["clipboard-read", "clipboard-write"]) as page:
            await page.goto(await console.setup_link())
            await expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
            await page.emulate_media(color_scheme="light")
            await expect(page.locator("html")).to_have_attribute("data-bs-theme", "light")
            await page.get_by_label("Organization").focus()
            for text in ("Example Ltd", "Ada Lovelace", "ada@example.org", "rather unlikely pelican 7"):
                await page.keyboard.press("Control+A")
                await page.keyboard.type(text)
                await page.keyboard.press("Tab")
            await page.keyboard.press("Enter")
            await page.get_by_role("heading", name="Overview").wait_for()

            await page.keyboard.press("Tab")
            skip = page.get_by_role("link", name="Skip to the content")
            await expect(skip).to_be_focused()
            await expect(skip).to_be_in_viewport()
            await page.keyboard.press("Enter")
            await page.keyboard.press("Tab")
            await expect(page.get_by_role("link", name="Apply for a certificate")).to_be_focused()
            outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid"

            await page.goto("/authorities")
            await page.get_by_role("link", name="Root CA").click()
            copy = page.get_by_role("button", name="Copy: SHA-256 fingerprint").first
            await copy.focus()
            await page.keyboard.press("Enter")
            await expect(copy).to_contain_text("Copied")
            shown = await page.locator("#fp").inner_text()
            assert await page.evaluate("navigator.clipboard.readText()") == shown
            await expect(copy).to_contain_text("Copy")

    play(scenario)
