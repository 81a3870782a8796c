//! The enclave's way to AWS KMS: a key comes only in answer to an attestation document, sealed to a key made for that one
//! call.
//!
//! The host carries the bytes and can refuse to; it can neither read nor forge them, because TLS ends here, the trusted
//! roots are baked in, and the endpoint follows from the measured key ARN. The request names the full key ARN and the
//! encryption context that the enclave's own state demands; a reply that leaks plaintext, names another key, or is not
//! sealed to our key is refused.
//!
//! | module | what it is |
//! |---|---|
//! | [`arn`] | the key ARN, from which region and endpoint follow |
//! | [`client`] | `GenerateDataKey`, `Decrypt`, `GenerateRandom`, each with a `Recipient` |
//! | [`cms`] | opens `CiphertextForRecipient` |
//! | `connector` | the SDK's HTTP connector over a dialer of ours, TLS included |
//! | [`context`] | the encryption context of each kind of wrapped key |
//! | [`credentials`] | the role's credentials: held, refreshed ahead, refetched, never printed |
//! | [`dial`] | a byte stream to a host, through the parent's egress |
//! | [`document`] | where attestation documents come from |
//! | [`error`] | what can go wrong, with its cause and the next step |
//! | [`recipient`] | single-use RSA keys, made ahead |
//! | [`roots`] | the certificate authorities that KMS may use |

pub mod arn;
pub mod client;
pub mod cms;
pub mod context;
pub mod credentials;
pub mod dial;
pub mod document;
pub mod error;
pub mod recipient;
pub mod roots;

mod clock;
mod connector;
mod failure;
mod reply;

pub use arn::KeyArn;
pub use client::{DataKey, KmsClient, KmsConfig, KmsLimits, KmsSetupError};
pub use context::{WrapContext, WrapPurpose};
pub use credentials::{CredentialSource, CredentialsError, SessionCredentials};
pub use dial::{ByteStream, Dial, DialError, EgressDialer};
pub use document::{DocumentError, DocumentRequest, DocumentSource};
pub use error::KmsError;
