use std::{
    collections::VecDeque,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, mpsc::sync_channel},
};

use transcode_confidential::audit::segment::{SegmentHeader, SegmentName, WholeRecords};

use super::{
    super::stored,
    Job, Part,
    content::{Contents, Step},
    window::Window,
};

/// Bytes that are read at a time: what is shared stays in the caches of the cores, and little is moved.
const CHUNK: usize = 256 * 1024;

/// A segment and where it lies.
pub(super) type File<'a> = &'a (SegmentName, PathBuf);

/// Reads segments, and cuts them where records end.
pub(super) struct Reader<I> {
    files: I,
    open: Option<Open>,
    /// Cut and not yet given out.
    jobs: VecDeque<Job>,
    /// What was read, oldest first: memory to read into again when the others are done with it.
    used: VecDeque<Arc<Vec<u8>>>,
}

/// A segment that is being read.
struct Open {
    path: PathBuf,
    file: Box<dyn Read + Send>,
    /// The start of a record of which more comes.
    held: Vec<u8>,
    /// Whether what follows can still be cut.
    readable: bool,
}

impl<'a, I: Iterator<Item = File<'a>>> Reader<I> {
    pub(super) const fn new(files: I) -> Self {
        Self { files, open: None, jobs: VecDeque::new(), used: VecDeque::new() }
    }

    /// Whether records are cut and not yet given out: more is read only when there are none.
    pub(super) fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Reads on, putting what is read into the window, until there are records to be prepared; `None` where the window is full
    /// before, or where there are no more: it is closed then.
    pub(super) fn next(&mut self, window: &Window, contents: &Contents) -> Option<Job> {
        while self.jobs.is_empty() && window.has_room() {
            let read = match self.open.take() {
                Some(open) => self.read_on(open, window, contents),
                None => match self.files.next() {
                    Some((name, path)) => {
                        window.put(Part::Segment(*name));
                        self.begin(path, window, contents).map_err(|error| (path.clone(), error))
                    }
                    None => return end(window),
                },
            };
            match read {
                Ok(()) => {}
                Err((_, error)) if packed::is_damage(&error) => window.put(Part::Unreadable(error.to_string())),
                Err((path, error)) => {
                    window.put(Part::Failed(path, error));
                    return end(window);
                }
            }
        }
        self.jobs.pop_front()
    }

    fn begin(&mut self, path: &Path, window: &Window, contents: &Contents) -> io::Result<()> {
        let mut file = stored::open(path, 0)?;
        let mut head = Vec::new();
        fill(&mut head, &mut file, SegmentHeader::LEN)?;
        contents.put(Step::Begin(head.clone()));
        window.put(Part::Bytes(head));
        self.open = Some(Open { path: path.to_owned(), file, held: Vec::new(), readable: true });
        Ok(())
    }

    fn read_on(&mut self, mut open: Open, window: &Window, contents: &Contents) -> Result<(), (PathBuf, io::Error)> {
        let mut bytes = self.memory();
        bytes.append(&mut open.held);
        match fill(&mut bytes, &mut open.file, CHUNK) {
            Ok(0) => {
                window.put(Part::Bytes(bytes));
                return Ok(());
            }
            Ok(_) if !open.readable => window.put(Part::Bytes(bytes)),
            Ok(_) => {
                let bytes = Arc::new(bytes);
                let whole;
                (whole, open.readable) = self.cut(&bytes, window, contents);
                open.held.extend_from_slice(bytes.get(whole..).unwrap_or_default());
                self.used.push_back(bytes);
                if !open.readable {
                    window.put(Part::Bytes(std::mem::take(&mut open.held)));
                }
            }
            Err(error) => return Err((open.path, error)),
        }
        self.open = Some(open);
        Ok(())
    }

    /// Empty memory for a chunk.
    fn memory(&mut self) -> Vec<u8> {
        let free = self.used.pop_front_if(|oldest| Arc::strong_count(oldest) == 1).and_then(Arc::into_inner);
        let mut bytes = free.unwrap_or_default();
        bytes.clear();
        bytes
    }

    /// Makes jobs of the whole records among the bytes; gives where they end, and whether more bytes could make a record of
    /// what follows.
    fn cut(&mut self, bytes: &Arc<Vec<u8>>, window: &Window, contents: &Contents) -> (usize, bool) {
        let mut start = 0;
        loop {
            let found = WholeRecords::of(bytes.get(start..).unwrap_or_default());
            let end = start + found.length;
            let footer = start + found.footer.unwrap_or(found.length);
            contents.put(Step::Bytes(Arc::clone(bytes), start..footer));
            let content = found.footer.map(|_| {
                let (tell, told) = sync_channel(1);
                contents.put(Step::Tell(tell));
                contents.put(Step::Bytes(Arc::clone(bytes), footer..end));
                told
            });
            if found.length > 0 {
                let (done, prepared) = sync_channel(1);
                self.jobs.push_back(Job { bytes: Arc::clone(bytes), range: start..end, done });
                window.put(Part::Records { prepared, bytes: found.length, content });
            }
            if found.footer.is_none() {
                return (end, found.damage.is_none());
            }
            start = end;
        }
    }
}

fn end<T>(window: &Window) -> Option<T> {
    window.close();
    None
}

/// Reads on behind what there is, at most `length` bytes; gives how many.
fn fill(bytes: &mut Vec<u8>, file: &mut Box<dyn Read + Send>, length: usize) -> io::Result<usize> {
    bytes.reserve(length);
    file.by_ref().take(length as u64).read_to_end(bytes)
}
