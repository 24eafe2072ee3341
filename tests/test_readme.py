"""The README is true: its commands can be read, its targets exist, its tree is the repository's."""

import re

import pytest
from command_lines import ROOT, read

PAGES = [ROOT / "README.md", *sorted((ROOT / "experiments").glob("*/README.md"))]
BLOCKS = [block for page in PAGES for block in re.findall(r"```(\w*)\n(.*?)```", page.read_text(), flags=re.DOTALL)]
SHELL = "\n".join(body for language, body in BLOCKS if language == "bash").replace("\\\n", " ")
LINES = [line.partition("  #")[0].strip() for line in SHELL.splitlines()]
COMMANDS = list(dict.fromkeys(line for line in LINES if line.startswith("lightning ")))
TARGETS = sorted(set(re.findall(r"^make (\w+)", SHELL, flags=re.MULTILINE)))
TREE = next(body for language, body in BLOCKS if language == "text" and body.startswith("bsa_lightning/"))


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_read(command, monkeypatch, tmp_path, capsys):
    code = read(command, monkeypatch=monkeypatch, run=tmp_path / "run", instantiate=False)
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize("target", TARGETS)
def test_target_exists(target):
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_tree_lists_every_module_once():
    folders, listed = [], []
    for line in TREE.splitlines():
        name, depth = line.split()[0], (len(line) - len(line.lstrip())) // 2
        del folders[depth:]
        if name.endswith("/"):
            folders.append(name)
        elif name.endswith(".py"):
            listed.append("".join([*folders, name]))
    modules = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "bsa_lightning").rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    ]
    assert sorted(listed) == sorted(modules)
