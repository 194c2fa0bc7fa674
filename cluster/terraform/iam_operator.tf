# Whoever runs the command foreedge.
data "aws_iam_policy_document" "operator" {
  statement {
    sid       = "SendJobs"
    actions   = ["sqs:GetQueueAttributes", "sqs:SendMessage"]
    resources = [local.jobs_queue]
  }

  # foreedge redrive --clear-dead-letters: letters of other jobs are hidden for a moment.
  statement {
    sid = "ClearDeadLetters"
    actions = [
      "sqs:ChangeMessageVisibility",
      "sqs:DeleteMessage",
      "sqs:GetQueueUrl",
      "sqs:ReceiveMessage",
    ]
    resources = [local.dead_queue]
  }

  statement {
    sid       = "ShowImages"
    actions   = ["s3:GetObject"]
    resources = concat(local.sources, local.uploads, local.results)
  }

  statement {
    sid       = "KeepLedger"
    actions   = ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
    resources = [local.ledger]
  }

  statement {
    sid       = "FindObjects"
    actions   = ["s3:ListBucket"]
    resources = local.buckets
  }

  dynamic "statement" {
    for_each = local.uploads
    content {
      sid       = "UploadImages"
      actions   = ["s3:PutObject"]
      resources = [statement.value]
    }
  }
}
