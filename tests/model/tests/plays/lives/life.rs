//! One life.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
};

use model::{
    archive::ArchiveError,
    boot::BootError,
    custody::{Asked, Change, CustodyError, Purpose},
    grants::Permit,
    host::Weather,
    kms::Failing,
    ledger::LedgerError,
    runtime::time,
    stage::{Enclave, House, OPERATOR, TRANSCODER, id},
};
use shuttle::rand::{Rng as _, thread_rng};
use testkit::world::people::grant;
use transcode_confidential::{
    audit::{
        CreationReason, KeyOperation, Outcome, Receipt,
        segment::{Record, RecordKind},
    },
    entropy::OsEntropy,
    ids::{KeyVersion, Period},
    keys::{KeyRequest, KeyRotationPolicy},
    message::{EncryptionContext, Encryptor, FrameLength, HeaderReader, WrappingKey},
    protocol::policy::Operation,
};

use super::known::{Key, Known};

thread_local! {
    static STORY: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static TALLY: RefCell<Tally> = const { RefCell::new(Tally { asked: 0, done: 0, boots: 0, events: 0, receipts: 0 }) };
}

/// What came of lives.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    pub(super) asked: usize,
    pub(super) done: usize,
    pub(super) boots: usize,
    pub(super) events: usize,
    pub(super) receipts: usize,
}

impl Tally {
    pub(super) const fn add(&mut self, other: &Self) {
        self.asked += other.asked;
        self.done += other.done;
        self.boots += other.boots;
        self.events += other.events;
        self.receipts += other.receipts;
    }
}

/// What happened in the life that was lived last.
pub(super) fn story() -> Vec<String> {
    STORY.take()
}

pub(super) fn tally() -> Tally {
    TALLY.take()
}

fn dice(sides: u32) -> u32 {
    thread_rng().gen_range(0..sides)
}

fn tell(what: String) {
    STORY.with_borrow_mut(|story| story.push(what));
}

pub(super) async fn live(steps: usize) {
    let stop = Rc::new(Cell::new(false));
    let ticking = shuttle::future::spawn_local(clock(Rc::clone(&stop)));
    let mut life = Life::begin().await;
    for _ in 0..steps {
        if dice(3) == 0 { life.disturb().await } else { life.ask().await }
    }
    life.end().await;
    stop.set(true);
    ticking.await.unwrap();
}

/// Lets time pass where nobody has much to do.
async fn clock(stop: Rc<Cell<bool>>) {
    while !stop.get() {
        if dice(150) == 0 {
            time::pass_to_next();
        }
        shuttle::future::yield_now().await;
    }
}

struct Life {
    house: House,
    enclave: Option<Enclave>,
    keys: BTreeMap<String, Key>,
    receipts: Vec<Receipt>,
    /// Whether the transcoder may; `None` where nobody can know.
    granted: Option<bool>,
    kms: Option<Failing>,
    /// KMS failed since the last boot, so that what it gave may be held to be bad.
    kms_failed: bool,
}

impl Life {
    async fn begin() -> Self {
        let house = House::new();
        let mut life = Self {
            house,
            enclave: None,
            keys: BTreeMap::new(),
            receipts: Vec::new(),
            granted: Some(false),
            kms: None,
            kms_failed: false,
        };
        life.boot().await;
        life
    }

    fn enclave(&self) -> &Enclave {
        self.enclave.as_ref().expect("an enclave runs")
    }

    /// Boots until an enclave runs. With a KMS that confuses keys none does.
    async fn boot(&mut self) {
        loop {
            TALLY.with_borrow_mut(|tally| tally.boots += 1);
            match self.house.boot().await {
                Ok(enclave) => {
                    self.enclave = Some(enclave);
                    break;
                }
                // The connection broke while it booted, or KMS was of no use.
                Err(BootError::Host(_) | BootError::Ledger(_)) => self.house.parent.weather(Weather::default()),
                Err(BootError::Kms(_) | BootError::WrongLogKey) if self.kms.is_some() => self.kms_fails(None),
                Err(error) => panic!("no boot: {error}"),
            }
        }
        self.kms_failed = self.kms.is_some();
        while self.enclave().grants.version() == 0 {
            self.change_policy(true).await;
        }
    }

    fn kms_fails(&mut self, how: Option<Failing>) {
        self.kms = how;
        self.kms_failed |= how.is_some();
        self.house.kms.fail(how);
    }

