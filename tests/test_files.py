"""Files are replaced at once, and what a kill leaves behind is told from what is somebody else's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from yoloprune.errors import UserError
from yoloprune.files import atomic, check_folder, clean_leftovers, workplace


@pytest.fixture
def dead() -> int:
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_only_leftovers_of_processes_that_are_gone_are_removed(tmp_path: Path, dead: int) -> None:
    parent = os.getppid()  # runs
    kept = [
        "pruned.pt",
        f"notes.{dead}.tmp.txt",  # not hidden
        f".notes.{dead}.tmp.txt.bak",
        ".thesis.tmp.doc",
        f".plan.{parent}.tmp.json",
        f".work-{parent}-01234567",
        f".work-{dead}",
        ".export-abcdefgh",
    ]
    for name in (*kept, f".plan.{dead}.tmp.json", f".args.{dead}.tmp", f".probe-{dead}-a1_b2c3d"):
        (tmp_path / name).touch()
    folder = tmp_path / f".work-{dead}-01234567"
    folder.mkdir()
    (folder / "model.onnx").touch()
    (tmp_path / f".work-{dead}-89abcdef").symlink_to(tmp_path / "pruned.pt")
    clean_leftovers(tmp_path)
    assert names(tmp_path) == sorted([*kept, f".work-{dead}-89abcdef"])
    clean_leftovers(tmp_path / "nowhere")


def test_what_this_process_is_using_stays_and_its_number_alone_protects_nothing(tmp_path: Path) -> None:
    (tmp_path / f".plan.{os.getpid()}.tmp.json").touch()  # of an earlier container, say
    with atomic(tmp_path / "args.yaml") as tmp, workplace(tmp_path) as place:
        tmp.touch()
        clean_leftovers(tmp_path)
        assert names(tmp_path) == sorted([tmp.name, place.name])
        check_folder(tmp_path)
    assert names(tmp_path) == ["args.yaml"]


def test_pipes_and_devices_are_not_replaced_and_links_are(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"pipe' is not a regular file and is not replaced"), atomic(tmp_path / "pipe"):
        pytest.fail("nothing is to be written")
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "thesis.txt").write_text("of somebody")
    (tmp_path / "link").symlink_to(tmp_path / "thesis.txt")
    with atomic(tmp_path / "link") as tmp:
        tmp.write_text("new")
    assert (tmp_path / "thesis.txt").read_text() == "of somebody"
    assert (tmp_path / "link").read_text() == "new"


def test_what_a_killed_process_was_writing_is_found(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from yoloprune.files import atomic, workplace\n"
        "with atomic(Path(sys.argv[1]) / 'plan.json') as tmp, workplace(Path(sys.argv[1])) as place:\n"
        "    tmp.touch(); (place / 'model.onnx').touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=root)
    assert len(names(tmp_path)) == 2
    with workplace(tmp_path) as place:
        assert names(tmp_path) == [place.name]
    assert not names(tmp_path)
