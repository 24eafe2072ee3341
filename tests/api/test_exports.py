"""``import bsa_lightning`` exports all that a notebook needs, documented, and is quick."""

import importlib
import inspect
import subprocess
import sys

import pytest

import bsa_lightning as bsa
from bsa_lightning import _PLACES
from bsa_lightning.cli import classes

PARTS = {
    "Background", "Event", "GuidanceMode", "ListenerNetwork", "LogMelBands", "Predictors", "RowCache", "Soundscape",
    "YAMNetNetwork",
}  # fmt: skip
"""Public classes of the modules whose classes a configuration names, which no setting takes."""


@pytest.mark.parametrize("name", bsa.__all__)
def test_every_name_is_there_and_documented(name):
    value = getattr(bsa, name)
    assert value.__name__ == name
    assert inspect.getdoc(value)
    assert name in dir(bsa)


def test_the_list_of_names_is_that_of_their_places():
    assert sorted(bsa.__all__) == sorted(name for names in _PLACES.values() for name in names)


def test_what_yaml_names_python_exports_too():
    for name in set(classes.MODULES) - {"bsa_lightning.generation.predict"}:  # which is for the command line
        module = importlib.import_module(name)
        own = {key for key, value in vars(module).items() if inspect.isclass(value) and value.__module__ == name}
        assert {key for key in own if not key.startswith("_")} - PARTS <= set(bsa.__all__), name


def test_type_checkers_see_the_same_names():
    source = inspect.getsource(bsa)
    block = source[source.index("if TYPE_CHECKING:") : source.index("_PLACES")]
    imported = {
        word.strip(" ,()") for line in block.splitlines()[1:] for word in line.rpartition("import")[2].split(",")
    }
    assert imported - {""} == set(bsa.__all__)


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'distil'"):
        bsa.distil  # noqa: B018


def test_the_import_loads_nothing_heavy():
    code = "import sys, bsa_lightning; print(*{'torch', 'lightning', 'diffusers', 'numpy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
