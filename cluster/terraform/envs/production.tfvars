environment = "production"
region      = "eu-central-1"

# Whose workflows may deploy, and who gets the alarms.
github_repository = "example/foreedge"
alarm_emails      = ["operations@example.com"]
cluster_arn       = "arn:aws:eks:eu-central-1:123456789012:cluster/production"
