"""The pages in headless Chromium: several tabs, an unreachable server, accessibility."""

import base64
import os
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    WebSocket,
    expect,
    sync_playwright,
)

from tests.server_helpers import (
    BROWSER_ARGUMENTS,
    PATIENCE,
    ROOT,
    find_program,
    free_port,
    need,
    running_command,
)

AXE = ROOT / "tests" / "node" / "node_modules" / "axe-core" / "axe.min.js"
SCREENSHOTS = Path(os.environ.get("SCREENSHOTS", ROOT / "build" / "screenshots"))
PAGES = ["/", "/chat", "/ticker", "/game"]

expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = find_program("chromium", "chromium-browser", "google-chrome")
    need("Chromium", chromium is not None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS)
        yield browser
        browser.close()


class Tabs:
    """Isolated tabs, one per person; `problems` collects console errors and requests to other hosts."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.url = url
        self.problems: list[str] = []
        self.server_away = False

    def open(self, path: str, **options: object) -> Page:
        context = self._browser.new_context(**options)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE * 1000)
        self._contexts.append(context)
        page = context.new_page()
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", self._note_request)
        page.goto(self.url + path)
        expect(page.locator("#state")).to_have_text("not playing" if path == "/game" else "online")
        return page

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not self.server_away:
            self.problems.append(message.text)

    def _note_request(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.problems.append(f"request to {request.url}")

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@contextmanager
def tabs_of(browser: Browser, url: str) -> Iterator[Tabs]:
    tabs = Tabs(browser, url)
    try:
        yield tabs
    finally:
        tabs.close()
    assert tabs.problems == []


@pytest.fixture
def tabs(browser: Browser) -> Iterator[Tabs]:
    with running_command() as (_, url), tabs_of(browser, url) as tabs:
        yield tabs


def shot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


# The chat.


def enter(tabs: Tabs, name: str, room: str = "lobby", **options: object) -> Page:
    page = tabs.open(f"/chat?room={room}", **options)
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Enter").click()
    expect(page.locator("#people")).to_contain_text(name)
    return page


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def said(page: Page) -> list[str]:
    """Returns the texts of the messages, in order."""
    return page.locator("#messages li p").all_inner_texts()


def png(width: int, height: int, noise: int = 0) -> bytes:
    """Returns a PNG image with ``noise`` additional bytes that cannot be compressed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(
        b"\0" + bytes((x * 3 % 256, y * 5 % 256, 160)[c] for x in range(width) for c in range(3))
        for y in range(height)
    )
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))]
    parts += [chunk(b"IDAT", zlib.compress(rows))]
    parts += [chunk(b"noSe", os.urandom(noise))] if noise else []
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def test_two_tabs_chat(tabs: Tabs) -> None:
    ann = enter(tabs, "Ann")
    bob = enter(tabs, "밥 😀")
    expect(ann.locator("#messages")).to_contain_text("밥 😀 has joined.")
    for sender, text in ((ann, "hello"), (bob, "안녕하세요 👋"), (ann, "שלום לכם"), (bob, "one\ntwo")):
        say(sender, text)
        for page in (ann, bob):
            expect(page.locator("#messages li p").last).to_have_text(text)
    assert said(ann) == said(bob) == ["hello", "안녕하세요 👋", "שלום לכם", "one\ntwo"]
    assert bob.locator("#messages li p").nth(2).evaluate("p => getComputedStyle(p).direction") == "rtl"
    assert ann.locator("#messages time").first.get_attribute("datetime").endswith("+00:00")  # type: ignore[union-attr]
    bob.get_by_label("Message", exact=True).press_sequentially("x")
    expect(ann.locator("#typing")).to_have_text("밥 😀 is writing …")
    bob.close()
    expect(ann.locator("#messages")).to_contain_text("밥 😀 has left.")
    expect(ann.locator("#people li")).to_have_text(["Ann (you)"])


