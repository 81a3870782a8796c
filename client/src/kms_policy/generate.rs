use serde_json::{Map, Value, json};
use thiserror::Error;
use transcode_confidential::{
    attestation::{ExpectedImage, Measurements, PcrIndex, PcrValue},
    time::Timestamp,
};

use super::{
    actions::{ADMINISTRATION, DISCLOSING, USE, WAYS_AROUND},
    arn::{Arn, ArnError},
};

/// KMS takes key policies of at most that many bytes.
const MAX_KEY_POLICY: usize = 32 * 1024;
/// IAM takes a role's inline policies of at most that many characters without white space, all together.
const MAX_ROLE_POLICY: usize = 10_240;

/// Why no policy can be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// A name is not one.
    #[error(transparent)]
    Arn(#[from] ArnError),
    /// Without somebody who may change the policy, AWS refuses it, and rightly.
    #[error("name at least one administrator: AWS refuses a key policy that nobody may change")]
    NoAdministrator,
    /// Who runs the host would be able to rewrite the policy that keeps him out.
    #[error("{0} cannot be both the enclave's role and an administrator: the host holds that role")]
    RoleIsAdministrator(Arn),
    /// More images than a policy has room for.
    #[error("the {policy} policy has {size} bytes, AWS takes {max}: accept fewer images at one time")]
    TooLarge {
        /// Which policy.
        policy: &'static str,
        /// Its size, without white space.
        size: usize,
        /// The limit.
        max: usize,
    },
}

/// What the policies are about.
#[derive(Debug, Clone)]
pub struct PolicyRequest {
    images: Vec<ExpectedImage>,
    key: Arn,
    role: Arn,
    administrators: Vec<Arn>,
}

impl PolicyRequest {
    /// For these images, this key, the role of the instances that host the enclave, and whoever administers the key.
    ///
    /// # Errors
    /// [`GenerateError::Arn`], [`GenerateError::NoAdministrator`], [`GenerateError::RoleIsAdministrator`].
    pub fn new(
        measurements: &Measurements,
        key: &str,
        role: &str,
        administrators: &[impl AsRef<str>],
    ) -> Result<Self, GenerateError> {
        let mut images: Vec<ExpectedImage> = Vec::new();
        for image in measurements.images() {
            let is_there =
                |known: &ExpectedImage| known.pcrs() == image.pcrs() && known.not_after() == image.not_after();
            if !images.iter().any(is_there) {
                images.push(image.clone());
            }
        }
        let (key, role) = (Arn::key(key)?, Arn::role(role)?);
        let mut administrators: Vec<Arn> =
            administrators.iter().map(|text| Arn::administrator(text.as_ref())).collect::<Result<_, _>>()?;
        administrators.sort();
        administrators.dedup();
        if administrators.is_empty() {
            return Err(GenerateError::NoAdministrator);
        }
        if administrators.contains(&role) {
            return Err(GenerateError::RoleIsAdministrator(role));
        }
        Ok(Self { images, key, role, administrators })
    }

    /// The key's policy: one Allow an image, because lists of values would also admit one image's kernel with another's
    /// application; a Deny an image register for everybody else, whatever other policies and grants say; a Deny of every
    /// way around the conditions; and administration without use.
    ///
    /// # Errors
    /// [`GenerateError::TooLarge`].
    pub fn key_policy(&self) -> Result<Value, GenerateError> {
        let mut statements = self.image_statements(&USE, "*", Some(self.role.as_str()));
        statements.extend(PcrIndex::OF_IMAGE.map(|index| self.deny_all_but_accepted(index)));
        statements.push(json!({
            "Sid": "DenyWaysAroundAttestation",
            "Effect": "Deny",
            "Principal": { "AWS": "*" },
            "Action": WAYS_AROUND,
            "Resource": "*",
        }));
        statements.push(json!({
            "Sid": "AdministerWithoutUse",
            "Effect": "Allow",
            "Principal": { "AWS": self.administrators.iter().map(Arn::as_str).collect::<Vec<_>>() },
            "Action": ADMINISTRATION,
            "Resource": "*",
        }));
        within("key", MAX_KEY_POLICY, json!({ "Version": "2012-10-17", "Statement": statements }))
    }

    /// The role's own policy: `GenerateRandom` names no key, so no key policy can allow it; and where the key belongs to
    /// another account, that account's key policy is only half of the permission.
    ///
    /// # Errors
    /// [`GenerateError::TooLarge`].
    pub fn role_policy(&self) -> Result<Value, GenerateError> {
        let mut statements = self.image_statements(&["kms:GenerateRandom"], "*", None);
        if self.role.account() != self.key.account() {
            let mut on_key = self.image_statements(&USE, self.key.as_str(), None);
            for statement in &mut on_key {
                if let Some(Value::String(name)) = statement.get_mut("Sid") {
                    name.push_str("OnKey");
                }
            }
            statements.extend(on_key);
        }
        within("role", MAX_ROLE_POLICY, json!({ "Version": "2012-10-17", "Statement": statements }))
    }

