"""Processes in which tests run on a mutant: forked from one that has imported everything but this repository's code."""

import contextlib
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import pickle
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

import pytest

from mutants.operators import Mutant
from mutants.targets import STARTS_PROCESSES

OURS = ("bsa_lightning", "tests", "experiments")
MADE_ONCE = ("teacher_folder", "latents_folder")
"""Fixtures of the session that take a second to make: made once, and copied for each process."""


FAULT = 70
"""The exit code of a process that has not come to its tests, whatever the mutant: none of pytest's."""


class Test(NamedTuple):
    """A test on the code as it is."""

    name: str
    seconds: float
    lines: set[int]
    """Of the file that is mutated: those that it executed."""


class MutatedImport(importlib.abc.MetaPathFinder):
    """Imports one file of the repository in the form that it was given."""

    def __init__(self, root: Path, file: str, code: CodeType) -> None:
        self._path, self._code = str(root / file), code
        self._module = file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> object:
        """The module, if it is the one."""
        if fullname != self._module:
            return None
        loader = importlib.machinery.SourceFileLoader(fullname, self._path)
        loader.get_code = lambda _name: self._code  # type: ignore[method-assign]
        return importlib.util.spec_from_file_location(fullname, self._path, loader=loader)


class Chosen:
    """Runs chosen tests in their order (all without), on copies of what is made once."""

    def __init__(self, folder: Path, made: Path, names: list[str] | None) -> None:
        self._folder, self._made, self._names = folder, made, names

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.name not in STARTS_PROCESSES]
        if self._names is not None:
            place = {name: i for i, name in enumerate(self._names)}
            items[:] = sorted((item for item in items if item.nodeid in place), key=lambda item: place[item.nodeid])

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest) -> Path | None:
        name = fixturedef.argname
        if name not in MADE_ONCE or not (self._made / name).exists():
            return None
        copied = shutil.copytree(self._made / name, self._folder / name)
        fixturedef.cached_result = (copied, fixturedef.cache_key(request), None)
        return copied


class Tracing:
    """Notes which lines of a file each test executes, and how long it takes."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._lines: set[int] = set()
        self._of_fixture: dict[str, set[int]] = {}
        self.found: list[Test] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef) -> Iterator[None]:
        before, self._lines = self._lines, set()
        try:
            return (yield)
        finally:
            self._of_fixture.setdefault(fixturedef.argname, set()).update(self._lines)
            self._lines = before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._lines, began = set(), time.monotonic()
        sys.settrace(self._trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            # A fixture of several tests is made in the first of them, but all see what it executes.
            lines = self._lines.union(*(self._of_fixture.get(name, set()) for name in item.fixturenames))
            self.found.append(Test(item.nodeid, time.monotonic() - began, lines))

    def _trace(self, frame: FrameType, event: str, argument: object) -> Callable | None:
        return self._trace_lines if frame.f_code.co_filename == self._path else None

    def _trace_lines(self, frame: FrameType, event: str, argument: object) -> Callable:
        self._lines.add(frame.f_lineno)
        return self._trace_lines


def run_tests(files: list[str], folder: Path, *plugins: object) -> int:
    """Pytest's exit code."""
    words = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "timeout=0"]
    words += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of plugins that the parent has imported
    return int(pytest.main([*files, *words, f"--basetemp={folder / 'tmp'}"], plugins=plugins))


class Running(NamedTuple):
    """A forked process."""

    pid: int
    folder: Path
    deadline: float


class Runner:
    """Forks processes that run tests.

    Args:
        root: of the repository.
        folder: for what they write; it is emptied.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._root, self._folder, self._number = root, folder, 0
        self._made = folder / "made"
        self._made.mkdir()

    def baseline(self, file: str, tests: list[str]) -> list[Test]:
        """Runs all tests of a file on the code as it is, and imports here what that imported from other packages.

        Raises:
            SystemExit: if one of them fails.
        """
        result = self._folder / "baseline.pickle"

        tests = [test for test in tests if (self._root / test).exists()]

        def body(folder: Path) -> int:
            tracing = Tracing(self._root / file)
            code = run_tests(tests, folder, Chosen(folder, self._made, None), tracing)
            for name in MADE_ONCE:
                self._keep(folder, name)
            result.write_bytes(pickle.dumps((tracing.found, _foreign(self._root))))
            return code

        running = self.start(body, seconds=1800)
        while (code := self.ended(running)) is None:
            time.sleep(0.05)
        text = (running.folder / "output").read_text() if running.folder.exists() else ""
        if code:
            raise SystemExit(f"the tests of {file} fail on the code as it is:\n{text[-3000:]}")
        shutil.rmtree(running.folder)
        found, modules = pickle.loads(result.read_bytes())
        import_everything(modules)
        return found

    def control(self, file: str, tests: list[Test]) -> None:
        """Runs some tests of a file as those of a mutant are run, but on the code as it is.

        Raises:
            SystemExit: if they fail, so that mutants would seem to be killed.
        """
        code = compile((self._root / file).read_text(), str(self._root / file), "exec")
        running = self.test(Mutant(file, "", "", "", 0, None, code), tests)
        while (ended := self.ended(running)) is None:
            time.sleep(0.02)
        if ended:
            raise SystemExit(f"{file} unchanged fails: {(running.folder / 'output').read_text()[-3000:]}")

    def test(self, mutant: Mutant, tests: list[Test]) -> Running:
        """Starts the tests of a mutant, quickest first."""
        files = list(dict.fromkeys(test.name.split("::")[0] for test in tests))

        def body(folder: Path) -> int:
            sys.meta_path.insert(0, MutatedImport(self._root, mutant.file, mutant.code))
            return run_tests(files, folder, Chosen(folder, self._made, [test.name for test in tests]))

        return self.start(body, seconds=30 + 5 * sum(test.seconds for test in tests))

    def start(self, body: Callable[[Path], int], *, seconds: float) -> Running:
        """A process that runs ``body`` in a folder of its own, and is killed after so long."""
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir()
        sys.stdout.flush()
        if pid := os.fork():
            return Running(pid, folder, time.monotonic() + seconds)
        code = FAULT
        try:
            os.setpgid(0, 0)
            file = os.open(folder / "output", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(file, 1)
            os.dup2(file, 2)
            code = body(folder)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def ended(self, running: Running) -> int | None:
        """The exit code of a process, a negative one if it was killed; ``None`` while it runs."""
        if time.monotonic() > running.deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(running.pid, 0)[1])
        pid, status = os.waitpid(running.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def _keep(self, folder: Path, name: str) -> None:
        """Keeps the first of what is made once."""
        target = self._made / name
        made = next((folder / "tmp").glob("model*" if name == "teacher_folder" else "latents*/store"), None)
        if made is not None and not target.exists():
            shutil.copytree(made, target)


def _foreign(root: Path) -> list[str]:
    """The names of the imported modules that are not of this repository."""
    ours = [str(root / name) for name in OURS]
    files = {name: str(getattr(module, "__file__", "") or "") for name, module in list(sys.modules.items())}
    return [name for name, file in files.items() if not file.startswith(tuple(ours)) and not name.startswith(OURS)]


def import_everything(names: list[str]) -> None:
    """Imports what a run has imported from other packages, so that later ones need not.

    Raises:
        RuntimeError: if that started a thread: forking would not be safe.
    """
    for name in names:
        if name not in sys.modules and not name.startswith(("__", "_pytest", "conftest")):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    if threading.active_count() > 1:
        raise RuntimeError("a thread runs already, so that forking is not safe")
    gc.collect()
    gc.freeze()
