//! Which part of two images differs, and what that changes.

use crate::{
    cpio::{Archive, Entry},
    image::Image,
};

/// One line for each part that differs, with the registers that it counts in. None for images that are alike.
pub(crate) fn compare(one: &Image, other: &Image) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut part = |name: &str, counts: &str, same: bool| {
        if !same {
            found.push(format!("{name} differs ({counts})"));
        }
    };
    part("header flags", "not measured", one.flags == other.flags);
    part("kernel", "PCR0, PCR1", one.kernel == other.kernel);
    part("command line", "PCR0, PCR1", one.cmdline == other.cmdline);
    part("metadata", "not measured", one.metadata == other.metadata);
    part("signature", "PCR8 where the certificate does", one.signature == other.signature);
    part("number of ramdisks", "PCR0, PCR2", one.ramdisks.len() == other.ramdisks.len());
    for (place, (mine, theirs)) in one.ramdisks.iter().zip(&other.ramdisks).enumerate() {
        let (name, counts) = match place {
            0 => ("boot ramdisk", "PCR0, PCR1"),
            _ => ("application ramdisk", "PCR0, PCR2"),
        };
        if mine != theirs {
            found.extend(entries(name, counts, &Archive::read(mine)?, &Archive::read(theirs)?));
        }
    }
    Ok(found)
}

fn entries(ramdisk: &str, counts: &str, one: &Archive, other: &Archive) -> Vec<String> {
    let mut paths: Vec<_> = one.0.keys().chain(other.0.keys()).collect();
    paths.sort();
    paths.dedup();
    let said = |path: &String| match (one.0.get(path), other.0.get(path)) {
        (mine, theirs) if mine == theirs => None,
        (Some(_), None) => Some(format!("{ramdisk}: {path} is in the first only ({counts})")),
        (None, _) => Some(format!("{ramdisk}: {path} is in the second only ({counts})")),
        (Some(mine), Some(theirs)) => Some(format!("{ramdisk}: {path} differs{} ({counts})", place(mine, theirs))),
    };
    paths.into_iter().filter_map(said).collect()
}

/// Where two texts part.
fn place(one: &Entry, other: &Entry) -> String {
    let text = |entry: &Entry| match entry {
        Entry::File(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    };
    let (Some(one), Some(other)) = (text(one), text(other)) else { return String::new() };
    let same = one.lines().zip(other.lines()).take_while(|(one, other)| one == other).count();
    format!(" from line {} on", same + 1)
}
