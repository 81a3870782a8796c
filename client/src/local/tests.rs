use std::io::{self, Cursor, Read, Write};

use transcode_confidential::{
    entropy::OsEntropy,
    ids::{KeyId, KeyVersion},
    message::{DataKey, Encryptor, IssuedDataKey, WrappingKey},
    secret::KeyMaterial,
};

use super::*;

fn issued() -> (IssuedDataKey, DataKey) {
    let id: KeyId = "content-key-1".parse().unwrap();
    let material = KeyMaterial::from_bytes([3; 32]);
    let wrap = WrappingKey { key_id: &id, version: KeyVersion(1), material: &material };
    let issued = IssuedDataKey::issue(&wrap, &Default::default(), &OsEntropy).unwrap();
    let data_key = DataKey::from_material(KeyMaterial::from_bytes(*issued.data_key().material().expose()));
    (issued, data_key)
}

fn options(threads: usize, frame_length: u32) -> LocalOptions {
    LocalOptions {
        threads: NonZeroUsize::new(threads).unwrap(),
        frame_length: FrameLength::new(frame_length).unwrap(),
        digests: true,
        ..LocalOptions::default()
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// Gives what it has in pieces, as a pipe does.
struct Pieces<R>(R, usize);

impl<R: Read> Read for Pieces<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(self.1);
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn what_is_written_is_read_with_any_number_of_threads_and_however_it_comes() {
    for length in [0, 1, 4096, 100_000, 3 << 20] {
        for (threads, piece) in [(1, 1 << 20), (3, 70_001)] {
            let (issued, data_key) = issued();
            let (content, options) = (content(length), options(threads, 4096));
            let mut message = Vec::new();
            let written =
                encrypt(issued, &OsEntropy, &options, Pieces(content.as_slice(), piece), &mut message).unwrap();
            assert_eq!((written.bytes_in, written.bytes_out), (length as u64, message.len() as u64));
            assert_eq!(written.frames, length as u64 / 4096 + 1);
            assert_eq!(written.digests, Some((Digest::of(&content), Digest::of(&message))));
            let sealed = SealedInput::read(Pieces(message.as_slice(), piece)).unwrap();
            let mut back = Vec::new();
            let read = decrypt(sealed, &data_key, &options, &mut back).unwrap();
            assert_eq!(back, content);
            assert_eq!(read.digests, Some((Digest::of(&message), Digest::of(&content))));
            assert_eq!((read.frames, read.bytes_in), (written.frames, message.len() as u64));
        }
    }
}

#[test]
fn what_anybody_writes_in_frames_of_any_length_is_read() {
    for (length, frame) in [(10, 1), (1000, 7), (100_000, 65_536), (40_000_000, 16 << 20)] {
        let (issued, data_key) = issued();
        let mut message = Vec::new();
        let frame = FrameLength::new(frame).unwrap();
        let mut encryptor = Encryptor::begin_issued(issued, frame, &OsEntropy, &mut message).unwrap();
        encryptor.push(&content(length), &mut message).unwrap();
        encryptor.finish(&mut message).unwrap();
        let mut back = Vec::new();
        let sealed = SealedInput::read(message.as_slice()).unwrap();
        decrypt(sealed, &data_key, &options(2, 4096), &mut back).unwrap();
        assert!(back == content(length), "{length} in frames of {}", frame.as_u32());
    }
}

#[test]
fn what_was_changed_cut_or_continued_fails_and_only_a_beginning_of_the_content_comes_out() {
    let (issued, data_key) = issued();
    let content = content(5 << 20);
    let mut message = Vec::new();
    encrypt(issued, &OsEntropy, &options(2, 65_536), content.as_slice(), &mut message).unwrap();
    let change = |at: usize| {
        let mut changed = message.clone();
        changed[at] ^= 1;
        changed
    };
    let length = message.len();
    for (what, message) in [
        ("changed at the end", change(length - 1)),
        ("changed in the middle", change(length / 2)),
        ("changed after the header", change(300)),
        ("cut in a frame", message[..length - 70_000].to_vec()),
        ("cut by one", message[..length - 1].to_vec()),
        ("continued", [message.clone(), vec![0; 3]].concat()),
    ] {
        let mut out = Vec::new();
        let sealed = SealedInput::read(message.as_slice()).unwrap();
        let error = decrypt(sealed, &data_key, &options(3, 4096), &mut out).unwrap_err();
        assert!(matches!(error, ContentError::Message(_)), "{what}: {error}");
        assert!(content.starts_with(&out), "{what}");
    }
    assert!(matches!(SealedInput::read(&message[..50]), Err(ContentError::Header(_))));
    assert!(matches!(SealedInput::read(&b"no message"[..]), Err(ContentError::Header(_))));
}

struct Broken(usize);

impl Write for Broken {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(buffer.len()).ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(buffer.len())
    }
}

#[test]
fn inputs_and_outputs_that_fail_are_told_apart_and_a_stop_is_heard() {
    let input = || Cursor::new(vec![0; 10 << 20]);
    let write = |options: &LocalOptions| encrypt(issued().0, &OsEntropy, options, input(), Broken(5 << 20));
    assert!(matches!(write(&options(3, 65_536)), Err(ContentError::Output(_))));
    let read = encrypt(issued().0, &OsEntropy, &options(3, 65_536), Broken(5 << 20), io::sink());
    assert!(matches!(read, Err(ContentError::Input(_))));
    let stopped = options(2, 65_536);
    stopped.stop.store(true, Ordering::Relaxed);
    assert!(matches!(write(&stopped), Err(ContentError::Stopped)));
}
