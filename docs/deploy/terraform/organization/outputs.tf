output "build_tag" {
  description = "The build_tag to configure for issuers of the accounts bound by the policy"
  value       = var.build_tag
}
