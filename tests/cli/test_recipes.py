import re
import shlex
import shutil

import pytest
from command_lines import ROOT

from bsa_lightning.cli import recipe_files
from bsa_lightning.cli.main import main
from bsa_lightning.cli.recipe_files import recipes, with_recipe_files
from bsa_lightning.common.errors import UserError

DEMO = str(ROOT / "configs" / "demo.yaml")
GPUS = str(ROOT / "configs" / "trainer" / "gpus.yaml")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lightning(monkeypatch, capsys):
    """Runs a command line; gives exit code, stdout and stderr."""

    def run(line):
        monkeypatch.setattr("sys.argv", ["lightning", *shlex.split(line)])
        code = main()
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("fit --config demo --config trainer/gpus", f"fit --config {DEMO} --config {GPUS}"),
        ("fit --config=demo -c trainer/gpus", f"fit --config={DEMO} -c {GPUS}"),
        ("fit --config demo --run demo", f"fit --config {DEMO} --run demo"),
        ("generate -- --config demo", "generate -- --config demo"),
        ("fit --config mine.yaml --config=", "fit --config mine.yaml --config="),
        ("fit --config /dev/null --config ./demo", "fit --config /dev/null --config ./demo"),
    ],
)
def test_names_of_recipes_become_their_files(line, meant):
    assert with_recipe_files(line.split()) == meant.split()


def test_a_file_is_what_it_says(elsewhere):
    (elsewhere / "demo").write_text("seed_everything: 1\n")
    (elsewhere / "trainer" / "gpus").mkdir(parents=True)
    assert with_recipe_files(["fit", "--config", "demo"]) == ["fit", "--config", "demo"]
    assert with_recipe_files(["fit", "--config", "trainer/gpus"]) == ["fit", "--config", GPUS]  # a folder is no file


def test_a_name_that_may_be_two_things_is_refused(elsewhere):
    (elsewhere / "demo.yaml").write_text("seed_everything: 1\n")
    with pytest.raises(
        UserError, match=rf"may be demo.yaml or the recipe.*--config demo.yaml for.*--config {DEMO} for"
    ):
        with_recipe_files(["fit", "--config", "demo"])
    assert with_recipe_files(["fit", "--config", "demo.yaml", "--config", DEMO])[2::2] == ["demo.yaml", DEMO]
    (elsewhere / "demo.yaml").unlink()
    (elsewhere / "demo.yaml").symlink_to(DEMO)
    assert with_recipe_files(["fit", "--config", "demo"])[-1] == DEMO


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("fit --config dmo", "lightning fit: config is 'dmo', but there is no such file or recipe, did you mean demo?"),
        ("score a b --config xyzzy", "there is no such file or recipe; `lightning recipes` lists the recipes"),
        ("fit --config configs/demo.yaml", "there is no such file; the recipe of this name is --config demo"),
        ("fit --config gone.yaml", "config is 'gone.yaml', but there is no such file; name a YAML file"),
        ("recipes dmo", "lightning recipes: name is 'dmo', but there is no such file or recipe, did you mean demo?"),
    ],
)
def test_an_unknown_recipe_is_one_sentence(lightning, line, text):
    code, out, err = lightning(line)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert text in err


def test_list_has_every_recipe_with_its_comment(lightning):
    code, out, err = lightning("recipes")
    assert (code, err) == (0, "")
    names = [line for line in out.splitlines()[:-1] if not line.startswith(" ")]
    assert names == list(recipes())
    assert set(names) == {str(p.relative_to(ROOT / "configs"))[:-5] for p in (ROOT / "configs").rglob("*.yaml")}
    assert names[:2] == ["demo", "fine-tune"]
    assert "\ntrainer/debug\n    lightning fit --config demo --config trainer/debug\n    Seconds:" in out


def test_recipes_say_their_own_names():
    for name, path in recipes().items():
        used = re.findall(r"--config (\S+)", path.read_text().splitlines()[0])
        assert name in used
        assert set(used) <= set(recipes())


def test_a_recipe_is_printed_and_copied(lightning, elsewhere):
    text = (ROOT / "configs" / "demo.yaml").read_text()
    assert lightning("recipes demo") == (0, text, "")
    code, out, _ = lightning("recipes demo --out new/my.yaml")
    assert (code, out) == (0, "new/my.yaml: a copy of demo; use it with --config new/my.yaml\n")
    assert (elsewhere / "new" / "my.yaml").read_text() == text
    code, _, err = lightning("recipes trainer/gpus --out new/my.yaml")
    assert (code, err) == (2, "lightning recipes: out is new/my.yaml, which is there already; name another file\n")
    assert (elsewhere / "new" / "my.yaml").read_text() == text


def test_an_installed_package_has_its_own(elsewhere, monkeypatch):
    shutil.copytree(ROOT / "configs" / "trainer", elsewhere / "bsa_lightning" / "configs" / "trainer")
    monkeypatch.setattr(recipe_files, "_PACKAGE", elsewhere / "bsa_lightning")
    assert list(recipes()) == sorted(f"trainer/{path.stem}" for path in (ROOT / "configs" / "trainer").iterdir())
