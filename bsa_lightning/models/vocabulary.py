"""The words that the built-in teacher was trained on, and a warning of others, of which it makes some other sound."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path

from bsa_lightning.models import provenance
from bsa_lightning.models.registry import BUILT_IN, resolve_folder

_log = logging.getLogger(__name__)

SOUNDSCAPES = (
    "a an and beep beeps bell bells buzz buzzes by chirp chirps click clicks engine falling followed four high hum"
    " knock knocks long low over quick rain rising short slow then three two wind with"
)
_RECORDINGS = (
    "air as ashore at baby bark barking barks beach blades blows break burning burns buzzing campfire chainsaw chop"
    " clock continuously crackles crackling crash cries crow crowing crows crying cuts distance dog dogs down falls"
    " farm few fire flies flying hard heavy helicopter hovering hovers hums in indoors infant is it its loudly man"
    " nearby night ocean of on once onto outdoors overhead person pops pours quiet revs rhythmic roll roof room"
    " rooster roosters running runs sea shore sneeze sneezes sneezing someone steadily surface the ticking ticks"
    " times wails washes waves woman wood"
)
WORDS = frozenset(f"{SOUNDSCAPES} {_RECORDINGS}".split())
"""All words of the captions of soundscapes, and of the ten kinds of recordings, in lower case."""
_SHOWN = 12
"""The most words in a warning."""
_warned: set[str] = set()
"""The words that this process has warned of."""


def unknown_words(captions: Iterable[str]) -> list[str]:
    """The words of captions that the built-in teacher does not know, in lower case and in their order, each once."""
    words = (word for caption in captions for word in re.findall(r"\w+(?:['’]\w+)*", caption.lower()))
    return [word for word in dict.fromkeys(words) if word not in WORDS]


def warn_of_unknown_words(model: str | Path, captions: Iterable[str]) -> None:
    """Warns of words that a model does not know, of each word once, if it is the built-in teacher or its student.

    Args:
        model: the folder of a model or student, or the name of the built-in teacher.
        captions: the captions.

    Raises:
        UserError: if there is no such model.
    """
    known = provenance.read(resolve_folder(model))
    own = [provenance.read(resolve_folder(name))["sha256"] for name in BUILT_IN]
    if known.get("teacher_sha256", known.get("sha256")) not in own:
        return
    words = [word for word in unknown_words(captions) if word not in _warned]
    if not words:
        return
    _warned.update(words)
    others = f" and {len(words) - _SHOWN} others" if len(words) > _SHOWN else ""
    _log.warning(
        "the built-in teacher does not know %s%s, and makes some other sound of that: it knows soundscapes and ten"
        " kinds of recordings, as `lightning generate --help` says",
        ", ".join(f'"{word}"' for word in words[:_SHOWN]),
        others,
    )
