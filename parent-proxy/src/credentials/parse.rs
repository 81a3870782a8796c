use serde::Deserialize;
use thiserror::Error;
use transcode_confidential::time::Timestamp;
use zeroize::Zeroizing;

/// Credentials as they were found.
pub(super) struct Parsed {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: Zeroizing<String>,
    pub(super) session_token: Zeroizing<String>,
    /// `None` for those that do not expire.
    pub(super) expires: Option<Timestamp>,
}

/// Why a document holds no credentials. Says where, never what.
#[derive(Debug, Error)]
pub(super) enum ParseError {
    #[error("not the expected JSON at line {line}, column {column}")]
    Json { line: usize, column: usize },
    #[error("version {0} of the format is not known")]
    Version(u64),
    #[error("the expiration is not a time in RFC 3339")]
    Expiration,
    #[error("the metadata service says {0}")]
    Code(&'static str),
}

/// The output format of `credential_process` in AWS configuration files.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ProcessOutput {
    version: u64,
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    session_token: String,
    expiration: Option<String>,
}

/// What the instance metadata service says of a role.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleCredentials {
    code: String,
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: String,
}

impl Parsed {
    /// Credentials that do not say when they expire.
    pub(super) fn lasting(access_key_id: String, secret_access_key: String, session_token: String) -> Self {
        Self {
            access_key_id,
            secret_access_key: Zeroizing::new(secret_access_key),
            session_token: Zeroizing::new(session_token),
            expires: None,
        }
    }

    fn until(self, expiration: Option<&str>) -> Result<Self, ParseError> {
        let expires = expiration.map(|text| text.parse().map_err(|_| ParseError::Expiration)).transpose()?;
        Ok(Self { expires, ..self })
    }
}

/// Reads what a `credential_process` prints.
pub(super) fn process_output(json: &[u8]) -> Result<Parsed, ParseError> {
    let output: ProcessOutput = from_json(json)?;
    if output.version != 1 {
        return Err(ParseError::Version(output.version));
    }
    let parsed = Parsed::lasting(output.access_key_id, output.secret_access_key, output.session_token);
    parsed.until(output.expiration.as_deref())
}

/// Reads what the metadata service says of a role.
pub(super) fn role_credentials(json: &[u8]) -> Result<Parsed, ParseError> {
    let role: RoleCredentials = from_json(json)?;
    if role.code != "Success" {
        return Err(ParseError::Code("that it has none"));
    }
    let parsed = Parsed::lasting(role.access_key_id, role.secret_access_key, role.token);
    parsed.until(Some(&role.expiration))
}

/// The parser's own message could quote a secret.
fn from_json<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, ParseError> {
    serde_json::from_slice(json).map_err(|error| ParseError::Json { line: error.line(), column: error.column() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_of_credential_process_is_read() {
        let json = br#"{"Version":1,"AccessKeyId":"AKIDEXAMPLE","SecretAccessKey":"s","SessionToken":"t","Expiration":"2026-01-31T12:00:00Z"}"#;
        let parsed = process_output(json).unwrap();
        assert_eq!((parsed.access_key_id.as_str(), parsed.session_token.as_str()), ("AKIDEXAMPLE", "t"));
        assert_eq!(parsed.expires, Some("2026-01-31T12:00:00Z".parse().unwrap()));
        let lasting = process_output(br#"{"Version":1,"AccessKeyId":"A","SecretAccessKey":"s"}"#).unwrap();
        assert_eq!(lasting.expires, None);
    }

    #[test]
    fn an_error_says_where_and_never_what() {
        for bad in [
            &br#"{"Version":1,"AccessKeyId":"s3cr3t","SecretAccessKey":5}"#[..],
            br#"{"Version":"s3cr3t"}"#,
            br#"{"Version":2,"AccessKeyId":"s3cr3t","SecretAccessKey":"s3cr3t"}"#,
            br#"{"Version":1,"AccessKeyId":"A","SecretAccessKey":"s3cr3t","Expiration":"s3cr3t"}"#,
            b"s3cr3t",
        ] {
            let error = process_output(bad).err().unwrap().to_string();
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }

    #[test]
    fn a_role_without_success_has_no_credentials() {
        let json = |code: &str| {
            format!(
                r#"{{"Code":"{code}","LastUpdated":"x","Type":"AWS-HMAC","AccessKeyId":"A","SecretAccessKey":"s","Token":"t","Expiration":"2026-01-31T12:00:00Z"}}"#
            )
        };
        assert!(role_credentials(json("Success").as_bytes()).is_ok());
        assert!(role_credentials(json("Failed").as_bytes()).is_err());
    }
}