def test_rooms_are_separate_and_a_link_opens_a_room(tabs: Tabs) -> None:
    ann = enter(tabs, "Ann", "one")
    eve = enter(tabs, "Eve", "two")
    say(ann, "in one")
    say(eve, "in two")
    expect(eve.locator("#messages li p")).to_have_text(["in two"])
    assert said(ann) == ["in one"]
    bob = tabs.open(ann.url.removeprefix(tabs.url))
    assert bob.get_by_label("Room").input_value() == "one"
    bob.get_by_label("Name").fill("Bob")
    bob.get_by_label("Name").press("Enter")
    expect(bob.locator("#messages li p")).to_have_text(["in one"])


def test_a_new_member_sees_the_last_fifty_messages(tabs: Tabs) -> None:
    ann = enter(tabs, "Ann")
    for number in range(53):
        say(ann, str(number))
    expect(ann.locator("#messages li p").last).to_have_text("52")
    bob = enter(tabs, "Bob")
    expect(bob.locator("#messages li p")).to_have_count(50)
    assert said(bob) == [str(number) for number in range(3, 53)]
    inside = bob.locator("#log").evaluate("log => log.scrollTop + log.clientHeight >= log.scrollHeight - 2")
    assert inside  # the newest message is visible


def test_images_are_sent_by_button_paste_and_drop(tabs: Tabs) -> None:
    ann, bob = enter(tabs, "Ann"), enter(tabs, "Bob")
    say(ann, "hello, Bob")
    expect(bob.locator("#messages li p")).to_have_text(["hello, Bob"])
    say(bob, "hello, Ann")
    data = png(120, 80, noise=300_000)
    ann.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": data})
    expect(ann.locator("#preview")).to_be_visible()
    ann.get_by_role("button", name="Send").click()
    for how in ("paste", "drop"):
        ann.evaluate(
            """([how, encoded]) => {
                const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
                const data = new DataTransfer();
                data.items.add(new File([bytes], "b.png", {type: "image/png"}));
                const event = how === "paste"
                    ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
                    : new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
                document.querySelector("#text").dispatchEvent(event);
            }""",
            [how, base64.b64encode(png(30, 20)).decode()],
        )
        expect(ann.locator("#preview")).to_be_visible()
        ann.get_by_role("button", name="Send").click()
        expect(ann.locator("#preview")).to_be_hidden()
    for page in (ann, bob):
        expect(page.locator("#messages img")).to_have_count(3)
        page.wait_for_function("[...document.querySelectorAll('#messages img')].every((i) => i.naturalWidth)")
        widths = page.locator("#messages img").evaluate_all("images => images.map((i) => i.naturalWidth)")
        assert widths == [120, 30, 30]
    expect(ann.locator("#progress")).to_be_hidden()
    bob.get_by_label("Message", exact=True).press_sequentially("nice")
    expect(ann.locator("#typing")).to_have_text("Bob is writing …")
    shot(ann, "chat")
    ann.locator("#file").set_input_files(
        {"name": "big.png", "mimeType": "image/png", "buffer": png(2, 2, noise=3 << 20)}
    )
    expect(ann.locator("#messages")).to_contain_text("big.png is larger than 2 MiB.")
    expect(ann.locator("#preview")).to_be_hidden()


def test_a_direct_message_reaches_only_one_person(tabs: Tabs) -> None:
    ann, bob, eve = (enter(tabs, name) for name in ("Ann", "Bob", "Eve"))
    ann.get_by_label("To").select_option(label="Bob")
    say(ann, "psst")
    expect(bob.locator("#messages li.direct")).to_contain_text("psst")
    expect(ann.locator("#messages li.direct")).to_contain_text("to Bob only")
    ann.get_by_label("To").select_option(label="everyone")
    say(ann, "all of you")
    expect(eve.locator("#messages li p")).to_have_text(["all of you"])


