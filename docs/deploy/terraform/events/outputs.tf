output "role_name" {
  description = "One of the allowed_roles of this account in assayd's configuration"
  value       = aws_iam_role.attester.name
}
