"""What an interpreter of a service's own executes first, as a file. Is it a Python that will do? Then to ``foreign``.

Must not use what a Python 2 cannot parse, nor import anything before this directory is off ``sys.path``: it is the one
that says that an interpreter is too old, and its neighbours have names of the service's own modules.
"""

import os
import sys

FAILURE = 70

if sys.version_info < (3, 11):  # noqa: UP036 - it is why this file is there
    # the name of the service, which svcd gives each process, and what it is instead of Python 3.11
    words = (os.environ.get("SVCD_SERVICE", "a stub"), sys.executable, sys.version_info[0], sys.version_info[1])
    sys.stderr.write("svcd: cannot run %s: %s is Python %d.%d, svcd needs 3.11 or later\n" % words)  # noqa: UP031
    sys.stderr.flush()
    os._exit(FAILURE)

here = os.path.dirname(os.path.abspath(__file__))
if sys.path and os.path.abspath(sys.path[0]) in (here, os.getcwd()) and not sys.flags.safe_path:
    del sys.path[0]

from importlib.util import module_from_spec, spec_from_file_location  # noqa: E402 - see above

spec = spec_from_file_location("svcd_foreign", os.path.join(here, "foreign.py"))
if spec is None or spec.loader is None:
    raise SystemExit(FAILURE)
foreign = module_from_spec(spec)
spec.loader.exec_module(foreign)
foreign.run()
