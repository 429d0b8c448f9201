variable "role_name" {
  description = "Name of the role"
  type        = string
}

variable "projects" {
  description = "Projects that may run as this role: region to names, for example { eu-central-1 = [\"app\"] }"
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

variable "web_identity_audience" {
  description = "The instance (or audience) of assayd, where builds prove themselves with web identity tokens; else empty"
  type        = string
  default     = ""
  validation {
    condition     = var.web_identity_audience == "" || can(regex("^https://[a-z0-9.:-]+$", var.web_identity_audience))
    error_message = "https://HOST[:PORT], as the instance in assayd's configuration."
  }
}

variable "build_tag" {
  description = "The build_tag of the issuer in assayd's configuration, where the module organization pins it; else empty"
  type        = string
  default     = ""
  validation {
    condition     = can(regex("^[A-Za-z0-9_.:=+@-]{0,128}$", var.build_tag))
    error_message = "The key of a tag."
  }
}
