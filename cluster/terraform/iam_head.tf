# Ray's head: Serve's controller reads the length of the queue, and runs no replica.
data "aws_iam_policy_document" "head" {
  statement {
    sid       = "ReadBacklog"
    actions   = ["sqs:GetQueueAttributes"]
    resources = [local.jobs_queue]
  }
}
