"""``python -m svcd``: the same as ``svcd``.

Must not do anything by itself.
"""

from svcd.cli.main import main

if __name__ == "__main__":
    main()
