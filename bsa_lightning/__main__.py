"""``python -m bsa_lightning`` is the ``lightning`` command."""

import sys

from bsa_lightning.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
