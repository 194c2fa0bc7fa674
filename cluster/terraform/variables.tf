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
