"""The callback that ends rounds, hook by hook, on a ladder that only notes what is asked of it."""

import logging
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback

from bsa_lightning.distillation.promotion import RoundPromotion
from bsa_lightning.distillation.rounds import Round
from bsa_lightning.training.latent_module import RoundObserver


class Observer(RoundObserver):
    def __init__(self, told):
        self.told = told

    def on_round_end(self, trainer, pl_module, folder):
        self.told.append(("observed", trainer, pl_module, folder))


class Ladder:
    """In a round of four updates."""

    def __init__(self, *, updates=0, last=False, patience=None):
        self.updates_in_round, self.is_last_round, self.global_step = updates, last, 10 + updates
        self.plan, self.current_round = SimpleNamespace(patience=patience), Round(0, 4, 4)
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


def state(promotion):
    found = promotion.state_dict()
    del found["validated_step"]
    return found


def validated(promotion, ladder, *errors, trainer=None):
    trainer = trainer or trainer_of(ladder)
    for error in errors:
        ladder.global_step += 1
        trainer.callback_metrics["val/distillation_error"] = torch.tensor(error)
        promotion.on_validation_end(trainer, ladder)
    return trainer


@pytest.mark.parametrize("last", [False, True])
def test_a_round_is_over_after_so_many_validations_without_a_lower_error(last):
    ladder, promotion = Ladder(last=last, patience=2), RoundPromotion()
    for errors, stale, best in (((3.0, 2.0), 0, 2.0), ((2.0,), 1, 2.0), ((1.5,), 0, 1.5), ((1.6,), 1, 1.5)):
        assert not validated(promotion, ladder, *errors).should_stop
        assert state(promotion) == {"best": best, "stale": stale}
    assert type(state(promotion)["best"]) is float
    trainer = validated(promotion, ladder, 1.7)
    assert state(promotion) == {"best": 1.5, "stale": 2}
    assert trainer.should_stop is last
    validated(promotion, ladder, 0.1)  # what is over stays so
    assert state(promotion) == {"best": 1.5, "stale": 2}
    promotion.on_train_batch_start(trainer, ladder, None, 0)
    assert (("promoted", "folder") in ladder.told) is not last
    if not last:
        assert state(promotion) == {"best": float("inf"), "stale": 0}


@pytest.mark.parametrize("case", ["no patience", "no error", "sanity check", "budget spent"])
def test_validations_that_say_nothing_about_the_round(case):
    ladder = Ladder(patience=None if case == "no patience" else 1, updates=4 if case == "budget spent" else 0)
    promotion, trainer = RoundPromotion(), trainer_of(ladder)
    trainer.sanity_checking = case == "sanity check"
    trainer.should_stop = True
    if case == "no error":
        promotion.on_validation_end(trainer, ladder)
    else:
        validated(promotion, ladder, 1.0, 2.0, trainer=trainer)
    assert state(promotion) == {"best": float("inf"), "stale": 0}
    assert trainer.should_stop


def test_who_else_asks_to_stop_is_not_overruled():
    ladder, promotion = Ladder(patience=2), RoundPromotion()
    trainer = trainer_of(ladder)
    trainer.should_stop = True
    assert validated(promotion, ladder, 1.0, trainer=trainer).should_stop


def test_the_count_of_validations_survives_a_restart():
    ladder, promotion = Ladder(patience=2, last=True), RoundPromotion()
    validated(promotion, ladder, 1.0, 1.5)
    other = RoundPromotion()
    other.load_state_dict(promotion.state_dict())
    assert state(other) == {"best": 1.0, "stale": 1}
    assert validated(other, ladder, 1.5).should_stop


def test_a_validation_without_an_update_says_nothing_new():
    ladder, promotion = Ladder(patience=1), RoundPromotion()
    trainer = validated(promotion, ladder, 1.0)
    promotion.on_validation_end(trainer, ladder)
    assert promotion.state_dict() == {"best": 1.0, "stale": 0, "validated_step": ladder.global_step}
    again = RoundPromotion()
    again.load_state_dict(promotion.state_dict())
    again.on_validation_end(trainer, ladder)
    assert again.state_dict() == promotion.state_dict()


def test_it_waits_for_gradients_that_are_accumulated():
    ladder, promotion = Ladder(updates=4), RoundPromotion()
    ladder.has_pending_gradients = True
    promotion.on_train_batch_start(trainer_of(ladder), ladder, None, 0)
    assert ladder.told == []
    ladder.has_pending_gradients = False
    promotion.on_train_batch_start(trainer_of(ladder), ladder, None, 0)
    assert ("promoted", "folder") in ladder.told
