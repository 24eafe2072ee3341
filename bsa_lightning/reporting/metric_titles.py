"""The titles of metrics in tables and figures, with an arrow in the direction of better values."""

from __future__ import annotations

TITLES = {
    "fd_logmel": "FD log-mel ↓",
    "trajectory_error": "Trajectory error ↓",
    "fad_vggish": "FAD ↓",
    "fd_pann": "FD ↓",
    "fd_clap": "FD CLAP ↓",
    "fd_yamnet": "FD YAMNet ↓",
    "fd_logmel_inf": "FD∞ log-mel ↓",
    "fad_vggish_inf": "FAD∞ ↓",
    "fd_pann_inf": "FD∞ ↓",
    "fd_clap_inf": "FD∞ CLAP ↓",
    "fd_yamnet_inf": "FD∞ YAMNet ↓",
    "kad_logmel": "KAD log-mel ↓",
    "kad_vggish": "KAD VGGish ↓",
    "kad_pann": "KAD PANN ↓",
    "kad_clap": "KAD CLAP ↓",
    "kad_yamnet": "KAD YAMNet ↓",
    "kadtk_logmel": "KAD of kadtk, log-mel ↓",
    "kadtk_vggish": "KAD of kadtk, VGGish ↓",
    "kadtk_pann": "KAD of kadtk, PANN ↓",
    "kadtk_clap": "KAD of kadtk, CLAP ↓",
    "kadtk_yamnet": "KAD of kadtk, YAMNet ↓",
    "kl_pann": "KL ↓",
    "kl_sigmoid_pann": "KL of sigmoids ↓",
    "is_pann": "IS ↑",
    "kl_yamnet": "KL YAMNet ↓",
    "kl_sigmoid_yamnet": "KL of sigmoids, YAMNet ↓",
    "is_yamnet": "IS YAMNet ↑",
    "clap_score": "CLAP score ↑",
    "obedience": "Obedience ↑",
    "class_agreement": "Class agreement ↑",
}
_KINDS = {
    "fd_": "FD {} ↓",
    "fad_": "FAD {} ↓",
    "kadtk_": "KAD of kadtk, {} ↓",
    "kad_": "KAD {} ↓",
    "kl_sigmoid_": "KL of sigmoids, {} ↓",
    "kl_": "KL {} ↓",
    "is_": "IS {} ↑",
}
"""The titles of measures of any embedding, by the beginning of the column, with a place for the embedding's name."""
_AT_INFINITY, _SCORE = "_inf", "_score"


def title_of(metric: str) -> str:
    """Returns the title of a metric.

    A metric of an embedding or judge of one's own gets its title from the name of its column: that of its kind if the
    name begins as those of this package do (``fd_``, ``kad_``, ...), and an arrow up if it ends in ``_score``. Any
    other name is shown in words, without an arrow, since it does not say what is better.

    Args:
        metric: the column of ``scores.csv``.
    """
    if metric in TITLES:
        return TITLES[metric]
    if metric.endswith(_AT_INFINITY):
        kind, _, rest = title_of(metric.removesuffix(_AT_INFINITY)).partition(" ")
        return f"{kind}∞ {rest}".strip()
    for beginning, title in _KINDS.items():
        if metric.startswith(beginning) and metric != beginning:
            return title.format(metric.removeprefix(beginning).replace("_", " "))
    words = metric.replace("_", " ").strip()
    return (words[:1].upper() + words[1:] or metric) + (" ↑" if metric.endswith(_SCORE) else "")
