variable "name" {
  description = "Name of the project that asks, of its role and of the rule"
  type        = string
  default     = "assay-attest-build"
}

variable "projects" {
  description = "Projects of this account and region whose builds are to be attested; those that assayd's configuration allows"
  type        = list(string)
  validation {
    condition     = length(var.projects) > 0 && alltrue([for name in var.projects : can(regex("^[A-Za-z0-9][A-Za-z0-9_-]{1,149}$", name))])
    error_message = "Names of projects, at least one, without wildcards."
  }
}

variable "server" {
  description = "URL of assayd"
  type        = string
  validation {
    condition     = can(regex("^https://[a-z0-9.:-]+$", var.server))
    error_message = "https://HOST[:PORT], as the instance in assayd's configuration."
  }
}

variable "image" {
  description = "Image of the project that asks; it needs Go, or the assay program"
  type        = string
  default     = "aws/codebuild/amazonlinux-x86_64-standard:5.0"
}

variable "dead_letter_queue_arn" {
  description = "SQS queue, with a policy that lets the rule send to it, for events that could not be delivered in 24 hours; else they are lost"
  type        = string
  default     = ""
}
