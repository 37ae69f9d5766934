//! Three nodes and rooms of several sizes.

use super::{Error, Options};

pub(crate) async fn run(options: &Options) -> Result<(), Error> {
    let _ = options;
    std::future::ready(()).await;
    Ok(())
}
