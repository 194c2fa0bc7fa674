"""Training and scores of folio. The program never imports it, because it needs PyTorch."""
