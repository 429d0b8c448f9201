# The role that assayd runs as. It may become the reader role of each account, and
# that is all: Assay holds no key of any account.

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
  policies = "${path.module}/../../policies"
}

resource "aws_iam_role" "service" {
  name                 = var.role_name
  description          = "assayd"
  max_session_duration = 3600
  assume_role_policy = templatefile("${local.policies}/service-trust-${var.runs_on}.json", {
    partition  = data.aws_partition.current.partition
    account_id = data.aws_caller_identity.current.account_id
  })
}

resource "aws_iam_role_policy" "service" {
  name = "become-reader"
  role = aws_iam_role.service.id
  policy = templatefile("${local.policies}/service.json", {
    reader_role_arns = jsonencode(var.reader_role_arns)
  })
}

resource "aws_iam_instance_profile" "service" {
  count = var.runs_on == "ec2" ? 1 : 0
  name  = var.role_name
  role  = aws_iam_role.service.name
}
