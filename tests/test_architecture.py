"""The walls of the project: which room may import which, how long a file may be, what a quick answer may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "bsa_lightning"
MODULES = sorted(PACKAGE.rglob("*.py"))

ROOMS = ["common", "diffusion", "models", "data", "generation", "training", "distillation", "evaluation", "reporting"]
ROOMS += ["cli", "api"]
"""A room may import itself and the rooms to its left, but for the exceptions below."""

NARROWER = {"reporting": {"common", "training", "evaluation"}}
"""Rooms that may import less than all that is to their left."""

ONLY_IN = {"jsonargparse": {"cli"}, "lightning.pytorch.cli": {"cli"}, "matplotlib": {"reporting"}}
"""Foreign packages that belong to one room."""

MIN_LINES, MAX_LINES = 40, 300
SHORT = {
    "cli/classes.py": "a list that new classes join",
    "cli/convert.py": "a command has a file of its name",
    "cli/dashboard.py": "a command has a file of its name",
    "cli/prepare.py": "a command has a file of its name",
    "cli/report.py": "a command has a file of its name",
    "common/errors.py": "imported by every room, so that it imports nothing",
    "data/resampling.py": "for recordings and for embeddings alike, without audio files",
    "diffusion/guidance.py": "one formula, looked for by its name",
    "evaluation/rivals.py": "one rule for scoring and reports, which do without torch",
    "training/run_files.py": "names that reports read without Lightning",
}
"""Files of the package that may be shorter, each with its reason."""

MAX_PARAMETERS = 8
MANY_PARAMETERS = {"TangoPipeline": "diffusers builds a pipeline from its parts, each a parameter of its own"}
"""Classes whose constructors may take more, each with its reason; dataclasses are options or records themselves."""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def members(module: str, names: set[str]) -> set[str]:
    """The names that are imported from a module itself, not from a package below it."""
    return {name for name in names if name.rpartition(".")[0] == module}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_go_one_way(path):
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    allowed = {room} | NARROWER.get(room, set(ROOMS[: ROOMS.index(room)]))
    ours = {name.split(".")[1] for name in imports_of(path) if name.startswith("bsa_lightning.")}
    assert ours <= allowed


def test_no_module_imports_itself_through_others():
    graph = {}
    for path in MODULES:
        names = imports_of(path)
        graph[module_of(path)] = {other for other in map(module_of, MODULES) if names & {other, *members(other, names)}}
    while leaves := [name for name, needed in graph.items() if not needed & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_foreign_packages_stay_in_their_room(path):
    names = imports_of(path)
    for package, rooms in ONLY_IN.items():
        if room_of(path) not in rooms:
            assert not [name for name in names if f"{name}.".startswith(f"{package}.")]
    assert not [name for name in names if name.split(".")[0] in ("experiments", "tests")]


@pytest.mark.parametrize("path", sorted((PACKAGE / "diffusion").glob("*.py")), ids=relative)
def test_the_mathematics_needs_torch_alone(path):
    foreign = {name.split(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names)
    assert foreign <= {"torch", "bsa_lightning"}


@pytest.mark.parametrize("path", [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))], ids=relative)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", [path for path in MODULES if not path.name.startswith("__")], ids=relative)
def test_short_files_have_a_reason(path):
    is_short = len(path.read_text().splitlines()) < MIN_LINES
    assert is_short == (str(path.relative_to(PACKAGE)) in SHORT)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_constructors_take_few_parameters(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            made = [f.args for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"]
            num_parameters = max((len([*a.posonlyargs, *a.args, *a.kwonlyargs]) - 1 for a in made), default=0)
            assert (num_parameters > MAX_PARAMETERS) == (node.name in MANY_PARAMETERS), node.name


def test_tests_mirror_the_rooms():
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= {*ROOMS, "endurance", "gpu", "mutants"}  # which kill whole runs, need a card, change the code


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        (
            "import sys; sys.argv = ['lightning', '--help']; import bsa_lightning.cli.main as m; m.main()",
            {"torch", "lightning", "jsonargparse", "numpy", "yaml"},
        ),
        ("import bsa_lightning.reporting.report", {"torch", "lightning", "diffusers", "transformers"}),
    ],
    ids=["lightning --help", "report"],
)
def test_quick_answers_load_nothing_heavy(statement, heavy):
    code = f"{statement}\nimport sys; print(*sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stderr.split() == []
