use super::{Family, Label, Shape};

/// The label value of whatever the catalogue has no name for.
pub const OTHER: &str = "other";
/// The code of a request whose connection ended before it was answered.
pub const CLOSED: &str = "CLOSED";

const COUNTER: Shape = Shape::Counter;
const COUNT: Shape = Shape::Gauge { per: 1 };
const SECONDS: Shape = Shape::Gauge { per: 1000 };
const LATENCY: Shape = Shape::Histogram;

/// Method and route as the API names them, never as a caller wrote them. A route that the enclave has and this list has not fails
/// a test of the enclave; one that is only listed does no harm.
const ROUTE: Label = Label {
    name: "route",
    values: &[
        "GET /v1/attestation",
        "GET /v1/checkpoint",
        "GET /v1/consistency",
        "GET /v1/status",
        "PUT /v1/policy",
        "GET /v1/keys",
        "POST /v1/keys",
        "GET /v1/keys/{id}",
        "POST /v1/keys/{id}/rotate",
        "POST /v1/keys/{id}/revoke",
        "POST /v1/keys/{id}/encrypt",
        "POST /v1/keys/{id}/suspend",
        "POST /v1/keys/{id}/resume",
        "POST /v1/keys/{id}/destroy",
        "POST /v1/keys/{id}/versions/{version}/destroy",
        "POST /v1/keys/{id}/decrypt-from",
        "POST /v1/keys/{id}/data-keys",
        "GET /v1/keys/{id}/media-keys/{content}/{period}",
        "POST /v1/keys/{id}/media-keys/{content}/{period}",
        "POST /v1/data-keys/unwrap",
        "POST /v1/decrypt",
        "POST /v1/rewrap",
        "POST /v1/batch",
        "POST /v1/caller/challenge",
        "PUT /v1/caller",
        "POST /v1/content/{content}/report",
        "GET /v1/inclusion",
        "GET /v1/receipt",
        "GET /v1/log",
        "POST /v1/log/snapshot",
        "POST /v1/log/prune",
        "GET /v1/log/holds",
        "POST /v1/log/holds",
        "POST /v1/log/holds/lift",
        OTHER,
    ],
};

/// The codes of the API, and `OK`.
const CODE: Label = Label {
    name: "code",
    values: &[
        "OK",
        "MALFORMED",
        "UNAUTHENTICATED",
        "DENIED",
        "NO_SUCH_ROUTE",
        "CONFLICT",
        "REVOKED",
        "TOO_LARGE",
        "UNVERIFIED",
        "IDEMPOTENCY_KEY_REUSED",
        "CALLER_REFUSED",
        "SUSPENDED",
        "RATE_LIMITED",
        "INTERNAL",
        "AUDIT_UNAVAILABLE",
        "ROTATION_DUE",
        "KMS_UNAVAILABLE",
        "ATTESTATION_FAILED",
        "NOT_READY",
        CLOSED,
        OTHER,
    ],
};

const OPERATION: Label = Label { name: "operation", values: &["GenerateDataKey", "Decrypt", "GenerateRandom", OTHER] };

/// Why KMS did not give what it was asked for: the causes of `docs/protocol/kms.md`.
const CAUSE: Label = Label {
    name: "cause",
    values: &[
        "plaintext-reply",
        "other-key",
        "not-sealed",
        "incomplete-reply",
        "envelope",
        "malformed-reply",
        "attestation-condition",
        "access-denied",
        "document-refused",
        "wrapped-key-refused",
        "key-unusable",
        "key-not-found",
        "wrong-region",
        "rejected",
        "throttled",
        "credentials-expired",
        "credentials-refused",
        "no-credentials",
        "clock-skew",
        "unreachable",
        "egress-refused",
        "untrusted-server",
        "timed-out",
        "service-fault",
        "no-document",
        "no-recipient-key",
        "impossible-length",
        OTHER,
    ],
};

const STATE: Label = Label { name: "state", values: &["active", "suspended", "revoked", "destroyed"] };
const PRIORITY: Label = Label { name: "priority", values: &["kms", "epoch", "client"] };
const CERTIFICATE: Label = Label { name: "certificate", values: &["shown", "none"] };
const RESULT: Label = Label { name: "result", values: &["ok", "failed"] };

macro_rules! catalogue {
    ($($metric:ident $name:literal $shape:ident [$($label:ident),*] $help:literal;)+) => {
        /// One family of the [`CATALOGUE`], by its position.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Metric {
            $(#[doc = $help] $metric,)+
        }

        /// Everything that an enclave can tell in figures.
        pub const CATALOGUE: &[Family] = &[
            $(Family { name: $name, help: $help, shape: $shape, labels: &[$($label),*] },)+
        ];
    };
}

