//! Placeholder.
#![allow(missing_docs)]
pub struct KeyError;
pub struct KeyRotationManager;
pub struct KeyRotationPolicy;
pub struct ManagedKey;
