"""Training and scoring of folio; needs PyTorch and is never imported by the program."""
