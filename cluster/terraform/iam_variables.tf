# Who has which role, and which places the roles reach. The buckets exist already.

variable "ledger_bucket" {
  description = "Bucket of the ledger (ledger.bucket)."
  type        = string
}

variable "ledger_prefix" {
  description = "Key prefix of the ledger (ledger.prefix)."
  type        = string
  default     = "_foreedge/"
}

variable "source_places" {
  description = "Places of the images, each BUCKET/PREFIX or BUCKET/ for a whole bucket."
  type        = list(string)

  validation {
    condition     = length(var.source_places) > 0 && alltrue([for place in var.source_places : can(regex("^[^/*]+/[^*]*$", place))])
    error_message = "At least one place is needed, and each must be of the form BUCKET/PREFIX, without an asterisk."
  }
}

variable "result_places" {
  description = "Places of the results, each BUCKET/PREFIX or BUCKET/ for a whole bucket."
  type        = list(string)

  validation {
    condition     = length(var.result_places) > 0 && alltrue([for place in var.result_places : can(regex("^[^/*]+/[^*]*$", place))])
    error_message = "At least one place is needed, and each must be of the form BUCKET/PREFIX, without an asterisk."
  }
}

variable "event_buckets" {
  description = "Buckets of source_places whose S3 events are jobs. Their results go to the first of result_places. Empty if no bucket sends events."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for bucket in var.event_buckets : contains([for place in var.source_places : split("/", place)[0]], bucket)])
    error_message = "Each must be the bucket of one of source_places, since the application reads its images."
  }
}

variable "upload_place" {
  description = "Place that foreedge bulk uploads a local folder to (--upload-to), of the form BUCKET/PREFIX. Null if nobody does that."
  type        = string
  default     = null
}

variable "catalog_secret" {
  description = "Name of the secret with the login to the catalog's database (catalog.database_secret). Null without a catalog."
  type        = string
  default     = null
}

variable "nodes_on_ec2" {
  description = "Whether Ray's nodes are EC2 instances that ray up starts. The roles of head and worker then have instance profiles."
  type        = bool
  default     = false
}

variable "oidc_provider_arn" {
  description = "ARN of the EKS cluster's IAM OIDC provider, whose service accounts may have the roles (IRSA). Null without EKS."
  type        = string
  default     = null
}

variable "pod_identity" {
  description = "Whether pods of the EKS cluster cluster_arn may have the roles by EKS Pod Identity."
  type        = bool
  default     = false

  validation {
    condition     = !var.pod_identity || var.cluster_arn != null
    error_message = "EKS Pod Identity needs cluster_arn, the cluster whose pods may have the roles."
  }
}

variable "service_accounts" {
  description = "Service account of each role on EKS, as NAMESPACE:NAME. Roles that are left out have none."
  type        = map(string)
  default = {
    head   = "foreedge:foreedge-head"
    worker = "foreedge:foreedge-worker"
  }

  validation {
    condition     = alltrue([for role in keys(var.service_accounts) : contains(["head", "worker", "producer", "operator"], role)])
    error_message = "The roles are head, worker, producer and operator."
  }
}

variable "principals" {
  description = "ARNs of the IAM roles and users that may assume the roles producer and operator."
  type        = map(list(string))
  default     = {}

  validation {
    condition     = alltrue([for role in keys(var.principals) : contains(["producer", "operator"], role)])
    error_message = "Only producer and operator are assumed by people and other applications."
  }
}
