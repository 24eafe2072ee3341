"""What a folder's provenance knows: digests that are checked, and a teacher that is the student's own."""

import json
import shutil

import pytest
from audioldm_models import edit, write_audioldm
from tiny_model import write_model

from bsa_lightning import TangoPipeline
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import sha256_of_file
from bsa_lightning.models import provenance
from bsa_lightning.models.loading import folder_sha256, load_denoiser, load_parts
from bsa_lightning.models.registry import resolve_folder


@pytest.fixture
def written(teacher_folder, tmp_path):
    folder = shutil.copytree(teacher_folder, tmp_path / "model")
    provenance.write(folder, provenance.read(folder))
    return folder


@pytest.fixture
def student(teacher_folder, tmp_path):
    """As a ladder leaves it."""
    folder = tmp_path / "student"
    load_denoiser(teacher_folder).save(folder)
    known = {
        "pipeline": "TangoPipeline",
        "teacher": str(teacher_folder),
        "teacher_sha256": folder_sha256(teacher_folder),
        "num_steps": 4,
        "sha256": folder_sha256(folder),
    }
    (folder / "provenance.json").write_text(json.dumps(known))
    return folder


def test_digests_are_of_each_file_and_of_network_and_schedule(written):
    known = json.loads((written / "provenance.json").read_text())
    files = sorted(str(path.relative_to(written)) for path in written.glob("*/*"))
    assert known["files"] == {name: sha256_of_file(written / name) for name in files}
    assert known["sha256"] == folder_sha256(written)
    assert known["guidance_scale"] == 2.0


def test_the_built_in_teacher_knows_its_files(tmp_path):
    known = provenance.read(resolve_folder("tiny"))
    shutil.copytree(resolve_folder("tiny"), tmp_path / "copy")
    provenance.write(tmp_path / "copy", known)
    assert provenance.read(tmp_path / "copy") == known
    assert len(known["files"]) == 11


@pytest.mark.parametrize("part", ["unet", "scheduler", "vae", "text_encoder", "tokenizer"])
def test_a_changed_configuration_is_named(written, part):
    path = next(iter(sorted((written / part).glob("*.json"))))
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UserError, match=rf"{part}/{path.name} is damaged or was changed since it was written; copy"):
        load_parts(written)
    with pytest.raises(UserError, match=rf"{part}/{path.name} is damaged or was changed"):
        TangoPipeline.from_pretrained(written, low_cpu_mem_usage=False)


def test_a_change_that_is_meant_is_taken_when_the_digests_go(written):
    edit(written / "unet" / "config.json", sample_size=[4, 16])
    edit(written / "provenance.json", files=None, sha256=None)
    assert load_parts(written).codec.latent_shape == (4, 4, 16)


def test_a_student_reads_its_teachers_parts(student):
    assert load_parts(student).sampling.num_steps == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": "nowhere"}, r"names the teacher nowhere, but no complete model folder is there; restore it"),
        ({"teacher": 5}, r"teacher is 5 in .*provenance\.json, but must be a text"),
        ({"teacher": "ITSELF"}, r"but no complete model folder is there"),
        ({"teacher": None}, r"is not a complete model folder: it has no vae/"),
        ({"teacher": "OTHER"}, r"but another model is there now; restore the student's own teacher"),
        ({"teacher": "AUDIOLDM"}, r"but a AudioLDMPipeline is there, not a TangoPipeline"),
        ({"sha256": "0" * 64}, "is damaged or was changed, since its files do not have the digests in provenance.json"),
        ({"pipeline": None}, "is not a model folder"),
        ({"pipeline": ["TangoPipeline"]}, "pipeline is .* but must be a text"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_student_with_a_wrong_provenance_is_refused(student, tmp_path, change, message):
    if change.get("teacher") == "ITSELF":
        change = {"teacher": str(student)}
    if change.get("teacher") == "OTHER":
        change = {"teacher": str(write_model(tmp_path / "other", seed=1))}
    if change.get("teacher") == "AUDIOLDM":
        change = {"teacher": str(write_audioldm(tmp_path / "other"))}
    edit(student / "provenance.json", **change)
    with pytest.raises(UserError, match=message):
        load_parts(student)


def test_a_damaged_student_is_refused(student):
    path = student / "unet" / "config.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(UserError, match="is damaged or was changed"):
        load_denoiser(student)
    path.write_text(path.read_text()[:-1])
    (student / "unet" / ".DS_Store").write_text("what a file manager leaves")
    assert load_denoiser(student).schedule.num_timesteps == 64


@pytest.mark.parametrize(
    ("part", "source"),
    [("text_encoder", "text states"), ("vae", "latents of 4 channels, but the codec makes 16")],
)
def test_parts_of_another_model_are_refused(written, tmp_path, part, source):
    """The built-in teacher's, which are whole: only together with this network are they wrong."""
    edit(written / "provenance.json", files=None, sha256=None)
    names = ("text_encoder", "tokenizer") if part == "text_encoder" else (part,)
    for name in names:
        shutil.rmtree(written / name)
        shutil.copytree(resolve_folder("tiny") / name, written / name)
    with pytest.raises(UserError, match=rf"is for .*{source}"):
        load_parts(written)


def test_a_student_names_no_folder_of_this_machine(teacher_folder, tmp_path):
    load_denoiser(teacher_folder).save(tmp_path)
    assert not any(str(teacher_folder) in path.read_text() for path in tmp_path.rglob("*.json"))
