variable "environment" {
  description = "Name of the environment, which is part of every name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,20}$", var.environment))
    error_message = "The environment must begin with a letter and have at most 21 small letters, digits and hyphens."
  }
}

variable "region" {
  description = "AWS region of everything."
  type        = string
}

variable "github_repository" {
  description = "Repository whose workflows deploy, as OWNER/NAME."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "The repository must be OWNER/NAME, without an asterisk."
  }
}

variable "github_provider_arn" {
  description = "ARN of GitHub's OIDC provider if the account has it already: an account has one. Null makes it."
  type        = string
  default     = null
}

variable "cluster_arn" {
  description = "ARN of the EKS cluster that the workflows deploy to. Null if they deploy to none."
  type        = string
  default     = null
}

variable "alarm_emails" {
  description = "Addresses that get the alarms. Each has to confirm it by the link in AWS's first message."
  type        = set(string)
  default     = []
}

variable "oldest_message_alarm_s" {
  description = "Age of the oldest message, in seconds, at which the alarm goes off. It should exceed the length of a planned run."
  type        = number
  default     = 21600

  validation {
    condition     = var.oldest_message_alarm_s >= 60 && var.oldest_message_alarm_s < 345600
    error_message = "The age must be from 60 s to 4 days, after which SQS deletes a message."
  }
}