def test_markup_stays_text(tabs: Tabs) -> None:
    evil = "<script>document.title='x'</script>"
    ann = enter(tabs, evil)
    bob = enter(tabs, "Bob")
    say(ann, "<b>bold</b> &amp; <a href=javascript:alert(1)>x</a>")
    expect(bob.locator("#messages li p")).to_have_text(
        ["<b>bold</b> &amp; <a href=javascript:alert(1)>x</a>"]
    )
    expect(bob.locator("#people")).to_contain_text(evil)
    for page in (ann, bob):
        assert page.locator("#messages b, #messages a, #messages script, #people script").count() == 0
        assert page.title() == "Chat · rfc6455"


def test_the_pages_reconnect_after_a_server_restart(browser: Browser) -> None:
    port = str(free_port())
    with running_command("--port", port) as (process, url), tabs_of(browser, url) as tabs:
        ann, bob = enter(tabs, "Ann"), enter(tabs, "Bob")
        say(ann, "before")
        expect(bob.locator("#messages li p")).to_have_text(["before"])
        tabs.server_away = True
        attempts: Counter[Page] = Counter()

        def count(page: Page, _: WebSocket) -> None:
            attempts[page] += 1

        for page in (ann, bob):
            page.on("websocket", partial(count, page))
        process.kill()
        process.wait()
        for page in (ann, bob):
            expect(page.locator("#state")).to_contain_text("reconnecting")
        shot(ann, "reconnecting")
        for number in range(3):
            say(ann, f"while away {number}")
        while waiting := [page for page in (ann, bob) if attempts[page] < 3]:
            waiting[0].wait_for_event("websocket")
        with running_command("--port", port):
            for page in (ann, bob):
                expect(page.locator("#state")).to_have_text("online")
            expected = ["before", *(f"while away {number}" for number in range(3))]
            expect(bob.locator("#messages li p")).to_have_text(expected)
            say(bob, "after")
            for page in (ann, bob):
                expect(page.locator("#messages li p")).to_have_text([*expected, "after"])
                expect(page.locator("#messages")).to_contain_text("The connection is back.")
                expect(page.locator("#people li")).to_have_count(2)
            tabs.close()


def test_no_message_is_lost_or_doubled_while_offline(tabs: Tabs) -> None:
    ann, bob = enter(tabs, "Ann"), enter(tabs, "Bob")
    say(ann, "1")
    expect(bob.locator("#messages li p")).to_have_text(["1"])
    tabs.server_away = True
    bob.context.set_offline(True)
    expect(bob.locator("#state")).to_contain_text("offline")
    say(ann, "2")
    say(bob, "3")
    say(ann, "4")
    expect(ann.locator("#messages li p")).to_have_text(["1", "2", "4"])
    bob.context.set_offline(False)
    expect(bob.locator("#state")).to_have_text("online")
    for page in (ann, bob):
        expect(page.locator("#messages li p")).to_have_text(["1", "2", "4", "3"])


# The other pages.


def test_the_start_page_shows_live_figures(tabs: Tabs) -> None:
    page = tabs.open("/")
    expect(page.locator("#connections")).to_have_text("1")
    enter(tabs, "Ann")
    expect(page.locator("#connections")).to_have_text("2")
    expect(page.locator("#rooms")).to_have_text("1")
    expect(page.locator("#messages")).not_to_have_text("–")
    for path in PAGES[1:]:
        assert page.locator(f"a[href='{path}']").count() == 1
    page.get_by_role("link", name="All figures").click()
    assert "rfc6455_connections" in page.content()


def wait_for_another_picture(page: Page, canvas: str) -> None:
    """Waits until the picture on the canvas changes."""
    before = page.locator(canvas).evaluate("canvas => canvas.toDataURL()")
    changed = "([canvas, before]) => document.querySelector(canvas).toDataURL() !== before"
    page.wait_for_function(changed, arg=[canvas, before])


