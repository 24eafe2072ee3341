import shutil

import pytest
import torch
from ladder import Watch, data_of, module_of, trainer_of
from tiny_model import write_model
from toy_clips import ToyClips

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.datamodule import AudioCapsLatents, Prepared
from bsa_lightning.data.latents import LatentReader
from bsa_lightning.data.order import epoch_order
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.models.loading import load_codec, load_conditioner


def ready(latents_folder, **settings):
    data = data_of(latents_folder, **settings)
    data.prepare_data()
    data.setup("fit")
    return data


def test_batches_are_the_clips_of_the_store(latents_folder):
    reader = LatentReader(latents_folder)
    batch = next(iter(ready(latents_folder).train_dataloader()))
    assert len(batch) == 4
    for place, i in enumerate(batch.index.tolist()):
        clip = reader[i]
        assert torch.equal(batch.posterior.mean[place], clip.mean)
        assert batch.captions[place] in clip.captions
        states = clip.conditioning[clip.captions.index(batch.captions[place])].tensors["states"][0]
        assert torch.equal(batch.conditioning.tensors["states"][place, : len(states)], states)
        assert batch.conditioning.masks["states"][place].tolist() == [
            position < len(states) for position in range(batch.conditioning.masks["states"].shape[1])
        ]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_change_nothing(latents_folder, num_workers):
    ours = [batch.index for batch in ready(latents_folder).train_dataloader()]
    theirs = [batch.index for batch in ready(latents_folder, num_workers=num_workers).train_dataloader()]
    assert torch.equal(torch.cat(ours), torch.cat(theirs))


def test_seeds_shuffle_anew(latents_folder):
    first, second = (
        torch.cat([batch.index for batch in ready(latents_folder, seed=seed).train_dataloader()]) for seed in (0, 1)
    )
    assert not torch.equal(first, second)
    assert set(first.tolist()) == set(second.tolist()) == set(range(24))


def test_several_captions_of_a_clip_take_turns(latents_folder):
    data = ready(latents_folder)
    items = data.train_dataloader().dataset
    assert {items[(0, epoch)].captions[0] for epoch in range(12)} == set(ToyClips(1).captions(0))
    assert items[(0, 3)].captions == items[(0, 3)].captions


