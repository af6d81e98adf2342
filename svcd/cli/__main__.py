"""``python -m svcd.cli``: the same as the command ``svcd``.

Must not do anything else.
"""

import sys

from svcd.cli.main import main

sys.exit(main())
