"""The report as a document: what it says, what it must not let through, and that it never changes by itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from alignment.cli import app
from alignment.gates import REASON_TEXTS
from alignment.report import write_report
from alignment.report_words import REASONS
from catalog.errors import DamagedDataError
from catalog.session_folder import PAIRS_FILE, ExposureSettings, SessionFolder

DrawUp = Callable[..., SessionFolder]
SCRIPT = "<script>alert(1)</script>"


def written(folder: SessionFolder) -> str:
    target = folder.path / "report.html"
    write_report(folder, target)
    return target.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(bench_session: SessionFolder) -> str:
    return written(bench_session)


class Tags(HTMLParser):
    """Every start tag with its attributes, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]


def text_of(page: str, section: str) -> str:
    """The words of a section, without markup."""
    start = page.index(f'<section id="{section}"')
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page[start : page.index("</section>", start)]))


def test_the_same_session_gives_the_same_bytes(bench_session: SessionFolder, page: str):
    again = bench_session.path / "again.html"

    write_report(bench_session, again)

    assert again.read_text(encoding="utf-8") == page


def test_another_content_gets_another_nonce(page: str, draw_up: DrawUp):
    other = written(draw_up(warnings=("one more thing",)))

    nonces = [re.findall(r'nonce="([0-9a-f]{32})"', text) for text in (page, other)]

    assert len(nonces[0]) == len(nonces[1]) == 2
    assert nonces[0][0] == nonces[0][1] != nonces[1][0]


def test_the_verdict_counts_rounds_pairs_and_errors(draw_up: DrawUp):
    """Seven pairs have k/4 of the round's residual, k = 1 to 7: of 0.04 px the median is 0.040.

    The 95th percentile lies at 5.7 of 6 steps: 0.06 + 0.7 * 0.01 = 0.067. Predicted errors are half as large again:
    0.060 and 0.1005, written 0.100 or 0.101.
    """
    alone = {"iso6400": {"pairs": 7, "residual_px": 0.04}, "defocus": {"pairs": 0}, "rain": {"pairs": 0}}

    words = text_of(written(draw_up(alone)), "verdict")

    assert "4 of 4 rounds recorded" in words
    assert "7 pairs accepted" in words
    assert "8 candidates rejected" in words
    assert "0.040 px residual, median" in words
    assert "0.067 px residual, p95" in words
    assert "0.060 px predicted error, median" in words


@pytest.mark.parametrize(
    ("changes", "options", "verdict", "finding"),
    [
        ({"rain": {"void_reasons": ()}}, {}, "● Complete", ""),
        ({"rain": {"void_reasons": ("superseded",)}}, {}, "● Complete", ""),
        ({}, {}, "▲ Complete with warnings", "Take 1 of round rain is void: the camera stopped after 3.2 s."),
        ({}, {"warnings": ("light drifted",)}, "▲ Complete with warnings", "light drifted"),
        (
            {"gt": {"dropped": 3}},
            {},
            "▲ Complete with warnings",
            "Round gt has 3 dropped and 0 repeated frames.",
        ),
        ({"rain": {"valid": False}}, {}, "✕ Incomplete", "rig record --session bookshelf-20260102"),
        ({"rain": {"pairs": 0}}, {}, "✕ Incomplete", "Round rain gave no pair: content does not match (1)."),
        ({}, {"aligned": False}, "✕ Incomplete", "alignment run bookshelf-20260102"),
    ],
)
def test_the_verdict_stands_in_words_with_what_to_do(
    draw_up: DrawUp, changes: dict[str, Any], options: dict[str, Any], verdict: str, finding: str
):
    words = text_of(written(draw_up(changes, **options)), "verdict")

    assert words.split(" > ", 1)[-1].strip().startswith(verdict)
    assert finding in words


def test_settings_that_differ_from_the_ground_truth_are_marked(page: str):
    marked = re.findall(r"<mark>(.*?)</mark>", page)

    assert marked == ["6400", "1/12821 s", "0.9 m", "rain: light"]


def test_a_setting_the_camera_did_not_take_is_noted(draw_up: DrawUp):
    read = ExposureSettings(iso=3200, f_number=8.0, exposure_s=0.000078, focus_m=2.0)

    words = text_of(written(draw_up({"iso6400": {"read": read}})), "settings")

    assert "6400 read back 3200" in words


