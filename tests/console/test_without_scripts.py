"""The essentials with JavaScript switched off: nothing but links, forms and pages."""

from __future__ import annotations

from typing import Any

from playwright.async_api import expect

from tests.console.conftest import Console, fill
from tests.console.test_flow import Play, publish
from tests.servers.nginx import Nginx


def test_a_certificate_can_be_got_and_withdrawn_without_any_script(play: Play, nginx: Nginx) -> None:
    async def scenario(console: Console) -> None:
        async with console.page(java_script_enabled=False) as page:
            await console.set_up(page)

            await page.get_by_role("link", name="Apply for a certificate").click()
            await fill(page, {"Domain names": "https://www.example.org", "Phone": "none"})
            await page.get_by_label("File on the web server").check()
            await page.get_by_role("button", name="Review").click()
            summary = page.get_by_role("alert")
            await expect(summary).to_contain_text("3 fields need correcting.")
            await expect(page.get_by_label("Domain names")).to_have_attribute("aria-invalid", "true")
            await expect(page.get_by_label("Domain names")).to_have_value("https://www.example.org")
            await expect(page.locator("#e-applicant_phone-1")).to_contain_text("not a telephone number")
            await expect(page.get_by_label("File on the web server")).to_be_checked()

            await fill(page, {"Domain names": "www.example.org", "Phone": "+49 30 123456"})
            await page.get_by_label("I agree that my name").check()
            await page.get_by_role("button", name="Review").click()
            await page.get_by_role("button", name="Change something").click()
            await expect(page.get_by_label("Domain names")).to_have_value("www.example.org")
            await page.get_by_role("button", name="Review").click()
            await page.get_by_role("button", name="Submit the application").click()
            await expect(page.get_by_role("status")).to_contain_text("The application is submitted.")

            await page.get_by_role("button", name="Check now").click()
            await expect(page.locator("#domains .notice.warn")).to_contain_text("404")
            await publish(page, nginx)
            await page.get_by_role("button", name="Check now").click()
            await expect(page.get_by_text("Every name is verified")).to_be_visible()
            await _reload_until(page, "Go to the certificate")

            await page.get_by_role("link", name="Certificates", exact=True).first.click()
            await page.get_by_label("Search").fill("example.org")
            await page.get_by_role("button", name="Search").click()
            await expect(page.get_by_role("rowheader")).to_have_count(1)

            await page.get_by_role("button", name="Dark").click()
            await expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")

            await page.get_by_role("link", name="www.example.org").click()
            await page.get_by_role("link", name="Revoke…").click()
            await page.get_by_label("Key compromise").check()
            await page.get_by_role("button", name="Revoke the certificate").click()
            await expect(page.get_by_role("status")).to_contain_text("is being revoked")

            await page.get_by_role("button", name="Sign out").click()
            await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()

    play(scenario)


async def _reload_until(page: Any, link: str) -> None:
    """Without a script the person reloads."""
    await page.get_by_role("link", name=link).click()
    for _attempt in range(100):
        if await page.locator("#progress .state").inner_text() == "Issued":
            return
        await page.reload()
    raise AssertionError("the certificate was never issued")


def test_people_are_invited_and_policies_refused_and_decided_without_any_script(play: Play) -> None:
    async def scenario(console: Console) -> None:
        async with console.page(java_script_enabled=False) as page:
            await console.set_up(page)
            await page.goto("/access")
            await fill(page, {"Name": "Grace Hopper", "E-mail address": "grace@example.org"})
            await page.get_by_role("button", name="Invite").click()
            link = await page.locator("#link").inner_text()

            async with console.page(java_script_enabled=False) as hers:
                await hers.goto(link)
                assert "token" not in hers.url
                await fill(hers, {"Password": "short"})
                await hers.get_by_role("button", name="Set the password").click()
                await expect(hers.locator("#e-password-1")).to_contain_text("fewer than 12 characters")
                await fill(hers, {"Password": "quite another pelican 9"})
                await hers.get_by_role("button", name="Set the password").click()
                await fill(hers, {"E-mail address": "grace@example.org", "Password": "wrong"})
                await hers.get_by_role("button", name="Sign in").click()
                await expect(hers.get_by_role("alert")).to_contain_text("is wrong")
                await fill(hers, {"Password": "quite another pelican 9"})
                await hers.get_by_role("button", name="Sign in").click()
                await expect(hers.get_by_role("heading", name="Overview")).to_be_visible()
                await hers.goto("/certificates/new")
                await expect(hers.get_by_text("scm:cert:apply").first).to_be_visible()

                await page.goto("/access/policies/new")
                await fill(page, {"Name": "Applicants"})
                await page.get_by_label("Document (JSON)").fill(
                    '{"Version": "1.1", "Statement": [{"Effect": "Allow", "Action": ["scm:cert:aply"]}]}'
                )
                await page.get_by_role("button", name="Save").click()
                await expect(page.get_by_role("alert")).to_contain_text("scm:cert:apply")
                await page.get_by_label("Document (JSON)").fill(
                    '{"Version": "1.1", "Statement": [{"Effect": "Allow", "Action": ["scm:cert:apply"]}]}'
                )
                await page.get_by_role("button", name="Save").click()
                await expect(page.get_by_role("status")).to_contain_text("Created.")
                await page.goto("/access")
                await page.get_by_role("link", name="Grace Hopper").click()
                await page.get_by_role("button", name="Attach").click()
                await expect(page.get_by_role("alert")).to_contain_text("No policy is chosen.")
                await page.get_by_label("Attach a policy").select_option("Applicants")
                await page.get_by_role("button", name="Attach").click()
                await expect(page.get_by_role("cell", name="Applicants")).to_be_visible()

                await page.goto("/access/simulator")
                await page.get_by_label("User").select_option("Grace Hopper (grace@example.org)")
                await page.get_by_label("Action").select_option("scm:cert:apply")
                await page.get_by_role("button", name="Decide").click()
                await expect(page.get_by_role("status")).to_contain_text("Yes, they may.")

            await page.goto("/profile")
            await fill(page, {"Name of a new token": "pipeline"})
            await page.get_by_role("button", name="Create a token").click()
            await expect(page.get_by_role("alert")).to_contain_text("What the token may do is not chosen.")
            await page.get_by_label("What it may do").select_option("everything I may do")
            await page.get_by_role("button", name="Create a token").click()
            token = await page.locator("#token").inner_text()
            assert token.startswith("cwt_")
            await page.goto("/profile")
            await expect(page.get_by_role("rowheader", name="pipeline")).to_be_visible()
            assert token not in await page.content()
            await page.get_by_role("button", name="Revoke").click()
            await expect(page.get_by_role("heading", name="Revoke this token?")).to_be_visible()
            await expect(page.get_by_text("pipeline")).to_be_visible()
            await page.get_by_role("link", name="Cancel").click()
            await expect(page.get_by_role("rowheader", name="pipeline")).to_be_visible()
            await expect(page.get_by_role("cell", name="Active")).to_be_visible()
            await page.get_by_role("button", name="Revoke").click()
            await page.get_by_role("button", name="Revoke the token").click()
            await expect(page.get_by_role("status")).to_contain_text("The token is revoked.")

    play(scenario)
