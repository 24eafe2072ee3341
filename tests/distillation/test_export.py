"""A student's whole folder: opened by its pipeline class, whatever its guidance, and true to our own sampler."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from audioldm_models import edit
from ladder import data_of, module_of, trainer_of
from safetensors.torch import load_file, save_file
from tiny_model import CAPTIONS, LATENT_SHAPE
from tolerances import SAMPLES

from bsa_lightning import TangoPipeline
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import sha256_of_file
from bsa_lightning.distillation.denoising import Denoising
from bsa_lightning.distillation.export import export_student
from bsa_lightning.distillation.guidance_modes import Baked, Embedded, Outside
from bsa_lightning.generation.from_noise import generate_latents
from bsa_lightning.models import provenance
from bsa_lightning.models.loading import folder_sha256, load_parts

REFUSAL = """
import sys, torch
class Refusal:
    def find_spec(self, name, path=None, target=None):
        assert not name.startswith(("bsa_lightning", "lightning")), f"{name} is imported"
sys.meta_path.insert(0, Refusal())
"""
"""The beginning of a program that must do without this package."""
NOISE = torch.randn(3, *LATENT_SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=[Outside(2.0), Baked(2.0), Embedded(2.0, 1.0, 5.0)], ids=lambda mode: mode.name)
def exported(request, teacher_folder, latents_folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    trainer_of(run).fit(module_of(teacher_folder, guidance=request.param), data_of(latents_folder))
    export_student(run / "rounds" / "2-2steps", run / "exported", scores=["| a table |"])
    return request.param, run / "rounds" / "2-2steps", run / "exported"


@torch.no_grad()
@pytest.mark.parametrize("asked", [None, 4.0])
def test_the_pipeline_samples_it_as_we_do(exported, asked):
    guidance, student_folder, folder = exported
    pipeline = TangoPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    if guidance.name == "baked" and asked is not None:
        with pytest.raises(ValueError, match="baked in"):
            pipeline(CAPTIONS, guidance_scale=asked)
        return
    student = load_parts(student_folder)
    expected = generate_latents(
        denoiser=student.denoiser,
        conditioning=student.conditioner(CAPTIONS),
        null=student.conditioner.null(),
        guidance_scale=student.sampling.scale(asked),
        num_steps=2,
        noise=NOISE,
    )
    evaluated = []
    pipeline.unet.register_forward_hook(lambda _m, args, _o: evaluated.append(len(args[0])))
    latents = pipeline(CAPTIONS, latents=NOISE, guidance_scale=asked, output_type="latent").audios
    torch.testing.assert_close(latents, expected, **SAMPLES)
    assert evaluated == ([6, 6] if guidance.name == "outside" else [3, 3])


def test_our_own_commands_open_it_without_its_teacher(exported):
    _, student_folder, folder = exported
    alone, borrowing = load_parts(folder), load_parts(student_folder)
    assert alone.sampling == borrowing.sampling
    assert alone.codec.fingerprint == borrowing.codec.fingerprint


def test_its_card_says_where_it_comes_from(exported, teacher_folder):
    guidance, _, folder = exported
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    for words in ("2-step student (bsa)", f"{guidance.name}, 2.0", "gamma = 5.0", "| a table |", "inherited"):
        assert words in card
    assert str(teacher_folder) not in card + (folder / "provenance.json").read_text()
    assert json.loads((folder / "provenance.json").read_text())["round"] == 2
    assert json.loads((folder / "provenance.json").read_text())["method"] == "progressive"
    assert "made by progressive distillation with" in card
    assert "\n| method | progressive |\n" in card


def test_files_may_be_read_by_whom_the_umask_says(exported):
    _, student, folder = exported
    umask = os.umask(0o077)
    os.umask(umask)
    for part in (student, folder, *student.rglob("*"), *folder.rglob("*")):
        assert part.stat().st_mode & 0o777 == (0o777 if part.is_dir() else 0o666) & ~umask, part


@pytest.mark.slow
def test_diffusers_alone_samples_it_as_we_do(exported, tmp_path):
    """In a process that refuses this package, as the card says, to latents and to sound."""
    _, student_folder, folder = exported
    (usage,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    imports, opening, sampling = (line for line in usage.splitlines() if line)
    assert sampling == 'audio = pipeline("A dog barks", num_inference_steps=2).audios[0]'
    torch.save(NOISE, tmp_path / "noise.pt")
    opening = opening.replace("path/to/this/folder", str(folder))
    program = [REFUSAL, imports, opening, "noise = torch.load('noise.pt')", f"captions = {CAPTIONS}"]
    program += [sampling, "assert audio.shape == (5120,)"]
    for kind in ("latent", "pt"):
        program += [f"torch.save(pipeline(captions, latents=noise, output_type='{kind}').audios, '{kind}')"]
    env = {**os.environ, "HF_HOME": str(tmp_path / "hub")}
    subprocess.run([sys.executable, "-c", "\n".join(program)], check=True, cwd=tmp_path, env=env)
    student = load_parts(student_folder)
    expected = generate_latents(
        denoiser=student.denoiser,
        conditioning=student.conditioner(CAPTIONS),
        null=student.conditioner.null(),
        guidance_scale=student.sampling.scale(),
        num_steps=2,
        noise=NOISE,
    )
    latents = torch.load(tmp_path / "latent")
    torch.testing.assert_close(latents, expected, **SAMPLES)
    assert torch.equal(torch.load(tmp_path / "pt"), student.codec.decode(latents))


def test_an_existing_folder_is_refused(exported):
    with pytest.raises(UserError, match="exists already"):
        export_student(exported[1], exported[2])


def test_it_knows_its_files(exported):
    known = provenance.read(exported[2])
    assert {name.split("/")[0] for name in known["files"]} == {"unet", "scheduler", "vae", "text_encoder", "tokenizer"}
    assert known["files"]["vae/config.json"] == sha256_of_file(exported[2] / "vae" / "config.json")
    assert known["sha256"] == provenance.read(exported[1])["sha256"] == folder_sha256(exported[2])


def test_a_student_of_a_round_says_how_it_is_opened(exported):
    note = (exported[1] / "README.md").read_text()
    assert "lightning export . path/to/a/new/folder --student 2-2steps" in note


@pytest.fixture
def pair(exported, teacher_folder, tmp_path):
    """Copies of a student and of the teacher that it names."""
    student = shutil.copytree(exported[1], tmp_path / "student")
    teacher = shutil.copytree(teacher_folder, tmp_path / "teacher")
    edit(student / "provenance.json", teacher=str(teacher))
    return student, teacher


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda student, _: edit(student / "unet" / "config.json", dropout=0.5), "is damaged or was changed"),
        (lambda student, _: edit(student / "provenance.json", weighting=None), r"does not say weighting; name a stud"),
        (lambda student, _: edit(student / "provenance.json", teacher=None), r"does not say teacher; name a student"),
        (
            lambda _, teacher: shutil.rmtree(teacher),
            "names the teacher .* no complete model folder is there; restore it",
        ),
        (lambda _, teacher: edit(teacher / "unet" / "config.json", dropout=0.5), "but another model is there now"),
        (lambda _, teacher: spoil(teacher / "vae" / WEIGHTS), r"vae/diff.* with values that are not finite"),
        (lambda _, teacher: (teacher / "text_encoder" / "model.safetensors").unlink(), "text_encoder has no weights"),
    ],
)
def test_nothing_damaged_is_passed_on(pair, tmp_path, damage, message):
    damage(*pair)
    with pytest.raises(UserError, match=message):
        export_student(pair[0], tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize("where", ["student/exported", "teacher/vae/exported"])
def test_it_is_not_written_into_what_it_is_made_of(pair, tmp_path, where):
    with pytest.raises(UserError, match=r"dst is .*/exported, which lies in .*; name a folder outside"):
        export_student(pair[0], tmp_path / where)


def test_a_student_of_a_fine_tuned_teacher_says_so(teacher_folder, latents_folder, tmp_path):
    tuned = Denoising(str(teacher_folder))
    tuned.trainer = trainer_of(tmp_path)
    tuned.save_model(tmp_path / "tuned")
    trainer_of(tmp_path).fit(module_of(tmp_path / "tuned"), data_of(latents_folder))
    student = tmp_path / "rounds" / "2-2steps"
    assert provenance.read(student)["teacher_fine_tuned_from"] == teacher_folder.name
    export_student(student, tmp_path / "exported")
    origin = f"a model fine-tuned from {teacher_folder.name}"
    known = provenance.read(tmp_path / "exported")
    assert (known["teacher"], known["teacher_fine_tuned_from"]) == (origin, teacher_folder.name)
    assert f"A few-step student of {origin}, made by" in (tmp_path / "exported" / "README.md").read_text()


def test_strays_stay_behind_and_links_become_files(pair, tmp_path):
    student, teacher = pair
    (teacher / "vae" / ".DS_Store").write_text("what a file manager leaves")
    weights = teacher / "vae" / WEIGHTS
    weights.rename(tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")
    export_student(student, tmp_path / "exported")
    (tmp_path / "blob").unlink()
    assert sorted(path.name for path in (tmp_path / "exported" / "vae").iterdir()) == ["config.json", WEIGHTS]
    load_parts(tmp_path / "exported")


def test_a_full_disk_leaves_nothing(pair, tmp_path, small_disk):
    small_disk(20_000)
    with pytest.raises(UserError, match=r"the disk of .* is full"):
        export_student(pair[0], tmp_path / "exported")
    small_disk(-1)
    assert not list(tmp_path.glob("*exported*"))


WEIGHTS = "diffusion_pytorch_model.safetensors"


def spoil(path):
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    save_file(tensors, path, {"format": "pt"})
