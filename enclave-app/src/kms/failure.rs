use std::{error::Error as StdError, io};

use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use http_body_util::LengthLimitError;

use super::{
    credentials::CredentialsError,
    dial::DialError,
    error::{KmsError, Presented, Said},
};

/// The cause of what the SDK reports.
pub(super) fn cause_of<E>(error: &SdkError<E, HttpResponse>) -> KmsError
where
    E: StdError + ProvideErrorMetadata + 'static,
{
    if let SdkError::ServiceError(service) = error {
        let status = service.raw().status().as_u16();
        let (code, said) = (service.err().code(), service.err().message());
        return refused(status, code.unwrap_or_default(), said.unwrap_or_default());
    }
    if let Some(error) = find::<CredentialsError>(error) {
        return KmsError::NoCredentials(error.clone());
    }
    match find::<DialError>(error) {
        Some(DialError::Refused(host)) => return KmsError::EgressRefused { host: Said::new(host) },
        Some(dial) => return KmsError::Unreachable { reason: Said::new(&dial.to_string()) },
        None => {}
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        return KmsError::UntrustedServer { reason: Said::new(&tls.to_string()) };
    }
    if find::<LengthLimitError>(error).is_some() {
        return KmsError::MalformedReply;
    }
    match error {
        SdkError::TimeoutError(_) => KmsError::TimedOut,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => KmsError::TimedOut,
        SdkError::DispatchFailure(_) => KmsError::Unreachable { reason: Said::new("the connection broke") },
        _ if find::<hyper::Error>(error).is_some() => {
            KmsError::Unreachable { reason: Said::new("the reply broke off") }
        }
        _ => KmsError::MalformedReply,
    }
}

/// Maps an error reply. Names and texts are those of the KMS API reference and of AWS's common errors; what is unknown
/// stays visible as [`KmsError::Rejected`].
fn refused(status: u16, code: &str, message: &str) -> KmsError {
    let said = Said::new(message);
    let mentions = |words: &[&str]| words.iter().any(|word| message.contains(word));
    match code {
        "AccessDeniedException" | "AccessDenied" => denied(said, message),
        "InvalidCiphertextException" | "IncorrectKeyException" => KmsError::WrappedKeyRefused,
        "DisabledException" | "KMSInvalidStateException" | "KeyUnavailableException" | "InvalidKeyUsageException" => {
            KmsError::KeyUnusable { said }
        }
        "NotFoundException" if mentions(&["Invalid arn", "does not exist in this region"]) => {
            KmsError::WrongRegion { said }
        }
        "NotFoundException" | "InvalidArnException" => KmsError::KeyNotFound { said },
        "ThrottlingException" | "Throttling" | "LimitExceededException" | "TooManyRequestsException" => {
            KmsError::Throttled
        }
        "ExpiredTokenException" | "ExpiredToken" => KmsError::CredentialsExpired,
        "RequestExpired" | "RequestTimeTooSkewed" => KmsError::ClockSkew { said },
        "InvalidSignatureException" | "SignatureDoesNotMatch"
            if mentions(&["Signature expired", "Signature not yet current"]) =>
        {
            KmsError::ClockSkew { said }
        }
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "IncompleteSignatureException"
            if mentions(&["scoped to a valid region"]) =>
        {
            KmsError::WrongRegion { said }
        }
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch" => KmsError::CredentialsRefused { said },
        "ValidationException" | "InvalidAttestationDocumentException"
            if mentions(&["attestation", "Attestation", "Recipient"]) =>
        {
            KmsError::DocumentRefused { said }
        }
        "" if status < 500 => KmsError::MalformedReply,
        _ if status >= 500 => KmsError::ServiceFault { code: Said::new(code) },
        _ => KmsError::Rejected { code: Said::new(code), said },
    }
}

