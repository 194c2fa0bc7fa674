# Buckets whose events are jobs. The notification of each bucket is set by hand, since Terraform would
# replace those that the bucket has: docs/operations/messages.md has the command.

data "aws_iam_policy_document" "events" {
  count = length(var.event_buckets) > 0 ? 1 : 0

  statement {
    sid       = "EventsOfS3"
    actions   = ["sqs:SendMessage"]
    resources = [local.jobs_queue]
    principals {
      type        = "Service"
      identifiers = ["s3.amazonaws.com"]
    }
    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = formatlist("${local.s3}%s", var.event_buckets)
    }
    # Names of buckets are global: one that is deleted may be made again in another account.
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_sqs_queue_policy" "events" {
  count = length(var.event_buckets) > 0 ? 1 : 0

  queue_url = aws_sqs_queue.jobs.id
  policy    = data.aws_iam_policy_document.events[0].json
}

locals {
  # An event names no output, so the application has to: the first of the places that it may write to.
  event_output_bucket = split("/", var.result_places[0])[0]
  event_output = length(var.event_buckets) == 0 ? tomap({}) : tomap({
    FOREEDGE_QUEUE__OUTPUT_BUCKET = local.event_output_bucket
    FOREEDGE_QUEUE__OUTPUT_PREFIX = trimprefix(var.result_places[0], "${local.event_output_bucket}/")
  })
}
