# One host with an enclave. Applied twice: first without the two policy files, which gives the ARN of the key; then the image is built
# with that ARN in its measured configuration, and `confidential policy kms generate` writes the policies; then with them.

provider "aws" {
  region = var.region
}

data "aws_caller_identity" "current" {}

data "aws_subnet" "host" {
  id = var.subnet_id
}

data "aws_ssm_parameter" "al2023" {
  name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
}

# --- The KMS key -----------------------------------------------------------------------------------------------------------------

# Until the image is measured: administrators may administer, and nobody may use the key.
data "aws_iam_policy_document" "administration" {
  statement {
    sid       = "Administration"
    effect    = "Allow"
    resources = ["*"]
    actions = [
      "kms:Describe*", "kms:Get*", "kms:List*", "kms:PutKeyPolicy", "kms:Update*", "kms:Enable*", "kms:Disable*",
      "kms:TagResource", "kms:UntagResource", "kms:ScheduleKeyDeletion", "kms:CancelKeyDeletion",
    ]
    principals {
      type        = "AWS"
      identifiers = var.kms_administrators
    }
  }
}

resource "aws_kms_key" "log" {
  description             = "transcode-confidential ${var.name}: wraps content keys and the log key, for the measured image only"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = var.kms_key_policy_file == null ? data.aws_iam_policy_document.administration.json : file(var.kms_key_policy_file)

  lifecycle {
    # Without this key every content key and the log's identity are gone.
    prevent_destroy = true
  }
}

# --- The host's role -------------------------------------------------------------------------------------------------------------

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "host" {
  name               = "${var.name}-enclave-host"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "kms" {
  count  = var.role_policy_file == null ? 0 : 1
  name   = "kms-by-attestation"
  role   = aws_iam_role.host.id
  policy = file(var.role_policy_file)
}

resource "aws_iam_instance_profile" "host" {
  name = "${var.name}-enclave-host"
  role = aws_iam_role.host.name
}

# --- Network ---------------------------------------------------------------------------------------------------------------------

resource "aws_security_group" "host" {
  name        = "${var.name}-enclave-host"
  description = "Clients in, KMS and DNS out"
  vpc_id      = data.aws_subnet.host.vpc_id

  ingress {
    description = "Attested TLS, ended in the enclave"
    from_port   = 8443
    to_port     = 8443
    protocol    = "tcp"
    cidr_blocks = var.client_cidrs
  }

  egress {
    description = "KMS, and the packages of the first boot"
    from_port   = 443
    to_port     = 443
    protocol    = "tcp"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

# --- The host --------------------------------------------------------------------------------------------------------------------

resource "aws_instance" "host" {
  ami                         = coalesce(var.ami_id, data.aws_ssm_parameter.al2023.value)
  instance_type               = var.instance_type
  subnet_id                   = var.subnet_id
  vpc_security_group_ids      = [aws_security_group.host.id]
  iam_instance_profile        = aws_iam_instance_profile.host.name
  user_data_replace_on_change = false
  user_data                   = templatefile("${path.module}/user-data.sh", { memory_mib = var.memory_mib })

  enclave_options {
    enabled = true
  }

  # Only processes on the host itself reach its credentials, and only with a session token.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted = true
  }

  tags = {
    Name = "${var.name}-enclave-host"
  }

  lifecycle {
    ignore_changes = [ami]
  }
}

# The log outlives the host.
resource "aws_ebs_volume" "log" {
  availability_zone = data.aws_subnet.host.availability_zone
  size              = var.log_volume_gib
  type              = "gp3"
  encrypted         = true

  tags = {
    Name = "${var.name}-audit-log"
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_volume_attachment" "log" {
  device_name = "/dev/sdf"
  volume_id   = aws_ebs_volume.log.id
  instance_id = aws_instance.host.id
}
