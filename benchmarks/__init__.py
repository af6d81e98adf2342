"""Benchmarks of svcd beside the bare primitives that bound it: ``python -m benchmarks``.

Must not assert anything: numbers are printed with their budgets, and people judge.
"""