    async fn change_policy(&mut self, granted: bool) {
        let document = self.house.authority.issue(|policy| {
            policy.grants = vec![grant(OPERATOR, "", &Operation::ALL)];
            if granted {
                policy.grants.push(grant(TRANSCODER, "", &[Operation::Encrypt, Operation::Decrypt]));
            }
        });
        let enclave = self.enclave();
        let (grants, ledger) = (Arc::clone(&enclave.grants), enclave.custody.ledger.clone());
        match enclave.island.spawn(async move { grants.adopt(&ledger, &document, None).await }).await.unwrap() {
            Ok((_, receipt)) => {
                self.receipts.push(receipt);
                self.granted = Some(granted);
            }
            Err(_) => self.granted = if self.granted == Some(granted) { self.granted } else { None },
        }
    }

    /// Somebody asks for something.
    async fn ask(&mut self) {
        let new = self.keys.is_empty() || self.keys.len() < 5 && dice(6) == 0;
        let name = if new {
            format!("film-{}", self.keys.len())
        } else {
            let at = dice(self.keys.len() as u32) as usize;
            self.keys.keys().nth(at).unwrap().clone()
        };
        let what = if new { 0 } else { 1 + dice(34) };
        TALLY.with_borrow_mut(|tally| tally.asked += 1);
        let done = match what {
            0 => self.generate(&name).await,
            1..=9 => self.encrypt(&name).await,
            10..=16 => self.decrypt(&name).await,
            17..=19 => self.issue(&name).await,
            20..=21 => self.unwrap(&name).await,
            22..=23 => self.media(&name).await,
            24..=26 => self.rotate(&name).await,
            27 => self.change(&name, Change::Revoke).await,
            28 => self.change(&name, Change::Suspend).await,
            29..=30 => self.change(&name, Change::Resume).await,
            31 if dice(3) == 0 => self.change(&name, Change::Destroy).await,
            32 => self.change(&name, Change::DecryptFrom(KeyVersion(1 + dice(3)))).await,
            33 => self.change(&name, Change::DestroyVersion(KeyVersion(1 + dice(3)))).await,
            _ => {
                let granted = dice(2) == 0;
                self.change_policy(granted).await;
                tell(format!("policy: {granted}: {:?}", self.granted));
                self.granted == Some(granted)
            }
        };
        TALLY.with_borrow_mut(|tally| tally.done += usize::from(done));
    }

    /// Takes in the answer.
    fn answered<T>(&mut self, what: &str, name: &str, result: &Result<T, CustodyError>) -> bool {
        let told = result.as_ref().map_or_else(ToString::to_string, |_| "done".to_owned());
        tell(format!("{what} {name}: {told}"));
        if let Err(error) = result {
            self.keys[name].refused(what, error, self.kms_failed);
        }
        result.is_ok()
    }

    fn permit(&self, operation: Operation, name: &str) -> Permit {
        self.enclave().grants.permit(&OPERATOR.parse().unwrap(), operation, &id(name)).expect("the operator may")
    }

    /// What the transcoder may do, he may do only where it is granted.
    fn transcoder(&self, operation: Operation, name: &str) -> Permit {
        let permit = self.enclave().grants.permit(&TRANSCODER.parse().unwrap(), operation, &id(name));
        match (&permit, self.granted) {
            (Some(_), Some(false)) => panic!("the transcoder may do what was taken back"),
            (None, Some(true)) => panic!("the transcoder may not do what was granted"),
            _ => permit.unwrap_or_else(|| self.permit(operation, name)),
        }
    }

    async fn generate(&mut self, name: &str) -> bool {
        let limit = u64::from(3 + dice(6));
        self.keys.insert(name.to_owned(), Key::new(limit));
        let policy =
            KeyRotationPolicy { max_uses: limit, require_attestation: dice(3) == 0, ..KeyRotationPolicy::default() };
        let (custody, permit) = (Arc::clone(&self.enclave().custody), self.permit(Operation::Generate, name));
        let made = self.enclave().island.spawn(async move {
            custody.generate(&Asked { permit: &permit, expected: None, tag: None }, policy).await
        });
        let made = made.await.unwrap();
        self.keys.get_mut(name).unwrap().made.learn(&made);
        let done = self.answered("generate", name, &made);
        self.receipts.extend(made.ok().map(|made| made.receipt));
        done
    }

    async fn rotate(&mut self, name: &str) -> bool {
        let (custody, permit, key) =
            (Arc::clone(&self.enclave().custody), self.permit(Operation::Rotate, name), id(name));
        let rotated = self.enclave().island.spawn(async move {
            let asked = Asked { permit: &permit, expected: None, tag: None };
            custody.rotate(Some(&asked), &key, CreationReason::Manual).await
        });
        let rotated = rotated.await.unwrap();
        let done = self.answered("rotate", name, &rotated);
        self.receipts.extend(rotated.ok().map(|rotated| rotated.receipt));
        done
    }

