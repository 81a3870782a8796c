//! Kernel modules. They lie in the boot ramdisk, so they count in PCR1 as the kernel does.

use std::{fs, io, path::Path, thread, time::Duration};

use rustix::{io::Errno, system::finit_module};

use super::MachineError;

/// Where the image has its modules. Their names begin with their place in the order.
pub const FOLDER: &str = "/modules";

const DEVICE: &str = "/dev/nsm";
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Loads every module of a folder, in the order of the names. One that the kernel has already is no error; no folder is no
/// module.
pub(super) fn load_all(folder: &Path) -> Result<(), MachineError> {
    let failed = |name: &str| {
        let name = name.to_owned();
        move |source: io::Error| MachineError::Module { name, source }
    };
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        listed => listed.map_err(failed("folder"))?,
    };
    let mut paths = listed
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(failed("folder"))?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = fs::File::open(&path).map_err(failed(&name))?;
        match finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(&name)(error.into())),
        }
    }
    Ok(())
}

/// Waits until the NSM's driver has made its device.
///
/// # Errors
/// [`MachineError::NoNsm`].
pub fn await_nsm() -> Result<(), MachineError> {
    for _ in 0..PATIENCE.as_millis() / LOOK_EVERY.as_millis() {
        if Path::new(DEVICE).exists() {
            return Ok(());
        }
        thread::sleep(LOOK_EVERY);
    }
    Err(MachineError::NoNsm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_modules_is_one_whose_kernel_has_all() {
        assert!(load_all(Path::new("/nonexistent/modules")).is_ok());
    }

    #[test]
    fn what_is_no_module_is_named() {
        // Whether the kernel refuses the file or the caller: never silently nothing.
        let folder = std::env::temp_dir().join(format!("no-modules-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("00-nsm.ko"), b"not a module").unwrap();
        let error = load_all(&folder).unwrap_err();
        fs::remove_dir_all(&folder).unwrap();
        assert!(error.to_string().starts_with("kernel module 00-nsm.ko cannot be loaded: "), "{error}");
    }
}
