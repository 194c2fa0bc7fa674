"""Values that cross processes or are stored: jobs, recipes, outcomes, facts about models.

Nearly all are frozen pydantic models, so a value that exists is valid. The same recipe always has
the same canonical form, which is part of the fingerprint of a result.
"""
