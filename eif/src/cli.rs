//! The command line. Exit codes: 0 done, or alike; 1 different, or not what was measured; 2 it could not be done.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand};
use transcode_confidential::attestation::{Measurements, PcrIndex, Pcrs};

use crate::{
    binary::{self, Workshop},
    build::{self, Order},
    cpio::{Archive, Entry},
    diff,
    image::Image,
    measure, signer,
};

/// Builds enclave images reproducibly, measures them, and takes them apart again.
#[derive(Debug, Parser)]
#[command(name = "cargo eif", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of them")]
enum Command {
    /// Build an image from a configuration, and measurements.json beside it.
    ///
    /// The kernel part goes into the boot ramdisk (PCR1), program and configuration into the second (PCR2). The same
    /// sources, tools and inputs give the same bytes anywhere. Program and configuration are left in target/eif as well.
    Build(Build),
    /// Build the enclave's program alone, as images get it.
    Program {
        /// The package whose program it is.
        #[arg(long, value_name = "NAME", default_value = "enclave-app")]
        package: String,
        /// Where it goes.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Measure an image by code of our own, and compare with measurements.json. Exit code 1 where it is another image.
    Verify {
        /// The image.
        image: PathBuf,
        /// The measurements; by default measurements.json beside the image.
        #[arg(long, value_name = "FILE")]
        measurements: Option<PathBuf>,
    },
    /// Say which parts of two images differ and which registers that changes. Exit code 1 where any does.
    Diff {
        /// One image.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// Unpack kernel, command line and ramdisks into a folder that does not exist yet.
    Extract {
        /// The image.
        image: PathBuf,
        /// The folder.
        folder: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Build {
    /// The measured configuration (eif/enclave.example.toml explains it).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The kernel; by default AWS's, with its module and command line, from the Nitro CLI's blobs.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Kernel modules, unpacked, in the order in which they are loaded.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    modules: Vec<PathBuf>,
    /// The kernel's command line.
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
    /// Sign with this key (PEM, or the ARN of a KMS key) and certificate (PEM): PCR8 is the certificate's.
    #[arg(long, num_args = 2, value_names = ["KEY", "CERTIFICATE"])]
    sign: Option<Vec<PathBuf>>,
    /// Take this program, which was built before, and build none.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// The image's name in measurements.json; by default version and deployment.
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// Where the image goes.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Where the measurements go; by default measurements.json beside the image.
    #[arg(long, value_name = "FILE")]
    measurements: Option<PathBuf>,
}

/// Runs a command.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Build(build) => make(build),
        Command::Program { package, output } => {
            binary::write(&output, &Workshop::of(root())?.build(&package)?).map(|()| ExitCode::SUCCESS)
        }
        Command::Verify { image, measurements } => verify(&image, measurements),
        Command::Diff { one, other } => {
            let found = diff::compare(&read(&one)?, &read(&other)?)?;
            found.iter().for_each(|line| println!("{line}"));
            Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Extract { image, folder } => extract(&read(&image)?, &folder).map(|()| ExitCode::SUCCESS),
    }
}

/// The workspace: the one that this tool was built from, or the one that `EIF_ROOT` names.
fn root() -> PathBuf {
    std::env::var_os("EIF_ROOT").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), PathBuf::from)
}

fn make(arguments: Build) -> anyhow::Result<ExitCode> {
    let Build { config, kernel, modules, cmdline, sign, program, label, output, measurements } = arguments;
    let order = Order {
        configuration: config,
        kernel,
        modules,
        cmdline,
        sign: sign.and_then(|pair| <[PathBuf; 2]>::try_from(pair).ok()).map(|[key, certificate]| (key, certificate)),
        program,
        label,
        measurements: measurements.unwrap_or_else(|| beside(&output)),
        output,
        root: root(),
    };
    let (pcrs, size) = build::build(&order)?;
    println!("{} {size} bytes", order.output.display());
    print(&pcrs);
    Ok(ExitCode::SUCCESS)
}

fn verify(path: &Path, measurements: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let image = read(path)?;
    let pcrs = measure::registers(&image)?;
    print(&pcrs);
    if let Some(section) = &image.signature {
        signer::check(section, &pcrs)?;
        println!("signed by the certificate in PCR8");
    }
    let file = measurements.unwrap_or_else(|| beside(path));
    let json = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    let expected = Measurements::from_json(json).with_context(|| format!("{}", file.display()))?;
    let same = |index, value| pcrs.get(index) == Some(value);
    let found = expected.images().iter().find(|image| image.pcrs().iter().all(|(index, value)| same(index, value)));
    match found {
        Some(image) => {
            println!("this is {:?} of {}", image.label(), file.display());
            Ok(ExitCode::SUCCESS)
        }
        None => {
            println!("this is no image of {}", file.display());
            Ok(ExitCode::FAILURE)
        }
    }
}

fn extract(image: &Image, folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
    std::fs::write(folder.join("kernel"), &image.kernel)?;
    std::fs::write(folder.join("cmdline"), &image.cmdline)?;
    for (number, ramdisk) in (0..).zip(&image.ramdisks) {
        let name = if number == 0 { "boot".to_owned() } else { format!("application-{number}") };
        let root = folder.join(name);
        std::fs::create_dir(&root)?;
        for (path, entry) in &Archive::read(ramdisk)?.0 {
            ensure!(!path.split('/').any(|part| matches!(part, "" | "." | "..")), "{path:?} leads out of the ramdisk");
            let path = root.join(path);
            let (content, mode) = match entry {
                Entry::Directory => {
                    std::fs::create_dir(path)?;
                    continue;
                }
                // Only root could make it, and nobody needs it outside of the image.
                Entry::Device { .. } => continue,
                Entry::File(content) => (content, 0o644),
                Entry::Program(content) => (content, 0o755),
            };
            std::fs::write(&path, content)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Image> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Image::parse(&bytes).with_context(|| format!("{}", path.display()))
}

fn beside(image: &Path) -> PathBuf {
    image.with_file_name("measurements.json")
}

fn print(pcrs: &Pcrs) {
    let all = (0..PcrIndex::COUNT).filter_map(PcrIndex::new);
    all.filter_map(|index| Some((index, pcrs.get(index)?))).for_each(|(index, value)| println!("{index} {value}"));
}
