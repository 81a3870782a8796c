//! What the hypervisor will measure of an image, computed from its parts.
//!
//! A register starts as 48 zeros and is extended once: `SHA-384(zeros || SHA-384(content))`. PCR0 is over kernel, command line
//! and all ramdisks; PCR1 over kernel, command line and the first ramdisk; PCR2 over the other ramdisks; PCR8 over the signing
//! certificate, DER.

use sha2::{Digest as _, Sha384};
use transcode_confidential::attestation::{PcrIndex, PcrValue, Pcrs};

use crate::{image::Image, signer};

/// The registers of an image.
pub(crate) fn registers(image: &Image) -> anyhow::Result<Pcrs> {
    let (first, others) = image.ramdisks.split_at(1.min(image.ramdisks.len()));
    let kernel = || [&image.kernel, &image.cmdline].into_iter();
    let mut pcrs = Pcrs::default();
    for (index, value) in
        [(0, register(kernel().chain(&image.ramdisks))), (1, register(kernel().chain(first))), (2, register(others))]
    {
        insert(&mut pcrs, index, value)?;
    }
    if let Some(section) = &image.signature {
        let certificate = signer::certificate(section)?;
        insert(&mut pcrs, 8, register([&certificate]))?;
    }
    Ok(pcrs)
}

fn register<'a>(parts: impl IntoIterator<Item = &'a Vec<u8>>) -> [u8; 48] {
    let content = parts.into_iter().fold(Sha384::new(), |hash, part| hash.chain_update(part)).finalize();
    Sha384::new().chain_update([0; 48]).chain_update(content).finalize().into()
}

fn insert(pcrs: &mut Pcrs, index: u8, value: [u8; 48]) -> anyhow::Result<()> {
    let index = PcrIndex::new(index).ok_or_else(|| anyhow::anyhow!("no such register"))?;
    pcrs.insert(index, PcrValue::new(value));
    Ok(())
}
