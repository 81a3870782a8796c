//! `confidential report`: what was done with a piece of content, for the record.

use std::{fs::File, io::Read as _, path::Path};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use transcode_confidential::{ids::Digest, protocol::api::ReportContent};

use super::{
    args::{Global, Report},
    connection,
    environment::Environment,
    exit::{Done, Failure},
};

pub(super) fn run(request: Report, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let measured = |path: &Option<_>| path.as_deref().map(measure).transpose();
    let (read, written) = (measured(&request.input)?, measured(&request.output)?);
    let report = ReportContent {
        key: request.key,
        version: request.key_version,
        job: request.job,
        sequence: request.sequence,
        complete: !request.aborted,
        frames: request.frames,
        bytes_in: read.map_or(request.bytes_in, |(length, _)| length),
        bytes_out: written.map_or(request.bytes_out, |(length, _)| length),
        input_digest: read.map(|(_, digest)| digest).or(request.input_digest),
        output_digest: written.map(|(_, digest)| digest).or(request.output_digest),
    };
    report.to_reported().map_err(|error| Failure::usage(error.to_string()))?;
    let configured = connection::client(global, environment)?;
    connection::block_on(async {
        let view = configured.client.log().await?;
        let reported = configured.client.report(&request.content_id, &report).await?;
        connection::keep(&reported.receipt, &request.receipt)?;
        let receipt = &reported.receipt.0;
        let again = if reported.repeated { ", as before" } else { "" };
        let text = format!("reported{again}: event {} of log {}", receipt.sequence, receipt.log_id());
        let json = json!({
            "repeated": reported.repeated,
            "report": report,
            "log_id": receipt.log_id(),
            "sequence": receipt.sequence,
            "receipt": reported.receipt,
        });
        let mut done = Done::ok(json, text);
        done.notes = configured.notes(&view);
        Ok(done)
    })
}

/// Length and SHA-256 of a file.
pub(super) fn measure(path: &Path) -> Result<(u64, Digest), Failure> {
    let measure = || {
        let (mut file, mut hash, mut length) = (File::open(path)?, Sha256::new(), 0);
        let mut piece = vec![0; 64 * 1024];
        loop {
            match file.read(&mut piece)? {
                0 => return Ok((length, Digest::new(hash.finalize().into()))),
                read => {
                    hash.update(piece.get(..read).unwrap_or_default());
                    length += read as u64;
                }
            }
        }
    };
    measure().map_err(|error: std::io::Error| Failure::file(path, &error))
}
