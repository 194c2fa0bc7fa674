"""Find the fastest settings on this machine: ``python -m loadtests.tuner``."""

from loadtests.tuner.tune import main

if __name__ == "__main__":
    main()
