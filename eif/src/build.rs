//! From a configuration and a kernel to an image.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail, ensure};
use aws_nitro_enclaves_image_format::{
    defs::{EifBuildInfo, EifIdentityInfo},
    utils::{EifBuilder, SignKeyData},
};
use sha2::{Digest as _, Sha384};
use transcode_confidential::attestation::{PcrIndex, Pcrs};

use crate::{
    binary::{self, Workshop},
    configuration,
    image::Image,
    measure, ramdisk,
    record::{Input, Record},
};

/// Where AWS's package puts the kernel that enclaves run on EC2 (`aws-nitro-enclaves-cli-devel`).
const AWS_BLOBS: &str = "/usr/share/nitro_enclaves/blobs";
/// As AWS's, for kernels that come without a command line.
const CMDLINE: &str = "reboot=k panic=30 pci=off nomodules console=ttyS0 random.trust_cpu=on root=/dev/ram0";
/// In the metadata, which are not measured; a real time would make every build differ.
const BUILD_TIME: &str = "1970-01-01T00:00:00Z";

/// What to build.
pub(crate) struct Order {
    pub(crate) configuration: PathBuf,
    pub(crate) kernel: Option<PathBuf>,
    pub(crate) modules: Vec<PathBuf>,
    pub(crate) cmdline: Option<String>,
    pub(crate) sign: Option<(PathBuf, PathBuf)>,
    pub(crate) program: Option<PathBuf>,
    pub(crate) label: Option<String>,
    pub(crate) output: PathBuf,
    pub(crate) measurements: PathBuf,
    /// The workspace.
    pub(crate) root: PathBuf,
}

/// The kernel part, read.
struct Kernel {
    path: PathBuf,
    modules: Vec<(String, Vec<u8>)>,
    cmdline: String,
}

/// Builds; gives the registers and the image's size in bytes.
pub(crate) fn build(order: &Order) -> anyhow::Result<(Pcrs, u64)> {
    let text = std::fs::read_to_string(&order.configuration)
        .with_context(|| format!("reading {}", order.configuration.display()))?;
    let config = configuration::check(&text).map_err(|mistakes| {
        let name = order.configuration.display();
        anyhow!(mistakes.iter().map(|mistake| format!("{name}: {mistake}")).collect::<Vec<_>>().join("\n"))
    })?;
    let kernel = Kernel::read(order)?;
    let workshop = Workshop::of(order.root.clone())?;
    let program = match &order.program {
        Some(path) => std::fs::read(path).with_context(|| format!("reading {}", path.display()))?,
        None => workshop.build("enclave-app")?,
    };
    ensure!(binary::is_static(&program), "the program is no static ELF file, and an image has no libraries");

    let scratch = tempfile::tempdir()?;
    let ramdisks = [
        ("boot", ramdisk::boot(&kernel.modules)),
        ("application", ramdisk::application(program.clone(), text.clone().into_bytes())),
    ]
    .map(|(name, archive)| (scratch.path().join(name), archive.write()));
    for (path, bytes) in &ramdisks {
        std::fs::write(path, bytes)?;
    }
    let sign = order.sign.as_ref().map(|(key, certificate)| {
        let location = key.to_str().context("the key's path is not UTF-8")?;
        SignKeyData::new(location, certificate).map_err(|error| anyhow!(error))
    });
    let unfinished = order.output.with_extension("eif.new");
    let said = assemble(&kernel, &ramdisks.map(|(path, _)| path), sign.transpose()?, &unfinished)?;

    // What was written is taken apart and measured again, by code that had no part in writing it.
    let bytes = std::fs::read(&unfinished)?;
    let image = Image::parse(&bytes)?;
    let pcrs = measure::registers(&image)?;
    for (name, index) in [("PCR0", 0), ("PCR1", 1), ("PCR2", 2), ("PCR8", 8)] {
        let ours = PcrIndex::new(index).and_then(|index| pcrs.get(index)).map(ToString::to_string);
        ensure!(
            said.get(name) == ours.as_ref(),
            "{name}: AWS's builder says {:?}, we measure {ours:?}",
            said.get(name)
        );
    }
    std::fs::rename(&unfinished, &order.output)?;

    let label = order.label.clone().unwrap_or_else(|| format!("{} {}", env!("CARGO_PKG_VERSION"), config.deployment));
    let kernel_bytes = std::fs::read(&kernel.path)?;
    let mut inputs = vec![
        Input::of("kernel", &kernel_bytes),
        Input::of("command line", kernel.cmdline.as_bytes()),
        Input::of("enclave-app", &program),
        Input::of("enclave.toml", text.as_bytes()),
        Input::of("Cargo.lock", &std::fs::read(workshop.file("Cargo.lock"))?),
    ];
    inputs.extend(kernel.modules.iter().map(|(name, content)| Input::of(&format!("module {name}"), content)));
    let record =
        Record { label, pcrs: pcrs.clone(), inputs, image: Input::of("image", &bytes), tools: workshop.tools() };
    std::fs::write(&order.measurements, record.to_json()?)?;
    if order.program.is_none() {
        leave_contents(&workshop, &program, &text)?;
    }
    Ok((pcrs, bytes.len() as u64))
}

