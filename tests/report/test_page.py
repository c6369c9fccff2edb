"""The page of a run or a comparison: its parts, and how a browser shows them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.pages import Elements, bare_page, use, whole_page, written
from yoloprune.report.page import best_confidence
from yoloprune.report.verdict import run_words

_BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files",
    "--enable-logging=stderr", "--virtual-time-budget=5000", "--window-size=1500,1000", "--dump-dom",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole page."""
    path = tmp_path_factory.mktemp("page")
    written(whole_page(), path)
    return path


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_verdict_comes_first_and_ends_with_a_command(text: str) -> None:
    body = text[text.index("<body>") :]
    first = body.index("Worth it: better than a smaller image at the same cost")
    assert first < body.index("<svg") < body.index("What it sees") < body.index("Where the cost is")
    assert "69% of the GFLOPs keep 90% of the mAP50-95 (0.400 → 0.360) and take 78% of the time" in body
    assert "The unpruned network has mAP50-95 0.350 at 512 px (" in body, "what was measured, and where"
    assert "gaps below 0.004 are chance" in body
    assert "use /runs/prune/prune/pruned.pt at 640 px from 0." in body


def test_everything_has_a_text_for_those_who_do_not_see_it(text: str) -> None:
    elements = Elements(text)
    assert len(elements.of("svg")) > 10 and len(elements.of("img")) == 13
    assert all(image["alt"] for image in elements.of("img"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in elements.of("svg"))
    assert all(box["aria-label"] for box in elements.of("input"))


def test_nothing_is_fetched_and_nothing_runs(text: str) -> None:
    elements = Elements(text)
    assert not elements.of("script")
    sources = [a.get(name) or "" for _, a in elements.found for name in ("src", "href")]
    assert not [source for source in sources if re.match(r"(https?:)?//", source)]
    assert "url(http" not in text and "@import" not in text


def test_what_others_wrote_is_text(text: str) -> None:
    assert "A note with &lt;tags&gt; &amp; such." in text


def test_names_inside_svgs_are_unique(text: str) -> None:
    names = [attributes["id"] for _, attributes in Elements(text).found if attributes.get("id")]
    assert len(names) == len(set(names))


def test_every_picture_is_a_file_too(folder: Path, text: str) -> None:
    svgs = sorted(path.stem for path in (folder / "report").glob("*.svg"))
    assert svgs == sorted(path.stem for path in (folder / "report").glob("*.png"))
    assert {"quality-1", "quality-2", "quality-ms", "f1", "classes", "sizes", "blocks", "blocks-ms", "widths"} <= {
        *svgs
    }
    for path in (folder / "report").glob("*.svg"):
        assert ElementTree.parse(path).getroot().attrib["aria-label"]
    assert len(list((folder / "report").glob("*.jpg"))) == 12
    assert json.loads((folder / "report" / "layers.json").read_text())["after"][0]["width"] == 40


def test_colours_follow_the_page(text: str) -> None:
    svg = text[text.index("<svg") : text.rindex("</svg>")]
    assert set(re.findall(r"(?<!, )#[0-9a-f]{6}", svg)) <= {"#ffffff", "#000000"}
    assert "var(--n1, #2a6fb0)" in svg


def test_the_biggest_losers_come_first_and_the_best_confidence_is_told(text: str) -> None:
    page = whole_page()
    best, f1 = best_confidence(page.networks[1].details)
    assert f"Recommended confidence: {best:.2f} (F1 {f1:.3f}" in text
    assert "The biggest losses: class 19" in text
    table = text[text.index("All 22 classes") :]
    assert table.index("<td>class 19</td>") < table.index("<td>class 0</td>") < table.index("<td>person</td>")


def test_milliseconds_are_told_by_part_and_a_lower_calibration_error_is_better(folder: Path, text: str) -> None:
    parts = ElementTree.parse(folder / "report" / "parts-ms.svg").getroot().attrib["aria-label"]
    assert "before backbone 9.60, neck 6.40, head 3.20; after backbone 8.40" in parts
    tile = text[text.index('<div class="dim">calibration error') :][:250]
    assert '0.050 <span class="dim">→</span> <b>0.045</b> <span class="change good">-0.005</span>' in tile


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    text = written(bare_page(), tmp_path)
    assert "what is left of the accuracy was not measured" in text
    assert "yoloprune val pruned.pt --data" in text
    for heading in ("What it sees", "How sure it is", "Which objects", "Where the cost is", "Training</h2>"):
        assert heading not in text
    assert "<svg" not in text


def test_a_smaller_image_that_is_better_is_said(tmp_path: Path) -> None:
    page = whole_page()
    page.record.verdict = replace(page.record.verdict, better="smaller image", level=0.41)
    weights = tmp_path / "own.pt"
    weights.touch()
    page.record.weights = str(weights)
    words = run_words(page.record, page.networks, "pruned.pt", use)
    assert words.headline == "A smaller image is the better choice here" and words.mood == "bad"
    assert words.command == f"use {weights} at 512 px"


def test_a_run_without_fine_tuning_is_to_be_fine_tuned() -> None:
    page = whole_page()
    page.record.steps = []
    page.record.command = "yoloprune prune yolov8n.pt --target-ratio 0.7 --epochs 0 --data 'my data.yaml'"
    words = run_words(page.record, page.networks, "pruned.pt", use)
    assert words.command == "yoloprune prune yolov8n.pt --target-ratio 0.7 --data 'my data.yaml' --epochs 30"


@pytest.mark.skipif(_BROWSER is None, reason="there is no Chromium on this machine to show the page in")
@pytest.mark.parametrize("width", [1400, 420])
def test_a_browser_shows_it_without_overflow_or_complaint(folder: Path, tmp_path: Path, width: int) -> None:
    # a window cannot be as narrow as a phone, a frame can
    (tmp_path / "frame.html").write_text(
        f"<iframe style='width:{width}px;height:900px;border:0' src='{(folder / 'report.html').as_uri()}'></iframe>"
        """<script>onload = () => {
            const page = frames[0].document, wide = page.documentElement.clientWidth;
            for (const each of page.querySelectorAll("details")) each.open = true;
            const over = [...page.querySelectorAll("body *")].filter(e => !e.closest(".scroll, svg")
                && e.getBoundingClientRect().right > wide + 1).map(e => e.tagName + "." + e.className);
            const table = page.querySelector("#run .scroll"), cut = table.scrollWidth > table.clientWidth;
            const blank = [...page.images].filter(e => !e.naturalWidth).map(e => e.alt);
            const texts = [...page.querySelectorAll("svg text")];
            const small = texts.filter(e => e.getBoundingClientRect().height < 6).length;
            const answer = {wide, scroll: page.documentElement.scrollWidth, over, blank, small, cut};
            document.body.innerHTML = "<pre>" + JSON.stringify(answer) + "</pre>";
        }</script>"""
    )
    done = subprocess.run(
        [_BROWSER, *_QUIET, f"--user-data-dir={tmp_path / 'u'}", (tmp_path / "frame.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    answer = json.loads(re.search(r"<pre>(.*?)</pre>", done.stdout)[1])
    assert answer["wide"] in (width, width - 15)  # with a scroll bar
    assert answer["scroll"] <= answer["wide"]
    assert not answer["over"] and not answer["blank"] and not answer["small"] and not answer["cut"]
    assert "CONSOLE" not in done.stderr
