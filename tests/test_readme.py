"""What the README and the pages of docs/ show is run: commands, CI script, Python example, test command.

The demo is run as `--quick`, training for two steps; what needs downloaded weights must say so.
"""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from ovseg_cli.app import app
from ovseg_cli.commands import console
from tests.commands.processes import forking

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
WRITTEN = "\n".join([README, *(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))])

COMMANDS = list(get_command(app).commands)  # type: ignore[attr-defined]
CAMVID = "prepare camvid"
CI = README.split("## In CI")[1].split("```bash\n")[1].split("```")[0]
SHORT = {"iterations": 2, "batch_size": 4, "warmup": 1, "workers": 0, "figure_scenes": 2}
STEP = {"iterations": 1, "batch_size": 2, "workers": 0}
COARSE = {
    "merge": "false",
    "slic_segments": "[]",
    "scales": "[100]",
    "sigmas": "[0.8]",
    "min_sizes": "[20]",
    "max_masks": 4,
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", WRITTEN, flags=re.DOTALL)


def typed() -> list[str]:
    """Every `ovseg …` line of the shell blocks but the script for CI, in order; what a comment offers instead, too."""
    found: list[str] = []
    for line in (line for block in blocks("bash") if block != CI for line in block.splitlines()):
        command, _, comment = line.partition("#")
        found += [part.strip() for part in command.split("&&") if part.strip().startswith("ovseg ")]
        found += [part.strip() for part in re.findall(r"\bor: (ovseg .*)", comment)]
    return list(dict.fromkeys(found))


def quoted() -> list[str]:
    """Every `ovseg …` in the text and the tables that is not typed in a block; a bare command is only a name."""
    found = [cell for cell in re.findall(r"`(ovseg [^`]*)`", WRITTEN) if len(cell.split()) > 2 or "--" in cell]
    return [line for line in dict.fromkeys(found) if line not in typed()]


def needs_samples(lines: list[str]) -> list[str]:
    return [line for line in lines if CAMVID in line]


def others(lines: list[str]) -> list[str]:
    return [line for line in lines if CAMVID not in line]


def run(line: str, *more: str) -> Any:
    """Type a line: globs are expanded, and what training would take hours over is done in two steps."""
    console.debug = False
    line = line.replace("METHOD", "maskclip").replace("NAME", "toy").replace(" …", " runs/*-toy-novel-*")
    words: list[str] = []
    for word in shlex.split(line.replace("…", "*"))[1:]:
        words += sorted(str(p) for p in Path.cwd().glob(word)) or [word] if "*" in word else [word]
    return CliRunner().invoke(app, [*words, *shorter(words), *more], prog_name="ovseg")


def shorter(words: list[str]) -> list[str]:
    """Options that make hours or minutes of work seconds; every line still does all that it says."""
    settings: dict[str, Any] = {}
    superpixels = "superpixels" in words or words[:2] == ["eval", "ipclip"]
    if words[0] == "train" and words[1] == "toy-clip":
        settings = SHORT
    elif words[0] == "train":
        settings = dict(STEP)
        if "maft" in words and not superpixels:
            settings |= {f"host.{key}": value for key, value in STEP.items()} | {"proposals": "live"}
        elif "maft" in words or ("pixelclip" in words and "--proposals" not in words):  # whose recipe says superpixels
            settings |= {f"proposal_settings.{key}": value for key, value in COARSE.items()}
    limit = ["--limit", "4"] if superpixels and words[0] in ("propose", "eval") else []
    return [*limit, *(part for key, value in settings.items() for part in ("--set", f"{key}={value}"))]


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    """The demo as `--quick`, no hub, nothing of the user's."""
    from huggingface_hub import constants

    from ovseg_cli.core.demo import plan, training
    from ovseg_cli.core.demo import run as runs

    full = runs.run_demo
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "run_demo", lambda request, reporter: full(replace(request, quick=True), reporter))
        patch.setattr(plan, "QUICK_IMAGES", 6)
        patch.setattr(plan, "TRAINING", SHORT)
        patch.setattr(plan, "QUICK_MAFT", {"host": STEP, "proposals": "live", **STEP})
        patch.setattr(plan, "QUICK_ITERATIONS", STEP)
        patch.setattr(training, "subprocess", forking)
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        for variable in ("OVSEG_DATA", "OVSEG_RUNS"):
            patch.delenv(variable, raising=False)
        yield patch


