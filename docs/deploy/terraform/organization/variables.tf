variable "build_tag" {
  description = "The build_tag of the issuers in assayd's configuration"
  type        = string
  default     = "codebuild-build-arn"
  validation {
    condition     = can(regex("^[A-Za-z0-9_.:=+@-]{1,128}$", var.build_tag))
    error_message = "The key of a tag."
  }
}

variable "target_ids" {
  description = "Roots, organisational units or accounts to attach the policy to; every account whose issuer has a build_tag must be among or below them"
  type        = list(string)
  validation {
    condition     = length(var.target_ids) > 0
    error_message = "Attached to nothing, the policy binds nobody."
  }
}
