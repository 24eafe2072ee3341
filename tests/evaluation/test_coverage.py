"""The simulation of ``make coverage``, with few repeats: an interval that were half as wide would not pass."""

import pytest

from bsa_lightning.evaluation.scores import crossed_interval
from experiments.coverage import seeds
from experiments.coverage.clips import Made, Paired
from experiments.coverage.limit import Limit
from experiments.coverage.run import ALL
from experiments.coverage.seeds import Crossed, Scores
from experiments.coverage.tally import Coverage

CROSSED = [(1, 5, "e"), (5, 1, "a"), (3, 5, "b"), (5, 2, "a"), (5, 5, "a = b"), (2, 5, "b")]


@pytest.mark.parametrize(("num_trained", "num_sampled", "parts"), CROSSED)
def test_crossed_intervals_cover_and_would_not_at_half_their_width(num_trained, num_sampled, parts, monkeypatch):
    case = Crossed(num_trained, num_sampled, parts, repeats=400)
    (found,) = case.run()
    assert found.verdict in ("95 %", "wider")
    assert found.width > 1.2

    def halved(values):
        mean, half_width = crossed_interval(values)
        return mean, half_width / 2

    monkeypatch.setattr(seeds, "crossed_interval", halved)
    (narrow,) = case.run()
    assert narrow.verdict == "BELOW"


def test_scores_over_sampling_seeds_are_covered():
    for found in Scores(Made(20, 2, 8), ("fd", "error"), repeats=60).run():
        assert found.verdict != "BELOW"
        assert 1.2 < found.width < 1.5  # Student's quantile of four degrees of freedom is 1.42 times 1.96


def test_everything_that_is_asked_of_made_clips_is_measured():
    made = Made(20, 2, 8)
    drawn = made.draw(0)
    found = {name: measure(drawn.first) for name, measure in made.measures(drawn).items()}
    assert set(found) == set(ALL)
    assert abs(found["clap"]) < 100
    assert found["fd"] > 0
    assert made.measures(drawn)["kl"](drawn.first) == found["kl"] != made.measures(drawn)["kl"](drawn.second)


def test_paired_differences_over_clips_are_covered():
    """Halved, they would be as wide as 0.75 of what a known variance gives, or less."""
    for found in Paired(Made(20, 2, 8, apart=True), ("fd", "is"), repeats=20, num_resamples=40).run():
        assert found.verdict != "BELOW"
        assert found.width > 0.8


def test_little_of_the_bias_is_left_where_a_distance_at_infinity_has_a_value():
    rows = [Limit(64, 2, 16, repeats=5).row(), Limit(32, 1, 16, repeats=5).row()]
    assert [row["has_value"] for row in rows] == ["yes", "no"]
    assert abs(float(rows[0]["left"])) < 0.2 < abs(float(rows[1]["left"]))


def test_verdicts():
    kinds = [Coverage("", "", 400, covered, 1.0).verdict for covered in (0.91, 0.93, 0.97, 0.98)]
    assert kinds == ["BELOW", "95 %", "95 %", "wider"]
