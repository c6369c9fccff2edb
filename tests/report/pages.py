"""A page of made-up figures that has every section, and its HTML as a list of elements."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np

from yoloprune.detectors.details import BINS, Details, History, Look
from yoloprune.report import Measure, Record, SmallerImage, StepRow, Verdict
from yoloprune.report.page import Course, Layer, Network, Page, Point, Stays, draw_page, write_page
from yoloprune.report.pictures import show
from yoloprune.report.verdict import run_words

LONG = "a-class-whose-name-is-very-much-longer-than-anybody-would-have-thought"


def details(shift: float) -> Details:
    """Curves of a detector, the worse the larger the shift."""
    confidence = np.linspace(0, 1, 101)
    recall = np.clip(0.8 - shift - 0.6 * confidence, 0, 1)
    precision = np.clip(0.3 + 0.7 * confidence, 0, 1)
    names = ["person", LONG, *(f"class {i}" for i in range(20))]
    return Details(
        confidence.tolist(),
        precision.tolist(),
        recall.tolist(),
        (2 * precision * recall / (precision + recall)).tolist(),
        {name: (0.7 - shift * (1 + i / 10), 10 + i) for i, name in enumerate(names)},
        {"small": (0.2 - shift, 30), "medium": (0.4 - shift, 50), "large": (0.6 - shift, 40)},
        [0.4] * BINS,
        [0.2 + shift] * BINS,
        {"map": [0.4 - shift, 0.41 - shift, 0.43 - shift], "f1": [0.5, 0.52, 0.51]},
    )


def looks(shift: int) -> list[Look]:
    """Eight images of 80 x 60 px; in the later ones a box has moved away."""
    found = []
    for i in range(8):
        boxes = np.array([[5.0, 5, 30, 40], [40.0 - shift * i, 10, 70 - shift * i, 50]])
        image = np.full((60, 80, 3), 20 * i, np.uint8)
        found.append(Look(Path(f"{i}.jpg"), image, boxes, np.array([0.9, 0.4]), np.array([0, 1])))
    return found


def whole_page() -> Page:
    """A page on a run with everything."""
    names = [f"model.{i}.{rest}" for i in range(12) for rest in ("cv1.conv", "cv2.conv")]
    parts = ["backbone"] * 12 + ["neck"] * 8 + ["head"] * 4
    layers = [Layer(name, part, 64, 0.3, 40_000, 0.8) for name, part in zip(names, parts, strict=True)]
    metrics = {
        "mAP50-95": 0.4,
        "mAP50": 0.6,
        "F1 (conf .25)": 0.5,
        "detections per image": 5.0,
        "calibration error (conf .25)": 0.05,
    }
    after = {name: 0.9 * value for name, value in metrics.items()}
    record = Record(
        "yolov8n.pt",
        "v8",
        "detect",
        640,
        Measure(8.7, 3_157_200, 6.5, 40.0, metrics),
        data="/data/" + 20 * "a-very-long-folder/" + "my.yaml",
        after=Measure(6.0, 2_100_000, 4.3, 31.0, after),
        steps=[StepRow(1, 6.0, 6.0, 2_100_000, 1e-6, 5, after, 20.0, 300.0, {"mAP50-95": 0.2})],
        smaller_images=[SmallerImage(512, 5.6, {**metrics, "mAP50-95": 0.35}, 27.0)],
        notes=["A note with <tags> & such."],
        seconds={"prune": 20.0, "total": 400.0},
        verdict=Verdict("pruned", "mAP50-95", 0.36, 0.352, 0.004, 512),
        command="yoloprune prune yolov8n.pt --target-ratio 0.7 --epochs 5",
        export={"file": "pruned.onnx", "difference": 1e-6},
    )
    networks = [
        Network("before", record.before, details(0.0), layers),
        Network(
            "after", record.after, details(0.04), [layer._replace(width=40, gflops=0.2, ms=0.7) for layer in layers]
        ),
    ]
    history = History(
        [1, 2, 3], {"box_loss": [1.2, 1.1, 1.0], "cls_loss": [0.9, 0.7, 0.6]}, [0.25, 0.15, 0.36], [0.01] * 3
    )
    noise = {"mAP50-95": 0.02, "F1 (conf .25)": 0.02}
    return Page(
        title="yolov8n.pt: 8.70 → 6.00 GFLOPs",
        subtitle="YOLOv8 detect, on " + record.data,
        words=run_words(record, networks, "/runs/prune/prune/pruned.pt", use),
        networks=networks,
        path=[
            Point("before", "before", 8.7, metrics, noise, 40.0),
            Point("recovered", "pruned", 6.0, {"mAP50-95": 0.2, "F1 (conf .25)": 0.3}, noise),
            Point("fine-tuned", "tuned", 6.0, after, noise, 31.0),
        ],
        line=[
            Point("512 px", "smaller", 5.6, {**metrics, "mAP50-95": 0.35}, noise, 27.0),
            Point("before", "before", 8.7, metrics, {}, 40.0),
        ],
        looks=show([looks(0), looks(4)], {0: "person", 1: LONG}),
        looked_at=8,
        courses=[Course("Fine-tuning", "mAP50-95", history, {"unpruned": 0.4, "right after pruning": 0.2}, [2])],
        stays=[Stays("the model puts them out", 144, ["model.22.cv3.0.2"] * 9)],
        record=record,
        command=record.command,
        options=[("target_ratio", "0.7", ""), ("data", record.data, "")],
        environment={"torch": "2.9", "machine": "Linux"},
        sparsity=cv2.imencode(".png", np.zeros((40, 100), np.uint8))[1].tobytes(),
        pictures=["steps/1/train/results.png"],
        files=[("pruned.pt", 4_300_000), ("results.json", 900)],
    )


def use(weights: str, imgsz: int, confidence: float | None) -> str:
    """How a checkpoint is used."""
    return f"use {weights} at {imgsz} px" + (f" from {confidence:.2f} on" if confidence else "")


def written(page: Page, folder: Path) -> str:
    """The HTML of a page that is written into a folder."""
    write_page(page, draw_page(page, folder / "report"), folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def bare_page() -> Page:
    """A page on a run that measured nothing but cost."""
    page = whole_page()
    networks = [Network(n.label, replace(n.measure, metrics={}, latency_ms=None)) for n in page.networks]
    record = replace(page.record, before=networks[0].measure, after=networks[1].measure, verdict=None, steps=[])
    words = run_words(record, networks, "pruned.pt", use)
    points = [Point("before", "before", 8.7, {}), Point("pruned", "pruned", 6.0, {})]
    return Page("bare", "nothing measured", words, networks, path=points, record=record)


class Elements(HTMLParser):
    """The elements of a page: tag and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of one kind."""
        return [attributes for name, attributes in self.found if name == tag]
