"""Captions alone: what a store of a teacher's own latents holds, and that it depends on nothing else than it says."""

import shutil

import pytest
import torch
from ladder import data_of, module_of, trainer_of
from tiny_model import CAPTIONS, write_model
from tolerances import SAMPLES

from bsa_lightning.common.errors import UserError
from bsa_lightning.data import prepare
from bsa_lightning.data.batches import Items
from bsa_lightning.data.clips import Subset
from bsa_lightning.data.latents import LatentReader
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.data.prepared_sound import PreparedSound
from bsa_lightning.data.teacher_samples import TeacherSamples, hold_out
from bsa_lightning.distillation.export import export_student
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.generation.from_noise import generate_latents
from bsa_lightning.models.loading import folder_sha256, load_parts, read_provenance

HALF = {"rtol": 1e-3, "atol": 1e-3}
"""What float16 storage rounds away."""
LINES = [*CAPTIONS, "rain in the rain", "birds", "a dog"]


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("captions") / "captions.txt"
    path.write_text("\n".join([*LINES, LINES[0]]))  # the last line is the first again
    return path


@pytest.fixture
def clips(file, teacher_folder):
    return TeacherSamples(file, str(teacher_folder), num_steps=4, guidance_scale=3.0, seed=7, latents_per_caption=2)


@pytest.fixture(scope="module")
def store(file, teacher_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples") / "store"
    clips = TeacherSamples(file, str(teacher_folder), num_steps=4, guidance_scale=3.0, seed=7, latents_per_caption=2)
    prepare_folder(clips, folder, str(teacher_folder), batch_size=3, shard_size=5)
    return folder


def test_a_stored_latent_is_what_the_teacher_samples_from_the_recorded_noise(store, clips, teacher_folder):
    reader, teacher = LatentReader(store), load_parts(teacher_folder)
    assert len(reader) == 12
    for i in (0, 4, 11):
        latents = generate_latents(
            denoiser=teacher.denoiser,
            conditioning=teacher.conditioner([LINES[i % 6]]),
            null=teacher.conditioner.null(),
            guidance_scale=3.0,
            num_steps=4,
            noise=clips.noise(i, teacher.codec.latent_shape)[None],
        )
        assert reader[i].captions == [LINES[i % 6]]
        torch.testing.assert_close(reader[i].mean, latents[0], **HALF)
    assert not torch.equal(reader[0].mean, reader[6].mean)  # the same caption from other noise


def test_a_selection_of_clips_has_their_latents(clips, teacher_folder):
    teacher = load_parts(teacher_folder)
    chosen = Subset(clips, [5, 1])
    ours, whole = (each.encoder(teacher.codec, teacher.conditioner) for each in (chosen, clips))
    assert torch.equal(ours([1]).mean, whole([1]).mean)
    assert chosen.sampling == clips.sampling != {}


def test_training_draws_exactly_the_stored_latent(store):
    reader = LatentReader(store)
    batch = Items(reader, 0)[3, 0]
    assert torch.equal(batch.posterior.sample(torch.randn(1, *reader[3].mean.shape))[0], reader[3].mean)


def test_a_killed_prepare_makes_the_same_bytes(store, clips, teacher_folder, tmp_path, monkeypatch):
    folder = tmp_path / "store"
    folder.mkdir()
    for name in (prepare.REQUEST, "shard-00001.safetensors", "shard-00001.json"):
        shutil.copy(store / name, folder)
    written, original = [], prepare.write_shard
    monkeypatch.setattr(
        prepare, "write_shard", lambda path, *rest, **named: written.append(path.stem) or original(path, *rest, **named)
    )
    prepare_folder(clips, folder, str(teacher_folder), batch_size=3, shard_size=5)
    assert written == ["shard-00000", "shard-00002"]
    assert contents(folder) == contents(store)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_make_the_same_bytes(store, clips, teacher_folder, tmp_path):
    prepare_folder(clips, tmp_path / "two", str(teacher_folder), batch_size=3, shard_size=5, devices=2)
    assert contents(tmp_path / "two") == contents(store)


def test_more_latents_keep_those_that_are_there(store, file, teacher_folder, tmp_path):
    folder = shutil.copytree(store, tmp_path / "store")
    more = TeacherSamples(file, str(teacher_folder), 4, 3.0, seed=7, latents_per_caption=3)
    prepare_folder(more, folder, str(teacher_folder), batch_size=3, shard_size=5)
    before = contents(store)
    kept = {name: content for name, content in contents(folder).items() if name.startswith("shard")}
    assert len(LatentReader(folder)) == 18
    assert {name: kept[name] for name in before if name.startswith("shard")}.items() <= before.items()


def test_noise_depends_on_seed_caption_and_number_alone(clips, tmp_path, teacher_folder):
    other = tmp_path / "other.jsonl"
    other.write_text('{"captions": "new"}\n{"captions": ["a dog barks", "unused"]}\n')
    again = TeacherSamples(other, str(teacher_folder), num_steps=2, seed=7, latents_per_caption=3)
    assert torch.equal(again.noise(3, (2, 3)), clips.noise(6, (2, 3)))  # the second latent of the same caption
    drawn = [clips.noise(i, (2, 3)) for i in range(12)]
    drawn += [TeacherSamples(other, str(teacher_folder), seed=8).noise(1, (2, 3))]
    assert len({str(noise.tolist()) for noise in drawn}) == 13


def test_everything_that_decides_the_latents_is_in_the_fingerprint(file, teacher_folder, tmp_path):
    other = write_model(tmp_path / "model", seed=1)
    plain = {"file": file, "teacher": str(teacher_folder), "num_steps": 4, "guidance_scale": 3.0}
    changes = [{"num_steps": 2}, {"guidance_scale": 1.0}, {"seed": 1}, {"latents_per_caption": 2}, {"num_held_out": 1}]
    found = [TeacherSamples(**plain | change).fingerprint() for change in [{}, *changes, {"teacher": str(other)}]]
    assert len(set(found)) == 7
    assert TeacherSamples(**plain | {"teacher": str(shutil.copytree(teacher_folder, tmp_path / "copy"))}).fingerprint()
    assert found[0] == TeacherSamples(**plain | {"teacher": str(tmp_path / "copy")}).fingerprint()
    default = TeacherSamples(file, str(teacher_folder))
    assert (default.sampling["num_steps"], default.sampling["guidance_scale"]) == (8, 2.0)


def test_latents_of_other_settings_are_not_mixed(store, file, teacher_folder):
    before = contents(store)
    with pytest.raises(UserError, match="was prepared before with other sampling; name another folder"):
        prepare_folder(TeacherSamples(file, str(teacher_folder), 2), store, str(teacher_folder), shard_size=5)
    assert contents(store) == before


def test_captions_are_held_out_by_their_text():
    captions = [f"caption {i}" for i in range(50)] + ["Caption  7!", "CAPTION 7"]
    for number in (0, 1, 10, 49):
        train, test = hold_out(captions, number)
        assert sorted([*train, *test]) == sorted(captions)
        assert number <= len(test) <= number + 2
        assert len({"caption 7", "Caption  7!", "CAPTION 7"} & set(test)) in (0, 3)
    backwards = hold_out(captions[::-1], 10)
    assert [part[::-1] for part in backwards] == list(hold_out(captions, 10))


def test_both_parts_of_a_file_make_up_its_captions(file, teacher_folder):
    parts = [TeacherSamples(file, str(teacher_folder), num_held_out=2, held_out=held_out) for held_out in (False, True)]
    train, test = ([part.captions(i)[0] for i in range(len(part))] for part in parts)
    assert (len(test), sorted([*train, *test])) == (2, sorted(LINES))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0, but must be a whole number, at least 1"),
        ({"guidance_scale": -1.0}, r"guidance scale is -1.0, but must be from 0 to 1000"),
        ({"latents_per_caption": 0}, "latents_per_caption is 0"),
        ({"num_held_out": -1}, "num_held_out is -1"),
        ({"num_held_out": 6}, "num_held_out is 6, so that all 6 captions of .* are held out"),
        ({"held_out": True}, "num_held_out is 0, so that no caption of .* is held out"),
        ({"seed": -1}, "seed is -1"),
        ({"teacher": "no-such-model"}, 'model is "no-such-model", but no such folder exists'),
    ],
)
def test_a_wrong_setting_is_one_sentence(file, teacher_folder, settings, message):
    with pytest.raises(UserError, match=message):
        TeacherSamples(**{"file": file, "teacher": str(teacher_folder)} | settings)


