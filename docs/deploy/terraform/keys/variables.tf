variable "keys" {
  description = "What the keys are for and of which kind: name to key spec, for example { attestation-2026 = \"ECC_NIST_P256\" }"
  type        = map(string)
  validation {
    condition     = length(var.keys) > 0 && alltrue([for name in keys(var.keys) : can(regex("^[a-z0-9][a-z0-9-]{0,63}$", name))])
    error_message = "At least one name, of lower-case letters, digits and hyphens."
  }
  validation {
    condition     = alltrue([for spec in values(var.keys) : contains(["ECC_NIST_P256", "ECC_NIST_P384", "RSA_2048", "RSA_3072", "RSA_4096", "ML_DSA_65"], spec)])
    error_message = "One of ECC_NIST_P256, ECC_NIST_P384, RSA_2048, RSA_3072, RSA_4096, ML_DSA_65."
  }
}

variable "service_role_arn" {
  description = "The role that assayd runs as: role_arn of the module service. It must exist: KMS refuses the name of a role that does not"
  type        = string
  validation {
    condition     = can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+$", var.service_role_arn))
    error_message = "The ARN of a role, without wildcards."
  }
}

variable "admin_role_arns" {
  description = "Roles that administer the keys and may not sign. The role that applies this must be among them, and nobody else can mend the policy if all of them are lost"
  type        = list(string)
  validation {
    condition     = length(var.admin_role_arns) > 0 && alltrue([for arn in var.admin_role_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+$", arn))])
    error_message = "ARNs of roles, at least one, without wildcards."
  }
}

variable "alias_prefix" {
  description = "What the aliases begin with: alias/PREFIX-NAME"
  type        = string
  default     = "assay"
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9/-]{0,63}$", var.alias_prefix)) && !startswith(var.alias_prefix, "aws")
    error_message = "Lower-case letters, digits, slashes and hyphens; alias/aws… is AWS's own."
  }
}
