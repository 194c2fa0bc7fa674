"""Compare Foreedge with other systems: ``python -m loadtests.peers``."""

from loadtests.peers.comparison import main

if __name__ == "__main__":
    main()
