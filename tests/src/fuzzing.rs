//! The bodies of the fuzz targets: one function for each decoder that reads bytes from outside. `fuzz/` drives them with
//! libFuzzer; `tests/fuzz_corpus.rs` replays the seeds through the same code.
//!
//! None may panic, whatever the input. Beyond that each states what must hold: decoders of deterministic formats give back the
//! bytes that they accepted, streams mean the same however they are cut, and what was edited is never taken for the original.

mod audit;
mod content;
mod differential;
mod document;
mod edits;
mod log;
mod material;
mod seeds;
mod stored;
mod wire;

pub use material::make as make_material;
pub use seeds::seeds;

/// Something to fuzz.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, also that of its binary and of its folder of seeds.
    pub name: &'static str,
    /// Takes one input; panics where a promise is broken.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 25] = [
    Target { name: "attestation_document", run: document::attestation_document },
    Target { name: "certificates", run: document::certificates },
    Target { name: "user_data", run: document::user_data },
    Target { name: "measurements", run: document::measurements },
    Target { name: "leaf", run: audit::leaf },
    Target { name: "note", run: audit::note },
    Target { name: "receipt", run: audit::receipt },
    Target { name: "proofs", run: audit::proofs },
    Target { name: "segment", run: audit::segment },
    Target { name: "log_verifier", run: log::log_verifier },
    Target { name: "message", run: content::message },
    Target { name: "wrapped_keys", run: content::wrapped_keys },
    Target { name: "cms_envelope", run: content::cms_envelope },
    Target { name: "host_protocol", run: wire::host_protocol },
    Target { name: "policy", run: wire::policy },
    Target { name: "api_bodies", run: wire::api_bodies },
    Target { name: "configuration", run: wire::configuration },
    Target { name: "metrics_report", run: wire::metrics_report },
    Target { name: "egress_preamble", run: wire::egress_preamble },
    Target { name: "playlist", run: wire::playlist },
    Target { name: "snapshot", run: stored::snapshot },
    Target { name: "restore_order", run: stored::restore_order },
    Target { name: "packed_segment", run: stored::packed_segment },
    Target { name: "tree_differential", run: differential::tree_differential },
    Target { name: "document_differential", run: differential::document_differential },
];

/// Runs one target on one input.
///
/// # Panics
/// Where there is no such target, or a promise is broken.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of that name").run)(input);
}
