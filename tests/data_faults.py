"""Wrong lists, sounds and stores, and good ones that look odd: for tests, and for a harness that draws among them.

Each entry of a dictionary is a function of a folder and a ``random.Random``, which decides what the kind leaves open.
It puts its files into the folder and returns a ``Case``. ``case.read()`` reads them through the public classes:

- ``LISTS``, ``SOUNDS``, ``STORES``: it raises ``UserError``;
- ``GOOD_LISTS``, ``GOOD_SOUNDS``, ``GOOD_STORES``: it returns ``case.expected``.

``case.words`` is the same for the command line where there is one: arguments of ``lightning prepare``, without
``--out``. (The built-in teacher's clips are long enough for any of them.)

The folder must be empty, but for ``STORES`` and ``GOOD_STORES``: there it must be a copy of a store that ``lightning
prepare`` made, with two shards or more. What is read of a list is ``[(id, captions), ...]``, or captions alone; of a
sound, its length at 16 kHz and its peak after ``normalise``, rounded to 2 digits; of a store, the number of its clips.
"""

from fault_case import Build, Case
from list_faults import GOOD_LISTS as GOOD_MANIFESTS
from list_faults import LISTS as MANIFESTS
from sound_faults import GOOD_SOUNDS, SOUNDS
from source_faults import GOOD_SOURCES, SOURCES
from store_faults import GOOD_STORES, STORES

__all__ = ["GOOD_LISTS", "GOOD_SOUNDS", "GOOD_STORES", "LISTS", "SOUNDS", "STORES", "Build", "Case"]

LISTS, GOOD_LISTS = MANIFESTS | SOURCES, GOOD_MANIFESTS | GOOD_SOURCES
