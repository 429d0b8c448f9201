output "key_arns" {
  description = "Name to ARN: kms_key_arns of the module service in another account, and what assayd keys list shows"
  value       = { for name, key in aws_kms_key.signing : name => key.arn }
}

output "references" {
  description = "Name to reference: what assayd keys add and rotate take as --ref"
  value       = { for name, alias in aws_kms_alias.signing : name => "awskms:///${alias.arn}" }
}
