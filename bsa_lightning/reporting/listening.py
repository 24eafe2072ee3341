"""The listening section of the page: a card for each caption, a row for each system, and the blind comparison."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from bsa_lightning.reporting import spectrogram
from bsa_lightning.reporting.samples import SampledSystem

_KEYS = (
    "<kbd>Space</kbd> plays and pauses; <kbd>↑</kbd> <kbd>↓</kbd> go to another system of the caption, "
    "and play it if one was playing; <kbd>←</kbd> <kbd>→</kbd> move half a second. One sound plays at a time."
)


def section(captions: Sequence[str], systems: Sequence[SampledSystem]) -> str:
    """Returns the section as HTML, or a note if there are no samples.

    Args:
        captions: the captions.
        systems: the systems, each with its sounds by caption.
    """
    if not captions:
        return '<section id="listen"><h2>Listen</h2><p class="note">This run kept no samples.</p></section>'
    cards = "".join(_card(i, caption, systems) for i, caption in enumerate(captions))
    boxes = "".join(map(_box, (system for system in systems if system.shown)))
    if more := [system for system in systems if not system.shown]:
        boxes += f"<details><summary>{len(more)} more of the teacher</summary>{''.join(map(_box, more))}</details>"
    return f"""<section id="listen" aria-labelledby="listen-title"><h2 id="listen-title">Listen</h2>
<p class="note">{_KEYS}</p>
<div class="tools">
<fieldset class="switch" id="views"><legend>Pictures</legend>
<label><input type="checkbox" value="waves" checked><span>Waveform</span></label>
<label><input type="checkbox" value="mels" checked><span>Mel spectrogram</span></label></fieldset>
<button type="button" class="main" id="blind-open">Compare blind</button>
<fieldset class="switch" id="systems"><legend>Systems</legend>{boxes}</fieldset>
</div>
<div class="cards">{cards}</div>
{_BLIND}
</section>"""


def _box(system: SampledSystem) -> str:
    return (
        f'<label><input type="checkbox" data-shows="{_escape(system.id)}"{" checked" if system.shown else ""}>'
        f"<span>{_escape(system.name)}</span></label>"
    )


def _card(number: int, caption: str, systems: Sequence[SampledSystem]) -> str:
    rows = "".join(_row(system, system.sounds[caption]) for system in systems if caption in system.sounds)
    return (
        f'<article class="card" aria-labelledby="caption-{number}"><h3 id="caption-{number}">{_escape(caption)}</h3>'
        f'<ul class="rows" role="group" aria-labelledby="caption-{number}">{rows}</ul></article>'
    )


def _row(system: SampledSystem, path: Path) -> str:
    wave = spectrogram.read(path)
    picture = base64.b64encode(spectrogram.mel_png(wave)).decode()
    sound = base64.b64encode(path.read_bytes()).decode()
    name = _escape(system.name)
    hidden = "" if system.shown else " hidden"
    return (
        f'<li class="row" data-system="{_escape(system.id)}" data-name="{name}"{hidden}>'
        f'<button type="button" class="play" aria-label="Play {name}" aria-pressed="false"></button>'
        f'<div class="who"><b>{name}</b><small>{_escape(system.detail)} <time>{wave.seconds:.1f} s</time></small>'
        f'</div><div class="picture">'
        f'<svg class="wave" viewBox="0 0 240 40" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{spectrogram.outline(wave)}"/></svg>'
        f'<img class="mel" alt="" src="data:image/png;base64,{picture}"><i class="head"></i></div>'
        f'<audio preload="none" src="data:audio/wav;base64,{sound}"></audio></li>'
    )


def _escape(text: str) -> str:
    return html.escape(text)


_BLIND = """<dialog id="blind" aria-labelledby="blind-title">
<h3 id="blind-title">Blind comparison</h3>
<form class="stage" data-stage="start">
<p>Pairs of two systems for the same caption, in random order and without their names. They are drawn from the systems
that are shown on the page; the fewer, the more answers for each pair.</p>
<label>Comparisons <input type="number" name="count" min="1" max="500" value="12" required></label>
<label>Seed <input type="number" name="seed" min="0" max="4294967295" required></label>
<p class="warning" role="alert" hidden>Show two or more systems that sound the same caption.</p>
<div class="buttons"><button class="main">Start</button><button type="button" data-do="close">Cancel</button></div>
</form>
<div class="stage" data-stage="trial" hidden>
<progress max="1" value="0" aria-label="Progress"></progress> <span id="blind-count" role="status"></span>
<p class="question">Which is the better sound for<br><strong id="blind-caption"></strong>?</p>
<div class="pair"><button type="button" class="side" data-side="a" aria-pressed="false">Play A <kbd>A</kbd></button>
<button type="button" class="side" data-side="b" aria-pressed="false">Play B <kbd>B</kbd></button></div>
<div class="choices" role="group" aria-label="Your answer"><button type="button" data-choice="a">A <kbd>1</kbd></button>
<button type="button" data-choice="same">Same <kbd>2</kbd></button>
<button type="button" data-choice="b">B <kbd>3</kbd></button></div>
<p class="note" id="blind-hint">Listen to both, then answer.</p>
<div class="buttons"><button type="button" data-do="finish">Stop here</button></div>
</div>
<div class="stage" data-stage="end" hidden>
<p id="blind-summary" role="status"></p>
<p class="note">How often the first, neither or the second was better:</p>
<div class="wide" role="region" aria-label="Answers by pair" tabindex="0"><table>
<thead><tr><th>First</th><th>Second</th>
<th class="number" aria-label="First better">1st</th><th class="number">Same</th>
<th class="number" aria-label="Second better">2nd</th></tr></thead>
<tbody id="blind-tally"></tbody></table></div>
<div class="buttons"><button type="button" class="main" data-do="json">Save as JSON</button>
<button type="button" data-do="csv">Save as CSV</button><button type="button" data-do="close">Close</button></div>
</div>
</dialog>"""
