# Ray's workers: every replica of the application. POST /v1/jobs is served there too, so a worker is a
# producer as well.
data "aws_iam_policy_document" "worker" {
  source_policy_documents = [data.aws_iam_policy_document.producer.json]

  statement {
    sid = "ConsumeJobs"
    actions = [
      "sqs:ChangeMessageVisibility",
      "sqs:DeleteMessage",
      "sqs:GetQueueAttributes",
      "sqs:ReceiveMessage",
    ]
    resources = [local.jobs_queue]
  }

  statement {
    sid       = "KeepDeadLetters"
    actions   = ["sqs:GetQueueUrl", "sqs:SendMessage"]
    resources = [local.dead_queue]
  }

  statement {
    sid       = "ReadImages"
    actions   = ["s3:GetObject", "s3:GetObjectVersion"]
    resources = concat(local.sources, local.uploads)
  }

  # GetObject, because a result is looked up before it is made.
  statement {
    sid       = "WriteResults"
    actions   = ["s3:GetObject", "s3:PutObject"]
    resources = local.results
  }

  statement {
    sid       = "RecordOutcomes"
    actions   = ["s3:GetObject", "s3:PutObject"]
    resources = [local.ledger]
  }

  # The suffix is Secrets Manager's own.
  statement {
    sid       = "ReadApiKeys"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = ["${local.secrets}:secret:${local.name}/api-keys-??????"]
  }

  dynamic "statement" {
    for_each = var.catalog_secret == null ? [] : [var.catalog_secret]
    content {
      sid       = "ReadDatabaseLogin"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = ["${local.secrets}:secret:${statement.value}-??????"]
    }
  }

  statement {
    sid       = "FindObjects"
    actions   = ["s3:ListBucket"]
    resources = local.buckets
  }
}
