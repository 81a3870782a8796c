output "kms_key_arn" {
  description = "For kms_key_arn of the measured configuration."
  value       = aws_kms_key.log.arn
}

output "role_arn" {
  description = "For `confidential policy kms generate --role`."
  value       = aws_iam_role.host.arn
}

output "address" {
  description = "What clients connect to, at port 8443."
  value       = aws_instance.host.private_ip
}
