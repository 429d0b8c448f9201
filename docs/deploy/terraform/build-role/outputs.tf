output "role_arn" {
  description = "One of the build_role_arns that the module account wants, and the service_role of the projects"
  value       = aws_iam_role.build.arn
}
