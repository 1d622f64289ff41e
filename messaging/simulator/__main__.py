"""``python -m messaging.simulator``."""

import sys

from messaging.simulator.cli import main

if __name__ == "__main__":
    sys.exit(main())
