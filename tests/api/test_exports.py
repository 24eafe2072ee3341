"""``import bsa_lightning`` exports all that a notebook needs, documented, and is quick."""

import inspect
import subprocess
import sys

import pytest

import bsa_lightning as bsa
from bsa_lightning import _PLACES


@pytest.mark.parametrize("name", bsa.__all__)
def test_every_name_is_there_and_documented(name):
    value = getattr(bsa, name)
    assert value.__name__ == name
    assert inspect.getdoc(value)
    assert name in dir(bsa)


def test_the_list_of_names_is_that_of_their_places():
    assert sorted(bsa.__all__) == sorted(name for names in _PLACES.values() for name in names)


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
