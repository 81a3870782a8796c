//! The five certificates of a document: exactly these, in exactly this order, under exactly the pinned root.

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, aws_lc_rs::ECDSA_P384_SHA384};

use super::{
    certificate::{Certificate, PublicKey},
    refusal::{Position, Refusal},
    root::TrustRoot,
};
use crate::{ids::Digest, time::Timestamp};

/// Five certificates that have every property that their places demand, at a certain time. Their signatures are yet to
/// be checked.
#[derive(Debug)]
pub(super) struct Chain<'a> {
    root: &'a TrustRoot,
    intermediates: [CertificateDer<'a>; 3],
    leaf: CertificateDer<'a>,
    leaf_key: PublicKey,
    at: Timestamp,
}

impl<'a> Chain<'a> {
    /// Takes the bundle (root, regional, zonal, instance) and the leaf, and checks all that needs no signature.
    pub(super) fn check_properties(
        root: &'a TrustRoot,
        bundle: &'a [Vec<u8>],
        leaf: &'a [u8],
        at: Timestamp,
    ) -> Result<Self, Refusal> {
        let given_root = bundle.first().map(Vec::as_slice).unwrap_or_default();
        if given_root != root.der() {
            return Err(Refusal::UntrustedRoot { found: Digest::of(given_root) });
        }
        let [_, regional, zonal, instance] = bundle else {
            return Err(Refusal::CertificateCount { found: bundle.len() + 1 });
        };
        let wrong = |position| move |fault| Refusal::Certificate { position, fault };
        root.certificate().check_time(at).map_err(wrong(Position::Root))?;
        let mut issuer = root.certificate().clone();
        for (position, der) in [
            (Position::Regional, regional.as_slice()),
            (Position::Zonal, zonal),
            (Position::Instance, instance),
            (Position::Leaf, leaf),
        ] {
            let certificate = Certificate::read(der).map_err(wrong(position))?;
            certificate.check_place(position, &issuer).map_err(wrong(position))?;
            certificate.check_time(at).map_err(wrong(position))?;
            issuer = certificate;
        }
        Ok(Self {
            root,
            intermediates: [regional, zonal, instance].map(|der| CertificateDer::from(der.as_slice())),
            leaf: CertificateDer::from(leaf),
            leaf_key: *issuer.key(),
            at,
        })
    }

    /// The key that should have signed the document.
    pub(super) const fn leaf_key(&self) -> &PublicKey {
        &self.leaf_key
    }

    /// Validates the path, signatures included, and that it is made of all the given certificates in their order.
    pub(super) fn check_path(&self) -> Result<(), Refusal> {
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(self.at.as_secs()));
        let leaf = EndEntityCert::try_from(&self.leaf).map_err(refusal_of)?;
        // The usage is without meaning here: extended key usages were refused. There is no revocation list to ask.
        let path = leaf
            .verify_for_usage(
                &[ECDSA_P384_SHA384],
                std::slice::from_ref(self.root.anchor()),
                &self.intermediates,
                time,
                KeyUsage::client_auth(),
                None,
                None,
            )
            .map_err(refusal_of)?;
        let used = path.intermediate_certificates().map(webpki::Cert::der);
        if used.eq(self.intermediates.iter().rev().cloned()) {
            Ok(())
        } else {
            Err(Refusal::CertificatePath { detail: "a certificate is not part of it".to_owned() })
        }
    }
}

fn refusal_of(error: webpki::Error) -> Refusal {
    match error {
        webpki::Error::InvalidSignatureForPublicKey => Refusal::CertificateSignature,
        other => Refusal::CertificatePath { detail: other.to_string() },
    }
}
