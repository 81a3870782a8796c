//! The kernel's file systems. The root is the unpacked ramdisks, in memory like everything else.

use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
};

use super::MachineError;

const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
const DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);

/// Mounts what the service and the kernel's drivers need. Nothing that is mounted holds programs.
pub(super) fn mount_all() -> Result<(), MachineError> {
    for (kind, what, flags, data) in [
        ("proc", "/proc", PLAIN, c""),
        ("sysfs", "/sys", PLAIN, c""),
        ("devtmpfs", "/dev", DEVICES, c"mode=0755"),
        ("tmpfs", "/run", PLAIN, c"mode=0755,size=4m"),
        ("tmpfs", "/tmp", PLAIN, c"mode=1777,size=4m"),
    ] {
        let failed = |source| MachineError::Mount { what, source };
        std::fs::create_dir_all(what).map_err(failed)?;
        match mount(kind, what, kind, flags, data) {
            // The kernel may have mounted it by itself.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
    Ok(())
}
