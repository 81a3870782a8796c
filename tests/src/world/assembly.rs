//! How a world is put together: who trusts whom, and what is configured where.

use std::{path::Path, sync::Arc, time::Duration};

use client::kms_policy::PolicyRequest;
use enclave_app::{config, kms::KeyArn};
use serde_json::json;
use transcode_confidential::{
    attestation::Measurements,
    protocol::{host::Credentials, policy::Operation},
    time::SystemClock,
};
use transport::Endpoint;

use super::{
    Acknowledged, DEPLOYMENT, OPERATOR, ParentKind, Plan, PolicyAuthority, ROLE, TRANSCODER, Wires, World,
    parent::{Parent, RunningProxy},
    people::{ClientCa, grant},
    wires,
};
use crate::{
    clock::JumpingClock,
    disk::FaultyDisk,
    kms::{IssuedCredentials, MockKms, MockKmsOptions},
    nsm::{MockHypervisor, MockImage},
    parent::ScriptedParent,
};

impl World {
    /// Everything but the enclave.
    pub async fn without_enclave(plan: Plan) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let hypervisor = MockHypervisor::new(Arc::new(SystemClock));
        let kms = MockKms::start(MockKmsOptions::new(hypervisor.trust_root())).await;
        let kms_key = kms.create_key(json!({ "Statement": [] }));
        accept_images(&kms, &kms_key, &plan.kms_images);
        let credentials = kms.issue_credentials(ROLE, Duration::from_secs(6 * 3600));
        let ca = ClientCa::generate();
        let mut authority = PolicyAuthority::new(DEPLOYMENT);
        let document = authority.issue(|policy| {
            policy.grants = vec![
                grant(OPERATOR, "", &Operation::ALL),
                grant(TRANSCODER, "content-", &[Operation::Encrypt, Operation::Decrypt]),
            ];
        });
        let policies = dir.path().join("policies");
        std::fs::create_dir(&policies).expect("a directory");
        let wires = if plan.interposed { Some(Wires::lay(dir.path()).await) } else { None };
        let at = |socket: &str| wires::end(dir.path(), socket, wires.is_some());
        let proxy_config = proxy_config(dir.path(), &at("enclave"), &kms, &credentials);
        let (disk, parent_clock) = (FaultyDisk::default(), JumpingClock::default());
        let parent = match plan.parent {
            ParentKind::Proxy => {
                Parent::Proxy(RunningProxy::start(&proxy_config, disk.clone(), parent_clock.clone()).await)
            }
            ParentKind::Outside => Parent::Gone,
            ParentKind::Scripted => {
                let IssuedCredentials { access_key_id, secret_access_key, session_token, lifetime } =
                    credentials.clone();
                let told = Credentials::new(access_key_id, secret_access_key, session_token, lifetime.as_secs());
                Parent::Scripted(ScriptedParent::start(dir.path(), told, kms.address()).await)
            }
        };
        let config = config::Config {
            deployment: DEPLOYMENT.to_owned(),
            kms_key_arn: kms_key.clone(),
            policy_authority: authority.public_key(),
            client_ca: ca.certificate_pem().to_owned(),
            parent: config::Parent {
                host: at("host"),
                egress: at("egress"),
                listen: Endpoint::Unix(dir.path().join("enclave.sock")),
            },
            predecessors: plan.predecessors.iter().map(predecessor).collect(),
            anchors: Vec::new(),
            key_defaults: plan.key_defaults,
            limits: plan.limits,
            log: plan.log,
        };
        let mut images = vec![plan.image];
        images.extend(plan.predecessors);
        let world = Self {
            dir,
            hypervisor,
            kms,
            kms_key,
            credentials,
            ca,
            authority,
            acknowledged: Acknowledged::default(),
            disk,
            parent_clock,
            wires,
            images,
            config,
            proxy_config,
            parent,
            enclave: None,
        };
        world.offer_policy(&document);
        world
    }
}

/// What the client's own generator writes for these images.
pub(super) fn accept_images(kms: &MockKms, key: &KeyArn, images: &[MockImage]) {
    let images = images.iter().enumerate().map(|(index, image)| image.expected(&format!("image {index}")));
    let measurements = Measurements::new(images.collect()).expect("at least one image");
    let administrator = "arn:aws:iam::111122223333:role/key-administrator";
    let request = PolicyRequest::new(&measurements, key.as_str(), &kms.role_arn(ROLE), &[administrator]);
    let request = request.expect("good names");
    kms.put_key_policy(key, request.key_policy().expect("a policy"));
    kms.put_role_policy(ROLE, request.role_policy().expect("a policy"));
}

fn predecessor(image: &MockImage) -> config::Predecessor {
    let [pcr0, pcr1, pcr2] = image.identity.map(|value| value.to_string());
    config::Predecessor { label: "predecessor".to_owned(), pcr0, pcr1, pcr2 }
}

fn proxy_config(dir: &Path, enclave: &Endpoint, kms: &MockKms, credentials: &IssuedCredentials) -> String {
    let (dir, host, address) = (dir.display(), kms.endpoint_host(), kms.address());
    let IssuedCredentials { access_key_id, secret_access_key, session_token, .. } = credentials;
    format!(
        r#"
enclave = "{enclave}"
drain = "2s"

[relay]
listen = ["unix:{dir}/relay.sock"]

[egress]
listen = "unix:{dir}/egress.sock"
allow = ["{host}:443"]
[egress.resolve]
"{host}:443" = "tcp:{address}"

[host]
listen = "unix:{dir}/host.sock"

[store]
directory = "{dir}/segments"
reserve = 0

[credentials]
source = "static"
access_key_id = "{access_key_id}"
secret_access_key = "{secret_access_key}"
session_token = "{session_token}"

[policy]
path = "{dir}/policies"
restore = "{dir}/restore.cose"

[admin]
listen = "unix:{dir}/admin.sock"
"#
    )
}