@pytest.mark.parametrize(
    ("round_", "words"),
    [
        ({"shaken_sd_px": 0.24}, "0.240 px limit 0.300 px"),
        ({"shaken_sd_px": 0.24, "autocorrelation": 0.93}, "0.240 px limit 0.200 px at autocorrelation 0.93"),
        ({"shaken_sd_px": None}, "0.020 px trapezoid –"),
    ],
    ids=["even", "sticks-and-slips", "older-record"],
)
def test_a_rounds_shaking_stands_beside_the_limit_it_is_held_to(draw_up: DrawUp, round_, words: str):
    """Less of it is allowed where neighbouring frames go astray together: the carriage sticks and slips."""
    page = written(draw_up({"rain": round_}))

    rain = text_of(page, "motion").split("rain", 1)[1]
    assert words in rain


def test_a_setting_left_alone_is_shown_as_read(draw_up: DrawUp):
    """Focus is read to a tenth of a millimetre, but nobody asked for more than three digits."""
    read = ExposureSettings(iso=100, f_number=8.0, exposure_s=0.005, focus_m=2.0004, white_balance="daylight")

    words = text_of(written(draw_up({"rain": {"read": read}})), "settings")

    assert "2 m daylight rain: light" in words
    assert "read back" not in words.split("aperture", 1)[1]


def test_a_void_take_is_listed_with_its_reason(page: str):
    words = text_of(page, "takes")

    assert "rain 1 ■ void the camera stopped after 3.2 s" in words
    assert "rain 2 ● valid" in words


def test_rejected_candidates_stand_under_each_of_their_reasons(page: str):
    """Of iso6400's three candidates one has both reasons, so both groups count two."""
    words = text_of(page, "rejected")

    assert "Too far apart along the rail 2" in words
    assert "Not in uniform motion 2" in words
    assert "Something moved 3" in words


def test_rejected_candidates_with_pictures_are_shown_with_them(draw_up: DrawUp):
    folder = draw_up()
    for side in ("gt", "lq"):
        pictures = folder.path / "pairs" / side
        (pictures / "rain-0016.png").hardlink_to(pictures / "rain-0000.png")

    page = written(folder)

    start = page.index("Content does not match</b>")
    assert "Ground truth of rain-0016" in page[start : page.index("</article>", start)]


def test_every_reason_that_alignment_gives_is_explained():
    assert set(REASON_TEXTS) <= set(REASONS)


def test_checksums_can_be_checked_with_sha256sum(bench_session: SessionFolder, page: str):
    listed = re.findall(r"^(?:<pre[^>]*>)?([0-9a-f]{64})  (\S+?)(?:</pre>.*)?$", page, re.MULTILINE)

    names = {name for _, name in listed}
    assert {"session.json", "journal.jsonl", "pairs.jsonl", "alignment.json"} <= names
    assert "rounds/01-gt.take1/main-01.mov" in names
    assert all((bench_session.path / name).is_file() for name in names)


def test_links_lead_to_the_written_pairs_from_wherever_the_page_lies(
    bench_session: SessionFolder, tmp_path: Path
):
    target = tmp_path / "a folder" / "page.html"

    write_report(bench_session, target)

    page = target.read_text(encoding="utf-8")
    link = next(
        a["href"] for a in Tags(page).named("a") if a["href"] and a["href"].endswith("lq/rain-0003.png")
    )
    assert (target.parent / link).resolve() == bench_session.path / "pairs" / "lq" / "rain-0003.png"


def test_text_from_the_session_never_becomes_markup(page: str, draw_up: DrawUp):
    hostile = {
        "rain": {
            "void_reasons": (SCRIPT, '"><img src=x onerror=alert(1)>'),
            "conditions": {f"a{SCRIPT}": f"'{SCRIPT}"},
            "model": f"</script>{SCRIPT}",
            "rejected": (f"moved{SCRIPT}",),
        }
    }
    folder = draw_up(
        hostile,
        warnings=(SCRIPT,),
        plan={SCRIPT: [SCRIPT]},
        versions={SCRIPT: SCRIPT},
        rig=f"</title>{SCRIPT}",
    )

    tags, clean = Tags(written(folder)), Tags(page)

    assert len(tags.named("script")) == len(clean.named("script")) == 1
    assert not [a for _, attrs in tags.found for a in attrs if a.startswith("on") or a == "style"]
    assert {name for name, _ in tags.found} == {name for name, _ in clean.found}


def test_control_and_direction_characters_are_dropped(draw_up: DrawUp):
    page = written(draw_up({"rain": {"void_reasons": ("a\u202eb\x1b[2Jc\x00d",)}}))

    assert "ab[2Jcd" in text_of(page, "takes")
    assert not re.search("[\u202e\x1b\x00]", page)


