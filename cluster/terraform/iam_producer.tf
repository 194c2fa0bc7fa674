# Other applications, and POST /v1/jobs: whoever puts jobs on the queue.
data "aws_iam_policy_document" "producer" {
  statement {
    sid       = "SendJobs"
    actions   = ["sqs:SendMessage"]
    resources = [local.jobs_queue]
  }
}