def test_the_chart_draws_and_moves(tabs: Tabs) -> None:
    page = tabs.open("/ticker")
    expect(page.locator("#prices")).to_contain_text("ACME")
    price = page.locator("#prices").inner_text()
    for _ in range(4):
        wait_for_another_picture(page, "#chart")
    expect(page.locator("#prices")).not_to_have_text(price, use_inner_text=True)
    expect(page.locator("#received")).not_to_have_text("0")
    expect(page.locator("#sent")).not_to_have_text("0")
    expect(page.locator("#latency")).to_contain_text("ms")
    shot(page, "ticker")


# Runs the server of the pages with a higher message rate for slow tabs. The buffers of the network and the
# browser then fill up within the five seconds, even on a busy machine.
FULL_SPEED = (
    "-c",
    "import runpy; from rfc6455_server.pages import ticker; ticker.BURST_RATE *= 20;"
    "runpy.run_module('rfc6455_server', run_name='__main__')",
)


def test_a_slow_tab_receives_the_newest_prices(browser: Browser) -> None:
    with running_command(program=FULL_SPEED) as (_, url), tabs_of(browser, url) as tabs:
        slow, other = tabs.open("/ticker"), tabs.open("/ticker")
        expect(slow.locator("#prices")).to_contain_text("ACME")
        slow.get_by_role("button", name="Be slow").click()
        expect(slow.locator("#slowness")).to_contain_text("were merged into newer ones")
        assert int(slow.locator("#merged").inner_text()) > 0
        expect(other.locator("#merged")).to_have_text("0")


def play(tabs: Tabs, name: str) -> Page:
    page = tabs.open("/game")
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Play").click()
    expect(page.locator("#scores")).to_contain_text(name)
    return page


def test_two_players_see_each_other(tabs: Tabs) -> None:
    ann, bob = play(tabs, "Ann"), play(tabs, "Bob")
    for page in (ann, bob):
        expect(page.locator("#scores")).to_contain_text("Ann")
        expect(page.locator("#scores")).to_contain_text("Bob")
        expect(page.locator("#latency")).to_contain_text("ms")
    ann.locator("#world").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        ann.keyboard.down(key)
        wait_for_another_picture(bob, "#world")
        if key == "ArrowDown":
            shot(bob, "game")
        ann.keyboard.up(key)
    ann.close()
    expect(bob.locator("#scores")).not_to_contain_text("Ann")
    expect(bob.locator("#scores")).to_contain_text("Bob")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_axe_finds_no_serious_violation(tabs: Tabs, scheme: str, width: int) -> None:
    need("axe-core", AXE.exists())
    found = []
    for path in PAGES:
        viewport = {"width": width, "height": 740}
        page = tabs.open(path, viewport=viewport, color_scheme=scheme, bypass_csp=True)
        if path in ("/chat", "/game"):
            page.get_by_label("Name").fill("Ann")
            page.get_by_label("Name").press("Enter")
            expect(page.locator("#people" if path == "/chat" else "#scores")).to_contain_text("Ann")
        if path == "/chat":
            say(page, "hello")
            expect(page.locator("#messages li p")).to_have_text(["hello"])
        page.evaluate(AXE.read_text())
        result = page.evaluate("axe.run()")
        for violation in result["violations"]:
            if violation["impact"] in ("serious", "critical"):
                nodes = [node["html"][:120] for node in violation["nodes"]]
                found.append((path, violation["id"], nodes))
        overflow = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert overflow <= 0, path
        if scheme == "dark" and width == 360:
            shot(page, f"narrow-{path.strip('/') or 'start'}")
    assert found == []


def test_the_content_security_policy_is_strict(tabs: Tabs) -> None:
    page = tabs.open("/")
    for path in PAGES:
        answer = page.request.get(tabs.url + path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert "<script>" not in answer.text()
        assert " style=" not in answer.text()
        assert re.search(r"\son[a-z]+=", answer.text()) is None
