"""The report in a real browser: sliders, silence, hostile text, small screens, both colour schemes, paper."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from skimage import data

from alignment.audit_page import write_audit_page
from alignment.report import write_report
from catalog.audit import AuditPair, AuditRecord, GroupSummary, LocalShift, PairMeasurement
from catalog.evidence import BlurRecord
from catalog.session_folder import SessionFolder

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs system package chromium")

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CONTRAST = 4.5
"""Least contrast of text, WCAG 2.2 level AA."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page with everything it said and asked for."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


def opened(browser: Browser, path: Path, *, width: int = 1280, scheme: str = "light") -> Opened:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(20_000)
    seen = Opened(page)
    page.on("console", lambda message: seen.said.append(message.text))
    page.on("pageerror", lambda error: seen.said.append(str(error)))
    page.on("request", lambda request: seen.asked.append(request.url))
    page.on("dialog", lambda dialog: (seen.dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(path.as_uri())
    return seen


@pytest.fixture(scope="module")
def report(bench_session: SessionFolder) -> Path:
    target = bench_session.path / "report.html"
    write_report(bench_session, target)
    return target


def cut(page: Page, slider: str) -> str:
    """How far the ground truth reaches into the picture of a slider, as computed."""
    return str(
        page.eval_on_selector(
            slider, "input => getComputedStyle(input.parentElement.querySelector('img.gt')).clipPath"
        )
    )


def test_the_page_is_silent_and_asks_for_nothing(browser: Browser, report: Path):
    seen = opened(browser, report)

    seen.page.mouse.wheel(0, 20_000)
    for details in seen.page.locator("details:not([open]) > summary").all():
        if details.is_visible():
            details.click()
    seen.page.wait_for_load_state("networkidle")

    assert seen.said == []
    assert [url for url in seen.asked if not url.startswith("data:image/")] == [report.as_uri()]


def test_pictures_are_shown(browser: Browser, report: Path):
    page = opened(browser, report).page

    sizes = page.eval_on_selector_all("#sheet .sheet img", "all => all.map(i => i.naturalWidth)")

    assert len(sizes) == 6 * 60
    assert set(sizes) == {320, 160}


def test_the_slider_obeys_the_keyboard(browser: Browser, report: Path):
    page = opened(browser, report).page
    slider = page.get_by_role("slider", name="Share of ground truth shown, pair iso6400-0006")
    slider.focus()

    for key in ("ArrowRight", "ArrowRight"):
        page.keyboard.press(key)

    assert slider.input_value() == "52"
    assert "48%" in cut(page, "#cut-2-1")
    page.keyboard.press("Home")
    assert "100%" in cut(page, "#cut-2-1")


def test_b_swaps_the_sides(browser: Browser, report: Path):
    page = opened(browser, report).page
    page.locator("#cut-2-1").focus()

    values = []
    for _ in range(2):
        page.keyboard.press("b")
        values.append(page.locator("#cut-2-1").input_value())

    assert values == ["100", "0"]


def test_every_slider_can_be_reached_with_the_tab_key(browser: Browser, report: Path):
    page = opened(browser, report).page
    page.locator("#cut-2-1").focus()

    page.keyboard.press("Tab")

    assert page.evaluate("document.activeElement.id") == "cut-2-2"


def test_the_slider_obeys_the_pointer(browser: Browser, report: Path):
    """A press three quarters across the picture puts the edge there, within the width of a finger."""
    page = opened(browser, report).page
    slider = page.locator("#cut-2-1")
    width = page.eval_on_selector("#cut-2-1", "input => input.parentElement.clientWidth")

    slider.click(position={"x": 14 + 0.75 * width, "y": 30})  # the slider is 14 px wider at either end

    assert abs(int(slider.input_value()) - 75) <= 1


def test_the_detail_view_replaces_the_whole_pictures(browser: Browser, report: Path):
    page = opened(browser, report).page

    page.get_by_label("detail, every pixel").check()

    card = page.locator("#cut-2-1").locator("..")
    assert card.locator("img.detail").first.is_visible()
    assert not card.locator("img.whole").first.is_visible()


def style(page: Page, selector: str, name: str) -> str:
    """A computed property of the first picture of a kind in the first card."""
    return str(page.eval_on_selector(selector, f"element => getComputedStyle(element)['{name}']"))


def test_pictures_are_compared_in_five_ways(browser: Browser, report: Path):
    """Each way hides the cut of the swipe and does what its name says; swiping comes back."""
    page = opened(browser, report).page
    gt, lq, diff = (f".compare .whole.{side}" for side in ("gt", "lq", "diff"))

    page.get_by_label("checkerboard").check()
    assert "conic-gradient" in style(page, gt, "maskImage")
    page.get_by_label("red and cyan").check()
    assert (style(page, gt, "mixBlendMode"), style(page, gt, "clipPath")) == ("screen", "none")
    assert "only-cyan" in style(page, lq, "filter")
    page.get_by_label("difference").check()
    assert style(page, diff, "visibility") == "visible"
    page.get_by_label("swipe").check()
    assert style(page, diff, "visibility") == "hidden"
    assert "50%" in cut(page, "#cut-2-1")


def test_f_held_down_lets_the_sides_flicker(browser: Browser, report: Path):
    """Four tenths of a second for both sides: 2.5 Hz, below the three flashes a second that may harm."""
    page = opened(browser, report).page
    page.locator("#cut-2-1").focus()
    first = ".compare:has(#cut-2-1) .whole.gt"

    page.keyboard.down("f")
    during = style(page, first, "animationName"), style(page, first, "animationDuration")
    page.keyboard.up("f")

    assert during == ("flicker", "0.4s")
    assert style(page, first, "animationName") == "none"


def test_the_loupe_shows_the_same_place_of_both_sides(browser: Browser, report: Path):
    """Pictures of 320 px eight times enlarged are 2560 px wide."""
    page = opened(browser, report).page
    page.get_by_label("loupe").check()

    page.locator("#cut-2-1").hover()

    panes = page.eval_on_selector_all(
        ".loupe i", "all => all.map(p => [p.style.backgroundSize, p.style.backgroundPosition])"
    )
    assert panes[0] == panes[1]
    assert panes[0][0].startswith("2560px")
    page.locator("h1").hover()
    assert page.locator(".loupe").count() == 0


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_sticks_out_sideways(browser: Browser, report: Path, width: int):
    page = opened(browser, report, width=width).page

    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_figure_labels_do_not_run_into_each_other(browser: Browser, report: Path):
    page = opened(browser, report).page

    overlapping = page.evaluate(
        """() => [...document.querySelectorAll('svg.figure')].flatMap((svg) => {
          const boxes = [...svg.querySelectorAll('text')].map((t) => [t.textContent, t.getBBox()]);
          return boxes.flatMap(([a, p], i) => boxes.slice(i + 1)
            .filter(([, q]) => p.x < q.x + q.width && q.x < p.x + p.width
              && p.y + 3 < q.y + q.height && q.y + 3 < p.y + p.height)
            .map(([b]) => `${svg.querySelector('title').textContent}: ${a} | ${b}`));
        })"""
    )

    assert overlapping == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_schemes(browser: Browser, report: Path, scheme: str):
    page = opened(browser, report, scheme=scheme).page

    colours = {name: token(page, name) for name in ("page", "card", "ink", "soft", "faint", "accent", "code")}
    verdict = {kind: (token(page, kind), token(page, f"{kind}-soft")) for kind in ("good", "warn", "bad")}

    pairs = [
        (colours[text], colours[ground]) for text in ("ink", "soft", "accent") for ground in ("page", "card")
    ]
    pairs += [
        (colours["faint"], colours["card"]),
        (token(page, "mark-ink"), token(page, "mark")),
        *verdict.values(),
    ]
    assert [pair for pair in pairs if contrast(*pair) < CONTRAST] == []
    assert (luminance(colours["page"]) < 0.2) == (scheme == "dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_stand_out_from_their_ground(browser: Browser, report: Path, scheme: str):
    """Graphics need a contrast of 3 (WCAG 1.4.11)."""
    page = opened(browser, report, scheme=scheme).page

    lines = [token(page, f"s{i}") for i in range(8)]

    assert [line for line in lines if contrast(line, token(page, "card")) < 3] == []


def test_paper_is_white_whatever_the_screen(browser: Browser, report: Path):
    page = opened(browser, report, scheme="dark").page

    page.emulate_media(media="print", color_scheme="dark")

    assert token(page, "page") == "ffffff"
    assert contrast(token(page, "ink"), token(page, "card")) > 10


def token(page: Page, name: str) -> str:
    value = page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}')")
    digits = str(value).strip().removeprefix("#")
    return digits if len(digits) == 6 else "".join(2 * d for d in digits)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_paper_has_no_closed_sections_and_the_screen_gets_them_back(browser: Browser, report: Path):
    page = opened(browser, report).page
    closed = "document.querySelectorAll('details.on-paper:not([open])').length"
    before = page.evaluate(closed)

    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    during = page.evaluate(closed)
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")

    assert (before > 0, during, page.evaluate(closed)) == (True, 0, before)


def payloads() -> list[str]:
    """Two hundred ways to smuggle script through text."""
    act = "window.hacked=1"
    shapes = [
        "<script>{}</script>",
        "</script><script>{}</script>",
        "</style><script>{}</script>",
        "</title><script>{}</script>",
        "--><script>{}</script><!--",
        "]]><script>{}</script>",
        '"><script>{}</script>',
        "'><script>{}</script>",
        "</svg><script>{}</script>",
        "<svg><desc><script>{}</script>",
        "{{{{ {} }}}}",
        "{{% set x = {} %}}",
        '<a href="javascript:{}">x</a>',
        '<meta http-equiv="refresh" content="0;url=javascript:{}">',
        '<base href="http://example.invalid/"><img src="x" onerror="{}">',
        '<iframe srcdoc="<script>{}</script>"></iframe>',
        '<object data="javascript:{}"></object>',
        '<link rel="stylesheet" href="http://example.invalid/{}">',
        "\u2028<script>{}</script>",
        "&lt;script&gt;{}&lt;/script&gt;",
    ]
    events = (
        "onload",
        "onerror",
        "onfocus autofocus",
        "onmouseover",
        "onclick",
        "onbegin",
        "ontoggle",
        "onpageshow",
    )
    elements = ("img src=x", "svg", "body", "details open", "input", "video src=x", "audio src=x", "marquee")
    quotes = ('"', "'", "")
    built = [f"{q}><{e} {on}={q}{act}{q}>" for e in elements for on in events for q in quotes]
    return [*(s.format(act) for s in shapes), *built][:200]


def test_hostile_text_is_shown_and_does_nothing(browser: Browser, draw_up: Callable[..., SessionFolder]):
    texts = payloads()
    folder = draw_up(
        {
            "rain": {
                "void_reasons": tuple(texts),
                "conditions": {t: t for t in texts},
                "model": " ".join(texts),
                "rejected": tuple(t.replace("+", "") for t in texts),
            }
        },
        warnings=tuple(texts),
        plan={t: [t] for t in texts},
        profile={t: t for t in texts},
        versions={t: t for t in texts},
        rig=" ".join(texts),
        calibration=" ".join(texts),
    )
    target = folder.path / "report.html"
    write_report(folder, target)

    seen = opened(browser, target)
    for summary in seen.page.locator("details:not([open]) > summary").all()[:40]:
        if summary.is_visible():
            summary.click()

    assert len(texts) == 200
    assert seen.page.evaluate("window.hacked") is None
    assert seen.dialogs == []
    assert seen.said == []
    assert [url for url in seen.asked if not url.startswith("data:image/")] == [target.as_uri()]
    shown = re.sub(r"\s+", " ", str(seen.page.evaluate("document.querySelector('#takes').textContent")))
    missing = [t for t in texts if re.sub(r"\s+", " ", t.replace("\u2028", "")) not in shown]
    assert missing == []


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an audit whose classes, names and reasons are hostile; two pairs have pictures."""
    folder = tmp_path_factory.mktemp("audit")
    texts = payloads()[:40]
    for side, left in (("gt.png", 0), ("lq.png", 2)):
        Image.fromarray(data.coffee()[60:252, left : left + 320]).save(folder / side)
    found = audit_record(texts)
    return write_audit_page(found, folder, folder / "audit.json")


def audit_record(texts: list[str]) -> AuditRecord:
    measured = PairMeasurement(
        shift_px=(2.0, 0.0),
        epe_px=2.0,
        epe_p95_px=2.1,
        rotation_deg=(0.0, 0.0, 0.0),
        scale=1.0,
        homography=((1.0, 0.0, 2.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        predicted_error_px=0.02,
        local_p90_px=0.3,
        local_map=(LocalShift(x_px=160, y_px=96, dx_px=0.4, dy_px=-0.2),),
        masked_share=0.0,
        parallax="parallax",
        ecc_shift_px=None,
        blur=BlurRecord(kind="none", size_px=0.0),
        exposure_ratio=1.0,
        trustworthy=True,
        confidence=0.9,
    )
    pair = AuditPair(
        pair=texts[0],
        group=texts[1],
        gt="gt.png",
        lq="lq.png",
        sha256_gt="0",
        sha256_lq="0",
        width=320,
        height=192,
        verdict="misaligned",
        measured=measured,
    )
    odd = {"measured": None, "verdict": "not_measured", "problem": "unreadable"}
    failed = [pair.model_copy(update=odd | {"pair": t, "why": t}) for t in texts]
    group = GroupSummary(
        group=texts[1],
        pairs=2 + len(failed),
        measured=2,
        trusted=2,
        aligned=0,
        misaligned=2,
        parallax=2,
        epe_px_median=2.0,
        epe_px_p95=2.0,
        epe_px_max=2.0,
        local_p90_px_median=0.3,
    )
    return AuditRecord(
        folder=texts[2],
        layout=texts[3],
        versions={t: t for t in texts},
        aligned_px=0.5,
        offered=100,
        groups=(group,),
        pairs=(pair, pair.model_copy(update={"pair": texts[4]}), *failed),
    )


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_the_audits_page_is_silent_inert_and_fits(browser: Browser, audit: Path, width: int, scheme: str):
    seen = opened(browser, audit, width=width, scheme=scheme)

    for way in ("flicker", "checkerboard", "red and cyan", "difference", "detail, every pixel"):
        seen.page.get_by_label(way).check()
    seen.page.locator("#cut-1").focus()
    seen.page.keyboard.press("ArrowRight")

    assert seen.page.locator("#cut-1").input_value() == "51"
    assert seen.page.evaluate("window.hacked") is None
    assert (seen.said, seen.dialogs) == ([], [])
    assert [url for url in seen.asked if not url.startswith("data:image/")] == [audit.as_uri()]
    assert seen.page.evaluate("document.documentElement.scrollWidth") == width


def test_the_audits_arrows_can_be_hidden(browser: Browser, audit: Path):
    page = opened(browser, audit).page

    shown = style(page, ".overlay", "visibility")
    page.get_by_label("leftover shifts").uncheck()

    assert (shown, style(page, ".overlay", "visibility")) == ("visible", "hidden")
