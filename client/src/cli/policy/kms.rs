//! `confidential policy kms`: the key policy of the KMS key, as code.

use serde_json::{Value, json};
use transcode_confidential::attestation::ImagePolicy;

use crate::{
    cli::{
        args::{Global, KmsFormat, KmsVerb},
        connection,
        environment::Environment,
        exit::{Done, Exit, Failure},
        files::{self, Access},
        terminal::line,
    },
    kms_policy::{Finding, PolicyRequest, lint},
};

pub(super) fn run(verb: KmsVerb, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    match verb {
        KmsVerb::Generate { key_arn, role, admin, format, output } => {
            let ImagePolicy::Expect(measurements) = connection::image_policy(global, environment)? else {
                return Err(Failure::usage("a key policy is made from --measurements; --any-image would open the key"));
            };
            let request = PolicyRequest::new(&measurements, &key_arn, &role, &admin)
                .map_err(|error| Failure::usage(error.to_string()))?;
            let made = Policies::make(&request).map_err(|error| Failure::usage(error.to_string()))?;
            let text = made.text(format);
            let Some(path) = output else { return Ok(Done::ok(made.json(), text)) };
            files::replace(&path, format!("{text}\n").as_bytes(), Access::Public)?;
            Ok(Done::ok(made.json(), format!("wrote {}", path.display())))
        }
        KmsVerb::Lint { file } => {
            let policy: Value =
                serde_json::from_slice(&files::read(&file)?).map_err(|error| Failure::file(&file, &error))?;
            let findings = lint(&policy).map_err(|error| Failure::file(&file, &error))?;
            Ok(judged(&findings))
        }
    }
}

struct Policies {
    key_policy: Value,
    role_policy: Value,
    terraform: String,
    cloudformation: Value,
}

impl Policies {
    fn make(request: &PolicyRequest) -> Result<Self, crate::kms_policy::GenerateError> {
        Ok(Self {
            key_policy: request.key_policy()?,
            role_policy: request.role_policy()?,
            terraform: request.terraform()?,
            cloudformation: request.cloudformation()?,
        })
    }

    fn text(&self, format: KmsFormat) -> String {
        match format {
            KmsFormat::Json => {
                format!("{:#}", json!({ "key_policy": self.key_policy, "role_policy": self.role_policy }))
            }
            KmsFormat::KeyPolicy => format!("{:#}", self.key_policy),
            KmsFormat::RolePolicy => format!("{:#}", self.role_policy),
            KmsFormat::Terraform => self.terraform.trim_end().to_owned(),
            KmsFormat::Cloudformation => format!("{:#}", self.cloudformation),
        }
    }

    fn json(&self) -> Value {
        json!({
            "key_policy": self.key_policy,
            "role_policy": self.role_policy,
            "terraform": self.terraform,
            "cloudformation": self.cloudformation,
        })
    }
}

fn judged(findings: &[Finding]) -> Done {
    let refused = findings.iter().filter(|finding| finding.is_refused()).count();
    let (exit, verdict) = if refused == 0 { (Exit::Ok, "accepted") } else { (Exit::Verification, "refused") };
    let mut text = match (refused, findings.len()) {
        (0, 0) => "ACCEPTED: only the measured images get keys".to_owned(),
        (0, warnings) => format!("ACCEPTED with warnings: {warnings}"),
        (refused, _) => format!("REFUSED: {refused} ways around attestation"),
    };
    for finding in findings {
        let severity = if finding.is_refused() { "refused" } else { "warning" };
        text += &format!(
            "\n  {severity} [{}] {}\n    {}\n    to mend it: {}",
            finding.rule,
            line(&finding.statement),
            finding.why,
            finding.mend
        );
    }
    Done { exit, json: json!({ "verdict": verdict, "findings": findings }), text, notes: Vec::new() }
}
