"""Values that cross a process or are stored: jobs, recipes, outcomes, model facts.

All are frozen pydantic models. A value that exists is valid, and the same recipe always has the
same canonical form, which is part of the fingerprint of a result.
"""
