use std::{sync::Arc, time::Duration};

use tokio::{
    io::{WriteHalf, split},
    sync::{Mutex, mpsc},
};
use tokio_util::sync::CancellationToken;
use transcode_confidential::protocol::host::{Append, HostError, Reply, Request, VERSION, Welcome};
use transport::{FrameError, FrameReader, FrameWriter, Stream};

use super::{Appends, CutWhen, Shared, kind};

const PATIENCE: Duration = Duration::from_secs(10);

type Replies = Arc<Mutex<FrameWriter<WriteHalf<Stream>>>>;

/// Answers one connection of the host protocol until either side has enough.
pub(super) async fn serve(shared: Arc<Shared>, stream: Stream) {
    let (reader, writer) = split(stream);
    let mut requests = FrameReader::new(reader, PATIENCE);
    let replies: Replies = Arc::new(Mutex::new(FrameWriter::new(writer, PATIENCE)));
    let end = CancellationToken::new();
    let (appends, queue) = mpsc::channel(1024);
    let appending = tokio::spawn(append_in_order(Arc::clone(&shared), queue, Arc::clone(&replies), end.clone()));
    let mut script = shared.script.subscribe();
    let mut session = None;
    let mut staged = Vec::new();
    loop {
        let frame = tokio::select! {
            frame = requests.next() => frame,
            () = end.cancelled() => break,
            _ = script.wait_for(|script| script.gone) => break,
        };
        let Ok(Some(frame)) = frame else { break };
        let Ok((id, request)) = Request::decode(&frame) else { break };
        let cut = shared.count(&request);
        if cut == Some(CutWhen::Before) {
            break;
        }
        let kind = kind(&request);
        let reply = match request {
            Request::Hello { session: number, .. } => {
                let greeted = shared.greet(number, &end);
                session = greeted.is_ok().then_some(number);
                greeted.unwrap_or_else(Reply::Failed)
            }
            _ if session.is_none() => break,
            Request::Stage(records) => {
                staged.extend_from_slice(&records);
                Reply::Done
            }
            Request::Append(mut append) => {
                append.records.splice(0..0, staged.drain(..));
                if appends.try_send((id, append, cut)).is_err() {
                    break;
                }
                continue;
            }
            other => shared.answer(&other),
        };
        if cut.is_some() || send(&replies, shared.frames(kind, id, reply)).await.is_err() {
            break;
        }
    }
    end.cancel();
    let _ = appending.await;
    if let Some(session) = session {
        shared.leave(session, &end);
    }
}

async fn append_in_order(
    shared: Arc<Shared>,
    mut queue: mpsc::Receiver<(u64, Append, Option<CutWhen>)>,
    replies: Replies,
    end: CancellationToken,
) {
    let mut script = shared.script.subscribe();
    loop {
        let next = tokio::select! {
            next = queue.recv() => next,
            () = end.cancelled() => return,
        };
        let Some((id, append, cut)) = next else { return };
        let acting = async {
            let current = script.wait_for(|script| script.appends != Appends::Hold).await.map(|script| script.clone());
            let Ok(current) = current else { return None };
            let _ = tokio::time::timeout(current.delay, script.changed()).await;
            Some(match current.appends {
                Appends::Forget => Ok(append.after),
                Appends::Refuse(error) => Err(error),
                Appends::Keep | Appends::Hold => shared.log().append(&append),
            })
        };
        let outcome = tokio::select! {
            outcome = acting => outcome,
            () = end.cancelled() => return,
        };
        let Some(outcome) = outcome else { return };
        let reply = outcome.map_or_else(Reply::Failed, Reply::Appended);
        if cut.is_some() || send(&replies, shared.frames("append", id, reply)).await.is_err() {
            end.cancel();
            return;
        }
    }
}

async fn send(replies: &Replies, frames: Vec<Vec<u8>>) -> Result<(), FrameError> {
    let mut replies = replies.lock().await;
    for frame in frames {
        replies.send(&frame).await?;
    }
    Ok(())
}

impl Shared {
    fn greet(&self, session: [u8; 16], end: &CancellationToken) -> Result<Reply, HostError> {
        if self.script.borrow().fenced {
            return Err(HostError::Fenced);
        }
        let mut live = self.live.lock().expect("no test panics while it holds this");
        match &*live {
            Some((other, _)) if *other != session => return Err(HostError::Fenced),
            Some((_, old)) => old.cancel(),
            None => {}
        }
        *live = Some((session, end.clone()));
        let durable = self.log().durable();
        Ok(Reply::Welcome(Welcome { version: VERSION, parent: "scripted parent".into(), durable }))
    }

    fn leave(&self, session: [u8; 16], end: &CancellationToken) {
        let mut live = self.live.lock().expect("no test panics while it holds this");
        // A later connection of the same session has another token, which is not cancelled.
        if live.as_ref().is_some_and(|(held, token)| *held == session && token.is_cancelled() && end.is_cancelled()) {
            *live = None;
        }
    }

    fn answer(&self, request: &Request) -> Reply {
        let log = self.log();
        let answer = match request {
            Request::Segments { after } => Ok(Reply::Segments(log.list(*after))),
            Request::Read { name, offset, length } => log.read(*name, *offset, *length).map(Reply::Bytes),
            Request::Quarantine { name, offset } => {
                drop(log);
                self.log().quarantine(*name, *offset).map(|()| Reply::Done)
            }
            Request::Credentials => Ok(Reply::Credentials(self.credentials.clone())),
            Request::Policy { .. } => Ok(Reply::Policy(self.policy())),
            Request::Inclusion { index, size } => log.inclusion(*index, *size).map(Reply::Proof),
            Request::Consistency { old, new } => log.consistency(*old, *new).map(Reply::Proof),
            Request::Ping => Ok(Reply::Done),
            Request::Snapshot => {
                let told = self.script.borrow().snapshot;
                Ok(Reply::Start(told.unwrap_or_else(|| log.snapshot())))
            }
            Request::Restoration => Ok(Reply::Policy(self.restoration())),
            _ => Err(HostError::Refused),
        };
        answer.unwrap_or_else(Reply::Failed)
    }
}
