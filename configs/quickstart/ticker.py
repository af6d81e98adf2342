"""Reads the notes every two seconds and says how many there are: a program like any other.

Must not import svcd: it shows that nothing has to.
"""

import sys
import time
import urllib.request

if len(sys.argv) != 2:
    sys.exit("usage: ticker.py URL")

while True:
    with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:
        notes = answer.read().decode().splitlines()
    print(f"{len(notes)} notes, the last one: {notes[-1]}", flush=True)
    time.sleep(2)
