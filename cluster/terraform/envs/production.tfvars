environment = "production"
region      = "eu-central-1"

# Whose workflows may deploy, and who gets the alarms.
github_repository = "example/foreedge"
alarm_emails      = ["operations@example.com"]
cluster_arn       = "arn:aws:eks:eu-central-1:123456789012:cluster/production"

# The buckets exist. Places are BUCKET/PREFIX.
ledger_bucket = "shelf-ledger"
source_places = ["shelf-images/in/"]
result_places = ["shelf-cutouts/results/"]
upload_place  = "shelf-images/uploads/"

oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
service_accounts = {
  head   = "foreedge:foreedge-head"
  worker = "foreedge:foreedge-worker"
}
principals = {
  operator = ["arn:aws:iam::123456789012:role/engineers"]
  producer = ["arn:aws:iam::123456789012:role/book-shop"]
}
