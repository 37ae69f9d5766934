//! What a node keeps, for those who look for what is kept too long.

use super::ClusterFactory;

/// The sizes of a node's tables.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Subjects that are wanted or subscribed, the node's own among them.
    pub(crate) subjects: usize,
    pub(crate) requests: usize,
    pub(crate) collectors: usize,
    pub(crate) relays: usize,
    pub(crate) ready_relays: usize,
    pub(crate) greeters: usize,
    pub(crate) waiters: usize,
    pub(crate) publications: usize,
}

impl Kept {
    /// True when a node without rooms and without requests keeps more than it needs.
    pub(crate) fn is_something(&self) -> bool {
        let own_subjects = 3;
        let Self { requests, collectors, relays, ready_relays, greeters, waiters, .. } = self;
        let others = requests + collectors + relays + ready_relays + greeters + waiters;
        // The directory always has something to say, and little.
        self.subjects != own_subjects || others > 0 || self.publications > 64
    }
}

impl ClusterFactory {
    pub(crate) fn kept(&self) -> Kept {
        let node = self.in_the_cluster();
        let interest = node.interests.state.lock();
        Kept {
            subjects: interest.len(),
            waiters: interest.waiters(),
            requests: node.requests.len(),
            collectors: node.collectors.lock().len(),
            relays: node.relays.lock().len(),
            ready_relays: node.ready_relays.lock().len(),
            greeters: node.greeters.lock().len(),
            publications: node.outbox.len(),
        }
    }
}
