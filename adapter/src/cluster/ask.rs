//! A question to one node. Owns how it is asked and how long it is awaited; what is asked is the caller's.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::adapter::Forget;
use super::message::{Answer, Message};
use super::node::Node;
use super::subject;
use crate::adapter::AdapterError;
use crate::id::NodeTag;

impl Node {
    /// Sends a question that carries this id, and waits for the answer to it. Nothing when none came within `patience`,
    /// or the node died.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        to: NodeTag,
        id: u64,
        question: &Message,
        patience: Duration,
    ) -> Result<Option<Answer>, AdapterError> {
        let _place = self.place()?;
        let done = self.requests.begin(id, [to]);
        let forget = Forget(Arc::clone(self), id);
        self.publish(vec![subject::node(to)], question, None)?;
        // Whoever chose the node may be a turn behind the members.
        self.lost_of(&[to]).into_iter().for_each(|lost| self.requests.node_lost(lost));
        // Either way: what has come.
        let _ = timeout(patience, done).await;
        let outcome = self.requests.finish(id);
        drop(forget);
        Ok(outcome.answers.into_iter().next())
    }
}
