"""The bundled model ``folio``: its weights, its synthetic photographs and its training."""