def test_nothing_is_loaded_from_anywhere(page: str):
    tags = Tags(page)

    sources = [attrs["src"] for _, attrs in tags.found if "src" in attrs]
    policy = next(
        m["content"] for m in tags.named("meta") if m.get("http-equiv") == "Content-Security-Policy"
    )
    assert sources
    assert all(source and source.startswith("data:image/webp;base64,") for source in sources)
    assert [link["href"][:5] for link in tags.named("link") if link["href"]] == ["data:"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_every_slider_and_figure_has_a_name(page: str):
    tags = Tags(page)
    ids = {attrs["id"] for _, attrs in tags.found if "id" in attrs}

    sliders = [i["id"] for i in tags.named("input") if i.get("type") == "range"]
    labelled = {label.get("for") for label in tags.named("label")}
    figures = [str(f["aria-labelledby"]).split() for f in tags.named("svg") if f.get("role") == "img"]

    assert len(sliders) == 60
    assert set(sliders) <= labelled
    assert all(set(names) <= ids for names in figures)


def test_ids_are_unique(page: str):
    ids = [attrs["id"] for _, attrs in Tags(page).found if "id" in attrs]

    assert len(ids) == len(set(ids))


def test_a_session_without_alignment_still_gets_a_page(draw_up: DrawUp):
    page = written(draw_up(aligned=False))

    assert "Settings per round" in page
    assert '<section id="motion"' not in page
    assert "alignment run bookshelf-20260102" in text_of(page, "next")


def test_pairs_without_readable_pictures_are_listed_without_them(draw_up: DrawUp):
    """Of rain's sixteen pairs one is cut short, one is no PNG, one has sides of unequal size, one is missing."""
    folder = draw_up({"rain": {"pictures": 16}})
    pictures = folder.path / "pairs" / "lq"
    whole = (pictures / "rain-0000.png").read_bytes()
    (pictures / "rain-0000.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "rain-0001.png").write_bytes(b"GIF89a")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(pictures / "rain-0002.png")
    (pictures / "rain-0003.png").unlink()

    page = written(folder)

    shown = set(re.findall(r"Ground truth of (rain-\d+)", page))
    assert shown == {f"rain-{i:04d}" for i in range(4, 16)}
    assert "All 16 accepted pairs of rain" in page


def test_a_damaged_journal_is_refused(draw_up: DrawUp):
    folder = draw_up()
    journal = folder.path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b"GRBL", b"GRBX"))

    with pytest.raises(DamagedDataError, match="line is damaged"):
        write_report(folder, folder.path / "report.html")


def test_a_large_session_stays_below_eight_megabytes(draw_up: DrawUp):
    """3 600 pairs of noise, which compresses worst; the pictures are links to one pair of files."""
    many = {"pairs": 1200, "pictures": 0, "rejected": ("position_gap",) * 120}
    folder = draw_up(dict.fromkeys(("iso6400", "defocus", "rain"), many))
    noise = np.random.default_rng(1).integers(0, 256, (360, 640, 3)).astype(np.uint8)
    for side in ("gt", "lq"):
        Image.fromarray(noise).save(folder.path / f"{side}.png", compress_level=0)
    for pair in (p for p in folder.pairs() if p.verdict == "accepted"):
        for side in ("gt", "lq"):
            (folder.path / "pairs" / side / f"{pair.pair}.png").hardlink_to(folder.path / f"{side}.png")

    page = written(folder)

    assert len(page.encode()) < 8_000_000
    shown = [
        set(re.findall(rf"Ground truth of ({name}-\d+)", page)) for name in ("iso6400", "defocus", "rain")
    ]
    assert min(map(len, shown)) >= 10
    assert max(map(len, shown)) - min(map(len, shown)) <= 1


def test_the_command_writes_into_the_session_by_default(draw_up: DrawUp):
    folder = draw_up()

    result = CliRunner().invoke(app, ["report", str(folder.path)])

    assert result.exit_code == 0
    assert result.stdout.strip() == str(folder.path / "report.html")
    assert (folder.path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_broken_line_of_pairs_is_named(draw_up: DrawUp):
    folder = draw_up()
    pairs = folder.path / PAIRS_FILE
    pairs.write_text(pairs.read_text() + "{}\n")

    result = CliRunner().invoke(app, ["report", str(folder.path)])

    assert result.exit_code == 1
    assert "pairs.jsonl:69:1" in str(result.exception)
