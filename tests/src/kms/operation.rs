use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderMap;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use transcode_confidential::time::Timestamp;

use super::{
    Service,
    api::ApiError,
    ber,
    fault::Fault,
    journal::LoggedRequest,
    key::{Key, KeyState, split},
    policy::{self, Decision},
    recipient::{Attested, Recipient},
    signature,
    state::State,
};

/// Bytes in base64.
#[derive(Debug, Clone)]
pub(super) struct Blob(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What goes back over the wire, and how.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) delivery: Delivery,
}

/// How an answer is delivered.
pub(super) enum Delivery {
    Whole,
    After(Duration),
    Half,
    Never,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct GenerateDataKey {
    key_id: String,
    key_spec: Option<String>,
    #[serde(default)]
    encryption_context: BTreeMap<String, String>,
    recipient: Option<Recipient>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Decrypt {
    ciphertext_blob: Blob,
    key_id: Option<String>,
    #[serde(default)]
    encryption_context: BTreeMap<String, String>,
    encryption_algorithm: Option<String>,
    recipient: Option<Recipient>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct GenerateRandom {
    number_of_bytes: usize,
    recipient: Option<Recipient>,
}

/// Answers one request and writes it into the journal.
pub(super) fn answer(service: &Service, connection: usize, headers: &HeaderMap, body: &[u8]) -> Answer {
    let now = service.clock.now();
    let operation = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let operation = operation.strip_prefix("TrentService.").unwrap_or_default().to_owned();
    let logged = LoggedRequest {
        at: now,
        connection,
        operation,
        access_key_id: None,
        key_id: None,
        context: BTreeMap::new(),
        document: None,
        public_key: None,
        user_data: None,
        error: None,
    };
    let mut state = service.state();
    let fault = state.faults.pop_front();
    let mut call = Call { service, state: &mut state, now, fault: fault.clone(), logged };
    let result = call.run(headers, body);
    let mut logged = call.logged;
    logged.error = result.as_ref().err().map(|error| error.code.to_owned());
    state.journal.push(logged);
    drop(state);
    let (status, body) = match result {
        Ok(reply) => (200, reply),
        Err(error) => (error.status, error.body()),
    };
    deliver(status, &body, fault)
}

fn deliver(status: u16, body: &Value, fault: Option<Fault>) -> Answer {
    let mut body = body.to_string().into_bytes();
    let delivery = match fault {
        Some(Fault::Slow(by)) => Delivery::After(by),
        Some(Fault::HalfClosed) => Delivery::Half,
        Some(Fault::Closed) => Delivery::Never,
        Some(Fault::NotJson) => {
            body = b"<html>It works!</html>".to_vec();
            Delivery::Whole
        }
        Some(Fault::Oversized) => {
            body.resize(1 << 20, b' ');
            Delivery::Whole
        }
        _ => Delivery::Whole,
    };
    Answer { status, body, delivery }
}

struct Call<'a> {
    service: &'a Service,
    state: &'a mut State,
    now: Timestamp,
    fault: Option<Fault>,
    logged: LoggedRequest,
}

/// What an operation gives away, before it is sealed or not.
struct Yield {
    plaintext: Vec<u8>,
    recipient: Option<Attested>,
    fields: Map<String, Value>,
}

impl Call<'_> {
    fn run(&mut self, headers: &HeaderMap, body: &[u8]) -> Result<Value, ApiError> {
        let Service { region, .. } = self.service;
        let (access_key_id, session) = signature::verify(self.state, region, self.now, headers, body)?;
        let role = session.role.clone();
        self.logged.access_key_id = Some(access_key_id);
        if let Some(Fault::Error(status, code, message)) = self.fault {
            return Err(ApiError { status, code, message: message.to_owned() });
        }
        let result = match self.logged.operation.as_str() {
            "GenerateDataKey" => self.generate_data_key(&role, parse(body)?)?,
            "Decrypt" => self.decrypt(&role, parse(body)?)?,
            "GenerateRandom" => self.generate_random(&role, parse(body)?)?,
            _ => return Err(ApiError::new("UnknownOperationException", "")),
        };
        self.seal(result)
    }

    fn generate_data_key(&mut self, role: &str, request: GenerateDataKey) -> Result<Yield, ApiError> {
        let GenerateDataKey { key_id, key_spec, encryption_context, recipient } = request;
        self.logged.context.clone_from(&encryption_context);
        let recipient = self.attested(recipient.as_ref())?;
        let key = self.authorized_key(role, "kms:GenerateDataKey", &key_id, &encryption_context, recipient.as_ref())?;
        if key_spec.as_deref() != Some("AES_256") {
            return Err(ApiError::new("ValidationException", "KeySpec: this mock makes AES_256 only"));
        }
        let plaintext = random(32);
        let blob = key.wrap(&plaintext, &encryption_context);
        let mut fields = named(&key.arn);
        self.state.remember(&blob, &encryption_context);
        if let Some(path) = &self.service.state_file {
            self.state.save(path);
        }
        fields.insert("CiphertextBlob".to_owned(), STANDARD.encode(blob).into());
        Ok(Yield { plaintext, recipient, fields })
    }

    fn decrypt(&mut self, role: &str, request: Decrypt) -> Result<Yield, ApiError> {
        let Decrypt { ciphertext_blob: Blob(blob), key_id, encryption_context, encryption_algorithm, recipient } =
            request;
        self.logged.context.clone_from(&encryption_context);
        let recipient = self.attested(recipient.as_ref())?;
        let invalid = || ApiError::new("InvalidCiphertextException", "");
        let (wrapped_by, _) = split(&blob).ok_or_else(invalid)?;
        let key_id = key_id.unwrap_or_else(|| wrapped_by.to_owned());
        let key = self.authorized_key(role, "kms:Decrypt", &key_id, &encryption_context, recipient.as_ref())?;
        if encryption_algorithm.is_some_and(|algorithm| algorithm != "SYMMETRIC_DEFAULT") {
            return Err(ApiError::new("InvalidKeyUsageException", ""));
        }
        if key.id != wrapped_by {
            let message = "The key ID in the request does not identify a CMK that can perform this operation.";
            return Err(ApiError::new("IncorrectKeyException", message));
        }
        let plaintext = key.unwrap(&blob, &encryption_context).ok_or_else(invalid)?;
        let mut fields = named(&key.arn);
        fields.insert("EncryptionAlgorithm".to_owned(), "SYMMETRIC_DEFAULT".into());
        Ok(Yield { plaintext, recipient, fields })
    }

    fn generate_random(&mut self, role: &str, request: GenerateRandom) -> Result<Yield, ApiError> {
        let recipient = self.attested(request.recipient.as_ref())?;
        self.authorize(role, "kms:GenerateRandom", None, &BTreeMap::new(), recipient.as_ref())?;
        if !(1..=1024).contains(&request.number_of_bytes) {
            return Err(ApiError::new("ValidationException", "NumberOfBytes: between 1 and 1024"));
        }
        Ok(Yield { plaintext: random(request.number_of_bytes), recipient, fields: Map::new() })
    }

    fn attested(&mut self, recipient: Option<&Recipient>) -> Result<Option<Attested>, ApiError> {
        let Some(recipient) = recipient else { return Ok(None) };
        let attested = recipient.verify(&self.service.root, self.now)?;
        self.logged.document = Some(attested.document);
        self.logged.public_key = attested.claims.public_key().map(<[u8]>::to_vec);
        self.logged.user_data = attested.claims.user_data().map(<[u8]>::to_vec);
        Ok(Some(attested))
    }

    /// The key that `name` names, if policies allow the action on it and it is enabled.
    fn authorized_key(
        &mut self,
        role: &str,
        action: &str,
        name: &str,
        context: &BTreeMap<String, String>,
        recipient: Option<&Attested>,
    ) -> Result<&Key, ApiError> {
        self.logged.key_id = Some(name.to_owned());
        let id = self.key_id_of(name)?;
        let not_found = || ApiError::new("NotFoundException", format!("Key '{name}' does not exist"));
        let key = self.state.key(&id).ok_or_else(not_found)?;
        self.authorize(role, action, Some(key), context, recipient)?;
        match key.state {
            KeyState::Enabled => Ok(key),
            KeyState::Disabled => Err(ApiError::new("DisabledException", format!("{} is disabled.", key.arn))),
            KeyState::PendingDeletion => {
                Err(ApiError::new("KMSInvalidStateException", format!("{} is pending deletion.", key.arn)))
            }
        }
    }

    fn key_id_of(&self, name: &str) -> Result<String, ApiError> {
        let Some(arn) = name.strip_prefix("arn:aws:kms:") else { return Ok(name.to_owned()) };
        let Service { region, .. } = self.service;
        let (of_region, rest) = arn.split_once(':').unwrap_or_default();
        if of_region != region {
            return Err(ApiError::new("NotFoundException", format!("Invalid arn {region}")));
        }
        Ok(rest.rsplit('/').next().unwrap_or_default().to_owned())
    }

    fn authorize(
        &self,
        role: &str,
        action: &str,
        key: Option<&Key>,
        context: &BTreeMap<String, String>,
        recipient: Option<&Attested>,
    ) -> Result<(), ApiError> {
        let Service { account, region, .. } = self.service;
        let role_arn = format!("arn:aws:iam::{account}:role/{role}");
        let mut conditions = BTreeMap::from([
            ("aws:PrincipalArn".to_owned(), vec![role_arn.clone()]),
            ("aws:CurrentTime".to_owned(), vec![iso_8601(self.now)]),
            ("aws:RequestedRegion".to_owned(), vec![region.clone()]),
            ("kms:CallerAccount".to_owned(), vec![account.clone()]),
            ("kms:EncryptionContextKeys".to_owned(), context.keys().cloned().collect()),
        ]);
        conditions
            .extend(context.iter().map(|(key, value)| (format!("kms:EncryptionContext:{key}"), vec![value.clone()])));
        conditions.extend(recipient.into_iter().flat_map(Attested::condition_keys));
        let request = policy::Request {
            session_arn: format!("arn:aws:sts::{account}:assumed-role/{role}/i-0123456789abcdef0"),
            role_arn,
            account: account.clone(),
            action: action.to_owned(),
            resource: key.map(|key| key.arn.clone()),
            context: conditions,
        };
        match policy::decide(key.map(|key| &key.policy), self.state.role_policies.get(role), &request) {
            Decision::Allowed => Ok(()),
            refused => Err(ApiError::new("AccessDeniedException", refused.message(&request))),
        }
    }

    /// Puts the plaintext into the reply: sealed where there is a recipient, in the clear where there is none, as AWS does.
    fn seal(&self, result: Yield) -> Result<Value, ApiError> {
        let Yield { mut plaintext, recipient, mut fields } = result;
        if let Some(Fault::PlaintextLength(length)) = self.fault {
            plaintext = random(length);
        }
        let clear = Value::from(STANDARD.encode(&plaintext));
        let Some(recipient) = recipient else {
            fields.insert("Plaintext".to_owned(), clear);
            return Ok(fields.into());
        };
        let invalid = || ApiError::new("ValidationException", "Invalid attestation document: no RSA public key");
        let mut public_key = recipient.claims.public_key().ok_or_else(invalid)?.to_vec();
        if self.fault == Some(Fault::SealedToAnother) {
            public_key =
                enclave_app::kms::recipient::RecipientKey::generate().expect("an RSA key").public_key().to_vec();
        }
        let mut sealed = ber::seal(&public_key, &plaintext, self.state.shape).ok_or_else(invalid)?;
        match &self.fault {
            Some(Fault::PlaintextInstead) => {
                fields.insert("Plaintext".to_owned(), clear);
                return Ok(fields.into());
            }
            Some(Fault::NotSealed) => return Ok(fields.into()),
            Some(Fault::PlaintextBeside) => {
                fields.insert("Plaintext".to_owned(), clear);
            }
            Some(Fault::KeyId(other)) => {
                fields.insert("KeyId".to_owned(), json!(other));
            }
            Some(Fault::NoKeyId) => {
                fields.remove("KeyId");
            }
            Some(Fault::NoCiphertextBlob) => {
                fields.remove("CiphertextBlob");
            }
            Some(Fault::Garbled(at)) => match sealed.get_mut(*at) {
                Some(byte) => *byte = !*byte,
                None => drop(sealed.pop()),
            },
            _ => {}
        }
        fields.insert("CiphertextForRecipient".to_owned(), STANDARD.encode(sealed).into());
        Ok(fields.into())
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::new("SerializationException", error.to_string()))
}

/// `2026-01-31T12:00:00Z`.
fn iso_8601(time: Timestamp) -> String {
    format!("{}Z", &time.to_string()[..19])
}

fn named(arn: &str) -> Map<String, Value> {
    Map::from_iter([("KeyId".to_owned(), arn.into())])
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes).expect("randomness");
    bytes
}
