variable "cluster_name" {
  description = "The EKS cluster that is there."
  type        = string
}

variable "namespace" {
  description = "Where the release goes."
  type        = string
  default     = "serving"
}

variable "chart" {
  description = "The chart: a folder, or oci://registry/charts/sluicegate."
  type        = string
}

variable "chart_version" {
  description = "The chart's version, where it comes from a registry."
  type        = string
  default     = null
}

variable "values_files" {
  description = "Values files, the later win: those that Argo CD or Flux would take."
  type        = list(string)
}

variable "model_bucket" {
  description = "The bucket that holds <model>/<version>/ below models/."
  type        = string
}

variable "gpu" {
  description = "A group of nodes with GPUs; null for none."
  type = object({
    instance_types = list(string)
    subnet_ids     = list(string)
    node_role_arn  = string
    min_size       = optional(number, 0)
    max_size       = optional(number, 4)
  })
  default = null
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
