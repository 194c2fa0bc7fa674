"""The jobs of a book collection, whose state is in the tables of its own Postgres database."""
