//! The kernel's random numbers: fed by the NSM, or there is no start.
//!
//! An enclave has no interrupts worth counting and no disk. Without the NSM's generator the kernel's would rest on the CPU's
//! instruction alone, or on the host's mercy.

use std::{fs, io::Write as _, path::Path, thread, time::Duration};

use zeroize::Zeroizing;

use super::MachineError;
use crate::nsm::{MAX_RANDOM, Nsm};

/// Where the kernel says which generator feeds it.
const GENERATOR: &str = "/sys/class/misc/hw_random";
/// What the NSM's driver calls its generator.
const NSM_GENERATOR: &str = "nsm-hwrng";
const POOL: &str = "/dev/urandom";
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits until the NSM's generator feeds the kernel's, then mixes in what the NSM gives when it is asked directly.
///
/// # Errors
/// [`MachineError::Randomness`].
pub fn secure(nsm: &dyn Nsm) -> Result<(), MachineError> {
    let mut looks = PATIENCE.as_millis() / LOOK_EVERY.as_millis();
    while let Err(reason) = fed_by_nsm(GENERATOR.as_ref()) {
        looks = looks.checked_sub(1).ok_or(MachineError::Randomness(reason))?;
        thread::sleep(LOOK_EVERY);
    }
    mix(nsm, POOL.as_ref()).map_err(MachineError::Randomness)
}

/// Whether the kernel takes its random bits from the NSM, and counts them.
fn fed_by_nsm(generator: &Path) -> Result<(), String> {
    let read = |name: &str| fs::read_to_string(generator.join(name)).map(|text| text.trim().to_owned());
    let current = read("rng_current").map_err(|error| format!("the kernel names no generator: {error}"))?;
    if current != NSM_GENERATOR {
        return Err(format!("the generator is {current:?}"));
    }
    // Kernels before 6.2 do not tell.
    match read("rng_quality") {
        Ok(quality) if quality == "0" => Err("the kernel does not count its bits".to_owned()),
        _ => Ok(()),
    }
}

/// Writes as much as one call gives into the kernel's pool. Bad bits do no harm there.
fn mix(nsm: &dyn Nsm, pool: &Path) -> Result<(), String> {
    let mut random = Zeroizing::new([0; MAX_RANDOM]);
    nsm.random(&mut *random).map_err(|error| error.to_string())?;
    if random.iter().all(|byte| *byte == 0) {
        return Err("the NSM gave zeros".to_owned());
    }
    let written = fs::File::options().write(true).open(pool).and_then(|mut pool| pool.write_all(&*random));
    written.map_err(|error| format!("the pool cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use transcode_confidential::attestation::{PcrIndex, PcrValue};

    use super::*;
    use crate::nsm::{AttestationRequest, NsmError, PcrState};

    struct Folder(PathBuf);

    impl Folder {
        fn with(name: &str, files: &[(&str, &str)]) -> Self {
            let path = std::env::temp_dir().join(format!("generator-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            files.iter().for_each(|(file, text)| fs::write(path.join(file), text).unwrap());
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn only_the_nsms_generator_will_do() {
        let verdict = |name, files: &[_]| fed_by_nsm(&Folder::with(name, files).0);
        assert!(verdict("good", &[("rng_current", "nsm-hwrng\n"), ("rng_quality", "1000\n")]).is_ok());
        assert!(verdict("older", &[("rng_current", "nsm-hwrng\n")]).is_ok());
        assert!(verdict("host", &[("rng_current", "virtio_rng.0\n")]).unwrap_err().contains("virtio_rng.0"));
        assert!(verdict("none", &[("rng_current", "none\n")]).is_err());
        assert!(verdict("uncounted", &[("rng_current", "nsm-hwrng\n"), ("rng_quality", "0\n")]).is_err());
        assert!(verdict("nothing", &[]).is_err());
    }

    /// Gives one byte over and over.
    struct Constant(u8);

    impl Nsm for Constant {
        fn attest(&self, _: AttestationRequest) -> Result<Vec<u8>, NsmError> {
            Err(NsmError::NoDevice)
        }

        fn describe_pcr(&self, _: PcrIndex) -> Result<PcrState, NsmError> {
            Err(NsmError::NoDevice)
        }

        fn extend_pcr(&self, _: PcrIndex, _: &[u8]) -> Result<PcrValue, NsmError> {
            Err(NsmError::NoDevice)
        }

        fn lock_pcr(&self, _: PcrIndex) -> Result<(), NsmError> {
            Err(NsmError::NoDevice)
        }

        fn random(&self, out: &mut [u8]) -> Result<(), NsmError> {
            out.fill(self.0);
            Ok(())
        }
    }

    #[test]
    fn what_the_nsm_gives_reaches_the_pool_and_zeros_do_not_pass() {
        let folder = Folder::with("pool", &[("pool", "")]);
        let pool = folder.0.join("pool");
        mix(&Constant(7), &pool).unwrap();
        assert_eq!(fs::read(&pool).unwrap(), [7; MAX_RANDOM]);
        assert!(mix(&Constant(0), &pool).is_err());
    }
}
