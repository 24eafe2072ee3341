"""``python -m bsa_lightning`` is the ``lightning`` command."""

import sys

from bsa_lightning.cli.main import main

sys.exit(main())
