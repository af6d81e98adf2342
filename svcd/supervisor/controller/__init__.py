"""The controller: the shell around the core. All I/O of supervision, and one writer to the machine.

Run as ``python -m svcd.supervisor.controller``; ``daemon.Daemon`` is the composition of everything here.
"""