    /// Up to three callers at once.
    async fn encrypt(&mut self, name: &str) -> bool {
        let callers = [1, 1, 2, 3][dice(4) as usize];
        let permit = self.transcoder(Operation::Encrypt, name);
        let encrypting: Vec<_> = (0..callers)
            .map(|caller| {
                let (custody, permit) = (Arc::clone(&self.enclave().custody), permit.clone());
                let content = format!("{name} {} {caller}", self.receipts.len()).into_bytes();
                let complete = dice(2) == 0;
                self.enclave().island.spawn(async move {
                    let context = EncryptionContext::new();
                    let operation = KeyOperation::Encrypt;
                    let purpose = Purpose { permit: &permit, operation, context: &context, content_id: Some("film") };
                    let mut granted = custody.begin_use(&purpose).await?;
                    let wrap = WrappingKey {
                        key_id: permit.key(),
                        version: granted.version,
                        material: granted.key.material(),
                    };
                    let mut message = Vec::new();
                    let length = FrameLength::new(4096).unwrap();
                    let mut encryptor = Encryptor::begin(&wrap, &context, length, &OsEntropy, &mut message)?;
                    encryptor.push(&content, &mut message)?;
                    encryptor.finish(&mut message)?;
                    if complete {
                        granted.open.ended.outcome = Outcome::Complete;
                    }
                    Ok::<_, CustodyError>((granted.version, granted.receipt.clone(), message, content))
                })
            })
            .collect();
        let mut done = false;
        for task in encrypting {
            let result = task.await.unwrap();
            done |= self.answered("encrypt", name, &result);
            if let Ok((version, receipt, message, content)) = result {
                let key = self.keys.get_mut(name).unwrap();
                key.used(Some(version));
                key.messages.push((message, content));
                self.receipts.push(receipt);
            }
        }
        done
    }

    async fn decrypt(&mut self, name: &str) -> bool {
        let messages = &self.keys[name].messages;
        if messages.is_empty() {
            return false;
        }
        let (message, content) = messages[dice(messages.len() as u32) as usize].clone();
        let (custody, permit) = (Arc::clone(&self.enclave().custody), self.transcoder(Operation::Decrypt, name));
        let decrypted =
            self.enclave().island.spawn(async move { read(&custody, &permit, &message).await }).await.unwrap();
        let done = self.answered("decrypt a version of", name, &decrypted);
        if let Ok((found, receipt)) = decrypted {
            assert_eq!(found, content);
            self.keys.get_mut(name).unwrap().used(None);
            self.receipts.push(receipt);
        }
        done
    }

    async fn issue(&mut self, name: &str) -> bool {
        let (custody, permit) = (Arc::clone(&self.enclave().custody), self.permit(Operation::IssueDataKey, name));
        let count = 1 + dice(3) as usize;
        let issued = self.enclave().island.spawn(async move {
            let contexts = vec![EncryptionContext::new(); count];
            custody.issue_data_keys(&permit, &contexts, None, &OsEntropy).await
        });
        let issued = issued.await.unwrap();
        let done = self.answered("issue", name, &issued);
        for released in issued.into_iter().flatten() {
            let key = self.keys.get_mut(name).unwrap();
            let wrapped = released.data_key.wrapped().clone();
            key.used(Some(wrapped.version()));
            key.data_keys.push((wrapped, released.data_key.data_key().material().expose().to_vec()));
            self.receipts.push(released.receipt);
        }
        done
    }

    async fn unwrap(&mut self, name: &str) -> bool {
        let known = &self.keys[name].data_keys;
        if known.is_empty() {
            return false;
        }
        let (wrapped, secret) = known[dice(known.len() as u32) as usize].clone();
        let (custody, permit) = (Arc::clone(&self.enclave().custody), self.permit(Operation::Decrypt, name));
        let unwrapped = self.enclave().island.spawn(async move {
            let pending = custody.begin_unwrap(&permit, &wrapped, &EncryptionContext::new(), None).await?;
            custody.confirm_unwraps(vec![pending]).await.remove(0)
        });
        let unwrapped = unwrapped.await.unwrap();
        let done = self.answered("unwrap a version of", name, &unwrapped);
        if let Ok(released) = unwrapped {
            assert_eq!(released.data_key.material().expose().to_vec(), secret);
            self.keys.get_mut(name).unwrap().used(None);
            self.receipts.push(released.receipt);
        }
        done
    }