impl Kernel {
    fn read(order: &Order) -> anyhow::Result<Self> {
        let blobs = Path::new(AWS_BLOBS);
        let (path, modules, cmdline) = match &order.kernel {
            Some(path) => (path.clone(), order.modules.clone(), CMDLINE.to_owned()),
            None => {
                ensure!(order.modules.is_empty(), "--modules are those of a --kernel: name both or neither");
                let cmdline = std::fs::read_to_string(blobs.join("cmdline")).with_context(|| {
                    format!("no --kernel, and none in {AWS_BLOBS}: install aws-nitro-enclaves-cli-devel or name one")
                })?;
                (blobs.join("bzImage"), vec![blobs.join("nsm.ko")], cmdline.trim().to_owned())
            }
        };
        let modules = modules.iter().map(|path| module(path)).collect::<anyhow::Result<_>>()?;
        ensure!(path.is_file(), "no kernel at {}", path.display());
        Ok(Self { path, modules, cmdline: order.cmdline.clone().unwrap_or(cmdline) })
    }
}

fn module(path: &Path) -> anyhow::Result<(String, Vec<u8>)> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    ensure!(
        bytes.starts_with(b"\x7fELF"),
        "{} is no module as the kernel loads it: unpack it first (xz -d)",
        path.display()
    );
    let name = path.file_name().and_then(|name| name.to_str()).context("a module without a name")?;
    Ok((name.to_owned(), bytes))
}

/// Has AWS's builder write the image; gives the registers as it names them. Its errors are panics.
fn assemble(
    kernel: &Kernel,
    ramdisks: &[PathBuf],
    sign: Option<SignKeyData>,
    output: &Path,
) -> anyhow::Result<std::collections::BTreeMap<String, String>> {
    let identity = EifIdentityInfo {
        img_name: "transcode-confidential".to_owned(),
        img_version: env!("CARGO_PKG_VERSION").to_owned(),
        build_info: EifBuildInfo {
            build_time: BUILD_TIME.to_owned(),
            build_tool: "cargo eif".to_owned(),
            build_tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            img_os: "Linux".to_owned(),
            img_kernel: "see measurements.json".to_owned(),
        },
        docker_info: serde_json::Value::Null,
        custom_info: serde_json::Value::Null,
    };
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(output)?;
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let built = catch_unwind(AssertUnwindSafe(|| {
        let mut builder = EifBuilder::new(&kernel.path, kernel.cmdline.clone(), sign, Sha384::new(), 0, identity);
        for ramdisk in ramdisks {
            builder.add_ramdisk(ramdisk);
        }
        builder.write_to(&mut file)
    }));
    std::panic::set_hook(hook);
    match built {
        Ok(registers) => Ok(registers),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            bail!("the image cannot be written: {}", said.unwrap_or("for a reason unknown"))
        }
    }
}

