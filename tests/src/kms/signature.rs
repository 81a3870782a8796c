//! Signature Version 4 from the server's side, after AWS's description of it.

use aws_lc_rs::hmac;
use http::HeaderMap;
use sha2::{Digest, Sha256};
use transcode_confidential::time::Timestamp;

use super::{api::ApiError, caller::Session, state::State};

/// How far a request's date may be off.
const TOLERANCE_MS: u64 = 5 * 60 * 1000;

/// Finds out who signed: a known session that is not over, with the right key, for this region, now.
pub(super) fn verify<'s>(
    state: &'s State,
    region: &str,
    now: Timestamp,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(String, &'s Session), ApiError> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let missing = || ApiError::new("MissingAuthenticationTokenException", "Missing Authentication Token");
    let incomplete = |what: &str| ApiError::new("IncompleteSignatureException", format!("Authorization lacks {what}"));
    let authorization = header("authorization").ok_or_else(missing)?;
    let fields = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or_else(|| incomplete("the algorithm"))?;
    let field = |name: &str| {
        let found = fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
        found.ok_or_else(|| incomplete(name))
    };
    let (credential, signed_headers, signature) = (field("Credential")?, field("SignedHeaders")?, field("Signature")?);
    let [access_key_id, day, scope_region, service, "aws4_request"] = *credential.split('/').collect::<Vec<_>>() else {
        return Err(incomplete("a credential scope"));
    };
    let date = header("x-amz-date").ok_or_else(|| incomplete("a date"))?;
    check_date(date, day, now)?;
    if (scope_region, service) != (region, "kms") {
        let message = format!("Credential should be scoped to a valid region, not '{scope_region}'.");
        return Err(ApiError::new("InvalidSignatureException", message));
    }
    let unknown =
        || ApiError::new("UnrecognizedClientException", "The security token included in the request is invalid.");
    let session = state.sessions.get(access_key_id).ok_or_else(unknown)?;
    if header("x-amz-security-token") != Some(&session.session_token) {
        return Err(unknown());
    }
    if session.is_over(now) {
        let message = "The security token included in the request is expired";
        return Err(ApiError::new("ExpiredTokenException", message));
    }
    for needed in ["host", "x-amz-date", "x-amz-target", "x-amz-security-token"] {
        if !signed_headers.split(';').any(|name| name == needed) {
            return Err(incomplete(needed));
        }
    }
    let canonical_headers: String =
        signed_headers.split(';').map(|name| format!("{name}:{}\n", header(name).unwrap_or_default().trim())).collect();
    let payload = hex::encode(Sha256::digest(body));
    let canonical = format!("POST\n/\n\n{canonical_headers}\n{signed_headers}\n{payload}");
    let hashed = hex::encode(Sha256::digest(canonical));
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{day}/{region}/kms/aws4_request\n{hashed}");
    let mut key = format!("AWS4{}", session.secret_access_key).into_bytes();
    for part in [day, region, "kms", "aws4_request", &to_sign] {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
    }
    if hex::encode(key) != signature {
        let message = "The request signature we calculated does not match the signature you provided.";
        return Err(ApiError::new("InvalidSignatureException", message));
    }
    Ok((access_key_id.to_owned(), session))
}

/// `x-amz-date` within five minutes, in the words of AWS where it is not.
fn check_date(date: &str, day: &str, now: Timestamp) -> Result<(), ApiError> {
    let (early, late) = (basic(Timestamp(now.0 - TOLERANCE_MS)), basic(Timestamp(now.0 + TOLERANCE_MS)));
    let is_date = date.len() == early.len() && date.starts_with(day);
    let message = if !is_date {
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP".to_owned()
    } else if date < early.as_str() {
        format!("Signature expired: {date} is now earlier than {early} ({} - 5 min.)", basic(now))
    } else if date > late.as_str() {
        format!("Signature not yet current: {date} is still later than {late} ({} + 5 min.)", basic(now))
    } else {
        return Ok(());
    };
    Err(ApiError::new("InvalidSignatureException", message))
}

/// `20260131T120000Z`, which sorts as time does.
fn basic(time: Timestamp) -> String {
    let extended = time.to_string();
    let seconds: String = extended.chars().take(19).filter(|c| !matches!(c, '-' | ':')).collect();
    format!("{seconds}Z")
}

/// `Sat, 31 Jan 2026 12:00:00 GMT`, RFC 9110 section 5.6.7.
pub(super) fn http_date(time: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let weekday = DAYS[(time.as_secs() / 86_400 % 7) as usize];
    let text = time.to_string();
    let month = MONTHS[text[5..7].parse::<usize>().expect("a month") - 1];
    format!("{weekday}, {} {month} {} {} GMT", &text[8..10], &text[..4], &text[11..19])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_http_and_signatures_want_them() {
        let time = Timestamp(1_769_860_800_123);
        assert_eq!(time.to_string(), "2026-01-31T12:00:00.123Z");
        assert_eq!(http_date(time), "Sat, 31 Jan 2026 12:00:00 GMT");
        assert_eq!(basic(time), "20260131T120000Z");
    }
}
