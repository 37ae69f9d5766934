//! The processes behind the nodes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::TestCluster;
use super::socket::PATIENCE;
use crate::host::{DrainError, DrainOrder, Drains, Host, NodeState, Standing};
use crate::id::NodeTag;

/// Notes what it is told.
#[derive(Default)]
struct Process {
    connections: u64,
    orders: Mutex<Vec<DrainOrder>>,
}

impl Host for Process {
    fn standing(&self) -> Standing {
        let state = if self.orders.lock().is_empty() { NodeState::Ready } else { NodeState::Draining };
        Standing { state, connections: self.connections }
    }

    fn drain(&self, order: DrainOrder) -> Drains {
        let mut orders = self.orders.lock();
        orders.push(order);
        Drains { already: orders.len() > 1, connections: self.connections }
    }
}

/// A process behind each node, with as many connections as its number says.
fn processes(cluster: &TestCluster) -> Vec<Arc<Process>> {
    let process = |node| {
        let process = Arc::new(Process { connections: node as u64, ..Process::default() });
        cluster.factory(node).set_host(&(Arc::clone(&process) as Arc<dyn Host>));
        process
    };
    (0..cluster.len()).map(process).collect()
}

/// Waits until a node knows this of another one.
async fn knows(cluster: &TestCluster, node: usize, of: NodeTag, standing: Option<Standing>) {
    let knows = || {
        let infos = cluster.factory(node).node_infos();
        infos.iter().find(|info| info.tag == of).is_some_and(|info| info.standing == standing)
    };
    let known = async {
        while !knows() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, known).await.expect("a node does not know how another one is");
}

/// Every node knows how the process behind every node is, for as long as there is one.
pub async fn processes_are_known(cluster: &TestCluster) {
    let mut processes = processes(cluster);
    for node in 0..cluster.len() {
        let standing = Standing { state: NodeState::Ready, connections: node as u64 };
        for asked in 0..cluster.len() {
            knows(cluster, asked, cluster.factory(node).node(), Some(standing)).await;
        }
    }
    drop(processes.remove(0));
    knows(cluster, 1, cluster.factory(0).node(), None).await;
}

/// Any node passes an order to drain to the process that it is for, and to no other.
pub async fn a_process_is_told_to_drain(cluster: &TestCluster) {
    let processes = processes(cluster);
    let (delay, period) = (Some(Duration::from_millis(70)), Some(Duration::from_secs(60)));
    let orders = [DrainOrder::default(), DrainOrder { delay, period }, DrainOrder { delay: None, period }];
    let last = cluster.len() - 1;
    let tag = cluster.factory(last).node();
    for (node, order) in orders.into_iter().enumerate() {
        // Known to the node that is asked, so that it knows whether the other one can be told.
        let state = if node == 0 { NodeState::Ready } else { NodeState::Draining };
        knows(cluster, node, tag, Some(Standing { state, connections: last as u64 })).await;
        let drains = cluster.factory(node).drain(tag, order).await;
        assert_eq!(drains, Ok(Drains { already: node > 0, connections: last as u64 }));
    }
    assert_eq!(*processes[last].orders.lock(), orders);
    assert!(processes[..last].iter().all(|process| process.orders.lock().is_empty()));
    let nobody = "none".parse().unwrap();
    assert_eq!(cluster.factory(0).drain(nobody, DrainOrder::default()).await, Err(DrainError::UnknownNode));
    // Who has no process any more does not drain.
    drop(processes);
    assert_eq!(
        cluster.factory(0).drain(cluster.factory(0).node(), orders[0]).await,
        Err(DrainError::NoAnswer)
    );
}