/// For those who put program and configuration into an image in another way (Dockerfile.enclave).
fn leave_contents(workshop: &Workshop, program: &[u8], configuration: &str) -> anyhow::Result<()> {
    let folder = workshop.file("target/eif");
    std::fs::create_dir_all(&folder)?;
    binary::write(&folder.join("enclave-app"), program)?;
    Ok(std::fs::write(folder.join("enclave.toml"), configuration)?)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::{binary::tests::elf, configuration::tests::GOOD, diff, signer};

    /// A folder with everything that a build takes, none of it real.
    struct Bench(tempfile::TempDir);

    impl Bench {
        fn new() -> Self {
            let bench = Self(tempfile::tempdir().unwrap());
            bench.put("vmlinuz", b"kernel");
            bench.put("vsock.ko", b"\x7fELF vsock");
            bench.put("nsm.ko", b"\x7fELF nsm");
            bench.put("program", &elf(1, b"program"));
            bench.put("enclave.toml", GOOD.as_bytes());
            bench.put("Cargo.lock", b"");
            bench
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn put(&self, name: &str, content: &[u8]) {
            std::fs::write(self.path(name), content).unwrap();
        }

        fn order(&self) -> Order {
            Order {
                configuration: self.path("enclave.toml"),
                kernel: Some(self.path("vmlinuz")),
                modules: vec![self.path("vsock.ko"), self.path("nsm.ko")],
                cmdline: None,
                sign: None,
                program: Some(self.path("program")),
                label: None,
                output: self.path("enclave.eif"),
                measurements: self.path("measurements.json"),
                root: self.0.path().to_owned(),
            }
        }

        fn build(&self) -> (Vec<u8>, Pcrs) {
            let (pcrs, size) = build(&self.order()).unwrap();
            let bytes = std::fs::read(self.path("enclave.eif")).unwrap();
            assert_eq!(bytes.len() as u64, size);
            (bytes, pcrs)
        }
    }

    fn differing(one: &Pcrs, other: &Pcrs) -> Vec<u8> {
        one.iter().filter(|(index, value)| other.get(*index) != Some(value)).map(|(index, _)| index.get()).collect()
    }

    #[test]
    fn two_builds_in_two_places_are_equal_to_the_byte() {
        let (one, other) = (Bench::new(), Bench::new());
        assert_eq!(one.build(), other.build());
        let written = |bench: &Bench| std::fs::read(bench.path("measurements.json")).unwrap();
        assert_eq!(written(&one), written(&other));
        transcode_confidential::attestation::Measurements::from_json(written(&one)).unwrap();
    }

    #[test]
    fn the_configuration_and_the_program_count_in_pcr2_and_the_kernel_part_in_pcr1() {
        let bench = Bench::new();
        let (bytes, pcrs) = bench.build();
        for (name, content, changed, part) in [
            ("enclave.toml", GOOD.replace("4096", "4097").into_bytes(), vec![0, 2], "enclave.toml"),
            ("program", elf(1, b"another"), vec![0, 2], "init"),
            ("vmlinuz", b"another kernel".to_vec(), vec![0, 1], "kernel"),
            ("nsm.ko", b"\x7fELF another".to_vec(), vec![0, 1], "modules/01-nsm.ko"),
        ] {
            let other = Bench::new();
            other.put(name, &content);
            let (other_bytes, other_pcrs) = other.build();
            assert_eq!(differing(&pcrs, &other_pcrs), changed, "{name}");
            let found = diff::compare(&Image::parse(&bytes).unwrap(), &Image::parse(&other_bytes).unwrap()).unwrap();
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(part), "{found:?}");
        }
    }

    #[test]
    fn the_command_line_counts_in_pcr1_and_modules_without_their_kernel_are_refused() {
        let bench = Bench::new();
        let (bytes, pcrs) = bench.build();
        let (other, _) = build(&Order { cmdline: Some("console=ttyS0".to_owned()), ..bench.order() }).unwrap();
        assert_eq!(differing(&pcrs, &other), [0, 1]);
        let other = std::fs::read(bench.path("enclave.eif")).unwrap();
        let found = diff::compare(&Image::parse(&bytes).unwrap(), &Image::parse(&other).unwrap()).unwrap();
        assert_eq!(found, ["command line differs (PCR0, PCR1)"]);
        let error = build(&Order { kernel: None, ..bench.order() }).unwrap_err();
        assert!(error.to_string().contains("name both or neither"), "{error}");
    }

    #[test]
    fn a_signed_image_differs_each_time_and_its_registers_do_not() {
        let bench = Bench::new();
        let (_, unsigned) = bench.build();
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl").args(arguments).current_dir(bench.0.path()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        openssl(&["ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", "key.pem"]);
        openssl(&[
            "req",
            "-new",
            "-x509",
            "-sha384",
            "-key",
            "key.pem",
            "-subj",
            "/CN=release",
            "-days",
            "30",
            "-out",
            "cert.pem",
        ]);
        let order = || Order { sign: Some((bench.path("key.pem"), bench.path("cert.pem"))), ..bench.order() };
        let (pcrs, _) = build(&order()).unwrap();
        let first = std::fs::read(bench.path("enclave.eif")).unwrap();
        assert_eq!(build(&order()).unwrap().0, pcrs);
        let second = std::fs::read(bench.path("enclave.eif")).unwrap();
        assert_ne!(first, second);
        assert_eq!(differing(&pcrs, &unsigned), [8]);
        let (one, other) = (Image::parse(&first).unwrap(), Image::parse(&second).unwrap());
        signer::check(one.signature.as_ref().unwrap(), &pcrs).unwrap();
        signer::check(other.signature.as_ref().unwrap(), &pcrs).unwrap();
        bench.put("program", &elf(1, b"another"));
        let (another, _) = build(&bench.order()).unwrap();
        let error = signer::check(one.signature.as_ref().unwrap(), &another).unwrap_err();
        assert!(error.to_string().contains("of another image"), "{error}");
    }

    #[test]
    fn what_cannot_become_an_image_is_refused_with_its_reason() {
        let bench = Bench::new();
        bench.put("nsm.ko", b"\xfd7zXZ");
        assert!(build(&bench.order()).unwrap_err().to_string().contains("xz -d"));
        let bench = Bench::new();
        bench.put("program", &elf(3, b"needs ld.so"));
        assert!(build(&bench.order()).unwrap_err().to_string().contains("no static ELF file"));
        let bench = Bench::new();
        bench.put("enclave.toml", GOOD.replace("vsock:any:5000", "unix:/x").as_bytes());
        let error = build(&bench.order()).unwrap_err().to_string();
        assert!(error.contains("enclave.toml: line ") && error.contains("listen"), "{error}");
        assert!(!bench.path("enclave.eif").exists());
    }
}
