"""The short form of ``make mutants``: it changes what it says, sees what a test sees, and its list is true."""

import os
import subprocess
import sys
import textwrap

import pytest
from command_lines import ROOT
from mutants.equivalents import read_equivalents
from mutants.operators import mutants_of
from mutants.targets import TESTS


def changes(tmp_path, source):
    (tmp_path / "code.py").write_text(textwrap.dedent(source))
    return [(mutant.function, mutant.before, mutant.after) for mutant in mutants_of(tmp_path, "code.py")]


@pytest.mark.parametrize(
    ("before", "afters"),
    [
        ("return a + b", ["return a - b"]),
        ("return a < 1", ["return a <= 1", "return a >= 1", "return a < 2", "return a < 0"]),
        ("return -a", ["return a"]),
        ("return f(a, x=b, y=a)", ["return a", "return f(a, x=a, y=b)"]),
        ("return a.mean()", ["return a"]),
        ("return a if b else 2.5", ["return a if not b else 2.5", "return a if b else 5.0"]),
        ("a.f(b)", ["pass"]),
        ("a += b", ["a -= b"]),
        ("return a and (not b)", ["return a or not b", "return a and b"]),
        ("raise ValueError(f'{a + 1}')", []),
        ("_log.warning('%s', a + 1)", ["pass"]),
    ],
)
def test_each_operator(tmp_path, before, afters):
    found = changes(tmp_path, f"def f(a, b):\n    {before}\n")
    assert found == [("f", before, after) for after in afters]


def test_what_is_around_statements_is_changed_and_what_is_for_people_is_not(tmp_path):
    source = '''
        """A text about 1 + 1."""
        __all__ = ["f"]
        class A:
            @torch.no_grad()
            def f(self, a: Literal[1] = True) -> Literal[1]:
                """Of 1."""
                if a:
                    with torch.no_grad():
                        pass
    '''
    head = "@torch.no_grad() def f(self, a=True):"
    assert changes(tmp_path, source) == [
        ("A.f", head, "def f(self, a=True):"),
        ("A.f", head, "@torch.no_grad() def f(self, a=False):"),
        ("A.f", "if a:", "if not a:"),
        ("A.f", "with torch.no_grad():", "with __import__('contextlib').nullcontext():"),
    ]


def test_a_mutant_runs_as_it_reads(tmp_path):
    (tmp_path / "code.py").write_text("def f(a, b):\n    return a * b\n")
    (mutant,) = mutants_of(tmp_path, "code.py")
    namespace = {}
    exec(mutant.code, namespace)
    assert namespace["f"](6, 3) == 2


def test_entries_of_the_list_are_mutants_of_the_code_and_are_there_once():
    entries = read_equivalents()
    keys = {mutant.key for file in TESTS for mutant in mutants_of(ROOT, file)}
    assert not [entry for entry in entries if entry.key not in keys]
    assert len({entry.key for entry in entries}) == len(entries)


def test_the_runner_tells_what_tests_see_from_what_they_do_not(tmp_path):
    """On a repository of one module, whose test executes one function of two and sees one change of that one."""
    folders = [tmp_path / name for name in ("bsa_lightning", "tests")]
    for folder in folders:
        folder.mkdir()
    (folders[0] / "__init__.py").write_text("")
    (folders[0] / "code.py").write_text("def f(a, b):\n    return a + b\n\n\ndef g(a):\n    return abs(a)\n")
    (folders[1] / "test_code.py").write_text(
        "from bsa_lightning.code import f, g\n\n\ndef test_f():\n    assert f(2, 2) == 4\n\n\n"
        "def test_g():\n    assert g(3) == 3\n"
    )
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = ["--import-mode=importlib"]\n')
    code = (
        "import sys; from pathlib import Path; import mutants.__main__ as m, mutants.targets as t;"
        f"m.ROOT = Path({str(tmp_path)!r}); t.TESTS.clear();"
        "t.TESTS['bsa_lightning/code.py'] = ['tests/test_code.py'];"
        "m.read_equivalents = list; sys.argv = ['mutants']; sys.exit(m.main())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "tests")])}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    told = ended.stdout + ended.stderr
    assert "2 mutants: 1 killed (0 of them hung), 1 survived, 1 of them not in equivalent.txt" in told, told
    assert "bsa_lightning/code.py:6 g\n- return abs(a)\n+ return a\n# no test fails" in told
    assert ended.returncode == 1
