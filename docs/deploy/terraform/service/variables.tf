variable "role_name" {
  description = "Name of the role"
  type        = string
  default     = "assayd"
}

variable "runs_on" {
  description = "What hands the role to assayd: ecs (tasks) or ec2 (an instance). Elsewhere make the role yourself, with policies/service.json"
  type        = string
  default     = "ecs"
  validation {
    condition     = contains(["ecs", "ec2"], var.runs_on)
    error_message = "One of ecs, ec2."
  }
}

variable "reader_role_arns" {
  description = "Reader roles of the accounts, by name: they need not exist yet"
  type        = list(string)
  validation {
    condition     = length(var.reader_role_arns) > 0
    error_message = "Name at least one reader role."
  }
  validation {
    condition     = alltrue([for arn in var.reader_role_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+$", arn))])
    error_message = "ARNs of roles, without wildcards: with one assayd could become others."
  }
}

variable "kms_key_arns" {
  description = "Keys of KMS that sign, P-256, P-384 or RSA, by the ARN of the key. Those of the module keys in the same account need not be here"
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for arn in var.kms_key_arns : can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", arn))])
    error_message = "ARNs of keys, without wildcards and not of aliases: IAM does not look behind an alias."
  }
}

variable "mldsa_key_arns" {
  description = "Keys of KMS that co-sign, ML_DSA_65, likewise"
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for arn in var.mldsa_key_arns : can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", arn))])
    error_message = "ARNs of keys, without wildcards and not of aliases: IAM does not look behind an alias."
  }
}

variable "signer_profile_arns" {
  description = "The profile of AWS Signer in signer.profile of assayd's configuration, by its ARN without a version"
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for arn in var.signer_profile_arns : can(regex("^arn:aws[a-z-]*:signer:[a-z0-9-]+:[0-9]{12}:/signing-profiles/[A-Za-z0-9_]{2,64}$", arn))])
    error_message = "ARNs of signing profiles, without wildcards and without a version."
  }
}
