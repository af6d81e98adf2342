"""The decisions of supervision: a deterministic machine from events to actions.

It imports nothing of ours, no clock, no randomness, no I/O: see ``machine.Machine.handle``.
"""
