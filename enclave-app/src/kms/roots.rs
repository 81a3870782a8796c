//! The certificate authorities that are believed.

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use thiserror::Error;

/// A baked-in root certificate could not be read: the build is broken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("root certificate {name} cannot be read")]
pub struct RootsError {
    name: &'static str,
}

const AMAZON: [(&str, &[u8]); 5] = [
    ("Amazon Root CA 1", include_bytes!("roots/amazon-root-ca-1.pem")),
    ("Amazon Root CA 2", include_bytes!("roots/amazon-root-ca-2.pem")),
    ("Amazon Root CA 3", include_bytes!("roots/amazon-root-ca-3.pem")),
    ("Amazon Root CA 4", include_bytes!("roots/amazon-root-ca-4.pem")),
    ("Starfield Services Root CA G2", include_bytes!("roots/starfield-services-root-ca-g2.pem")),
];

/// The certificate authorities that Amazon itself runs, and no others: nothing in a KMS reply is authenticated except by
/// TLS, so an authority that could name another server `kms.*.amazonaws.com` could choose our keys.
///
/// # Errors
/// [`RootsError`] where one of the files that are compiled in is no certificate.
pub fn amazon() -> Result<RootCertStore, RootsError> {
    let mut store = RootCertStore::empty();
    for (name, pem) in AMAZON {
        let der = CertificateDer::from_pem_slice(pem).map_err(|_| RootsError { name })?;
        store.add(der).map_err(|_| RootsError { name })?;
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    /// As listed at <https://www.amazontrust.com/repository/>.
    #[test]
    fn the_roots_are_the_five_of_amazon_trust_services() {
        let expected = [
            "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
            "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
            "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
            "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
            "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5",
        ];
        for ((name, pem), expected) in AMAZON.into_iter().zip(expected) {
            let der = CertificateDer::from_pem_slice(pem).unwrap();
            assert_eq!(hex::encode(Sha256::digest(&der)), expected, "{name}");
        }
        assert_eq!(amazon().unwrap().len(), 5);
    }
}
