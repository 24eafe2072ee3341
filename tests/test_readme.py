"""README and documentation are true: commands can be read, targets and links exist, the tree is the repository's."""

import ast
import inspect
import re

import pytest
import yaml
from command_lines import ROOT, read
from pages import DOCS, PAGES, anchors, blocks, links

import bsa_lightning

SHELL = "\n".join(body for page in PAGES for body in blocks(page, "bash")).replace("\\\n", " ")
LINES = [line.partition("  #")[0].strip() for line in SHELL.splitlines()]
COMMANDS = list(dict.fromkeys(line for line in LINES if line.startswith("lightning ")))
PROSE = "\n".join(page.read_text() for page in DOCS)
TARGETS = sorted({*re.findall(r"^make (\w+)", SHELL, flags=re.MULTILINE), *re.findall(r"`make (\w+)", PROSE)})
TREE = next(body for body in blocks(ROOT / "docs" / "repository.md", "text") if body.startswith("bsa_lightning/\n"))
PYTHON = [(page, body) for page in DOCS for body in blocks(page, "python")]
YAML = [body for page in DOCS for body in blocks(page, "yaml") if "my_package" not in body]

STAND_INS = {"my_package.data.Tones": "Soundscapes", "my_package.weightings.log_snr": "bsa_lightning.api.sample"}
"""What the package of the reader's own is read as."""


def relative(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_read(command, monkeypatch, tmp_path, capsys):
    for own, other in STAND_INS.items():
        command = command.replace(own, other)
    code = read(command, monkeypatch=monkeypatch, run=tmp_path / "run", instantiate=False)
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize("body", YAML)
def test_piece_of_yaml_is_read(body, monkeypatch, tmp_path, capsys):
    path = tmp_path / "piece.yaml"
    path.write_text(body)
    settings = yaml.safe_load(body)
    if "clips" in settings:
        command, told = f"lightning prepare --config {path} --out store", settings["clips"]["class_path"]
    else:
        command = f"lightning fit --config configs/demo.yaml --config {path}"
        told = settings["data"]["init_args"]["train"]["folder"]
    code = read(f"{command} --print_config", monkeypatch=monkeypatch, run=tmp_path / "run", instantiate=False)
    assert code == 0
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("target", TARGETS)
def test_target_exists(target):
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


@pytest.mark.parametrize(
    ("number", "source"),
    [(r"\d\.\d+ ± \d\.\d+", "docs/getting-started.md"), (r"\d\.\d{2,}(?! ±)", "experiments/weightings/README.md")],
    ids=["demo", "study"],
)
def test_numbers_are_those_of_the_pages_that_explain_them(number, source):
    demo, study = "## First steps", "## What the comparison of weightings found"
    sections = re.split(r"^(?=## )", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    (section,) = [text for text in sections if text.startswith(demo if "started" in source else study)]
    found = re.findall(number, section)
    assert len(found) >= 10
    page = (ROOT / source).read_text()
    assert [value for value in found if value not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page):
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} leads to no file"
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        if anchor:
            assert anchor in anchors(target), f"{link} leads to no heading"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_headings_have_anchors_of_their_own(page):
    assert len(set(anchors(page))) == len(anchors(page))


@pytest.mark.parametrize(("page", "body"), PYTHON, ids=lambda value: relative(value) if value in DOCS else "")
def test_python_names_what_is_exported(page, body):
    """Every attribute of this package in an example exists, and every call fits its signature."""
    tree = ast.parse(body)
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "bsa_lightning":
            module = __import__(node.module, fromlist=["*"])
            used |= {getattr(module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "bsa":
            assert node.attr in bsa_lightning.__all__
            used.add(getattr(bsa_lightning, node.attr))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("bsa."):
            function = getattr(bsa_lightning, node.func.attr)
            inspect.signature(function).bind(*node.args, **{word.arg: word.value for word in node.keywords})
    assert used or "from diffusers import" in body  # which opens a student without this package


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
