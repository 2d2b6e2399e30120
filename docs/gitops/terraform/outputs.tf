output "model_bucket" {
  description = "Where models are written: models/<model>/<version>/."
  value       = aws_s3_bucket.models.bucket
}

output "reader_role_arn" {
  description = "The role that the pods read it as."
  value       = aws_iam_role.reader.arn
}