catalogue! {
    Requests "requests_total" COUNTER [ROUTE, CODE] "Requests answered, by route and code.";
    RequestSeconds "request_seconds" LATENCY [ROUTE] "Time from the head of a request to the head of its answer; content streams on after that.";
    Refusals "refusals_total" COUNTER [CODE] "Refusals taken in for the record, by code.";
    RefusalsWaiting "refusals_waiting" COUNT [] "Refusals that were counted and are not on the record yet.";
    Connections "connections_total" COUNTER [CERTIFICATE] "Client connections, by whether a client certificate was shown.";
    ConnectionsOpen "connections_open" COUNT [CERTIFICATE] "Client connections that are open.";
    HandshakesFailed "handshakes_failed_total" COUNTER [] "TLS handshakes that failed or took too long.";
    StrangersRefused "strangers_refused_total" COUNTER [] "Connections without a certificate closed because there were too many.";
    LogPlaced "log_placed_events" COUNT [] "Events that have a place in the log.";
    LogSealed "log_sealed_events" COUNT [] "Events that are sealed: handed to the parent for writing.";
    LogPersisted "log_persisted_events" COUNT [] "Events that the parent acknowledged as durable.";
    LogBehind "log_unpersisted_seconds" SECONDS [] "For how long there have been events that are not durable; 0 where there are none.";
    LogBacklog "log_backlog_events" COUNT [] "Requests that hold room for an event that is not durable yet.";
    LogBacklogLimit "log_backlog_limit_events" COUNT [] "Room for such events; beyond it requests wait.";
    LogAvailable "log_available" COUNT [] "1 while the log takes events, 0 while requests answer AUDIT_UNAVAILABLE.";
    LogBatchesUnderWay "log_batches_under_way" COUNT [] "Sealed batches that are not acknowledged.";
    LogBatches "log_batches_total" COUNTER [] "Batches sealed.";
    LogResent "log_batches_resent_total" COUNTER [] "Batches sent again over another connection.";
    LogReconnects "log_reconnects_total" COUNTER [] "Connections to the parent after the first.";
    PersistSeconds "log_persist_seconds" LATENCY [] "Time from the seal of a batch to the parent's acknowledgement.";
    Epoch "epoch" COUNT [] "The epoch: number of the boot in the life of the log.";
    Uptime "uptime_seconds" SECONDS [] "Time since the epoch was opened.";
    PolicyVersion "policy_version" COUNT [] "Version of the policy in force; 0 for none, which denies everything.";
    Keys "keys" COUNT [STATE] "Keys, by state.";
    RotationsDue "rotations_due" COUNT [] "Keys whose active version should be rotated.";
    Attestations "attestations_total" COUNTER [RESULT] "Attestations of the log's head by the enclave itself.";
    KmsCalls "kms_calls_total" COUNTER [OPERATION] "Calls to KMS that succeeded.";
    KmsFailures "kms_failures_total" COUNTER [CAUSE] "Calls to KMS that failed, by cause.";
    KmsSeconds "kms_call_seconds" LATENCY [OPERATION] "Time of a call to KMS, with its document, its wait and its attempts.";
    KmsWaiting "kms_calls_under_way" COUNT [] "Calls to KMS under way or waiting for their turn.";
    CredentialsRemaining "credentials_remaining_seconds" SECONDS [] "Lifetime left of the credentials that calls to KMS are signed with; 0 where there are none.";
    NsmWaiting "nsm_waiting" COUNT [PRIORITY] "Requests that wait for the NSM.";
    NsmSeconds "nsm_call_seconds" LATENCY [] "Time from asking the NSM for a document to having it, the wait for its turn included.";
    NsmBusy "nsm_busy_total" COUNTER [PRIORITY] "Requests turned away because too many wait for the NSM.";
    NsmFailures "nsm_failures_total" COUNTER [] "Documents that the NSM did not give.";
    ClockDrift "clock_drift_seconds" SECONDS [] "How far the clock was off when it was last anchored, forth or back.";
    ClockDrifted "clock_drifted" COUNT [] "1 while drift beyond the limit stops grants.";
    ClockAnchorAge "clock_anchor_age_seconds" SECONDS [] "Time since the clock was last anchored to the NSM's.";
    MemoryResident "memory_resident_bytes" COUNT [] "Memory of the enclave's process; 0 where it cannot be read.";
    FilesOpen "files_open" COUNT [] "Open files and sockets of the enclave's process; 0 where it cannot be read.";
}
