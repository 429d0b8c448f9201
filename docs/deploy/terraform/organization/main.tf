# A service control policy for organisations whose builds prove themselves with AWS
# web identity tokens (identity.issuers[].build_tag). It makes the tag that names a
# build true: nobody but that build can ask for a token that carries it. It does not
# bind the organisation's management account: configure no build_tag for that one.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

resource "aws_organizations_policy" "pin_build_tag" {
  name        = "assay-pin-build-tag"
  description = "A web identity token names the build that asked for it, or none"
  type        = "SERVICE_CONTROL_POLICY"
  content = templatefile("${path.module}/../../policies/scp-pin-build-tag.json", {
    build_tag = var.build_tag
  })
}

resource "aws_organizations_policy_attachment" "pin_build_tag" {
  for_each  = toset(var.target_ids)
  policy_id = aws_organizations_policy.pin_build_tag.id
  target_id = each.value
}
