environment = "staging"
region      = "eu-central-1"

# Whose workflows may deploy, and who gets the alarms.
github_repository = "example/foreedge"
alarm_emails      = ["operations@example.com"]

# The buckets exist. Places are BUCKET/PREFIX.
ledger_bucket = "shelf-staging"
source_places = ["shelf-staging/photographs/"]
result_places = ["shelf-staging/cutouts/"]

catalog_secret = "collection/database"

nodes_on_ec2 = true
principals = {
  operator = ["arn:aws:iam::123456789012:role/engineers"]
}
