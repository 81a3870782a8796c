//! Well-signed documents of the wrong shape.
