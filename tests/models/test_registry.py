"""Families of other packages: registered in Python, or by an entry point that an installed package has."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from outside_flow import OutsideFamily

import bsa_lightning as bsa
from bsa_lightning.common.errors import UserError
from bsa_lightning.models import registry
from bsa_lightning.models.loading import load_parts
from bsa_lightning.models.registry import family_of, pipeline_name
from bsa_lightning.models.tango.family import TangoFamily


class Foreign(TangoFamily):
    """A family of another package, whose folders happen to look like Tango's."""

    num_steps = 16


@pytest.fixture
def folder(teacher_folder, tmp_path, monkeypatch):
    """A model folder of a pipeline class that nobody here knows."""
    monkeypatch.setattr(registry, "_families", dict(registry._families))
    monkeypatch.setenv("BSA_LIGHTNING_FAMILIES", "")
    folder = shutil.copytree(teacher_folder, tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "ForeignPipeline"}))
    provenance = json.loads((folder / "provenance.json").read_text())
    del provenance["num_steps"]
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


def test_a_folder_of_no_family_is_refused(folder):
    with pytest.raises(UserError, match=r'holds a "ForeignPipeline", but only TangoPipeline, .* can be read'):
        load_parts(folder)


def test_a_registered_family_reads_its_folders(folder):
    bsa.register_family("ForeignPipeline", Foreign)
    assert pipeline_name(folder) == "ForeignPipeline"
    assert isinstance(family_of(folder), Foreign)
    assert load_parts(folder).sampling.num_steps == 16


def test_a_registered_family_is_known_in_processes_of_other_devices(folder):
    """They start without what the program has registered."""
    bsa.register_family("ForeignPipeline", OutsideFamily)
    code = f"from bsa_lightning.models.registry import family_of; print(type(family_of({str(folder)!r})).__name__)"
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == "OutsideFamily", ended.stderr


def test_a_family_of_the_program_itself_is_known_there_alone(folder, monkeypatch):
    monkeypatch.setattr(Foreign, "__module__", "__main__")
    bsa.register_family("ForeignPipeline", Foreign)
    assert os.environ["BSA_LIGHTNING_FAMILIES"] == ""
    assert isinstance(family_of(folder), Foreign)


def test_an_installed_package_names_its_families(folder, tmp_path, monkeypatch):
    package = tmp_path / "site"
    (package / "foreign-1.0.dist-info").mkdir(parents=True)
    (package / "foreign-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    points = "[bsa_lightning.families]\nForeignPipeline = foreign_family:Family\nTangoPipeline = foreign_family:Other\n"
    points += "AbsentPipeline = no_such_module:Family\n"
    (package / "foreign-1.0.dist-info" / "entry_points.txt").write_text(points)
    (package / "foreign_family.py").write_text(
        "from bsa_lightning.models.tango.family import TangoFamily\nclass Family(TangoFamily):\n    num_steps = 32\n"
    )
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.delitem(sys.modules, "foreign_family", raising=False)
    assert load_parts(folder).sampling.num_steps == 32
    assert type(family_of("tiny")) is TangoFamily  # ours stay ours
    monkeypatch.setattr(registry, "pipeline_name", lambda _: "AbsentPipeline")
    with pytest.raises(UserError, match="no_such_module:Family, which reads the folders of AbsentPipeline, cannot"):
        family_of(folder)
