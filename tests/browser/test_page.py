"""The page at / in a real Chromium, with the mouse, with the keyboard alone, and with errors."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.images import book, jpeg, saved

pytestmark = pytest.mark.timeout(300)

WIDTH, HEIGHT = 640, 480
TIMES = "\u00d7"
DROP = """([data, name]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name));
  const over = document.elementFromPoint(300, 300);
  for (const type of ["dragenter", "dragover", "drop"]) {
    const event = { bubbles: true, cancelable: true, dataTransfer: carried };
    over.dispatchEvent(new DragEvent(type, event));
  }
}"""
PASTE = """([data, name]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name, { type: "image/jpeg" }));
  const event = { bubbles: true, clipboardData: carried };
  document.body.dispatchEvent(new ClipboardEvent("paste", event));
}"""


@pytest.fixture(scope="module")
def encoded_book() -> bytes:
    return jpeg(book(9, WIDTH, HEIGHT).image)


def drop(page: Any, data: bytes, name: str, how: str = DROP) -> None:
    page.evaluate(how, [base64.b64encode(data).decode(), name])


def wait_for_result(page: Any) -> None:
    page.wait_for_selector("#facts:not([hidden])")
    page.wait_for_selector("#stage:not([aria-busy])")


def result(page: Any) -> Image.Image:
    """Return the image behind the download link."""
    with page.expect_download() as download:
        page.click("#download")
    return Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))


def test_a_dropped_image_is_shown_and_can_be_downloaded(
    page: Any, page_url: str, encoded_book: bytes
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_url)
    assert page.is_disabled("#run")
    drop(page, encoded_book, "my book.jpg")
    wait_for_result(page)
    assert page.is_visible("#compare")
    assert page.is_hidden("#drop")
    assert page.get_attribute("#download", "download") == "my book-cutout.png"
    assert f"640 {TIMES} 480 px PNG" in page.inner_text("#fact-result")
    assert page.inner_text("#fact-model") == "folio"
    assert page.inner_text("#fact-confidence-text").endswith("%")
    stages = page.locator("#stages th").all_inner_texts()
    assert stages == ["decode", "resize", "segment", "mask", "compose", "encode"]
    assert "Done in" in page.inner_text("#status")
    image = result(page)
    assert (image.mode, image.size) == ("RGBA", (WIDTH, HEIGHT))
    assert all(url.startswith((page_url, "blob:")) for url in asked)


def test_the_slider_compares_original_and_result(
    page: Any, page_url: str, encoded_book: bytes
) -> None:
    page.goto(page_url)
    drop(page, encoded_book, "book.jpg")
    wait_for_result(page)
    frame = page.locator("#frame").bounding_box()
    corner = {"x": frame["x"] + 12, "y": frame["y"] + frame["height"] - 40, "width": 8, "height": 8}

    def seen() -> Any:
        return np.asarray(Image.open(io.BytesIO(page.screenshot(clip=corner))).convert("RGB"))

    page.mouse.click(frame["x"] + 0.9 * frame["width"], frame["y"] + frame["height"] / 2)
    assert 85 < int(page.input_value("#slider")) < 95
    original = seen()
    page.keyboard.press("Home")
    cut = seen()
    source = np.asarray(Image.open(io.BytesIO(encoded_book)))[-40:-20, 5:20].mean((0, 1))
    assert np.abs(original.mean((0, 1)) - source).max() < 40
    assert np.abs(cut.mean((0, 1)) - original.mean((0, 1))).max() > 20
    assert page.get_attribute("#slider", "aria-valuetext") == "0% original, 100% result"


def test_a_doubtful_mask_is_called_so(page: Any, page_url: str, encoded_book: bytes) -> None:
    page.goto(page_url)

    def doubt(route: Any) -> None:
        answer = route.fetch()
        headers = {**answer.headers, "foreedge-mask-confidence": "0.79"}
        route.fulfill(response=answer, headers=headers)

    drop(page, encoded_book, "book.jpg")
    wait_for_result(page)
    assert "unsure" not in page.inner_text("#status")
    page.route("**/v1/cutout*", doubt)
    page.select_option("#format", "webp")
    page.wait_for_selector("#status:has-text('The model is unsure about this mask.')")
    assert page.inner_text("#fact-confidence-text") == "79%"


def test_options_change_the_result(page: Any, page_url: str, encoded_book: bytes) -> None:
    page.goto(page_url)
    page.wait_for_selector("#models option[value=folio]", state="attached")
    assert page.locator("#models option").first.inner_text() == "Default: folio"
    drop(page, encoded_book, "book.jpg")
    wait_for_result(page)
    page.select_option("#models", "folio")
    page.select_option("#format", "jpeg")
    page.wait_for_selector("#download[download$='.jpg']")
    assert page.input_value("#background") == "white"
    assert result(page).format == "JPEG"
    page.select_option("#format", "png")
    page.check("#mask_only")
    page.check("#crop_to_subject")
    page.wait_for_selector(f"#fact-result:not(:has-text('640 {TIMES} 480'))")
    wait_for_result(page)
    image = result(page)
    assert image.mode == "L"
    assert f"{image.width} {TIMES} {image.height} px" in page.inner_text("#fact-result")
    page.select_option("#matting", "closed_form")
    page.wait_for_selector("#stages:has-text('matting')")
    curl = page.text_content("#curl")
    assert "matting=closed_form" in curl
    assert "crop_to_subject=true" in curl


def test_a_pasted_image(page: Any, page_url: str, encoded_book: bytes) -> None:
    page.goto(page_url)
    drop(page, encoded_book, "image.png", PASTE)
    wait_for_result(page)
    page.click("#again")
    assert page.is_visible("#drop")
    assert page.is_hidden("#facts")


def test_an_image_that_the_browser_cannot_show(page: Any, page_url: str) -> None:
    page.goto(page_url)
    drop(page, saved(Image.fromarray(book(9, WIDTH, HEIGHT).image), "TIFF"), "book.tiff")
    wait_for_result(page)
    assert page.is_visible("#after")
    assert page.is_hidden("#slider")


@pytest.mark.parametrize(
    ("name", "data", "title", "detail"),
    [
        (
            "notes.txt",
            b"no image at all",
            "not a supported image",
            "not an image of a supported format",
        ),
        ("cut.jpg", b"\xff\xd8\xff\xe0" + bytes(300), "damaged", "cut off or damaged"),
        ("nothing.png", b"", "empty", "no image"),
        (
            "small.jpg",
            jpeg(book(9, 100, 75).image),
            "too small",
            "tick \u201cAccept small subjects\u201d",
        ),
        ("grey.png", saved(Image.new("RGB", (400, 300), "grey"), "PNG"), "No subject", "folio"),
    ],
)
def test_a_bad_file_is_explained_and_the_next_one_works(
    page: Any, page_url: str, encoded_book: bytes, name: str, data: bytes, title: str, detail: str
) -> None:
    page.goto(page_url)
    drop(page, data, name)
    page.wait_for_selector("#problem:not([hidden])")
    assert title in page.inner_text("#problem-title")
    assert detail in page.inner_text("#problem-detail")
    assert "object at 0x" not in page.inner_text("#problem-detail")
    drop(page, encoded_book, "book.jpg")
    wait_for_result(page)
    assert page.is_hidden("#problem")


def test_the_keyboard_alone(page: Any, page_url: str, encoded_book: bytes) -> None:
    choosers: list[Any] = []
    # The first listener makes Chromium intercept the dialog. Added later, it could miss the key.
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    page.goto(page_url)

    def tab_to(target: str) -> None:
        for _ in range(25):
            if page.evaluate("document.activeElement.id") == target:
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"no way to {target} with the Tab key")

    tab_to("file")
    for _ in range(20):
        # Chromium drops keys before its first frame, which is late on a busy machine.
        page.keyboard.press("Enter")
        page.wait_for_timeout(500)
        if choosers:
            break
    choosers[0].set_files({"name": "book.jpg", "mimeType": "image/jpeg", "buffer": encoded_book})
    wait_for_result(page)
    tab_to("slider")
    page.keyboard.press("End")
    assert page.get_attribute("#slider", "aria-valuetext") == "100% original, 0% result"
    page.keyboard.press("ArrowLeft")
    assert page.input_value("#slider") == "99"
    tab_to("recipe")
    page.keyboard.press("m")
    page.wait_for_selector("#download[download='book-mask.png']")
    tab_to("download")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    data = Path(download.value.path()).read_bytes()
    assert Image.open(io.BytesIO(data)).mode == "L"


def test_every_control_has_an_accessible_name(
    page: Any, page_url: str, encoded_book: bytes
) -> None:
    page.goto(page_url)
    drop(page, encoded_book, "book.jpg")
    wait_for_result(page)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, a, meter")]
          .filter((part) => !(part.labels?.length || part.getAttribute("aria-label")
            || part.textContent.trim()))
          .map((part) => part.id)"""
    )
    assert nameless == []


