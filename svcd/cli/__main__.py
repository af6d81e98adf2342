"""``python -m svcd.cli``: the same as the command ``svcd``.

Must not do anything else.
"""

from svcd.cli.main import main

main()
