# What nodes on EC2 need outside of Kubernetes, where the nodes are started by Ray and pull the image
# themselves. On EKS, Karpenter and the role of the nodes do that.

locals {
  ec2     = "arn:${data.aws_partition.current.partition}:ec2:${var.region}:${data.aws_caller_identity.current.account_id}"
  ec2_any = "arn:${data.aws_partition.current.partition}:ec2:${var.region}:"

  node_policies = {
    image = data.aws_iam_policy_document.image.json
    ray   = data.aws_iam_policy_document.ray.json
  }
  node_attachments = var.nodes_on_ec2 ? toset(["head/image", "worker/image", "head/ray"]) : toset([])
}

# Docker on the host logs in to the registry with the role of the instance.
data "aws_iam_policy_document" "image" {
  #checkov:skip=CKV_AWS_356:ecr:GetAuthorizationToken knows no resources
  statement {
    sid       = "LogInToRegistry"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }

  statement {
    sid       = "PullImages"
    actions   = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = [aws_ecr_repository.image.arn]
  }
}

# Ray's autoscaler on the head starts and ends the workers of its own cluster, which has the name of the
# environment (CLUSTER_NAME of cluster/ray-up.yaml).
data "aws_iam_policy_document" "ray" {
  #checkov:skip=CKV_AWS_356:ec2:DescribeInstances knows no resources
  statement {
    sid       = "FindNodes"
    actions   = ["ec2:DescribeInstances"]
    resources = ["*"]
  }

  statement {
    sid     = "StartNodes"
    actions = ["ec2:RunInstances"]
    resources = [
      "${local.ec2_any}:image/*",
      "${local.ec2}:instance/*",
      "${local.ec2}:key-pair/*",
      "${local.ec2}:network-interface/*",
      "${local.ec2}:security-group/*",
      "${local.ec2}:subnet/*",
      "${local.ec2}:volume/*",
    ]
  }

  statement {
    sid       = "TagNewNodes"
    actions   = ["ec2:CreateTags"]
    resources = ["${local.ec2}:instance/*", "${local.ec2}:volume/*"]
    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["RunInstances"]
    }
  }

  statement {
    sid       = "EndNodes"
    actions   = ["ec2:CreateTags", "ec2:TerminateInstances"]
    resources = ["${local.ec2}:instance/*"]
    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/ray-cluster-name"
      values   = [local.name]
    }
  }

  statement {
    sid       = "GiveWorkersTheirRole"
    actions   = ["iam:PassRole"]
    resources = ["arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:role/${local.name}-worker"]
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_policy" "node" {
  for_each = var.nodes_on_ec2 ? local.node_policies : {}

  name        = "${local.name}-node-${each.key}"
  description = "Foreedge, ${var.environment}: nodes on EC2, ${each.key}"
  policy      = each.value
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = local.node_attachments

  role       = aws_iam_role.application[split("/", each.key)[0]].name
  policy_arn = aws_iam_policy.node[split("/", each.key)[1]].arn
}

resource "aws_iam_instance_profile" "node" {
  for_each = toset(local.on_ec2)

  name = "${local.name}-${each.key}"
  role = aws_iam_role.application[each.key].name
}

output "instance_profiles" {
  description = "Instance profile of head and worker, for cluster/ray-up.yaml."
  value       = { for role, profile in aws_iam_instance_profile.node : role => profile.name }
}
