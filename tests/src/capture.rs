//! Everything that is logged, at every level and by every crate, kept to be searched for what must not be there; and the memory
//! of other processes.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tracing_subscriber::fmt::MakeWriter;

/// What was logged so far.
#[derive(Clone, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// Takes everything that this process logs from now on. Once a process.
    ///
    /// # Panics
    /// Where somebody takes it already.
    pub fn everything() -> Self {
        let captured = Self::default();
        let subscriber =
            tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(captured.clone()).finish();
        tracing::subscriber::set_global_default(subscriber).expect("the first in this process");
        captured
    }

    /// What was logged so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("no test panics while it holds this").clone()
    }
}

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test panics while it holds this").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The form in which a secret stands in a text: as it is, in hexadecimal, in base64, as a list of numbers.
pub fn form_of_secret_in(text: &[u8], secret: &[u8]) -> Option<String> {
    let list = format!("{secret:?}");
    let forms = [
        secret.to_vec(),
        hex::encode(secret).into_bytes(),
        hex::encode_upper(secret).into_bytes(),
        STANDARD.encode(secret).into_bytes(),
        list.trim_matches(['[', ']']).as_bytes().to_vec(),
    ];
    let found = forms.into_iter().find(|form| text.windows(form.len()).any(|window| window == form));
    found.map(|form| String::from_utf8_lossy(&form).into_owned())
}

/// What was found in the memory of a process.
pub struct MemoryImage {
    /// Of each secret that is there at least in half, its name and where.
    pub found: Vec<(String, String)>,
    /// Bytes that were searched.
    pub searched: usize,
}

impl MemoryImage {
    /// The names of what was found, each once.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.found.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Searches every readable page of a process for secrets, whole or by halves of sixteen bytes.
///
/// # Panics
/// Where the process cannot be read.
pub fn search_memory(process: u32, secrets: &[(String, Vec<u8>)]) -> MemoryImage {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).expect("a process of ours");
    let mut memory = File::open(format!("/proc/{process}/mem")).expect("a process of ours");
    let mut image = MemoryImage { found: Vec::new(), searched: 0 };
    let halves: Vec<(&str, &[u8])> =
        secrets.iter().flat_map(|(name, secret)| secret.chunks_exact(16).map(move |half| (&**name, half))).collect();
    let mut begins = [false; 256];
    halves.iter().for_each(|(_, half)| begins[usize::from(half[0])] = true);
    for line in maps.lines() {
        let mut parts = line.split_whitespace();
        let (range, rights) = (parts.next().expect("a range"), parts.next().expect("rights"));
        if !rights.starts_with('r') || line.contains("[vvar") || line.contains("[vsyscall]") {
            continue;
        }
        let (start, end) = range.split_once('-').expect("a range");
        let number = |text| u64::from_str_radix(text, 16).expect("a number");
        let (start, end) = (number(start), number(end));
        let mut bytes = vec![0; usize::try_from(end - start).expect("what fits memory")];
        memory.seek(SeekFrom::Start(start)).expect("a readable range");
        // What a running process has given back meanwhile cannot be read, nor does it hold anything.
        if memory.read_exact(&mut bytes).is_err() {
            continue;
        }
        image.searched += bytes.len();
        for (at, window) in bytes.windows(16).enumerate().filter(|(_, window)| begins[usize::from(window[0])]) {
            for (name, _) in halves.iter().filter(|(_, half)| *half == window) {
                image.found.push(((*name).to_owned(), format!("{} before the end of {line}", bytes.len() - at)));
            }
        }
    }
    image
}
