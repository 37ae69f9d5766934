//! Acting on a reply: what a backend says in its answer is done, so that it needs no second call.
//!
//! Owns the order: leave, join, state, emit, ack, end. What cannot be done is logged and does not stop the rest: the
//! backend's own decision stands.

use roomcast_adapter::TraceContext;
use serde_json::Value;
use serde_json::value::RawValue;

use super::reply::Disconnect;
use super::{Admission, BackendError, Events, Reply};
use crate::backend::calls::{Caller, Emit};
use crate::backend::clients::Member;
use crate::namespace::{Ack, Socket};
use roomcast_protocol::socketio::Args;

/// What a client reads in `connect_error` when its backend refuses it, or could not be asked.
pub(super) fn refusal(error: &BackendError) -> crate::Refusal {
    let of_ours = || serde_json::json!({ "code": error.code(), "status": error.status() });
    match error {
        BackendError::Refused(refusal) => {
            let message = refusal.message.clone().unwrap_or_else(|| refusal.code.clone());
            crate::Refusal::new(message).with_data(refusal.problem.clone().unwrap_or_else(of_ours))
        }
        other => crate::Refusal::new(other.to_string()).with_data(of_ours()),
    }
}

/// Gives the client the ack of a reply; without one it has no arguments.
pub(super) fn acknowledge(ack: &Ack, args: Option<&[Value]>) {
    let args = Args::from_json_values(args.unwrap_or_default().to_vec());
    let _ = match args {
        Ok(args) => ack.send(args),
        Err(_) => ack.refuse("backend_invalid_reply", 502),
    };
}

/// Ends a socket as a reply says.
pub(super) fn end(socket: &Socket, ending: Option<bool>) {
    if let Some(close) = ending {
        socket.disconnect(close);
    }
}

impl Events {
    /// Lets a client in as a backend says.
    pub(super) async fn admit(
        &self,
        socket: &Socket,
        reply: &Reply,
        trace: Option<TraceContext>,
    ) -> Admission {
        let expires_at = reply.expires_at.as_ref().and_then(|expiry| expiry.time());
        // A verified token goes over what a backend says.
        let is_known = Member::of(socket).is_some_and(|member| member.user.is_some());
        if let Some(user) = reply.user.as_ref().filter(|user| !user.is_empty() && !is_known) {
            // The room of the user comes with being let in.
            Member::update(socket, |member| member.user = Some(user.as_str().into()));
        }
        if expires_at.is_some() {
            Member::update(socket, |member| member.expires_at = expires_at);
        }
        if reply.disconnect.and_then(Disconnect::close).is_some() {
            return Err(crate::Refusal::new("forbidden")
                .with_data(serde_json::json!({ "code": "forbidden", "status": 403 })));
        }
        let _ = self.act_but_end(socket, reply, trace).await;
        Ok(())
    }

    /// Does what a reply says.
    pub(super) async fn act(&self, socket: &Socket, reply: &Reply, trace: Option<TraceContext>) {
        let ending = self.act_but_end(socket, reply, trace).await;
        end(socket, ending);
    }

    /// Does what a reply says but ending the socket: whether to, and with its connection.
    pub(super) async fn act_but_end(
        &self,
        socket: &Socket,
        reply: &Reply,
        trace: Option<TraceContext>,
    ) -> Option<bool> {
        let own = socket.id();
        for room in reply.leave.iter().flatten().filter(|room| **room != *own.as_str()) {
            socket.leave(room);
        }
        let join: Vec<_> = reply.join.iter().flatten().filter(|room| !room.is_empty()).cloned().collect();
        if !join.is_empty()
            && let Err(error) = socket.join(join).await
        {
            tracing::warn!(code = error.code(), "a backend's reply could not make a socket join its rooms");
        }
        if let Some(state) = &reply.state {
            let state = (!state.is_null()).then(|| state.clone().into());
            Member::update(socket, |member| member.state = state);
        }
        for emit in reply.emit.iter().flatten() {
            if let Err(detail) = self.emit(socket, emit, trace).await {
                tracing::warn!(detail, "a backend's reply has an emit that cannot be done");
            }
        }
        reply.disconnect.and_then(Disconnect::close)
    }

    async fn emit(
        &self,
        socket: &Socket,
        emit: &RawValue,
        trace: Option<TraceContext>,
    ) -> Result<(), String> {
        let emit: Emit = serde_json::from_str(emit.get()).map_err(|error| error.to_string())?;
        let emit = emit.within(socket.namespace_inner().name()).map_err(|problem| problem.detail)?;
        self.calls.emit(&Caller::unlimited(), emit, trace).await.map(drop).map_err(|problem| problem.detail)
    }
}

impl Disconnect {
    /// Whether to end the socket, and then whether with its connection.
    fn close(self) -> Option<bool> {
        match self {
            Self::Plain(end) => end.then_some(false),
            Self::Detailed { close } => Some(close),
        }
    }
}
