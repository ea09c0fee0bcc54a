"""The page of the service in a real browser: Chromium, over Playwright."""

import io
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from endpoint import Endpoint
from page_server import Reply, Service, StandIn, answer, refusal
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, FilePayload, Locator, Page, expect, sync_playwright
from serving import KEY, Served
from waiting import until

pytestmark = pytest.mark.long

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HOSTILE = '<img src=x onerror="window.attacked = true">'
EXPECTED = (
    "Failed to load resource: the server responded with a status of ",
    "Failed to load resource: net::ERR_INTERNET_DISCONNECTED",
)
CONTROLS = frozenset(("button", "checkbox", "combobox", "DisclosureTriangle", "spinbutton", "textbox"))

expect.set_options(timeout=120_000)


@pytest.fixture
def service() -> Iterator[Service]:
    """A running service with two models."""
    service = Service()
    service.may_answer.set()
    server = StandIn(service)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_port}/"
    yield service
    service.may_answer.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium of this machine."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail("the tests of the page need a browser: apt-get install chromium", pytrace=False)
    sandbox = ["--no-sandbox"]  # root and many containers cannot have one, and the only page is our own
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=sandbox)
        yield browser
        browser.close()


@contextmanager
def tab(browser: Browser, service: Service, **options: Any) -> Iterator[Page]:
    """A tab, still empty. The page of the service must report no error in it, and ask no other server."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], **options)
    context.set_default_timeout(120_000)
    page = context.new_page()
    errors: list[str] = []
    asked: list[str] = []

    def console(message: ConsoleMessage) -> None:
        """Keep each error but those of requests that fail in a test."""
        if message.type in ("error", "warning") and not message.text.startswith(EXPECTED):
            errors.append(message.text)

    page.on("console", console)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    context.close()
    local = (service.url, f"blob:{service.url}", "data:image/svg+xml,")
    assert errors + [url for url in asked if not url.startswith(local)] == []


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    """A tab on a computer with a mouse."""
    with tab(browser, service) as page:
        yield page


def photo(name: str = "red.png", colour: str = "red") -> FilePayload:
    """A picture for a file field."""
    out = io.BytesIO()
    Image.new("RGB", (400, 300), colour).save(out, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": out.getvalue()}


def choose(page: Page, *files: FilePayload) -> None:
    """Choose these files as images to send."""
    page.get_by_label("Choose images").set_input_files(files)


def ask(page: Page, *files: FilePayload) -> None:
    """Send these files with the prompt of the page."""
    choose(page, *(files or (photo(),)))
    page.get_by_role("button", name="Send").click()


def answers(page: Page) -> Locator:
    """The answers of the page, the newest first."""
    return page.locator("#answers > li")


def focused(page: Page) -> str:
    """The id of the element with the focus, else its text."""
    return str(page.evaluate("document.activeElement.id || document.activeElement.textContent"))


def test_a_keyboard_alone_is_enough(page: Page, service: Service) -> None:
    """The keys Tab, Enter and Ctrl+Enter choose an image, send it with all fields, and copy its answer."""
    with page.expect_file_chooser() as chooser:
        page.goto(service.url)
        expect(page.get_by_label("Model")).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.get_by_label("Choose images")).to_be_focused()
        page.keyboard.press("Enter")
    chooser.value.set_files(photo())
    order: list[str] = []
    while order[-1:] != ["send"] and len(order) < 10:
        page.keyboard.press("Tab")
        order.append(focused(page))
        if order[-1] == "More settings":
            page.keyboard.press("Enter")
            page.keyboard.press("Tab")
            page.keyboard.type("Be short.")
            page.keyboard.press("Tab")
            page.keyboard.type("64")
        elif order[-1] == "prompt":
            page.keyboard.press("Control+A")
            page.keyboard.type("What is it?")
        elif order[-1] == "model":
            page.keyboard.type("large")
    assert order == ["Remove", "prompt", "model", "More settings", "temperature", "seed", "send"]
    while focused(page) != "prompt":
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Control+Enter")
    expect(answers(page)).to_contain_text("A red square.")
    (sent,) = service.uploads
    assert sent.fields == {
        "prompt": "What is it?",
        "model": "large-vision",
        "system": "Be short.",
        "max_tokens": "64",
    }
    assert (sent.name, sent.data, sent.authorization) == ("red.png", photo()["buffer"], None)
    facts = "tiny-vision · 2.3 s · sent as 1024 x 768 instead of 4032 x 3024 · 48 tokens".replace(
        " x ", " \xd7 "
    )
    expect(answers(page).locator(".facts")).to_have_text(facts)
    while focused(page) != "Copy":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Copied")).to_be_focused()
    page.get_by_label("Prompt", exact=True).fill("")
    page.keyboard.press("Control+V")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("A red square.")


def test_an_answer_stays_text(page: Page, service: Service) -> None:
    """HTML from a model, in a message or in a file name is shown as text, and its script never runs."""
    service.replies += [answer(HOSTILE, model=HOSTILE, warnings=[HOSTILE]), refusal(422, HOSTILE, HOSTILE)]
    page.goto(service.url)
    ask(page, photo(name=HOSTILE), photo(name=HOSTILE))
    refused, answered = answers(page).nth(0), answers(page).nth(1)
    expect(refused.locator(".text")).to_have_text(HOSTILE)
    expect(refused.locator(".facts")).to_contain_text(f"kind: {HOSTILE}")
    for part in (".text", ".warnings", ".name"):
        expect(answered.locator(part)).to_have_text(HOSTILE)
    expect(answered.locator(".facts")).to_contain_text(HOSTILE)
    assert page.locator("#answers img").count() == 2, "the two pictures that were sent, and no other"
    assert page.evaluate("window.attacked") is None


def test_the_page_asks_for_the_key(page: Page, service: Service) -> None:
    """After a 401 the page asks for the key, then sends the image; it keeps the key only if it may."""
    page.goto(service.url)
    expect(page.get_by_label("Model")).to_be_visible()
    expect(page.get_by_label("API key of the service")).to_be_hidden()
    service.key = "right"
    ask(page)
    expect(page.get_by_label("API key of the service")).to_be_focused()
    expect(answers(page)).to_contain_text("The service needs an API key.")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-message")).to_have_text("The key is missing or wrong. Send another key.")
    page.keyboard.type(" right ")
    page.keyboard.press("Enter")
    expect(answers(page)).to_contain_text("A red square.")
    assert [sent.authorization for sent in service.uploads] == ["Bearer right"]
    assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
    page.reload()
    page.get_by_label("API key of the service").fill("right")
    page.get_by_label("Keep the API key").check()
    page.get_by_role("button", name="Use the API key").click()
    expect(page.get_by_label("Model")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Model")).to_be_visible()
    assert page.url == service.url
    page.get_by_role("button", name="Forget the API key").click()
    expect(page.get_by_label("API key of the service")).to_be_visible()
    assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]


def test_a_busy_service_is_asked_later(page: Page, service: Service) -> None:
    """A 429 shows how long to wait and holds back the images in line; then Try again brings the answer."""
    service.replies.append(refusal(429, "busy", "Too many requests. Wait.", Retry_After="7"))
    service.may_answer.clear()
    page.clock.install(time=0)
    page.goto(service.url)
    page.clock.pause_at(60)
    ask(page, photo("first.png"), photo("second.png"))
    second, first = answers(page).nth(0), answers(page).nth(1)
    expect(first.locator(".state")).to_have_text("Waiting for the answer.")
    page.clock.run_for(3000)
    expect(first.locator(".facts")).to_have_text("3 s")
    service.may_answer.set()
    expect(first.locator(".state")).to_have_text("The service is busy.")
    expect(first.locator(".text")).to_have_text("Too many requests. Wait.")
    page.clock.run_for(2000)
    expect(first.get_by_role("button", name="Try again in 5 s", disabled=True)).to_be_visible()
    expect(second.locator(".state")).to_have_text("Waiting in line.")
    page.clock.run_for(5000)
    expect(second.locator(".text")).to_have_text("A red square.")
    first.get_by_role("button", name="Try again", exact=True).click()
    expect(first.locator(".text")).to_have_text("A red square.")
    assert [sent.name for sent in service.uploads] == ["first.png", "second.png", "first.png"]


def test_a_request_can_be_cancelled(page: Page, service: Service) -> None:
    """Cancel ends a request, or takes an image out of the line; the other images are sent."""
    service.may_answer.clear()
    page.goto(service.url)
    ask(page, photo("first.png"), photo("second.png"))
    ask(page, photo("third.png"))
    third, second, first = (answers(page).nth(n) for n in range(3))
    until(lambda: service.uploads)
    second.get_by_role("button", name="Cancel").click()
    first.get_by_role("button", name="Cancel").click()
    for cancelled in (first, second):
        expect(cancelled.locator(".state")).to_have_text("Cancelled.")
    service.may_answer.set()
    expect(third.locator(".text")).to_have_text("A red square.")
    second.get_by_role("button", name="Try again").click()
    expect(second.locator(".text")).to_have_text("A red square.")
    until(lambda: [sent.name for sent in service.uploads] == ["first.png", "third.png", "second.png"])


def test_images_are_dropped_and_pasted(page: Page, service: Service) -> None:
    """Images can be dropped and pasted, also a HEIC without a preview; other kinds of files are refused."""
    page.goto(service.url)
    page.evaluate(
        """() => {
            for (const kind of ["drop", "paste"]) {
                const data = new DataTransfer();
                data.items.add(new File(["x"], `${kind}.heic`, { type: "image/heic" }));
                data.items.add(new File(["x"], `${kind}.txt`, { type: "text/plain" }));
                const init = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
                const event = kind === "drop" ? new DragEvent(kind, init) : new ClipboardEvent(kind, init);
                document.body.dispatchEvent(event);
            }
        }"""
    )
    expect(page.locator("#chosen .name")).to_have_text(["drop.heic", "paste.heic"])
    expect(page.locator("#chosen img[src^='data:image/svg+xml,']")).to_have_count(2)
    expect(page.locator("#message")).to_have_text("paste.txt is not an image. Choose another file.")
    page.get_by_role("button", name="Remove drop.heic").click()
    expect(page.get_by_role("button", name="Remove paste.heic")).to_be_focused()


def test_each_control_has_a_name_and_the_page_fits(page: Page, service: Service) -> None:
    """Each control has a name for a screen reader, and no width from 320 to 1600 pixels scrolls sideways."""
    service.key = "right"
    service.replies += [answer("long" * 1000), refusal(503, "busy", "x" * 500, Retry_After="100")]
    page.goto(service.url)
    expect(page.get_by_label("API key of the service")).to_be_visible()
    unnamed = controls_without_name(page)
    page.keyboard.type("right")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Model")).to_be_visible()
    page.get_by_text("More settings").click()
    ask(page, photo("n" * 300), photo("second.png"))
    expect(page.get_by_role("button", name="Try again in")).to_be_visible()
    choose(page, photo("n" * 300))
    assert unnamed + controls_without_name(page) == []
    for width in (320, 1600):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_failure_without_a_record_is_explained(page: Page, service: Service) -> None:
    """A reply that is not of the service, and a lost connection, are shown in words, with what to do."""
    service.replies.append(Reply(status=413, body="too large"))
    page.goto(service.url)
    ask(page)
    expect(answers(page).locator(".state")).to_have_text("The image is too large.")
    told = "A proxy in front of the service sent the status 413. Choose a smaller image."
    expect(answers(page).locator(".text")).to_have_text(told)
    page.context.set_offline(True)
    page.get_by_role("button", name="Try again").click()
    told = "The service cannot be reached. Check the network, and try again."
    expect(answers(page).locator(".text")).to_have_text(told)
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(answers(page).locator(".text")).to_have_text("A red square.")


def test_a_phone_takes_photos(page: Page, browser: Browser, service: Service) -> None:
    """A touch screen offers the camera, a mouse does not; a sent photo can get a new question."""
    page.goto(service.url)
    expect(page.get_by_text("Take a photo")).to_be_hidden()
    size = {"width": 375, "height": 812}
    with tab(browser, service, is_mobile=True, has_touch=True, viewport=size) as phone:
        phone.goto(service.url)
        expect(phone.get_by_text("Take a photo")).to_be_visible()
        camera = phone.get_by_label("Take a photo")
        expect(camera).to_have_attribute("capture", "environment")
        camera.set_input_files(photo("photo.png"))
        phone.get_by_role("button", name="Send").tap()
        expect(answers(phone)).to_contain_text("A red square.")
        assert phone.evaluate("document.documentElement.scrollWidth") <= 375
        phone.get_by_role("button", name="New question").tap()
        expect(phone.locator("#chosen")).to_contain_text("photo.png")


def controls_without_name(page: Page) -> list[str]:
    """The roles of the controls in the accessibility tree that have no name."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in nodes if not node["ignored"] and node["role"]["value"] in CONTROLS]
    assert len(controls) > 5, "the tree has the controls of the page"
    return [node["role"]["value"] for node in controls if not node["name"]["value"]]


def test_the_page_works_with_the_real_service(browser: Browser, endpoint: Endpoint) -> None:
    """The page of the real service asks for the key, sends the photo to the model and shows the answer."""
    endpoint.answer = lambda request: HOSTILE
    with Served(endpoint, service_key=f"phone:{KEY}") as served, browser.new_page() as page:
        page.goto(served.url)
        page.get_by_label("API key of the service").fill(KEY)
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Forget the API key")).to_be_visible()
        page.get_by_label("Choose images").set_input_files(photo())
        page.get_by_role("button", name="Send").click()
        expect(answers(page)).to_contain_text(HOSTILE)
    assert len(endpoint.questions) == 1
