//! How the parts reach each other: one address type, one stream type, one accept loop, one way to frame messages.
//!
//! | item | what it is for |
//! |---|---|
//! | [`Endpoint`] | an address as text: `vsock:CID:PORT`, `unix:PATH`, `unix:PATH:PORT` (hybrid vsock), `tcp:HOST:PORT` |
//! | [`Stream`], [`Listener`] | what connecting to and binding an endpoint give |
//! | [`serve`], [`Limits`], [`Slots`] | the accept loop: a slot per connection, a drain with a deadline |
//! | [`FrameReader`], [`FrameWriter`] | length-prefixed messages with deadlines and a bounded buffer |
//!
//! Nothing here looks into the bytes that it carries, and nothing here authenticates anybody.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test that fails should fail loudly"
    )
)]

mod endpoint;
mod framed;
mod listener;
mod serve;
mod stream;

pub use endpoint::{ConnectError, Endpoint, EndpointError, VSOCK_ANY_CID};
pub use framed::{FrameError, FrameReader, FrameWriter};
pub use listener::{BindError, Listener};
pub use serve::{Drained, Limits, Slot, Slots, serve};
pub use stream::{HalfClose, Peer, Stream};
