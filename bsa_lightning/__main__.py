"""``python -m bsa_lightning`` is the ``lightning`` command."""

import sys

from bsa_lightning.commands.main import main

sys.exit(main())
