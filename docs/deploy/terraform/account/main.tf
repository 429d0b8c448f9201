# The reader role of one account: what Assay may see of its builds, and no more.
# Apply it once in each account whose builds attest.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  policies   = "${path.module}/../../policies"
  account    = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  dns_suffix = data.aws_partition.current.dns_suffix

  project_arns = flatten([
    for region, names in var.projects : [
      for name in names : "arn:${local.partition}:codebuild:${region}:${local.account}:project/${name}"
    ]
  ])
  bucket_arns = [for name in var.artifact_buckets : "arn:${local.partition}:s3:::${name}"]
}

resource "aws_iam_role" "reader" {
  name                 = var.reader_role_name
  description          = "Assay reads builds, their projects and what they uploaded"
  max_session_duration = 3600
  assume_role_policy = templatefile("${local.policies}/reader-trust.json", {
    service_role_arn = var.service_role_arn
    external_id      = var.external_id
  })
}

resource "aws_iam_role_policy" "builds" {
  name = "read-builds"
  role = aws_iam_role.reader.id
  policy = templatefile("${local.policies}/reader-builds.json", {
    project_arns = jsonencode(local.project_arns)
  })
}

resource "aws_iam_role_policy" "roles" {
  count = length(var.build_role_arns) > 0 ? 1 : 0
  name  = "read-trust-policies"
  role  = aws_iam_role.reader.id
  policy = templatefile("${local.policies}/reader-roles.json", {
    build_role_arns = jsonencode(var.build_role_arns)
  })
}

resource "aws_iam_role_policy" "artifacts" {
  count = length(var.artifact_buckets) > 0 ? 1 : 0
  name  = "read-artifacts"
  role  = aws_iam_role.reader.id
  policy = templatefile("${local.policies}/reader-artifacts.json", {
    bucket_arns = jsonencode(local.bucket_arns)
    object_arns = jsonencode([for arn in local.bucket_arns : "${arn}/*"])
  })
}

resource "aws_iam_role_policy" "kms" {
  count = length(var.artifact_key_arns) > 0 ? 1 : 0
  name  = "decrypt-artifacts"
  role  = aws_iam_role.reader.id
  policy = templatefile("${local.policies}/reader-kms.json", {
    key_arns    = jsonencode(var.artifact_key_arns)
    s3_services = jsonencode([for region in keys(var.projects) : "s3.${region}.${local.dns_suffix}"])
  })
}
