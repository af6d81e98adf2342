"""Runs of services: what is spawned, how it is contained, reached and ended."""
