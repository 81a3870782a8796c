//! Encrypts a file through the enclave, and again on this machine's own cores; reports the second.
//!
//! ```text
//! cargo run -p client --example encrypt_file -- tcp:enclave.example:9443 identity.pem measurements.json KEY FILE
//! ```
#![allow(clippy::print_stdout, reason = "an example says what it does")]

use std::{error::Error, fs::File};

use client::{
    Client, EncryptRequest,
    local::LocalOptions,
    log_memory::LogMemory,
    session::{Identity, Session, Settings},
};
use transcode_confidential::{
    attestation::{ImagePolicy, Measurements, TrustRoot},
    message::EncryptionContext,
    protocol::api::ReportContent,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, identity, measurements, key, file] = arguments.as_slice() else {
        return Err("give SERVER IDENTITY MEASUREMENTS KEY FILE".into());
    };

    // Whom to believe: AWS's root, and the images that the build measured. Who we are is shown to those alone.
    let image = ImagePolicy::Expect(Measurements::from_json(std::fs::read(measurements)?)?);
    let identity = Identity::from_pem(&std::fs::read(identity)?)?;
    let session = Session::new(server.parse()?, Settings::new(TrustRoot::aws(), image, Some(identity)));
    // What is remembered here keeps the log from being exchanged, forked or rewound between two runs.
    let client = Client::new(session, LogMemory::new(".confidential".into()), None);

    let request = EncryptRequest {
        key: key.parse()?,
        context: EncryptionContext::from_pairs([("file", file.as_str())])?,
        content_id: Some("example".into()),
    };

    // Through the enclave: it sees the content, and records how much there was.
    let input = tokio::fs::File::open(file).await?;
    let mut output = tokio::fs::File::create(format!("{file}.tce")).await?;
    let done = client.encrypt(&request, input, &mut output).await?;
    println!("{} bytes under version {}, event {}", done.bytes_in, done.version, done.receipt.sequence);

    // On our own cores: the enclave issues a data key for this one message, and records that.
    let options = LocalOptions { digests: true, ..LocalOptions::default() };
    let (input, output) = (File::open(file)?, File::create(format!("{file}.local.tce"))?);
    let (done, local) = client.encrypt_local(&request, &options, input, output).await?;
    println!("{} frames under version {}, event {}", local.frames, done.version, done.receipt.sequence);

    // What was done here is on the record only if we say so.
    let (input_digest, output_digest) = local.digests.unzip();
    let report = ReportContent {
        key: done.key,
        version: Some(done.version),
        job: "example".into(),
        sequence: 0,
        complete: true,
        frames: 0,
        bytes_in: local.bytes_in,
        bytes_out: local.bytes_out,
        input_digest,
        output_digest,
    };
    let reported = client.report("example", &report).await?;
    println!("reported, event {}", reported.receipt.0.sequence);
    Ok(())
}
