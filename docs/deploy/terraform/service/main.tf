# The role that assayd runs as. It may become the reader role of each account, and,
# where they are named, sign with keys of KMS and a profile of AWS Signer. It may make,
# change and delegate none of them.

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

# Keys of the same account that the module keys made need none of this: their own
# policies name the role. Keys of another account need both.

resource "aws_iam_role_policy" "kms" {
  count = length(var.kms_key_arns) > 0 ? 1 : 0
  name  = "sign-digests"
  role  = aws_iam_role.service.id
  policy = templatefile("${local.policies}/service-kms.json", {
    key_arns = jsonencode(var.kms_key_arns)
  })
}

resource "aws_iam_role_policy" "kms_mldsa" {
  count = length(var.mldsa_key_arns) > 0 ? 1 : 0
  name  = "co-sign"
  role  = aws_iam_role.service.id
  policy = templatefile("${local.policies}/service-kms-mldsa.json", {
    key_arns = jsonencode(var.mldsa_key_arns)
  })
}

resource "aws_iam_role_policy" "signer" {
  count = length(var.signer_profile_arns) > 0 ? 1 : 0
  name  = "sign-with-aws-signer"
  role  = aws_iam_role.service.id
  policy = templatefile("${local.policies}/service-signer.json", {
    profile_arns = jsonencode(var.signer_profile_arns)
  })
}
