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
    lines: set[tuple[str, int]]
    """The lines that it executed, of the files that are mutated."""

    @property
    def file(self) -> str:
        """The file that it is in."""
        return self.name.split("::")[0]


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
    """Notes which lines of some files each test executes, and how long it takes.

    Args:
        files: by their whole paths.
    """

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files
        self._lines: set[tuple[str, int]] = set()
        self._of_fixture: dict[str, set[tuple[str, int]]] = {}
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
        return self._trace_lines if frame.f_code.co_filename in self._files else None

    def _trace_lines(self, frame: FrameType, event: str, argument: object) -> Callable:
        self._lines.add((self._files[frame.f_code.co_filename], frame.f_lineno))
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

    def baseline(self, files: list[str], tests: list[str], workers: int) -> list[Test]:
        """Runs all tests on the code as it is, and imports here what that imported from other packages.

        Args:
            files: whose lines are noted.
            tests: files of tests.
            workers: how many files of tests at a time; the first runs alone, so that the others need not import.

        Raises:
            SystemExit: if a test fails.
        """
        found: list[Test] = []
        waiting, running = [test for test in tests if (self._root / test).exists()][::-1], {}
        most = 1
        while waiting or running:
            while waiting and len(running) < most:
                test = waiting.pop()
                running[self.start(self._traced(files, test), seconds=1800)] = test
            for process in list(running):
                if (code := self.ended(process)) is not None:
                    if code:
                        text = (process.folder / "output").read_text()[-3000:]
                        raise SystemExit(f"{running[process]} fails on the code as it is:\n{text}")
                    tests_of_file, modules = pickle.loads((process.folder / "found").read_bytes())
                    found += tests_of_file
                    for name in MADE_ONCE:
                        self._keep(process.folder, name)
                    import_everything(modules)
                    shutil.rmtree(process.folder)
                    del running[process]
                    most = workers
            time.sleep(0.02)
        return found

    def _traced(self, files: list[str], test: str) -> Callable[[Path], int]:
        def body(folder: Path) -> int:
            tracing = Tracing({str(self._root / file): file for file in files})
            code = run_tests([test], folder, Chosen(folder, self._made, None), tracing)
            (folder / "found").write_bytes(pickle.dumps((tracing.found, _foreign(self._root))))
            return code

        return body

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
        shutil.rmtree(running.folder)

    def test(self, mutant: Mutant, tests: list[Test]) -> Running:
        """Starts the tests of a mutant, quickest first."""
        files = list(dict.fromkeys(test.file for test in tests))

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