    /// Both policies for Terraform's AWS provider.
    ///
    /// # Errors
    /// [`GenerateError::TooLarge`].
    pub fn terraform(&self) -> Result<String, GenerateError> {
        Ok(format!(
            "resource \"aws_kms_key_policy\" \"transcode_confidential\" {{\n  key_id = {key:?}\n  policy = <<-POLICY\n\
             {key_policy}\n  POLICY\n}}\n\n\
             resource \"aws_iam_role_policy\" \"transcode_confidential\" {{\n  name   = \"transcode-confidential\"\n  \
             role   = {role:?}\n  policy = <<-POLICY\n{role_policy}\n  POLICY\n}}\n",
            key = self.key.as_str(),
            role = self.role.name(),
            key_policy = indented(&self.key_policy()?),
            role_policy = indented(&self.role_policy()?),
        ))
    }

    /// Both policies as a CloudFormation template. CloudFormation knows a key's policy as a property of the key only, so
    /// an existing key is to be imported as `Key`; it is retained when the stack goes.
    ///
    /// # Errors
    /// [`GenerateError::TooLarge`].
    pub fn cloudformation(&self) -> Result<Value, GenerateError> {
        Ok(json!({
            "AWSTemplateFormatVersion": "2010-09-09",
            "Description": format!("Key policy of {} (import the key as resource Key) and policy of the enclave's role.", self.key),
            "Resources": {
                "Key": {
                    "Type": "AWS::KMS::Key",
                    "DeletionPolicy": "Retain",
                    "UpdateReplacePolicy": "Retain",
                    "Properties": {
                        "Description": "Wraps the keys of transcode-confidential",
                        "KeyPolicy": self.key_policy()?,
                    },
                },
                "RolePolicy": {
                    "Type": "AWS::IAM::RolePolicy",
                    "Properties": {
                        "PolicyName": "transcode-confidential",
                        "RoleName": self.role.name(),
                        "PolicyDocument": self.role_policy()?,
                    },
                },
            },
        }))
    }

    fn image_statements(&self, actions: &[&str], resource: &str, principal: Option<&str>) -> Vec<Value> {
        let numbered = (1..).zip(&self.images);
        let statement = |(number, image): (usize, &ExpectedImage)| {
            let pcrs: Map<String, Value> =
                image.pcrs().iter().map(|(index, value)| (condition_key(index), value.to_string().into())).collect();
            let mut conditions = Map::from_iter([("StringEqualsIgnoreCase".to_owned(), pcrs.into())]);
            if let Some(end) = image.not_after() {
                conditions.insert("DateLessThanEquals".to_owned(), json!({ "aws:CurrentTime": in_seconds(end) }));
            }
            let mut fields = Map::from_iter([
                ("Sid".to_owned(), statement_id(number, image.label()).into()),
                ("Effect".to_owned(), "Allow".into()),
                ("Action".to_owned(), json!(actions)),
                ("Resource".to_owned(), resource.into()),
                ("Condition".to_owned(), conditions.into()),
            ]);
            if let Some(principal) = principal {
                fields.insert("Principal".to_owned(), json!({ "AWS": principal }));
            }
            Value::Object(fields)
        };
        numbered.map(statement).collect()
    }

    /// One statement a register: several registers in one statement would have to differ all at once. A request without
    /// an attestation document has none of them, and "not equal" holds for what is absent.
    fn deny_all_but_accepted(&self, index: PcrIndex) -> Value {
        let mut values: Vec<String> =
            self.images.iter().filter_map(|image| image.pcrs().get(index)).map(PcrValue::to_string).collect();
        values.sort();
        values.dedup();
        json!({
            "Sid": format!("DenyOther{index}"),
            "Effect": "Deny",
            "Principal": { "AWS": "*" },
            "Action": DISCLOSING,
            "Resource": "*",
            "Condition": { "StringNotEqualsIgnoreCase": { condition_key(index): values } },
        })
    }
}

fn condition_key(index: PcrIndex) -> String {
    format!("kms:RecipientAttestation:{index}")
}

/// Letters and digits only.
fn statement_id(number: usize, label: &str) -> String {
    let label: String = label.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    format!("Image{number}{label}")
}

/// `2026-01-31T12:00:00Z`, as IAM's dates are written.
fn in_seconds(time: Timestamp) -> String {
    let text = Timestamp::from_secs(time.as_secs()).to_string();
    format!("{}Z", text.split('.').next().unwrap_or_default())
}

fn within(policy: &'static str, max: usize, document: Value) -> Result<Value, GenerateError> {
    let size = document.to_string().len();
    if size > max { Err(GenerateError::TooLarge { policy, size, max }) } else { Ok(document) }
}

