//! What nodes tell each other so that they can be asked past the broker.
//!
//! Whoever has something to tell listens on a subject of its own for it, so that nodes of earlier versions hear nothing of
//! it. It is said at the start and with every heartbeat, and to whom it is news says the same of itself at once: two nodes
//! know each other as soon as both have spoken, whichever was first. What was said is kept with the member that it is
//! about, and goes with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::timeout;

use super::interest::Wait;
use super::message::{Identity, Message};
use super::node::Node;
use super::subject;
use crate::id::NodeTag;
use crate::reach::Reach;

impl Node {
    /// Tells the others where this node is reached, from now on. Ready when they have had the time to answer.
    pub(crate) async fn announce_reach(self: Arc<Self>, reach: Reach) {
        let heard = subject::reach();
        self.interests.want(&heard);
        let wait = self.interests.state.lock().wait_for_rooms(&heard, "", &[]);
        if let Wait::Pending(standing) = wait {
            let _ = timeout(self.config.subscribe_timeout, standing).await;
        }
        *self.reach.lock() = Some(reach);
        self.say_reach().await;
        let answered = async {
            loop {
                let news = self.reach_news.notified();
                if !self.is_reach_missing() {
                    return;
                }
                news.await;
            }
        };
        // Some may have nothing to tell.
        let _ = timeout(self.config.discovery, answered).await;
    }

    /// Whether a node that could tell where it is reached has not yet.
    fn is_reach_missing(&self) -> bool {
        let membership = self.membership.lock();
        membership.live().any(|(_, member)| member.reach.is_none() && member.understands_reach())
    }

    /// Says to all where this node is reached, if it is.
    pub(crate) async fn say_reach(&self) {
        let Some(reach) = self.reach.lock().clone() else { return };
        if let Err(error) = self.announce(subject::reach(), &[Message::Reach(reach)]).await {
            tracing::debug!(
                code = error.code(),
                "the others hear with the next heartbeat where this node is"
            );
        }
    }

    /// Another node said where it is reached.
    pub(crate) fn learn_reach(&self, from: Identity, reach: Reach) {
        // Who is known already has been answered: two nodes would go on for ever otherwise.
        if !self.membership.lock().reach(from, reach) {
            return;
        }
        self.reach_news.notify_waiters();
        self.reach_asked.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Tells those who spoke up where this node is. Part of the cluster task.
    pub(crate) async fn answer_reach(&self) {
        if self.reach_asked.swap(false, Ordering::AcqRel) {
            self.say_reach().await;
        }
    }

    /// Where another node is reached that is not gone for good.
    pub(crate) fn reach_of(&self, tag: NodeTag) -> Option<Reach> {
        self.membership.lock().reach_of(tag)
    }
}