@pytest.fixture(scope="module")
def answers(patched: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder in which the lines of the shell blocks were typed, one after the other, and what they answered."""
    from huggingface_hub import constants
    from PIL import Image

    from ovseg_cli.core.data.toy import ToyWorld

    place = tmp_path_factory.mktemp("readme")
    (place / "photos").mkdir()
    Image.fromarray(ToyWorld().scene("val", 0)[0]).save(place / "photos" / "scene.png")
    patched.setenv("OVSEG_CACHE", str(place / "cache"))
    patched.setattr(constants, "HF_HUB_CACHE", str(place / "hub"))
    patched.chdir(place)
    return place, {line: run(line) for line in others(typed())}


@pytest.fixture
def place(answers: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(answers[0])
    return answers[0]


@pytest.mark.parametrize("line", others(typed()))
def test_line_of_a_shell_block_runs_in_its_place(answers: tuple[Path, dict[str, Any]], line: str) -> None:
    answer = answers[1][line]
    if "--pretrained" in line:
        assert answer.exit_code == 4, "weights that must be downloaded, and there is no network"
        assert "open_clip_model.safetensors" in answer.stderr and "--pretrained FILE" in answer.stderr
    else:
        assert answer.exit_code == 0, answer.stderr


@pytest.mark.parametrize("line", others(quoted()))
def test_line_of_the_text_runs(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    from ovseg_cli.core.data.specs import load_spec

    if "COMMAND" in line:
        for command in COMMANDS:
            assert f"ovseg {command}" in run(line.replace("COMMAND", command)).stdout, "an example in every help"
        return
    if ".toml" in line:
        make_own_data(tmp_path)
        monkeypatch.chdir(tmp_path)
    if "convert FILE" in line:
        answer = run(line)
        assert answer.exit_code == 4 and "FILE" in answer.stderr, "a released checkpoint, which is not here"
        return
    if not line.endswith("DIR"):
        answer = run(line)
        assert answer.exit_code == 0, answer.stderr
        return
    (tmp_path / "empty").mkdir()
    answer = run(line.replace("DIR", str(tmp_path / "empty")))
    assert answer.exit_code == 3, answer.stderr
    layout = load_spec(line.split()[2]).layouts[0]
    subset = layout.subsets.get("val") or next(iter(layout.subsets.values()))
    wanted = subset.list or subset.archives or subset.images.partition("/{")[0].partition("/*")[0]
    assert f"looked for {wanted}" in answer.stderr or f", {wanted}" in answer.stderr


@pytest.mark.parametrize("line", needs_samples([*typed(), *quoted()]))
def test_line_with_camvid_prepares_the_samples(samples: Path, tmp_path: Path, place: Path, line: str) -> None:
    from ovseg_cli.core.data.specs import load_spec

    if not (samples / "camvid-mini").is_dir():
        pytest.skip(f"{samples / 'camvid-mini'} is absent")
    (tmp_path / "CamVid").symlink_to(samples / "camvid-mini")
    more = ["--data-root", str(tmp_path / "datasets"), "--workers", "1"]
    if "--allow-missing" in run("ovseg prepare --help").stdout and "--allow-missing" not in line:
        official = sum(subset.images or 0 for subset in load_spec("camvid").subsets.values())
        more += ["--allow-missing", str(official)]  # the samples are a part of the data set
    source = str(tmp_path / "CamVid")
    answer = run(re.sub(r"--source \S+", lambda _: f"--source {shlex.quote(source)}", line), *more)
    assert answer.exit_code == 0, answer.stderr
    assert (tmp_path / "datasets" / "camvid" / "manifest.json").is_file()


def make_own_data(folder: Path) -> None:
    """The README's own `mine.toml`, and in `photos/` one picture with its label for each of its patterns."""
    import tomllib

    import numpy as np
    from PIL import Image

    text = blocks("toml")[0]
    (folder / "mine.toml").write_text(text)
    for subset in tomllib.loads(text)["layouts"][0]["subsets"].values():
        for pattern, shape in ((subset["images"], (8, 9, 3)), (subset["labels"], (8, 9))):
            path = folder / "photos" / pattern.format(stem="a")
            path.parent.mkdir(parents=True)
            Image.fromarray(np.full(shape, 1, dtype=np.uint8)).save(path)


def test_every_command_is_in_the_readme() -> None:
    shown = {line.split()[1] for line in [*typed(), *quoted()]}
    assert set(COMMANDS) <= shown


def test_every_benchmark_of_the_readme_is_there() -> None:
    named = re.findall(r"python -m benchmarks\.(\w+)", WRITTEN)
    assert named and all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in named)


def test_every_page_and_picture_that_is_linked_is_there() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
        assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_ci_script_runs_as_it_stands(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(place / "datasets" / "toy", tmp_path / "datasets" / "toy")  # prepared once; checked again
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
        ["bash", "-c", CI], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    assert "MaskCLIP" in (tmp_path / "table.md").read_text()
    monkeypatch.chdir(tmp_path)
    (line,) = [line for line in CI.splitlines() if "hIoU=" in line]
    missed = run(re.sub(r"hIoU=\d+", "hIoU=99", line).partition(" > ")[0])
    assert missed.exit_code == 5, missed.stderr


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
