//! What lies in which ramdisk. The hypervisor measures the first one with the kernel (PCR1), the rest by itself (PCR2).

use std::collections::BTreeMap;

use enclave_app::{pid1::modules, program};

use crate::cpio::{Archive, Entry};

/// The configuration's path inside the image, without its first slash.
pub(crate) fn configuration_path() -> &'static str {
    program::CONFIG.trim_start_matches('/')
}

/// The first ramdisk: mount points, the two devices that a program finds open or missing, and the modules in their order.
pub(crate) fn boot(kernel_modules: &[(String, Vec<u8>)]) -> Archive {
    let mut entries: BTreeMap<_, _> =
        ["dev", "proc", "run", "sys", "tmp"].map(|path| (path.to_owned(), Entry::Directory)).into();
    entries.insert("dev/console".to_owned(), Entry::Device { major: 5, minor: 1 });
    entries.insert("dev/null".to_owned(), Entry::Device { major: 1, minor: 3 });
    let folder = modules::FOLDER.trim_start_matches('/');
    entries.insert(folder.to_owned(), Entry::Directory);
    for (place, (name, content)) in kernel_modules.iter().enumerate() {
        entries.insert(format!("{folder}/{place:02}-{name}"), Entry::File(content.clone()));
    }
    Archive(entries)
}

/// The second ramdisk: the program, which is the first process, and its measured configuration.
pub(crate) fn application(program: Vec<u8>, configuration: Vec<u8>) -> Archive {
    let mut entries = BTreeMap::from([("init".to_owned(), Entry::Program(program))]);
    let path = configuration_path();
    for (slash, _) in path.match_indices('/') {
        entries.insert(path.split_at(slash).0.to_owned(), Entry::Directory);
    }
    entries.insert(path.to_owned(), Entry::File(configuration));
    Archive(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_keep_the_order_in_which_they_were_given() {
        let modules = [("vsock.ko".to_owned(), vec![1]), ("nsm.ko".to_owned(), vec![2])];
        let archive = boot(&modules);
        let names: Vec<_> = archive.0.keys().filter(|path| path.ends_with(".ko")).collect();
        assert_eq!(names, ["modules/00-vsock.ko", "modules/01-nsm.ko"]);
    }

    #[test]
    fn the_application_is_the_program_and_its_configuration_and_nothing_else() {
        let archive = application(vec![1], vec![2]);
        let paths: Vec<_> = archive.0.keys().map(String::as_str).collect();
        assert_eq!(paths, ["etc", "etc/transcode-confidential", "etc/transcode-confidential/enclave.toml", "init"]);
    }
}