    /// The media key of a period is the same for ever.
    async fn media(&mut self, name: &str) -> bool {
        let period = u64::from(dice(3));
        let (custody, permit) = (Arc::clone(&self.enclave().custody), self.permit(Operation::ExportMediaKey, name));
        let derived = self
            .enclave()
            .island
            .spawn(async move { custody.media_key(&permit, &"film".parse().unwrap(), Period(period)).await });
        let derived = derived.await.unwrap();
        let done = self.answered("media key of a version of", name, &derived);
        if let Ok(granted) = derived {
            let key = self.keys.get_mut(name).unwrap();
            key.used(None);
            let first = *key.media.entry(period).or_insert(*granted.key.expose());
            assert_eq!(first, *granted.key.expose(), "the media key of period {period} of {name}");
            self.receipts.push(granted.receipt);
        }
        done
    }

    async fn change(&mut self, name: &str, change: Change) -> bool {
        let operation = match change {
            Change::Revoke | Change::DecryptFrom(_) => Operation::Revoke,
            Change::Suspend | Change::Resume => Operation::Suspend,
            Change::Destroy | Change::DestroyVersion(_) => Operation::Destroy,
        };
        let (custody, permit) = (Arc::clone(&self.enclave().custody), self.permit(operation, name));
        let changed = self
            .enclave()
            .island
            .spawn(async move { custody.change(&Asked { permit: &permit, expected: None, tag: None }, change).await });
        let changed = changed.await.unwrap();
        let done = self.answered(&format!("{change:?} (version)"), name, &changed);
        let key = self.keys.get_mut(name).unwrap();
        let unknown = matches!(changed, Err(CustodyError::AuditUnavailable));
        match change {
            Change::Revoke | Change::Destroy => key.revoked.learn(&changed),
            Change::Suspend | Change::Resume if done => {
                key.suspended = Some(change == Change::Suspend);
            }
            Change::Suspend | Change::Resume if unknown => key.suspended = None,
            Change::DecryptFrom(_) | Change::DestroyVersion(_) => key.restricted.learn(&changed),
            _ => {}
        }
        self.receipts.extend(changed.ok().map(|changed| changed.receipt));
        done
    }

    /// Something goes wrong, or somebody tends the log.
    async fn disturb(&mut self) {
        let parent = self.house.parent.clone();
        let what = match dice(14) {
            0 | 1 => {
                self.enclave.take().unwrap().kill();
                self.boot().await;
                "the enclave was killed"
            }
            2 => {
                self.weather(Weather::default());
                self.enclave.take().unwrap().stop().await;
                self.boot().await;
                "the enclave was restarted"
            }
            3 => {
                self.weather(Weather { gone: true, ..parent.today() });
                self.ask().await;
                self.weather(Weather { gone: false, ..parent.today() });
                "the parent was gone"
            }
            4 | 13 => {
                parent.disconnect();
                "the connection broke"
            }
            5 => {
                self.weather(Weather { cuts: 10 * dice(4), slow: 10 * dice(3), ..parent.today() });
                "the weather changed"
            }
            6 => {
                self.weather(Weather { full: true, ..parent.today() });
                self.ask().await;
                self.ask().await;
                self.weather(Weather { full: false, ..parent.today() });
                "the disk was full"
            }
            7 => {
                let how = [Failing::Down, Failing::Throttling, Failing::Leaking, Failing::Confused][dice(4) as usize];
                self.kms_fails(Some(how));
                self.ask().await;
                self.ask().await;
                if dice(2) == 0 {
                    self.enclave.take().unwrap().kill();
                    self.boot_past(how).await;
                }
                self.kms_fails(None);
                "KMS failed"
            }
            8 => {
                self.enclave.take().unwrap().kill();
                // The parent's program ends with it: what it was about to write is not written after what was torn.
                parent.disconnect();
                self.tear();
                self.boot().await;
                "the machine lost its power in the middle of a write"
            }
            9 | 10 => self.snapshot().await,
            _ => self.prune().await,
        };
        tell(what.to_owned());
    }

    fn weather(&self, weather: Weather) {
        self.house.parent.weather(weather);
    }

    /// A KMS that answers nothing is waited for; it comes back meanwhile.
    async fn boot_past(&mut self, how: Failing) {
        if matches!(how, Failing::Down | Failing::Throttling) {
            let kms = self.house.kms.clone();
            shuttle::future::spawn_local(async move {
                time::sleep(std::time::Duration::from_secs(5)).await;
                kms.fail(None);
            });
        }
        self.boot().await;
    }

