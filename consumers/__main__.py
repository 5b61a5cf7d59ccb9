"""`python -m consumers tasks`, and the others: one of them alone, as many times as there are machines for it."""

import sys

from service.__main__ import main

CONSUMERS = ("tasks", "completions", "deadlines", "archiver")

if len(sys.argv) != 2 or sys.argv[1] not in CONSUMERS:
    sys.stderr.write(f"usage: python -m consumers {'|'.join(CONSUMERS)}\n")
    sys.exit(2)
sys.argv[1:] = ["serve", "--only", sys.argv[1]]
main()
