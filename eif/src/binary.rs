//! The enclave's program, built so that neither the place of the sources nor the caller's environment shows in its bytes.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

/// The only target: Nitro images of AArch64 are not built here.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "enclave";
/// A program header that names an interpreter (elf(5)).
const PT_INTERP: usize = 3;
/// What the caller's environment may not decide, by the beginning of the name.
const IGNORED: [&str; 14] = [
    "RUSTFLAGS",
    "RUSTC_",
    "CARGO_ENCODED_",
    "CARGO_BUILD_",
    "CARGO_PROFILE_",
    "CARGO_TARGET_X86_64",
    "CARGO_INCREMENTAL",
    "AWS_LC_",
    "CFLAGS",
    "CXXFLAGS",
    "LDFLAGS",
    "CC",
    "CXX",
    "LD_",
];

/// Where a package's program is built.
pub(crate) struct Workshop {
    /// The root of the workspace.
    root: PathBuf,
    target: PathBuf,
    cargo_home: PathBuf,
}

impl Workshop {
    /// The workspace that this tool was built from, with the target directory that cargo would take.
    pub(crate) fn of(root: PathBuf) -> anyhow::Result<Self> {
        let root = root.canonicalize().with_context(|| format!("{}", root.display()))?;
        let target = variable("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |target| root.join(target));
        let cargo_home = match (variable("CARGO_HOME"), variable("HOME")) {
            (Some(home), _) => PathBuf::from(home),
            (None, Some(home)) => Path::new(&home).join(".cargo"),
            (None, None) => anyhow::bail!("neither CARGO_HOME nor HOME is set"),
        };
        Ok(Self { root, target, cargo_home })
    }

    /// Builds the program of a package and gives its bytes. What it says goes to standard error.
    pub(crate) fn build(&self, package: &str) -> anyhow::Result<Vec<u8>> {
        let [cargo_home, target, root] =
            [(&*self.cargo_home, "/cargo"), (&*self.target, "/target"), (&*self.root, "/build")];
        let mut rust = vec!["-Ctarget-feature=+crt-static".to_owned()];
        rust.extend(mapped("--remap-path-prefix", [cargo_home, target, root]));
        let c = mapped("-ffile-prefix-map", [cargo_home, root, target]);
        let mut cargo = Command::new("cargo");
        for (name, _) in std::env::vars_os() {
            let said = name.to_string_lossy();
            if IGNORED.iter().any(|ignored| said.starts_with(ignored)) {
                cargo.env_remove(&name);
            }
        }
        let status = cargo
            .current_dir(&self.root)
            .args(["build", "--locked", "--quiet", "--profile", PROFILE, "--target", TARGET])
            // By itself: the features of the workspace's other members would leak into it.
            .args(["--package", package, "--bin", package])
            .arg("--target-dir")
            .arg(&self.target)
            .env("CARGO_ENCODED_RUSTFLAGS", rust.join("\u{1f}"))
            .env("CFLAGS", c.join(" "))
            .env("CARGO_INCREMENTAL", "0")
            .envs([("SOURCE_DATE_EPOCH", "0"), ("LC_ALL", "C"), ("TZ", "UTC")])
            .status()
            .context("running cargo")?;
        ensure!(status.success(), "cargo did not build {package}: {status}");
        let path = self.target.join(TARGET).join(PROFILE).join(package);
        std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// A file of the workspace.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// What decides the program's bytes besides the sources, as name and version.
    pub(crate) fn tools(&self) -> Vec<(&'static str, String)> {
        let commands: [(&str, &str, &[&str]); 4] = [
            ("rustc", "rustc", &["--version"]),
            ("cc", "cc", &["--version"]),
            ("ld", "ld", &["--version"]),
            ("libc", "getconf", &["GNU_LIBC_VERSION"]),
        ];
        let version = |program: &str, arguments: &[&str]| {
            let output =
                Command::new(program).args(arguments).current_dir(&self.root).env("LC_ALL", "C").output().ok()?;
            Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
        };
        let found = commands.map(|(name, program, arguments)| (name, version(program, arguments)));
        found.into_iter().map(|(name, version)| (name, version.unwrap_or_else(|| "unknown".to_owned()))).collect()
    }
}

/// Writes a program so that it can be run.
pub(crate) fn write(path: &Path, program: &[u8]) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, program).with_context(|| format!("writing {}", path.display()))?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

/// Whether a program is what an image can start: ELF, and without an interpreter (`ld.so`), which no image has.
pub(crate) fn is_static(program: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| {
        let field = program.get(at..at.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte)))
    };
    let interpreted = || {
        let (table, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
        let mut kinds = (0..count).map(|entry| number(table.checked_add(entry * size)?, 4));
        Some(kinds.any(|kind| kind == Some(PT_INTERP)))
    };
    program.starts_with(b"\x7fELF") && interpreted() == Some(false)
}

/// Options that put names in the places of paths. Of several that fit, compilers take the last: a place inside of another one
/// comes after it.
fn mapped(option: &str, places: [(&Path, &str); 3]) -> Vec<String> {
    let is_inside = |place: &Path| places.iter().any(|(other, _)| place != *other && place.starts_with(other));
    let (inside, outside): (Vec<_>, Vec<_>) = places.into_iter().partition(|(place, _)| is_inside(place));
    let option = |(place, name): (&Path, &str)| format!("{option}={}={name}", place.display());
    outside.into_iter().chain(inside).map(option).collect()
}

fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An ELF header with one program header of a kind.
    pub(crate) fn elf(kind: u8, content: &[u8]) -> Vec<u8> {
        let mut program = vec![0; 0x78];
        program[..4].copy_from_slice(b"\x7fELF");
        (program[0x20], program[0x36], program[0x38], program[0x40]) = (0x40, 0x38, 1, kind);
        [&program, content].concat()
    }

    #[test]
    fn a_program_that_needs_an_interpreter_is_not_static() {
        assert!(is_static(&elf(1, b"")));
        assert!(!is_static(&elf(3, b"")));
        assert!(!is_static(b"#!/bin/sh") && !is_static(b"\x7fELF"));
        // This one is linked as usual.
        assert!(!is_static(&std::fs::read(std::env::current_exe().unwrap()).unwrap()));
    }

    #[test]
    fn a_target_directory_inside_of_the_sources_keeps_its_own_name() {
        let of = |root: &str, target: &str| {
            mapped("-m", [(Path::new("/h"), "/cargo"), (Path::new(target), "/target"), (Path::new(root), "/build")])
        };
        assert_eq!(of("/src", "/src/target"), ["-m=/h=/cargo", "-m=/src=/build", "-m=/src/target=/target"]);
        assert_eq!(of("/src", "/tmp/t"), ["-m=/h=/cargo", "-m=/tmp/t=/target", "-m=/src=/build"]);
    }
}
