"""The callback that ends rounds, hook by hook, on a ladder that only notes what is asked of it."""

import logging
from types import SimpleNamespace

import pytest
from lightning.pytorch import Callback

from bsa_lightning.distillation.promotion import RoundPromotion
from bsa_lightning.training.latent_module import RoundObserver


class Observer(RoundObserver):
    def __init__(self, told):
        self.told = told

    def on_round_end(self, trainer, pl_module, folder):
        self.told.append(("observed", trainer, pl_module, folder))


class Ladder:
    """In a round of four updates."""

    def __init__(self, *, updates=0, last=False):
        self.is_round_over, self.is_last_round, self.global_step = updates >= 4, last, 10 + updates
        self.told, self.has_pending_gradients = [], False

    def finish_round(self):
        self.told.append("finished")
        return "folder"

    def promote(self, folder):
        self.told.append(("promoted", folder))


def trainer_of(ladder):
    return SimpleNamespace(
        should_stop=False, callbacks=[Callback(), Observer(ladder.told)], callback_metrics={}, sanity_checking=False,
        default_root_dir="runs/a",
    )  # fmt: skip


def all_hooks(ladder):
    """What is done in each of the hooks, and whether training is to stop after it."""
    found = {}
    for hook, words in (("train_start", ()), ("train_batch_start", (None, 0)), ("train_batch_end", (None, None, 0)),
                        ("train_end", ())):  # fmt: skip
        trainer = trainer_of(ladder)
        ladder.told.clear()
        getattr(RoundPromotion(), f"on_{hook}")(trainer, ladder, *words)
        found[hook] = (
            ["observed" if told == ("observed", trainer, ladder, "folder") else told for told in ladder.told],
            trainer.should_stop,
        )
    return found


NOTHING = ([], False)
FINISHED = ["finished", "observed"]


@pytest.mark.parametrize("last", [False, True])
def test_nothing_happens_within_a_round(last):
    assert set(map(str, all_hooks(Ladder(updates=3, last=last)).values())) == {str(NOTHING)}


@pytest.mark.parametrize("updates", [4, 5])
def test_a_round_that_is_over_is_handed_on_at_the_start_of_the_next_batch(updates):
    expected = {"train_start": NOTHING, "train_batch_end": NOTHING, "train_end": NOTHING}
    expected["train_batch_start"] = ([*FINISHED, ("promoted", "folder")], False)
    assert all_hooks(Ladder(updates=updates)) == expected


@pytest.mark.parametrize("updates", [4, 5])
def test_after_the_last_round_training_stops_and_its_student_is_written(updates, caplog):
    caplog.set_level(logging.INFO)
    expected = {"train_start": ([], True), "train_batch_start": NOTHING, "train_batch_end": ([], True)}
    assert all_hooks(Ladder(updates=updates, last=True)) == expected | {"train_end": (FINISHED, False)}
    assert f"runs/a has all its {10 + updates} updates already" in caplog.text


def test_it_waits_for_gradients_that_are_accumulated():
    ladder, promotion = Ladder(updates=4), RoundPromotion()
    ladder.has_pending_gradients = True
    promotion.on_train_batch_start(trainer_of(ladder), ladder, None, 0)
    assert ladder.told == []
    ladder.has_pending_gradients = False
    promotion.on_train_batch_start(trainer_of(ladder), ladder, None, 0)
    assert ("promoted", "folder") in ladder.told
