"""An adapter alone: what its card says opens it on the teacher, as the whole student is; and what has none."""

import json
import shutil

import pytest
import torch
from diffusers import DDIMScheduler
from ladder import data_of, module_of, trainer_of
from tiny_model import CAPTIONS, LATENT_SHAPE
from tolerances import SAMPLES

from bsa_lightning import LoRA, TangoPipeline
from bsa_lightning.cli.export import export
from bsa_lightning.cli.run_names import model_of
from bsa_lightning.common.errors import UserError
from bsa_lightning.distillation.export import export_adapter, export_student
from bsa_lightning.distillation.guidance_modes import Embedded
from bsa_lightning.models.model_card import adapter_usage


def ladder(run, teacher_folder, latents_folder, **settings):
    trainer_of(run).fit(module_of(teacher_folder, **settings), data_of(latents_folder))
    return run / "rounds" / "2-2steps"


@pytest.fixture(scope="module")
def student(teacher_folder, latents_folder, tmp_path_factory):
    """The student of two merged rounds, the first teacher's adapter of which is of twice the rank."""
    return ladder(tmp_path_factory.mktemp("run"), teacher_folder, latents_folder, adapter=LoRA(2))


@torch.no_grad()
def test_the_teachers_pipeline_with_the_adapter_samples_as_the_whole_student(student, teacher_folder, tmp_path):
    """By the lines of the card, but for the class of the pipeline."""
    export_student(student, tmp_path / "whole")
    export_adapter(student, tmp_path / "adapter", scores=["| a table |"])
    code = (tmp_path / "adapter" / "README.md").read_text().split("```python\n")[1].split("```")[0].splitlines()
    pipeline = TangoPipeline.from_pretrained(teacher_folder, low_cpu_mem_usage=False)
    names = {"pipeline": pipeline, "folder": str(tmp_path / "adapter"), "DDIMScheduler": DDIMScheduler}
    taken = [line for line in code if line.startswith(("pipeline.unet", "pipeline.scheduler"))]
    assert len(taken) == 2
    exec("\n".join(taken), names)
    whole = TangoPipeline.from_pretrained(tmp_path / "whole", low_cpu_mem_usage=False)
    noise = torch.randn(3, *LATENT_SHAPE, generator=torch.Generator().manual_seed(0))
    found = []
    for one, scale in ((pipeline, 1.0), (whole, None)):  # which knows that its guidance is baked in
        one.set_progress_bar_config(disable=True)
        made = one(CAPTIONS, latents=noise, num_inference_steps=2, guidance_scale=scale, output_type="latent")
        found.append(made.audios)
    torch.testing.assert_close(*found, **SAMPLES)
    assert "num_inference_steps=2, guidance_scale=1.0" in code[-1]


def test_the_folder_is_small_and_its_card_says_what_it_is(student, teacher_folder, tmp_path):
    export_adapter(student, tmp_path / "adapter", scores=["| a table |"])
    files = {path.relative_to(tmp_path / "adapter").as_posix() for path in (tmp_path / "adapter").rglob("*.*")}
    weights = {"adapter_config.json", "adapter_model.safetensors", "scheduler/scheduler_config.json"}
    assert files == {*weights, "README.md", "provenance.json"}
    card, provenance = (
        (tmp_path / "adapter" / "README.md").read_text(),
        (tmp_path / "adapter" / "provenance.json").read_text(),
    )
    assert "| adapter | LoRA of rank 4 on to_k, to_out.0, to_q, to_v |" in card
    assert "| a table |" in card
    assert str(teacher_folder) not in card + provenance + (tmp_path / "adapter" / "adapter_config.json").read_text()
    assert "adapter" in json.loads(provenance)
    with pytest.raises(UserError, match="exists already"):
        export_adapter(student, tmp_path / "adapter")


def test_a_damaged_adapter_is_refused(student, tmp_path):
    shutil.copytree(student, tmp_path / "2-2steps")
    path = tmp_path / "2-2steps" / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match="adapter is damaged or was changed"):
        export_adapter(tmp_path / "2-2steps", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "was trained in full, without model.adapter"),
        ({"adapter": LoRA(2), "guidance": Embedded(2.0)}, "is embedded, whose input has layers that are no part"),
    ],
    ids=["full", "embedded"],
)
def test_a_student_that_an_adapter_does_not_hold_is_refused(
    settings, message, teacher_folder, latents_folder, tmp_path
):
    folder = ladder(tmp_path / "run", teacher_folder, latents_folder, **settings)
    with pytest.raises(UserError, match=message):
        export_adapter(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_network_without_diffusers_loader_is_opened_with_peft():
    provenance = {"guidance": "outside", "guidance_scale": 7.0, "num_steps": 4}
    lines = adapter_usage(
        provenance,
        pipeline="StableAudioPipeline",
        options="trust_remote_code=True",
        network="transformer",
        scheduler="CosineDDIMScheduler",
        has_loader=False,
    )
    compile("\n".join(lines), "card", "exec")
    assert "from peft import PeftModel" in lines
    assert "from bsa_lightning.models.stable_audio.cosine_scheduler import CosineDDIMScheduler" in lines
    assert any(
        line.endswith("PeftModel.from_pretrained(pipeline.transformer, folder).merge_and_unload()") for line in lines
    )
    assert "guidance_scale=7.0" in lines[-1]


@pytest.mark.parametrize("read", [model_of, lambda folder: export(str(folder), "out")])
def test_an_adapter_is_no_model(student, tmp_path, read):
    export_adapter(student, tmp_path / "adapter")
    for folder in (tmp_path / "adapter", student / "adapter"):
        with pytest.raises(UserError, match="the adapter of a student, which is no model without its teacher; name"):
            read(folder)
