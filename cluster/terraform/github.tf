# The role that GitHub's workflows have, without any key that could be stolen. It ends with the job.

locals {
  github          = "token.actions.githubusercontent.com"
  github_provider = var.github_provider_arn == null ? aws_iam_openid_connect_provider.github[0].arn : var.github_provider_arn
}

resource "aws_iam_openid_connect_provider" "github" {
  count = var.github_provider_arn == null ? 1 : 0

  url            = "https://${local.github}"
  client_id_list = ["sts.amazonaws.com"]
  # AWS knows GitHub's certificate authorities by itself and ignores these, which GitHub published
  # on 27 June 2023. Older versions of the provider demand them.
  thumbprint_list = [
    "6938fd4d98bab03faadb97b34396831e3780aea1",
    "1c58a3a8518e8759bf075b76b750d4f2df264fcd",
  ]
}

# Jobs of one environment of one repository. GitHub lets a job into an environment by the
# environment's own rules: branches, tags, reviewers.
data "aws_iam_policy_document" "deployment_trust" {
  statement {
    sid     = "JobsOfTheEnvironment"
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [local.github_provider]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.github}:aud"
      values   = ["sts.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.github}:sub"
      values   = ["repo:${var.github_repository}:environment:${var.environment}"]
    }
  }
}

data "aws_iam_policy_document" "deployment" {
  #checkov:skip=CKV_AWS_356:ecr:GetAuthorizationToken knows no resources
  statement {
    sid       = "LogInToRegistry"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }

  statement {
    sid = "PushImages"
    actions = [
      "ecr:BatchCheckLayerAvailability",
      "ecr:BatchGetImage",
      "ecr:CompleteLayerUpload",
      "ecr:DescribeImages",
      "ecr:GetDownloadUrlForLayer",
      "ecr:InitiateLayerUpload",
      "ecr:PutImage",
      "ecr:UploadLayerPart",
    ]
    resources = [aws_ecr_repository.image.arn]
  }

  # What the job may do in the cluster, the cluster's own access entry says.
  dynamic "statement" {
    for_each = var.cluster_arn == null ? [] : [var.cluster_arn]
    content {
      sid       = "FindCluster"
      actions   = ["eks:DescribeCluster"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_role" "deployment" {
  name                 = "${local.name}-deployment"
  description          = "Foreedge, ${var.environment}: workflows of ${var.github_repository}"
  assume_role_policy   = data.aws_iam_policy_document.deployment_trust.json
  max_session_duration = 3600
}

resource "aws_iam_role_policy" "deployment" {
  name   = "deployment"
  role   = aws_iam_role.deployment.id
  policy = data.aws_iam_policy_document.deployment.json
}
