use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use super::message_path;

/// Largest playlist that is read.
const PLAYLIST_LIMIT: u64 = 16 * 1024 * 1024;
/// What packagers call files that are not done.
const UNFINISHED: [&str; 3] = ["tmp", "part", "partial"];

/// When a file is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Completeness {
    /// The packager is done: whatever is there.
    Everything,
    /// A playlist names it, or it has not changed for a while.
    NamedOrSettled(Duration),
}

/// A directory that a packager writes to.
pub(super) struct Folder {
    dir: PathBuf,
    output: PathBuf,
    completeness: Completeness,
    /// Files that no playlist names, and since when they are as they are.
    waiting: HashMap<OsString, (Version, Instant)>,
}

/// A file as it was at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) length: u64,
    pub(super) modified: SystemTime,
}

/// A complete file without a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) name: OsString,
    pub(super) path: PathBuf,
    pub(super) version: Version,
    /// Its message is there; only the file has to go.
    pub(super) encrypted: bool,
}

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Files to be encrypted, by name.
    pub(super) ready: Vec<Segment>,
    /// Files that may still be written to.
    pub(super) unfinished: usize,
    /// Whether there is a playlist, and every one says that nothing more comes.
    pub(super) ended: bool,
}

impl Seen {
    /// Whether nothing is left to do, now.
    pub(super) fn is_done(&self) -> bool {
        self.unfinished == 0 && self.ready.iter().all(|segment| segment.encrypted)
    }
}

impl Version {
    pub(super) fn of(metadata: &Metadata) -> io::Result<Self> {
        Ok(Self { length: metadata.len(), modified: metadata.modified()? })
    }
}

impl Folder {
    pub(super) fn new(dir: PathBuf, output: PathBuf, completeness: Completeness) -> Self {
        Self { dir, output, completeness, waiting: HashMap::new() }
    }

    /// Looks at every file. A message that has the time of its file is of this very file, so what was done before a crash
    /// needs no other record.
    pub(super) fn look(&mut self) -> io::Result<Seen> {
        let (mut files, mut playlists) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            // Links lead elsewhere, and what starts with a dot is somebody's own.
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            if !kind.is_file() || name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            match ending(&name) {
                Some("m3u8") => playlists.push(entry.path()),
                Some("tce" | "mpd") => {}
                Some(ending) if UNFINISHED.contains(&ending) => {}
                _ => match entry.metadata() {
                    Ok(metadata) => files.push((name, entry.path(), Version::of(&metadata)?)),
                    // A packager that keeps a window removes files.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                },
            }
        }
        files.sort_by(|(left, ..), (right, ..)| left.cmp(right));
        let (named, ended) = read_playlists(&playlists);
        let mut seen = Seen { ended, ..Seen::default() };
        self.waiting.retain(|name, _| files.iter().any(|(file, ..)| file == name));
        for (name, path, version) in files {
            let encrypted = is_message_of(&message_path(&self.output, &name), version);
            if encrypted || self.is_complete(&name, version, &named) {
                seen.ready.push(Segment { name, path, version, encrypted });
            } else {
                seen.unfinished += 1;
            }
        }
        Ok(seen)
    }

    fn is_complete(&mut self, name: &OsStr, version: Version, named: &HashSet<OsString>) -> bool {
        let Completeness::NamedOrSettled(settle) = self.completeness else { return true };
        if named.contains(name) {
            return true;
        }
        let now = Instant::now();
        let (known, since) = self.waiting.entry(name.to_owned()).or_insert((version, now));
        if *known != version {
            (*known, *since) = (version, now);
        }
        now.duration_since(*since) >= settle
    }
}

fn is_message_of(message: &Path, version: Version) -> bool {
    fs::metadata(message).and_then(|metadata| metadata.modified()).is_ok_and(|modified| modified == version.modified)
}

fn ending(name: &OsStr) -> Option<&str> {
    Path::new(name).extension().and_then(OsStr::to_str)
}

/// What playlists name: packagers name a segment when it is complete. One that cannot be read names nothing yet.
fn read_playlists(paths: &[PathBuf]) -> (HashSet<OsString>, bool) {
    let (mut named, mut ended) = (HashSet::new(), !paths.is_empty());
    for path in paths {
        let small = fs::metadata(path).is_ok_and(|metadata| metadata.len() <= PLAYLIST_LIMIT);
        let text = if small { fs::read_to_string(path).unwrap_or_default() } else { String::new() };
        let mut lines = text.lines().map(str::trim);
        // A master playlist names playlists, and never ends.
        let master = text.contains("#EXT-X-STREAM-INF");
        ended &= master || lines.any(|line| line == "#EXT-X-ENDLIST");
        named.extend(text.lines().filter_map(|line| named_in(line.trim())));
    }
    (named, ended)
}

