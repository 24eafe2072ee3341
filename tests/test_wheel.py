"""The wheel, installed where nothing of this repository is: recipes by name, and the demo's debug form."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VERSIONS = ("3.11", "3.13")
"""The lowest and the highest Python that the package supports."""

PLACES = "import sysconfig, torch, diffusers, lightning; print(sysconfig.get_path('purelib'))"


def test_versions_are_those_that_the_package_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest, above = (limit.strip("<>=") for limit in project["requires-python"].split(","))
    highest = f"3.{int(above.split('.')[1]) - 1}"
    assert (lowest, highest) == VERSIONS


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(params=VERSIONS)
def lightning(request, wheel, tmp_path_factory):
    """The command in an environment with the wheel, and with the packages that the wheel needs but this one."""
    ours = f"{sys.version_info.major}.{sys.version_info.minor}" == request.param
    python = sys.executable if ours else shutil.which(f"python{request.param}")
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    found = python and subprocess.run(
        [python, "-c", PLACES], capture_output=True, text=True, env=clean, cwd="/", check=False
    )
    if not found or found.returncode:
        pytest.skip(f"there is no Python {request.param} here with torch, diffusers and lightning")
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([python, "-m", "venv", str(folder)], check=True, env=clean)
    python = str(folder / "bin" / "python")
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([python, "-c", purelib], capture_output=True, text=True, check=True).stdout.strip())
    # A folder that a .pth file names is searched, but the .pth files in it are not read: not an editable install's.
    (packages / "others.pth").write_text(found.stdout)
    install = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--force-reinstall", str(wheel)]
    subprocess.run(install, check=True, env=clean)
    empty = tmp_path_factory.mktemp("empty")

    def run(*words):
        command = [str(folder / "bin" / "lightning"), *words]
        return subprocess.run(command, capture_output=True, text=True, env=clean, cwd=empty, check=False)

    where = subprocess.run(
        [python, "-c", "import bsa_lightning; print(bsa_lightning.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        env=clean,
        cwd=empty,
    )
    assert Path(where.stdout.strip()).is_relative_to(folder)
    run.folder = empty
    return run


@pytest.mark.slow
@pytest.mark.timeout(580)
def test_wheel_has_all_that_the_demo_needs(lightning):
    listed = lightning("recipes")
    assert listed.returncode == 0, listed.stderr
    names = {
        path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in (ROOT / "configs").rglob("*.yaml")
    }
    assert names <= set(listed.stdout.splitlines())
    assert lightning("recipes", "trainer/debug").stdout == (ROOT / "configs" / "trainer" / "debug.yaml").read_text()
    assert lightning("fit", "--help").stdout.startswith("usage: lightning fit")
    small = ["--scoring.num_captions", "20", "--data.num_val_clips", "16", "--wandb", "disabled"]
    ran = lightning("fit", "--config", "demo", "--config", "trainer/debug", *small, "--run", "runs/debug")
    assert ran.returncode == 0, ran.stderr
    assert sorted(path.name for path in (lightning.folder / "runs" / "debug" / "rounds").iterdir()) == [
        "1-4steps",
        "2-2steps",
    ]
    assert sorted(path.name for path in lightning.folder.iterdir()) == ["data", "runs"]
    told = lightning("generate", "A tone", "--model", "runs/debug/rounds/2-2steps", "--out", "sounds")
    assert told.returncode == 0, told.stderr
