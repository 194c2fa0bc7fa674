"""Compare Foreedge with other systems: ``python -m loadtests.peers``."""

import sys

from loadtests.peers.comparison import main
from serve_app.errors import ForeedgeError

if __name__ == "__main__":
    try:
        main()
    except ForeedgeError as error:
        sys.exit(f"error: {error.code}: {error.message}")
