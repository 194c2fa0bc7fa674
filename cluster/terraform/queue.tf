# The queue of jobs, and the one that keeps what failed for good.

# SQS encrypts a queue with its own keys unless a key of KMS is named. S3 and SNS cannot send to a
# queue with AWS's key of KMS.
resource "aws_sqs_queue" "dead" {
  #checkov:skip=CKV_AWS_27:SQS encrypts with its own keys by default, and events of S3 must arrive
  name                      = "${local.name}-dead"
  message_retention_seconds = local.retention_s.dead
}

resource "aws_sqs_queue" "jobs" {
  #checkov:skip=CKV_AWS_27:SQS encrypts with its own keys by default, and events of S3 must arrive
  name                       = local.name
  visibility_timeout_seconds = local.queue.visibility_timeout_s
  receive_wait_time_seconds  = local.queue.long_poll_s
  message_retention_seconds  = local.retention_s.jobs

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead.arn
    maxReceiveCount     = local.queue.default_max_receives
  })
}
