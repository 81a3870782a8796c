use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
};

/// Length of a buffer, in bytes. On vsock it goes out in two writes.
const BUFFER: usize = 64 * 1024;
/// Free buffers that are kept: 8 MiB.
const KEPT: usize = 128;

/// Buffers that connections borrow while they hold bytes that the other side has not taken yet. An idle connection holds
/// none, so memory follows the number of slow receivers, not the number of connections.
#[derive(Debug, Default)]
pub struct BufferPool(Mutex<Stock>);

#[derive(Debug, Default)]
struct Stock {
    free: Vec<Box<[u8]>>,
    lent: usize,
}

/// A borrowed buffer; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Buffer<'p> {
    bytes: Box<[u8]>,
    pool: &'p BufferPool,
}

impl BufferPool {
    pub(super) fn take(&self) -> Buffer<'_> {
        let mut stock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stock.lent += 1;
        let kept = stock.free.pop();
        drop(stock);
        Buffer { bytes: kept.unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice()), pool: self }
    }

    /// Buffers that connections hold now.
    pub fn lent(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lent
    }
}

impl Deref for Buffer<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let mut stock = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        stock.lent -= 1;
        if stock.free.len() < KEPT {
            stock.free.push(std::mem::take(&mut self.bytes));
        }
    }
}
