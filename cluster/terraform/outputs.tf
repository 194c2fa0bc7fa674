output "environment" {
  description = "Environment of the application: one variable for each setting that this module knows."
  value = merge(local.event_output, {
    FOREEDGE_QUEUE__URL                  = aws_sqs_queue.jobs.id
    FOREEDGE_QUEUE__VISIBILITY_TIMEOUT_S = tostring(local.queue.visibility_timeout_s)
    FOREEDGE_QUEUE__LONG_POLL_S          = tostring(local.queue.long_poll_s)
    FOREEDGE_QUEUE__DEFAULT_MAX_RECEIVES = tostring(local.queue.default_max_receives)
    FOREEDGE_QUEUE__JOB_DEADLINE_S       = tostring(local.queue.job_deadline_s)
    FOREEDGE_HTTP__API_KEYS_SECRET       = aws_secretsmanager_secret.api_keys.arn
    FOREEDGE_AWS__REGION                 = var.region
    FOREEDGE_LEDGER__BUCKET              = var.ledger_bucket
    FOREEDGE_LEDGER__PREFIX              = var.ledger_prefix
    FOREEDGE_STORAGE__ALLOWED_BUCKETS    = join(",", distinct([for place in concat(var.source_places, var.result_places, compact([var.upload_place])) : split("/", place)[0]]))
  })
}

output "queue_arn" {
  description = "ARN of the queue of jobs."
  value       = aws_sqs_queue.jobs.arn
}

output "dead_letter_queue_arn" {
  description = "ARN of the dead-letter queue."
  value       = aws_sqs_queue.dead.arn
}

output "image_repository" {
  description = "Repository of the images, to which a tag or a digest is added."
  value       = aws_ecr_repository.image.repository_url
}

output "ray_token_secret" {
  description = "ARN of the secret with Ray's token."
  value       = aws_secretsmanager_secret.ray_token.arn
}

output "deployment_role_arn" {
  description = "ARN of the role of GitHub's workflows."
  value       = aws_iam_role.deployment.arn
}

output "alarm_topic_arn" {
  description = "ARN of the topic that all alarms are sent to."
  value       = aws_sns_topic.alarms.arn
}

output "github_provider_arn" {
  description = "ARN of GitHub's OIDC provider, which another environment in the same account needs."
  value       = local.github_provider
}
