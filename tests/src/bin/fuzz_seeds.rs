//! Writes the seeds of the fuzz targets into `fuzz/seeds`; `fuzz/seed` calls it. With `--material` also the fixed keys and
//! documents that the targets start from.

use std::{env, fs, io, path::PathBuf};

use testkit::fuzzing::{make_material, seeds};

fn main() -> io::Result<()> {
    if env::args().any(|argument| argument == "--material") {
        write(make_material())?;
    }
    write(seeds())
}

fn write(files: Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    for (path, bytes) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&root))?;
        fs::write(path, bytes)?;
    }
    Ok(())
}