def test_what_shows_only_with_the_model_is_one_sentence(file, teacher_folder, tmp_path):
    other = write_model(tmp_path / "model", seed=1)
    with pytest.raises(UserError, match=r'clips.teacher is ".*", whose codec is another than that of the model that'):
        prepare_folder(TeacherSamples(file, str(other)), tmp_path / "store", str(teacher_folder))
    with pytest.raises(UserError, match="num_steps is 128, but must be a finite number, at most 64"):
        prepare_folder(TeacherSamples(file, str(teacher_folder), 128), tmp_path / "store", str(teacher_folder))
    with pytest.raises(UserError, match="have latents and no sound"):
        TeacherSamples(file, str(teacher_folder)).waveform(0, sample_rate=16_000, num_samples=5120)
    assert not list((tmp_path / "store").glob("shard*"))


def test_provenance_and_card_of_a_student_say_that_its_teacher_sampled(store, teacher_folder, tmp_path):
    module = module_of(teacher_folder, plan=Plan(8, 4, 1))
    trainer_of(tmp_path).fit(module, data_of(store))
    student = tmp_path / "rounds" / "1-4steps"
    assert read_provenance(student)["sampled_latents"] == {
        "teacher_sha256": folder_sha256(teacher_folder),
        "sampler": "DDIM on the trailing grid",
        "num_steps": 4,
        "guidance_scale": 3.0,
        "seed": 7,
        "num_latents": 12,
    }
    export_student(student, tmp_path / "exported")
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "12 latents that this teacher sampled from captions in 4 steps at guidance 3, seed 7" in card


def test_prepared_sound_is_what_the_codec_makes_of_latents(store, latents_folder, teacher_folder, tmp_path):
    sound, codec = PreparedSound(store, str(teacher_folder)), load_parts(teacher_folder).codec
    reader = LatentReader(store)
    size = {"sample_rate": codec.sample_rate, "num_samples": codec.num_samples}
    torch.testing.assert_close(sound.waveform(7, **size), codec.decode(reader[7].mean[None])[0], **SAMPLES)
    assert (len(sound), sound.captions(7)) == (12, [LINES[1]])
    assert len({sound.fingerprint(), PreparedSound(latents_folder, str(teacher_folder)).fingerprint()}) == 2
    with pytest.raises(UserError, match="decodes to clips of 5120 samples at 16000 Hz and 1 channels"):
        sound.waveform(0, sample_rate=44_100, num_samples=5120)
    other = write_model(tmp_path / "model", seed=1)
    with pytest.raises(UserError, match=r'prepared with another codec than that of teacher ".*model"'):
        PreparedSound(store, str(other)).waveform(0, **size)
