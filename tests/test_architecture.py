"""The picture of the layout, held by the imports themselves: they point one way, and the prompt stays quick."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "ovseg_cli"

# A module may import from its own row and from the rows above it.
ROWS = [
    ["core.errors", "core.registry", "core.runtime", "core.files", "core.reporter", "core.types", "core.runs"],
    ["core.data", "core.clip"],
    ["core.nn"],
    ["core.proposals", "core.methods"],
    ["core.training", "core.evaluation"],
    ["core.report"],
    ["core.conversion"],
    [
        "core.prediction",
        "core.catalogue",
        "core.settings_tables",
        "core.overhead",
        "core.explanation",
        "core.diagnosis",
        "core.page",
        "core.vocabulary",
    ],
    ["core.demo"],
    ["commands"],
    ["app"],
]


def _row(module: str) -> int:
    for number, names in enumerate(ROWS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return number
    raise AssertionError(f"ovseg_cli.{module} has no row in this picture: give it one")


def _modules() -> list[tuple[str, Path]]:
    files = [f for f in PACKAGE.rglob("*.py") if f.name != "__init__.py"]
    return [(".".join(f.relative_to(PACKAGE).with_suffix("").parts), f) for f in sorted(files)]


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ovseg_cli."):
            base = node.module.removeprefix("ovseg_cli.")
            found |= {f"{base}.{a.name}" if base in ("core", "commands") else base for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "ovseg_cli":
            found |= {a.name for a in node.names if a.name in ("app",)}
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("ovseg_cli.") for a in node.names if a.name.startswith("ovseg_cli.")}
    return {name for name in found if (PACKAGE / (name.replace(".", "/") + ".py")).exists() or name.count(".") > 1}


@pytest.mark.parametrize(("module", "path"), _modules(), ids=lambda value: str(value).rsplit("/", 1)[-1])
def test_imports_point_downward(module: str, path: Path) -> None:
    for imported in _imports(path):
        assert _row(imported) <= _row(module), f"{module} imports {imported}, which stands higher"


def test_no_method_imports_another() -> None:
    shared = {
        "base",
        "build",
        "dense",
        "last_block",
        "masked",
        "masked_clip",
        "maskformer_host",
        "one_stage",
        "sources",
        "trained",
        "training_config",
        "tuned_tower",
        "windows",
    }
    for path in (PACKAGE / "core" / "methods").glob("*.py"):
        names = {i.removeprefix("core.methods.") for i in _imports(path) if i.startswith("core.methods.")}
        assert names <= shared | {path.stem}, f"{path.name} imports {names - shared}"


def test_init_files_stay_empty() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent != PACKAGE:
            body = ast.parse(path.read_text(encoding="utf-8")).body
            assert len(body) == 1 and isinstance(body[0], ast.Expr), f"{path} holds more than a docstring"


QUICK = {
    "top-level help": ["--help"],
    "version": ["--version"],
    "help of a command": ["eval", "--help"],
    "unknown command": ["evla"],
    "unknown option": ["eval", "--nope"],
    "wrong choice": ["eval", "--split", "both"],
    "unknown data set": ["eval", "maskclip", "--data", "toi"],
    "unknown method": ["eval", "maskclop", "--data", "toy"],
    "unknown trainer": ["train", "maskclip"],
    "unknown metric": ["eval", "clip", "--fail-under", "mIuO=3"],
}


@pytest.mark.parametrize("arguments", QUICK.values(), ids=QUICK)
def test_quick_answers_import_no_torch(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom ovseg_cli.app import app\n"
        f"sys.argv = ['ovseg', *{arguments!r}]\n"
        "try:\n    app(prog_name='ovseg')\nfinally:\n"
        "    heavy = {'torch', 'open_clip', 'timm', 'transformers'} & set(sys.modules)\n"
        "    print('HEAVY', sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert "HEAVY []" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_completion_imports_no_torch(tmp_path: Path) -> None:
    import os

    environment = {
        **os.environ,
        "_OVSEG_COMPLETE": "complete_bash",
        "COMP_WORDS": "ovseg prepare co",
        "COMP_CWORD": "2",
    }
    code = (
        "import sys\nfrom ovseg_cli.app import app\n"
        "try:\n    app(prog_name='ovseg')\nfinally:\n    print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120
    )
    assert "coco-stuff" in done.stdout and done.stdout.strip().endswith("False"), done.stdout + done.stderr
