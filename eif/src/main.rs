//! `cargo eif`: enclave images, built so that anybody gets the same bytes, and what they measure.
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`build`] | from a configuration and a kernel to an image |
//! | [`configuration`] | what is wrong with a configuration, and on which line |
//! | [`binary`] | the enclave's program, built for the image |
//! | [`ramdisk`], [`cpio`] | the two ramdisks, to the byte |
//! | [`image`] | an image taken apart, by code of our own |
//! | [`measure`] | the registers that an image comes to |
//! | [`signer`] | whether an image's signature is one |
//! | [`record`] | `measurements.json` |
//! | [`diff`] | which part of two images differs |
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test that fails should fail loudly"
    )
)]

mod binary;
mod build;
mod cli;
mod configuration;
mod cpio;
mod diff;
mod image;
mod measure;
mod ramdisk;
mod record;
mod signer;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    cli::run(cli::Arguments::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}
