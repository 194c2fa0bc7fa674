# What the application's settings say of the queue. tests/deployment/test_terraform.py compares
# these values with QueueConfig (serve_app/config/services.py), name by name.
locals {
  queue = {
    visibility_timeout_s = 120
    long_poll_s          = 20
    default_max_receives = 5
    job_deadline_s       = 600
  }

  # SQS keeps messages for two weeks at most. A message moved to the dead-letter queue by SQS keeps its
  # age, so the jobs must leave it some days.
  retention_s = {
    jobs = 4 * 24 * 3600
    dead = 14 * 24 * 3600
  }

  # Time over which CloudWatch adds up the deletions of messages.
  stalled_period_s = 300

  name = "foreedge-${var.environment}"
}
