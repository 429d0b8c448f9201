output "reader_role_arn" {
  description = "The reader_role_arn of this account in assayd's configuration"
  value       = aws_iam_role.reader.arn
}
