# What a person has to look at. docs/operations/aws.md says what to do about each.

# CloudWatch may not publish to a topic with AWS's own key.
resource "aws_sns_topic" "alarms" {
  #checkov:skip=CKV_AWS_26:Alarms name queues and counts, and need a key of one's own otherwise
  name = "${local.name}-alarms"
}

resource "aws_sns_topic_subscription" "alarms" {
  for_each = var.alarm_emails

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.key
}

resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  alarm_name          = "${local.name}-dead-letters"
  alarm_description   = "Jobs have failed for good. foreedge report names them, docs/operations/failures.md the causes."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.dead.name }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 1
  # SQS reports nothing of a queue that nobody has used for six hours.
  treat_missing_data = "notBreaching"
  alarm_actions      = [aws_sns_topic.alarms.arn]
  ok_actions         = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "oldest_message" {
  alarm_name          = "${local.name}-oldest-message"
  alarm_description   = "Messages wait for too long: too few replicas, or none that works. SQS deletes them after ${local.retention_s.jobs / 86400} days."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateAgeOfOldestMessage"
  dimensions          = { QueueName = aws_sqs_queue.jobs.name }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.oldest_message_alarm_s
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "stalled" {
  alarm_name          = "${local.name}-stalled"
  alarm_description   = "There are messages, and none was deleted for longer than a job may take. /readyz says why."
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  # One period more than the longest job, which may have begun in the middle of one.
  evaluation_periods = ceil(local.queue.job_deadline_s / local.stalled_period_s) + 1
  treat_missing_data = "notBreaching"
  alarm_actions      = [aws_sns_topic.alarms.arn]
  ok_actions         = [aws_sns_topic.alarms.arn]

  metric_query {
    id          = "stalled"
    label       = "Messages of a queue without deletions"
    expression  = "IF(FILL(deleted, 0) == 0, FILL(waiting, 0) + FILL(held, 0), 0)"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = {
      deleted = { name = "NumberOfMessagesDeleted", stat = "Sum" }
      waiting = { name = "ApproximateNumberOfMessagesVisible", stat = "Minimum" }
      held    = { name = "ApproximateNumberOfMessagesNotVisible", stat = "Minimum" }
    }
    content {
      id = metric_query.key
      metric {
        namespace   = "AWS/SQS"
        metric_name = metric_query.value.name
        dimensions  = { QueueName = aws_sqs_queue.jobs.name }
        period      = local.stalled_period_s
        stat        = metric_query.value.stat
      }
    }
  }
}
