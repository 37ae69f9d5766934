//! Which server is the master, as Sentinels tell it.

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{runtime::Handle, time::Instant};

use super::{
    connection::{Dial, Wire},
    url::Endpoint,
};
use crate::cluster::BusError;

/// How long the others may still answer after the first one has.
const VOTES: Duration = Duration::from_millis(250);

/// The servers that Sentinels name as the master, those that most of them name first. All are asked at the same time, so
/// that one that is away or hangs holds up nobody. The error is that of the Sentinel that answered last.
pub(super) async fn masters(
    runtime: &Handle,
    sentinels: &[Endpoint],
    service: &str,
    dial: &Dial,
) -> Result<Vec<Endpoint>, BusError> {
    let mut asking: FuturesUnordered<_> =
        sentinels.iter().map(|sentinel| ask(runtime, sentinel, service, dial)).collect();
    let mut votes: HashMap<Endpoint, usize> = HashMap::new();
    let mut error = BusError::Unavailable("no Sentinel to ask".into());
    let mut until = Instant::now() + dial.timeout;
    while let Ok(Some(answer)) = tokio::time::timeout_at(until, asking.next()).await {
        match answer {
            Ok(master) => {
                let votes = votes.entry(master).or_default();
                *votes += 1;
                if *votes > sentinels.len() / 2 {
                    break;
                }
                until = until.min(Instant::now() + VOTES);
            }
            // Who refuses us says more than who is not there.
            Err(refused @ BusError::Refused(_)) => error = refused,
            Err(other) if !matches!(error, BusError::Refused(_)) => error = other,
            Err(_) => {}
        }
    }
    let mut masters: Vec<(Endpoint, usize)> = votes.into_iter().collect();
    masters.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    if masters.is_empty() { Err(error) } else { Ok(masters.into_iter().map(|(master, _)| master).collect()) }
}

async fn ask(
    runtime: &Handle,
    sentinel: &Endpoint,
    service: &str,
    dial: &Dial,
) -> Result<Endpoint, BusError> {
    let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", service].map(str::to_owned).to_vec();
    let answer = Wire::ask(runtime, sentinel, dial, question).await?;
    let address = || {
        let [host, port] = answer.list()? else { return None };
        Some(Endpoint { host: host.text()?.to_owned(), port: u16::try_from(port.integer()?).ok()? })
    };
    address().ok_or_else(|| {
        BusError::Unavailable(format!("{sentinel}: the Sentinel knows no master of the name {service:?}"))
    })
}