@pytest.mark.parametrize("width", [320, 768, 1600])
def test_nothing_is_wider_than_the_window(
    page: Any, page_url: str, encoded_book: bytes, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(page_url)
    drop(page, encoded_book, "a-name-without-any-place-to-break-it" * 3 + ".jpg")
    wait_for_result(page)
    page.click("summary")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_server_with_keys_asks_for_one(
    page: Any, serve: Callable[..., str], encoded_book: bytes
) -> None:
    page.goto(serve(http={"api_keys": ["sesame"]}))
    page.wait_for_selector("#key-field:not([hidden])")
    drop(page, encoded_book, "book.jpg")
    page.wait_for_selector("#problem:not([hidden])")
    assert "API key" in page.inner_text("#problem-title")
    assert page.evaluate("document.activeElement.id") == "key"
    page.keyboard.type("sesame")
    page.keyboard.press("Enter")
    wait_for_result(page)
    page.wait_for_selector("#models option[value=folio]", state="attached")


def test_an_unreachable_server_is_explained(page: Any, page_url: str, encoded_book: bytes) -> None:
    page.goto(page_url)
    page.route("**/v1/cutout*", lambda route: route.abort())
    drop(page, encoded_book, "book.jpg")
    page.wait_for_selector("#problem:not([hidden])")
    assert "cannot be reached" in page.inner_text("#problem-title")
