//! A progress bar, where somebody watches.

use std::{
    io::{self, IsTerminal as _},
    pin::Pin,
    task::{Context, Poll},
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::{AsyncRead, ReadBuf};

/// A bar on standard error if that is a terminal, nothing otherwise. Without a total it shows how much has passed.
pub(super) fn bar(total: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{bar:40} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {binary_bytes}, {binary_bytes_per_sec}"),
    };
    // The templates are constants; where one were wrong, the default serves.
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// An input that moves a bar. The bar is cleared with it.
pub(super) struct Watched<R> {
    input: R,
    bar: ProgressBar,
}

impl<R> Watched<R> {
    pub(super) const fn new(input: R, bar: ProgressBar) -> Self {
        Self { input, bar }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Watched<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.input).poll_read(cx, buf);
        self.bar.inc((buf.filled().len() - before) as u64);
        result
    }
}

impl<R> Drop for Watched<R> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