/// KMS does not say that a condition failed; it says which kind of policy did not allow. The key policy names our role
/// under one condition only, so its silence means that the condition was not met.
fn denied(said: Said, message: &str) -> KmsError {
    let elsewhere = [
        "identity-based policy",
        "permissions boundary",
        "service control policy",
        "session policy",
        "VPC endpoint policy",
    ];
    if elsewhere.iter().any(|policy| message.contains(policy)) || message.contains("kms:GenerateRandom") {
        KmsError::AccessDenied { said }
    } else {
        KmsError::ConditionNotMet { said, presented: Presented::default() }
    }
}

/// The first error of type `T` among `error` and its sources. An [`io::Error`] skips what it wraps when asked for its
/// source, so that one is looked into by hand.
pub(super) fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    /// Longer chains do not occur; a cyclic one would not end.
    const DEEPEST: usize = 32;
    let mut next = Some(error);
    for _ in 0..DEEPEST {
        let error = next?;
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "User: arn:aws:sts::111122223333:assumed-role/enclave/i-0 is not authorized to perform: kms:Decrypt \
                        on resource: arn:aws:kms:us-east-1:111122223333:key/k ";

    #[test]
    fn each_refusal_of_kms_has_its_cause() {
        for (code, message, cause) in [
            (
                "AccessDeniedException",
                &*format!("{ROLE}because no resource-based policy allows the kms:Decrypt action"),
                "attestation-condition",
            ),
            (
                "AccessDeniedException",
                &format!("{ROLE}with an explicit deny in a resource-based policy"),
                "attestation-condition",
            ),
            (
                "AccessDeniedException",
                &format!("{ROLE}because no identity-based policy allows the kms:Decrypt action"),
                "access-denied",
            ),
            ("AccessDeniedException", "not authorized to perform: kms:GenerateRandom", "access-denied"),
            ("InvalidCiphertextException", "", "wrapped-key-refused"),
            ("IncorrectKeyException", "", "wrapped-key-refused"),
            ("DisabledException", "arn is disabled.", "key-unusable"),
            ("KMSInvalidStateException", "arn is pending deletion.", "key-unusable"),
            ("NotFoundException", "Key 'arn' does not exist", "key-not-found"),
            ("NotFoundException", "Invalid arn us-east-1", "wrong-region"),
            ("ThrottlingException", "Rate exceeded", "throttled"),
            ("ExpiredTokenException", "The security token included in the request is expired", "credentials-expired"),
            (
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
                "credentials-refused",
            ),
            (
                "InvalidSignatureException",
                "Signature expired: 20260101T000000Z is now earlier than 20260101T010000Z",
                "clock-skew",
            ),
            ("InvalidSignatureException", "Signature not yet current: 20260101T000000Z", "clock-skew"),
            (
                "InvalidSignatureException",
                "Credential should be scoped to a valid region, not 'us-east-1'.",
                "wrong-region",
            ),
            ("InvalidSignatureException", "The request signature we calculated does not match", "credentials-refused"),
            ("ValidationException", "The attestation document is expired", "document-refused"),
            ("ValidationException", "1 validation error detected", "rejected"),
            ("SomethingNew", "x", "rejected"),
            ("", "", "malformed-reply"),
        ] {
            assert_eq!(refused(400, code, message).cause(), cause, "{code} {message}");
        }
        assert_eq!(refused(500, "KMSInternalException", "").cause(), "service-fault");
        assert_eq!(refused(503, "", "").cause(), "service-fault");
    }

    #[test]
    fn what_kms_said_is_safe_to_show() {
        let said = Said::new(&format!("\x1b[2J\n{}", "x".repeat(1000)));
        assert_eq!(said.as_str().chars().count(), 300);
        assert!(!said.as_str().chars().any(char::is_control));
    }

    #[test]
    fn an_error_inside_an_io_error_is_found() {
        let inner = io::Error::other(DialError::TimedOut);
        let outer = io::Error::other(inner);
        assert!(matches!(find::<DialError>(&outer), Some(DialError::TimedOut)));
        assert!(find::<rustls::Error>(&outer).is_none());
    }
}
