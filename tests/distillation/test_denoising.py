import functools
import json
import shutil

import pytest
import torch
from ladder import data_of
from lightning.pytorch import Trainer

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.process import V, add_noise
from bsa_lightning.distillation.denoising import Denoising
from bsa_lightning.distillation.draws import draw
from bsa_lightning.models import provenance as origin
from bsa_lightning.models.loading import folder_sha256, load_parts


def train(module, latents_folder, run, ckpt_path=None, **settings):
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, max_epochs=-1,
        use_distributed_sampler=False, num_sanity_val_steps=0, default_root_dir=run,
        enable_checkpointing=False, **{"max_steps": 12} | settings,
    )  # fmt: skip
    trainer.fit(module, data_of(latents_folder), ckpt_path=ckpt_path, weights_only=True)
    return trainer


def module_of(teacher_folder, **settings):
    optimizer = functools.partial(torch.optim.Adam, lr=3e-3)
    return Denoising(**{"teacher": str(teacher_folder), "optimizer": optimizer, "ema_decay": 0.5} | settings)


def test_training_lowers_the_loss_and_leaves_a_whole_model(teacher_folder, latents_folder, tmp_path):
    module = module_of(teacher_folder)
    losses = []
    for steps, run in ((1, "before"), (30, "after")):
        trainer = train(module, latents_folder, tmp_path / run, max_steps=steps)
        losses.append(trainer.validate(module, data_of(latents_folder), verbose=False)[0]["val/loss"])
    assert losses[1] < 0.9 * losses[0]
    teacher = load_parts(tmp_path / "after" / "model")
    trained = module.ema.average.state_dict()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in teacher.denoiser.state_dict().items())
    provenance = json.loads((tmp_path / "after" / "model" / "provenance.json").read_text())
    assert provenance["fine_tuned_from"] == teacher_folder.name
    assert "name" not in provenance
    assert provenance["updates"] == 30
    assert provenance["sha256"] == folder_sha256(tmp_path / "after" / "model")
    assert "vae/config.json" in provenance["files"]


def test_the_default_loss_is_plain_v_mse(teacher_folder, latents_folder):
    """Tango's and the paper's equation 1, at the trained times, written out."""
    module, data = module_of(teacher_folder), data_of(latents_folder)
    data.setup("fit")
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module.trainer.datamodule = data
    batch = next(iter(data.train_dataloader()))
    with torch.no_grad():
        loss = module._errors_of(module.network, batch, 3, 0, 0.0).loss()
        draws = draw(seed=0, step=3, micro_batch=0, rank=0, latents=batch.posterior.mean)
        schedule = module.network.schedule
        t = schedule.trained_times(draws.uniform)
        alpha, sigma = schedule.alpha_sigma(t)
        x = batch.posterior.sample(draws.posterior_noise)
        prediction = module.network(add_noise(x=x, eps=draws.eps, alpha=alpha, sigma=sigma), t, batch.conditioning)
    v = [V().output(**pair, alpha=alpha, sigma=sigma) for pair in (prediction._asdict(), {"x": x, "eps": draws.eps})]
    torch.testing.assert_close(loss, (v[0] - v[1]).square().mean(), rtol=1e-4, atol=0)


def test_the_licence_is_passed_on_and_the_card_is_not(teacher_folder, latents_folder, tmp_path):
    start = shutil.copytree(teacher_folder, tmp_path / "start")
    for name in ("LICENSE.md", "NOTICE", "README.md"):
        (start / name).write_text("theirs")
    train(module_of(start), latents_folder, tmp_path / "run", max_steps=1)
    assert [(tmp_path / "run" / "model" / name).is_file() for name in ("LICENSE.md", "NOTICE")] == [True, True]
    card = tmp_path / "run" / "model" / "README.md"
    assert not card.is_file() or card.read_text() != "theirs"


def test_without_an_end_the_rate_cannot_fall(teacher_folder, latents_folder, tmp_path):
    with pytest.raises(UserError, match="max_steps is not set"):
        train(module_of(teacher_folder), latents_folder, tmp_path, max_steps=-1)


def test_a_damaged_codec_is_not_passed_on(teacher_folder, latents_folder, tmp_path):
    """It is not read in training, but copied beside the new network."""
    start = shutil.copytree(teacher_folder, tmp_path / "start")
    origin.write(start, origin.read(start))
    (start / "text_encoder" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"text_encoder/config\.json is damaged or was changed since it was written"):
        train(module_of(start), latents_folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_model_that_training_started_from_is_never_written_over(teacher_folder):
    with pytest.raises(UserError, match="is the model that training started from"):
        module_of(teacher_folder).save_model(teacher_folder)


def test_a_run_goes_on_with_its_own_clips_and_teacher_alone(teacher_folder, latents_folder, tmp_path):
    last = tmp_path / "last.ckpt"
    train(module_of(teacher_folder), latents_folder, tmp_path / "begun", max_steps=2).save_checkpoint(last)
    go_on = functools.partial(train, ckpt_path=last, max_steps=3)
    moved, clips = (
        shutil.copytree(folder, tmp_path / name)
        for folder, name in ((teacher_folder, "moved"), (latents_folder, "clips"))
    )
    go_on(module_of(moved), clips, tmp_path / "same")
    with pytest.raises(UserError, match="but the run began with another one; name the folder that holds it"):
        go_on(module_of(tmp_path / "begun" / "model"), latents_folder, tmp_path / "another teacher")
    index = json.loads((clips / "index.json").read_text())
    (clips / "index.json").write_text(json.dumps({**index, "clips": "others"}))
    with pytest.raises(UserError, match="holds other clips than the run was trained on"):
        go_on(module_of(teacher_folder), clips, tmp_path / "other clips")