    async fn snapshot(&mut self) -> &'static str {
        let archive = Arc::clone(&self.enclave().archive);
        match self.enclave().island.spawn(async move { archive.snapshot(None).await }).await.unwrap() {
            Ok(done) => {
                self.receipts.push(done.receipt);
                "a snapshot was taken"
            }
            Err(ArchiveError::Ledger(LedgerError::Unavailable)) => "no snapshot was taken",
            Err(error) => panic!("snapshot: {error}"),
        }
    }

    async fn prune(&mut self) -> &'static str {
        let archive = Arc::clone(&self.enclave().archive);
        match self.enclave().island.spawn(async move { archive.prune(None, None).await }).await.unwrap() {
            Ok(done) => {
                self.receipts.push(done.receipt);
                "the log was pruned"
            }
            Err(ArchiveError::NothingToPrune | ArchiveError::Ledger(LedgerError::Unavailable)) => "nothing was pruned",
            Err(error) => panic!("prune: {error}"),
        }
    }

    /// Leaves what a write leaves that was interrupted.
    fn tear(&self) {
        let mut torn = Vec::new();
        Record::new(RecordKind::Entry, vec![1; 300]).write_to(&mut torn);
        torn.truncate(1 + dice(torn.len() as u32 - 1) as usize);
        self.house.parent.edit(|segments| {
            if let Some(mut last) = segments.last_entry() {
                last.get_mut().extend(torn);
            }
        });
    }

    /// Everything is well again; then everything that anybody was told is held against the log, and against another boot.
    async fn end(&mut self) {
        self.weather(Weather::default());
        self.kms_fails(None);
        self.enclave.take().unwrap().stop().await;
        self.boot().await;
        for name in self.keys.keys().cloned().collect::<Vec<_>>() {
            for _ in 0..2 {
                self.decrypt(&name).await;
                self.unwrap(&name).await;
                self.media(&name).await;
            }
        }
        self.weather(Weather::default());
        self.enclave.take().unwrap().stop().await;
        let checked = self.house.checked(&self.receipts).intact();
        TALLY.with_borrow_mut(|tally| {
            tally.events += checked.events.len();
            tally.receipts += self.receipts.len();
        });
        for (name, key) in &self.keys {
            let Some(found) = checked.keys.key(&id(name)) else {
                assert_ne!(key.made, Known::Yes, "{name} is gone");
                continue;
            };
            for version in &found.versions {
                let told = key.uses.get(&version.version).copied().unwrap_or_default();
                assert!(
                    version.uses <= key.limit,
                    "{name}: {} uses of {}, {} may be",
                    version.uses,
                    version.version,
                    key.limit
                );
                assert!(told <= version.uses, "{name}: {told} uses were granted, {} are on the record", version.uses);
            }
            match key.revoked {
                Known::Yes => assert!(found.active().is_none(), "{name} was revoked"),
                Known::No => assert!(found.active().is_some(), "{name} was not revoked"),
                Known::Maybe => {}
            }
        }
        for receipt in &self.receipts {
            let known = checked.events.iter().filter(|event| event.sequence == receipt.sequence).count();
            let pruned = checked.events.first().is_some_and(|first| first.sequence > receipt.sequence);
            assert!(known == 1 || pruned, "event {} was acknowledged", receipt.sequence);
        }
    }
}

/// As the service reads a message.
async fn read(
    custody: &Arc<model::custody::Custody>,
    permit: &Permit,
    message: &[u8],
) -> Result<(Vec<u8>, Receipt), CustodyError> {
    let (mut reader, mut rest) = (HeaderReader::new(), message);
    let header = reader.push(&mut rest)?.expect("a whole header");
    let version = header.wrapped_data_keys().next().expect("a data key of ours").version();
    let key_id = permit.key();
    let operation = KeyOperation::Decrypt;
    let request = KeyRequest::Use { operation, version: Some(version), context: None };
    let _ = custody.ledger.with_keys(|keys, now| keys.decide(key_id, &request, now)).map_err(CustodyError::Key)?;
    let key = custody.material(key_id, version).await?;
    let context = EncryptionContext::new();
    let mut decryptor = header.unwrap(&WrappingKey { key_id, version, material: key.material() })?;
    let purpose = Purpose { permit, operation, context: &context, content_id: None };
    let pending = custody.reserve_use(Some(version), &purpose).await?;
    let granted = custody.confirm_use(pending, key).await?;
    let mut content = Vec::new();
    decryptor.push(rest, &mut content)?;
    decryptor.finish()?;
    Ok((content, granted.receipt.clone()))
}
