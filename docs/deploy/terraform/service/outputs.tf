output "role_arn" {
  description = "The service_role_arn that the module account wants"
  value       = aws_iam_role.service.arn
}
