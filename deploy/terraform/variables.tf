variable "name" {
  description = "Name of the deployment: of its resources, and in the measured configuration."
  type        = string
}

variable "region" {
  description = "Region of the host and of the KMS key."
  type        = string
}

variable "subnet_id" {
  description = "A subnet with a way to KMS: a NAT gateway, or an interface endpoint."
  type        = string
}

variable "client_cidrs" {
  description = "Where clients connect from."
  type        = list(string)
}

variable "instance_type" {
  description = "A type that supports Nitro Enclaves, with at least four vCPUs: two are the enclave's."
  type        = string
  default     = "m6i.xlarge"
}

variable "ami_id" {
  description = "The host's image. Null: the newest Amazon Linux 2023."
  type        = string
  default     = null
}

variable "log_volume_gib" {
  description = "Size of the volume that the log is on. A million uses of keys take about half a GiB."
  type        = number
  default     = 100
}

variable "kms_administrators" {
  description = "ARNs of who may change the KMS key's policy. They can open the key to others: not the operators of the host."
  type        = list(string)
}

variable "kms_key_policy_file" {
  description = "The key policy that `confidential policy kms generate` wrote. Null at first, when the image is not built yet: then nobody may use the key."
  type        = string
  default     = null
}

variable "role_policy_file" {
  description = "The role's policy that `confidential policy kms generate` wrote. Null at first."
  type        = string
  default     = null
}

variable "memory_mib" {
  description = "Memory set aside for enclaves."
  type        = number
  default     = 1024
}
