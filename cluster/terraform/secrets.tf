# Places for what must not be read by everybody. Values are set with `aws secretsmanager put-secret-value`
# and never with Terraform, whose state would show them.

resource "aws_secretsmanager_secret" "api_keys" {
  #checkov:skip=CKV_AWS_149:Only this account reads it, which the key of AWS allows
  #checkov:skip=CKV2_AWS_57:Clients have to be told of new keys, so that no program can rotate them
  name                    = "${local.name}/api-keys"
  description             = "API keys of the HTTP endpoint, one in each line"
  recovery_window_in_days = 7
}

resource "aws_secretsmanager_secret" "ray_token" {
  #checkov:skip=CKV_AWS_149:Only this account reads it, which the key of AWS allows
  #checkov:skip=CKV2_AWS_57:All processes of Ray have to restart with a new token
  name                    = "${local.name}/ray-token"
  description             = "Token without which Ray runs nobody's code"
  recovery_window_in_days = 7
}
