"""How does a person ask?

One file a verb. In: words on a command line. Out: an answer for people, or with `--json` one for programs; exit code
0 (answered), 1 (no answer: nothing fits) or 2 (bad input, with field, value, expectation and remedy).
"""

from serried.cli.app import main

__all__ = ["main"]