def test_two_shards_at_a_time_are_still_every_clip_once(latents_folder):
    data = ready(latents_folder, shuffle_shards=2)
    index = torch.cat([batch.index for batch in data.train_dataloader()]).tolist()
    assert sorted(index) == list(range(24))
    assert len({i // 9 for i in index[:15]}) == 2  # at least 15 clips lie in any two of the shards


def test_a_tail_is_filled_from_the_next_epoch(latents_folder):
    data = ready(latents_folder, batch_size=5)
    index = torch.cat([batch.index for batch in data.train_dataloader()]).tolist()
    assert len(index) == 25
    assert sorted(index[:24]) == list(range(24))


def test_one_process_over_all_nodes_prepares(latents_folder):
    assert data_of(latents_folder).prepare_data_per_node is False


def test_validation_reads_the_first_clips_in_order(latents_folder):
    batches = list(ready(latents_folder, num_val_clips=6).val_dataloader())
    assert torch.cat([batch.index for batch in batches]).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_missing_store_is_prepared_from_its_clips(teacher_folder, tmp_path):
    store = Prepared(str(tmp_path / "store"), ToyClips(5), str(teacher_folder))
    data = AudioCapsLatents(store, batch_size=2)
    data.prepare_data()
    data.setup("fit")
    assert len(data.train_reader) == 5
    assert data.val_dataloader() == []


@pytest.mark.parametrize("name", ["shard-00000.safetensors", "shard-00000.json", "null.safetensors"])
def test_a_file_that_was_deleted_is_prepared_again(teacher_folder, tmp_path, name):
    store = Prepared(str(tmp_path), ToyClips(3), str(teacher_folder))
    store.make()
    before = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    store.make()
    assert (tmp_path / name).read_bytes() == before


def test_a_store_of_other_clips_or_with_damage_is_refused(latents_folder, tmp_path):
    Prepared(str(latents_folder), ToyClips(24)).make()
    with pytest.raises(UserError, match="contains other clips"):
        Prepared(str(latents_folder), ToyClips(23)).make()
    shutil.copytree(latents_folder, tmp_path / "store")
    texts = tmp_path / "store" / "shard-00001.json"
    texts.write_text(texts.read_text().replace("rain", "hail"))
    with pytest.raises(UserError, match=r"shard-00001.json is damaged"):
        Prepared(str(tmp_path / "store")).make()


def test_another_codec_or_text_encoder_is_refused(latents_folder, teacher_folder, tmp_path):
    data = ready(latents_folder)
    codec, conditioner = load_codec(teacher_folder).fingerprint, load_conditioner(teacher_folder).fingerprint
    data.check_fingerprints(codec=codec, conditioner=conditioner, teacher="same")
    other = write_model(tmp_path, seed=1)
    with pytest.raises(UserError, match='another codec than that of teacher "other"'):
        data.check_fingerprints(codec=load_codec(other).fingerprint, conditioner=conditioner, teacher="other")
    with pytest.raises(UserError, match='another conditioner than that of teacher "other"'):
        data.check_fingerprints(codec=codec, conditioner=load_conditioner(other).fingerprint, teacher="other")


def test_mistakes(latents_folder, tmp_path):
    with pytest.raises(UserError, match="batch_size is 0"):
        data_of(latents_folder, batch_size=0)
    with pytest.raises(UserError, match="shuffle_shards is 0"):
        data_of(latents_folder, shuffle_shards=0)
    with pytest.raises(UserError, match="num_val_clips is 0"):
        data_of(latents_folder, num_val_clips=0)
    with pytest.raises(UserError, match="fewer than one batch of 32"):
        ready(latents_folder, batch_size=32).train_dataloader()
    with pytest.raises(UserError, match="holds no prepared latents"):
        ready(tmp_path)


@pytest.mark.parametrize(
    ("settings", "num_batches"), [({}, 6), ({"limit_train_batches": 0.5}, 3), ({"limit_train_batches": 2}, 2)]
)
def test_validations_after_more_batches_than_an_epoch_has_are_refused(settings, num_batches, latents_folder, tmp_path):
    def loader(**further):
        data = ready(latents_folder)
        data.trainer = trainer_of(tmp_path, **{"limit_val_batches": 1, **settings, **further})
        return data.train_dataloader()

    loader(val_check_interval=num_batches)
    loader(val_check_interval=num_batches + 1, check_val_every_n_epoch=None)
    loader(val_check_interval=num_batches + 1, limit_val_batches=0)
    loader(val_check_interval="00:00:30:00")
    told = f"val_check_interval is {num_batches + 1}, but an epoch has {num_batches} batches"
    with pytest.raises(UserError, match=told):
        loader(val_check_interval=num_batches + 1)


@pytest.mark.parametrize(("batch_size", "resumed"), [(5, 5), (4, 3), (3, 8), (5, 24)])
def test_a_run_resumed_with_another_batch_size_reads_on_where_it_was(
    teacher_folder, latents_folder, tmp_path, batch_size, resumed
):
    """Four updates and then as many as the plan has left, through Lightning's own epochs, over two of the stream."""
    seen = []

    def fit(size, **settings):
        watch = Watch(lambda trainer, module, batch: seen.extend(batch.index.tolist()))
        checkpoint = settings.pop("ckpt_path", None)
        trainer = trainer_of(tmp_path, watch, **settings)
        module = module_of(teacher_folder, plan=Plan(8, 4, 12))
        trainer.fit(module, data_of(latents_folder, batch_size=size), ckpt_path=checkpoint, weights_only=True)

    fit(batch_size, max_steps=4)
    fit(resumed, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert len(seen) == 4 * batch_size + 8 * resumed
    order = [i for epoch in range(-(-len(seen) // 24)) for i in epoch_order(24, seed=0, epoch=epoch).tolist()]
    assert seen == order[: len(seen)]
