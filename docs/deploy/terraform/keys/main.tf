# Keys of KMS that assayd signs with. Their policies do not leave the decision to the
# account's IAM: the service signs, in the one way that belongs to the key, the
# administrators do everything but sign, and nobody may delegate or delete.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

locals {
  policies = "${path.module}/../../policies"

  algorithms = {
    ECC_NIST_P256 = "ECDSA_SHA_256"
    ECC_NIST_P384 = "ECDSA_SHA_384"
    RSA_2048      = "RSASSA_PSS_SHA_256"
    RSA_3072      = "RSASSA_PSS_SHA_256"
    RSA_4096      = "RSASSA_PSS_SHA_256"
    ML_DSA_65     = "ML_DSA_SHAKE_256"
  }
}

resource "aws_kms_key" "signing" {
  for_each                 = var.keys
  description              = "Assay signs with it: ${each.key}"
  key_usage                = "SIGN_VERIFY"
  customer_master_key_spec = each.value
  deletion_window_in_days  = 30
  policy = templatefile("${local.policies}/key-signing.json", {
    service_role_arn  = var.service_role_arn
    admin_role_arns   = jsonencode(var.admin_role_arns)
    signing_algorithm = local.algorithms[each.value]
    message_type      = each.value == "ML_DSA_65" ? "EXTERNAL_MU" : "DIGEST"
  })

  lifecycle {
    prevent_destroy = true
    precondition {
      condition     = !contains(var.admin_role_arns, var.service_role_arn)
      error_message = "The service does not administer its own keys."
    }
  }
}

# The alias is how the key is named to `assayd keys`, which asks once what it means.
# Pointing it elsewhere changes nothing until `assayd keys rotate`.

resource "aws_kms_alias" "signing" {
  for_each      = var.keys
  name          = "alias/${var.alias_prefix}-${each.key}"
  target_key_id = aws_kms_key.signing[each.key].key_id
}
