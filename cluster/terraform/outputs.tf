output "environment" {
  description = "Environment of the application: one variable for each setting that this module knows."
  value = {
    FOREEDGE_QUEUE__URL                  = aws_sqs_queue.jobs.id
    FOREEDGE_QUEUE__VISIBILITY_TIMEOUT_S = tostring(local.queue.visibility_timeout_s)
    FOREEDGE_QUEUE__LONG_POLL_S          = tostring(local.queue.long_poll_s)
    FOREEDGE_QUEUE__DEFAULT_MAX_RECEIVES = tostring(local.queue.default_max_receives)
    FOREEDGE_AWS__REGION                 = var.region
  }
}

output "queue_arn" {
  description = "ARN of the queue of jobs."
  value       = aws_sqs_queue.jobs.arn
}

output "dead_letter_queue_arn" {
  description = "ARN of the dead-letter queue."
  value       = aws_sqs_queue.dead.arn
}