/// For a heredoc: no text of ours has a `${` or `%{`.
fn indented(policy: &Value) -> String {
    let lines = format!("{policy:#}");
    lines.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    const ROLE: &str = "arn:aws:iam::111122223333:role/app/enclave";
    const ADMIN: &str = "arn:aws:iam::111122223333:role/admin";

    fn image(label: &str, seed: u8, not_after: Option<Timestamp>) -> ExpectedImage {
        let pcrs = (0..3).map(|index| (PcrIndex::new(index).unwrap(), PcrValue::new([seed + index; 48]))).collect();
        ExpectedImage::new(label, not_after, pcrs).unwrap()
    }

    fn request(images: Vec<ExpectedImage>, role: &str) -> PolicyRequest {
        PolicyRequest::new(&Measurements::new(images).unwrap(), KEY, role, &[ADMIN, ADMIN]).unwrap()
    }

    #[test]
    fn there_is_one_allow_an_image_and_one_deny_a_register() {
        let end = Timestamp::from_secs(1_769_860_800);
        let images = vec![image("v1 (old)", 10, Some(end)), image("v2", 20, None), image("v2 again", 20, None)];
        let policy = request(images, ROLE).key_policy().unwrap();
        let names: Vec<_> =
            policy["Statement"].as_array().unwrap().iter().map(|s| s["Sid"].as_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "Image1v1old",
                "Image2v2",
                "DenyOtherPCR0",
                "DenyOtherPCR1",
                "DenyOtherPCR2",
                "DenyWaysAroundAttestation",
                "AdministerWithoutUse"
            ]
        );
        assert_eq!(
            policy["Statement"][0]["Condition"]["DateLessThanEquals"]["aws:CurrentTime"],
            "2026-01-31T12:00:00Z"
        );
        assert_eq!(policy["Statement"][1]["Condition"].as_object().unwrap().len(), 1);
        assert_eq!(policy["Statement"][6]["Principal"]["AWS"], json!([ADMIN]));
    }

    #[test]
    fn the_role_gets_what_names_no_key_and_in_another_account_the_key_as_well() {
        let same = request(vec![image("a", 1, None)], ROLE).role_policy().unwrap();
        assert_eq!(same["Statement"].as_array().unwrap().len(), 1);
        assert_eq!(same["Statement"][0]["Action"], json!(["kms:GenerateRandom"]));
        assert!(same["Statement"][0].get("Principal").is_none());
        let other = request(vec![image("a", 1, None)], "arn:aws:iam::444455556666:role/enclave").role_policy().unwrap();
        assert_eq!(other["Statement"][1]["Resource"], KEY);
        assert_ne!(other["Statement"][0]["Sid"], other["Statement"][1]["Sid"]);
    }

    #[test]
    fn who_may_not_be_an_administrator_is_refused() {
        let measurements = Measurements::new(vec![image("a", 1, None)]).unwrap();
        let by = |administrators: &[&str]| PolicyRequest::new(&measurements, KEY, ROLE, administrators).map(|_| ());
        assert_eq!(by(&[]), Err(GenerateError::NoAdministrator));
        assert_eq!(by(&[ADMIN, ROLE]), Err(GenerateError::RoleIsAdministrator(Arn::role(ROLE).unwrap())));
        assert!(matches!(by(&["arn:aws:iam::111122223333:root"]), Err(GenerateError::Arn(_))));
    }

    #[test]
    fn more_images_than_aws_has_room_for_are_refused_with_the_numbers() {
        let images: Vec<_> = (0..60).map(|i| image(&format!("v{i}"), 4 * i + 1, None)).collect();
        let error = request(images, ROLE).key_policy().unwrap_err();
        assert!(matches!(error, GenerateError::TooLarge { policy: "key", max: 32768, .. }), "{error}");
    }

    #[test]
    fn terraform_and_cloudformation_carry_the_same_policies() {
        let request = request(vec![image("a", 1, None)], ROLE);
        let (key_policy, role_policy) = (request.key_policy().unwrap(), request.role_policy().unwrap());
        let template = request.cloudformation().unwrap();
        assert_eq!(template["Resources"]["Key"]["Properties"]["KeyPolicy"], key_policy);
        assert_eq!(template["Resources"]["Key"]["DeletionPolicy"], "Retain");
        assert_eq!(template["Resources"]["RolePolicy"]["Properties"]["PolicyDocument"], role_policy);
        assert_eq!(template["Resources"]["RolePolicy"]["Properties"]["RoleName"], "enclave");
        let terraform = request.terraform().unwrap();
        let heredocs: Vec<Value> = terraform
            .split("<<-POLICY\n")
            .skip(1)
            .map(|rest| serde_json::from_str(rest.split("\n  POLICY\n").next().unwrap()).unwrap())
            .collect();
        assert_eq!(heredocs, [key_policy, role_policy]);
        assert!(!terraform.contains("${") && !terraform.contains("%{"));
    }
}
