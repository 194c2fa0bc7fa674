environment = "staging"
region      = "eu-central-1"

# Whose workflows may deploy, and who gets the alarms.
github_repository = "example/foreedge"
alarm_emails      = ["operations@example.com"]
