"""What is shown while a command works, on a terminal and in a pipe, and where the words of others go."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from yoloprune.cli import screen as module
from yoloprune.cli.elsewhere import Log
from yoloprune.cli.screen import Screen
from yoloprune.cli.start import _closing
from yoloprune.report import Measure, Record

SHOW, HIDE = "\x1b[?25h", "\x1b[?25l"  # the cursor


def _screen(*, terminal: bool, width: int = 100, quiet: bool = False) -> tuple[Screen, io.StringIO]:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=width, _environ={"TERM": "xterm"}, highlight=False)
    return Screen(console, io.StringIO(), Log(), quiet=quiet), shown


def test_elsewhere_than_on_a_terminal_only_whole_lines_are_written() -> None:
    screen, shown = _screen(terminal=False, width=40)
    with screen.waiting("Load"):
        pass
    with screen.phase("Prune"):
        for done in range(8):
            screen.part("layer", done, 8)
    screen.say("a line that is longer than the forty columns that a pipe is taken to have")
    with screen.phase("Fine-tune"):
        screen.passed("epoch 1 of 2", "mAP50-95 0.500")
        screen.passed("epoch 2 of 2")
    text = re.sub(r"\d\.\d s", "T", shown.getvalue())
    assert text.splitlines() == [
        "✓ Prune (T)",
        "  a line that is longer than the forty columns that a pipe is taken to have",
        "  epoch 1 of 2: mAP50-95 0.500",
        "  epoch 2 of 2",
        "✓ Fine-tune (T)",
    ]


def test_a_terminal_shows_what_is_under_way_and_how_long_it_takes(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    screen, shown = _screen(terminal=True)
    with screen.phase("Fine-tune"):
        screen.part("epoch", 0.0, 4, "batch 0 of 10")
        now[0] = 30.0
        screen.part("epoch", 0.5, 4, "batch 5 of 10")
        screen._bar.refresh()
        assert "epoch 1 of 4, batch 5 of 10, 3:30 left" in shown.getvalue()
        screen.passed("epoch 1 of 4", "mAP50-95 0.500")
        screen.part("epoch", 1.5, 4, "batch 5 of 10")
        screen._bar.refresh()
        assert "epoch 2 of 4, batch 5 of 10, 0:50 left, mAP50-95 0.500" in shown.getvalue()
        screen.part("validation image", 8, 16)  # other work: its speed is not known yet
        screen._bar.refresh()
        assert re.search(r"validation image 8 of 16, mAP50-95 0.500", shown.getvalue())
    assert "epoch 1 of 4:" not in shown.getvalue()  # a line of its own only where there is no bar


@pytest.mark.parametrize("width", [80, 100])
def test_the_bar_stays_on_one_line_and_leaves_room_for_what_ctrl_c_writes(width) -> None:
    screen, shown = _screen(terminal=True, width=width)
    with screen.phase("Fine-tune for 100 epochs (step 2 of 3)"):
        screen.part("epoch", 12.3, 100, "validation batch 1234 of 12345")
        screen.passed("", "mAP50-95 0.500")
        screen.part("epoch", 12.4, 100, "validation batch 2345 of 12345")
        screen._bar.refresh()
    drawn = [line for line in re.split(r"\r|\n", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.getvalue())) if line]
    assert max(map(len, drawn)) <= width - 3
    assert any("epoch 13 of 100" in line for line in drawn)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_the_bar_is_gone_and_the_cursor_back_however_a_phase_ends(error) -> None:
    screen, shown = _screen(terminal=True)
    try:
        with screen.phase("Prune"):
            screen.part("layer", 1, 2)
            if error:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    text = shown.getvalue()
    assert text.rindex(HIDE) < text.rindex(SHOW)
    assert ("✓" in text) == (error is None)
    assert not screen._bar.tasks


def test_quiet_shows_results_alone() -> None:
    screen, shown = _screen(terminal=True, quiet=True)
    with screen.phase("Prune"):
        screen.part("layer", 1, 2)
        screen.say("found")
    screen.line("Results in x")
    assert shown.getvalue() == ""
    screen.result("the table")
    assert "the table" in shown.getvalue()


def test_the_log_has_lines_as_a_terminal_shows_them_in_the_end(tmp_path) -> None:
    log, seen, echoed = Log(), [], []
    log.redrawn, log.echo = seen.append, echoed.append
    log.write("before there is a file\n")
    log.move(tmp_path / "log.txt")
    log.write("\x1b[34m\x1b[1mval: \x1b[0mScan")
    for done in range(1000):
        log.write(f"\r\x1b[K\x1b[1mval:\x1b[0m Scanning {done}/999 ")
    assert len(log._line) < 100  # not all that was drawn over
    log.write("\nthe last")
    os.write(log.fileno(), b"by descriptor\r\x1b[Kredrawn\n")
    log.finish()
    log.write("too late\n")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert lines == ["before there is a file", "val: Scanning 999/999 ", "redrawn", "the last"]
    assert seen[-1] == "val: Scanning 999/999 "
    assert echoed == ["before there is a file", "val: Scanning 999/999 ", "the last"]


SPEAKERS = """
import logging, os, subprocess, sys, warnings
logger = logging.getLogger("ultralytics")
logger.addHandler(logging.StreamHandler(sys.stdout))
from yoloprune.cli.screen import Screen
from pathlib import Path
with Screen.open(verbose={verbose}, as_json={as_json}) as screen:
    print("before the folder")
    screen.write_to(Path("."), Path("log.txt"))
    with screen.phase("Work"):
        logger.warning("a log record")
        print("\\x1b[1ma print\\x1b[0m")
        print("to stderr", file=sys.stderr)
        warnings.warn("a warning")
        sys.stdout.flush()
        os.write(1, b"C code\\n"); os.write(2, b"C errors\\n")
        subprocess.run([sys.executable, "-c", "print('a worker')"])
    screen.json({{"a": 1}})
