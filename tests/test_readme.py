"""What the README shows is run: its script for CI, its commands' options, its Python example, its test command."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ovseg_cli.app import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    """Every `ovseg …` line of the shell blocks and every one in the tables' cells, comments cut off."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    lines += re.findall(r"`(ovseg [^`]*)`", README)
    found = [re.sub(r"\s+#.*| > \S+$|.*&& ", "", line).strip() for line in lines]
    return sorted(
        {line for line in found if line.startswith("ovseg ") and "COMMAND" not in line and "NAME" not in line}
    )


@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_readme_exists_with_its_options(line: str) -> None:
    import shlex

    answer = CliRunner().invoke(app, [*shlex.split(line)[1:], "--help"], prog_name="ovseg")
    assert answer.exit_code == 0, answer.stderr


def test_every_command_is_in_the_readme() -> None:
    shown = {line.split()[1] for line in commands()}
    assert {"demo", "prepare", "train", "eval", "predict", "report", "list", "show", "doctor"} <= shown


def test_ci_script_runs_as_it_stands(tmp_path: Path) -> None:
    script = README.split("## In CI")[1].split("```bash\n")[1].split("```")[0]
    shim = tmp_path / "bin" / "ovseg"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ovseg_cli.app "$@"\n')
    shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
    environment = {
        **os.environ,
        "PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OVSEG_CACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    assert "MaskCLIP" in (tmp_path / "table.md").read_text()
    too_much = re.sub(r"hIoU=\d+", "hIoU=99", script)
    missed = subprocess.run(["bash", "-c", too_much], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert missed.returncode == 5, missed.stderr


def test_python_example_runs_as_it_stands(tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "picture.png").write_bytes(picture.read_bytes())
    exec(compile(blocks("python")[0], "README.md", "exec"), {})
    assert (tmp_path / "overlay.png").exists()


def test_ci_runs_the_readme_s_own_test_command() -> None:
    between = README.split("<!-- test command -->")[1].split("<!-- end -->")[0]
    assert "pip install" in between and "pytest" in between
    assert "test command -->" in (ROOT / ".ci" / "run").read_text()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    from PIL import Image

    from ovseg_cli.core.data.toy import ToyWorld

    image, _, _ = ToyWorld().scene("val", 0)
    Image.fromarray(image).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


@pytest.mark.slow
def test_table_of_the_readme_is_what_the_demo_prints(tmp_path: Path) -> None:
    """Within 0.3 points: processors differ in the last bits of a float."""
    from ovseg_cli.core import demo
    from ovseg_cli.core.report.formats import to_markdown
    from ovseg_cli.core.reporter import Silent

    outcome = demo.run_demo(demo.DemoRequest(tmp_path, words="snow, lava", gpus=0), Silent())
    printed = [line for line in to_markdown(outcome.tables[0]).splitlines() if line.startswith("| ")]
    shown = [line for line in README.split("## What it does")[0].splitlines() if line.startswith("| ")]
    number = re.compile(r"\d+\.\d+")
    assert len(printed) == len(shown)
    for mine, theirs in zip(printed, shown, strict=True):
        assert mine.split("|")[1] == theirs.split("|")[1]
        ours, stated = ([float(x) for x in number.findall(line)] for line in (mine, theirs))
        assert ours == pytest.approx(stated, abs=0.3)
