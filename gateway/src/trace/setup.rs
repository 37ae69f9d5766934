//! From the settings to a tracer, and its end. Owns what a build without traces says.

use std::sync::Arc;
use std::time::Duration;

use super::Tracer;
use crate::config;
use crate::metrics::Metrics;

/// Why there are no traces, though the configuration wants some.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// They are not compiled in.
    #[error("an endpoint for traces is set, and this build has no traces: build with --features otlp")]
    NotCompiledIn,
    /// The collector cannot be used as it is configured.
    #[error("trace: {0}")]
    Collector(String),
}

impl TraceError {
    /// A stable name for logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotCompiledIn => "trace_not_compiled_in",
            Self::Collector(_) => "trace_collector",
        }
    }
}

/// Traces while the node runs.
pub(crate) struct Tracing {
    pub(crate) tracer: Tracer,
    #[cfg(feature = "otlp")]
    export: Option<super::otlp::Export>,
}

/// Starts traces, where they are configured.
pub(crate) fn start(settings: &config::Trace, metrics: &Arc<Metrics>) -> Result<Tracing, TraceError> {
    let Some(url) = settings.url() else {
        return Ok(Tracing {
            tracer: Tracer::default(),
            #[cfg(feature = "otlp")]
            export: None,
        });
    };
    #[cfg(feature = "otlp")]
    return super::otlp::start(settings, url, metrics)
        .map(|(tracer, export)| Tracing { tracer, export: Some(export) });
    #[cfg(not(feature = "otlp"))]
    {
        let _ = (url, metrics);
        Err(TraceError::NotCompiledIn)
    }
}

impl Tracing {
    /// Sends what is left, for a while at most.
    pub(crate) async fn end(self, at_most: Duration) {
        #[cfg(feature = "otlp")]
        if let Some(export) = self.export {
            export.end(at_most).await;
        }
        #[cfg(not(feature = "otlp"))]
        let _ = at_most;
    }
}

#[cfg(all(test, not(feature = "otlp")))]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_traces_says_so() {
        let (metrics, endpoint) = (Arc::default(), Some("http://127.0.0.1:4318".to_owned()));
        let wanted = config::Trace { endpoint, ..config::Trace::default() };
        let refused = start(&wanted, &metrics).map(|_| ()).unwrap_err();
        assert_eq!(refused.code(), "trace_not_compiled_in");
        assert!(start(&config::Trace::default(), &metrics).is_ok());
    }
}
