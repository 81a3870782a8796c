use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::Path,
    time::Duration,
};

use enclave_app::kms::KeyArn;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use transcode_confidential::time::Timestamp;

use super::{
    authority::Authority,
    ber::ContentShape,
    caller::{IssuedCredentials, Session},
    fault::Fault,
    journal::LoggedRequest,
    key::{Key, KeyState, split},
    policy::Policy,
};

/// Everything that changes.
pub(super) struct State {
    pub(super) authority: Authority,
    pub(super) keys: Vec<Key>,
    pub(super) role_policies: BTreeMap<String, Policy>,
    pub(super) sessions: BTreeMap<String, Session>,
    pub(super) faults: VecDeque<Fault>,
    pub(super) shape: ContentShape,
    pub(super) journal: Vec<LoggedRequest>,
    /// What was wrapped, for [`State::reveal`].
    wrapped_under: BTreeMap<Vec<u8>, BTreeMap<String, String>>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            authority: Authority::generate(),
            keys: Vec::new(),
            role_policies: BTreeMap::new(),
            sessions: BTreeMap::new(),
            faults: VecDeque::new(),
            shape: ContentShape::default(),
            journal: Vec::new(),
            wrapped_under: BTreeMap::new(),
        }
    }

    pub(super) fn create_key(&mut self, region: &str, account: &str, policy: Policy) -> KeyArn {
        let [a, b, c, d, e] = [4, 2, 2, 2, 6].map(random_hex);
        let id = format!("{a}-{b}-{c}-{d}-{e}");
        let arn = format!("arn:aws:kms:{region}:{account}:key/{id}");
        let mut material = [0; 32];
        aws_lc_rs::rand::fill(&mut material).expect("randomness");
        self.keys.push(Key { id, arn: arn.clone(), material, policy, state: KeyState::Enabled });
        arn.parse().expect("a key ARN")
    }

    pub(super) fn key(&self, id: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }

    pub(super) fn key_mut(&mut self, id: &str) -> Option<&mut Key> {
        self.keys.iter_mut().find(|key| key.id == id)
    }

    pub(super) fn issue_credentials(
        &mut self,
        role: &str,
        lifetime: Duration,
        expires: Timestamp,
    ) -> IssuedCredentials {
        let credentials = IssuedCredentials {
            access_key_id: format!("ASIA{}", random_hex(8).to_uppercase()),
            secret_access_key: random_hex(20),
            session_token: random_hex(64),
            lifetime,
        };
        let session = Session {
            secret_access_key: credentials.secret_access_key.clone(),
            session_token: credentials.session_token.clone(),
            role: role.to_owned(),
            expires_ms: expires.0,
        };
        self.sessions.insert(credentials.access_key_id.clone(), session);
        credentials
    }

    pub(super) fn expire_credentials(&mut self, access_key_id: &str, now: Timestamp) {
        self.sessions.get_mut(access_key_id).expect("the credentials exist").expires_ms = now.0;
    }

    pub(super) fn remember(&mut self, blob: &[u8], context: &BTreeMap<String, String>) {
        self.wrapped_under.insert(blob.to_vec(), context.clone());
    }

    pub(super) fn reveal(&self, blob: &[u8]) -> Option<Vec<u8>> {
        let (id, _) = split(blob)?;
        self.key(id)?.unwrap(blob, self.wrapped_under.get(blob)?)
    }

    pub(super) fn given_out(&self) -> Vec<Vec<u8>> {
        self.wrapped_under.keys().filter_map(|blob| self.reveal(blob)).collect()
    }

    pub(super) fn save(&self, path: &Path) {
        let stored = Stored {
            authority_certificate: self.authority.certificate_pem(),
            authority_key: self.authority.key_pem(),
            keys: self.keys.iter().map(StoredKey::from).collect(),
            role_policies: self
                .role_policies
                .iter()
                .map(|(role, policy)| (role.clone(), policy.source().clone()))
                .collect(),
            sessions: self.sessions.clone(),
            wrapped_under: self
                .wrapped_under
                .iter()
                .map(|(blob, context)| (hex::encode(blob), context.clone()))
                .collect(),
        };
        let text = serde_json::to_vec_pretty(&stored).expect("plain data");
        let new = path.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, path)).expect("a writable state file");
    }

    /// What was saved; `None` where nothing was.
    pub(super) fn load(path: &Path) -> Option<Self> {
        let stored: Stored = serde_json::from_slice(&fs::read(path).ok()?).expect("what was saved");
        let policy = |source| Policy::parse(source).expect("what was saved");
        Some(Self {
            authority: Authority::from_pem(&stored.authority_certificate, &stored.authority_key),
            keys: stored.keys.into_iter().map(StoredKey::into_key).collect(),
            role_policies: stored.role_policies.into_iter().map(|(role, source)| (role, policy(source))).collect(),
            sessions: stored.sessions,
            wrapped_under: stored
                .wrapped_under
                .into_iter()
                .map(|(blob, context)| (hex::decode(blob).expect("what was saved"), context))
                .collect(),
            ..Self::new()
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    authority_certificate: String,
    authority_key: String,
    keys: Vec<StoredKey>,
    role_policies: BTreeMap<String, Value>,
    sessions: BTreeMap<String, Session>,
    wrapped_under: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    id: String,
    arn: String,
    material: String,
    policy: Value,
    state: KeyState,
}

impl From<&Key> for StoredKey {
    fn from(key: &Key) -> Self {
        Self {
            id: key.id.clone(),
            arn: key.arn.clone(),
            material: hex::encode(key.material),
            policy: key.policy.source().clone(),
            state: key.state,
        }
    }
}

impl StoredKey {
    fn into_key(self) -> Key {
        let mut material = [0; 32];
        hex::decode_to_slice(&self.material, &mut material).expect("what was saved");
        let policy = Policy::parse(self.policy).expect("what was saved");
        Key { id: self.id, arn: self.arn, material, policy, state: self.state }
    }
}

fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut random).expect("randomness");
    hex::encode(random)
}
