//! Frames by the block, so that several threads can seal or open them: each block is assigned its frame numbers in order,
//! worked on wherever there is a core, and written in order again.

mod open;
mod seal;

pub use open::{FrameReader, FrameRun};
pub use seal::{AssignedBlock, FrameWriter, SealBlock, SealedBlock};

#[cfg(test)]
mod tests {
    use crate::{
        entropy::OsEntropy,
        ids::{KeyId, KeyVersion},
        message::{
            Encryptor, FrameLength, FrameReader, FrameWriter, HeaderReader, IssuedDataKey, Malformed, MessageError,
            SealBlock, WrappingKey,
        },
        secret::KeyMaterial,
    };

    const FRAME: FrameLength = match FrameLength::new(100) {
        Ok(length) => length,
        Err(_) => panic!("a good length"),
    };

    struct World {
        id: KeyId,
        material: KeyMaterial,
    }

    impl World {
        fn new() -> Self {
            Self { id: "content-key-1".parse().unwrap(), material: KeyMaterial::from_bytes([3; 32]) }
        }

        fn wrap(&self) -> WrappingKey<'_> {
            WrappingKey { key_id: &self.id, version: KeyVersion(1), material: &self.material }
        }

        fn issue(&self) -> IssuedDataKey {
            IssuedDataKey::issue(&self.wrap(), &Default::default(), &OsEntropy).unwrap()
        }

        /// Seals block by block, the later blocks first.
        fn seal(&self, content: &[u8], frames: usize) -> Vec<u8> {
            let mut message = Vec::new();
            let mut writer = FrameWriter::begin(self.issue(), FRAME, &OsEntropy, &mut message).unwrap();
            let mut blocks = Vec::new();
            let mut rest = content;
            loop {
                let mut block = SealBlock::new(FRAME, frames);
                let mut filled = 0;
                for room in block.room(0) {
                    let (part, behind) = rest.split_at(room.len().min(rest.len()));
                    room[..part.len()].copy_from_slice(part);
                    filled += part.len();
                    rest = behind;
                }
                if filled < block.capacity() {
                    blocks.push(writer.assign_last(block, filled).unwrap());
                    break;
                }
                blocks.push(writer.assign(block).unwrap());
            }
            assert!(writer.assign(SealBlock::new(FRAME, 1)).is_err(), "nothing follows the last frame");
            let mut sealed: Vec<_> = blocks.into_iter().rev().map(|block| block.seal().unwrap()).collect();
            while let Some((block, length)) = sealed.pop() {
                message.extend_from_slice(&block.bytes()[..length]);
            }
            message
        }

        fn decrypt(&self, message: &[u8]) -> Result<Vec<u8>, MessageError> {
            let mut rest = message;
            let header = HeaderReader::new().push(&mut rest)?.ok_or(MessageError::Malformed(Malformed::Truncated))?;
            let (mut decryptor, mut content) = (header.unwrap(&self.wrap())?, Vec::new());
            decryptor.push(rest, &mut content)?;
            decryptor.finish().map(|()| content)
        }

        fn reader<'a>(&self, message: &'a [u8]) -> (FrameReader, &'a [u8]) {
            let mut rest = message;
            let header = HeaderReader::new().push(&mut rest).unwrap().unwrap();
            let wrapped = header.wrapped_data_keys().next().unwrap().clone();
            let data_key = wrapped.unwrap(&self.wrap(), &Default::default()).unwrap();
            (header.frames_with(&data_key).unwrap(), rest)
        }

        /// Opens what comes in pieces of some bytes.
        fn open(&self, message: &[u8], piece: usize) -> Result<Vec<u8>, MessageError> {
            let (mut reader, mut rest) = self.reader(message);
            let (mut pending, mut content) = (Vec::new(), Vec::new());
            while !rest.is_empty() {
                let (part, behind) = rest.split_at(piece.min(rest.len()));
                rest = behind;
                pending.extend_from_slice(part);
                let run = reader.take(&pending)?;
                let mut whole: Vec<u8> = pending.drain(..run.length()).collect();
                for place in run.open(&mut whole)? {
                    content.extend_from_slice(&whole[place]);
                }
            }
            reader.finish()?;
            if pending.is_empty() { Ok(content) } else { Err(Malformed::Truncated.into()) }
        }
    }

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 7) as u8).collect()
    }

    #[test]
    fn blocks_sealed_in_any_order_are_one_message() {
        let world = World::new();
        for length in [0, 1, 99, 100, 101, 299, 300, 301, 1000, 12_345] {
            for frames in [1, 3, 16] {
                let message = world.seal(&content(length), frames);
                assert_eq!(world.decrypt(&message).unwrap(), content(length), "{length} in blocks of {frames}");
            }
        }
    }

    #[test]
    fn what_the_encryptor_writes_is_opened_by_the_run_however_it_is_cut() {
        let world = World::new();
        for length in [0, 1, 99, 100, 101, 1000] {
            let mut message = Vec::new();
            let mut encryptor = Encryptor::begin_issued(world.issue(), FRAME, &OsEntropy, &mut message).unwrap();
            encryptor.push(&content(length), &mut message).unwrap();
            encryptor.finish(&mut message).unwrap();
            for piece in [1, 7, 132, 133, 5000] {
                assert_eq!(world.open(&message, piece).unwrap(), content(length), "{length} by {piece}");
            }
        }
    }

    #[test]
    fn a_changed_cut_or_continued_message_gives_nothing_of_the_run_that_it_is_in() {
        let world = World::new();
        let message = world.seal(&content(450), 2);
        let header = message.len() - world.reader(&message).1.len();
        for at in header..message.len() {
            let mut changed = message.clone();
            changed[at] ^= 1;
            assert!(world.open(&changed, 5000).is_err(), "{at}");
        }
        for length in header..message.len() {
            assert!(world.open(&message[..length], 100).is_err(), "{length}");
        }
        let continued = [message.clone(), vec![0]].concat();
        assert!(matches!(world.open(&continued, 5000), Err(MessageError::Malformed(Malformed::Trailing))));
        let (mut reader, frames) = world.reader(&message);
        let mut bytes = frames.to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(reader.take(&bytes).unwrap().open(&mut bytes).is_err());
        assert!(bytes.iter().all(|byte| *byte == 0), "what was opened before the bad frame is wiped");
    }
}
