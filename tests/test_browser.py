"""The first page, in headless Chromium."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.server_helpers import BROWSER_ARGUMENTS, find_program, need, running_command


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = find_program("chromium", "chromium-browser", "google-chrome")
    need("Chromium", chromium is not None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def url() -> Iterator[str]:
    with running_command() as (_, url):
        yield url


def open_tab(browser: Browser, url: str, problems: list[str]) -> Page:
    """A page of its own, which notes console errors and requests to other hosts."""
    page = browser.new_context().new_page()

    def note_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            problems.append(message.text)

    def note_request(request: Request) -> None:
        if not request.url.startswith((url, "data:")):
            problems.append(f"request to {request.url}")

    page.on("console", note_console)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", note_request)
    page.goto(url)
    expect(page.get_by_role("status")).to_have_text("online")
    return page


def say(page: Page, name: str, text: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def test_a_message_of_one_tab_is_shown_in_the_other(browser: Browser, url: str) -> None:
    problems: list[str] = []
    first, second = open_tab(browser, url, problems), open_tab(browser, url, problems)
    say(first, "Ada", "Hello, 세계 😀 שלום")
    for page in (first, second):
        item = page.get_by_role("listitem")
        expect(item).to_have_count(1)
        expect(item).to_contain_text("Ada: Hello, 세계 😀 שלום")
        assert page.locator("time").get_attribute("datetime")
    say(second, "<b>Bob</b>", "<img src=x onerror=alert(1)>")
    expect(first.get_by_role("listitem").last).to_contain_text("<b>Bob</b>: <img src=x onerror=alert(1)>")
    assert first.locator("#messages img, #messages b").count() == 0
    assert problems == []


def test_the_page_comes_back_after_the_server(browser: Browser) -> None:
    problems: list[str] = []
    with running_command() as (_, url):
        page = open_tab(browser, url, problems)
    expect(page.get_by_role("status")).to_have_text("offline, trying again")
    with running_command("--port", url.rsplit(":", 1)[1]):
        expect(page.get_by_role("status")).to_have_text("online", timeout=30_000)


def test_what_is_no_message_of_the_page_is_left_out(browser: Browser, url: str) -> None:
    problems: list[str] = []
    page = open_tab(browser, url, problems)
    page.evaluate(
        """() => new Promise((resolve) => {
            const socket = new WebSocket(location.href.replace("http", "ws") + "rooms/lobby");
            socket.onopen = () => {
                for (const text of ["no JSON", "null", "[]", '{"time": "never"}']) socket.send(text);
                socket.send(JSON.stringify({ name: "Eve", text: "fine", time: new Date() }));
                setTimeout(() => resolve(socket.close()), 200);
            };
        })"""
    )
    expect(page.get_by_role("listitem")).to_have_count(1)
    expect(page.get_by_role("listitem")).to_contain_text("Eve: fine")
    assert problems == []


def test_compression_with_the_browser(browser: Browser) -> None:
    problems: list[str] = []
    with running_command("--compression") as (_, url):
        page = open_tab(browser, url, problems)
        extensions, same = page.evaluate(
            """() => new Promise((resolve, reject) => {
                const socket = new WebSocket(location.href.replace("http", "ws") + "echo");
                const texts = ["Hello", "long ".repeat(10000), "세계😀".repeat(2000), ""];
                const back = [];
                socket.onopen = () => texts.forEach((text) => socket.send(text));
                socket.onclose = () => reject(new Error("closed"));
                socket.onmessage = (event) => {
                    back.push(event.data);
                    if (back.length === texts.length) {
                        resolve([socket.extensions, texts.every((text, i) => text === back[i])]);
                    }
                };
            })"""
        )
        assert extensions.startswith("permessage-deflate")
        assert same
        assert problems == []
