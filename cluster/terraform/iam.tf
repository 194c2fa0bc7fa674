# The four roles: who may have them, and their policies. iam_head.tf, iam_worker.tf, iam_producer.tf and
# iam_operator.tf have the policies. docs/operations/permissions.md explains every statement.

data "aws_partition" "current" {}
data "aws_caller_identity" "current" {}

locals {
  # By name and not by reference: a change of a queue would otherwise show as one of each policy.
  sqs        = "arn:${data.aws_partition.current.partition}:sqs:${var.region}:${data.aws_caller_identity.current.account_id}"
  jobs_queue = "${local.sqs}:${local.name}"
  dead_queue = "${local.sqs}:${local.name}-dead"

  secrets = "arn:${data.aws_partition.current.partition}:secretsmanager:${var.region}:${data.aws_caller_identity.current.account_id}"

  s3 = "arn:${data.aws_partition.current.partition}:s3:::"

  # ARNs of the objects in each place.
  sources = formatlist("${local.s3}%s*", var.source_places)
  results = formatlist("${local.s3}%s*", var.result_places)
  uploads = formatlist("${local.s3}%s*", compact([var.upload_place]))
  ledger  = "${local.s3}${var.ledger_bucket}/${var.ledger_prefix}*"

  # ARNs of the buckets. S3 answers 404 for an object that does not exist only to who may list its
  # bucket without a condition on the prefix, and 403 to everybody else.
  buckets = formatlist("${local.s3}%s", distinct([
    for place in concat(var.source_places, var.result_places, compact([var.upload_place]), ["${var.ledger_bucket}/"]) :
    split("/", place)[0]
  ]))

  policies = {
    head     = data.aws_iam_policy_document.head.json
    worker   = data.aws_iam_policy_document.worker.json
    producer = data.aws_iam_policy_document.producer.json
    operator = data.aws_iam_policy_document.operator.json
  }

  issuer   = var.oidc_provider_arn == null ? "" : split("oidc-provider/", var.oidc_provider_arn)[1]
  accounts = var.oidc_provider_arn == null ? {} : var.service_accounts
  pods     = var.pod_identity ? var.service_accounts : {}
  on_ec2   = var.nodes_on_ec2 ? ["head", "worker"] : []
  assumed  = { for role, arns in var.principals : role => arns if length(arns) > 0 }

  # A role that nobody may have does not exist.
  roles = toset(distinct(concat(local.on_ec2, keys(local.accounts), keys(local.pods), keys(local.assumed))))
}

# Who may have each role.
data "aws_iam_policy_document" "trust" {
  for_each = local.roles

  dynamic "statement" {
    for_each = contains(local.on_ec2, each.key) ? ["ec2"] : []
    content {
      sid     = "InstancesOfEc2"
      actions = ["sts:AssumeRole"]
      principals {
        type        = "Service"
        identifiers = ["ec2.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    for_each = contains(keys(local.accounts), each.key) ? [local.accounts[each.key]] : []
    content {
      sid     = "ServiceAccountOfEks"
      actions = ["sts:AssumeRoleWithWebIdentity"]
      principals {
        type        = "Federated"
        identifiers = [var.oidc_provider_arn]
      }
      condition {
        test     = "StringEquals"
        variable = "${local.issuer}:sub"
        values   = ["system:serviceaccount:${statement.value}"]
      }
      condition {
        test     = "StringEquals"
        variable = "${local.issuer}:aud"
        values   = ["sts.amazonaws.com"]
      }
    }
  }

  # EKS tags the session with the pod that asks for it.
  dynamic "statement" {
    for_each = contains(keys(local.pods), each.key) ? [split(":", local.pods[each.key])] : []
    content {
      sid     = "PodsOfEks"
      actions = ["sts:AssumeRole", "sts:TagSession"]
      principals {
        type        = "Service"
        identifiers = ["pods.eks.amazonaws.com"]
      }
      condition {
        test     = "StringEquals"
        variable = "aws:RequestTag/eks-cluster-arn"
        values   = compact([var.cluster_arn])
      }
      condition {
        test     = "StringEquals"
        variable = "aws:RequestTag/kubernetes-namespace"
        values   = [statement.value[0]]
      }
      condition {
        test     = "StringEquals"
        variable = "aws:RequestTag/kubernetes-service-account"
        values   = [statement.value[1]]
      }
    }
  }

  dynamic "statement" {
    for_each = contains(keys(local.assumed), each.key) ? [local.assumed[each.key]] : []
    content {
      sid     = "NamedPrincipals"
      actions = ["sts:AssumeRole"]
      principals {
        type        = "AWS"
        identifiers = statement.value
      }
    }
  }
}

resource "aws_iam_role" "application" {
  for_each = local.roles

  name               = "${local.name}-${each.key}"
  description        = "Foreedge, ${var.environment}: ${each.key}"
  assume_role_policy = data.aws_iam_policy_document.trust[each.key].json
}

# Managed policies, so that an application with a role of its own can send jobs: attach the producer's.
resource "aws_iam_policy" "application" {
  for_each = local.policies

  name        = "${local.name}-${each.key}"
  description = "Foreedge, ${var.environment}: ${each.key}"
  policy      = each.value
}

resource "aws_iam_role_policy_attachment" "application" {
  for_each = local.roles

  role       = aws_iam_role.application[each.key].name
  policy_arn = aws_iam_policy.application[each.key].arn
}

output "role_arns" {
  description = "ARN of each role, for the annotation eks.amazonaws.com/role-arn of its service account."
  value       = { for role in local.roles : role => aws_iam_role.application[role].arn }
}

output "policy_arns" {
  description = "ARN of each policy. An application with a role of its own attaches the producer's to send jobs."
  value       = { for role, policy in aws_iam_policy.application : role => policy.arn }
}
