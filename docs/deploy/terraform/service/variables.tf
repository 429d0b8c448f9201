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
