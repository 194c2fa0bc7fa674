"""The HttpApi deployment: routes, limits and errors. No pixel is touched here."""
