variable "projects" {
  description = "CodeBuild projects whose builds may attest: region to names, for example { eu-central-1 = [\"app\"] }"
  type        = map(list(string))
  validation {
    condition     = length(flatten(values(var.projects))) > 0
    error_message = "Name at least one project."
  }
  validation {
    condition     = alltrue([for name in flatten(values(var.projects)) : can(regex("^[A-Za-z0-9][A-Za-z0-9_-]{1,149}$", name))])
    error_message = "Names of projects, without wildcards."
  }
}

variable "build_role_arns" {
  description = "Service roles of those projects. Assay reads their trust policies, which must name only CodeBuild; without them no build can attest while it runs"
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for arn in var.build_role_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+$", arn))])
    error_message = "ARNs of roles, without wildcards."
  }
}

variable "artifact_buckets" {
  description = "Names of the buckets that the projects upload to; without them no build can be attested after it ended"
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for name in var.artifact_buckets : can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", name))])
    error_message = "Names of buckets, without wildcards and prefixes."
  }
}

variable "artifact_key_arns" {
  description = "Customer managed KMS keys of those buckets. The AWS managed key of S3 needs no mention"
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for arn in var.artifact_key_arns : can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", arn))])
    error_message = "ARNs of keys, not of aliases, without wildcards."
  }
}

variable "service_role_arn" {
  description = "Role that assayd runs as (output of the module service)"
  type        = string
  validation {
    condition     = can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+$", var.service_role_arn))
    error_message = "The ARN of one role: an account or a wildcard would let others read."
  }
}

variable "external_id" {
  description = "The external_id of this account in assayd's configuration: a random string, another for each account"
  type        = string
  validation {
    condition     = can(regex("^[A-Za-z0-9_+=,.@:/-]+$", var.external_id)) && length(var.external_id) >= 16 && length(var.external_id) <= 1224
    error_message = "16 to 1224 characters of A-Z a-z 0-9 _ + = , . @ : / -"
  }
}

variable "reader_role_name" {
  description = "Name of the role"
  type        = string
  default     = "assay-reader"
}
