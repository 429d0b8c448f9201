# A service role for CodeBuild projects. Only CodeBuild may assume it, and only for
# these projects: whoever else could, could give a session the name of a build.
# What the builds need beside Assay, add to it elsewhere.

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
  policies  = "${path.module}/../../policies"
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition

  project_arns = flatten([
    for region, names in var.projects : [
      for name in names : "arn:${local.partition}:codebuild:${region}:${local.account}:project/${name}"
    ]
  ])
}

resource "aws_iam_role" "build" {
  name        = var.role_name
  description = "Builds of CodeBuild"
  assume_role_policy = templatefile("${local.policies}/codebuild-trust.json", {
    account_id   = local.account
    project_arns = jsonencode(local.project_arns)
  })
}

# Only for builds that prove themselves with web identity tokens. The proof by STS
# needs no permission at all.

resource "aws_iam_role_policy" "web_identity" {
  count = var.web_identity_audience == "" ? 0 : 1
  name  = "assay-web-identity"
  role  = aws_iam_role.build.id
  policy = templatefile("${local.policies}/web-identity.json", {
    audience = var.web_identity_audience
  })
}

resource "aws_iam_role_policy" "web_identity_tag" {
  count = var.web_identity_audience == "" || var.build_tag == "" ? 0 : 1
  name  = "assay-web-identity-tag"
  role  = aws_iam_role.build.id
  policy = templatefile("${local.policies}/web-identity-tag.json", {
    build_tag = var.build_tag
  })
}
