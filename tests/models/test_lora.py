"""Adapters on the networks of all families: what they are put on by default, and that merging changes nothing else."""

import audioldm_models
import pytest
import stable_audio_3_model
import stable_audio_model
import tangoflux_checkpoint
import torch
from tolerances import FLOAT32

from bsa_lightning import LoRA
from bsa_lightning.common.errors import UserError
from bsa_lightning.data.order import seeded
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import load_denoiser
from bsa_lightning.models.lora import merged_weights, restart_adapters, write_adapter

FAMILIES = {
    "tango": (lambda folder, tango: tango, {"to_q", "to_k", "to_v", "to_out.0"}),
    "audioldm": (lambda folder, _: audioldm_models.write_audioldm(folder), {"to_q", "to_k", "to_v", "to_out.0"}),
    "audioldm2": (lambda folder, _: audioldm_models.write_audioldm2(folder), {"to_q", "to_k", "to_v", "to_out.0"}),
    "stable audio": (stable_audio_model.write_model, {"to_q", "to_k", "to_v", "to_out.0"}),
    "stable audio 3": (
        lambda folder, _: stable_audio_3_model.write_model(folder),
        {"to_q", "to_qkv", "to_kv", "to_out"},
    ),
    "tangoflux": (
        lambda folder, tango: tangoflux_checkpoint.write_model(folder, text_folder=tango),
        {"to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"},
    ),
}
"""How a small model of each family is written, and the layers of its attentions."""


def predicted(denoiser):
    torch.manual_seed(0)
    z_t, zeros = denoiser.example_inputs(1)
    drawn = {name: torch.randn(tensor.shape) for name, tensor in zeros.tensors.items()}
    with torch.no_grad():
        return denoiser(torch.randn(z_t.shape), torch.tensor([0.6]), Conditioning(drawn, zeros.masks)).x


@pytest.mark.parametrize("family", FAMILIES)
def test_attentions_get_adapters_and_merging_them_changes_no_prediction(family, teacher_folder, tmp_path):
    make, targets = FAMILIES[family]
    folder = make(tmp_path / "model", teacher_folder)
    plain, adapted = load_denoiser(folder), load_denoiser(folder)
    LoRA(2).attach(adapted)
    restart_adapters(adapted, seeded(0))
    assert torch.equal(predicted(adapted), predicted(plain))
    for name, parameter in adapted.named_parameters():
        assert parameter.requires_grad == (".lora_" in name)
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    written = write_adapter(adapted, tmp_path / "adapter")
    assert (written["rank"], set(written["target_modules"])) == (2, targets)
    moved = predicted(adapted)
    assert not torch.allclose(moved, predicted(plain), **FLOAT32)
    merged = load_denoiser(folder)
    merged.load_state_dict(merged_weights(adapted))
    torch.testing.assert_close(predicted(merged) / moved.abs().max(), moved / moved.abs().max(), **FLOAT32)

    from peft import PeftModel

    name = "unet" if hasattr(plain, "unet") else "transformer"
    setattr(plain, name, PeftModel.from_pretrained(plain.network, tmp_path / "adapter").merge_and_unload())
    torch.testing.assert_close(predicted(plain), predicted(merged), rtol=0, atol=0)


def test_a_rank_that_is_not_low_is_refused(teacher_folder):
    """The smaller side of the largest of the adapted matrices is the rank that it has anyway."""
    denoiser = load_denoiser(teacher_folder)
    full = max(min(w.shape) for name, w in denoiser.named_parameters() if name.endswith("to_q.weight"))
    with pytest.raises(
        UserError, match=f"rank of the adapter is {full}, but the layers .* full rank of {full} or less"
    ):
        LoRA(full, target_modules=["to_q"]).attach(denoiser)
    LoRA(full - 1, target_modules=["to_q"]).attach(denoiser)
