use std::{
    io::{IoSliceMut, Read, Write},
    sync::{Mutex, PoisonError},
};

use transcode_confidential::{
    entropy::Entropy,
    message::{AssignedBlock, FrameWriter, IssuedDataKey, SealBlock},
};

use super::{Input, LocalDone, LocalOptions, frames_in_block, turns::Turns};
use crate::error::ContentError;

/// Writes one message with a data key that was issued for it. Blocks the calling thread.
///
/// # Errors
/// [`ContentError`]; what was written so far is no message then.
pub fn encrypt<R: Read + Send, W: Write + Send>(
    issued: IssuedDataKey,
    entropy: &dyn Entropy,
    options: &LocalOptions,
    input: R,
    output: W,
) -> Result<LocalDone, ContentError> {
    let mut head = Vec::new();
    let writer = FrameWriter::begin(issued, options.frame_length, entropy, &mut head)?;
    let source = Source { input: Input::new(input, options), writer, blocks: 0, frames: 0, ended: false };
    let (source, output) = (Mutex::new(source), Turns::begin(output, &head, options.digests)?);
    let block = || SealBlock::new(options.frame_length, frames_in_block(options.frame_length));
    std::thread::scope(|scope| {
        for _ in 1..options.threads.get() {
            scope.spawn(|| work(&source, &output, block()));
        }
        work(&source, &output, block());
    });
    let (bytes_out, written) = output.finish()?;
    let Source { input, frames, .. } = source.into_inner().unwrap_or_else(PoisonError::into_inner);
    let bytes_in = input.bytes;
    Ok(LocalDone { frames, bytes_in, bytes_out, digests: input.digest().zip(written) })
}

struct Source<R> {
    input: Input<R>,
    writer: FrameWriter,
    blocks: u64,
    frames: u64,
    ended: bool,
}

fn work<R: Read, W: Write>(source: &Mutex<Source<R>>, output: &Turns<W>, mut block: SealBlock) {
    loop {
        let next = source.lock().unwrap_or_else(PoisonError::into_inner).next(block);
        let (number, assigned) = match next {
            Ok(Some(next)) => next,
            Ok(None) => return,
            Err(error) => return output.fail(error),
        };
        let (sealed, length) = match assigned.seal() {
            Ok(sealed) => sealed,
            Err(error) => return output.fail(error.into()),
        };
        if !output.write(number, sealed.bytes().get(..length).into_iter()) {
            return;
        }
        block = sealed.reuse();
    }
}

impl<R: Read> Source<R> {
    /// Fills a block, the last one as far as the input goes. `None` after the last.
    fn next(&mut self, mut block: SealBlock) -> Result<Option<(u64, AssignedBlock)>, ContentError> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(None);
        }
        let mut filled = 0;
        while filled < block.capacity() {
            let mut room: Vec<_> = block.room(filled).map(IoSliceMut::new).collect();
            match self.input.read(&mut room)? {
                0 => break,
                length => filled += length,
            }
        }
        let number = self.blocks;
        self.blocks += 1;
        let length = block.frame_length().as_usize();
        self.frames += (filled / length) as u64;
        if filled == block.capacity() {
            self.ended = false;
            return Ok(Some((number, self.writer.assign(block)?)));
        }
        self.frames += 1;
        Ok(Some((number, self.writer.assign_last(block, filled)?)))
    }
}
