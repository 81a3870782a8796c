use transcode_confidential::protocol::api::{self, ContentReported, ReportContent};

use super::{Call, Client, answer};
use crate::error::ClientError;

impl Client {
    /// Puts on the record what was done with a piece of content. The same report again is answered as the first.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] where something else was reported of that piece; any other [`ClientError`].
    pub async fn report(&self, content_id: &str, report: &ReportContent) -> Result<ContentReported, ClientError> {
        let path = format!("{}/{}/report", api::CONTENT, escaped(content_id));
        let (body, view) = self.exchange(&Call::post(path, report)?).await?;
        let reported: ContentReported = answer::json(&body)?;
        self.keep_receipt(&view, &reported.receipt.0).await?;
        Ok(reported)
    }
}

/// A content id as one part of a path: RFC 3986, everything but unreserved characters as `%XX`.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let part = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_id_is_one_part_of_a_path() {
        assert_eq!(escaped("reel-3_v1.0~"), "reel-3_v1.0~");
        assert_eq!(escaped("a/b c?#%ä"), "a%2Fb%20c%3F%23%25%C3%A4");
    }
}
