"""The walls of the project: which room may import which, how long a file may be, what a quick answer may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from bsa_lightning.cli.main import COMMANDS

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
    "cli/help_texts.py": "read before anything else is imported",
    "cli/dashboard.py": "a command has a file of its name",
    "cli/prepare.py": "a command has a file of its name",
    "cli/report.py": "a command has a file of its name",
    "common/errors.py": "imported by every room, so that it imports nothing",
    "common/permissions.py": "files.py is as long as a file may be",
    "data/resampling.py": "for recordings and for embeddings alike, without audio files",
    "diffusion/guidance.py": "one formula, looked for by its name",
    "evaluation/rivals.py": "one rule for scoring and reports, which do without torch",
    "models/tango/verified_pipeline.py": "beside the pipeline, which is a file in itself",
}
"""Files of the package that may be shorter, each with its reason."""

MAX_PARAMETERS = 8
MANY_PARAMETERS = {
    "pipeline.TangoPipeline": "diffusers builds a pipeline from its parts, each a parameter of its own",
    "tangoflux_pipeline.TangoFluxPipeline": "diffusers builds a pipeline from its parts, each a parameter of its own",
    "denoising.Denoising": "the parts of the loss and those of the optimizer are settings of their own",
    # An adapter is none of the options of both networks: it is what is trained, and changes what a round hands on.
    "module.ProgressiveDistillation": "the parts of the loss and those of the optimizer are settings of their own",
}
"""Classes whose constructors may take more, each with its reason; dataclasses are options or records themselves."""


RUN = "import sys; sys.argv = ['lightning', *{words!r}]; import bsa_lightning.cli.main as m; m.main()"
"""A statement that runs a command."""

UNUSED = {
    "peft",
    "torchvision",
    "scipy",
    "sympy",
    "torch._dynamo",
    "torch._inductor",
    "transformers",
    "diffusers",
    "librosa",
}
"""Packages that nothing needs before networks are made, though packages that are needed import them."""


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
            assert (num_parameters > MAX_PARAMETERS) == (f"{path.stem}.{node.name}" in MANY_PARAMETERS), node.name


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
        *[(RUN.format(words=[command, "--help"]), {"torch", "lightning", "scipy"}) for command in COMMANDS],
        (RUN.format(words=["report", "runs/nothing"]), {"torch", "lightning", "scipy"}),
    ],
    ids=["lightning --help", "report", *[f"lightning {command} --help" for command in COMMANDS], "a run that is not"],
)
def test_quick_answers_load_nothing_heavy(statement, heavy):
    assert loaded_by(statement, heavy) == set()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (
            ["fit", "--config", "demo", "--run", "runs/nothing", "--trainer.strategy", "nope"],
            "an invalid strategy name",
        ),
        pytest.param(["fit", "--config", "demo", "--print_config"], "ProgressiveDistillation", marks=pytest.mark.slow),
        pytest.param(
            ["test", "--config", "demo", "--run", "runs/nothing"], "no such folder exists", marks=pytest.mark.slow
        ),
        pytest.param(["score", "runs/nothing", "runs/nothing"], "does not exist", marks=pytest.mark.slow),
    ],
    ids=["a mistake of fit", "--print_config", "a mistake of test", "a mistake of score"],
)
def test_settings_are_read_without_packages_of_networks(words, answer):
    result = loading(RUN.format(words=words), UNUSED)
    assert answer in result.stdout + result.stderr
    assert result.stderr.splitlines()[-1].split() == []


@pytest.mark.slow
def test_lazy_torchmetrics_is_the_whole_package():
    """Each part is imported first of all in a process of its own, and has the names that it has in the whole."""
    code = """
import os, pkgutil, sys
from bsa_lightning.common.light_imports import light_imports
with light_imports():
    import lightning.pytorch
import torchmetrics
parts = [part.name for part in pkgutil.iter_modules(torchmetrics.__path__, "torchmetrics.")]
assert "torchmetrics.functional" not in sys.modules
for part in parts:
    if not (child := os.fork()):
        __import__(part)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, part
assert torchmetrics.Metric is torchmetrics.metric.Metric
lazy = torchmetrics.Metric
torchmetrics.Accuracy, torchmetrics.functional.accuracy
assert lazy is torchmetrics.Metric and type(torchmetrics) is type(sys)
compiled = __import__("torch").compile(__import__("torch").nn.Linear(1, 1))
from lightning.fabric import wrappers
assert isinstance(compiled, wrappers.OptimizedModule) and not isinstance(lazy, wrappers.OptimizedModule)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def loaded_by(statement: str, packages: set[str]) -> set[str]:
    """Those of ``packages`` that a statement imports in a process of its own."""
    return set(loading(statement, packages).stderr.splitlines()[-1].split())


def loading(statement: str, packages: set[str]) -> subprocess.CompletedProcess:
    code = f"""
import sys
try:
    exec({statement!r})
except SystemExit:
    pass
print(*sorted({packages!r} & set(sys.modules)), file=sys.stderr)
"""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
