"""The foreedge command."""
