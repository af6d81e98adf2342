"""``python -I -S svcd/supervisor/__main__.py JSON``: the guardian's process.

Must not hold code: what is run by its path is compiled each time. Isolated and without site directories, so that
nothing but the standard library and what stands beside it can be imported; our package is found from here.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from svcd.supervisor.guardian import main

main()
