# Terraform from 1.10 or OpenTofu from 1.10: the state's lock is an object next to it.
terraform {
  required_version = ">= 1.10.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.62"
    }
  }

  # Bucket, key and region are in envs/NAME.s3.tfbackend.
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      Application = "foreedge"
      Environment = var.environment
    }
  }
}
