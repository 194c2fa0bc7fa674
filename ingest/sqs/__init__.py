"""SQS: every call to it, its limits, and its errors."""
