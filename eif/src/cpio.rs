//! The `newc` archive format of Linux ramdisks (`Documentation/driver-api/early-userspace/buffer-format.rst`), written in one
//! way only and read strictly.

use std::collections::BTreeMap;

use thiserror::Error;

const MAGIC: &[u8] = b"070701";
const HEADER: usize = 110;
const END: &str = "TRAILER!!!";
/// Archives are padded to this, as `cpio` does; the next ramdisk must begin at a multiple of four.
const BLOCK: usize = 512;

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const DEVICE: u32 = 0o020_000;

/// What lies under a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A directory, mode 0755.
    Directory,
    /// A file, mode 0644.
    File(Vec<u8>),
    /// A file, mode 0755.
    Program(Vec<u8>),
    /// A character device, mode 0600.
    Device {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// An archive: paths without a leading slash, in the order of their bytes, so a directory comes before what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Archive(pub(crate) BTreeMap<String, Entry>);

/// Why bytes are no archive that [`Archive::write`] wrote.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum CpioError {
    /// It breaks off or does not begin as it should.
    #[error("not a newc archive at byte {0}")]
    Malformed(usize),
    /// An entry says something that our archives never say: an owner, a time, another mode or order.
    #[error("{0}: not as this tool writes it")]
    Foreign(String),
}

impl Archive {
    /// The archive's bytes: times and owners are zero, numbers count up, nothing depends on the machine.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, (path, entry)) in (1..).zip(&self.0) {
            let (mode, links, device, content): (u32, u32, (u32, u32), &[u8]) = match entry {
                Entry::Directory => (DIRECTORY | 0o755, 2, (0, 0), &[]),
                Entry::File(content) => (FILE | 0o644, 1, (0, 0), content),
                Entry::Program(content) => (FILE | 0o755, 1, (0, 0), content),
                Entry::Device { major, minor } => (DEVICE | 0o600, 1, (*major, *minor), &[]),
            };
            put(&mut out, number, mode, links, device, path, content);
        }
        put(&mut out, 0, 0, 1, (0, 0), END, &[]);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        out
    }

    /// Reads what [`Archive::write`] wrote, and nothing else: writing it again gives the same bytes.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, CpioError> {
        let mut archive = Self::default();
        let mut at = 0;
        loop {
            let malformed = || CpioError::Malformed(at);
            let header = bytes.get(at..at + HEADER).ok_or_else(malformed)?;
            if header.get(..6) != Some(MAGIC) {
                return Err(malformed());
            }
            let field = |index: usize| {
                let digits = header.get(6 + 8 * index..14 + 8 * index)?;
                u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
            };
            let field = |index| field(index).ok_or_else(malformed);
            let (mode, size) = (field(1)?, field(6)? as usize);
            let (major, minor, name_size) = (field(9)?, field(10)?, field(11)? as usize);
            let name = bytes.get(at + HEADER..).and_then(|rest| rest.get(..name_size)).ok_or_else(malformed)?;
            let name =
                name.strip_suffix(b"\0").and_then(|name| std::str::from_utf8(name).ok()).ok_or_else(malformed)?;
            let begin = (at + HEADER + name_size).next_multiple_of(4);
            if name == END {
                break;
            }
            let content = bytes.get(begin..).and_then(|rest| rest.get(..size)).ok_or_else(malformed)?;
            let entry = match (mode & 0o170_000, mode & 0o7777) {
                (DIRECTORY, 0o755) => Entry::Directory,
                (FILE, 0o644) => Entry::File(content.to_vec()),
                (FILE, 0o755) => Entry::Program(content.to_vec()),
                (DEVICE, 0o600) => Entry::Device { major, minor },
                _ => return Err(CpioError::Foreign(name.to_owned())),
            };
            archive.0.insert(name.to_owned(), entry);
            at = (begin + size).next_multiple_of(4);
        }
        if archive.write() != bytes {
            return Err(CpioError::Foreign("the archive".to_owned()));
        }
        Ok(archive)
    }
}

fn put(out: &mut Vec<u8>, number: u32, mode: u32, links: u32, (major, minor): (u32, u32), path: &str, content: &[u8]) {
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    out.extend(MAGIC);
    // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    let size = length(content.len());
    for field in [number, mode, 0, 0, links, 0, size, 0, 0, major, minor, length(path.len() + 1), 0] {
        out.extend(format!("{field:08x}").bytes());
    }
    out.extend(path.bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(content);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    fn sample() -> Archive {
        Archive(BTreeMap::from([
            ("init".to_owned(), Entry::Program(b"#!program".to_vec())),
            ("etc/x".to_owned(), Entry::File(b"abc".to_vec())),
            ("etc".to_owned(), Entry::Directory),
            ("console".to_owned(), Entry::Device { major: 5, minor: 1 }),
        ]))
    }

    #[test]
    fn an_archive_is_read_as_it_was_written_and_no_prefix_of_it_is_one() {
        let bytes = sample().write();
        assert_eq!(bytes.len() % BLOCK, 0);
        assert_eq!(Archive::read(&bytes).unwrap(), sample());
        for end in 0..bytes.len() {
            assert!(Archive::read(&bytes[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn every_changed_byte_shows() {
        let bytes = sample().write();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_ne!(Archive::read(&changed).ok(), Some(sample()), "{at}");
        }
    }

    #[test]
    fn cpio_itself_reads_it() {
        let Ok(mut cpio) = Command::new("cpio")
            .args(["--quiet", "-itv", "--numeric-uid-gid"])
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            eprintln!("skipped: no cpio here");
            return;
        };
        cpio.stdin.take().unwrap().write_all(&sample().write()).unwrap();
        let listing = String::from_utf8(cpio.wait_with_output().unwrap().stdout).unwrap();
        let lines: Vec<Vec<&str>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
        let paths: Vec<_> = lines.iter().map(|words| *words.last().unwrap()).collect();
        assert_eq!(paths, ["console", "etc", "etc/x", "init"], "{listing}");
        let modes: Vec<_> = lines.iter().map(|words| words[0]).collect();
        assert_eq!(modes, ["crw-------", "drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x"], "{listing}");
        assert!(lines.iter().all(|words| words[2..4] == ["0", "0"] && words.contains(&"1970")), "{listing}");
    }
}
