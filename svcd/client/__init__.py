"""Calls to the services of a running cluster, from programs that are none of them.

Must not import anything here: ``svcd`` names what is public.
"""
