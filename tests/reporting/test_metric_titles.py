import pytest

from bsa_lightning.reporting.metric_titles import title_of


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        ("fd_pann", "FD ↓"),
        ("fd_my_ears", "FD my ears ↓"),
        ("fd_my_ears_inf", "FD∞ my ears ↓"),
        ("fad_mine_inf", "FAD∞ mine ↓"),
        ("kad_mine", "KAD mine ↓"),
        ("kadtk_mine", "KAD of kadtk, mine ↓"),
        ("kl_mine", "KL mine ↓"),
        ("kl_sigmoid_mine", "KL of sigmoids, mine ↓"),
        ("is_mine", "IS mine ↑"),
        ("caption_score", "Caption score ↑"),
        ("loudness_LUFS", "Loudness LUFS"),
        ("fd_", "Fd"),
        ("_", "_"),
    ],
)
def test_a_metric_of_ones_own_has_a_title_and_a_direction_if_its_name_says_one(metric, title):
    assert title_of(metric) == title
