# A bucket for models, a role that reads it, nodes with GPUs where they are asked for, and the release. Small on purpose: the cluster,
# its network and its add-ons are there.
terraform {
  required_version = ">= 1.6"
  required_providers {
    aws  = { source = "hashicorp/aws", version = ">= 5.60" }
    helm = { source = "hashicorp/helm", version = ">= 3.0" }
  }
}

resource "aws_s3_bucket" "models" {
  bucket = var.model_bucket
  tags   = var.tags
}

# What was served can be served again.
resource "aws_s3_bucket_versioning" "models" {
  bucket = aws_s3_bucket.models.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_public_access_block" "models" {
  bucket                  = aws_s3_bucket.models.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]
    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "read" {
  statement {
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.models.arn]
  }
  statement {
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.models.arn}/models/*"]
  }
}

resource "aws_iam_role" "reader" {
  name_prefix        = "sluicegate-"
  assume_role_policy = data.aws_iam_policy_document.assume.json
  tags               = var.tags
}

resource "aws_iam_role_policy" "reader" {
  name   = "read-models"
  role   = aws_iam_role.reader.id
  policy = data.aws_iam_policy_document.read.json
}

# The pods of the release read the bucket as this role; modelStore.fetch of the values uses it.
resource "aws_eks_pod_identity_association" "reader" {
  cluster_name    = var.cluster_name
  namespace       = var.namespace
  service_account = "sluicegate"
  role_arn        = aws_iam_role.reader.arn
  tags            = var.tags
}

resource "aws_eks_node_group" "gpu" {
  count           = var.gpu == null ? 0 : 1
  cluster_name    = var.cluster_name
  node_group_name = "sluicegate-gpu"
  node_role_arn   = var.gpu.node_role_arn
  subnet_ids      = var.gpu.subnet_ids
  instance_types  = var.gpu.instance_types
  ami_type        = "AL2023_x86_64_NVIDIA"
  labels          = { "sluicegate/gpu" = "true" }
  tags            = var.tags

  scaling_config {
    min_size     = var.gpu.min_size
    desired_size = var.gpu.min_size
    max_size     = var.gpu.max_size
  }

  # The chart tolerates this where a model says `device: cuda:0`; nothing else comes here.
  taint {
    key    = "nvidia.com/gpu"
    value  = "present"
    effect = "NO_SCHEDULE"
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]
  }
}

resource "helm_release" "sluicegate" {
  name             = "sluicegate"
  namespace        = var.namespace
  create_namespace = true
  chart            = var.chart
  version          = var.chart_version
  values           = [for file in var.values_files : file(file)]
  atomic           = true
  wait             = true

  depends_on = [aws_eks_pod_identity_association.reader]
}
