"""The walls of the project: which room may import which, how long a file may be, what a quick answer may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "bsa_lightning"
MODULES = sorted(PACKAGE.rglob("*.py"))

ROOMS = ["errors", "ranges", "yaml_text", "lists", "files", "locks", "cache"]
ROOMS += ["diffusion", "teachers", "data", "distillation", "evaluation", "reporting", "commands"]
"""A room may import itself and the rooms to its left, but for the exceptions below."""

NARROWER = {
    "errors": set(),
    "ranges": {"errors"},
    "yaml_text": {"errors"},
    "lists": {"errors"},
    "files": {"errors"},
    "locks": {"errors", "files"},
    "cache": {"files"},
    "diffusion": {"errors", "ranges"},
    "reporting": {"errors", "ranges", "yaml_text", "lists", "files", "evaluation"},
}
"""Rooms that may import less than all that is to their left."""

ONLY_IN = {"jsonargparse": {"commands"}, "lightning.pytorch.cli": {"commands"}, "matplotlib": {"reporting"}}
"""Foreign packages that belong to one room."""

MAX_LINES = 300
LONGER: dict[str, str] = {}
"""Files that may be longer, each with its reason."""


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
    if relative(path) not in LONGER:
        assert len(path.read_text().splitlines()) <= MAX_LINES


def test_every_exception_is_needed():
    assert all(len((ROOT / name).read_text().splitlines()) > MAX_LINES for name in LONGER)


def test_tests_mirror_the_rooms():
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= {*ROOMS, "endurance"}  # which kills whole runs


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        (
            "import sys; sys.argv = ['lightning', '--help']; import bsa_lightning.commands.main as m; m.main()",
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