print("afterwards")
logger.warning("a later record")
"""
OTHERS = (
    "before the folder", "a log record", "a print", "to stderr", "a warning", "C code", "C errors", "a worker"
)  # fmt: skip


def _speak(folder: Path, *, verbose: bool = False, as_json: bool = False) -> subprocess.CompletedProcess:
    code = SPEAKERS.format(verbose=verbose, as_json=as_json)
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": root}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, check=True)


@pytest.mark.parametrize("as_json", [False, True])
def test_what_others_print_goes_to_the_log(tmp_path, as_json) -> None:
    run = _speak(tmp_path, as_json=as_json)
    log = (tmp_path / "log.txt").read_text()
    for said in OTHERS:
        assert said in log
        assert said not in run.stdout + run.stderr
    assert "\x1b" not in log
    assert run.stdout.endswith("afterwards\na later record\n")  # all streams are as they were
    ours, other = (run.stderr, run.stdout) if as_json else (run.stdout, run.stderr)
    assert "✓ Work" in ours
    assert "✓ Work" not in other
    assert ('"a": 1' in run.stdout) and ('"a": 1' not in run.stderr)


def test_verbose_shows_it_too(tmp_path) -> None:
    run = _speak(tmp_path, verbose=True)
    for said in OTHERS:
        assert said in run.stdout + run.stderr
    assert "a print" in (tmp_path / "log.txt").read_text()


def test_ctrl_c_in_a_terminal_leaves_one_line(tmp_path) -> None:
    code = """
import fcntl, termios, time, typer
from yoloprune.cli.errors import Group, reported
from yoloprune.cli.screen import Screen
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that ^C reaches this process
app = typer.Typer(cls=Group)
@app.command()
def work():
    with reported(), Screen.open() as screen:
        screen.line("begun")
        with screen.phase("Work"):
            screen.part("layer", 1, 2)
            while True:
                time.sleep(0.05)
@app.command()
def other():
    pass
app(["work"])
"""
    pty = pytest.importorskip("pty", reason="needs a Unix terminal")
    master, slave = pty.openpty()
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": root, "TERM": "xterm", "COLUMNS": "80"}
    run = subprocess.Popen(
        [sys.executable, "-c", code], stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True
    )
    os.close(slave)
    timer = threading.Timer(30, run.kill)
    timer.start()
    text = b""
    pressed = False
    while True:
        try:
            text += (more := os.read(master, 4096))
        except OSError:  # the other side is closed
            break
        if not more:
            break
        if not pressed and b"layer 1 of 2" in text:
            os.write(master, b"\x03")
            pressed = True
    timer.cancel()
    assert run.wait() == 130
    end = text.decode().rpartition(SHOW)[2]
    assert re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", end) == "yoloprune: Interrupted; nothing was written.\n"


@pytest.mark.parametrize(("after", "hinted"), [(0.5, False), (0.4, True)])
def test_fine_tuning_is_proposed_where_accuracy_was_lost_and_not_for_fewer_detections(after, hinted) -> None:
    before = {"mAP50-95": 0.5, "detections per image": 9.0}
    record = Record(
        weights="a.pt", family="v8", task="detect", imgsz=64, before=Measure(8.0, 3_000_000, metrics=before),
        after=Measure(4.0, 1_000_000, metrics={"mAP50-95": after, "detections per image": 5.0}), notes=["a note [x]"],
    )  # fmt: skip
    screen, shown = _screen(terminal=False)
    folder = SimpleNamespace(path=Path("runs/a b"), weights=Path("runs/a b/pruned.pt"))
    detector = SimpleNamespace(usage=lambda weights: f"look at {weights}")
    _closing(screen, SimpleNamespace(record=record, folder=folder, detector=detector))
    text = shown.getvalue()
    assert ("run again with --epochs 30" in text) is hinted
    assert "a note [x]" in text
    assert "Try it with: look at runs/a b/pruned.pt" in text
