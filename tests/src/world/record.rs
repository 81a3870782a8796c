//! The stored log: as it lies there, changed behind everybody's back, and held against what anybody was told.

use std::{path::PathBuf, time::Duration};

use client::log_memory::LogMemory;
use transcode_confidential::audit::{Receipt, segment::RecordKind};

use super::{Checked, World, parent::Parent};
use crate::segments::{self, Segments};

impl World {
    /// Where the proxy keeps the log.
    pub fn segments_dir(&self) -> PathBuf {
        self.dir.path().join("segments")
    }

    /// The log as it is stored now.
    pub fn segments(&self) -> Segments {
        match &self.parent {
            Parent::Scripted(parent) => parent.segments(),
            _ => segments::read_dir(&self.segments_dir()),
        }
    }

    /// The key that KMS wrapped last: what nobody but an enclave should ever learn.
    pub fn newest_key(&self) -> Vec<u8> {
        let segments = self.segments();
        let mut records = segments.values().flat_map(|bytes| segments::records(bytes));
        let wrapped = records.rfind(|(_, record)| record.kind == RecordKind::WrappedKey);
        let blob = segments::wrapped_blob(&wrapped.expect("a wrapped key is on the record").1.payload);
        self.kms.reveal(&blob).expect("KMS wrapped it")
    }

    /// Changes the stored log behind everybody's back. The proxy must not run.
    pub fn edit_segments(&self, change: impl FnOnce(&mut Segments)) {
        match &self.parent {
            Parent::Scripted(parent) => parent.edit(change),
            Parent::Gone => {
                let mut segments = self.segments();
                change(&mut segments);
                segments::write_dir(&self.segments_dir(), &segments);
            }
            Parent::Proxy(_) => panic!("stop the proxy first: it knows what it wrote"),
        }
    }

    /// Verifies the stored log offline, and holds it against everything that anybody was told.
    pub fn check(&self) -> Checked {
        // Evidence first: what is told while the log is being read is not in it yet.
        let (receipts, checkpoints) = (self.acknowledged.receipts(), self.remembered());
        self.checked(&receipts, &checkpoints)
    }

    /// Waits until what the log says is as it should be: events that nobody waits for come a little later than answers.
    ///
    /// # Panics
    /// Where the log is not intact, or does not get there.
    pub async fn check_until(&self, arrived: impl Fn(&Checked) -> bool) -> Checked {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
        loop {
            let checked = self.check().intact();
            if arrived(&checked) {
                return checked;
            }
            assert!(tokio::time::Instant::now() < deadline, "it never gets onto the record: {:#?}", checked.events);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// As [`World::check`] for somebody who holds nothing.
    pub fn check_unanchored(&self) -> Checked {
        self.checked(&[], &[])
    }

    fn checked(&self, receipts: &[Receipt], checkpoints: &[String]) -> Checked {
        let trusted = (self.hypervisor.trust_root(), self.accepted_images());
        Checked::of(&self.segments(), trusted, receipts, checkpoints)
    }

    /// The checkpoints of this log that clients remember.
    fn remembered(&self) -> Vec<String> {
        let (Some(log_id), _) = segments::sealed(&self.segments()) else { return Vec::new() };
        let Ok(clients) = std::fs::read_dir(self.dir.path().join("clients")) else { return Vec::new() };
        let memories = clients.map(|entry| LogMemory::new(entry.expect("a readable directory").path()));
        let known = memories.filter_map(|memory| memory.recall(log_id).expect("a readable memory"));
        known.map(|known| known.checkpoint().to_owned()).collect()
    }
}
