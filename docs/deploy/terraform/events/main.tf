# Attests builds after they ended: an EventBridge rule starts a small CodeBuild
# project for each build that succeeded, which asks Assay to attest it. The event is
# only a hint. Assay reads the build itself, whoever asks.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  policies    = "${path.module}/../../policies"
  account     = data.aws_caller_identity.current.account_id
  partition   = data.aws_partition.current.partition
  region      = data.aws_region.current.id
  project_arn = "arn:${local.partition}:codebuild:${local.region}:${local.account}:project/${var.name}"
}

# The project that asks. Its role may write its log, and is known to Assay by name.

resource "aws_cloudwatch_log_group" "attester" {
  name              = "/assay/${var.name}"
  retention_in_days = 90
}

resource "aws_iam_role" "attester" {
  name        = var.name
  description = "Asks Assay to attest builds that ended"
  assume_role_policy = templatefile("${local.policies}/codebuild-trust.json", {
    account_id   = local.account
    project_arns = jsonencode([local.project_arn])
  })
}

resource "aws_iam_role_policy" "attester" {
  name = "write-log"
  role = aws_iam_role.attester.id
  policy = templatefile("${local.policies}/attester.json", {
    log_group_arn = aws_cloudwatch_log_group.attester.arn
  })
}

resource "aws_codebuild_project" "attester" {
  name          = var.name
  description   = "Asks Assay to attest builds that ended"
  service_role  = aws_iam_role.attester.arn
  build_timeout = 60

  source {
    type      = "NO_SOURCE"
    buildspec = file("${path.module}/../../buildspec-attest-build.yml")
  }

  artifacts {
    type = "NO_ARTIFACTS"
  }

  environment {
    type         = "LINUX_CONTAINER"
    compute_type = "BUILD_GENERAL1_SMALL"
    image        = var.image

    environment_variable {
      name  = "ASSAY_SERVER"
      value = var.server
    }
  }

  logs_config {
    cloudwatch_logs {
      group_name = aws_cloudwatch_log_group.attester.name
    }
  }
}

# The rule names its projects, so that the attester's own builds start nothing.

resource "aws_cloudwatch_event_rule" "succeeded" {
  name        = var.name
  description = "Builds that Assay is to attest"
  event_pattern = jsonencode({
    source      = ["aws.codebuild"]
    detail-type = ["CodeBuild Build State Change"]
    detail = {
      build-status = ["SUCCEEDED"]
      project-name = var.projects
    }
  })
}

resource "aws_iam_role" "events" {
  name        = "${var.name}-events"
  description = "EventBridge starts ${var.name}"
  assume_role_policy = templatefile("${local.policies}/events-trust.json", {
    account_id = local.account
    rule_arn   = aws_cloudwatch_event_rule.succeeded.arn
  })
}

resource "aws_iam_role_policy" "events" {
  name = "start-build"
  role = aws_iam_role.events.id
  policy = templatefile("${local.policies}/events.json", {
    project_arn = local.project_arn
  })
}

resource "aws_cloudwatch_event_target" "attester" {
  rule     = aws_cloudwatch_event_rule.succeeded.name
  arn      = aws_codebuild_project.attester.arn
  role_arn = aws_iam_role.events.arn

  # EventBridge puts the quotes round <build>.
  input_transformer {
    input_paths    = { build = "$.detail.build-id" }
    input_template = "{\"environmentVariablesOverride\": [{\"name\": \"FINISHED_BUILD\", \"type\": \"PLAINTEXT\", \"value\": <build>}]}"
  }

  dynamic "dead_letter_config" {
    for_each = var.dead_letter_queue_arn == "" ? [] : [var.dead_letter_queue_arn]
    content {
      arn = dead_letter_config.value
    }
  }
}
