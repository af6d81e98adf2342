"""The vocabulary that svcd's parts, stubs and clients share: typed messages, codec, limits, error codes, places.

It imports nothing of ours.
"""