/// The file that a line of a playlist names: a segment, or an initialisation section.
fn named_in(line: &str) -> Option<OsString> {
    let uri = match line.strip_prefix("#EXT-X-MAP:") {
        Some(attributes) => attributes.split_once("URI=\"")?.1.split_once('"')?.0,
        None if line.is_empty() || line.starts_with('#') => return None,
        None => line,
    };
    let path = uri.split_once(['?', '#']).map_or(uri, |(path, _)| path);
    path.rsplit('/').next().filter(|name| !name.is_empty()).map(OsString::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Completeness = Completeness::NamedOrSettled(Duration::from_millis(200));
    const LATE: Completeness = Completeness::NamedOrSettled(Duration::from_secs(3600));

    fn names(seen: &Seen) -> Vec<&str> {
        seen.ready.iter().map(|segment| segment.name.to_str().unwrap()).collect()
    }

    fn folder(dir: &Path, completeness: Completeness) -> Folder {
        Folder::new(dir.to_owned(), dir.to_owned(), completeness)
    }

    #[test]
    fn what_a_playlist_names_is_complete_and_the_rest_waits() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["seg0.ts", "seg1.ts", "init.mp4", "seg2.ts.tmp", ".hidden", "seg0.tce", "manifest.mpd"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let playlist = "#EXTM3U\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:2,\nhttps://cdn.test/x/seg0.ts?v=1\n";
        fs::write(dir.path().join("film.m3u8"), playlist).unwrap();
        let seen = folder(dir.path(), LATE).look().unwrap();
        assert_eq!((names(&seen), seen.unfinished, seen.ended), (vec!["init.mp4", "seg0.ts"], 1, false));
        fs::write(dir.path().join("film.m3u8"), format!("{playlist}seg1.ts\n#EXT-X-ENDLIST\n")).unwrap();
        let seen = folder(dir.path(), LATE).look().unwrap();
        assert_eq!((names(&seen), seen.unfinished, seen.ended), (vec!["init.mp4", "seg0.ts", "seg1.ts"], 0, true));
    }

    #[test]
    fn without_a_playlist_a_file_that_still_changes_is_not_complete() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.ts");
        let mut folder = folder(dir.path(), SOON);
        let start = Instant::now();
        let mut length = 0;
        while start.elapsed() < Duration::from_millis(600) {
            length += 1;
            fs::write(&file, vec![0; length]).unwrap();
            let written = Instant::now();
            let seen = folder.look().unwrap();
            assert!(names(&seen).is_empty() || written.elapsed() > Duration::from_millis(100), "it grew just now");
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(250));
        assert_eq!(names(&folder.look().unwrap()), ["a.ts"]);
    }

    #[test]
    fn a_message_with_the_time_of_its_file_is_its_message() {
        let dir = tempfile::tempdir().unwrap();
        let (file, message) = (dir.path().join("a.ts"), dir.path().join("a.ts.tce"));
        fs::write(&file, "content").unwrap();
        fs::write(&message, "message").unwrap();
        let modified = fs::metadata(&file).unwrap().modified().unwrap();
        let before = modified - Duration::from_secs(1);
        fs::File::options().write(true).open(&message).unwrap().set_modified(before).unwrap();
        let mut folder = folder(dir.path(), Completeness::Everything);
        assert!(!folder.look().unwrap().is_done(), "some other message");
        fs::File::options().write(true).open(&message).unwrap().set_modified(modified).unwrap();
        assert!(folder.look().unwrap().is_done());
        fs::File::options().write(true).open(&file).unwrap().set_modified(modified + Duration::from_secs(1)).unwrap();
        assert!(!folder.look().unwrap().is_done(), "the file changed since");
    }

    #[test]
    fn a_master_playlist_names_no_segment_and_keeps_nothing_open() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("master.m3u8"), "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlow.m3u8\n").unwrap();
        fs::write(dir.path().join("low.m3u8"), "#EXTM3U\n").unwrap();
        let mut folder = folder(dir.path(), LATE);
        assert!(!folder.look().unwrap().ended);
        fs::write(dir.path().join("low.m3u8"), "#EXTM3U\n#EXT-X-ENDLIST\n").unwrap();
        assert!(folder.look().unwrap().ended);
    }
}
