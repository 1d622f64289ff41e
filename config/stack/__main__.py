"""``python -m config.stack``: the same commands without Django, for when settings cannot be imported."""

import sys

from config.stack.cli import main

sys.exit(main())
