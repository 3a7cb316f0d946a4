"""`python -m serried.cli`: the `serried` command where its script is not on the path."""

import sys

from serried.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
