use std::{
    io::{IoSliceMut, Read, Write},
    sync::{Mutex, PoisonError},
};

use transcode_confidential::message::{DataKey, FrameReader, FrameRun, HeaderReader, Malformed, ParsedHeader};
use zeroize::Zeroizing;

use super::{Input, LocalDone, LocalOptions, frames_in_block, turns::Turns};
use crate::error::ContentError;

/// A message of which the header was read, and nothing of it is authenticated yet.
#[derive(Debug)]
pub struct SealedInput<R> {
    header: ParsedHeader,
    /// Everything that was read, and where the header ends in it.
    read: Vec<u8>,
    header_length: usize,
    input: R,
}

/// Bytes of a message that are read to find its header in.
const HEAD_PIECE: usize = 4096;

impl<R: Read> SealedInput<R> {
    /// Reads the header of a message. Blocks the calling thread.
    ///
    /// # Errors
    /// [`ContentError::Header`] where there is none that is read here; [`ContentError::Input`].
    pub fn read(mut input: R) -> Result<Self, ContentError> {
        let (mut reader, mut read) = (HeaderReader::new(), Vec::new());
        let mut piece = [0; HEAD_PIECE];
        loop {
            let length = match input.read(&mut piece) {
                Ok(0) => return Err(ContentError::Header(reader.finish())),
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ContentError::Input(error)),
            };
            let mut rest = piece.get(..length).unwrap_or_default();
            read.extend_from_slice(rest);
            if let Some(header) = reader.push(&mut rest).map_err(ContentError::Header)? {
                let header_length = read.len() - rest.len();
                return Ok(Self { header, read, header_length, input });
            }
        }
    }

    /// The header, to find the wrapped data key and the context in.
    pub const fn header(&self) -> &ParsedHeader {
        &self.header
    }
}

/// Reads one message with its data key. Every byte that is written was authenticated, but that nothing is missing is known
/// only when this returns `Ok`. Blocks the calling thread.
///
/// # Errors
/// [`ContentError`].
pub fn decrypt<R: Read + Send, W: Write + Send>(
    sealed: SealedInput<R>,
    data_key: &DataKey,
    options: &LocalOptions,
    output: W,
) -> Result<LocalDone, ContentError> {
    let SealedInput { header, read, header_length, input } = sealed;
    let block = frames_in_block(header.frame_length());
    let frames = header.frames_with(data_key)?;
    let block = block * frames.whole_frame();
    let mut input = Input::new(input, options);
    input.took_before(&read);
    let carry = read.get(header_length..).unwrap_or_default().to_vec();
    let source = Source { input, frames: Some(frames), carry, blocks: 0, count: 0 };
    let (source, output) = (Mutex::new(source), Turns::begin(output, &[], options.digests)?);
    let buffer = || Zeroizing::new(vec![0; block.max(HEAD_PIECE)]);
    std::thread::scope(|scope| {
        for _ in 1..options.threads.get() {
            scope.spawn(|| work(&source, &output, buffer()));
        }
        work(&source, &output, buffer());
    });
    let (bytes_out, written) = output.finish()?;
    let Source { input, count, .. } = source.into_inner().unwrap_or_else(PoisonError::into_inner);
    let bytes_in = input.bytes;
    Ok(LocalDone { frames: count, bytes_in, bytes_out, digests: input.digest().zip(written) })
}

struct Source<R> {
    input: Input<R>,
    /// `None` after the last frame, or a failure.
    frames: Option<FrameReader>,
    /// The beginning of a frame that the last block ended in.
    carry: Vec<u8>,
    blocks: u64,
    count: u64,
}

fn work<R: Read, W: Write>(source: &Mutex<Source<R>>, output: &Turns<W>, mut buffer: Zeroizing<Vec<u8>>) {
    loop {
        let next = source.lock().unwrap_or_else(PoisonError::into_inner).next(&mut buffer);
        let (number, run) = match next {
            Ok(Some(next)) => next,
            Ok(None) => return,
            Err(error) => return output.fail(error),
        };
        let opened = match buffer.get_mut(..run.length()).map(|bytes| run.open(bytes)) {
            Some(Ok(opened)) => opened,
            Some(Err(error)) => return output.fail(error.into()),
            None => return output.fail(ContentError::Stopped),
        };
        if !output.write(number, opened.into_iter().filter_map(|place| buffer.get(place))) {
            return;
        }
    }
}

impl<R: Read> Source<R> {
    /// Fills the buffer and finds the frames in it. `None` after the last.
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, FrameRun)>, ContentError> {
        let Some(mut frames) = self.frames.take() else { return Ok(None) };
        let mut filled = self.carry.len();
        buffer.iter_mut().zip(&self.carry).for_each(|(slot, byte)| *slot = *byte);
        let mut ended = false;
        while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
            match self.input.read(&mut [IoSliceMut::new(room)])? {
                0 => {
                    ended = true;
                    break;
                }
                length => filled += length,
            }
        }
        let bytes = buffer.get(..filled).unwrap_or_default();
        let run = frames.take(bytes)?;
        self.carry = bytes.get(run.length()..).unwrap_or_default().to_vec();
        self.count += run.frames() as u64;
        let number = self.blocks;
        self.blocks += 1;
        if ended {
            if !self.carry.is_empty() {
                return Err(ContentError::Message(Malformed::Truncated.into()));
            }
            frames.finish()?;
        } else {
            self.frames = Some(frames);
        }
        Ok(Some((number, run)))
    }
}
