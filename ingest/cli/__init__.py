"""The ``foreedge`` command."""
